"""What a run tells about itself: lines, progress within an epoch, metrics, sample crops, curves, a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sr.network.model import model_cost
from train.config import TrainConfig
from train.crops import Crops, bicubic_upscale
from train.data.patches import Epoch
from train.data.samples import degradation_sheet, save_png
from train.distributed import Group
from train.evaluate import Quality, Upscale, evaluate
from train.monitor import Metrics, Speed, plot_curves
from train.page import write_page
from train.position import Position
from train.schedule import Schedule

Log = Callable[[str], object]


@dataclass(frozen=True)
class StepReport:
    """Where a run is within an epoch.

    Attributes:
        epoch: the present epoch, from 1.
        step: steps done in it.
        steps: steps that it has.
        loss: mean over its patches so far.
        images_per_s: patches per second in it.
        seconds_left: until the end of the run at the present rate, measurements not counted.
    """

    epoch: int
    total_epochs: int
    step: int
    steps: int
    loss: float
    images_per_s: float
    seconds_left: float

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}/{self.total_epochs}  step {self.step}/{self.steps}  loss {self.loss:.5f}  "
            f"{self.images_per_s:,.0f} images/s  {duration(self.seconds_left)} left"
        )


Progress = Callable[[StepReport], object]


def step_report(at: Position, plan: Epoch, speed: Speed, schedule: Schedule) -> StepReport:
    """Return where a run is within its present epoch `plan`, which it trains at `speed`."""
    done = sum(plan.size(step) for step in range(at.done_in_epoch))
    side = plan.sampling.patch_size
    left = schedule.lr_pixels_after(at.epoch + 1) + (len(plan.order) - done) * side**2
    rate = speed.images / max(speed.seconds, 1e-9)
    return StepReport(
        epoch=at.epoch + 1,
        total_epochs=schedule.total_epochs,
        step=at.done_in_epoch,
        steps=len(plan),
        loss=at.loss_sum / done,
        images_per_s=rate,
        seconds_left=left / (rate * side**2),
    )


def duration(seconds: float) -> str:
    """Return a time in its two largest units, e.g. "2 h 05 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def now_and_then(show: Callable[[StepReport], object], *, seconds: float = 60.0) -> Progress:
    """Return a listener that shows a report at most every `seconds`, the first one after as many."""
    shown = time.monotonic()

    def progress(report: StepReport) -> None:
        nonlocal shown
        if time.monotonic() - shown >= seconds:
            shown = time.monotonic()
            show(report)

    return progress


# From this share of hidden units on, silent ones are worth a line.
_SILENT = 0.01


class Report:
    """The report of a run, written by its main process."""

    def __init__(self, config: TrainConfig, group: Group, log: Log, progress: Progress | None) -> None:
        self._config, self._group, self._progress = config, group, progress
        self.log: Log = log if group.is_main else lambda _: None
        self.metrics = Metrics(config.file("metrics.jsonl"))
        self.speed = Speed(model_cost(config.model).macs_per_lr_px)
        self._bicubic: dict[str, Quality] = {}
        self._crops: Crops | None = None

    def start(self, *, pictures: int, schedule: Schedule, epoch: int) -> None:
        """Say what is trained on what, and measure bicubic for comparison."""
        config, group = self._config, self._group
        if group.is_main:
            config.run_dir.mkdir(parents=True, exist_ok=True)
            self.metrics.start(epoch=epoch)
        processes = f"{group.world} processes, " if group.world > 1 else ""
        where = device_name(group.device)
        if group.device.type == "cpu":
            threads = torch.get_num_threads()
            where += f" (no GPU is visible), {threads} thread{'s' * (threads != 1)}"
        self.log(
            f"training x{config.model.scale} {config.preset} on {processes}{where}: {pictures} pictures, "
            f"{schedule.total_epochs} epochs, {schedule.total_steps} steps; starting with epoch {epoch + 1}"
        )
        validation = ", ".join(map(str, config.val_lists)) or "none"
        self.log(f"training list {config.train_list}; validation {validation}")
        self._bicubic = self.measure(bicubic_upscale(config.model.scale))
        if self._bicubic:
            reference = "bicubic" if config.model.scale > 1 else "lr unchanged"
            self.log(f"{reference}{self._figures(self._bicubic)}")
        if group.is_main and config.val_lists:
            self._crops = Crops.of_list(config.val_lists[0], scale=config.model.scale)

    def measure(self, upscale: Upscale) -> dict[str, Quality]:
        """Measure on every validation list; each process takes its share of the pictures."""
        config = self._config
        return {
            path.as_posix(): evaluate(upscale, path, scale=config.model.scale, group=self._group)
            for path in config.val_lists
        }

    def degradation(self, epoch: Epoch) -> None:
        """Show patches of an epoch before and after their degradation."""
        if self._group.is_main:
            path = self._config.file("degradation.png")
            save_png(path, degradation_sheet(epoch))
            self.log(f"lr patches are degraded; {path} shows some: hr, lr before, lr after")

    def step(self, report: Callable[[], StepReport]) -> None:
        """Pass on where the run is within an epoch, if anyone listens."""
        if self._progress is not None and self._group.is_main:
            self._progress(report())

    def epoch(
        self, record: Mapping[str, Any], qualities: Mapping[str, Quality], *, total_epochs: int
    ) -> None:
        """Print and write what an epoch brought."""
        self.log(
            f"epoch {record['epoch']}/{total_epochs}  {record['stage'].split(':')[0]} {record['loss']:.5f}"
            f"{self._figures(qualities)}  {record['images_per_s']:,.0f} images/s  "
            f"{duration(record['seconds'])}"
        )
        if (silent := record.get("silent_units", 0.0)) >= _SILENT:
            self.log(
                f"{silent:.1%} of the hidden units never fire; a new run from these weights (--init-weights) "
                "with a lower --lr starts them anew"
            )
        if self._group.is_main:
            self.metrics.write(dict(record))

    def crops(self, upscale: Upscale, *, epoch: int) -> None:
        """Save crops of validation pictures: lr, bicubic, the network's, hr."""
        if self._crops is not None:
            self._crops.save(self._crops_of(epoch), upscale)

    def _crops_of(self, epoch: int) -> Path:
        return self._config.file(f"crops/e{epoch:04d}.png")

    def end(self, *, steps: int, seconds: float) -> None:
        """Say what was trained and where it is; draw the curves and write the page."""
        if not self._group.is_main:
            return
        config = self._config
        if self.speed.images:
            self.log(f"trained {steps} steps in {duration(seconds)}: {self.speed}")
        best = config.file("best.safetensors")
        written = [config.file("last.safetensors"), *([best] if best.exists() else [])]
        records, curves = self.metrics.read(), config.file("curves.png")
        if plot_curves(records, curves):
            written.append(curves)
        else:
            self.log('no curves: matplotlib is not installed; pip install "srup[train]"')
        crops = {r["epoch"]: path for r in records if (path := self._crops_of(r["epoch"])).exists()}
        page = config.file("report.html")
        write_page(
            page, title=f"{config.file('').name.rstrip('_')}, {config.preset}", records=records,
            bicubic=self._bicubic, curves=curves if curves.exists() else None, crops=crops,
        )  # fmt: skip
        self.log(f"wrote {', '.join(map(str, [*written, page]))}")

    def frozen(self, before: Mapping[str, Quality], after: Mapping[str, Quality]) -> None:
        """Say what freezing the attention gates cost."""
        costs = [
            f"  {list_name(name)} {before[name].psnr_y:.3f} -> {after[name].psnr_y:.3f} dB" for name in before
        ]
        self.log("froze the attention gates to their running mean" + "".join(costs))

    def close(self) -> None:
        """Flush what is written."""
        self.metrics.close()

    def _figures(self, qualities: Mapping[str, Quality]) -> str:
        def against(name: str, quality: Quality) -> str:
            bicubic = self._bicubic.get(name, quality)
            return "" if bicubic is quality else f" ({quality.psnr_y - bicubic.psnr_y:+.2f})"

        return "".join(f"  {list_name(n)} {q}{against(n, q)}" for n, q in qualities.items())


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def list_name(path: str) -> str:
    """Name a list after its folder: pairs/val/Set5/x2.json is Set5."""
    return Path(path).parent.name or path
