"""Which backend and device are taken, what is said where none can be, and ONNX Runtime on a GPU."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import sr.backends
from sr.backends import BackendRequest, open_backend
from sr.backends.base import Backend, BackendInfo, gpu_indices
from sr.backends.ort import OrtBackend, read_metadata
from sr.backends.tensorrt.gpus import Gpu
from sr.cli.environment import environment_lines
from sr.errors import BackendError, SrupError
from sr.network.modelfile import shipped_onnx
from sr.upscale import Upscaler
from tests.simulated_device import SimulatedCuda
from tests.simulated_tensorrt import OrtKernel, SimulatedPlan, SimulatedTensorRT

ROOT = Path(__file__).resolve().parent.parent
REQUEST = BackendRequest(scale=2)


class Stub(Backend):
    """A backend that was opened and does nothing."""

    def __init__(self, name: str, request: BackendRequest) -> None:
        model = replace(read_metadata(shipped_onnx(scale=2)), precision=request.precision or "fp32")
        self.request = request
        self.info = BackendInfo(name, request.device, model, default_tile=64, default_batch=1)

    def run(self, batches):
        yield from ()


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes a machine: how many GPUs, what each backend lacks, what fails."""

    def make(*, gpus: int = 1, lacking: dict[str, str] | None = None, failing: tuple[str, ...] = ()) -> None:
        def opener(name):
            def open_stub(request):
                if name in failing:
                    raise BackendError(f"no kernel image for {name}")
                return Stub(name, request)

            return open_stub

        names = [name for name in sr.backends.BACKENDS if name != "auto"]
        monkeypatch.setattr(sr.backends, "_OPENERS", {name: opener(name) for name in names})
        monkeypatch.setattr(sr.backends, "driver_gpu_count", lambda: gpus)
        monkeypatch.setattr(sr.backends, "lacks", lambda name: (lacking or {}).get(name, ""))

    return make


@pytest.mark.parametrize(
    ("setup", "device", "name", "on", "why"),
    [
        ({}, "auto", "trt", "cuda", "the fastest on this GPU"),
        ({"lacking": {"trt": "tensorrt"}}, "auto", "trt-rtx", "cuda", "the fastest on this GPU"),
        ({"lacking": {"trt": "x", "trt-rtx": "y"}}, "auto", "onnx", "cuda", "the fastest on this GPU"),
        ({"failing": ("trt",)}, "auto", "trt-rtx", "cuda", "trt failed: no kernel image for trt"),
        ({"lacking": dict.fromkeys(sr.backends.BACKENDS, "x")}, "auto", "onnx", "cpu", "cannot use the GPU"),
        ({"gpus": 0}, "auto", "onnx", "cpu", "no NVIDIA GPU found"),
        ({}, "cpu", "onnx", "cpu", ""),
        ({"lacking": {"trt": "tensorrt"}}, "0,1", "trt-rtx", "0,1", "the fastest on this GPU"),
    ],
)
def test_auto_takes_the_fastest_that_works_and_says_why(machine, setup, device, name, on, why):
    machine(**setup)
    backend = open_backend("auto", replace(REQUEST, device=device))
    assert (backend.info.name, backend.request.device) == (name, on)
    assert why in backend.info.why
    assert bool(backend.info.why) == bool(why)
    assert "\n" not in backend.info.why


@pytest.mark.parametrize(
    ("precision", "gpus", "name", "on", "why"),
    [
        ("fp32", 0, "onnx", "cpu", "no NVIDIA GPU found"),
        ("int8", 0, "openvino", "cpu", "the fastest in int8"),
        ("bf16", 1, "openvino", "cpu", "the fastest in bf16"),
        ("fp16", 1, "trt", "cuda", "the fastest on this GPU"),
        ("fp32", 1, "trt", "cuda", "the fastest on this GPU"),
    ],
)
def test_auto_takes_what_computes_in_the_precision_that_is_named(machine, precision, gpus, name, on, why):
    machine(gpus=gpus)
    backend = open_backend("auto", replace(REQUEST, precision=precision))
    assert (backend.info.name, backend.request.device, backend.info.why) == (name, on, why)


def test_a_precision_that_is_named_is_taken_or_fails(machine):
    with pytest.raises(BackendError, match=r"small_x2_int8_uint8\.onnx: .*int8.*fp32.*--precision"):
        open_backend(
            "onnx", replace(REQUEST, precision="fp32", model=shipped_onnx(scale=2, precision="int8"))
        )
    machine()
    with pytest.raises(BackendError, match=r"torch.*fp32.*int8.*--backend onnx"):
        open_backend("torch", replace(REQUEST, precision="int8"))
    with pytest.raises(BackendError, match=r"bf16.*--device"):
        open_backend("auto", replace(REQUEST, precision="bf16", device="0"))


def test_a_device_that_is_named_is_taken_or_fails(machine):
    machine(gpus=0)
    with pytest.raises(BackendError, match="device cuda: "):
        open_backend("auto", replace(REQUEST, device="cuda"))
    machine(failing=("trt", "trt-rtx", "onnx", "torch"))
    with pytest.raises(BackendError, match=r"trt.*no kernel image for trt"):
        open_backend("auto", replace(REQUEST, device="0"))
    with pytest.raises(BackendError, match=r"onnx.*0,1"):
        open_backend("onnx", replace(REQUEST, device="0,1"))
    with pytest.raises(BackendError, match="'tpu'"):
        open_backend("tpu", REQUEST)


def test_a_backend_that_is_named_runs_on_a_gpu_if_it_can(machine):
    machine()
    assert open_backend("onnx", REQUEST).request.device == "cuda"
    machine(lacking={"onnx": "onnxruntime-gpu"})
    backend = open_backend("onnx", REQUEST)
    assert backend.request.device == "cpu"
    assert backend.info.why == "onnx cannot use the GPU: onnxruntime-gpu"


@pytest.mark.parametrize("name", ["trt", "trt-rtx"])
def test_without_a_gpu_tensorrt_says_so_in_one_line(monkeypatch, name):
    monkeypatch.setattr(sr.backends, "driver_gpu_count", lambda: 0)
    monkeypatch.setattr(sr.backends, "lacks", lambda _: "")
    with pytest.raises(BackendError) as caught:
        open_backend(name, REQUEST)
    assert str(caught.value) == (
        f"backend {name} needs an NVIDIA GPU, and the driver finds none here; use --backend onnx"
    )
    monkeypatch.setattr(sr.backends, "lacks", lambda name: f'x; pip install "srup[{name}]"')
    with pytest.raises(BackendError, match=rf"GPU.*pip install \"srup\[{name}\]\""):
        open_backend(name, REQUEST)
    with pytest.raises(BackendError, match="GPU"):
        open_backend(name, replace(REQUEST, device="cpu"))


@pytest.mark.parametrize(
    ("device", "indices"), [("cpu", ()), ("auto", (0,)), ("cuda", (0,)), ("3", (3,)), ("0,1", (0, 1))]
)
def test_devices(device, indices):
    assert gpu_indices(device) == indices


@pytest.mark.parametrize("device", ["", "gpu", "-1", "0,", "0,0", "1.5", "²"])
def test_other_devices_are_refused(device):
    with pytest.raises(BackendError, match="device"):
        gpu_indices(device)


def test_info_names_what_is_missing_and_the_pip_line(monkeypatch):
    import sr.backends.available
    import sr.cli.environment

    monkeypatch.setattr(sr.backends.available, "_has", lambda module: module in ("onnxruntime", "torch"))
    monkeypatch.setattr(sr.cli.environment, "gpu_names", lambda: ["NVIDIA L4", "NVIDIA T4"])
    monkeypatch.setattr(sr.cli.environment, "driver_cuda_version", lambda: "13.0")
    text = "\n".join(environment_lines())
    assert "NVIDIA driver: serves CUDA 13.0, 2 GPUs" in text
    assert "1  NVIDIA T4" in text
    assert 'missing: tensorrt and cuda-bindings; pip install "srup[trt]"' in text
    assert 'missing: tensorrt-rtx and cuda-bindings; pip install "srup[trt-rtx]"' in text
    assert 'missing: safetensors; pip install "srup[torch]"' in text
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert "pip uninstall onnxruntime, then pip install onnxruntime-gpu" in text


# --- ONNX Runtime on a GPU ------------------------------------------------------------------------


def test_bound_runs_equal_plain_ones():
    """Binding is what a GPU runs with; the CPU can be bound too."""
    batch = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), np.uint8)
    with OrtBackend(shipped_onnx(scale=2), device="cpu") as backend:
        (expected,) = backend.run([batch])
        (bound,) = backend._run_bound(batch, "cpu", 0)
        (strided,) = backend._run_bound(batch[:, ::-1], "cpu", 0)
    assert np.array_equal(bound, expected)
    assert strided.shape == expected.shape


def test_a_silent_run_on_the_cpu_is_refused(monkeypatch):
    """ONNX Runtime lists CUDA, fails to load it, and goes on on the CPU without an error."""
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: real(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(BackendError, match=r"CUDAExecutionProvider.*CPU"):
        OrtBackend(shipped_onnx(scale=2), device="cuda")


# --- TensorRT by name -----------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """Make two simulated GPUs on which `--backend trt` runs the shipped fp16 files."""
    bindings = pytest.importorskip("cuda.bindings")
    from sr.backends.tensorrt import opening

    cuda = SimulatedCuda(devices=2)
    module = SimulatedTensorRT(cuda)
    asked = []

    class Store:
        def __init__(self, folder, *, builder) -> None:
            cuda.folder, cuda.builder = folder, builder

        def get(self, onnx, spec, module, *, gpu, progress, log):
            asked.append((spec, gpu.index))
            log("small_x2.plan: found")
            log("no TensorRT engine for x2 fp16 in the cache; building it")
            progress("phase", 0.5)
            plan = SimulatedPlan(OrtKernel(onnx), spec.scale, spec.batch, spec.tile)
            manifest = SimpleNamespace(identity=SimpleNamespace(spec=spec))
            return SimpleNamespace(plan=lambda: module.plan(plan), manifest=manifest)

    found = [Gpu(index, f"Simulated {index}", 89) for index in range(2)]
    monkeypatch.setattr(bindings, "runtime", cuda, raising=False)
    monkeypatch.setattr(opening, "load_module", lambda _: module)
    monkeypatch.setattr(opening, "visible_gpus", lambda: found)
    monkeypatch.setattr(opening, "EngineStore", Store)
    monkeypatch.setattr(sr.backends, "driver_gpu_count", lambda: 2)
    monkeypatch.setattr(sr.backends, "lacks", lambda _: "")
    cuda.asked = asked
    return cuda


def test_trt_by_name_builds_the_fp16_engine_for_each_gpu(gpus):
    said = []
    request = replace(REQUEST, device="1,0", build_progress=lambda *step: said.append(step))
    batch = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 3), np.uint8)
    with open_backend("trt", request) as backend:
        assert backend.info.device == "GPU 1 Simulated 1 and GPU 0 Simulated 0"
        assert backend.info.model.precision == "fp16"
        (result,) = backend.run([batch])
    assert np.array_equal(result, OrtKernel(shipped_onnx(scale=2, precision="fp16"))(batch)[0])
    assert [index for _, index in gpus.asked] == [1, 0]
    assert {(spec.tile, spec.batch, spec.precision) for spec, _ in gpus.asked} == {(512, 4, "fp16")}
    assert said[0] == ("no TensorRT engine for x2 fp16 in the cache; building it", 0.0)
    assert said[1] == ("phase", 0.5)
    del backend
    assert gpus.leaks() == []


def test_larger_tiles_and_batches_get_an_engine_of_their_own(gpus):
    with open_backend("trt", replace(REQUEST, tile=640, batch=2, build_progress=print)) as backend:
        assert (backend.info.max_tile, backend.info.max_batch) == (640, 2)
    assert [(spec.tile, spec.batch) for spec, _ in gpus.asked] == [(640, 4)]


def test_engines_are_looked_for_in_the_folder_that_was_named(gpus, tmp_path):
    said = {"build_progress": lambda *_: None}
    with Upscaler(backend="trt", device="0", engine_dir=tmp_path, **said) as upscaler:
        assert upscaler.backend.info.name == "trt"
    assert gpus.folder == tmp_path
    open_backend("trt", replace(REQUEST, device="0", **said)).close()
    assert gpus.folder is None


def test_a_gpu_that_is_not_there_is_named(gpus):
    with pytest.raises(SrupError, match=r"GPU 5.*0 Simulated 0, 1 Simulated 1"):
        open_backend("trt", replace(REQUEST, device="5"))


# --- around the backend ---------------------------------------------------------------------------


def test_fixed_tiles_are_taken_where_they_cost_little():
    backend = Stub("trt", REQUEST)
    backend.info = replace(backend.info, fixed_tiles=True, default_tile=512)
    with Upscaler(backend=backend) as upscaler:
        large, small = upscaler.grid(4320, 7680), upscaler.grid(600, 600)
    assert (large.tile_height, large.tile_width) == (512, 512)
    assert small.tile_height < 320  # four tiles of 512 would be 2.9 times the work
    assert small.work < 1.1


def test_what_happened_on_the_device_is_told(monkeypatch, tmp_path):
    """Smaller batches, tiles that overflowed: a line on stderr, whatever the backend."""
    from click.testing import CliRunner

    import sr.upscale
    from sr.cli import main

    class Telling(OrtBackend):
        notes = ("fp16 overflowed in 2 tiles; they were computed in fp32 on the CPU",)

    def open_telling(name, request):
        return Telling(shipped_onnx(scale=2), device="cpu")

    monkeypatch.setattr(sr.upscale, "open_backend", open_telling)
    Image.new("RGB", (20, 20)).save(tmp_path / "in.png")
    answer = CliRunner().invoke(main, ["upscale", str(tmp_path / "in.png")])
    assert answer.exit_code == 0, answer.output
    assert "Warning: fp16 overflowed in 2 tiles; they were computed in fp32 on the CPU" in answer.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a bash script")
def test_gpu_check_leaves_one_report_and_counts_what_failed(tmp_path):
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "gpu-check", tmp_path / "bin")
    (tmp_path / "bin" / "_env.sh").write_text(
        f"root='{tmp_path}' venv='{tmp_path}/venv'\n"
        'say() { echo "$*" >&2; }; die() { say "$@"; exit 1; }; ensure_installed() { :; }\n'
    )
    for name in ("python", "srup"):
        (programs / name).write_text(
            '#!/bin/sh\necho "ran $*"\ncase "$*" in *benchmarks.report*) exit 3;; esac\n'
        )
        (programs / name).chmod(0o755)
    answer = subprocess.run(
        [tmp_path / "bin" / "gpu-check", "--quick", tmp_path / "my report.txt"],
        capture_output=True,
        text=True,
    )
    report = (tmp_path / "my report.txt").read_text()
    assert answer.returncode == 1
    base = f"{tmp_path}/my report"
    assert f"send back {base}.txt, {base}.html and {base}.json" in answer.stderr
    assert report.splitlines()[0].startswith("srup gpu-check, 20")
    assert "ran -m pytest -m gpu -ra\n" in report
    assert f"ran -m benchmarks.report --quick -o {base}.html\n(exit status 3)" in report
    assert report.rstrip().endswith("failed sections: 1")
