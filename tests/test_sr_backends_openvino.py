"""Backend openvino, the real one: what it computes, that tiles match in any precision, what it refuses."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")

from sr.backends import BackendRequest, open_backend
from sr.backends.openvino import IN_FLIGHT, OpenVinoBackend, load_openvino
from sr.backends.ort import OrtBackend
from sr.errors import BackendError, MissingExtraError, ModelError
from sr.image import read_picture
from sr.metrics import psnr
from sr.network.descriptor import Precision
from sr.network.modelfile import SHIPPED_DIR, shipped_onnx
from sr.upscale import Upscaler

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "osprey.png"
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")


def has_bf16() -> bool:
    return "BF16" in load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return read_picture(EXAMPLE).pixels[60:220, 120:320]


@pytest.fixture(params=PRECISIONS)
def precision(request) -> Precision:
    if request.param == "bf16" and not has_bf16():
        pytest.skip("this processor has no bf16")
    return request.param


def batches(count: int, dtype: type = np.uint8) -> list[np.ndarray]:
    """Return batches of several shapes, one of which is no contiguous array."""
    noise = np.random.default_rng(0)
    largest = np.iinfo(dtype).max
    made = [
        noise.integers(0, largest, (1 + index % 2, 12 + index, 20, 3), dtype, endpoint=True)
        for index in range(count)
    ]
    return [*made[:-1], made[-1][:, ::-1]]


@pytest.mark.parametrize(
    ("io", "dtype"), [("uint8", np.uint8), ("float32", np.uint8), ("float32", np.uint16)]
)
def test_it_computes_what_onnx_runtime_does_in_order(io, dtype):
    given = batches(2 * IN_FLIGHT + 1, dtype)
    model = shipped_onnx(scale=3, io=io)
    with OpenVinoBackend(model) as backend, OrtBackend(model, device="cpu") as reference:
        assert backend.info.sixteen_bit == reference.info.sixteen_bit
        for found, expected in zip(backend.run(given), reference.run(given), strict=True):
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
            # In 16 bits a level is 256 times as fine as float32 kernels that sum in another order need.
            largest = 1 if dtype == np.uint8 else 8
            assert np.abs(found.astype(int) - expected.astype(int)).max() <= largest


def test_int8_is_what_the_file_says_whoever_computes_it(photograph):
    """ONNX Runtime computes the same integers; what is float may be bf16 in OpenVINO."""
    model = shipped_onnx(scale=2, precision="int8")
    with OpenVinoBackend(model) as backend, OrtBackend(model, device="cpu") as reference:
        (found,), (expected,) = backend.run([photograph[None]]), reference.run([photograph[None]])
    assert psnr(found[0], expected[0]) > 50


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_low_precisions_are_close_to_float32(photograph, precision, scale):
    with Upscaler(scale=scale) as reference, Upscaler(scale=scale, precision=precision) as upscaler:
        assert upscaler.backend.info.model.precision == precision
        assert psnr(upscaler(photograph), reference(photograph)) > 50


def test_tiles_equal_the_whole_picture_bit_by_bit(photograph, precision):
    """In bf16 and int8 with the whole receptive field as halo, whatever the tiles' shape."""
    with Upscaler(scale=3, backend="openvino", precision=precision, tile=400) as upscaler:
        whole = upscaler(photograph)
    for tile in (108, 125):
        with Upscaler(scale=3, backend="openvino", precision=precision, tile=tile) as upscaler:
            assert upscaler.tile_count(*photograph.shape[:2]) > 1
            tiled = upscaler(photograph)
        apart = np.abs(tiled.astype(int) - whole.astype(int))
        if precision == "fp32":
            assert apart.max() <= 1
            assert np.mean(apart > 0) <= 1e-4
        else:
            assert upscaler.spec.halo == upscaler.backend.info.model.receptive_field_radius
            assert apart.max() == 0


def test_a_halo_that_suffices_in_float32_would_not_do_in_bf16(photograph):
    """The reason for the wider one: without it the test above would have to fail."""
    if not has_bf16():
        pytest.skip("this processor has no bf16")
    settings = {"scale": 3, "backend": "openvino", "precision": "bf16"}
    with Upscaler(**settings, tile=400) as one, Upscaler(**settings, tile=84, halo=13) as tiled:
        assert np.mean(one(photograph) != tiled(photograph)) > 1e-4


def test_16_bits_are_computed_in_float32(photograph):
    deep = photograph.astype(np.uint16) * 257
    with Upscaler(scale=2, backend="openvino") as upscaler, Upscaler(scale=2) as reference:
        assert np.abs(upscaler(deep).astype(int) - reference(deep).astype(int)).max() <= 8
        assert [backend.info.name for backend in upscaler.backends] == ["openvino"] * 2
    with (
        Upscaler(scale=2, precision="int8") as upscaler,
        pytest.raises(BackendError, match=r"int8.*16.*--precision fp32"),
    ):
        upscaler(deep)


def test_what_is_left_when_the_consumer_stops_is_waited_for():
    with OpenVinoBackend(shipped_onnx(scale=2)) as backend:
        results = backend.run(iter(batches(5)))
        next(results)
        results.close()
        assert len(list(backend.run(batches(3)))) == 3


def test_a_batch_that_it_cannot_compute_is_an_error_of_ours():
    with (
        OpenVinoBackend(shipped_onnx(scale=2)) as backend,
        pytest.raises(BackendError, match=r"OpenVINO.*\(1, 8, 8, 4\)"),
    ):
        list(backend.run([np.zeros((1, 8, 8, 4), np.uint8)]))


@pytest.mark.parametrize(
    ("file", "precision", "error", "match"),
    [
        ("small_x3_fp32_uint8.onnx", "int8", BackendError, r"fp32.*int8.*srup export"),
        ("small_x3_fp16_uint8.onnx", None, BackendError, r"fp16.*fp32, bf16"),
        ("small_x3_int8_uint8.onnx", "fp32", BackendError, r"int8.*fp32"),
        ("small_x3.safetensors", None, ModelError, "ONNX"),
        ("none.onnx", None, ModelError, r"none\.onnx"),
        ("README.md", None, ModelError, "ONNX"),
    ],
)
def test_models_that_do_not_fit_are_refused(file, precision, error, match):
    with pytest.raises(error, match=match):
        OpenVinoBackend(SHIPPED_DIR / file, precision=precision)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(shipped_onnx(scale=2).read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"damaged\.onnx: "):
        OpenVinoBackend(damaged)
    onnx = pytest.importorskip("onnx")
    foreign = tmp_path / "foreign.onnx"
    model = onnx.load(shipped_onnx(scale=2))
    del model.metadata_props[:]
    onnx.save(model, foreign)
    with pytest.raises(ModelError, match=r"foreign\.onnx: "):
        OpenVinoBackend(foreign)


def test_it_runs_on_the_cpu_only_and_names_its_extra(monkeypatch):
    with pytest.raises(BackendError, match=r"openvino.*CPU.*--device"):
        open_backend("openvino", BackendRequest(2, device="cuda"))
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "openvino" else real(name, *rest)
    )
    with pytest.raises(MissingExtraError, match=r'pip install "srup\[openvino\]"'):
        open_backend("openvino", BackendRequest(2))
    with pytest.raises(MissingExtraError, match=r'pip install "srup\[openvino\]"'):
        open_backend("auto", BackendRequest(2, precision="int8"))
