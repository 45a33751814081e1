"""What the backends of `tabular` share: reading tables, and fitting each context once for all who ask it."""
