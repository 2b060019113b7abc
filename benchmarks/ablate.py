"""Train variants of a run with an equal budget and compare what they reach.

The budget is either CPU minutes (each variant's steps are calibrated in CPU seconds of its own
process, so that other work on the machine does not matter) or steps. Every variant trains on one
thread, with the same seed, and its schedule ends where its budget ends. Stages are given in percent
of the epochs.

    python -m benchmarks.ablate sizes --minutes 5 --train-list pairs/train/x2.json \\
        --val-list pairs/val/Set5/x2.json --common lr=3e-3 \\
        --variant small: --variant wide:num_feats=48 --variant grow:stages=l1:80:batch=8/l1:20:batch=64

Results are added to benchmarks/results/ablate-NAME.json; variants already in it are not run again.
"""

from __future__ import annotations

import ast
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.lib.paths import RESULTS
from benchmarks.lib.provenance import machine

CALIBRATION_STEPS = 40


@dataclass(frozen=True)
class Budget:
    """CPU minutes, or steps; one of them is None."""

    minutes: float | None
    steps: int | None


def train_variant(
    name: str, settings: dict[str, Any], budget: Budget, lists: tuple[Path, ...]
) -> dict[str, Any]:
    """Train one variant on one thread; return its figures."""
    import torch

    from sr.network.model import model_cost
    from train.loop import Trainer
    from train.settings import config_from_settings

    torch.set_num_threads(1)
    stages = str(settings.pop("stages", ""))
    with tempfile.TemporaryDirectory() as scratch:
        config = config_from_settings(
            {"train_list": lists[0], "val_lists": lists[1:], "checkpoint_dir": Path(scratch), **settings}
        )
        config = replace(config, workers=0, val_every=10**6, save_every=10**6)
        percent = tuple(text for text in stages.split("/") if text)
        epochs = _epochs_of_budget(config, percent, budget)
        trainer = Trainer(
            replace(config, total_epochs=epochs, stages=_stages(percent, epochs)),
            log=lambda line: print(f"{name}: {line}", flush=True),
        )
        started = time.process_time()
        trainer.run()
        cpu_minutes = (time.process_time() - started) / 60
        quality = {path.parent.name: asdict(q) for path, q in _measured(trainer).items()}
    cost = model_cost(config.model)
    return {
        "variant": name,
        "settings": settings | ({"stages": stages} if stages else {}),
        "params": cost.params,
        "macs_per_lr_px": cost.macs_per_lr_px,
        "steps": trainer.at.step,
        "cpu_minutes": round(cpu_minutes, 2),
        "quality": quality,
    }


def _measured(trainer: Any) -> dict[Path, Any]:
    from train.evaluate import evaluate, upscale_with

    config = trainer.config
    upscale = upscale_with(trainer.shipped_model)
    return {path: evaluate(upscale, path, scale=config.model.scale) for path in config.val_lists}


def _stages(percent: tuple[str, ...], epochs: int) -> tuple[str, ...]:
    """Return stages given in percent of `epochs`, each of at least one."""
    split = [text.split(":", 2) for text in percent]
    return tuple(
        ":".join([loss, str(max(1, round(epochs * float(share) / 100))), *rest])
        for loss, share, *rest in split
    )


def _epochs_of_budget(config: Any, percent: tuple[str, ...], budget: Budget) -> int:
    """Return how many epochs the budget pays for, at least one; stages may cost differently."""
    from train.loop import Trainer

    trainer = Trainer(
        replace(config, total_epochs=100, stages=_stages(percent, 100), warmup_steps=10**6), log=_silent
    )
    parts = trainer.schedule.parts
    seconds = [
        part.steps_per_epoch if budget.minutes is None else _cpu_seconds_of_epoch(trainer, part)
        for part in parts
    ]
    total = sum(part.stage.epochs * cost for part, cost in zip(parts, seconds, strict=True))
    limit = float(budget.steps or 0) if budget.minutes is None else 60 * budget.minutes
    return max(1, round(limit * parts[-1].end_epoch / total))


def _cpu_seconds_of_epoch(trainer: Any, part: Any) -> float:
    """Return what an epoch costs, by `CALIBRATION_STEPS` steps after as many for warming up."""
    trainer.at.epoch = part.first_epoch
    trainer._enter_stage()
    plan = trainer._epoch_plan(part.first_epoch)
    loss_of = trainer._loss(part.stage)
    started = 0.0
    for step in range(2 * CALIBRATION_STEPS):
        if step == CALIBRATION_STEPS:
            started = time.process_time()
        trainer.at.done_in_epoch = step % max(1, len(plan) - 1)
        trainer._train_step(plan.batch(trainer.at.done_in_epoch), plan, loss_of)
    return (time.process_time() - started) / CALIBRATION_STEPS * len(plan)


def _silent(_: str) -> None:
    pass


def parse_variant(variant: str) -> tuple[str, dict[str, Any]]:
    """Return name and settings of NAME:FIELD=VALUE,..., the form in which variants are given."""
    name, _, settings = variant.partition(":")
    values = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        try:
            values["learning_rate" if key == "lr" else key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[key] = value
    return name, values


@click.command(help=__doc__)
@click.argument("name")
@click.option("--train-list", type=click.Path(path_type=Path, exists=True), required=True)
@click.option(
    "--val-list", "val_lists", type=click.Path(path_type=Path, exists=True), multiple=True, required=True
)
@click.option("--minutes", type=float, help="CPU minutes for each variant.")
@click.option("--steps", type=int, help="Steps for each variant, in place of minutes.")
@click.option("--common", default="", help="FIELD=VALUE,... of all variants.")
@click.option("--variant", "variants", multiple=True, required=True, help="NAME:FIELD=VALUE,...")
@click.option("--jobs", default=1, show_default=True, help="Variants trained at once.")
def main(
    name: str,
    train_list: Path,
    val_lists: tuple[Path, ...],
    minutes: float | None,
    steps: int | None,
    common: str,
    variants: tuple[str, ...],
    jobs: int,
) -> None:
    if (minutes is None) == (steps is None):
        raise click.UsageError("give --minutes or --steps")
    path = RESULTS / f"ablate-{name}.json"
    shared = parse_variant(f":{common}")[1]
    budget = {"cpu_minutes": minutes} if minutes else {"steps": steps}
    report: dict[str, Any] = {"machine": machine(), "common": shared, "budget": budget, "rows": []}
    if path.exists():
        report["rows"] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    done = {row["variant"] for row in report["rows"]}
    with ProcessPoolExecutor(jobs, max_tasks_per_child=1) as pool:
        futures = [
            pool.submit(train_variant, n, shared | own, Budget(minutes, steps), (train_list, *val_lists))
            for n, own in map(parse_variant, variants)
            if n not in done
        ]
        for future in futures:
            report["rows"].append(future.result())
            path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in report["rows"]:
        scores = "  ".join(f"{n} {q['psnr_y']:.3f} dB" for n, q in row["quality"].items())
        print(f"{row['variant']:16} {row['params']:8,} parameters {row['steps']:6} steps  {scores}")


if __name__ == "__main__":
    main()
