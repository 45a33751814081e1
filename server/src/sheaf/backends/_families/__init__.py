"""What the backends of one contract share, whatever their library."""
