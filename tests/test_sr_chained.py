"""Several models in turn: the pixels of one after the other, sizes, names, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sr.cli import main
from sr.errors import TilingError
from sr.image import Picture, read_picture, write_picture
from sr.network.modelfile import files_digest, shipped_onnx
from sr.sized import ChainedUpscaler, SizedUpscaler, Upscaling
from sr.sizing import SizeRequest
from sr.upscale import Upscaler
from tests.foreign import Convention, write_network

TWO, THREE = shipped_onnx(scale=2), shipped_onnx(scale=3)
CPU = {"backend": "onnx", "device": "cpu"}


@pytest.fixture(scope="module")
def lr() -> np.ndarray:
    """Return noise, (12, 15, 3)."""
    return np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)


def test_a_chain_is_one_network_after_the_other(lr):
    alpha = np.full(lr.shape[:2], 200, np.uint8)
    alpha[:4] = 0
    with Upscaler(model=TWO, **CPU) as two, Upscaler(model=THREE, **CPU) as three:
        expected, expected_alpha = three.upscale(*two.upscale(lr, alpha))
        opaque = three(two(lr))
    with ChainedUpscaler([TWO, THREE], **CPU) as chain:
        seen = []
        made = chain.picture(Picture(lr, alpha), progress=lambda done, total: seen.append((done, total)))
        assert np.array_equal(made.pixels, expected)
        assert np.array_equal(made.alpha, expected_alpha)
        assert np.array_equal(chain(lr), opaque)
        assert (chain.scale, chain.label, chain.output_size(12, 15)) == (6, "x6", (72, 90))
        assert seen[-1] == (chain.tile_count(12, 15),) * 2
        assert chain.working_bytes(12, 15, 3) == 24 * 30 * 10 * 3, "input and output of the second"
        assert len(chain.backends) == 2


def test_exact_sizes_are_reached_from_a_chain(lr):
    with SizedUpscaler(SizeRequest(long_side=40), models=(TWO, TWO), **CPU) as sized:
        assert sized(lr).shape == (32, 40, 3)


def test_a_scale_that_the_models_do_not_have_together_is_refused():
    with pytest.raises(TilingError, match=r"by 6 together, not by 4"):
        ChainedUpscaler([TWO, THREE], scale=4, **CPU)


def test_outputs_depend_on_all_models_and_their_order():
    chain, other = Upscaling(models=(TWO, THREE)), Upscaling(models=(THREE, TWO))
    assert chain.label == other.label == "x6"
    assert chain.identity != other.identity
    assert files_digest([TWO, THREE])[:16] in chain.identity


@pytest.mark.slow
@pytest.mark.usefixtures("model_cache")
def test_the_command_repairs_and_then_upscales(lr, tmp_path):
    first = write_network(tmp_path / "1x_repair.onnx", Convention(scale=1))
    second = write_network(tmp_path / "4x_foo.onnx", Convention(scale=4))
    write_picture(tmp_path / "in.png", Picture(lr))
    models = ["--model", str(first), "--model", str(second)]
    run = CliRunner().invoke(main, ["upscale", str(tmp_path / "in.png"), *models])
    assert run.exit_code == 0, run.output
    with Upscaler(model=first, **CPU) as repair, Upscaler(model=second, **CPU) as upscaler:
        assert np.array_equal(read_picture(tmp_path / "in_x4.png").pixels, upscaler(repair(lr)))
    refused = CliRunner().invoke(main, ["upscale", str(tmp_path / "in.png"), *models, "--model-order", "BGR"])
    assert refused.exit_code == 2
    alone = CliRunner().invoke(main, ["upscale", str(tmp_path / "in.png"), *models[:2]])
    assert alone.exit_code == 0, alone.output
    assert Path(tmp_path / "in_x1.png").is_file(), "a network of scale 1 keeps the size"
