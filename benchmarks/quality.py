"""Quality of the shipped networks against bicubic, by the protocol of record.

For each test set, a folder with hr pictures, and each scale: lr pictures are made by MATLAB-exact
bicubic, upscaled by the shipped network (uint8, tiled, as users run it) and by bicubic, and compared
with the hr picture: Y-PSNR, Y-SSIM, RGB-PSNR, `scale` pixels shaved.

    python -m benchmarks.quality Set5=PATH/TO/Set5/HR Set14=PATH/TO/Set14/HR
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.common import write_result
from sr.modelfile import shipped_onnx, shipped_scales
from sr.resize import bicubic_resize
from sr.upscale import Upscaler
from train.evaluate import evaluate
from train.prepare import PrepareSpec, prepare

PRECISIONS = ("fp32", "fp16")


@click.command(help=__doc__)
@click.argument("sets", nargs=-1, required=True, metavar="NAME=HR_FOLDER...")
def main(sets: tuple[str, ...]) -> None:
    rows = []
    for entry in sets:
        name, _, folder = entry.partition("=")
        rows += measure(name, Path(folder))
    for row in rows:
        print(f"{row['set']:6} x{row['scale']} {row['method']:10} {row['psnr_y']:.3f} dB {row['ssim_y']:.4f}")
    write_result("quality", {"rows": rows})


def measure(name: str, hr_folder: Path) -> list[dict[str, Any]]:
    """Return one row for each scale and method."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        spec = PrepareSpec(hr_folder, scales=tuple(shipped_scales()), output=Path(scratch), whole=True)
        for prepared in prepare(spec).lists:
            scale, pairs = prepared.scale, prepared.path
            methods = {"bicubic": evaluate(partial(bicubic_resize, scale=scale), pairs, scale=scale)}
            for precision in PRECISIONS:
                model = shipped_onnx(scale=scale, precision=precision)
                with Upscaler(model=model, backend="onnx", device="cpu") as upscaler:
                    methods[f"srup {precision}"] = evaluate(upscaler, pairs, scale=scale)
            rows += [
                {"set": name, "scale": scale, "method": method, **asdict(quality)}
                for method, quality in methods.items()
            ]
    return rows


if __name__ == "__main__":
    main()
