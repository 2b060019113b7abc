"""`SRUP_DEBUG=1` shows where an error comes from; without it an error is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
