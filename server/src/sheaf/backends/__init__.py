"""Model backends: what their authors write against, and one module for each model.

`base`, `stepwise`, `loops`, `contexts`, `owners`, `operations` and `declared` are for authors. Every other
public module is a model: its settings, and how it is loaded; none imports its library before `load`. Behind
them lie `_shared` (knows no contract), `_families` (what models of one contract share) and `_models` (what of
one model does not fit into its module). Models import families, families what is shared, no model another.
"""
