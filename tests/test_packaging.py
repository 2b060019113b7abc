"""The wheel and the sdist: their contents, and that the wheel works in an empty environment."""

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from PIL import Image

import sr

pytestmark = pytest.mark.slow

PACKAGES = ("sr", "sr/backends", "sr/image", "train", "deploy")
BASE_DEPENDENCIES = {"numpy", "pillow", "click", "onnxruntime", "rich", "platformdirs", "filelock", "isal"}
TORCH_MODULES = {
    *(f"sr.network.{name}" for name in ("model", "checkpoint", "colour", "deployed")),
    *(f"sr.network.foreign.{name}" for name in ("exporting", "torchnet")),
    "sr.backends.pytorch",
}
MAX_WHEEL_MB = 17
MAX_SITE_PACKAGES_MB = 350

IMPORT_ALL = f"""
import importlib, importlib.util, pkgutil, sr
assert importlib.util.find_spec("torch") is None
for module in pkgutil.walk_packages(sr.__path__, "sr."):
    if module.name not in {TORCH_MODULES}:
        importlib.import_module(module.name)
        print(module.name)
"""


class Dists(NamedTuple):
    """What was built."""

    wheel: Path
    sdist: Path
    wheel_from_sdist: Path


@pytest.fixture(scope="module")
def dists(source_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Dists:
    direct, through_sdist = tmp_path_factory.mktemp("direct"), tmp_path_factory.mktemp("through-sdist")
    build = [sys.executable, "-m", "build", "--no-isolation"]
    for command in ([*build, "--outdir", through_sdist], [*build, "--wheel", "--outdir", direct]):
        subprocess.run([*command, source_tree], check=True, stdout=subprocess.DEVNULL)
    wheels = direct.glob("*.whl"), through_sdist.glob("*.whl")
    return Dists(next(wheels[0]), next(through_sdist.glob("*.tar.gz")), next(wheels[1]))


@pytest.fixture(scope="module")
def installed(
    dists: Dists, package_index: None, bare_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the programs' folder of a fresh environment that has the wheel and its base dependencies."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    programs = venv / ("Scripts" if sys.platform == "win32" else "bin")
    subprocess.run([programs / "python", "-m", "pip", "install", "-q", dists.wheel], check=True, env=bare_env)
    return programs


def names_in_wheel(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def output_of(*command: object, cwd: Path, env: dict[str, str]) -> str:
    words = [str(word) for word in command]
    answer = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=env)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_wheel_is_pure_python_and_small(dists: Dists) -> None:
    assert dists.wheel.name == f"srup-{sr.__version__}-py3-none-any.whl"
    assert dists.wheel.stat().st_size < MAX_WHEEL_MB * 1e6


def test_base_dependencies_are_few_and_torch_is_an_extra(dists: Dists) -> None:
    with zipfile.ZipFile(dists.wheel) as archive:
        metadata = message_from_bytes(archive.read(f"srup-{sr.__version__}.dist-info/METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    base = {req.name for req in requirements if req.marker is None or req.marker.evaluate({"extra": ""})}
    assert base == BASE_DEPENDENCIES
    torch_extra = {req.name for req in requirements if req.marker and req.marker.evaluate({"extra": "torch"})}
    assert torch_extra - base == {"torch", "safetensors", "onnx", "onnxscript"}


def test_wheel_holds_the_packages_and_every_weight_file_and_nothing_else(
    dists: Dists, source_tree: Path
) -> None:
    weights = {path.relative_to(source_tree).as_posix() for path in (source_tree / "sr/weights").iterdir()}
    assert any(name.endswith(".onnx") for name in weights)
    modules = {
        path.relative_to(source_tree).as_posix()
        for package in PACKAGES
        for path in (source_tree / package).rglob("*.py")
    }
    typed = {"sr/py.typed"} if (source_tree / "sr/py.typed").exists() else set()
    held = {name for name in names_in_wheel(dists.wheel) if ".dist-info/" not in name}
    assert held == modules | weights | typed | {"sr/cli/compare.html", "sr/cli/compare.js"}


def test_sdist_holds_what_a_developer_needs(dists: Dists, source_tree: Path) -> None:
    with tarfile.open(dists.sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "LICENSE", "CHANGELOG.md", "setup.cfg", "pyproject.toml"} | {
        path.relative_to(source_tree).as_posix()
        for folder in ("tests", "benchmarks", "examples", "bin", "sr", "train", "deploy")
        for path in (source_tree / folder).rglob("*")
    }
    assert wanted <= held


def test_sdist_builds_the_same_wheel(dists: Dists) -> None:
    assert names_in_wheel(dists.wheel_from_sdist) == names_in_wheel(dists.wheel)


def test_install_is_small(installed: Path) -> None:
    files = (path for path in installed.parent.rglob("site-packages/**/*") if path.is_file())
    assert sum(path.stat().st_size for path in files) < MAX_SITE_PACKAGES_MB * 1e6


def test_installed_srup_prints_its_version(installed: Path, tmp_path: Path, bare_env: dict[str, str]) -> None:
    assert sr.__version__ in output_of(installed / "srup", "--version", cwd=tmp_path, env=bare_env).split()


def test_every_module_of_sr_imports_without_torch(
    installed: Path, tmp_path: Path, bare_env: dict[str, str]
) -> None:
    imported = output_of(installed / "python", "-I", "-c", IMPORT_ALL, cwd=tmp_path, env=bare_env).split()
    assert "sr.cli" in imported
    assert not TORCH_MODULES & set(imported)


def test_installed_srup_upscales_the_example(
    installed: Path, source_tree: Path, tmp_path: Path, bare_env: dict[str, str]
) -> None:
    example, out = sorted((source_tree / "examples").glob("*.png"))[0], tmp_path / "out.png"
    output_of(installed / "srup", "upscale", example, "--scale", 3, "-o", out, cwd=tmp_path, env=bare_env)
    with Image.open(example) as lr, Image.open(out) as hr:
        assert hr.size == (3 * lr.width, 3 * lr.height)
