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

# The rooms, lowest first, and which rooms each may import from, function bodies included. A module or a
# package directly below `sr` is a room, as are `train`, `deploy` and the two modules that start a command.
_GROUND = {"sr.errors", "sr.version", "sr.files", "sr.cgroups", "sr.memory", "sr.processor"}
_PLAIN = {"sr.tiling", "sr.metrics", "sr.resize", "sr.sizing"}
_LIBRARY = (
    _GROUND
    | _PLAIN
    | {"sr.image", "sr.network", "sr.backends", "sr.resample", "sr.objects", "sr.fitting", "sr.stitching"}
    | {"sr.restoring", "sr.streaming", "sr.upscale"}
)
_PROGRAM = _LIBRARY | {"sr.sized", "sr.jobs"}
ROOMS: dict[str, set[str]] = {
    "sr.errors": set(),
    "sr.version": set(),
    "sr.cgroups": set(),
    "sr.processor": {"sr.cgroups"},
    "sr.files": {"sr.errors"},
    "sr.memory": {"sr.errors", "sr.cgroups"},
    "sr.tiling": {"sr.errors"},
    "sr.metrics": {"sr.errors"},
    "sr.resize": {"sr.errors"},
    "sr.sizing": {"sr.errors"},
    "sr.image": _GROUND,
    "sr.network": _GROUND | {"sr.metrics", "sr.tiling"},
    "sr.resample": {"sr.errors", "sr.image"},
    "sr.objects": {"sr.errors", "sr.image"},
    "sr.restoring": {"sr.errors", "sr.image", "sr.network"},
    "sr.backends": _GROUND | {"sr.network", "sr.stitching", "sr.tiling"},
    "sr.fitting": {"sr.image", "sr.network", "sr.tiling"},
    "sr.stitching": {"sr.tiling"},
    "sr.streaming": {"sr.errors", "sr.stitching", "sr.tiling"},
    "sr.upscale": _GROUND
    | _PLAIN
    | {"sr.backends", "sr.fitting", "sr.image", "sr.network", "sr.objects", "sr.restoring", "sr.stitching"}
    | {"sr.streaming"},
    "sr.sized": _LIBRARY,
    "sr.jobs": _LIBRARY | {"sr.sized"},
    "sr": {"sr.upscale", "sr.version"},
    "train": _PROGRAM,
    "deploy": _LIBRARY,
    "sr.cli": _PROGRAM | {"train", "deploy"},
    "sr.cli.__main__": {"sr.cli"},
    "train.__main__": {"sr.cli"},
}
# Longest chain of imports from a command down to the errors, counted in rooms.
MOST_FLOORS = 8

# Arithmetic: no file, no model, nothing but numpy.
PURE = ("sr.errors", "sr.tiling", "sr.metrics", "sr.resize")

# What knows the terminal.
COMMAND_LINE = {"sr.cli", "sr.cli.__main__"}

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


def modules_of(package: str) -> list[str]:
    return [name for name in SOURCES if name.partition(".")[0] == package]


# --- which way imports point --------------------------------------------------------------------


def test_the_reader_of_imports_sees_all_kinds() -> None:
    """What follows rests on it."""
    assert "sr.backends.base" in imports("sr.backends.ort", into_functions=False)
    assert "sr.network.checkpoint" in imports("sr.backends.choice", into_functions=True)
    assert "sr.network.checkpoint" not in imports("sr.backends.choice", into_functions=False)
    assert "sr.network.model" in imports("train.evaluate", into_functions=False), "under TYPE_CHECKING"
    assert "sr.cli.options" in imports("sr.cli.upscale", into_functions=False), "from sr.cli import options"


def room_of(name: str) -> str:
    """Return the room to which a module belongs."""
    return max((room for room in ROOMS if f"{name}.".startswith(f"{room}.")), key=len)


def rooms_below(name: str) -> set[str]:
    """Return the other rooms from which a module imports."""
    return {room_of(found) for found in ours(imports(name, into_functions=True))} - {room_of(name)}


@pytest.mark.parametrize("name", SOURCES)
def test_a_room_imports_only_from_the_rooms_below_it(name: str) -> None:
    assert rooms_below(name) <= ROOMS[room_of(name)]


def test_every_room_is_in_the_table() -> None:
    """A new module directly below `sr` falls into the public face, which may import almost nothing."""
    assert {name for name in SOURCES if room_of(name) == "sr"} == {"sr"}


def test_the_table_makes_no_circle() -> None:
    assert list(TopologicalSorter(ROOMS).static_order())  # raises CycleError


def test_imports_make_no_circle() -> None:
    graph = {name: ours(imports(name, into_functions=True)) - {name} for name in SOURCES}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_the_floors_of_sr_are_few() -> None:
    below: dict[str, set[str]] = {}
    for name in modules_of("sr"):
        below.setdefault(room_of(name), set()).update(
            room for room in rooms_below(name) if room.partition(".")[0] == "sr"
        )
    floor: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        floor[room] = 1 + max((floor[lower] for lower in below.get(room, ())), default=0)
    del floor["sr.cli.__main__"]
    assert max(floor.values()) <= MOST_FLOORS


@pytest.mark.parametrize("name", PURE)
def test_core_imports_nothing_but_errors_and_arithmetic(name: str) -> None:
    found = imports(name, into_functions=True)
    foreign = {module.partition(".")[0] for module in found} - set(PACKAGES) - sys.stdlib_module_names
    assert foreign <= {"numpy"}
    assert not found & {"pathlib", "os", "io"}, "files are read and written at the rim"


@pytest.mark.parametrize("name", [name for name in SOURCES if room_of(name) not in COMMAND_LINE])
def test_only_the_command_line_knows_click(name: str) -> None:
    assert not {found.partition(".")[0] for found in imports(name, into_functions=True)} & {"click", "rich"}


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
    sentence = command.get_short_help_str(limit=200)
    assert sentence.endswith(".")
    assert main.summaries[name] == sentence, "its first sentence stands in srup --help"
    assert len(command.examples) == 2
    assert all(example.startswith(f"srup {name}") for example in command.examples)


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
