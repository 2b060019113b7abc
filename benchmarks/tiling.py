"""Time and memory of tiling.

Times a 2040x1356 picture (an enlarged photograph) whole and in tiles of several sizes, interleaved, and
measures the peak memory of whole processes that upscale pictures of growing size, minus the memory of
their input and output pixels.

    python -m benchmarks.tiling
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.lib.memory import peak_rss_mib
from benchmarks.lib.paths import ROOT
from benchmarks.lib.results import write_result
from benchmarks.lib.timing import interleaved_seconds
from sr.image import read_picture
from sr.resize import bicubic_resize
from sr.tiling import TileSpec
from sr.upscale import Upscaler

PICTURE = ROOT / "examples" / "kitten.png"
SCALE = 2
TILES = (96, 128, 192, 256, 384, 512)
ROUNDS = 3
# For memory: the scale, and how often the picture is repeated on each axis.
MEMORY_CASES = ((2, 1), (2, 2), (2, 3), (3, 2), (4, 2))


def main() -> None:
    """Measure and store."""
    image = bicubic_resize(read_picture(PICTURE).pixels, scale=4)
    seconds = time_tiles(image)
    ratios = {name: round(value / seconds["whole"], 3) for name, value in seconds.items()}
    write_result(
        "tiling",
        {
            "size": f"{image.shape[1]}x{image.shape[0]}",
            "scale": SCALE,
            "seconds_whole": seconds["whole"],
            "time_against_whole": ratios,
            "memory": [
                memory_of(np.tile(image, (times, times, 1)), scale=scale) for scale, times in MEMORY_CASES
            ],
        },
    )


def time_tiles(image: np.ndarray) -> dict[str, float]:
    """Return median seconds of the whole picture and of each tile size; "default" is the default size."""
    with Upscaler(scale=SCALE, backend="onnx", device="cpu") as upscaler:
        default, halo = upscaler.spec, upscaler.spec.halo

        def with_spec(spec: TileSpec) -> None:
            upscaler.spec = spec
            upscaler(image)

        specs = {"whole": TileSpec(tile=max(image.shape), halo=0), "default": default}
        specs |= {str(tile): TileSpec(tile=tile, halo=halo) for tile in TILES}
        actions = {name: (lambda spec=spec: with_spec(spec)) for name, spec in specs.items()}
        return interleaved_seconds(actions, rounds=ROUNDS)


def memory_of(image: np.ndarray, *, scale: int) -> dict[str, float | str]:
    """Return the peak memory of a process that upscales `image`, and the part that is not pixels."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in.png", Path(scratch) / "out.png"
        Image.fromarray(image).save(source, compress_level=0)
        command = [sys.executable, "-m", "sr.cli", "upscale", str(source), "--scale", str(scale)]
        peak = peak_rss_mib([*command, "-o", str(target), "--png-level", "0"])
    own = image.nbytes / 2**20
    output = own * scale**2
    # The codec holds a copy of the output, with a fourth byte for each pixel.
    return {
        "size": f"{image.shape[1]}x{image.shape[0]}",
        "scale": scale,
        "peak_rss_mib": round(peak),
        "input_mib": round(own),
        "output_mib": round(output),
        "codec_copy_mib": round(output * 4 / 3),
        "beyond_those_mib": round(peak - own - output - output * 4 / 3),
    }


if __name__ == "__main__":
    main()
