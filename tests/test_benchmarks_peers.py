"""The peers' networks have the published parameters and multiply-adds."""

import importlib.util

import numpy as np
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.lib.peers import LUMA, NETWORKS, peer_onnx, published
from sr.network.ends import INPUT_NAME

OF_SPANDREL = {"SAFMN", "SPAN"}


def skip_without_spandrel(peer: str) -> None:
    if peer in OF_SPANDREL and importlib.util.find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("peer", NETWORKS)
def test_parameters_are_the_published_ones(peer: str, scale: int) -> None:
    skip_without_spandrel(peer)
    said = published(peer, scale=scale).params
    named = NETWORKS[peer](scale).named_parameters()
    # FSRCNN's paper counts the weights of convolutions alone.
    has = sum(p.numel() for _, p in named if peer != "FSRCNN" or p.ndim == 4)
    if said is not None:
        assert has == pytest.approx(said, rel=0.01 if peer != "FSRCNN" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("peer", NETWORKS)
def test_multiply_adds_are_the_published_ones(peer: str, scale: int) -> None:
    skip_without_spandrel(peer)
    said = published(peer, scale=scale).macs_720p_g
    net, lr = NETWORKS[peer](scale).eval(), torch.zeros(1, 1 if peer in LUMA else 3, 24, 32)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        output = net(lr)
    assert output.shape[2:] == (24 * scale, 32 * scale)
    output_px = output.shape[2] * output.shape[3]
    macs = counter.get_total_flops() / 2
    if peer == "FSRCNN":  # its deconvolution is published as if every output pixel saw the whole kernel
        macs += 81 * 56 * (output_px - lr[0, 0].numel())
    if said is not None:
        assert macs / output_px * 1280 * 720 / 1e9 == pytest.approx(said, rel=0.04)  # SAFMN gives no decimals


@pytest.mark.slow
def test_safmn_becomes_a_graph_that_runs() -> None:
    """The exporter has no adaptive pooling, which it uses."""
    skip_without_spandrel("SAFMN")
    model = peer_onnx("SAFMN", scale=3, height=24, width=32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (sr,) = session.run(None, {INPUT_NAME: np.full((1, 24, 32, 3), 128, np.uint8)})
    assert sr.dtype == np.uint8
    assert sr.shape == (1, 72, 96, 3)


def test_every_figure_has_its_source() -> None:
    for peer in NETWORKS:
        for scale in (2, 3, 4):
            figures = published(peer, scale=scale)
            assert figures.source
            assert (figures.set5 is None) == (figures.set14 is None)
    assert sum(published(peer, scale=3).set14 is None for peer in NETWORKS) == 2
