"""How the code hangs together: which way imports point, what starts light, what is documented."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import click
import pytest

from sr.cli import main

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("sr", "train", "deploy")

# What each may import of ours at module level, beside its own package's parts named here.
PURE = {
    "sr.errors": set(),
    "sr.tiling": {"sr.errors"},
    "sr.metrics": {"sr.errors"},
    "sr.resize": {"sr.errors"},
}
# Slow to import, or absent where only part of srup is installed.
HEAVY = ("torch", "onnxruntime", "tensorrt", "tensorrt_rtx", "onnx", "rich", "numpy", "PIL")

LIST_HEAVY = f"""
import json, sys
from click.testing import CliRunner
from sr.cli import main
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.strip()
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
ABOVE_UPSCALE = {name for name in SOURCES if f"{name}.".startswith(("sr.cli.", "sr.jobs.", "sr.sized."))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def nodes(tree: ast.AST, *, into_functions: bool) -> Iterator[ast.AST]:
    """Walk a tree; without functions what is left is what runs, or is type-checked, on import."""
    for child in ast.iter_child_nodes(tree):
        if into_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from nodes(child, into_functions=into_functions)


def imports(name: str, *, into_functions: bool) -> set[str]:
    """Return the modules that a module imports, ours down to the file, e.g. `sr.backends.base`."""
    found: set[str] = set()
    for node in nodes(TREES[name], into_functions=into_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                base = f"{package}.{base}" if base else package
            found |= {full if (full := f"{base}.{alias.name}") in SOURCES else base for alias in node.names}
    return found


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] in PACKAGES}


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in ours(names)}


def modules_of(package: str) -> list[str]:
    return [name for name in SOURCES if name.partition(".")[0] == package]


# --- which way imports point --------------------------------------------------------------------


def test_the_reader_of_imports_sees_all_kinds() -> None:
    """What follows rests on it."""
    assert "sr.backends.base" in imports("sr.backends.ort", into_functions=False)
    assert "deploy.engines.build" in imports("sr.cli.report_engines", into_functions=True)
    assert "deploy.engines.build" not in imports("sr.cli.report_engines", into_functions=False)
    assert "sr.network.model" in imports("train.evaluate", into_functions=False), "under TYPE_CHECKING"
    assert "sr.cli.upscale" in imports("sr.cli", into_functions=False), "from sr.cli import upscale"


@pytest.mark.parametrize("name", [name for name in modules_of("sr") if not f"{name}.".startswith("sr.cli.")])
def test_sr_imports_neither_train_nor_deploy_with_itself(name: str) -> None:
    assert packages(imports(name, into_functions=False)) <= {"sr"}


@pytest.mark.parametrize("name", modules_of("train"))
def test_train_never_imports_deploy(name: str) -> None:
    assert packages(imports(name, into_functions=True)) <= {"train", "sr"}


@pytest.mark.parametrize("name", modules_of("deploy"))
def test_deploy_never_imports_train(name: str) -> None:
    assert packages(imports(name, into_functions=True)) <= {"deploy", "sr"}


@pytest.mark.parametrize("name", PURE)
def test_core_imports_nothing_but_errors_and_arithmetic(name: str) -> None:
    found = imports(name, into_functions=True)
    assert ours(found) <= PURE[name]
    foreign = {module.partition(".")[0] for module in found} - set(PACKAGES) - sys.stdlib_module_names
    assert foreign <= {"numpy"}
    assert not found & {"pathlib", "os", "io"}, "files are read and written at the rim"


def test_imports_make_no_circle() -> None:
    graph = {name: ours(imports(name, into_functions=False)) - {name} for name in SOURCES}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError


# The tiled model is a program of its own, as the commands are: Triton's server runs it.
PROGRAMS = {"sr.cli.__main__", "train.__main__", "deploy.triton.tiled_model"}


@pytest.mark.parametrize("name", sorted(set(SOURCES) - ABOVE_UPSCALE - PROGRAMS - {"sr", "sr.upscale"}))
def test_nothing_below_knows_upscale_or_the_command_line(name: str) -> None:
    assert not imports(name, into_functions=True) & (ABOVE_UPSCALE | {"sr.upscale"})


@pytest.mark.parametrize(
    "name",
    sorted(name for name in SOURCES if not f"{name}.".startswith("sr.cli.") and name != "train.__main__"),
)
def test_only_the_command_line_knows_click(name: str) -> None:
    assert not imports(name, into_functions=True) & {"click", "rich"}


def test_nothing_is_built_on_the_commands() -> None:
    for name in set(SOURCES) - {"train.__main__", "sr.cli.__main__"}:
        assert "sr.cli" not in imports(name, into_functions=False), name


# --- starting light -----------------------------------------------------------------------------


def test_help_and_version_load_nothing_heavy() -> None:
    calls = [["--help"], ["--version"], *([command, "--help"] for command in main.commands)]
    answer = subprocess.run(
        [sys.executable, "-c", LIST_HEAVY, json.dumps(calls)], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == []


def test_module_start_prints_help() -> None:
    """`python -m sr.cli` and `python -m train` are ways to start it."""
    for arguments, expected in ((["sr.cli", "--help"], main.help), (["train", "--help"], "Train a network")):
        answer = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert expected is not None
        assert expected in " ".join(answer.stdout.split())  # click wraps lines


# --- documented ---------------------------------------------------------------------------------


def public_definitions(
    parent: ast.Module | ast.ClassDef, prefix: str
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield public functions and classes, and public methods of those; not what is inside functions."""
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not node.name.startswith("_"):
            yield f"{prefix}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node, f"{prefix}.{node.name}")


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_and_public_name_has_a_docstring(name: str) -> None:
    assert ast.get_docstring(TREES[name]), "the module says what it owns"
    silent = [full for full, node in public_definitions(TREES[name], name) if not ast.get_docstring(node)]
    assert silent == []


@pytest.mark.parametrize("name", main.commands)
def test_every_command_has_help(name: str) -> None:
    command = main.commands[name]
    assert isinstance(command, click.Command)
    assert command.help, name
    assert command.get_short_help_str(limit=200).endswith("."), "its first sentence stands in srup --help"


# --- of this repository alone -------------------------------------------------------------------

TEXTS = [
    path
    for pattern in (
        *(f"{folder}/**/*.py" for folder in (*PACKAGES, "benchmarks", "tests", "examples")),
        "bin/*",
        "*.cfg",
        "*.toml",
        "*.md",
        "*.in",
    )
    for path in sorted(ROOT.glob(pattern))
    if path.is_file()
]

# The folders in which people and build machines keep checkouts, and a user at a host.
PRIVATE = re.compile(
    r"(?<![\w.\-/])/(?:work|home|root|Users|mnt|scratch)/|[A-Za-z]:\\Users|\b\w+@[\w-]+:[~/]"
)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_speaks_of_one_persons_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [line for line in text.splitlines() if PRIVATE.search(line) and "re.compile" not in line]
    assert found == []


@pytest.mark.parametrize(
    "text", ["see /" + "work/data", "'/" + "home/me/x'", "copy to me@box" + ":/data", "C:\\" + "Users\\me"]
)
def test_such_speech_would_be_seen(text: str) -> None:
    assert PRIVATE.search(text)
