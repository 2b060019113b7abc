"""What the README shows works: every command line, the Python example, every link."""

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from PIL import Image

from sr.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
BLOCKS = [text for language, text in FENCED if not language]
LINES = [line for block in BLOCKS for line in block.splitlines()]
COMMANDS = [shlex.split(line, comments=True)[1:] for line in LINES if line.startswith("srup ")]
PIPELINES = [line for line in LINES if "| srup " in line]
# Of the other pages the command lines are checked, not run: many need a GPU or files of one's own.
PAGES = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
SHOWN_ELSEWHERE = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"^```\n(.*?)^```$", PAGES, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith("srup ")
]
# Training for real takes hours; tests/test_train_loop.py trains.
TOO_LONG = {"train", "prepare", "eval"}
AFTER_TRAINING = "checkpoints/"


def test_the_readme_begins_with_the_two_commands():
    assert BLOCKS[0].splitlines() == ["bin/srup upscale examples/osprey.png --scale 3", "bin/test"]
    assert (ROOT / "examples" / "osprey.png").is_file()


def test_every_command_stands_in_the_readme_and_has_help():
    shown = {words[0] for words in COMMANDS}
    assert shown == set(main.commands)
    for command in main.commands.values():
        assert command.help


@pytest.mark.parametrize("words", COMMANDS + SHOWN_ELSEWHERE, ids=" ".join)
def test_every_command_line_is_valid(words):
    command = main.commands[words[0]]
    with click.Context(main) as parent:
        command.make_context(words[0], words[1:], parent=parent)


@pytest.mark.slow
def test_the_command_lines_run(tmp_path):
    (tmp_path / "holiday" / "day 1").mkdir(parents=True)
    with Image.open(ROOT / "examples" / "colosseum.png") as picture:
        small = picture.crop((0, 0, 90, 60))
    for name in ("photo.jpg", "a.png", "b.tif", "holiday/day 1/c.webp"):
        small.save(tmp_path / name)
    runnable = [w for w in COMMANDS if w[0] not in TOO_LONG and AFTER_TRAINING not in " ".join(w)]
    assert len(runnable) > 6
    for words in runnable:
        result = subprocess.run(
            [sys.executable, "-m", "sr.cli", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, (words, result.stderr)
    for line in PIPELINES:
        command = line.replace("| srup ", f"| {shlex.quote(sys.executable)} -m sr.cli ")
        subprocess.run(
            command, shell=True, check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {
        "photo_x2.png",
        "photo_tiled.png",
        "big.webp",
        "large.png",
        "holiday_x3/day 1/c_x3.png",
        "out/a_x2.webp",
        "out/b_x2.webp",
        "look.html",
        "models/small_x2_fp16_uint8.onnx",
    } <= made


def test_the_python_example_runs():
    (example,) = [text for language, text in FENCED if language == "python"]
    scope: dict = {}
    exec(example, scope)
    assert scope["big"].shape == (60, 90, 3)


def test_the_python_page_runs(tmp_path, monkeypatch):
    """Its examples, one after the other, in a folder with the files that they name."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    assert len(examples) > 3
    monkeypatch.chdir(tmp_path)
    with Image.open(ROOT / "examples" / "colosseum.png") as picture:
        picture.crop((0, 0, 45, 30)).save("photo.jpg")
    scope: dict = {}
    for example in examples:
        exec(example, scope)


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("*/*.md")), ids=str)
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


WITH_DOCTESTS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("sr", "train", "deploy")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "\n    >>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_DOCTESTS)
def test_the_doctests_hold(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


def test_upscalers_have_doctests():
    assert {"sr.upscale", "sr.sized"} <= set(WITH_DOCTESTS)
