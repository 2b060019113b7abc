"""What the README and the other pages show works: command lines, examples, settings, links, names."""

import ast
import configparser
import doctest
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from sr.cli import main
from tests.foreign import Convention, write_network
from tests.pages import BLOCKS, COMMANDS, MARKS, PAGES, ROOT, Block, Command, blocks

SRUP = [command for command in COMMANDS if command.srup is not None]
OTHERS = [command for command in COMMANDS if command.srup is None]
MODULES = [command for command in OTHERS if command.words[:2] == ["python", "-m"]]
PIP = [command for command in OTHERS if command.words[0] == "pip"]
SCRIPTS = [command for command in OTHERS if command.words[0].startswith("bin/")]
ROOMS = ("sr", "train", "deploy")
RUNNABLE = {page: [b for b in blocks(page, "sh") if not b.mark] for page in PAGES}


def line_of(command: Command) -> str:
    return " ".join(command.words)


# --- what blocks there are ----------------------------------------------------------------------


def test_the_readme_begins_with_the_two_commands():
    assert BLOCKS[0].page == "README.md"
    assert BLOCKS[0].lines == ["bin/srup upscale examples/osprey.png --scale 3", "bin/test"]
    assert (ROOT / "examples" / "osprey.png").is_file()


def test_every_command_stands_in_the_pages():
    assert {command.srup[0] for command in SRUP} == set(main.commands)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}: {block.text[:30]!r}")
def test_every_block_says_what_it_holds(block: Block):
    assert block.language in ("sh", "python", "toml", "text")
    assert block.mark in ("", *MARKS) if block.language == "sh" else not block.mark


@pytest.mark.parametrize("command", OTHERS, ids=line_of)
def test_other_commands_are_of_a_kind_that_is_tested(command: Command):
    assert command in (*MODULES, *PIP, *SCRIPTS) or command.block.mark == "shell"
    assert command not in (*PIP, *SCRIPTS) or command.block.mark == "install"


# --- that commands are valid --------------------------------------------------------------------


@pytest.mark.parametrize("command", SRUP, ids=line_of)
def test_every_command_line_is_valid(command: Command):
    name, *arguments = command.srup
    with click.Context(main) as parent:
        main.commands[name].make_context(name, arguments, parent=parent)


@pytest.mark.parametrize("name", sorted(set(main.commands) - {"train"}))  # its options: the TOML file
def test_every_option_stands_in_the_pages(name: str):
    text = "\n".join(PAGES.values())
    for option in main.commands[name].params:
        if isinstance(option, click.Option):
            assert any(re.search(rf"{flag}\b", text) for flag in option.opts), option.opts


@pytest.mark.parametrize("command", PIP, ids=line_of)
def test_what_pip_installs_is_an_extra(command: Command):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    for extras in re.findall(r"\.\[([\w,-]+)\]", line_of(command)):
        assert set(extras.split(",")) <= setup["options.extras_require"].keys()


@pytest.mark.parametrize("command", SCRIPTS, ids=line_of)
def test_scripts_exist(command: Command):
    assert os.access(ROOT / command.words[0], os.X_OK)


@pytest.mark.slow
@pytest.mark.parametrize("command", MODULES, ids=line_of)
def test_modules_that_are_run_have_the_options(command: Command):
    module, *arguments = command.words[2:]
    answer = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", answer.stdout))
    assert {word for word in arguments if word.startswith("-")} <= known


# --- that commands run --------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, which holds the pictures that the pages name."""
    with Image.open(ROOT / "examples" / "colosseum.png") as picture:
        small, patches = picture.crop((0, 0, 90, 60)), picture.crop((0, 0, 400, 200))
    for name in (
        *("photo.jpg", "a.png", "b.tif", "map.tif", "holiday/1.jpg", "holiday/day 1/c.jpg", "lr/1.png"),
        *("Set5/HR/1.png", "aside/1.png"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        small.save(tmp_path / name)
    for name in ("photographs/1.png", "DIV2K/DIV2K_train_HR/0001.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        patches.save(tmp_path / name)
    write_network(tmp_path / "4x_foo.onnx", Convention(scale=4))
    write_network(tmp_path / "1x_dejpeg.onnx", Convention(scale=1))
    if importlib.util.find_spec("spandrel") is not None:
        from tests.architectures import write_weights

        write_weights(tmp_path / "4x_foo.pth", "Compact")
    monkeypatch.chdir(tmp_path)
    for variable in ("XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"):  # for engines
        monkeypatch.setenv(variable, str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def run(command: Command) -> None:
    """Run a command line, in this process if it is one `srup` and nothing else."""
    if "--trt-rtx" in command.words and importlib.util.find_spec("tensorrt_rtx") is None:
        return  # there is none for macOS
    if "4x_foo.pth" in command.words and not Path("4x_foo.pth").exists():
        return  # the extra `models` is not installed
    if command.words[0] == "srup":
        result = CliRunner().invoke(main, command.srup)
        assert result.exit_code == 0, f"{line_of(command)}\n{result.output}"
    elif command in MODULES:
        subprocess.run([sys.executable, *command.words[1:]], check=True)
    else:
        srup = f"{shlex.quote(sys.executable)} -m sr.cli"
        subprocess.run(command.line.replace("srup ", f"{srup} ", 1), shell=True, check=True)


MADE = {
    "README.md": ["photo_x2.png", "big.webp", "holiday_x3/day 1/c_x3.jpg", "look.html", "models"],
    "docs/upscale.md": ["small.avif", "out/a_x2.webp", "large.png", "map_x4.tif", "holiday_x3/1_x3.jpg"],
    "docs/train.md": ["checkpoints/first/srup_x2_metrics.jsonl", "photographs/drawn/drawn-0011.png"],
    "docs/deploy.md": ["models/small_x3_fp16_uint8.onnx"],
    "docs/models.md": ["photo_x4.png", "photo_bgr.png", "photo_both.png", "models/4x_foo_x4_fp32_uint8.onnx"],
    "docs/serving.md": ["repository/srup_tiled_x2/config.pbtxt"],
}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, found in RUNNABLE.items() if found])
def test_the_commands_of_a_page_run(page: str, workspace: Path, one_thread: None):
    for command in COMMANDS:
        if command.block in RUNNABLE[page]:
            run(command)
    for name in MADE.get(page, []):
        assert (workspace / name).exists(), name


# --- tables ---------------------------------------------------------------------------------------


def first_column(page: str, heading: str) -> list[str]:
    """Return the first column of the first table below a heading."""
    _, _, section = PAGES[page].partition(f"\n## {heading}\n")
    table = re.search(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)
    assert table is not None, heading
    return [row.split("|")[1].strip() for row in table[0].splitlines()[2:]]


def test_every_image_format_stands_in_the_table():
    from sr.image.formats import FORMATS

    assert sorted(first_column("docs/upscale.md", "Formats")) == sorted(FORMATS)


def test_every_room_stands_in_the_table():
    rooms = {path.parent.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("__init__.py")}
    shown = " ".join(first_column("docs/architecture.md", "The rooms"))
    assert [room for room in sorted(rooms) if f"`{room.as_posix()}/`" not in shown] == []


def test_every_extra_stands_in_the_table():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    shown = re.findall(r"`([\w-]+)`", " ".join(first_column("docs/upscale.md", "Install")))
    assert sorted(shown) == sorted(setup["options.extras_require"])


@pytest.mark.parametrize("option", ["backend", "precision", "format_"])
def test_every_choice_stands_in_the_pages(option: str):
    (found,) = [each for each in main.commands["upscale"].params if each.name == option]
    text = "\n".join(PAGES.values())
    for choice in found.type.choices:
        assert re.search(rf"(?<![\w-]){re.escape(choice)}(?![\w-])", text), choice


# --- examples and settings ----------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.language == "python"}))
def test_the_python_examples_run(page: str, workspace: Path):
    """One after the other."""
    scope: dict = {}
    for block in blocks(page, "python"):
        exec(block.text, scope)
    if page == "README.md":
        assert scope["big"].shape == (60, 90, 3)


def test_the_toml_file_is_complete_and_holds_the_defaults(tmp_path: Path):
    pytest.importorskip("torch")
    from train.config import TrainConfig
    from train.settings import config_from_settings, settings_from_toml

    (block,) = blocks("docs/train.md", "toml")
    path = tmp_path / "run.toml"
    path.write_text(block.text, encoding="utf-8")
    named = set(re.findall(r"^(?:# )?([a-z-]+) = ", block.text, flags=re.MULTILINE))
    options = {
        parameter.opts[0].removeprefix("--")
        for parameter in main.commands["train"].params
        if not parameter.opts[0].startswith(("--load-", "--help"))
    }
    assert named == options - {"config", "resume", "processes"}

    settings = settings_from_toml(path)
    assert len(settings) == len(tomllib.loads(block.text))
    shown = config_from_settings(settings)
    default = config_from_settings({"preset": "small"})
    assert shown.preset == default.preset == "small"
    places = {"train_list", "val_lists", "checkpoint_dir", "save_subdir"}  # relative to the file
    for field in fields(TrainConfig):
        if field.name not in places:
            assert getattr(shown, field.name) == getattr(default, field.name), field.name


# --- links and names ----------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Return what links to the headings of a page end in, as GitHub makes it."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


DOCUMENTS = [ROOT / page for page in (*PAGES, "CHANGELOG.md", "benchmarks/README.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path):
    for link in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            target, _, anchor = link.partition("#")
            page = (document.parent / target) if target else document
            assert page.exists(), link
            assert not anchor or anchor in anchors(page.read_text(encoding="utf-8")), link


def names_in(text: str, pattern: str) -> list[str]:
    return sorted(set(re.findall(rf"`({pattern})`", text)))


@pytest.mark.parametrize("page", PAGES)
def test_files_and_names_of_the_code_exist(page: str):
    rooms = r"(?:sr|train|deploy|benchmarks|tests|docs|bin|examples)"
    for path in names_in(PAGES[page], rf"{rooms}/[\w./-]*"):
        assert (ROOT / path).exists(), path
    for dotted in names_in(PAGES[page], r"(?:sr|train|deploy)(?:\.\w+)+"):
        module = dotted
        while importlib.util.find_spec(module.partition(".")[0]) and not found(module):
            module = module.rpartition(".")[0]
        value = importlib.import_module(module)
        for name in dotted.removeprefix(module).split(".")[1:]:
            value = getattr(value, name)


def found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# --- messages -----------------------------------------------------------------------------------

QUOTED = [
    quote
    for row in re.findall(r"^\| (.+?) \|", PAGES["docs/troubleshooting.md"], flags=re.MULTILINE)
    for quote in re.findall(r"`([^`]+)`", row)
]


@pytest.fixture(scope="module")
def messages() -> str:
    """Return all texts of the code, a line each; what an f-string fills in is left out."""
    texts = [(ROOT / "bin" / "_env.sh").read_text(encoding="utf-8")]
    for package in ("sr", "train", "deploy"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                text = "\0".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
                texts.append(text.replace("\n", " "))
    return "\n".join(texts)


@pytest.mark.parametrize("quote", QUOTED)
def test_messages_that_are_explained_exist(quote: str, messages: str):
    """`...` stands for what differs."""
    pattern = ".*".join(re.escape(part.strip()) for part in quote.split("..."))
    said = re.search(pattern, messages) is not None
    assert said, f"no message says {quote!r}: correct docs/troubleshooting.md"


# --- doctests -----------------------------------------------------------------------------------

WITH_DOCTESTS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("sr", "train", "deploy")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "\n    >>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_DOCTESTS)
def test_the_doctests_hold(name: str):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


def test_upscalers_have_doctests():
    assert {"sr.upscale", "sr.sized.upscaler"} <= set(WITH_DOCTESTS)
