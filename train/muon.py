"""Muon for convolutional networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Muon for the kernels of convolutions, each as one matrix (out, in * kh * kw), and Adam for the rest.

    The matrices are `torch.optim.Muon`'s (Jordan et al., https://kellerjordan.github.io/posts/muon/).
    Its steps are scaled to those of Adam (arXiv 2502.16982, section 2.2), so one learning rate serves both.
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
        self._matrices = [nn.Parameter(p.detach().flatten(1).clone()) for p in kernels]
        self._inner = (
            torch.optim.Muon(
                self._matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay),
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Do one step with the learning rates in `param_groups`; a closure is not supported."""
        if closure is not None:
            raise TypeError("Muon takes no closure")
        kernels = self.param_groups[0]["params"]
        for kernel, matrix in zip(kernels, self._matrices, strict=True):
            matrix.copy_(kernel.flatten(1))
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for ours, inner in zip(self.param_groups, self._inner, strict=True):
            inner.param_groups[0]["lr"] = ours["lr"]
            inner.step()
        for kernel, matrix in zip(kernels, self._matrices, strict=True):
            kernel.copy_(matrix.view_as(kernel))

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both optimizers."""
        return {"muon": self._inner[0].state_dict(), "adam": self._inner[1].state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the states of both optimizers.

        Raises:
            KeyError, ValueError: they are those of something else.
        """
        for name, inner in zip(("muon", "adam"), self._inner, strict=True):
            inner.load_state_dict(state_dict[name])
