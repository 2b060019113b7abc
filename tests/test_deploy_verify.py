"""Limits on differences of outputs, and the check of engines at their export, on simulated GPUs."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner, Result

import deploy.engines.build
import sr.cli.report_engines
from deploy.engines.parity import engine_parity
from deploy.verify import chart, difference, parity
from sr.backends import BackendRequest, open_backend
from sr.backends.available import missing_requirements
from sr.backends.gpus import Gpu, visible_gpus
from sr.backends.ort import OrtBackend
from sr.backends.parity import MIN_PSNR_DB, Parity
from sr.backends.tensorrt.manifest import EngineManifest, Identity
from sr.backends.tensorrt.modules import TensorRt, TensorRtRtx, load_tensorrt
from sr.backends.tensorrt.spec import EngineSpec
from sr.backends.tensorrt.store import EngineStore
from sr.cli import main
from sr.network.modelfile import shipped_onnx, shipped_weights
from tests.simulated_device import SimulatedCuda, nothing_left
from tests.simulated_tensorrt import Kernel, OrtKernel, SimulatedPlan, SimulatedTensorRT, mirror_kernel

L4 = Gpu(0, "NVIDIA L4", 89)


def test_a_difference_is_counted():
    first = np.zeros((4, 5, 3), np.uint8)
    second = first.copy()
    second[0, 0] = 1, 0, 3
    found = difference(first, second)
    assert (found.max_levels, found.share) == (3, 2 / 60)
    assert found.psnr == pytest.approx(10 * math.log10(255**2 / (10 / 60)))
    assert difference(first, first).psnr == math.inf


def test_the_chart_is_constant_and_varied():
    picture = chart(height=192, width=256)
    assert (picture.shape, picture.dtype) == ((192, 256, 3), np.uint8)
    assert (picture == chart(height=192, width=256)).all()
    for corner in (picture[:96, :128], picture[96:, 128:]):
        assert all(len(np.unique(corner[..., channel])) > 200 for channel in range(3))
    assert len(np.unique(picture[96:, :128].reshape(-1, 3), axis=0)) == 8


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_half_arithmetic_passes_and_uses_most_of_what_it_may(scale):
    """Real fp16 meets the limit; slightly more error does not."""
    pytest.importorskip("torch")
    from benchmarks.fp16 import levels, shipped_nets

    nets, picture = shipped_nets(scale), chart(height=97, width=131)
    fp32, fp16 = nets.upscale("fp32", picture), nets.upscale("fp16", picture)
    found = difference(levels(fp32), levels(fp16))
    assert MIN_PSNR_DB["fp16"] < found.psnr < MIN_PSNR_DB["fp16"] + 6
    worse = difference(levels(fp32), levels(fp32 + 3 * (fp16 - fp32)))
    assert worse.psnr < MIN_PSNR_DB["fp16"]


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_backends_on_this_machine_compute_the_same(scale):
    pytest.importorskip("torch")
    from sr.backends.pytorch import TorchBackend

    with (
        OrtBackend(shipped_onnx(scale=scale), device="cpu") as onnx,
        TorchBackend(shipped_weights(scale=scale), device="cpu") as torch,
    ):
        found = parity(torch, onnx)
        assert found.passes("fp32")
        assert found.against == "onnx fp32 on CPU"
        assert parity(onnx, onnx) == Parity("onnx fp32 on CPU", None, 0, 0.0)


# --- at export ----------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """Return a function that gives this machine a simulated GPU on which engines compute a kernel."""
    pytest.importorskip("cuda.bindings.runtime")

    def set_up(kernel: Kernel | None, *, rtx: bool = False) -> SimulatedCuda:
        cuda = SimulatedCuda()
        module = SimulatedTensorRT(cuda, rtx=rtx)
        module.__version__ = "1.7.1.116" if rtx else "11.0.0.1"
        if rtx:
            module.ComputeCapability = TensorRtRtx.load().module.ComputeCapability

        def build(onnx: bytes, spec: EngineSpec, trt: TensorRt, **_: object) -> bytes:
            computes = kernel or OrtKernel(shipped_onnx(scale=spec.scale, precision=spec.precision))
            half = spec.precision == "fp16"
            return module.plan(SimulatedPlan(computes, spec.scale, spec.batch, spec.tile, finite=half))

        monkeypatch.setattr(deploy.engines.build, "plan_from_onnx", build)
        monkeypatch.setattr(deploy.engines.build, "check_plan", lambda *_, **__: True)
        trt = (TensorRtRtx if rtx else TensorRt)(module)
        monkeypatch.setattr(sr.cli.report_engines, "load_tensorrt", lambda name: trt)
        monkeypatch.setattr(sr.cli.report_engines, "cuda_gpus", lambda: [L4])
        monkeypatch.setattr("cuda.bindings.runtime", cuda)
        return cuda

    return set_up


def export(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


@pytest.mark.parametrize("kind", ["trt", "trt-rtx"])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_export_stores_parity_in_the_manifest_once(tmp_path, machine, kind, precision):
    cuda = machine(None, rtx=kind == "trt-rtx")
    arguments = (f"--{kind}", "--scale", 2, "--precision", precision, "-o", tmp_path)
    with nothing_left(cuda):
        result = export(*arguments)
    assert result.exit_code == 0, result.output
    (file,) = tmp_path.glob("*.json")
    stored = json.loads(file.read_text())["parity"]
    assert stored["against"] == "onnx fp32 on CPU"
    if precision == "fp16":  # ONNX Runtime rounds the weights only, so it is nearer than a GPU would be
        assert MIN_PSNR_DB["fp16"] < stored["psnr_db"] < MIN_PSNR_DB["fp32"]
        assert f"{stored['psnr_db']:.1f} dB from onnx fp32 on CPU, off by 1 level at most" in result.stderr
    else:
        assert stored["psnr_db"] is None
        assert "equal to onnx fp32 on CPU" in result.stderr
    runs = cuda.calls.count("execute_async_v3")
    assert runs == 2
    again = export(*arguments)
    assert again.exit_code == 0
    assert cuda.calls.count("execute_async_v3") == runs
    assert again.stdout == result.stdout
    assert EngineManifest.from_json(file.read_text()).parity == Parity(**stored)
    listed = CliRunner().invoke(main, ["info", "--engines", "--engine-dir", str(tmp_path)])
    assert str(Parity(**stored)) in listed.stdout


def test_an_engine_that_computes_something_else_is_removed(tmp_path, machine):
    cuda = machine(mirror_kernel(2))
    with nothing_left(cuda):
        result = export("--trt", "--scale", 2, "-o", tmp_path)
    assert result.exit_code == 1
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "dB from onnx fp32 on CPU, off by 2" in error
    assert f"need {MIN_PSNR_DB['fp16']} dB; removed." in error
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_an_engine_that_overflows_is_refused(tmp_path, machine):
    def overflowing(batch):
        result, finite = OrtKernel(shipped_onnx(scale=2, precision="fp16"))(batch)
        return result, finite * 0

    cuda = machine(overflowing)
    with nothing_left(cuda):
        result = export("--trt", "--scale", 2, "-o", tmp_path)
    assert result.exit_code == 1
    assert "fp16" in result.stderr


def test_too_little_memory_keeps_the_engine_and_is_reported(tmp_path, machine):
    cuda = machine(None)
    cuda._failing_allocations = range(10_000)
    result = export("--trt", "--scale", 2, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert "not compared" in result.stderr
    (file,) = tmp_path.glob("*.json")
    assert json.loads(file.read_text())["parity"] is None


def test_engines_for_other_gpus_are_not_compared(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    if visible_gpus():
        pytest.skip("there is a GPU")
    result = export("--trt-rtx", "--gpu", "sm86", "--scale", 2, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    (file,) = tmp_path.glob("*.json")
    assert json.loads(file.read_text())["parity"] is None
    listed = CliRunner().invoke(main, ["info", "--engines", "--engine-dir", str(tmp_path)])
    assert "not compared" in listed.stdout


def test_manifests_without_parity_are_read():
    text = EngineManifest.to_json(
        EngineManifest(identity(), "a.onnx", "11.0", "0.1.0", "2026-01-01T00:00:00+00:00", 1.0, 3, "0" * 64)
    )
    values = json.loads(text)
    assert values.pop("parity") is None
    assert EngineManifest.from_json(json.dumps(values)) == EngineManifest.from_json(text)


def identity():
    return Identity("0" * 64, "tensorrt", "11.0", "Linux x86_64", 13, EngineSpec(2), "L4")


@pytest.mark.gpu
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["trt", "trt-rtx"])
def test_export_compares_with_the_network_on_a_real_gpu(tmp_path, name, scale):
    if lack := missing_requirements(name):
        pytest.skip(f"{name} lacks {lack}")
    result = export(f"--{name}", "--scale", scale, "-o", tmp_path)
    if "does not support" in result.output:
        pytest.skip(result.output)
    assert result.exit_code == 0, result.output
    for engine in EngineStore(tmp_path).list():
        assert engine.manifest.parity is not None
        assert engine.manifest.parity.passes("fp16")
    with open_backend(name, BackendRequest(scale, engine_dir=tmp_path)) as backend:
        assert backend.info.model.scale == scale
    onnx = shipped_onnx(scale=scale, precision="fp16")
    gpu = visible_gpus()[0]
    again = engine_parity(engine, onnx, trt=load_tensorrt(name), gpu=gpu)
    assert again.passes("fp16")
