"""Make the files of `sr/weights` for one scale from trained weights: halo measured, every ONNX file exported.

Trained weights record their training settings except a name of the data, which --data gives. Afterwards run
`benchmarks.quality`, whose figures go into the model card, `fp16`, `parity` and `plane`.

    python -m benchmarks.ship checkpoints/x3/srup_x3_best.safetensors --calibrate pairs/train/x3/LR PICTURE...
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks.halo import measured_halo
from benchmarks.lib.options import Script
from deploy.export import ExportSpec, export_onnx
from sr.network.checkpoint import load_weights, save_weights
from sr.network.config import preset_name
from sr.network.modelfile import DEFAULT_PRESET, SHIPPED, SHIPPED_DIR


@click.command(cls=Script, help=__doc__)
@click.argument("trained", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--calibrate", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--data", help="Name of the training data, if the weights do not record it.")
@click.option("-o", "--output", default=SHIPPED_DIR, type=click.Path(path_type=Path, file_okay=False))
def main(trained: Path, pictures: tuple[Path, ...], calibrate: Path, data: str | None, output: Path) -> None:
    weights = load_weights(trained)
    training = _with_data(weights.training, data)
    weights = replace(weights, training=training, preset=preset_name(weights.config))
    halo = measured_halo(trained, pictures)
    output.mkdir(parents=True, exist_ok=True)
    shipped = output / f"{weights.preset}_x{weights.config.scale}.safetensors"
    save_weights(shipped, replace(weights, halo=halo, licence=SHIPPED[DEFAULT_PRESET].licence))
    for spec in (
        ExportSpec(),
        ExportSpec(io="float32"),
        ExportSpec(precision="fp16"),
        ExportSpec(precision="int8", calibration=calibrate),
    ):
        click.echo(export_onnx(shipped, output, spec))


def _with_data(training: dict[str, Any], data: str | None) -> dict[str, Any]:
    """Return the summary of a training and of its predecessors, with the data named."""
    if not training:  # of the network that returns its picture
        return {}
    named = {"data": training.get("data") or data or ""}
    before = training.get("started_from")
    return training | named | ({"started_from": _with_data(before, data)} if before else {})


if __name__ == "__main__":
    main()
