"""Pairs and patches from hr pictures: `srup prepare`."""

from train.prepare.make import Prepared, PreparedList, prepare
from train.prepare.plan import PrepareSpec

__all__ = ["PrepareSpec", "Prepared", "PreparedList", "prepare"]
