"""What a user sees on a terminal: whole messages and no remains of bars, at any width, Ctrl-C included."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyte")
if not hasattr(os, "openpty"):
    pytest.skip("no pseudo-terminals here", allow_module_level=True)

from tests.terminal import Terminal

# The command with an upscaler whose time is known: a class of three methods, see test_sr_composed.
PROGRAM = """
import sys, time
from tests.test_sr_composed import Doubling
from sr.cli import main
from sr.jobs.setup import UpscalerSetup

class Slow(Doubling):
    def picture(self, picture, *, progress=None):
        time.sleep(float(sys.argv[1]))
        return super().picture(picture, progress=progress)

arguments, sys.argv[2:] = sys.argv[2:], []
main(arguments, prog_name="srup", obj=lambda upscaling, settings: UpscalerSetup(Slow(), warning="w" * 90))
"""
RUNNING = re.compile("[1-8]/9")  # pictures done, while the run goes on
WIDTHS = [60, 80, 100]
LONG = "a_long_name_that_takes_more_than_a_line_of_a_narrow_terminal_" + "x" * 60
BAR = "\N{BOX DRAWINGS HEAVY HORIZONTAL}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of pictures, a third of which are damaged, with long names."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(9):
        path = folder / f"{number}_{LONG}.png"
        Image.fromarray(np.full((8, 9, 3), 20 * number, np.uint8)).save(path)
        if number % 3 == 0:
            path.write_bytes(b"damaged")
    return folder


def said(lines: list[str]) -> str:
    """Return all that the screen shows without line breaks: long lines go on in the next."""
    return "".join(lines).replace(" ", "")


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("to_file", [False, True], ids=["all on the terminal", "results into a file"])
def test_messages_are_whole_and_bars_leave_nothing(
    folder: Path, columns: int, to_file: bool, tmp_path: Path
) -> None:
    with (tmp_path / "results.txt").open("wb") as results:
        command = ("-c", PROGRAM, "0.02", "upscale", str(folder), "-o", "out")
        terminal = Terminal(
            *command, cwd=tmp_path, columns=columns, stdout=results.fileno() if to_file else None
        )
        lines = terminal.read()
        assert terminal.close() == 1
    text = said(lines)
    assert BAR not in text
    assert "w" * 90 in text
    printed = text if not to_file else said((tmp_path / "results.txt").read_text().splitlines())
    for number in range(9):
        name = f"{number}_{LONG}"
        if number % 3 == 0:
            assert f"Error:{folder}/{name}.png:" in text
            assert text.count(f"{folder}/{name}.png") == 2, "its error, and the list of failures"
        else:
            assert f"out/{name}_x2.png9x8->18x16" in printed
    assert "6of9pictures" in printed
    assert "3failed:" in text


@pytest.mark.parametrize("columns", WIDTHS)
def test_bars_are_drawn_meanwhile_and_ctrl_c_is_answered_in_whole(
    folder: Path, columns: int, tmp_path: Path
) -> None:
    command = ("-c", PROGRAM, "0.4", "upscale", str(folder), "-o", "out")
    terminal = Terminal(*command, cwd=tmp_path, columns=columns)
    shown = terminal.read(until=lambda lines: any(RUNNING.search(line) for line in lines))
    assert any(BAR in line and "pictures" in line for line in shown), shown
    os.killpg(terminal.process.pid, signal.SIGINT)
    text = said(terminal.read())
    assert terminal.close() == 130
    assert BAR not in text
    assert "pictures0:" not in text
    stopped = text[text.index("stopped:") :]
    assert "of9picturesdone" in stopped
    assert stopped.endswith("--skip-existing")
