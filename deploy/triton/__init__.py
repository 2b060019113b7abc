"""Triton model repositories: what `srup export --triton` writes.

`repository` writes one, `config` is the text of its configurations, `plans` are the TensorRT plans that fit
into one. `tiled_model` runs inside the server.
"""

from deploy.triton.plans import ServedPlans, served_plans
from deploy.triton.repository import RepositorySpec, write_repository

__all__ = ["RepositorySpec", "ServedPlans", "served_plans", "write_repository"]
