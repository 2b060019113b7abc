"""Muon for convolutional networks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

# Those of Jordan et al. and of torch.optim.Muon.
_MOMENTUM = 0.95
_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon for the kernels of convolutions, each as one matrix (out, in * kh * kw), and Adam for the rest.

    The steps are those of `torch.optim.Muon` (Jordan et al., https://kellerjordan.github.io/posts/muon/).
    Matrices of one shape are computed together: a small network has dozens of them, and one by one they
    took a third of a training step on a CPU. The steps are scaled to those of Adam (arXiv 2502.16982,
    section 2.2), so one learning rate serves both.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float = 0.0,
    ) -> None:
        """Take the parameters to train; `betas` are Adam's, `weight_decay` is decoupled in both."""
        parameters = list(parameters)
        kernels = [p for p in parameters if p.ndim > 2 and min(p.shape[0], p[0].numel()) > 1]
        chosen = {id(p) for p in kernels}
        rest = [p for p in parameters if id(p) not in chosen]
        super().__init__([{"params": kernels}, {"params": rest}], {"lr": lr, "weight_decay": weight_decay})
        alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for p in kernels:
            alike[p.shape[0], p[0].numel()].append(p)
        self._alike = list(alike.values())
        # One (N, out, in * kh * kw) for each shape.
        self._momenta = [torch.stack([torch.zeros_like(p).flatten(1) for p in ps]) for ps in self._alike]
        self._adam = torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay, foreach=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Do one step with the learning rates in `param_groups`; a closure is not supported."""
        if closure is not None:
            raise TypeError("Muon takes no closure")
        kernels, rest = self.param_groups
        for alike, momenta in zip(self._alike, self._momenta, strict=True):
            _step(alike, momenta, lr=kernels["lr"], weight_decay=kernels["weight_decay"])
        self._adam.param_groups[0]["lr"] = rest["lr"]
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the momenta and Adam's state."""
        return {"muon": self._momenta, "adam": self._adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the momenta and Adam's state.

        Raises:
            KeyError, ValueError, TypeError, RuntimeError: they are those of something else.
        """
        for momenta, saved in zip(self._momenta, state_dict["muon"], strict=True):
            momenta.copy_(saved)
        self._adam.load_state_dict(state_dict["adam"])


def _step(kernels: list[Tensor], momenta: Tensor, *, lr: float, weight_decay: float) -> None:
    """Move kernels of one shape, all of which have gradients."""
    gradients = torch.stack([cast(Tensor, p.grad).flatten(1) for p in kernels])
    momenta.lerp_(gradients, 1 - _MOMENTUM)
    update = _orthogonalised(gradients.lerp_(momenta, _MOMENTUM))
    rate = lr * 0.2 * math.sqrt(max(update.shape[1:]))
    if weight_decay:
        torch._foreach_mul_(kernels, 1 - lr * weight_decay)
    torch._foreach_add_(kernels, [u.view_as(p) for u, p in zip(update, kernels, strict=True)], alpha=-rate)


def _orthogonalised(matrices: Tensor) -> Tensor:
    """Move the singular values of matrices (N, A, B) towards one, by Newton-Schulz iterations."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=_EPSILON)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
