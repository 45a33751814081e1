"""What the backends of diffusers' pipelines share; a family of models adds a page."""
