"""Train variants of the network for an equal time and compare their Y-PSNR.

Runs every variant as a process of its own on one thread, all at once, for the same number of
minutes; how many epochs fit is calibrated by each process while the others run, so that the cosine
schedule of each ends when its time ends.

    python -m benchmarks.ablate --train-list pairs/x2.json --val-list Set5/x2.json --minutes 8 \\
        --variant geometric:num_blocks=6,asym_width=geometric --variant lo:num_blocks=8 -o out.json
"""

from __future__ import annotations

import ast
import json
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

CALIBRATION_STEPS = 40


def train_for(name: str, changes: dict[str, Any], minutes: float, lists: tuple[Path, ...]) -> dict[str, Any]:
    """Train one variant for about `minutes` on one thread; return its figures."""
    import torch

    from sr.model import ModelConfig, model_cost
    from train.config import TrainConfig
    from train.loop import Trainer

    torch.set_num_threads(1)
    model = ModelConfig(**changes)
    with tempfile.TemporaryDirectory() as scratch:
        config = TrainConfig(
            model=model,
            train_list=lists[0],
            val_lists=lists[1:],
            run_dir=Path(scratch),
            total_epochs=10**6,
            val_every=10**6,
        )
        trainer = Trainer(config, log=lambda line: print(f"{name}: {line}", flush=True))
        trainer.source = _first_pictures(trainer.source, CALIBRATION_STEPS)
        trainer._train_epoch()  # warm-up of allocators and caches
        started = time.perf_counter()
        trainer._train_epoch()
        seconds_per_step = (time.perf_counter() - started) / CALIBRATION_STEPS
        epochs = max(1, round(minutes * 60 / (seconds_per_step * trainer.steps_per_epoch)))
        trainer = Trainer(replace(config, total_epochs=epochs), log=trainer._log)
        quality = trainer.run()
    assert quality is not None
    return {
        "variant": name,
        "changes": changes,
        **asdict(model_cost(model)),
        "steps": trainer.step,
        "minutes": round(trainer.seconds / 60, 2),
        **asdict(quality),
    }


def _first_pictures(source: Any, pictures: int) -> Any:
    import copy

    part = copy.copy(source)
    part._pictures = source._pictures[:pictures]
    return part


def _parse(variant: str) -> tuple[str, dict[str, Any]]:
    name, _, settings = variant.partition(":")
    changes = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        try:
            changes[key] = ast.literal_eval(value)
        except ValueError:
            changes[key] = value
    return name, changes


@click.command(help=__doc__)
@click.option("--train-list", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--val-list", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--minutes", type=float, default=8.0, show_default=True)
@click.option("--variant", multiple=True, required=True, help="NAME:FIELD=VALUE,... of ModelConfig")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(train_list: Path, val_list: Path, minutes: float, variant: tuple[str, ...], output: Path) -> None:
    variants = [_parse(item) for item in variant]
    with ProcessPoolExecutor(len(variants)) as pool:
        futures = [
            pool.submit(train_for, name, changes, minutes, (train_list, val_list))
            for name, changes in variants
        ]
        rows = [future.result() for future in futures]
    report = {
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
        "minutes": minutes,
        "rows": rows,
    }
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(
            f"{row['variant']:12} {row['params']:8} parameters {row['steps']:6} steps {row['psnr_y']:.3f} dB"
        )


if __name__ == "__main__":
    main()
