"""The fold of a trained network into its deployed form, as export applies it.

`sr.network.deployed` owns the arithmetic, because the torch backend needs it as well.
"""

from sr.network.deployed import fold

__all__ = ["fold"]
