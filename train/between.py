"""Training a partner at the strengths of its pair: with weights between those of the base and its own.

The weights of a strength are (1 - strength) * base + strength * own (`sr.network.pair`). A partner that is
trained at strength 1 alone leaves the networks between to chance.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from sr.errors import TrainingError
from sr.network.checkpoint import load_weights
from sr.network.pair import STRENGTHS

# Share of the steps at strength 1, which damage is heaviest at; the others share the rest.
_FULL_SHARE = 0.5
_BETWEEN = tuple(strength for strength in STRENGTHS if 0 < strength < 1)


class Between:
    """Moves a network to a strength, and gradients back to its own weights."""

    def __init__(self, base: Path, model: nn.Module) -> None:
        """Take the weights of the base.

        Raises:
            ModelError: they cannot be read.
            TrainingError: they are of another network.
        """
        weights = load_weights(base).build()
        found, self._own = dict(weights.named_parameters()), dict(model.named_parameters())
        shapes = {name: value.shape for name, value in self._own.items()}
        if {name: value.shape for name, value in found.items()} != shapes:
            raise TrainingError(f"{base}: weights of another network; the base of a pair has the same one")
        self._base: dict[str, Tensor] = {
            name: found[name].detach().to(own.device, own.dtype) for name, own in self._own.items()
        }

    @contextmanager
    def at(self, strength: float) -> Iterator[None]:
        """Give the network the weights of a strength, and its gradients the share of its own in them."""
        if strength == 1:
            yield
            return
        kept = {name: own.detach().clone() for name, own in self._own.items()}
        with torch.no_grad():
            for name, own in self._own.items():
                own.lerp_(self._base[name], 1 - strength)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, own in self._own.items():
                    own.copy_(kept[name])
                    if own.grad is not None:
                        own.grad.mul_(strength)


def strength_of(step: int, *, seed: int) -> float:
    """Return the strength of a step, the same in all processes and after resuming."""
    chance = random.Random(f"{seed} {step}")
    return 1.0 if chance.random() < _FULL_SHARE else chance.choice(_BETWEEN)
