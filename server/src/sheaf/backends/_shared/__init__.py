"""What backends of any contract share; nothing here knows one."""
