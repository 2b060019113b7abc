"""Muon: its steps for kernels and for other parameters."""

import pytest
import torch
from torch import nn

from train.muon import Muon


def network(memory_format: torch.memory_format) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, (1, 3)), nn.BatchNorm2d(5)
    )
    return layers.to(memory_format=memory_format)


def optimizer(model: nn.Module, weight_decay: float = 0.0) -> Muon:
    return Muon(model.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=weight_decay)


def step(model: nn.Module, muon: Muon) -> None:
    torch.manual_seed(1)
    muon.zero_grad()
    model(torch.rand(2, 3, 6, 7)).square().mean().backward()
    muon.step()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kernels_take_orthogonal_steps_and_the_rest_those_of_adam(
    memory_format: torch.memory_format,
) -> None:
    model, reference = network(memory_format), network(memory_format)
    before = [p.detach().clone() for p in model.parameters()]
    step(model, optimizer(model))
    adam = torch.optim.Adam(reference.parameters(), lr=0.01, betas=(0.9, 0.99))
    step(reference, adam)  # type: ignore[arg-type]
    for new, old, of_adam in zip(model.parameters(), before, reference.parameters(), strict=True):
        if new.ndim == 1:
            torch.testing.assert_close(new, of_adam)
            continue
        matrix = (old - new).flatten(1).detach()
        # Five iterations leave the singular values between 0.7 and 1.2, not at 1 (Jordan et al.).
        values = torch.linalg.svdvals(matrix) / (0.01 * 0.2 * max(matrix.shape) ** 0.5)
        assert values.min() > 0.6
        assert values.max() < 1.3


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim has Muon since 2.9")
def test_several_steps_are_those_of_torch() -> None:
    torch.manual_seed(0)
    shapes = [(8, 3, 3, 3), (8, 3, 3, 3), (8, 3, 9, 1), (5, 8, 1, 3), (64, 16, 1, 1)]
    kernels = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    matrices = [nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in kernels]
    bias = nn.Parameter(torch.zeros(8))
    ours = Muon([*kernels, bias], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    theirs = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    before = [matrix.detach().clone() for matrix in matrices]
    for _ in range(5):
        for kernel, matrix in zip(kernels, matrices, strict=True):
            matrix.grad = torch.randn_like(matrix)
            kernel.grad = matrix.grad.view_as(kernel).clone()
        ours.step()
        theirs.step()
    for kernel, matrix, start in zip(kernels, matrices, before, strict=True):
        moved = (matrix - start).norm()
        # torch iterates in bf16.
        assert (kernel.flatten(1) - matrix).norm() < 0.04 * moved


def test_a_step_starts_from_a_kernel_changed_from_outside() -> None:
    model = network(torch.contiguous_format)
    muon = optimizer(model)
    with torch.no_grad():
        model[0].weight.fill_(7.0)  # type: ignore[index, union-attr]
    step(model, muon)
    assert (model[0].weight - 7).abs().max() < 0.1  # type: ignore[index, union-attr]


def test_weight_decay_shrinks_everything() -> None:
    model = network(torch.contiguous_format)
    muon = optimizer(model, weight_decay=10.0)
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    muon.step()
    for new, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(new.detach(), old * 0.9)


def test_a_closure_is_refused() -> None:
    with pytest.raises(TypeError):
        optimizer(network(torch.contiguous_format)).step(lambda: 0.0)
