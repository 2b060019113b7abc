"""Training losses by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from sr.errors import TrainingError

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "smooth_l1": F.smooth_l1_loss,
}


def loss_from_name(name: str) -> Loss:
    """Return the loss `f(sr, hr)`: two (N, C, H, W) tensors to their mean loss, a scalar.

    Raises:
        TrainingError: there is no such loss.
    """
    if name not in LOSSES:
        raise TrainingError(f"there is no loss {name!r}; the losses are {', '.join(LOSSES)}")
    return LOSSES[name]
