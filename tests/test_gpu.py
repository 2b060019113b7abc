"""On a real GPU, for each TensorRT that is installed: build, run, parity with the CPU, memory.

Skipped where there is none. `bin/gpu-check` runs these and those of engines, and leaves a report.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.engines.build import build_engine
from deploy.foreign import onnx_from_others
from deploy.verify import difference
from sr.backends import BACKENDS, BackendRequest
from sr.backends.available import missing_requirements
from sr.backends.gpus import visible_gpus
from sr.backends.ort import OrtBackend
from sr.backends.parity import MIN_PSNR_DB
from sr.backends.tensorrt.backend import TrtBackend
from sr.backends.tensorrt.capacity import Capacity
from sr.backends.tensorrt.cuda import Cuda, Resources
from sr.backends.tensorrt.opening import open_trt
from sr.errors import BackendError, OutOfDeviceMemoryError
from sr.image import Picture
from sr.network.modelfile import shipped_onnx
from sr.resize import bicubic_resize
from sr.upscale import Upscaler
from tests.foreign import Convention, write_network

pytestmark = pytest.mark.gpu

KITTEN = Path(__file__).resolve().parent.parent / "examples" / "kitten.png"

MIN_PSNR = MIN_PSNR_DB["fp16"]
# A tile may be computed in batches of other sizes, whose kernels round differently.
MAX_RERUN_LEVELS = 1


@pytest.fixture(scope="module", params=[spec.name for spec in BACKENDS.values() if spec.needs_engines])
def name(request) -> str:
    """Return the backend, if it is installed and supports the GPU that is here."""
    if lack := missing_requirements(request.param):
        pytest.skip(f"{request.param} lacks {lack}")
    return request.param


@pytest.fixture(scope="module")
def engine_dir(tmp_path_factory) -> Path:
    """Return a folder for engines that is empty at first."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """Return a photograph of 1020x678: several tiles of 256, and borders."""
    with Image.open(KITTEN) as picture:
        return bicubic_resize(np.asarray(picture.convert("RGB")), scale=2)


@pytest.fixture(scope="module")
def on_cpu(photograph) -> Any:
    """Return a function: the photograph by the fp32 network on the CPU, at a scale."""

    @functools.cache
    def upscaled(scale: int) -> np.ndarray:
        with Upscaler(scale=scale, backend="onnx", device="cpu") as upscaler:
            return upscaler(photograph)

    return upscaled


def opened(name: str, scale: int, engine_dir: Path, **settings: Any) -> TrtBackend:
    request = BackendRequest(scale, engine_dir=engine_dir, builder=build_engine, **settings)
    try:
        return open_trt(BACKENDS[name], request)
    except BackendError as error:
        if "does not support" in str(error):
            pytest.skip(str(error))
        raise


def gpu() -> Cuda:
    from cuda.bindings import runtime

    return Cuda(runtime, 0)


def free_bytes() -> int:
    return int(gpu().call("cudaMemGetInfo")[0])


@contextmanager
def only_free(size: int) -> Iterator[None]:
    """Let something else take all of the GPU's memory but about `size` bytes."""
    piece, taken = 8 * 2**20, Resources(gpu())
    try:
        with suppress(OutOfDeviceMemoryError):
            while free_bytes() > size + piece:
                taken.get("cudaMalloc", piece)
        yield
    finally:
        taken.free()


@pytest.mark.parametrize(
    "convention",
    [Convention(size=(64, 64), batch=1), Convention(size=(64, 64)), Convention(group=4)],
    ids=["one size, one at a time", "one size", "multiples of 4"],
)
@pytest.mark.usefixtures("model_cache")
def test_networks_of_some_sizes_equal_those_of_the_cpu(name, convention, engine_dir, photograph, tmp_path):
    onnx, source = tmp_path / "net.onnx", write_network(tmp_path / "source.onnx", convention)
    onnx.write_bytes(onnx_from_others(source, precision="fp16")[0].SerializeToString())
    with Upscaler(backend=opened(name, 2, engine_dir, model=onnx)) as upscaler:
        made = [upscaler(picture).copy() for picture in (photograph, photograph[:9, :7])]
    with Upscaler(backend=OrtBackend(onnx, device="cpu")) as upscaler:
        expected = [upscaler(picture) for picture in (photograph, photograph[:9, :7])]
    assert all(difference(*pair).psnr >= MIN_PSNR for pair in zip(made, expected, strict=True))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("tile", [None, 256])
def test_pictures_equal_those_of_the_cpu(name, scale, tile, engine_dir, photograph, on_cpu):
    with Upscaler(backend=opened(name, scale, engine_dir, tile=tile), tile=tile) as upscaler:
        upscaled = upscaler(photograph)
        again = upscaler(photograph)
        assert upscaler.backend.notes == ()
    assert difference(upscaled, again).max_levels <= MAX_RERUN_LEVELS
    found = difference(upscaled, on_cpu(scale))
    assert found.psnr >= MIN_PSNR
    assert found.max_levels <= 4


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (300, 7), (97, 131)])
def test_odd_sizes(name, engine_dir, photograph, height, width):
    image = photograph[:height, :width]
    with Upscaler(backend=opened(name, 2, engine_dir)) as upscaler:
        upscaled = upscaler(image)
    with Upscaler(scale=2, backend="onnx", device="cpu") as upscaler:
        assert difference(upscaled, upscaler(image)).max_levels <= 4


def test_a_stream_of_pictures_has_few_shapes_and_is_right(name, engine_dir, photograph, on_cpu):
    """Tiles of consecutive pictures are on the GPU at once, and go into page-locked outputs."""
    pictures = [Picture(photograph[: 678 - 40 * n, : 1020 - 60 * n]) for n in range(8)]
    with Upscaler(backend=opened(name, 2, engine_dir, tile=256), tile=256) as upscaler:
        outputs = list(upscaler.pictures((picture, None) for picture in pictures))
        alone = [upscaler.picture(picture) for picture in pictures]
    assert difference(outputs[0].pixels, on_cpu(2)).psnr >= MIN_PSNR
    for streamed, one in zip(outputs, alone, strict=True):
        assert difference(streamed.pixels, one.pixels).max_levels <= MAX_RERUN_LEVELS


def test_running_out_of_memory_gives_the_right_picture(name, engine_dir, photograph, on_cpu):
    """Something else takes the memory between opening and running."""
    backend = opened(name, 4, engine_dir)
    needed = backend.needed_bytes(Capacity(backend.info.max_batch, backend.info.max_tile))
    with Upscaler(backend=backend) as upscaler, only_free(needed // 2):
        upscaled = upscaler(photograph)
        assert any("out of memory" in note for note in backend.notes)
    assert difference(upscaled, on_cpu(4)).psnr >= MIN_PSNR


def test_little_free_memory_makes_small_batches(name, engine_dir):
    with opened(name, 4, engine_dir) as backend:
        usual = Capacity(backend.info.max_batch, backend.info.max_tile)
        needed = backend.needed_bytes(usual)
    with only_free(needed * 3 // 4), opened(name, 4, engine_dir) as backend:
        assert (backend.info.max_batch, backend.info.max_tile) != (usual.batch, usual.tile)


def test_all_memory_is_given_back(name, engine_dir, photograph):
    def use() -> int:
        with Upscaler(backend=opened(name, 2, engine_dir, tile=256), tile=256) as upscaler:
            upscaler(photograph)
        return free_bytes()

    use()  # loads what stays: the CUDA context, kernels
    before = use()
    for _ in range(5):
        after = use()
    assert before - after < 16 * 2**20


def test_two_gpus_share_a_picture(name, engine_dir, photograph, on_cpu):
    if len(visible_gpus()) < 2:
        pytest.skip("one GPU")
    with Upscaler(backend=opened(name, 2, engine_dir, device="0,1", tile=128), tile=128) as upscaler:
        assert difference(upscaler(photograph), on_cpu(2)).psnr >= MIN_PSNR


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_onnxruntime_on_cuda(scale, photograph, on_cpu):
    if lack := missing_requirements("onnx"):
        pytest.skip(f"onnx lacks {lack}")
    with Upscaler(backend=OrtBackend(shipped_onnx(scale=scale), device="cuda")) as upscaler:
        found = difference(upscaler(photograph), on_cpu(scale))
    assert found.psnr >= MIN_PSNR_DB["fp32"], "TF32 would not reach it"


def test_auto_takes_a_gpu(photograph):
    if all(missing_requirements(backend) for backend, spec in BACKENDS.items() if spec.gpu_rank):
        pytest.skip("no backend is installed that can use the GPU")
    with Upscaler(scale=2) as upscaler:
        assert "GPU" in upscaler.backend.info.device
        assert upscaler.backend.info.why
