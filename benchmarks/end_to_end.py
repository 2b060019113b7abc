"""One picture from process start to written file, against bare inference of the same picture.

Upscales a 510x339 photograph by 3 with `srup upscale`, and runs the same network on the same
pixels, whole, in a loaded ONNX Runtime session with its defaults.

    python -m benchmarks.end_to_end
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import onnxruntime

from benchmarks.lib.paths import ROOT
from benchmarks.lib.results import write_result
from benchmarks.lib.timing import interleaved_seconds
from sr.image import read_picture
from sr.network.ends import INPUT_NAME
from sr.network.modelfile import shipped_onnx

PICTURE = ROOT / "examples" / "kitten.png"
SCALE = 3
ROUNDS = 9


def main() -> None:
    """Measure and store."""
    pixels = read_picture(PICTURE).pixels[None]
    session = onnxruntime.InferenceSession(str(shipped_onnx(scale=SCALE)), providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "sr.cli", "upscale", str(PICTURE), "--scale", str(SCALE)]
        command += ["--overwrite", "-o", str(Path(scratch) / "out.png")]
        seconds = interleaved_seconds(
            {
                "inference": lambda: session.run(None, {INPUT_NAME: pixels}),
                "command": lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL),
            },
            rounds=ROUNDS,
        )
    limit = 1.25 * seconds["inference"] + 0.75
    write_result(
        "end-to-end",
        {"seconds": seconds, "limit_seconds": limit, "share_of_limit": round(seconds["command"] / limit, 2)},
    )


if __name__ == "__main__":
    main()
