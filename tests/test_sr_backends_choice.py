"""Which backend and device are taken, what is said where none can be, and ONNX Runtime on a GPU."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from deploy.verify import difference
from sr.backends import BACKENDS, BackendRequest, choice, open_backend, ort
from sr.backends.available import missing, missing_requirements
from sr.backends.base import Backend, BackendInfo, Workload, gpu_indices
from sr.backends.gpus import Gpu
from sr.backends.ort import OrtBackend, read_metadata
from sr.backends.parity import MIN_PSNR_DB
from sr.backends.tensorrt.modules import TensorRt
from sr.cli.environment import environment_lines
from sr.cli.workload import estimated_work
from sr.errors import BackendError, SrupError
from sr.jobs.job import FileJob
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

        monkeypatch.setattr(choice, "_opened", lambda spec, request: opener(spec.name)(request))
        monkeypatch.setattr(choice, "require_extra", lambda *_, **__: None)
        monkeypatch.setattr(choice, "missing", lambda name: "")
        monkeypatch.setattr(
            choice, "visible_gpus", lambda: [Gpu(index, "a GPU", 89) for index in range(gpus)]
        )
        monkeypatch.setattr(choice, "missing_requirements", lambda name: (lacking or {}).get(name, ""))

    return make


@pytest.mark.parametrize(
    ("setup", "device", "name", "on", "why"),
    [
        ({}, "auto", "trt", "cuda", "the fastest on this GPU"),
        ({"lacking": {"trt": "tensorrt"}}, "auto", "trt-rtx", "cuda", "the fastest on this GPU"),
        ({"lacking": {"trt": "x", "trt-rtx": "y"}}, "auto", "onnx", "cuda", "the fastest on this GPU"),
        ({"failing": ("trt",)}, "auto", "trt-rtx", "cuda", "trt failed: no kernel image for trt"),
        ({"lacking": dict.fromkeys(BACKENDS, "x")}, "auto", "onnx", "cpu", "cannot use the GPU"),
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


ONE_PHOTOGRAPH, ONE_THUMBNAIL = Workload(1, 12_000_000), Workload(1, 40_000)
MANY_THUMBNAILS, MANY_OF_SCREEN_SIZE = Workload(5000, 200_000_000), Workload(100, 200_000_000)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"work": ONE_PHOTOGRAPH}, "openvino"),
        ({"work": MANY_OF_SCREEN_SIZE, "scale": 4, "device": "cpu"}, "openvino"),
        ({"work": ONE_PHOTOGRAPH, "precision": "fp32"}, "openvino"),
        ({"work": ONE_THUMBNAIL}, "onnx"),
        ({"work": MANY_THUMBNAILS}, "onnx"),  # each may be a new shape
        ({"work": None}, "onnx"),
        ({"work": ONE_PHOTOGRAPH, "scale": 2}, "onnx"),
        ({"work": ONE_PHOTOGRAPH, "precision": "fp16"}, "onnx"),
        ({"work": ONE_PHOTOGRAPH, "model": Path("theirs.onnx")}, "onnx"),
    ],
)
def test_auto_counts_start_up_against_the_work(machine, changes, name):
    machine(gpus=0)
    backend = open_backend("auto", replace(REQUEST, **{"scale": 3, **changes}))
    assert backend.info.name == name
    assert backend.request.device == "cpu"
    counted = {"work"} == changes.keys() and changes["work"] is not None
    if counted:
        assert re.search(r"no NVIDIA GPU found; .*megapixels.*openvino", backend.info.why)


def test_auto_counts_only_backends_that_are_installed_and_open(machine, monkeypatch):
    machine(gpus=0, failing=("openvino",))
    backend = open_backend("auto", replace(REQUEST, scale=3, work=ONE_PHOTOGRAPH))
    assert backend.info.name == "onnx"
    assert "openvino failed: no kernel image for openvino" in backend.info.why
    monkeypatch.setattr(choice, "missing", lambda name: "x" if name == "openvino" else "")
    backend = open_backend("auto", replace(REQUEST, scale=3, work=ONE_PHOTOGRAPH))
    assert (backend.info.name, backend.info.why) == ("onnx", "no NVIDIA GPU found")


def test_what_auto_takes_for_much_work_computes_the_same_picture():
    """With the real OpenVINO; the file and the device are those of ONNX Runtime."""
    pytest.importorskip("openvino")
    image = np.asarray(Image.open(ROOT / "examples" / "kitten.png").convert("RGB"))[:90, :120]
    outputs = {}
    for work in (ONE_PHOTOGRAPH, ONE_THUMBNAIL):
        with Upscaler(scale=3, device="cpu", work=work) as upscaler:
            outputs[upscaler.backend.info.name] = upscaler(image)
    assert outputs.keys() == {"openvino", "onnx"}
    found = difference(outputs["openvino"], outputs["onnx"])
    assert found.psnr >= MIN_PSNR_DB["fp32"]
    assert found.max_levels <= 1


def test_a_gpu_is_taken_whatever_the_work(machine):
    machine()
    assert open_backend("auto", replace(REQUEST, scale=3, work=ONE_PHOTOGRAPH)).info.name == "trt"


def test_work_is_estimated_from_headers(tmp_path):
    jobs = []
    for index in range(30):
        path = tmp_path / f"{index}.png"
        Image.new("L", (40 + 20 * (index % 2), 10)).save(path)
        jobs.append(FileJob(path, tmp_path / f"{index}_x3.png"))
    (tmp_path / "0.png").write_bytes(b"damaged")
    work = estimated_work(jobs)
    assert work.pictures == pytest.approx(30, rel=0.2)
    assert work.lr_px == pytest.approx(30 * 500, rel=0.3)
    assert estimated_work([]) is None
    assert estimated_work(jobs[:1]) is None
    with jobs[1].source.open("rb") as file:
        assert estimated_work([FileJob(Path("-"), tmp_path / "out.png", stdin=file)]) is None


def test_the_command_line_hands_the_work_to_auto_only(tmp_path, monkeypatch):
    from click.testing import CliRunner

    import sr.upscale
    from sr.cli import main

    picture = tmp_path / "in.png"
    Image.new("RGB", (20, 30)).save(picture)
    asked = []

    def noting(name, request):
        asked.append((name, request.work))
        return open_backend("onnx", replace(request, device="cpu"))

    monkeypatch.setattr(sr.upscale, "open_backend", noting)
    for backend in ("auto", "onnx"):
        command = ["upscale", str(picture), "--backend", backend, "--overwrite", "--scale", "3"]
        answer = CliRunner().invoke(main, command)
        assert answer.exit_code == 0, answer.output
    assert asked == [("auto", Workload(1, 600)), ("onnx", None)]


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
    monkeypatch.setattr(choice, "visible_gpus", lambda: [])
    monkeypatch.setattr(choice, "missing", lambda _: "")
    with pytest.raises(BackendError, match=rf"{name} needs an NVIDIA GPU.*--backend onnx$"):
        open_backend(name, REQUEST)
    monkeypatch.setattr(choice, "missing", lambda name: f'x; pip install "srup[{name}]"')
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

    monkeypatch.setattr(
        sr.backends.available, "has_module", lambda module: module in ("onnxruntime", "torch")
    )
    found = [Gpu(0, "NVIDIA L4", 89), Gpu(1, "NVIDIA T4", 75)]
    monkeypatch.setattr(sr.cli.environment, "visible_gpus", lambda: found)
    monkeypatch.setattr(sr.cli.environment, "driver_cuda_version", lambda: "13.0")
    text = "\n".join(environment_lines())
    assert "CUDA 13.0, 2 GPUs" in text
    assert "1  NVIDIA T4" in text
    assert 'missing: tensorrt and cuda-bindings; pip install "srup[trt]"' in text
    assert 'missing: tensorrt-rtx and cuda-bindings; pip install "srup[trt-rtx]"' in text
    assert 'missing: safetensors; pip install "srup[torch]"' in text
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert 'pip install "onnxruntime-gpu[cuda,cudnn]"' in text


def test_a_package_that_is_too_old_is_missing(monkeypatch):
    """Before 12.9.1 cuda-bindings hold the GIL while they wait for the GPU."""
    import sr.backends.available as available

    monkeypatch.setattr(available, "has_module", lambda module: True)
    for number, said in (("12.9.0", True), ("12.8.0", True), ("12.9.1", False), ("13.0.3", False)):
        monkeypatch.setattr(available, "_version", lambda package, number=number: number)
        gap = available.missing("trt")
        assert ("cuda-bindings 12.9.1 or later" in gap) == said, number
    (line,) = [text for text in (ROOT / "setup.cfg").read_text().splitlines() if "cuda-bindings" in text][:1]
    assert line.strip() == "cuda-bindings>=12.9.1"


# --- one record for each backend ------------------------------------------------------------------

ONE_MORE = """
import sys
from sr.backends.specs import BACKENDS, BackendSpec, Requirement
BACKENDS["repeat"] = BackendSpec(
    name="repeat",
    title="Repeat",
    opener="tests.backends:open_repeat",
    requirements=(Requirement("json", ("repeat-package",)),),
    extra="repeating",
    devices=("cpu",),
    precisions=("bf16", "int8"),
    model_suffixes=(".repeat",),
    sixteen_bit=True,
)
from sr.cli import main
main(sys.argv[1:])
"""


def one_more(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ONE_MORE, *map(str, arguments)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in answer.stderr
    return answer


def test_a_backend_is_one_record_from_which_help_and_messages_are_made(tmp_path):
    text = " ".join(one_more("upscale", "--help").stdout.split())
    assert "|repeat]" in text
    assert ".repeat for repeat" in text
    assert "repeat bf16" in text, "the default precision"
    listed = one_more("info").stdout
    assert next(line for line in listed.splitlines() if line.split()[:1] == ["repeat"])
    Image.new("RGB", (20, 10)).save(tmp_path / "in.png")
    (tmp_path / "m.repeat").write_bytes(b"")
    other = ("--backend", "onnx", "--scale", 2, "--model", tmp_path / "m.repeat")
    refused = one_more("upscale", tmp_path / "in.png", *other)
    assert "--backend repeat" in refused.stderr
    refused = one_more("upscale", tmp_path / "in.png", "--backend", "torch", "--precision", "int8")
    assert "onnx, openvino or repeat" in refused.stderr


def test_a_backend_of_one_record_upscales(tmp_path):
    Image.new("RGB", (20, 10), "teal").save(tmp_path / "in.png")
    answer = one_more("upscale", tmp_path / "in.png", "--backend", "repeat")
    assert answer.returncode == 0, answer.stderr
    with Image.open(tmp_path / "in_x2.png") as picture:
        assert picture.size == (40, 20)


@pytest.mark.parametrize("spec", BACKENDS.values(), ids=lambda spec: spec.name)
def test_every_record_fits_the_package(spec):
    import configparser

    from sr.backends.specs import PRECISIONS, imported

    assert BACKENDS[spec.name] is spec
    assert set(spec.precisions) >= {*spec.gpu_precisions, *spec.fastest_on_cpu}
    assert set(spec.precisions) <= set(PRECISIONS)
    assert bool(spec.gpu_precisions) == ("gpu" in spec.devices)
    extras = configparser.ConfigParser()
    extras.read(ROOT / "setup.cfg")
    assert not spec.extra or spec.extra in extras["options.extras_require"]
    if not missing(spec.name):
        assert callable(imported(spec.opener))
        assert not spec.gpu_probe or callable(imported(spec.gpu_probe))


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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_onnxruntime_gets_few_shapes_on_a_gpu(monkeypatch, device):
    """CUDA prepares convolutions for each shape anew."""
    real = ort._open_session
    monkeypatch.setattr(ort, "_open_session", lambda model, _, **named: real(model, "cpu", **named))
    with OrtBackend(shipped_onnx(scale=2), device=device) as backend:
        assert backend.info.constant_tiles == (device == "cuda")


def test_a_silent_run_on_the_cpu_is_refused(monkeypatch):
    """ONNX Runtime lists CUDA, fails to load it, and continues on the CPU without an error."""
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: real(path, options, providers=["CPUExecutionProvider"]),
    )
    monkeypatch.setattr(ort, "_load_cuda_libraries", lambda: "")
    with pytest.raises(BackendError, match=r"CUDAExecutionProvider.*CPU.*onnxruntime-gpu\[cuda,cudnn\]"):
        OrtBackend(shipped_onnx(scale=2), device="cuda")


def test_a_gpu_is_claimed_only_after_the_provider_was_started(monkeypatch, capsys):
    class Session:
        def __init__(self, path, options, providers):
            opened.append(providers)
            if started[-1] == "CPUExecutionProvider":
                print("EP Error: falling back")

        def get_providers(self):
            return [started[-1]]

    opened, loaded, started = [], [], []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: loaded.append(print("libcublas is missing")))
    for provider, said in (("CPUExecutionProvider", True), ("CUDAExecutionProvider", False)):
        started.append(provider)
        ort._start_problem.cache_clear()
        ort._load_cuda_libraries.cache_clear()
        problem = missing_requirements("onnx")
        assert bool(problem) == said
        for printed in ("libcublas is missing", "EP Error"):
            assert (printed in problem) == said, "what ONNX Runtime prints is not lost"
    ort._start_problem.cache_clear()
    ort._load_cuda_libraries.cache_clear()
    assert len(loaded) == 2
    assert capsys.readouterr().out == "", "standard output may be a picture"
    ((name, settings),) = opened[0]
    assert name == "CUDAExecutionProvider"
    assert settings["use_tf32"] == "0", "float32 is promised"
    assert settings["cudnn_conv_algo_search"] == "HEURISTIC"


def test_pytorch_computes_no_tf32_where_float32_is_promised():
    torch = pytest.importorskip("torch")
    from sr.backends.pytorch import TorchBackend
    from sr.network.modelfile import shipped_weights

    allowed = []

    class Network(torch.nn.Module):
        def forward(self, lr):
            allowed.append(torch.backends.cudnn.allow_tf32)
            return lr

    before = torch.backends.cudnn.allow_tf32
    with TorchBackend(shipped_weights(scale=2), device="cpu") as backend:
        backend._model = Network()
        list(backend.run([np.zeros((1, 8, 8, 3), np.uint8)]))
    assert allowed == [False]
    assert torch.backends.cudnn.allow_tf32 == before


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

        def get(self, onnx, spec, trt, *, gpu, progress, log):
            asked.append((spec, gpu.index))
            log("small_x2.plan: found")
            log("no TensorRT engine for x2 fp16 in the cache; building it")
            progress("phase", 0.5)
            plan = SimulatedPlan(OrtKernel(onnx), spec.scale, spec.batch, spec.tile)
            manifest = SimpleNamespace(identity=SimpleNamespace(spec=spec))
            return SimpleNamespace(plan=lambda: module.plan(plan), manifest=manifest)

    found = [Gpu(index, f"Simulated {index}", 89) for index in range(2)]
    monkeypatch.setattr(bindings, "runtime", cuda, raising=False)
    monkeypatch.setattr(opening, "load_tensorrt", lambda _: TensorRt(module))
    monkeypatch.setattr(opening, "cuda_gpus", lambda: found)
    monkeypatch.setattr(opening, "EngineStore", Store)
    monkeypatch.setattr(choice, "visible_gpus", lambda: found)
    monkeypatch.setattr(choice, "missing", lambda _: "")
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
    with Upscaler(backend="trt", device="0", engine_dir=tmp_path, builder=print, **said) as upscaler:
        assert gpus.builder is print
        assert upscaler.backend.info.name == "trt"
    assert gpus.folder == tmp_path
    open_backend("trt", replace(REQUEST, device="0", **said)).close()
    assert gpus.folder is None


def test_a_gpu_that_is_not_there_is_named(gpus):
    with pytest.raises(SrupError, match=r"GPU 5.*0 Simulated 0, 1 Simulated 1"):
        open_backend("trt", replace(REQUEST, device="5"))


# --- around the backend ---------------------------------------------------------------------------


def test_backends_of_constant_tiles_get_five_shapes():
    backend = Stub("trt", REQUEST)
    backend.info = replace(backend.info, constant_tiles=True, default_tile=512)
    with Upscaler(backend=backend) as upscaler:
        grids = [
            upscaler.grid(height, width) for height in range(128, 3000, 97) for width in (128, 700, 1920)
        ]
        shapes = {(grid.tile_height, grid.tile_width) for grid in grids}
        full_hd, small = upscaler.grid(1080, 1920), upscaler.grid(600, 600)
        strip = upscaler.grid(100, 1920)
    assert len(shapes) <= 5
    assert max(shapes) == (512, 512)
    assert full_hd.work < 1.15
    assert small.work < 2  # four tiles of 512 would be 2.9
    assert strip.tile_height == 100  # never padded


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
