"""Code of single models that does not fit into their public modules; it may import their libraries."""
