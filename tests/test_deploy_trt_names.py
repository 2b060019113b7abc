"""The names contract: what our code uses of TensorRT is there in the real bindings of each version.

TensorRT itself needs NVIDIA's package index and a GPU. Its bindings are a small wheel that loads over
stub libraries, which export the few symbols that it links to; then each class can be asked for its
attributes. What is used is read from our sources, so nothing can be forgotten here: a receiver whose
class is not known makes a test fail. No call is made, so this says nothing of what the names do.
"""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("10.13.3.9", "10.16.1.11", "11.0.0.114", "11.4.0.106")
SOURCES = [
    ROOT / name
    for name in (
        "deploy/engines/build.py",
        "deploy/engines/progress.py",
        "deploy/engines/precision.py",
        "sr/backends/tensorrt/log.py",
        "sr/backends/tensorrt/modules.py",
        "sr/backends/tensorrt/contexts.py",
        "sr/backends/tensorrt/runtime.py",
        "sr/backends/tensorrt/device.py",
        "sr/backends/tensorrt/backend.py",
    )
]

# What our variables and attributes of these names hold. `module` is the module itself.
CLASSES = {
    "module": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "layer": "ILayer IConvolutionLayer",
    "tensor": "ITensor",
    "cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "context": "IExecutionContext",
    "dtype": "DataType",
}
# Where contexts are made, a configuration is that of one, which only RTX has.
CLASSES_IN = {
    "contexts.py": {"config": "IRuntimeConfig", "module": "", "kernels": "IRuntimeCache"},
    "log.py": {"base": "ILogger"},
}
# What is asked of TensorRT-RTX alone.
RTX_ONLY = {
    "ComputeCapability",
    "CudaGraphStrategy",
    "DynamicShapesKernelSpecializationStrategy",
    "DynamicShapesKernelSpecializationStrategy.EAGER",
    "DynamicShapesKernelSpecializationStrategy.NONE",
    "CudaGraphStrategy.DISABLED",
    "ComputeCapability.__members__",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "ICudaEngine.create_runtime_config",
    "IRuntimeConfig",
    "IRuntimeCache",
}
# What TensorRT calls of ours, by the class that we derive from.
OVERRIDDEN = {
    "ILogger": {"log"},
    "IProgressMonitor": {"phase_start", "step_complete", "phase_finish"},
}

STUB = """
#define STUB(name) void *name(void) { return 0; }
STUB(createInferBuilder_INTERNAL) STUB(createInferRefitter_INTERNAL) STUB(createInferRuntime_INTERNAL)
STUB(createNvOnnxParserRefitter_INTERNAL) STUB(createNvOnnxParser_INTERNAL)
STUB(getBuilderPluginRegistry) STUB(getPluginRegistry) STUB(initLibNvInferPlugins)
STUB(getNvOnnxParserVersion)
"""
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")

# Given a module's name and a list of names, prints those that it lacks.
PROBE = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
missing = []
for name in json.loads(sys.argv[2]):
    alternatives = [part for part in name.split("|")]
    def there(dotted):
        value = module
        for part in dotted.split("."):
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    if not any(map(there, alternatives)):
        missing.append(name)
print(json.dumps({"version": module.__version__, "missing": missing}))
"""


def receiver_of(node: ast.expr) -> str | None:
    """Return the name of the variable or attribute that a name is taken from, without underscores."""
    if isinstance(node, ast.Name):
        return node.id.lstrip("_")
    if isinstance(node, ast.Attribute):
        return node.attr.lstrip("_")
    return None


def used_names(path: Path) -> set[str]:
    """Return "Class.attribute" for each use in a source; with "|" where the class is one of several."""
    classes = CLASSES | CLASSES_IN.get(path.name, {})
    used = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute):
            continue
        receiver = receiver_of(node.value)
        if receiver in classes and not node.attr.startswith("__"):
            candidates = classes[receiver].split() or [""]
            used.add("|".join(f"{name}.{node.attr}".lstrip(".") for name in candidates))
        elif isinstance(node.value, ast.Attribute) and receiver_of(node.value.value) == "module":
            used.add(f"{node.value.attr}.{node.attr}")  # module.Enum.MEMBER
    return used - OUR_OWN


# Attributes of ours on variables that share a name with those of TensorRT.
OUR_OWN = {
    "ICudaEngine.scale",
    "ICudaEngine.smallest",
    "ICudaEngine.largest",
    "ICudaEngine.itemsizes",
    "ICudaEngine.contexts",
    "ICudaEngine.free",
}


@pytest.fixture(scope="module")
def names() -> set[str]:
    """Return all that our sources use."""
    return set().union(*map(used_names, SOURCES))


def taken_from_calls(tree: ast.AST, known: set[str]) -> list[str]:
    """Return attributes taken straight from what a method of TensorRT returned: of unknown class."""
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and receiver_of(node.value.func.value) in known
    ]


def factories(tree: ast.AST) -> set[tuple[str, str]]:
    """Return variable and method of each assignment from a method that makes or gets an object."""
    found = set()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        function = node.value.func
        if isinstance(function, ast.Attribute) and len(node.targets) == 1:
            target = receiver_of(node.targets[0])
            if target is not None and (
                function.attr.startswith(("create_", "deserialize_", "get_layer", "get_timing"))
                or receiver_of(function.value) == "module"
            ):
                found.add((target, function.attr))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_object_of_tensorrt_is_in_a_known_variable(path):
    known = CLASSES.keys() | CLASSES_IN.get(path.name, {}).keys()
    unknown = {
        pair for pair in factories(ast.parse(path.read_text(encoding="utf-8"))) if pair[0] not in known
    }
    assert unknown == set()


def test_the_reader_finds_used_names(names):
    assert {
        "Builder.create_network",
        "INetworkDefinition.num_inputs",
        "OnnxParser.parse",
        "IBuilderConfig.set_timing_cache",
        "IOptimizationProfile.set_shape",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "BuilderFlag.VERSION_COMPATIBLE",
        "LayerInformationFormat.JSON",
        "ILayer.kernel|IConvolutionLayer.kernel",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_engine_inspector",
        "HardwareCompatibilityLevel.AMPERE_PLUS",
    } <= names


def test_the_removed_ways_to_fp16_are_not_used(names):
    text = " ".join(names)
    for removed in ("FP16", "INT8", "EXPLICIT_BATCH", "OBEY_PRECISION", "IErrorRecorder", "error_recorder"):
        assert removed not in text


def missing_in(module: str, names: set[str], env: dict[str, str] | None = None) -> tuple[str, list[str]]:
    """Return the version of a module and which of `names` it lacks, asked in a process of its own."""
    wanted = json.dumps(sorted(names))
    answer = subprocess.run(
        [sys.executable, "-c", PROBE, module, wanted], capture_output=True, text=True, env=env
    )
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    return result["version"], result["missing"]


def with_overridden(names: set[str]) -> set[str]:
    return names | {f"{base}.{name}" for base, methods in OVERRIDDEN.items() for name in methods}


def test_tensorrt_rtx_has_every_used_name(names):
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt-rtx is not installed")
    _, missing = missing_in("tensorrt_rtx", with_overridden(names))
    assert missing == []


@pytest.fixture(scope="module")
def bindings(request, tmp_path_factory) -> tuple[str, dict[str, str]]:
    """Return a version, and the environment in which its bindings import over stub libraries."""
    version = request.param
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler for the stub libraries")
    wheels = tmp_path_factory.getbasetemp().parent / "srup-trt-bindings"  # kept from run to run
    site = tmp_path_factory.mktemp(version)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    package = f"tensorrt-cu13-bindings=={version}"
    found = list(wheels.glob(f"tensorrt_cu13_bindings-{version}-*.whl"))
    if not found:
        download = [*pip, "download", "--no-deps", "--only-binary", ":all:", "--dest", str(wheels), package]
        answer = subprocess.run(download, capture_output=True, text=True)
        if answer.returncode != 0:
            pytest.skip(f"pip finds no {package} for this Python")
        found = list(wheels.glob(f"tensorrt_cu13_bindings-{version}-*.whl"))
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(found[0])]
    subprocess.run(install, check=True, capture_output=True)
    (site / "stub.c").write_text(STUB)
    major = version.partition(".")[0]
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", name, "stub.c"]
        subprocess.run(command, cwd=site, check=True, capture_output=True)
    return version, os.environ | {"PYTHONPATH": str(site), "LD_LIBRARY_PATH": str(site)}


@pytest.mark.slow
@pytest.mark.parametrize("bindings", VERSIONS, indirect=True)
def test_the_real_bindings_have_every_used_name(names, bindings):
    version, env = bindings
    wanted = {name for name in with_overridden(names) if not is_rtx_only(name)}
    assert missing_in("tensorrt_bindings", wanted, env) == (version, [])
    # What tells the two apart, and what is behind it, is really not there.
    assert "ComputeCapability" in missing_in("tensorrt_bindings", {"ComputeCapability"}, env)[1]


@pytest.mark.slow
@pytest.mark.parametrize("bindings", VERSIONS[:1], indirect=True)
def test_a_missing_name_is_detected(bindings):
    _, env = bindings
    wanted = {
        "Builder.create_network",
        "Builder.create_netwrok",
        "BuilderFlag.FP17",
        "ILayer.kernel|ILayer.x",
    }
    _, missing = missing_in("tensorrt_bindings", wanted, env)
    assert missing == ["Builder.create_netwrok", "BuilderFlag.FP17", "ILayer.kernel|ILayer.x"]


def is_rtx_only(name: str) -> bool:
    return name in RTX_ONLY or name.partition(".")[0] in RTX_ONLY
