"""Triton model repositories: what `srup export --triton` writes, and what then runs in the server.

`repository` writes one, `config` is the text of its configurations, `plans` are the TensorRT plans that fit
into one. `model` is copied into it and loads `tiled_model`, in the server's own Python.
"""
