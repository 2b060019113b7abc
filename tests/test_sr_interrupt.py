"""Ctrl-C, sent to real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from sr.image import read_picture
from sr.jobs.ledger import NAME

ROOT = Path(__file__).resolve().parent.parent
INTERRUPTED = 130

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals the Unix way")


def started(*command: str, cwd: Path, handler: signal.Handlers = signal.SIG_DFL) -> subprocess.Popen[str]:
    """Start Python as a shell does: in the foreground, or in the background with the signal ignored."""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
        **streams,
    )


def test_the_first_finishes_open_files_and_reports_the_progress(tmp_path: Path) -> None:
    with Image.open(ROOT / "examples" / "kitten.png") as picture:
        larger = picture.convert("RGB").resize((400, 300))
    (tmp_path / "in").mkdir()
    for number in range(60):
        larger.rotate(number).save(tmp_path / "in" / f"{number}.png", compress_level=1)
    process = started("-m", "sr.cli", "upscale", "in", cwd=tmp_path)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "400x300 -> 800x600" in first
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED
    lines = [first, *output.splitlines()]
    (said,) = errors.splitlines()
    assert said.startswith(f"stopped: {len(lines)} of 60 pictures done")
    assert "--skip-existing" in said
    made = {path.name for path in (tmp_path / "in_x2").iterdir()} - {NAME}
    assert {Path(line.split()[2]).name for line in lines} == made
    for name in made:
        assert read_picture(tmp_path / "in_x2" / name).width == 800


def test_the_second_waits_for_nothing(tmp_path: Path) -> None:
    """Not even for what the main thread computes without coming back to Python: here, for hours."""
    program = (
        "import hashlib, threading\n"
        "from sr.jobs.interrupt import second_interrupt_stops_at_once\n"
        "with second_interrupt_stops_at_once():\n"
        "    threading.Timer(0.5, print, ('computing',), {'flush': True}).start()\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
    )
    process = started("-c", program, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "computing\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)  # signals of one kind that are both pending are one
    assert process.poll() is None, "the first lets it finish"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == INTERRUPTED


def test_handlers_are_put_back() -> None:
    from sr.jobs.interrupt import second_interrupt_stops_at_once

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), second_interrupt_stops_at_once():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_background_job_ignores_it(tmp_path: Path) -> None:
    with Image.open(ROOT / "examples" / "kitten.png") as picture:
        picture.convert("RGB").resize((40, 30)).save(tmp_path / "a.png")
    command = ("-m", "sr.cli", "upscale", "-", "-o", "b.png")
    process = started(*command, cwd=tmp_path, handler=signal.SIG_IGN)
    process.send_signal(signal.SIGINT)
    assert process.stdin is not None
    process.stdin.buffer.write((tmp_path / "a.png").read_bytes())
    process.stdin.close()
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    output, errors = process.stdout.read(), process.stderr.read()  # type: ignore[union-attr]
    assert (process.returncode, errors, "40x30 -> 80x60" in output) == (0, "", True)
    assert read_picture(tmp_path / "b.png").width == 80
    for stream in (process.stdout, process.stderr):
        stream.close()  # type: ignore[union-attr]


def test_waiting_for_standard_input(tmp_path: Path) -> None:
    process = started("-m", "sr.cli", "upscale", "-", cwd=tmp_path)
    assert process.stdin is not None
    process.stdin.buffer.write(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(1 << 20))
    process.stdin.flush()  # more than a pipe holds, so that it has begun to read
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors.strip()) == (INTERRUPTED, "", "stopped")
