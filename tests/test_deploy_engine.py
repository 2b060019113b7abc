"""Engines: really built with TensorRT-RTX, which needs no GPU for it; cached, explained, pruned."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import deploy.engines.build
from deploy.engines.build import build_engine, plan_from_onnx
from deploy.engines.precision import check_plan, float_convolutions
from deploy.engines.progress import progress_monitor
from sr.backends.gpus import Gpu, visible_gpus
from sr.backends.tensorrt import manifest as engine_manifest
from sr.backends.tensorrt import stale as engine_stale
from sr.backends.tensorrt import store as engine_store
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.log import logger
from sr.backends.tensorrt.modules import KINDS, TensorRt, TensorRtRtx, load_tensorrt
from sr.backends.tensorrt.request import engine_request
from sr.backends.tensorrt.spec import EngineSpec
from sr.backends.tensorrt.store import EngineStore
from sr.errors import EngineError, MissingExtraError, ModelError
from sr.files import TEMPORARY_PREFIX
from sr.network.modelfile import shipped_onnx
from tests.simulated_device import SimulatedCuda

ROOT = Path(__file__).resolve().parent.parent
TARGETS = (75, 80, 86, 89, 120)
ADA = EngineSpec(2, targets=(89,))
L4 = Gpu(0, "NVIDIA L4", 89)
RTX_3060 = Gpu(0, "NVIDIA GeForce RTX 3060", 86)
T4 = Gpu(0, "Tesla T4", 75)

rtx = TensorRtRtx(pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed"))
TRT_11 = TensorRt(SimpleNamespace(__version__="11.4.0.106"))


def onnx_bytes(scale: int, precision="fp16") -> bytes:
    return shipped_onnx(scale=scale, precision=precision).read_bytes()


def rtx_of(version: str) -> TensorRtRtx:
    """Return TensorRT-RTX under another version."""
    return TensorRtRtx(SimpleNamespace(**(vars(rtx.module) | {"__version__": version})))


# --- building -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scale", [2, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (3, 4))])
def test_an_engine_is_built_for_a_gpu_that_is_not_here(scale, target):
    plan = plan_from_onnx(onnx_bytes(scale), EngineSpec(scale, targets=(target,)), rtx)
    assert len(plan) > len(onnx_bytes(scale))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_one_engine_serves_several_gpus(scale):
    plan = plan_from_onnx(onnx_bytes(scale), EngineSpec(scale, targets=TARGETS), rtx)
    assert len(plan) > len(onnx_bytes(scale))


def test_fp32_engines_are_built_too():
    spec = EngineSpec(2, precision="fp32", targets=(89,), tile=128, batch=1)
    assert plan_from_onnx(onnx_bytes(2, "fp32"), spec, rtx)


@pytest.mark.slow
def test_a_rebuilt_plan_is_the_same_but_for_internal_numbers():
    """TensorRT-RTX orders some things by address: of a million bytes some hundred may differ."""
    plans = [np.frombuffer(plan_from_onnx(onnx_bytes(3), EngineSpec(3, targets=(75,)), rtx), np.uint8)]
    for _ in range(3):
        plans.append(
            np.frombuffer(plan_from_onnx(onnx_bytes(3), EngineSpec(3, targets=(75,)), rtx), np.uint8)
        )
        assert plans[-1].size == plans[0].size
        assert np.count_nonzero(plans[-1] != plans[0]) < 0.01 * plans[0].size


def test_the_order_of_targets_does_not_matter():
    assert EngineSpec(2, targets=(89, 75, 89)) == EngineSpec(2, targets=(75, 89))


def test_progress_rises_to_the_end():
    seen = []
    plan_from_onnx(onnx_bytes(2), ADA, rtx, progress=lambda phase, share: seen.append((phase, share)))
    shares = [share for _, share in seen]
    assert all(phase for phase, _ in seen)
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.1
    assert 0.8 < shares[-1] <= 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_from_the_progress_callback_ends_the_build(kind):
    """Ctrl-C arrives there as well; through C++ it would end the interpreter."""
    calls = []

    def fail(phase, share):
        calls.append(phase)
        raise kind

    with pytest.raises(kind):
        plan_from_onnx(onnx_bytes(2), ADA, rtx, progress=fail)
    assert len(calls) < 10


def test_the_builders_messages_go_to_our_log(caplog):
    with caplog.at_level("DEBUG", logger=logger.name):
        plan_from_onnx(onnx_bytes(2), ADA, rtx)
    assert any("ONNX" in message for message in caplog.messages)


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 1000, b"\x08\x07garbage" * 50, "truncated"])
def test_what_is_no_onnx_file_is_refused_in_one_line(content):
    content = onnx_bytes(2)[:100_000] if content == "truncated" else content
    with pytest.raises(EngineError, match="srup export --onnx --precision fp16") as caught:
        plan_from_onnx(content, ADA, rtx)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("asked", "has"), [("fp16", "fp32"), ("fp32", "fp16")])
def test_a_file_of_another_precision_is_refused(asked, has):
    with pytest.raises(EngineError, match=rf"finite FLOAT.*--precision {asked}"):
        plan_from_onnx(onnx_bytes(2, has), replace(ADA, precision=asked), rtx)


def test_a_file_with_float32_io_is_refused():
    content = shipped_onnx(scale=2, io="float32").read_bytes()
    with pytest.raises(EngineError, match=r"FLOAT.*UINT8.*--io uint8"):
        plan_from_onnx(content, replace(ADA, precision="fp32"), rtx)


def test_one_convolution_that_is_not_half_is_an_error():
    onnx = pytest.importorskip("onnx")
    model = onnx.load(shipped_onnx(scale=2, precision="fp16"))
    graph = model.graph
    at, node = [(i, n) for i, n in enumerate(graph.node) if n.op_type == "Conv"][5]
    for weight in graph.initializer:
        if weight.name in node.input[1:]:
            values = onnx.numpy_helper.to_array(weight).astype(np.float32)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    before = onnx.helper.make_node("Cast", [node.input[0]], ["as_float"], to=onnx.TensorProto.FLOAT)
    after = onnx.helper.make_node("Cast", ["float_result"], [node.output[0]], to=onnx.TensorProto.FLOAT16)
    node.input[0], node.output[0] = "as_float", "float_result"
    graph.node.insert(at, before)
    graph.node.insert(at + 2, after)
    with pytest.raises(EngineError, match=r"fp16.* 1 of 28 convolutions"):
        plan_from_onnx(model.SerializeToString(), ADA, rtx)


def test_a_reduction_in_half_precision_is_an_error():
    onnx = pytest.importorskip("onnx")
    model = onnx.load(shipped_onnx(scale=2, precision="fp16"))
    (reduction,) = [node for node in model.graph.node if node.op_type == "ReduceMean"]
    at = list(model.graph.node).index(reduction)
    cast = onnx.helper.make_node("Cast", [reduction.input[0]], ["as_half"], to=onnx.TensorProto.FLOAT16)
    back = onnx.helper.make_node("Cast", ["half_mean"], [reduction.output[0]], to=onnx.TensorProto.FLOAT)
    reduction.input[0], reduction.output[0] = "as_half", "half_mean"
    model.graph.node.insert(at, cast)
    model.graph.node.insert(at + 2, back)
    with pytest.raises(EngineError, match=r"half precision.*float32"):
        plan_from_onnx(model.SerializeToString(), ADA, rtx)


def test_a_profile_beyond_reason_is_refused_with_the_builders_words():
    with pytest.raises(EngineError, match=r"[Vv]olume"):
        plan_from_onnx(onnx_bytes(2), replace(ADA, tile=100_000, batch=64), rtx)


@pytest.mark.parametrize("values", [{"scale": 0}, {"scale": 2, "tile": 0}, {"scale": 2, "batch": -1}])
def test_sizes_below_one_are_refused(values):
    with pytest.raises(EngineError, match="1 or more"):
        EngineSpec(**values)


@pytest.mark.parametrize("target", [90, 100, 70])
def test_gpus_that_tensorrt_rtx_does_not_know_are_refused(target):
    with pytest.raises(EngineError, match=rf"SM{target} .*SM75, SM80"):
        plan_from_onnx(onnx_bytes(2), EngineSpec(2, targets=(target,)), rtx)


@pytest.mark.parametrize(
    "changes", [{"builder_level": 3}, {"compatible": True}, {"tiling_level": "full"}, {"static": True}]
)
def test_tensorrt_rtx_refuses_what_only_tensorrt_has(changes):
    with pytest.raises(EngineError, match=r"builder level.*compatib"):
        plan_from_onnx(onnx_bytes(2), replace(ADA, **changes), rtx)


def test_tiling_level_and_static_shapes_reach_the_builder():
    """TensorRT-RTX has the same configuration, though it would not use them."""
    builder = rtx.module.Builder(rtx.log)
    spec, configs = EngineSpec(2, targets=(89,)), []
    for each in (spec, replace(spec, static=True, tiling_level="full")):
        config = builder.create_builder_config()
        deploy.engines.build._add_profiles(builder, config, each, lambda: "")
        deploy.engines.build._configure(config, each, rtx)
        configs.append(config)
    assert [config.num_optimization_profiles for config in configs] == [1, 2]
    assert configs[1].tiling_optimization_level == rtx.module.TilingOptimizationLevel.FULL
    assert configs[0].tiling_optimization_level != rtx.module.TilingOptimizationLevel.FULL


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_fp32_engines_compute_no_tf32(precision):
    config = rtx.module.Builder(rtx.log).create_builder_config()
    deploy.engines.build._configure(config, replace(ADA, precision=precision), rtx)
    assert config.get_flag(rtx.module.BuilderFlag.TF32) == (precision == "fp16")


def test_tensorrt_rtx_needs_to_be_told_the_gpu():
    with pytest.raises(EngineError, match="compute capabilities"):
        plan_from_onnx(onnx_bytes(2), EngineSpec(2), rtx)


@pytest.mark.parametrize("current", [0, 1])
@pytest.mark.parametrize("wanted", [0, 1])
def test_an_engine_is_built_on_its_gpu_and_the_device_before_is_restored(
    tmp_path, monkeypatch, current, wanted
):
    pytest.importorskip("cuda.bindings.runtime")
    cuda, devices = SimulatedCuda(devices=2), []
    monkeypatch.setattr("cuda.bindings.runtime", cuda)
    monkeypatch.setattr(deploy.engines.build, "plan_from_onnx", lambda *_, **__: devices.append(cuda.device))
    monkeypatch.setattr(deploy.engines.build, "check_plan", lambda *_, **__: devices.append(cuda.device))
    cuda.cudaSetDevice(current)
    gpu = replace(L4, index=wanted)
    request = engine_request(shipped_onnx(scale=2, precision="fp16"), EngineSpec(2), TRT_11, gpu)
    build_engine(request, progress=None, timing_cache=tmp_path / "timing.cache")
    assert devices == [wanted, wanted]
    assert cuda.device == current


def test_the_progress_of_several_threads_is_one_progress():
    """NvInfer.h: the builder may call from several threads; an exception would cancel the build."""
    shares, inside = [], []

    def note(phase, share):
        inside.append(phase)
        assert len(inside) == 1, "one report at a time"
        time.sleep(0.001)  # the other threads go on
        inside.pop()
        shares.append(share)

    monitor = progress_monitor(rtx.module, note)
    monitor.phase_start("build", None, 40)

    def work(number: int) -> None:
        for step in range(20):
            phase = f"{number} {step}"
            monitor.phase_start(phase, "build", 2)
            monitor.step_complete(phase, 0)
            monitor.phase_finish(phase)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert monitor.raised is None
    assert shares == sorted(shares)
    assert len(shares) == 80


# --- what the inspector says --------------------------------------------------------------------


def layer(kind: str, *types: str, key="Format/Datatype") -> dict:
    tensors = [{"Name": f"t{index}", key: text} for index, text in enumerate(types)]
    return {"Name": f"{kind} x", "LayerType": kind, "Inputs": tensors[:1], "Outputs": tensors[1:]}


HALF, FLOAT = "Channel major FP16 format where channel % 8 == 0", "Row major linear FP32"


@pytest.mark.parametrize(
    ("layers", "wrong"),
    [
        ([layer("CaskConvolution", HALF, HALF), layer("Reformat", FLOAT, FLOAT)], []),
        ([layer("CaskConvolution", FLOAT, HALF)], []),  # with the cast before it
        ([layer("CaskConvolution", FLOAT, FLOAT)], ["CaskConvolution x"]),
        ([layer("conv", "Half", "Half", key="DataType"), layer("conv", "Float", "Float", key="DataType")], 1),
        ([layer("CaskConvolution", "N/A due to dynamic shapes", "N/A due to dynamic shapes")], []),
        (["only a name"], []),
        ([layer("conv") | {"Inputs": ["image Float"], "Outputs": None}], []),
    ],
)
def test_the_inspectors_convolutions_in_float32_are_found(layers, wrong):
    found = float_convolutions(json.dumps({"Layers": layers, "Bindings": ["image"]}))
    assert found == wrong or len(found) == wrong


@pytest.mark.parametrize(
    "answer", ["", None, "null", "[]", '"text"', "{", '{"Layers": null}', '{"Bindings": []}', "0"]
)
def test_an_answer_of_the_inspector_that_is_not_readable_is_no_verdict(answer):
    assert float_convolutions(answer) is None


# --- the store ----------------------------------------------------------------------------------


@pytest.fixture
def builds(monkeypatch) -> list[EngineSpec]:
    """Replace the builder by one that takes no time; return what was built."""
    done = []

    def build(request, *, progress, timing_cache):
        done.append(SimpleNamespace(spec=request.spec, timing_cache=timing_cache))
        return b"plan %d" % len(done) * 100

    monkeypatch.setattr(sys.modules[__name__], "builder", build)
    return done


builder = build_engine


def store_in(folder: Path) -> EngineStore:
    return EngineStore(folder, builder=builder)


class Lines(list):
    """A log to pass to the cache."""

    def __call__(self, line: str) -> None:
        self.append(line)


def test_what_was_built_is_found_again(tmp_path):
    log = Lines()
    cache = store_in(tmp_path / "engines")
    first = cache.get(
        shipped_onnx(scale=3, precision="fp16"), EngineSpec(3, targets=(89,)), rtx, gpu=None, log=log
    )
    again = cache.get(
        shipped_onnx(scale=3, precision="fp16"), EngineSpec(3, targets=(89,)), rtx, gpu=None, log=log
    )
    assert again == first
    assert len(first.plan()) == first.manifest.plan_bytes
    assert [line.rpartition(";")[2].partition(" in ")[0] for line in log] == [
        " building it",
        f"{first.path.name}: built",
        f"{first.path.name}: found",
    ]
    assert first.path.name.startswith("small_x3_fp16_tensorrt_rtx_sm89_")
    assert json.loads(first.path.with_suffix(".json").read_text())["identity"]["targets"] == [89]


def test_without_a_log_it_speaks_to_ours(tmp_path, builds, caplog):
    with caplog.at_level("INFO", logger=logger.name):
        store_in(tmp_path).get(shipped_onnx(scale=2, precision="fp16"), ADA, rtx, gpu=None)
    assert any("building it" in message for message in caplog.messages)


def other_file(tmp_path: Path) -> Path:
    """Return the x2 fp16 file with something changed that is not the network."""
    path = tmp_path / "other" / shipped_onnx(scale=2, precision="fp16").name
    path.parent.mkdir()
    # Field 2 of a ModelProto, producer_name; the last one counts.
    path.write_bytes(onnx_bytes(2) + b"\x12\x05other")
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spec": replace(ADA, tile=256)}, "tile 512, need 256"),
        ({"spec": replace(ADA, batch=8)}, "batch 4, need 8"),
        ({"spec": replace(ADA, targets=(75, 86))}, r"targets SM89, need SM75\+SM86"),
        ({"trt": rtx_of("1.7.2.5")}, f"built by {rtx.version}, this is 1.7.2.5"),
        ({"onnx": other_file}, "ONNX file [0-9a-f]{16}, need [0-9a-f]{16}"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_miss_names_the_field_that_differs(tmp_path, builds, monkeypatch, changes, said):
    cache, log = store_in(tmp_path / "engines"), Lines()
    onnx = shipped_onnx(scale=2, precision="fp16")
    first = cache.get(onnx, ADA, rtx, gpu=None)
    onnx = changes["onnx"](tmp_path) if "onnx" in changes else onnx
    second = cache.get(onnx, changes.get("spec", ADA), changes.get("trt", rtx), gpu=None, log=log)
    assert second.path != first.path
    assert len(builds) == 2
    (line,) = [line for line in log if "fits" in line]
    assert re.search(said, line), line
    assert first.path.name in line
    assert line.count(", need") + line.count("this is") == 1  # this field and no other


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cuda_major", 12, "CUDA .*, need 12"),
        ("this_platform", "Windows AMD64", "platform .*, need Windows AMD64"),
    ],
)
def test_tensorrt_rtx_engines_are_found_under_another_system_and_tensorrt_engines_are_not(
    tmp_path, builds, monkeypatch, name, value, said
):
    store, log, onnx = store_in(tmp_path), Lines(), shipped_onnx(scale=2, precision="fp16")
    portable, bound = store.get(onnx, ADA, rtx, gpu=None), store.get(onnx, EngineSpec(2), TRT_11, gpu=L4)
    monkeypatch.setattr(engine_manifest, name, lambda: value)
    monkeypatch.setattr(engine_stale, name, lambda: value)
    assert store.get(onnx, ADA, rtx, gpu=None) == portable
    assert store.get(onnx, EngineSpec(2), rtx, gpu=L4) == portable
    assert portable.path not in store.stale()
    assert bound.path in store.stale()
    assert store.get(onnx, EngineSpec(2), TRT_11, gpu=L4, log=log) != bound
    assert any(re.search(said, line) for line in log)
    assert len(builds) == 3


MANIFEST_OF_0_1 = """{
 "format": "srup-engine-1",
 "identity": {
  "onnx_sha256": "abababababababababababababababababababababababababababababababab",
  "module": "tensorrt_rtx",
  "module_version": "1.7.1.116",
  "platform": "Linux x86_64",
  "cuda_major": 13,
  "scale": 2,
  "precision": "fp16",
  "tile": 512,
  "batch": 4,
  "builder_level": null,
  "compatible": false,
  "gpu": "",
  "targets": [
   75,
   89
  ]
 },
 "onnx_name": "small_x2_fp16_uint8.onnx",
 "built_by": "1.7.1.116",
 "srup_version": "0.1.0",
 "built": "2026-01-01T00:00:00+00:00",
 "build_seconds": 0.5,
 "plan_bytes": 3,
 "plan_sha256": "0000000000000000000000000000000000000000000000000000000000000000",
 "parity": null
}
"""


def test_manifests_and_names_of_earlier_versions_are_still_the_same():
    manifest = engine_manifest.EngineManifest.from_json(MANIFEST_OF_0_1)
    assert manifest.to_json() == MANIFEST_OF_0_1
    assert manifest.identity.spec == EngineSpec(2, targets=(75, 89))
    stem = "small_x2_fp16_tensorrt_rtx_sm75-sm89_b3d91a0dad0eee62"
    assert manifest.identity.stem(manifest.onnx_name) == stem


@pytest.mark.parametrize(
    ("old", "new"), [('"tile": 512', '"tile": 0'), ('"tile"', '"tiles"'), ('"gpu": "",', "")]
)
def test_an_impossible_manifest_is_damaged(old, new):
    with pytest.raises(ValueError, match="damaged manifest"):
        engine_manifest.EngineManifest.from_json(MANIFEST_OF_0_1.replace(old, new))


def test_an_engine_for_more_gpus_serves_the_one_that_is_here(tmp_path, builds):
    cache, log = store_in(tmp_path), Lines()
    onnx = shipped_onnx(scale=2, precision="fp16")
    wide = cache.get(onnx, EngineSpec(2, targets=(75, 89)), rtx, gpu=None)
    assert cache.get(onnx, EngineSpec(2), rtx, gpu=L4, log=log) == wide
    assert cache.get(onnx, EngineSpec(2), rtx, gpu=RTX_3060).manifest.identity.spec.targets == (86,)
    # Asked for by name it is what was named.
    assert cache.get(onnx, EngineSpec(2, targets=(89,)), rtx, gpu=L4) != wide
    assert len(builds) == 3


def tamper(kind: str, path: Path) -> None:
    manifest = path.with_suffix(".json")
    match kind:
        case "truncated":
            path.write_bytes(path.read_bytes()[:100])
        case "longer":
            path.write_bytes(path.read_bytes() + b"more")
        case "foreign":
            path.write_bytes(bytes(path.stat().st_size))
        case "no plan":
            path.unlink()
        case "no manifest":
            manifest.unlink()
        case "damaged manifest":
            manifest.write_text(manifest.read_text()[:200])
        case "not text":
            manifest.write_bytes(b"\xff\xfe\x00")
        case "other format":
            manifest.write_text(manifest.read_text().replace("srup-engine-1", "srup-engine-0"))
        case "more fields":
            manifest.write_text(manifest.read_text().replace('"onnx_name"', '"unknown": 1,\n "onnx_name"'))
        case "another engine":
            manifest.write_text(manifest.read_text().replace('"tile": 512', '"tile": 384'))


TAMPERED = {
    "truncated": "truncated plan: 100 bytes, the manifest says 600",
    "longer": "foreign plan: 604 bytes, the manifest says 600",
    "foreign": "foreign plan: sha256",
    "no plan": "no plan beside the manifest",
    "no manifest": "no manifest",
    "damaged manifest": "damaged manifest",
    "not text": "damaged manifest",
    "other format": "manifest format 'srup-engine-0', need 'srup-engine-1'",
    "more fields": "damaged manifest",
    "another engine": "the manifest is of another engine; tile 384, need 512",
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_damaged_engine_is_named_and_built_again(tmp_path, builds, kind):
    cache, log = store_in(tmp_path), Lines()
    onnx = shipped_onnx(scale=2, precision="fp16")
    path = cache.get(onnx, ADA, rtx, gpu=None).path
    tamper(kind, path)
    if kind != "another engine":  # which is whole, as far as can be seen without asking for it
        assert TAMPERED[kind] in cache.stale()[path]
        assert cache.list() == []
    again = cache.get(onnx, ADA, rtx, gpu=None, log=log)
    assert again.path == path
    assert len(builds) == 2
    assert any(TAMPERED[kind] in line for line in log)
    assert cache.get(onnx, ADA, rtx, gpu=None) == again
    assert len(builds) == 2


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise EngineError("no")

    monkeypatch.setattr(sys.modules[__name__], "builder", fail)
    with pytest.raises(EngineError, match="no"):
        store_in(tmp_path).get(shipped_onnx(scale=2, precision="fp16"), ADA, rtx, gpu=None)
    assert [path.name for path in tmp_path.iterdir()] == [engine_store.LOCK_NAME]


def test_without_a_builder_a_missing_engine_is_an_error_that_says_how_to_build_it(tmp_path, builds):
    onnx, store = shipped_onnx(scale=3, precision="fp16"), EngineStore(tmp_path / "engines")
    with pytest.raises(
        EngineError, match=r"no TensorRT-RTX engine for x3 fp16.*: (srup export .*)"
    ) as caught:
        store.get(onnx, EngineSpec(3, tile=640), rtx, gpu=L4)
    assert not store.folder.exists(), "nothing was written"
    command = str(caught.value).rpartition("build it with: ")[2].split()
    assert command == ["srup", "export", "--trt-rtx", *f"--scale 3 --tile 640 -o {store.folder}".split()]
    # What the command asks for is what was missing.
    store_in(store.folder).get(onnx, EngineSpec(3, tile=640), rtx, gpu=L4)
    assert store.get(onnx, EngineSpec(3, tile=640), rtx, gpu=L4).manifest.identity.spec.tile == 640
    copy = other_file(tmp_path)
    with pytest.raises(EngineError, match=f"--weights {re.escape(str(copy))}"):
        EngineStore().get(copy, ADA, rtx, gpu=None)


def test_files_of_another_scale_and_missing_files_are_named(tmp_path):
    cache = store_in(tmp_path)
    with pytest.raises(EngineError, match=r"small_x3_fp16_uint8\.onnx: .*x3.*x2.*--scale 2"):
        cache.get(shipped_onnx(scale=3, precision="fp16"), ADA, rtx, gpu=None)
    with pytest.raises(ModelError, match=r"none\.onnx: "):
        cache.get(tmp_path / "none.onnx", ADA, rtx, gpu=None)
    (tmp_path / "bad.onnx").write_bytes(b"hello")
    with pytest.raises(ModelError, match=r"bad\.onnx: "):
        cache.get(tmp_path / "bad.onnx", ADA, rtx, gpu=None)


def test_rtx_without_a_gpu_and_without_a_target_says_what_to_give(tmp_path):
    with pytest.raises(EngineError, match=r"GPU.*--gpu rtx4090"):
        store_in(tmp_path).get(shipped_onnx(scale=2, precision="fp16"), EngineSpec(2), rtx, gpu=None)
    h100 = Gpu(0, "NVIDIA H100", 90)
    with pytest.raises(EngineError, match="SM90"):
        store_in(tmp_path).get(shipped_onnx(scale=2, precision="fp16"), EngineSpec(2), rtx, gpu=h100)


# --- TensorRT, as far as that goes without a GPU ------------------------------------------------


def test_tensorrt_engines_are_of_a_gpu_and_a_version(tmp_path, builds):
    cache, log, onnx = store_in(tmp_path), Lines(), shipped_onnx(scale=2, precision="fp16")
    engine = cache.get(onnx, EngineSpec(2), TRT_11, gpu=L4)
    assert engine.manifest.identity.gpu == "NVIDIA L4, SM89"
    assert engine.path.name.startswith("small_x2_fp16_tensorrt_nvidia-l4-sm89_")
    assert builds[0].timing_cache.parent == tmp_path
    cache.get(onnx, EngineSpec(2), TRT_11, gpu=RTX_3060, log=log)
    assert "GPU NVIDIA L4, SM89, need NVIDIA GeForce RTX 3060, SM86" in log[0]
    assert builds[1].timing_cache != builds[0].timing_cache
    slow = cache.get(onnx, EngineSpec(2, builder_level=5), TRT_11, gpu=L4, log=log)
    assert "builder level default, need 5" in log[2]
    engine.path.unlink()
    engine.path.with_suffix(".json").unlink()
    assert cache.get(onnx, EngineSpec(2), TRT_11, gpu=L4) == slow, "no level was asked for"
    newer = TensorRt(SimpleNamespace(__version__="11.5.0.1"))
    cache.get(onnx, EngineSpec(2), newer, gpu=L4, log=log)
    assert "built by 11.4.0.106, this is 11.5.0.1" in log[4]
    assert len(builds) == 4


def test_engines_of_a_tiling_level_and_of_static_shapes_are_others_and_serve_who_asks_for_neither(
    tmp_path, builds
):
    cache, log, onnx = store_in(tmp_path), Lines(), shipped_onnx(scale=2, precision="fp16")
    usual = cache.get(onnx, EngineSpec(2), TRT_11, gpu=L4)
    tiled = cache.get(onnx, EngineSpec(2, tiling_level="full", static=True), TRT_11, gpu=L4, log=log)
    assert len(builds) == 2
    assert all(said in log[0] for said in ("tiling level default, need full", "static False, need True"))
    assert "tiling_level" not in usual.path.with_suffix(".json").read_text(), "older keys stay as they are"
    usual.path.unlink()
    usual.path.with_suffix(".json").unlink()
    assert cache.get(onnx, EngineSpec(2), TRT_11, gpu=L4) == tiled
    assert len(builds) == 2


def test_compatible_engines_are_found_by_later_versions_and_other_gpus(tmp_path, builds):
    cache, onnx, spec = (
        store_in(tmp_path),
        shipped_onnx(scale=2, precision="fp16"),
        EngineSpec(2, compatible=True),
    )
    engine = cache.get(onnx, spec, TRT_11, gpu=L4)
    newer = TensorRt(SimpleNamespace(__version__="11.5.0.1"))
    assert cache.get(onnx, spec, newer, gpu=RTX_3060) == engine
    assert engine.manifest.built_by == "11.4.0.106"
    # They also serve where none such is asked for, but not below Ampere and not an older version.
    assert cache.get(onnx, EngineSpec(2), newer, gpu=RTX_3060) == engine
    assert cache.get(onnx, EngineSpec(2), TRT_11, gpu=T4) != engine
    older, log = TensorRt(SimpleNamespace(__version__="11.0.0.114")), Lines()
    assert cache.get(onnx, EngineSpec(2), older, gpu=L4) != engine
    assert cache.get(onnx, spec, older, gpu=L4, log=log).manifest.built_by == "11.0.0.114"
    assert "built by 11.4.0.106, this is 11.0.0.114" in log[0]
    with pytest.raises(EngineError, match=r"Tesla T4: .*Ampere"):
        cache.get(onnx, spec, TRT_11, gpu=T4)


def test_tensorrt_needs_the_gpu_here(tmp_path):
    onnx = shipped_onnx(scale=2, precision="fp16")
    with pytest.raises(EngineError, match="srup export --trt-rtx --gpu NAME"):
        store_in(tmp_path).get(onnx, EngineSpec(2), TRT_11, gpu=None)
    with pytest.raises(EngineError, match=r"TensorRT .*GPU"):
        store_in(tmp_path).get(onnx, ADA, TRT_11, gpu=L4)


# --- several processes --------------------------------------------------------------------------

BUILD = """
import sys, time
from pathlib import Path
import deploy.engines.build
from deploy.engines.build import build_engine
from sr.backends.tensorrt.modules import TensorRtRtx
from sr.backends.tensorrt.spec import EngineSpec
from sr.backends.tensorrt.store import EngineStore
from sr.network.modelfile import shipped_onnx
def slow(*arguments, **named):
    print("building", flush=True)
    time.sleep(float(sys.argv[2]))
    return build_engine(*arguments, **named)
cache = EngineStore(Path(sys.argv[1]), builder=slow)
onnx = shipped_onnx(scale=2, precision="fp16")
cache.get(onnx, EngineSpec(2, targets=(89,)), TensorRtRtx.load(), gpu=None, log=print)
"""


def start(folder: Path, seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", BUILD, str(folder), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_of_two_processes_one_builds_and_the_other_waits(tmp_path):
    processes = [start(tmp_path, 1.5) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    said = sorted((out for out, _ in outputs), key=lambda out: "building\n" in out)
    assert ["building\n" in out for out in said] == [False, True]
    assert "another process builds engines" in said[0]
    assert "built meanwhile by another process" in said[0]
    assert len(store_in(tmp_path).list()) == 1


@pytest.mark.slow
def test_a_killed_builder_does_not_lock_out_the_next(tmp_path):
    killed = start(tmp_path, 60)
    assert killed.stdout is not None
    while killed.stdout.readline() != "building\n":
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    out, err = start(tmp_path, 0).communicate(timeout=120)
    assert ": built in" in out, err


# --- stale engines ------------------------------------------------------------------------------


def test_prune_removes_what_is_stale_and_says_which(tmp_path, builds, monkeypatch):
    cache, log, onnx = store_in(tmp_path), Lines(), shipped_onnx(scale=2, precision="fp16")
    good = cache.get(onnx, ADA, rtx, gpu=None)
    others_gpu = cache.get(onnx, EngineSpec(2), TRT_11, gpu=L4)
    outdated = cache.get(onnx, ADA, rtx_of("1.5.0.114"), gpu=None)
    old = cache.get(onnx, ADA, rtx_of("1.4.0.1"), gpu=None)
    truncated = cache.get(onnx, replace(ADA, tile=64), rtx, gpu=None)
    tamper("truncated", truncated.path)
    retrained = cache.get(other_file(tmp_path), ADA, rtx, gpu=None)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(engine_manifest, "this_platform", lambda: "Windows AMD64")
        foreign = cache.get(onnx, EngineSpec(2), TRT_11, gpu=T4)
    names = ["mine.plan", "notes.json", "timing_x.cache", ".srup-ledger.jsonl", ".srup-unfinished-1.tif"]
    names += [f"{TEMPORARY_PREFIX}{16 * '0'}{suffix}" for suffix in (".png", ".tif", ".html", ".json")]
    mine = [tmp_path / name for name in [*names, "mine.kernels"]]
    for path in mine:
        path.write_text("{}")
    left_over = [
        tmp_path / f"{TEMPORARY_PREFIX}{16 * '1'}{suffix}" for suffix in (".plan", ".cache", ".json")
    ]
    for path in left_over:
        path.write_bytes(good.path.with_suffix(".json").read_bytes()[:100])
    kernels = [
        KernelFile.beside(engine.path, gpu=L4, version="1.7").path for engine in (good, old, truncated)
    ]
    for path in kernels:
        path.write_bytes(b"kernels")
    old.path.unlink()
    old.path.with_suffix(".json").unlink()
    monkeypatch.setattr(
        engine_stale, "_installed_version", lambda kind: rtx.version if kind is TensorRtRtx else None
    )
    removed = cache.prune(log)
    assert set(removed) == {outdated.path, truncated.path, retrained.path, foreign.path}
    assert removed[outdated.path] == f"built by 1.5.0.114, this is {rtx.version}"
    assert removed[retrained.path].startswith("ONNX file ")
    assert removed[foreign.path].startswith("platform Windows AMD64, need ")
    assert sorted(log) == sorted(f"removing {path.name}: {why}" for path, why in removed.items())
    assert sorted(engine.path for engine in cache.list()) == sorted([good.path, others_gpu.path])
    assert all(path.exists() for path in mine)
    assert not any(path.exists() for path in left_over)
    assert [path.exists() for path in kernels] == [True, False, False], "kernels go with their engine"
    assert not any(path.exists() or path.with_suffix(".json").exists() for path in removed)
    assert cache.prune(log) == {}


def test_compatible_engines_of_an_older_minor_version_are_not_stale(tmp_path, builds, monkeypatch):
    cache = store_in(tmp_path)
    cache.get(shipped_onnx(scale=2, precision="fp16"), EngineSpec(2, compatible=True), TRT_11, gpu=L4)
    monkeypatch.setattr(engine_stale, "_installed_version", lambda _: "11.9.0.0")
    assert cache.stale() == {}
    monkeypatch.setattr(engine_stale, "_installed_version", lambda _: "12.0.0.0")
    assert list(cache.stale().values()) == ["built by 11, this is 12"]


def test_an_empty_or_missing_folder_is_no_error(tmp_path):
    cache = store_in(tmp_path / "none")
    assert cache.list() == []
    assert cache.stale() == cache.prune() == {}
    assert not (tmp_path / "none").exists()
    assert EngineStore().folder.parts[-1] == "engines"


# --- modules ------------------------------------------------------------------------------------


def test_a_missing_module_names_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for backend, package in (("trt", "tensorrt"), ("trt-rtx", "tensorrt-rtx")):
        with pytest.raises(MissingExtraError, match=rf"'{package}'.*srup\[{backend}\]"):
            load_tensorrt(backend)


def test_a_module_that_does_not_load_says_why(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11:\\n cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError, match=r"TensorRT.*libnvinfer\.so\.11: cannot"):
        load_tensorrt("trt")


# --- the command --------------------------------------------------------------------------------


def srup(*arguments: object, cache: Path, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with its cache folder elsewhere."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
    program = f"{prelude}\nimport sys\nfrom sr.cli import main\nsys.argv[0] = 'srup'\nmain()"
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=cache, env=environment, capture_output=True, text=True, timeout=300)


NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "safetensors"):
            raise ImportError(f"{name} is refused")
sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.slow
def test_the_command_builds_the_shipped_engines_without_torch_and_without_onnx(tmp_path):
    result = srup("export", "--trt-rtx", "--gpu", "rtx4090", "-o", "out", cache=tmp_path, prelude=NO_TORCH)
    assert result.returncode == 0, result.stderr
    plans = sorted((tmp_path / "out").glob("*.plan"))
    assert [plan.name[:26] for plan in plans] == [f"small_x{n}_fp16_tensorrt_rtx"[:26] for n in (2, 3, 4)]
    assert len(result.stdout.splitlines()) == 3
    assert all(f"{plan.name}  " in result.stdout for plan in plans)
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME is Linux'")
def test_the_command_lists_what_it_built_and_prunes_what_is_stale(tmp_path):
    built = srup(
        "export", "--trt-rtx", "--gpu", "l4", "--gpu", "t4", "--scale", 2, "--tile", 256, cache=tmp_path
    )
    assert built.returncode == 0, built.stderr
    again = srup(
        "export", "--trt-rtx", "--gpu", "t4", "--gpu", "sm89", "--scale", 2, "--tile", 256, cache=tmp_path
    )
    assert ": found" in again.stderr
    assert again.stdout == built.stdout
    folder = tmp_path / "srup" / "engines"
    (plan,) = folder.glob("*.plan")
    listed = srup("info", "--engines", cache=tmp_path)
    assert listed.returncode == 0, listed.stderr
    first, name, details = listed.stdout.splitlines()
    assert first.startswith(f"{folder}: 1 engine, ")
    assert name.strip() == plan.name
    for word in ("MB", "just built", rtx.version, "SM75+SM89", "tiles to 256 px", "usable"):
        assert word in details
    manifest = json.loads(plan.with_suffix(".json").read_text())
    manifest["identity"]["module_version"] = manifest["built_by"] = "1.6.0.1"
    manifest["built"] = "2025-01-01T00:00:00+00:00"
    plan.with_suffix(".json").write_text(json.dumps(manifest))
    listed = srup("info", "--engines", "--engine-dir", folder, cache=tmp_path)
    assert "days old, TensorRT-RTX 1.6.0.1" in listed.stdout
    assert f"stale: built by 1.6.0.1, this is {rtx.version}" in listed.stdout
    pruned = srup("info", "--engines", "--prune", cache=tmp_path)
    assert f"removing {plan.name}: built by 1.6.0.1, this is {rtx.version}" in pruned.stdout
    assert "1 stale removed" in pruned.stdout
    assert pruned.stdout.splitlines()[-1].startswith(f"{folder}: 0 engines")
    assert not plan.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["export"], 2, "--onnx, --trt or --trt-rtx"),
        (["export", "--trt-rtx", "--gpu", "rtx9999"], 2, "unknown GPU 'rtx9999'"),
        (["export", "--trt", "--gpu", "l4"], 2, "--gpu needs --trt-rtx"),
        (["export", "--onnx", "--tile", "256"], 2, "--tile needs --trt, --trt-rtx"),
        (["export", "--trt-rtx", "--gpu", "l4", "--compatible"], 2, "--compatible needs --trt"),
        (["export", "--trt-rtx", "--gpu", "l4", "--builder-level", "3"], 2, "--builder-level needs --trt"),
        (["export", "--trt-rtx", "--gpu", "l4", "--io", "float32"], 2, "engines have uint8 IO"),
        (["export", "--trt-rtx", "--gpu", "l4", "--attention", "dynamic"], 2, "frozen attention"),
        (["export", "--trt-rtx", "--gpu", "h100"], 1, "does not support SM90 GPUs"),
        (["export", "--trt-rtx", "--gpu", "l4", "--scale", "7"], 1, "no 'small' weights ship for scale 7"),
        (["export", "--trt-rtx", "--gpu", "l4", "--weights", "tiny"], 1, "no 'tiny' weights ship"),
        (
            ["export", "--trt-rtx", "--gpu", "l4", "--weights", "none.onnx"],
            1,
            "none.onnx: no such model file",
        ),
        (["export", "--trt-rtx", "--gpu", "l4", "-o", "file"], 1, "file"),
        (["info", "--prune"], 2, "need --engines"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(tmp_path, arguments, status, said):
    (tmp_path / "file").write_text("in the way")
    result = srup(*arguments, cache=tmp_path)
    assert result.returncode == status
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert said in line
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.skipif(bool(visible_gpus()), reason="there is a GPU")
def test_the_command_without_a_gpu_says_what_to_give(tmp_path):
    result = srup("export", "--trt-rtx", cache=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: no NVIDIA GPU")
    assert "--gpu rtx4090" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_an_onnx_file_and_trained_weights_become_engines(tmp_path):
    pytest.importorskip("onnxscript")
    onnx = shipped_onnx(scale=3, precision="fp16")
    result = srup("export", "--trt-rtx", "--gpu", "l4", "--weights", onnx, "-o", "out", cache=tmp_path)
    assert result.returncode == 0, result.stderr
    wrong = srup("export", "--trt-rtx", "--gpu", "l4", "--weights", onnx, "--scale", 2, cache=tmp_path)
    assert "is for scale 3, not 2" in wrong.stderr
    from sr.network.modelfile import shipped_weights

    weights = shipped_weights(scale=2)
    result = srup(
        "export", "--onnx", "--trt-rtx", "--gpu", "l4", "--weights", weights, "-o", "out", cache=tmp_path
    )
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in (tmp_path / "out").glob("small*"))
    assert "small_x2_fp32_uint8.onnx" in names  # what --onnx alone makes
    assert "small_x2_fp16_uint8.onnx" in names  # what the engine was built from
    assert len([name for name in names if name.endswith(".plan")]) == 2


# --- on a GPU -----------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", KINDS)
def test_an_engine_for_the_gpu_that_is_here_is_fp16_by_its_own_words(tmp_path, name, scale):
    pytest.importorskip(name)
    trt, gpu, log = KINDS[name].load(), visible_gpus()[0], Lines()
    if trt.ahead_of_time and not hasattr(trt.module.ComputeCapability, f"SM{gpu.compute_capability}"):
        pytest.skip(f"TensorRT-RTX does not support {gpu.name}")
    cache, onnx = store_in(tmp_path), shipped_onnx(scale=scale, precision="fp16")
    engine = cache.get(onnx, EngineSpec(scale), trt, gpu=gpu, log=log)
    assert check_plan(engine.plan(), "fp16", trt), "the inspector was asked"
    assert cache.get(onnx, EngineSpec(scale), trt, gpu=gpu, log=log) == engine
    assert len(list(tmp_path.glob("timing_*.cache"))) == (0 if trt.ahead_of_time else 1)


@pytest.mark.gpu
def test_tensorrt_takes_what_it_timed_before(tmp_path):
    pytest.importorskip("tensorrt")
    trt, gpu = TensorRt.load(), visible_gpus()[0]
    cache, onnx = store_in(tmp_path), shipped_onnx(scale=2, precision="fp16")
    first = cache.get(onnx, EngineSpec(2), trt, gpu=gpu)
    first.path.unlink()
    again = cache.get(onnx, EngineSpec(2), trt, gpu=gpu)
    assert again.manifest.build_seconds < first.manifest.build_seconds


@pytest.mark.gpu
def test_compatible_tensorrt_engines_load(tmp_path):
    pytest.importorskip("tensorrt")
    trt, gpu = TensorRt.load(), visible_gpus()[0]
    if gpu.compute_capability < 80:
        pytest.skip("needs Ampere")
    spec = EngineSpec(2, compatible=True, builder_level=1)
    engine = store_in(tmp_path).get(shipped_onnx(scale=2, precision="fp16"), spec, trt, gpu=gpu)
    assert check_plan(engine.plan(), "fp16", trt, compatible=True)
