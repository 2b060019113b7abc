"""What a run reports: its speed, its metrics as JSONL and for TensorBoard, its curves as a PNG."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sr.files import atomic_write

# A multiply-add is two operations; the backward pass does twice the work of the forward pass.
_FLOP_PER_TRAINED_MAC = 6


@dataclass
class Speed:
    """Work and time of a number of steps, over all processes.

    Attributes:
        macs_per_lr_px: multiply-adds of the network for each lr pixel.
        images: patches trained on.
        lr_pixels: their lr pixels.
        seconds: time of the steps.
        wait_seconds: the part of it that was spent waiting for data.
    """

    macs_per_lr_px: int
    images: int = 0
    lr_pixels: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0

    def add(self, other: Speed) -> None:
        """Count in other steps."""
        self.images += other.images
        self.lr_pixels += other.lr_pixels
        self.seconds += other.seconds
        self.wait_seconds += other.wait_seconds

    def figures(self) -> dict[str, float]:
        """Return rates a second and the share of time spent waiting for data."""
        seconds = max(self.seconds, 1e-9)
        return {
            "images_per_s": round(self.images / seconds, 1),
            "lr_pixels_per_s": round(self.lr_pixels / seconds),
            "gflop_per_s": round(
                self.lr_pixels * self.macs_per_lr_px * _FLOP_PER_TRAINED_MAC / seconds / 1e9, 2
            ),
            "data_wait_share": round(self.wait_seconds / seconds, 4),
        }

    def __str__(self) -> str:
        rates = self.figures()
        return (
            f"{rates['images_per_s']:,.0f} images/s, {rates['lr_pixels_per_s'] / 1e6:.3f} M lr pixels/s, "
            f"{rates['gflop_per_s']:,.1f} GFLOP/s, waited for data {rates['data_wait_share']:.1%} of the time"
        )


@dataclass
class Metrics:
    """The records of a run: one JSON object a line for each epoch, and TensorBoard if it is installed."""

    path: Path
    _board: Any = field(default=None, init=False)

    def start(self, *, epoch: int) -> None:
        """Start a new file, or continue after `epoch` epochs; records of later epochs are dropped."""
        kept = [record for record in self.read() if record["epoch"] <= epoch]
        if kept:
            with atomic_write(self.path) as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        else:
            self.path.unlink(missing_ok=True)
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.path.with_suffix("")) + "_tensorboard", purge_step=epoch + 1)

    def read(self) -> list[dict[str, Any]]:
        """Return all records; a last line that a crash cut off is left out."""
        records = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    records.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return records

    def write(self, record: dict[str, Any]) -> None:
        """Append the record of an epoch."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name in ("loss", "learning_rate"):
                self._board.add_scalar(name, record[name], record["epoch"])
            for path, quality in record.get("quality", {}).items():
                for name, value in quality.items():
                    self._board.add_scalar(f"{name}/{path}", value, record["epoch"])

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._board is not None:
            self._board.close()
            self._board = None


def plot_curves(records: list[dict[str, Any]], path: Path) -> bool:
    """Draw loss and Y-PSNR over the epochs as a PNG; return False if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True)
    for stage in dict.fromkeys(r["stage"] for r in records):
        part = [r for r in records if r["stage"] == stage]
        top.semilogy([r["epoch"] for r in part], [r["loss"] for r in part], marker=".", label=stage)
    top.set_ylabel("loss")
    if records:
        top.legend(loc="upper right")  # "best" warns where it takes long
    measured = [r for r in records if r.get("quality")]
    for name in dict.fromkeys(name for r in measured for name in r["quality"]):
        rows = [(r["epoch"], r["quality"][name]["psnr_y"]) for r in measured if name in r["quality"]]
        bottom.plot(*zip(*rows, strict=True), marker=".", label=name)
    bottom.set_xlabel("epoch")
    bottom.set_ylabel("Y-PSNR in dB")
    if measured:
        bottom.legend(loc="lower right")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return True
