"""`SRUP_DEBUG=1` shows where an error comes from; without it an error is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.pictures import encoded, tiff

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("named", ["a file", "a folder"])
def test_the_switch_shows_tracebacks(tmp_path: Path, named: str) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(40))
    source = tmp_path / "bad.png" if named == "a file" else tmp_path
    command = [sys.executable, "-m", "sr.cli", "upscale", str(source), "-o", str(tmp_path / "out")]
    if named == "a file":
        command[-1] += ".png"
    for switch, traceback in (("0", False), ("1", True)):
        run = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"SRUP_DEBUG": switch}
        )
        assert run.returncode == 1
        assert "bad.png: " in run.stderr
        assert ("Traceback" in run.stderr) == traceback
        assert ("PngImagePlugin" in run.stderr) == traceback  # the cause, in the library


def test_no_text_of_a_library_reaches_the_user(tmp_path: Path) -> None:
    """Pillow logs what it stumbles over, and libtiff inside it writes to stderr by itself."""
    tags = {256: (4, [8]), 257: (4, [8]), 258: (3, [8]), 259: (3, [1]), 262: (3, [2]), 277: (3, [13_059])}
    (tmp_path / "samples.tif").write_bytes(tiff(tags, [bytes(192)]))
    noise = Image.effect_noise((64, 64), 80)
    content = bytearray(encoded(noise, "TIFF", compression="tiff_adobe_deflate"))
    content[40:90] = bytes(50)
    (tmp_path / "damaged.tif").write_bytes(content)
    for name in ("samples.tif", "damaged.tif"):
        command = [sys.executable, "-m", "sr.cli", "upscale", str(tmp_path / name), "-o", "none.tif"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 1
        lines = [line for line in run.stderr.splitlines() if not line.startswith("0 of 1")]
        assert len(lines) == 1, run.stderr
        assert name in lines[0]
