"""The TensorRT runtime on simulated GPUs: right pixels at the worst timing, nothing left behind."""

import functools
import gc
import inspect
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import sr.backends.tensorrt.backend
import sr.backends.tensorrt.contexts
import sr.backends.tensorrt.cuda
import sr.backends.tensorrt.device
import sr.backends.tensorrt.log
import sr.backends.tensorrt.modules
import sr.backends.tensorrt.pinned
import sr.stitching
import sr.streaming
from deploy.foreign import onnx_from_others
from sr.backends.base import Batch
from sr.backends.gpus import Gpu
from sr.backends.ort import OrtBackend, read_metadata
from sr.backends.tensorrt.backend import TrtBackend, TrtSettings
from sr.backends.tensorrt.calls import Calls
from sr.backends.tensorrt.capacity import Capacity, smaller
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.modules import TensorRt, TensorRtRtx
from sr.backends.tensorrt.opening import fallback_of
from sr.backends.tensorrt.spec import EngineSpec
from sr.errors import BackendError, OutOfDeviceMemoryError
from sr.image import Picture
from sr.network.modelfile import shipped_onnx, shipped_weights
from sr.upscale import Upscaler
from tests.foreign import Convention, write_network
from tests.simulated_device import LAUNCH_FAILURE, OUT_OF_MEMORY, Costs, SimulatedCuda, nothing_left
from tests.simulated_tensorrt import Kernel, OrtKernel, SimulatedPlan, SimulatedTensorRT, mirror_kernel

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SCHEDULES = ("lazy", "eager", *range(6))

# Small, so that little has to be computed; the largest batch is (3, 72, 72).
SCALE, BATCH, TILE = 2, 3, 72
MODEL = replace(read_metadata(shipped_onnx(scale=SCALE, precision="fp16")), receptive_field_radius=9, halo=6)


def opened(
    cuda: SimulatedCuda,
    kernel: Kernel | None = None,
    *,
    rtx: bool = False,
    devices: tuple[int, ...] = (0,),
    plan: SimulatedPlan | None = None,
    **settings: Any,
) -> TrtBackend:
    """Open the backend on simulated GPUs; `module.cuda` leads from one to the other."""
    module, trt = simulated(cuda, rtx=rtx)
    cuda.module = module
    plan = plan or SimulatedPlan(kernel or mirror_kernel(SCALE), SCALE, BATCH, TILE)
    settings = {"model": MODEL, "tile": TILE} | settings
    plans = {index: module.plan(plan) for index in devices}
    return TrtBackend(plans, TrtSettings(**settings), trt=trt, cudart=cuda)


def simulated(cuda: SimulatedCuda, *, rtx: bool = False) -> tuple[SimulatedTensorRT, TensorRt]:
    """Return a simulated module, and what it is to the backend."""
    module = SimulatedTensorRT(cuda, rtx=rtx)
    return module, (TensorRtRtx if rtx else TensorRt)(module)


def random_batches(*shapes: tuple[int, int, int], seed: int = 1) -> list[Batch]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


def mixed_batches() -> list[Batch]:
    """Return batches of the full shape, more than there are slots, and smaller ones among them."""
    full, half = (BATCH, TILE, TILE), (BATCH, TILE, TILE // 2)
    small = [(1, side, 9) for side in (6, 7, 8, 6)]  # with the others, more shapes than contexts
    return random_batches(full, full, full, full, half, full, (1, 5, 9), (2, 5, 9), full, half, *small, full)


def photograph() -> np.ndarray:
    with Image.open(EXAMPLES / "kitten.png") as picture:
        return np.asarray(picture.convert("RGB"))


def mirrored(batch: Batch, scale: int = SCALE) -> Batch:
    return mirror_kernel(scale)(batch)[0]


def assert_mirrored(results: list[Batch], batches: list[Batch]) -> None:
    assert len(results) == len(batches)
    for result, batch in zip(results, batches, strict=True):
        assert np.array_equal(result, mirrored(batch))


# --- right pixels -------------------------------------------------------------------------------


@pytest.mark.parametrize("rtx", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_batch_comes_out_right_and_in_order(schedule, rtx):
    cuda = SimulatedCuda(schedule=schedule)
    with nothing_left(cuda):
        with opened(cuda, rtx=rtx) as backend:
            for _ in range(2):
                batches = mixed_batches()
                assert_mirrored(list(backend.run(iter(batches))), batches)
            assert backend.notes == ()
        del backend


@pytest.mark.parametrize("scale", [2, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (3, 4))])
@pytest.mark.parametrize("rtx", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "tile", "batch"),
    [(1, 1, 84, 4), (40, 61, 84, 4), (90, 200, 84, 3), (171, 130, 96, 2)],
)
def test_pictures_equal_those_of_the_cpu(scale, rtx, height, width, tile, batch):
    """The kernel is the same file on ONNX Runtime, so not a single value may differ."""
    onnx = shipped_onnx(scale=scale, precision="fp16")
    image = photograph()[100 : 100 + height, 100 : 100 + width]
    model = read_metadata(onnx)
    cuda = SimulatedCuda()
    plan = SimulatedPlan(OrtKernel(onnx), scale, batch, tile)
    with nothing_left(cuda):
        backend = opened(cuda, rtx=rtx, plan=plan, model=model, tile=tile)
        with Upscaler(backend=backend) as upscaler:
            upscaled = upscaler(image).copy()
            grid = upscaler.grid(height, width)
        del backend, upscaler
    with Upscaler(backend=OrtBackend(onnx, device="cpu"), tile=tile, batch=batch) as upscaler:
        upscaler.grid = lambda *_: grid
        assert np.array_equal(upscaled, upscaler(image))


@pytest.mark.slow
@pytest.mark.usefixtures("model_cache")
@pytest.mark.parametrize("rtx", [False, True])
@pytest.mark.parametrize(
    "convention",
    [
        Convention(size=(64, 64), batch=1),
        Convention(size=(64, 64)),
        Convention(group=4),
    ],
    ids=["one size, one at a time", "one size", "multiples of 4"],
)
def test_tiles_are_of_sizes_that_the_network_takes(tmp_path, convention, rtx):
    onnx = tmp_path / "net_fp16.onnx"
    source = write_network(tmp_path / "net.onnx", convention)
    onnx.write_bytes(onnx_from_others(source, precision="fp16")[0].SerializeToString())
    model, images = read_metadata(onnx), [photograph()[100:230, 100:300], photograph()[:7, :9]]
    spec = EngineSpec(2, tile=330, batch=3).fitted_to(model)
    plan = SimulatedPlan(OrtKernel(onnx), 2, spec.batch, spec.tile, least=model.side_within(1))
    cuda = SimulatedCuda()
    with nothing_left(cuda):
        backend = opened(cuda, rtx=rtx, plan=plan, model=model, tile=99)
        with Upscaler(backend=backend) as upscaler:
            made = [upscaler(image).copy() for image in images]
            grids = [upscaler.grid(*image.shape[:2]) for image in images]
        del backend, upscaler
    assert len(grids[0]) > 1
    with Upscaler(backend=OrtBackend(onnx, device="cpu")) as upscaler:
        for image, grid, upscaled in zip(images, grids, made, strict=True):
            upscaler.grid = lambda *_, grid=grid: grid
            assert np.array_equal(upscaled, upscaler(image))


@pytest.mark.parametrize("sizes", [{"multiple": 24, "minimum": 48}, {"minimum": 90}])
def test_smaller_tiles_are_of_sizes_that_the_network_takes(sizes):
    model = replace(MODEL, receptive_field_radius=20, **sizes)
    shrunk = list(smaller(Capacity(2, 504), model))
    assert len(shrunk) > 2
    assert all(each.tile == model.side_within(each.tile) for each in shrunk)
    fixed = replace(model, ends=replace(model.ends, size=(256, 256)))
    assert list(smaller(Capacity(2, 256), fixed)) == [Capacity(1, 256)]


def test_an_fp32_engine_has_no_second_output():
    plan = SimulatedPlan(mirror_kernel(SCALE), SCALE, BATCH, TILE, finite=False)
    with opened(SimulatedCuda(), plan=plan) as backend:
        assert_mirrored(list(backend.run(mixed_batches())), mixed_batches())


def test_the_largest_batch_runs_in_a_profile_of_its_own_where_there_is_one():
    plan = SimulatedPlan(mirror_kernel(SCALE), SCALE, BATCH, TILE, static=True)
    cuda = SimulatedCuda(l2_bytes=1)  # small, so that one tile at once would be chosen
    with opened(cuda, plan=plan) as backend:
        assert backend.info.default_batch == BATCH
        assert_mirrored(list(backend.run(mixed_batches())), mixed_batches())
    full = [batch.shape == (BATCH, TILE, TILE, 3) for batch in mixed_batches()]
    assert cuda.module.profiles == full


@pytest.mark.parametrize(("tiles_in_l2", "batch"), [(0.5, 1), (2.1, 2), (9, BATCH)])
def test_a_batch_is_what_the_l2_cache_holds(tiles_in_l2, batch):
    in_use = int(MODEL.activation_bytes_per_lr_px / 2 * TILE**2)  # in fp16
    with opened(SimulatedCuda(l2_bytes=int(tiles_in_l2 * in_use))) as backend:
        assert backend.info.default_batch == batch
        assert backend.info.max_small_batch == BATCH
    with opened(SimulatedCuda(l2_bytes=1), batch=2) as backend:
        assert backend.info.default_batch == 2


def test_copies_and_computation_overlap():
    """Where each of the three steps takes one unit, batches take one unit each, not three."""
    cuda = SimulatedCuda()
    plan = SimulatedPlan(mirror_kernel(SCALE), SCALE, BATCH, TILE, finite=False)
    batches = random_batches(*[(BATCH, TILE, TILE)] * 12)
    with opened(cuda, plan=plan) as backend:
        list(backend.run(batches))
    assert cuda.host_time <= len(batches) + 2


def test_two_gpus_share_a_picture():
    for schedule in SCHEDULES:
        cuda = SimulatedCuda(devices=3, schedule=schedule)
        with nothing_left(cuda):
            with opened(cuda, devices=(2, 0), plan=None) as backend:
                assert_mirrored(list(backend.run(mixed_batches())), mixed_batches())
                assert backend.info.device == "GPU 2 and GPU 0"
            del backend
        alone = SimulatedCuda(schedule=schedule)
        run_once(alone, mixed_batches())
        assert cuda.host_time < 0.6 * alone.host_time


def test_the_callers_device_stays_current():
    """Other code of the caller's thread, PyTorch for one, works on the device that it has set."""
    cuda = SimulatedCuda(devices=3)
    cuda.cudaSetDevice(1)
    with opened(cuda, devices=(2, 0)) as backend:
        assert cuda.device == 1
        for _ in backend.run(mixed_batches()):
            assert cuda.device == 1
    assert cuda.device == 1
    with pytest.raises(BackendError, match="GPU 7"):
        opened(cuda, devices=(7,))
    assert cuda.device == 1


def test_the_input_is_not_changed_and_results_are_arrays_of_their_own():
    batches = mixed_batches()
    before = [batch.copy() for batch in batches]
    with opened(SimulatedCuda()) as backend:
        results = list(backend.run(batches))
    assert_mirrored(results, before)
    assert all(result.flags.owndata and result.flags.writeable for result in results)


# --- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1, 4])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_abandoned_midway_leaves_nothing(taken, schedule):
    cuda = SimulatedCuda(schedule=schedule)
    with nothing_left(cuda):
        with opened(cuda) as backend:
            run = backend.run(iter(mixed_batches()))
            for _ in range(taken):
                next(run)
            run.close()
            assert_mirrored(list(backend.run(mixed_batches())), mixed_batches())  # it can run again
        del backend


def test_an_error_in_the_batches_is_passed_on_and_nothing_is_left():
    def broken() -> Iterator[Batch]:
        yield from mixed_batches()[:4]
        raise KeyError("a programming mistake")

    cuda = SimulatedCuda()
    with nothing_left(cuda):
        with opened(cuda) as backend, pytest.raises(KeyError):
            list(backend.run(broken()))
        del backend


def test_closing_twice_and_running_after():
    cuda = SimulatedCuda()
    backend = opened(cuda)
    run = backend.run(mixed_batches())
    next(run)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        list(run)
    with pytest.raises(BackendError, match="closed"):
        list(backend.run(mixed_batches()))
    del backend, run
    gc.collect()
    assert cuda.leaks() == []


def test_two_runs_at_once_are_a_mistake():
    with opened(SimulatedCuda()) as backend:
        run = backend.run(mixed_batches())
        next(run)
        with pytest.raises(RuntimeError):
            next(backend.run(mixed_batches()))
        run.close()


# --- failures -----------------------------------------------------------------------------------


def run_once(
    cuda: SimulatedCuda, batches: list[Batch], **settings: Any
) -> tuple[list[Batch], tuple[str, ...]]:
    with opened(cuda, **settings) as backend:
        return list(backend.run(batches)), backend.notes


FAULT_BATCHES = random_batches(*[(BATCH, TILE, TILE)] * 7, (1, 5, 9))


@pytest.mark.slow
@pytest.mark.parametrize("rtx", [False, True])
@pytest.mark.parametrize("sticky", [False, True])
def test_each_call_failing_in_turn_is_one_clear_error_with_everything_freed(rtx, sticky):
    reference = SimulatedCuda(devices=2)
    run_once(reference, FAULT_BATCHES, rtx=rtx, devices=(0, 1))
    assert len(reference.calls) > 200
    for at, name in enumerate(reference.calls):
        cuda = SimulatedCuda(devices=2, fail_at=at, status=LAUNCH_FAILURE, sticky=sticky)
        try:
            run_once(cuda, FAULT_BATCHES, rtx=rtx, devices=(0, 1))
        except BackendError as error:
            message = str(error)
            assert "\n" not in message
            assert "GPU" in message
            assert message.endswith("719, simulated error 719") or name in message or sticky, (name, message)
        else:
            pytest.fail(f"{name} failed, and nobody was told")
        assert cuda.leaks() == [], name
        assert [c for c in cuda.complaints if "freed" not in c] == [], name


@pytest.mark.slow
@pytest.mark.parametrize("devices", [(0,), (0, 1)])
def test_memory_running_out_at_any_allocation_is_survived(devices):
    """The picture is begun again with smaller batches, then smaller tiles, and is right."""
    image = random_batches((1, 150, 170))[0][0]
    reference = SimulatedCuda(devices=2)
    with Upscaler(backend=opened(reference, devices=devices)) as upscaler:
        expected = upscaler(image)
    assert np.array_equal(expected, mirrored(image[None])[0])
    assert reference.allocations > 12
    unnoticed = set()  # outputs need not be page-locked
    for first in range(reference.allocations):
        for failures in (1, 2):
            failing = frozenset(range(first, first + failures))
            cuda = SimulatedCuda(devices=2, failing_allocations=failing)
            with nothing_left(cuda):
                backend = opened(cuda, devices=devices)
                with Upscaler(backend=backend) as upscaler:
                    assert np.array_equal(upscaler(image), expected)
                    if not backend.notes:
                        unnoticed.add(first)
                    assert all("out of memory" in note for note in backend.notes)
                    assert (backend.info.max_batch < BATCH) == bool(backend.notes)
                del backend, upscaler
    assert len(unnoticed) == 1


@pytest.mark.parametrize("name", ["execute_async_v3", "create_execution_context"])
def test_memory_running_out_inside_tensorrt_is_survived(name):
    image = random_batches((1, 400, 300))[0][0]
    reference = SimulatedCuda()
    with Upscaler(backend=opened(reference)) as upscaler:
        upscaler(image)
    for at in [at for at, called in enumerate(reference.calls) if called == name][1:]:
        cuda = SimulatedCuda(fail_at=at, status=OUT_OF_MEMORY)
        backend = opened(cuda)
        with Upscaler(backend=backend) as upscaler:
            assert np.array_equal(upscaler(image), mirrored(image[None])[0])
            assert "out of memory" in backend.notes[0]
        del backend, upscaler
        assert cuda.leaks() == []


@pytest.mark.parametrize("failing", [frozenset(), frozenset({9, 10}), frozenset({17})], ids=str)
def test_threads_share_an_upscaler_and_one_of_them_runs_out_of_memory(failing):
    """Engines take one run at a time; whoever comes next runs with what memory is left for."""
    images = [random_batches((1, 100 + 30 * n, 90 + 20 * n), seed=n)[0][0] for n in range(5)]
    cuda = SimulatedCuda(devices=2, schedule=3, failing_allocations=failing)
    with nothing_left(cuda):
        backend = opened(cuda, devices=(0, 1))
        with Upscaler(backend=backend) as upscaler, ThreadPoolExecutor(5) as pool:
            for image, result in zip(images * 3, pool.map(upscaler, images * 3), strict=True):
                assert np.array_equal(result, mirrored(image[None])[0])
            del result
            assert bool(backend.notes) == bool(failing)
        del backend, upscaler


def test_what_progress_raises_leaves_the_engine_free():
    """Also while that exception is being handled, which keeps the frames that ran."""
    image = random_batches((1, 150, 170))[0][0]
    cuda = SimulatedCuda()

    def stop(done: int, total: int) -> None:
        raise ValueError("enough")

    with nothing_left(cuda):
        with Upscaler(backend=opened(cuda)) as upscaler:
            try:
                upscaler.upscale(image, progress=stop)
            except ValueError:
                assert np.array_equal(upscaler(image), mirrored(image[None])[0])
        del upscaler


def test_batch_then_tile_are_halved_until_nothing_is_left_to_try():
    image = random_batches((1, 150, 170))[0][0]
    cuda = SimulatedCuda(failing_allocations=frozenset(range(2, 1000)))
    backend = opened(cuda)
    with Upscaler(backend=backend) as upscaler, pytest.raises(BackendError, match="1 tile of 64 px"):
        upscaler(image)
    assert [note.rpartition("went on with ")[2] for note in backend.notes] == [
        "1 tile of 72 px",
        "1 tile of 64 px",
    ]
    del backend, upscaler
    gc.collect()
    assert cuda.leaks() == []


def test_a_backend_of_its_own_is_told_what_is_left():
    cuda = SimulatedCuda(failing_allocations=frozenset({3}))
    with opened(cuda) as backend:
        with pytest.raises(OutOfDeviceMemoryError):
            list(backend.run(mixed_batches()))
        assert (backend.info.max_batch, backend.info.max_tile) == (1, TILE)
        with pytest.raises(BackendError, match="1 tile of 72 px"):
            list(backend.run(mixed_batches()))
        (result,) = backend.run([mixed_batches()[0][:1]])
        assert np.array_equal(result, mirrored(mixed_batches()[0][:1]))


def test_batch_and_tile_are_planned_from_free_memory():
    def planned(memory: int, **settings: Any) -> Capacity:
        plan = SimulatedPlan(mirror_kernel(SCALE), SCALE, 4, 512, scratch_per_px=100)
        with opened(SimulatedCuda(memory=memory), plan=plan, **settings) as backend:
            return Capacity(backend.info.default_batch, backend.info.default_tile)

    pixel = 3 * (3 + 12) + 100  # three slots of input and output, and scratch
    for batch, tile in [(4, 512), (2, 512), (1, 512), (1, 256), (1, 128), (1, 64)]:
        need = batch * tile**2 * pixel + 3 * 4 * 4
        assert planned(int(need / 0.9) + 2, tile=None) == Capacity(batch, tile)
        smaller = Capacity(batch // 2, tile) if batch > 1 else Capacity(1, tile // 2)
        if tile > 64:
            assert planned(int(need / 0.9) - 2, tile=None) == smaller
    with pytest.raises(BackendError, match=r"0 MiB.*1 tile of 64 px"):
        planned(10_000)
    assert planned(2**40, tile=100, batch=3) == Capacity(3, 100)


def test_a_plan_that_does_not_load_says_why():
    cuda = SimulatedCuda()
    _, trt = simulated(cuda)
    with (
        nothing_left(cuda),
        pytest.raises(BackendError, match=r"engine.*Magic tag does not match"),
    ):
        TrtBackend({0: b"garbage"}, TrtSettings(MODEL), trt=trt, cudart=cuda)
    gc.collect()


def test_a_gpu_that_is_not_there():
    with pytest.raises(BackendError, match=r"GPU 7: cudaSetDevice.* 101"):
        opened(SimulatedCuda(), devices=(7,))


# --- kernels of TensorRT-RTX ---------------------------------------------------------------------


def shapes_compiled(cuda: SimulatedCuda, file: KernelFile) -> list[tuple[int, ...]]:
    """Upscale with kernels kept in a file; return the shapes that had to be compiled."""
    with nothing_left(cuda):
        with opened(cuda, rtx=True, kernel_files={0: file}) as backend:
            assert_mirrored(list(backend.run(mixed_batches())), mixed_batches())
        del backend
    return cuda.module.compiled


def test_kernels_are_compiled_once_for_all_processes(tmp_path):
    l4, t4 = Gpu(0, "NVIDIA L4", 89), Gpu(0, "Tesla T4", 75)
    plan = tmp_path / "small_x2_fp16_tensorrt_rtx_sm75-sm89_0123456789abcdef.plan"
    file = KernelFile.beside(plan, gpu=l4, version="1.7.1.116")
    assert len(shapes_compiled(SimulatedCuda(), file)) > 2
    assert shapes_compiled(SimulatedCuda(), file) == []
    for other in ({"gpu": t4, "version": "1.7.1.116"}, {"gpu": l4, "version": "1.8.0.1"}):
        assert KernelFile.beside(plan, **other).read() == b"", "of another GPU or version"


@pytest.mark.parametrize("kind", ["other driver", "damaged"])
def test_kernels_that_do_not_fit_are_refused_and_replaced(tmp_path, kind):
    file = KernelFile(tmp_path / "x.kernels")
    shapes_compiled(SimulatedCuda(), file)
    if kind == "damaged":
        file.path.write_bytes(file.read()[:20])
    cuda = SimulatedCuda()
    cuda.driver = "999.1" if kind == "other driver" else cuda.driver
    assert shapes_compiled(cuda, file) != []
    again = SimulatedCuda()
    again.driver = cuda.driver
    assert shapes_compiled(again, file) == []


def test_kernels_that_cannot_be_stored_do_no_harm(tmp_path, monkeypatch):
    assert shapes_compiled(SimulatedCuda(), KernelFile(tmp_path / "no such folder" / "x.kernels"))
    monkeypatch.setattr("sr.backends.tensorrt.kernels._LOCK_SECONDS", 0.01)
    with FileLock(tmp_path / ".lock"):  # a builder holds it
        assert shapes_compiled(SimulatedCuda(), KernelFile(tmp_path / "x.kernels"))
    assert not (tmp_path / "x.kernels").exists()


# --- overflow -----------------------------------------------------------------------------------


def overflowing(kernel: Kernel, *tiles: int) -> Kernel:
    """Return a kernel that says, and shows, that these tiles were not finite, counted from the first."""
    seen = [0]

    def overflow(batch: Batch) -> tuple[Batch, np.ndarray]:
        upscaled, finite = kernel(batch)
        upscaled, finite = upscaled.copy(), finite.copy()
        for at in range(len(batch)):
            if seen[0] + at in tiles:
                upscaled[at], finite[at] = 7, 0
        seen[0] += len(batch)
        return upscaled, finite

    return overflow


def test_tiles_that_overflow_are_computed_in_fp32_and_reported():
    onnx = shipped_onnx(scale=SCALE, precision="fp16")
    model = read_metadata(onnx)
    batches = random_batches((3, 20, 24), (2, 20, 24))
    cuda = SimulatedCuda()
    plan = SimulatedPlan(overflowing(OrtKernel(onnx), 1, 4), SCALE, BATCH, TILE)
    with opened(cuda, plan=plan, model=model, fallback=fallback_of(onnx, model)) as backend:
        first, second = backend.run(batches)
        assert backend.notes == ("fp16 overflowed in 2 tiles; they were computed in fp32 on the CPU",)
    half, single = OrtKernel(onnx), OrtKernel(shipped_onnx(scale=SCALE))
    assert np.array_equal(first[[0, 2]], half(batches[0])[0][[0, 2]])
    assert np.array_equal(first[1:2], single(batches[0][1:2])[0])
    assert np.array_equal(second[1:2], single(batches[1][1:2])[0])


def test_without_an_fp32_file_an_overflow_is_an_error():
    cuda = SimulatedCuda()
    with nothing_left(cuda):
        no_file = pytest.raises(BackendError, match=r"fp16.*fp32")
        with opened(cuda, overflowing(mirror_kernel(SCALE), 8)) as backend, no_file:
            list(backend.run(mixed_batches()))
        del backend


def test_the_fallback_is_the_fp32_file_of_the_same_weights(tmp_path):
    onnx = shipped_onnx(scale=2, precision="fp16")
    model = read_metadata(onnx)
    assert fallback_of(shipped_onnx(scale=2), read_metadata(shipped_onnx(scale=2))) is None
    alone = tmp_path / onnx.name
    alone.write_bytes(onnx.read_bytes())
    assert fallback_of(alone, model) is None
    (tmp_path / shipped_onnx(scale=2).name).write_bytes(shipped_onnx(scale=3).read_bytes())
    open_other = fallback_of(alone, model)
    assert open_other is not None
    with pytest.raises(Exception, match="weights"):
        open_other()


@pytest.mark.slow
def test_inflated_weights_overflow_and_the_picture_is_right(tmp_path):
    """The real network with its weights multiplied until half precision overflows in some tiles."""
    torch = pytest.importorskip("torch")
    from deploy.export import ExportedNet, ExportSpec, onnx_from_weights
    from deploy.fold import fold
    from sr.network.checkpoint import load_weights
    from sr.network.model import frozen_attention

    image = photograph()[:63, :240].copy()
    image[:, 100:] = 112 + image[:, 100:] // 8  # near mid-grey, which the network takes for zero
    shipped = load_weights(shipped_weights(scale=2))
    lively, calm = (torch.tensor(image[None, :, columns]) for columns in (slice(0, 84), slice(156, 240)))
    for inflation in np.geomspace(500, 60_000, 20):
        state = dict(shipped.state)
        for layer, factor in (("base", inflation), ("upsampler.widen", 1 / inflation)):
            name = f"{layer}.weight"
            state[name] = state[name] * factor
        weights = replace(shipped, state=state)
        half = ExportedNet(fold(frozen_attention(weights.build())), ExportSpec(precision="fp16")).eval()
        with torch.inference_mode():
            if not half(lively)[1].all() and half(calm)[1].all():
                break
    else:
        pytest.fail("no factor lets one part overflow and not the other")
    fp32 = tmp_path / "net_fp32_uint8.onnx"
    fp32.write_bytes(onnx_from_weights(weights, ExportSpec()).SerializeToString())

    def kernel(batch: Batch) -> tuple[Batch, np.ndarray]:  # ONNX Runtime's CPU computes fp16 in float32
        with torch.inference_mode():
            upscaled, finite = half(torch.tensor(batch))
        return upscaled.numpy(), finite.numpy()

    cuda, model = SimulatedCuda(), replace(read_metadata(fp32), precision="fp16")
    fallback = fallback_of(tmp_path / "net_fp16_uint8.onnx", model)
    plan = SimulatedPlan(kernel, 2, 2, 84)
    backend = opened(cuda, plan=plan, model=model, tile=84, fallback=fallback)
    with Upscaler(backend=backend) as upscaler:
        upscaled = upscaler(image)
        grid = upscaler.grid(*image.shape[:2])
        count = int(re.fullmatch(r"fp16 overflowed in (\d+) tiles;.*", backend.notes[0])[1])
    assert 0 < count < len(grid)
    with Upscaler(backend=OrtBackend(fp32, device="cpu"), tile=84) as upscaler:
        upscaler.grid = lambda *_: grid
        assert np.abs(upscaled.astype(int) - upscaler(image)).max() <= 2


# --- the tests themselves: a broken runtime is caught ---------------------------------------------


def run_pictures(cuda: SimulatedCuda, images: list[np.ndarray], **settings: Any) -> list[np.ndarray]:
    """Upscale pictures as a stream, the last one with alpha."""
    half = np.tile(np.arange(images[-1].shape[1], dtype=np.uint8), (len(images[-1]), 1))
    alphas = [None] * (len(images) - 1) + [half]
    with Upscaler(backend=opened(cuda, **settings)) as upscaler:
        pictures = [Picture(image, alpha) for image, alpha in zip(images, alphas, strict=True)]
        return [each.pixels.copy() for each in upscaler.pictures((each, None) for each in pictures)]


PICTURES = [random_batches((1, height, 170 - height), seed=height)[0][0] for height in (20, 72, 100, 100, 40)]


def complaints_about_the_runtime(schedules: tuple[str | int, ...]) -> Iterator[str]:
    """Run the backend through all that tells a good runtime from a bad one."""
    batches = mixed_batches()
    expected = [mirrored(batch) for batch in batches]
    for schedule, devices, rtx in itertools.product(schedules, ((0,), (0, 1)), (False, True)):
        for what in ("pictures", "abandoned", "batches"):
            cuda = SimulatedCuda(devices=2, schedule=schedule)
            cuda.cudaSetDevice(1)
            try:
                if what == "pictures":
                    pictures = run_pictures(cuda, PICTURES, devices=devices, rtx=rtx)
                    pairs = list(zip(pictures, PICTURES, strict=True))[:-1]  # colours under alpha change
                    if not all(np.array_equal(larger, mirrored(lr[None])[0]) for larger, lr in pairs):
                        yield "wrong pixels"
                else:
                    with opened(cuda, devices=devices, rtx=rtx) as backend:
                        if what == "abandoned":
                            run = backend.run(batches)
                            next(run)
                            run.close()
                            del run
                        else:
                            results = list(backend.run(batches)) + list(backend.run(batches))
                            if not all(map(np.array_equal, results, expected * 2)):
                                yield "wrong pixels"
                    del backend
            except (BackendError, AttributeError, KeyError, ValueError, IndexError, TypeError) as error:
                yield f"error: {error}"
            if cuda.device != 1:
                yield "the current device is another one"
            if cuda.leaks():
                gc.collect()  # of circles that an error left
            yield from cuda.leaks() + cuda.complaints


def mutant(module: ModuleType, *changes: tuple[str, str]) -> ModuleType:
    """Return a module with pieces of its source replaced."""
    source = inspect.getsource(module)
    for old, new in changes:
        assert old in source, f"no longer in the source: {old}"
        source = source.replace(old, new)
    made = ModuleType(f"{module.__name__}_mutant")
    sys.modules[made.__name__] = made  # where dataclasses look their module up
    exec(compile(source, "mutant", "exec"), made.__dict__)
    return made


def test_an_unbroken_runtime_gives_no_complaint():
    assert list(complaints_about_the_runtime(SCHEDULES)) == []


MUTATIONS: dict[str, tuple[tuple[str, str], str]] = {
    "computes before the upload": (
        ('call("cudaStreamWaitEvent", self._compute, slot.uploaded, 0)', "pass"),
        "wrong pixels",
    ),
    "downloads before the computation": (
        ('call("cudaStreamWaitEvent", self._download, slot.computed, 0)', "pass"),
        "wrong pixels",
    ),
    "reads before the download": (
        ('self._cuda.call("cudaEventSynchronize", slot.downloaded)', "pass"),
        "wrong pixels",
    ),
    "marks no upload": (('call("cudaEventRecord", slot.uploaded, self._upload)', "pass"), "wrong pixels"),
    "marks no computation": (
        ('call("cudaEventRecord", slot.computed, self._compute)', "pass"),
        "wrong pixels",
    ),
    "marks no download": (
        ('call("cudaEventRecord", slot.downloaded, self._download)', "pass"),
        "wrong pixels",
    ),
    "marks the download on the wrong stream": (
        (
            'call("cudaEventRecord", slot.downloaded, self._download)',
            'call("cudaEventRecord", slot.downloaded, self._upload)',
        ),
        "wrong pixels",
    ),
    "changes shapes of a context that runs": (
        ("self._contexts.pop(next(iter(self._contexts)))", "self._contexts.pop([*self._contexts][-1])"),
        "shape set while a run is pending",
    ),
    "slots share host memory": (
        (
            "self._slots.append(Slot(host,",
            "host = self._slots[0].host if self._slots else host\n        self._slots.append(Slot(host,",
        ),
        "wrong pixels",
    ),
    "slots share device memory": (
        (
            "self._slots.append(Slot(host,",
            "device = [*(s.device for s in self._slots), device][0]\n        self._slots.append(Slot(host,",
        ),
        "wrong pixels",
    ),
    "a slot is reused while it is busy": (
        ("if slot.batch is None:\n                return slot", "return slot"),
        "error",
    ),
    "uploads too little": (
        ("pinned.ctypes.data, size, to_device", "pinned.ctypes.data, size - 3, to_device"),
        "wrong pixels",
    ),
    "downloads too little": (
        ("source + part, length, to_host", "source + part, length - 16, to_host"),
        "wrong pixels",
    ),
    "has device memory of half the size": (
        (
            'name: int(self._buffers.get("cudaMalloc", size))',
            'name: int(self._buffers.get("cudaMalloc", size // 2))',
        ),
        "copy to",
    ),
    "has host memory of half the size": (
        ("name: self._buffers.pinned(size)", "name: self._buffers.pinned(size // 2)"),
        "error",
    ),
    "forgets the second output": (
        ("if FINITE_NAME in slot.host:\n            pinned", "if False:\n            pinned"),
        "error",
    ),
    "gives too little scratch memory": (
        ("size = max(needed, self._planned_scratch, 1)", "size = needed // 2"),
        "too little scratch memory",
    ),
    "leaves out what the host copies": (("slot.copied.append(at)", "pass"), "wrong pixels"),
    "takes the wrong part of a tile": (("source += place.top * row", "source += row"), "wrong pixels"),
    "uses whatever device is current": (("    @_on_device\n    def submit", "    def submit"), "error"),
    "does not wait before it frees": (
        ('self._cuda.call("cudaStreamSynchronize", stream)', "pass"),
        "while work is pending",
    ),
    "leaks buffers": (("return [self._buffers.free()]", "return []"), "device memory"),
    "leaks streams": (
        (
            "return [*self._free_buffers(), self._streams.free()]",
            "return [*self._free_buffers()]",
        ),
        "Stream",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_runtime_is_caught(monkeypatch, name):
    change, sign = MUTATIONS[name]
    broken = mutant(sr.backends.tensorrt.device, change)
    monkeypatch.setattr(sr.backends.tensorrt.backend, "TrtDevice", broken.TrtDevice)
    assert any(sign in complaint for complaint in complaints_about_the_runtime(SCHEDULES))


# --- what things cost -----------------------------------------------------------------------------


def test_the_gpu_does_not_wait_between_pictures():
    costs = Costs(copy=0.02, copy_byte=1e-6)
    whole, one_by_one = SimulatedCuda(costs=costs), SimulatedCuda(costs=costs)
    images = [random_batches((1, 100 + n, 170 - n), seed=n)[0][0] for n in range(12)]
    run_pictures(whole, images)
    with Upscaler(backend=opened(one_by_one)) as upscaler:
        for image in images:
            upscaler(image)
    assert whole.idle_share < 0.05 < one_by_one.idle_share


def test_fifty_pictures_of_different_sizes_have_five_shapes():
    random = np.random.default_rng(1)
    images = [np.zeros((*random.integers(36, 250, 2), 3), np.uint8) for _ in range(50)]
    cuda = SimulatedCuda()
    run_pictures(cuda, images)
    assert len({image.shape for image in images}) == 50
    assert len(set(cuda.module.shapes)) <= 5
    assert cuda.calls.count("create_execution_context") <= 6  # and one that measures


def test_memory_is_page_locked_once_and_no_pixel_is_copied_twice():
    cuda = SimulatedCuda(costs=COSTS)
    images = random_batches(*[(1, 130, 150)] * 8)
    with Upscaler(backend=opened(cuda)) as upscaler:
        upscaler(images[0][0])
        tiles = len(upscaler.grid(130, 150))
        cuda.copied = Counter()
        before = cuda.host_time
        for image in images[1:]:
            upscaler(image[0])
        assert cuda.host_time - before < COSTS.pinned
        assert cuda.copied["to host"] == 7 * (130 * 150 * 3 * SCALE**2 + 4 * tiles)
        assert cuda.copied["to device"] == 7 * tiles * TILE * TILE * 3


COSTS = Costs(pinned=1000.0, start=1e6, start_bytes=2**20, context_bytes=2**20)


def test_results_stay_as_they_are_and_outlive_the_backend():
    image = random_batches((1, 130, 150))[0][0]
    cuda = SimulatedCuda()
    with nothing_left(cuda):
        with Upscaler(backend=opened(cuda)) as upscaler:
            first, second = upscaler(image), upscaler(image[::-1])
            assert np.array_equal(first, mirrored(image[None])[0])
        del upscaler
        assert np.array_equal(first, mirrored(image[None])[0])
        assert np.array_equal(second, mirrored(image[None, ::-1])[0])
        assert cuda.leaks() == ["host memory"] * 2
        del first, second


def test_pictures_are_right_where_no_more_memory_can_be_page_locked(monkeypatch):
    image = random_batches((1, 130, 150))[0][0]
    monkeypatch.setattr(sr.backends.tensorrt.pinned, "_POOL_BYTES", 2**20)
    with Upscaler(backend=opened(SimulatedCuda())) as upscaler:
        kept = [upscaler(image) for _ in range(5)]
    assert all(np.array_equal(each, mirrored(image[None])[0]) for each in kept)


def test_a_gpu_that_is_not_used_is_not_started():
    """Starting a GPU takes a second and some hundred MiB of it."""
    cuda = SimulatedCuda(devices=3, costs=COSTS)
    run_pictures(cuda, PICTURES, devices=(1,))
    assert cuda.started == {1}


def test_there_is_room_for_memory_that_nobody_asked_for():
    plan = SimulatedPlan(mirror_kernel(SCALE), SCALE, BATCH, TILE, scratch_per_px=1500)
    cuda = SimulatedCuda(memory=26_800_000, costs=COSTS)
    with Upscaler(backend=opened(cuda, plan=plan)) as upscaler:
        for image in PICTURES:
            assert np.array_equal(upscaler(image), mirrored(image[None])[0])
        assert upscaler.backend.info.max_batch < BATCH
        assert not any("out of memory" in note for note in upscaler.backend.notes)


def test_what_a_thread_of_the_library_logs_is_not_taken_for_the_failure():
    at = SimulatedCuda()
    run_once(at, FAULT_BATCHES)
    cuda = SimulatedCuda(fail_at=at.calls.index("execute_async_v3"), status=LAUNCH_FAILURE)
    with opened(cuda) as backend:
        cuda.module.background = "out of memory"
        with pytest.raises(BackendError, match="simulated failure of execute") as caught:
            list(backend.run(FAULT_BATCHES))
    assert not isinstance(caught.value, OutOfDeviceMemoryError)


BROKEN_PARTS: dict[str, tuple[ModuleType, tuple[str, str], tuple[str, ...], Callable[[], Any]]] = {
    "page-locks memory for every picture": (
        sr.backends.tensorrt.pinned,
        ("if size <= block[1] <= max(2 * size, _STEP)", "if False"),
        ("PinnedPool",),
        test_memory_is_page_locked_once_and_no_pixel_is_copied_twice,
    ),
    "copies outputs on the host": (
        sr.backends.tensorrt.pinned,
        ("return any(", "return False and any("),
        ("PinnedPool",),
        test_memory_is_page_locked_once_and_no_pixel_is_copied_twice,
    ),
    "writes past what a tile owns": (
        sr.backends.tensorrt.device,
        ("3 * width, height, to_host", "3 * width, height + 1, to_host"),
        ("TrtDevice",),
        test_memory_is_page_locked_once_and_no_pixel_is_copied_twice,
    ),
    "uses memory again that is in use": (
        sr.backends.tensorrt.pinned,
        ("weakref.finalize(buffer, self._take_back, block).atexit = False", "self._take_back(block)"),
        ("PinnedPool",),
        test_results_stay_as_they_are_and_outlive_the_backend,
    ),
    "starts another GPU": (
        sr.backends.tensorrt.pinned,
        ("with self._cuda.current():", "if True:"),
        ("PinnedPool",),
        test_a_gpu_that_is_not_used_is_not_started,
    ),
    "leaves another device current": (
        sr.backends.tensorrt.cuda,
        ('self.call("cudaSetDevice", before)', "pass"),
        ("Cuda",),
        test_the_callers_device_stays_current,
    ),
    "compiles kernels while others compute": (
        sr.backends.tensorrt.contexts,
        ("Strategy.EAGER", "Strategy.LAZY"),
        ("RtxContexts",),
        lambda: test_every_batch_comes_out_right_and_in_order("lazy", True),
    ),
    "plans all free memory": (
        sr.backends.tensorrt.backend,
        ("MEMORY_SHARE = 0.9", "MEMORY_SHARE = 1.0"),
        ("TrtBackend",),
        test_there_is_room_for_memory_that_nobody_asked_for,
    ),
    "waits at the end of each picture": (
        sr.streaming,
        (
            "                under_way.append(work)\n",
            "                yield None\n                under_way.append(work)\n",
        ),
        ("finished",),
        test_the_gpu_does_not_wait_between_pictures,
    ),
    "does not fill batches up": (
        sr.stitching,
        ("if batching.constant else len(joined)", "if False else len(joined)"),
        ("batches",),
        test_fifty_pictures_of_different_sizes_have_five_shapes,
    ),
    "takes any thread's errors": (
        sr.backends.tensorrt.log,
        ("own or [text for _, text in errors]", "[text for _, text in errors]"),
        ("tensorrt_log",),
        test_what_a_thread_of_the_library_logs_is_not_taken_for_the_failure,
    ),
}


@pytest.mark.parametrize("name", BROKEN_PARTS)
def test_broken_parts_are_caught(monkeypatch, name):
    module, change, names, test = BROKEN_PARTS[name]
    broken = mutant(module, change)
    for user in (sr.backends.tensorrt, sr):
        for part in [part for part in vars(user).values() if isinstance(part, ModuleType)]:
            for each in names:
                if hasattr(part, each):
                    monkeypatch.setattr(part, each, getattr(broken, each))
    for each in names:
        if each in globals():
            monkeypatch.setitem(globals(), each, getattr(broken, each))
    with pytest.raises((AssertionError, pytest.fail.Exception, BackendError)):
        test()


# --- the simulation is of the real thing ----------------------------------------------------------


def used_names(cuda_class: type, prefix: str = "cuda") -> list[str]:
    return [name for name in vars(cuda_class) if name.startswith(prefix)]


def test_every_simulated_call_exists_in_the_real_runtime():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    for name in used_names(SimulatedCuda):
        real = getattr(runtime, name)
        simulated = getattr(SimulatedCuda, name)
        if isinstance(simulated, int):
            assert int(real) == simulated, name
        elif isinstance(simulated, type):
            for member in simulated:
                assert int(getattr(real, member.name)) == member.value
        else:
            signature = (real.__doc__ or "").splitlines()[0]
            count = len([part for part in signature.partition("(")[2].rpartition(")")[0].split(",") if part])
            parameters = inspect.signature(inspect.unwrap(simulated)).parameters
            assert count == len(parameters) - 1, signature


def test_every_simulated_name_of_tensorrt_rtx_exists():
    module = pytest.importorskip("tensorrt_rtx")
    import tests.simulated_tensorrt as simulated

    pairs: list[tuple[type, Any]] = [
        (simulated.Runtime, module.Runtime),
        (simulated.Engine, module.ICudaEngine),
        (simulated.Context, module.IExecutionContext),
        (simulated.RuntimeConfig, module.IRuntimeConfig),
        (simulated.RuntimeCache, module.IRuntimeCache),
    ]
    for stand_in, real in pairs:
        for name in vars(stand_in):
            if not name.startswith("_") and isinstance(vars(stand_in)[name], Callable):
                assert hasattr(real, name), (real, name)
    assert hasattr(module.IRuntimeConfig, "cuda_graph_strategy")
    assert hasattr(module.ICudaEngine, "num_io_tensors")
    assert module.DataType.UINT8.itemsize == 1
    assert module.ExecutionContextAllocationStrategy.USER_MANAGED
    assert module.CudaGraphStrategy.DISABLED.name == "DISABLED"
    assert hasattr(module.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    for name, value in SimulatedTensorRT(
        SimulatedCuda(), rtx=True
    ).DynamicShapesKernelSpecializationStrategy.__members__.items():
        assert int(module.DynamicShapesKernelSpecializationStrategy.__members__[name]) == value


def test_the_error_log_is_a_logger_of_the_real_module():
    module = pytest.importorskip("tensorrt_rtx")
    log = TensorRtRtx(module).log
    mark = log.mark()
    log.log(module.ILogger.Severity.ERROR, "an error")
    log.log(module.ILogger.Severity.WARNING, "a warning")
    assert log.since(mark) == ["an error"]
    assert log.since(log.mark()) == []


def test_one_log_serves_a_process_and_keeps_threads_and_calls_apart():
    """TensorRT keeps the first logger of a process; out of memory is recognised by what is logged."""
    module, trt = simulated(SimulatedCuda())
    log = trt.log
    assert TensorRt(module).log is log
    first, second = (Calls(trt.name, log, device=index) for index in range(2))
    log.log(module.ILogger.ERROR, "out of memory in an earlier call")

    def fails(words: str) -> bool:
        log.log(module.ILogger.ERROR, words)
        met.wait()  # until the other thread has failed as well
        return False

    def call(calls: Calls, words: str) -> BackendError:
        with pytest.raises(BackendError, match=words) as caught:
            calls.make("run", fails, words)
        return caught.value

    met = Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(call, (first, second), ("illegal address", "out of memory"))
    assert isinstance(two, OutOfDeviceMemoryError)
    assert not isinstance(one, OutOfDeviceMemoryError), "neither an earlier call's nor another thread's"
    with pytest.raises(BackendError, match="no reason given"):
        first.make("run", lambda: False)


def test_the_real_runtime_takes_the_arguments_that_the_simulated_one_is_given():
    """Without a GPU each call fails with a status, but not for the types of what it was given."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("there is a GPU, which would really be used")
    handles = {"Stream": runtime.cudaStream_t(0), "Event": runtime.cudaEvent_t(0)}
    enums = {"cudaMemcpyKind": runtime.cudaMemcpyKind, "cudaDeviceAttr": runtime.cudaDeviceAttr}
    seen: dict[str, tuple] = {}
    simulated = SimulatedCuda()

    def remember(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        seen.setdefault(name, arguments)
        return call(*arguments)

    for name in [name for name in used_names(SimulatedCuda) if callable(getattr(simulated, name))]:
        if isinstance(getattr(SimulatedCuda, name), type):
            continue
        setattr(simulated, name, functools.partial(remember, name, getattr(simulated, name)))
    run_once(simulated, FAULT_BATCHES)
    run_pictures(simulated, [random_batches((1, 100, 90))[0][0]])
    assert len(seen) >= 16
    for name, arguments in seen.items():
        given = []
        for argument in arguments:
            kind = type(argument).__name__
            converted = enums[kind](int(argument)) if kind in enums else handles.get(kind, argument)
            given.append(converted)
        if name not in ("cudaFreeHost", "cudaFree"):  # addresses of the simulation
            status, *_ = getattr(runtime, name)(*given)
            assert int(status) in (35, 100), (name, status)
