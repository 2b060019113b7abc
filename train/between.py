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

from sr.errors import TrainingError
from sr.network.checkpoint import load_weights
from sr.network.model import SRNet
from sr.network.pair import STRENGTHS

# Share of the steps at strength 1, which is for the heaviest damage; the others share the rest.
_FULL_SHARE = 0.5
_BETWEEN = tuple(strength for strength in STRENGTHS if 0 < strength < 1)


class Between:
    """The base of a pair: moves its partner to a strength, and gradients back to the partner's weights."""

    def __init__(self, base: Path, device: torch.device) -> None:
        """Take the weights of the base.

        Raises:
            ModelError: they cannot be read.
        """
        self._path, parameters = base, load_weights(base).build().named_parameters()
        self._base = {name: value.detach().to(device) for name, value in parameters}

    def check(self, model: SRNet) -> None:
        """Check that the base fits a network.

        Raises:
            TrainingError: it is that of another network, or the network has weight norm.
        """
        if model.config.norm == "weight":  # kernels between are not those of directions and lengths between
            raise TrainingError("--pair-base needs --norm none: weights of a pair are mixed kernel by kernel")
        shapes = {name: value.shape for name, value in model.named_parameters()}
        if {name: value.shape for name, value in self._base.items()} != shapes:
            raise TrainingError(
                f"{self._path}: weights of another network; the base of a pair is the same network"
            )

    @contextmanager
    def at(self, model: SRNet, strength: float) -> Iterator[None]:
        """Give a network the weights of a strength, and its gradients the share of its own in them."""
        if strength == 1:
            yield
            return
        owned = dict(model.named_parameters())
        kept = {name: own.detach().clone() for name, own in owned.items()}
        with torch.no_grad():
            for name, own in owned.items():
                own.lerp_(self._base[name], 1 - strength)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, own in owned.items():
                    own.copy_(kept[name])
                    if own.grad is not None:
                        own.grad.mul_(strength)


def strength_of(step: int, *, seed: int) -> float:
    """Return the strength of a step, the same in all processes and after resuming."""
    chance = random.Random(f"{seed} {step}")
    return 1.0 if chance.random() < _FULL_SHARE else chance.choice(_BETWEEN)
