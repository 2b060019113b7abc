"""What `srup export` is asked for: its options as one record, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from sr.cli.stated import check_stated, stated_conventions
from sr.network.ends import Conventions

if TYPE_CHECKING:
    from sr.backends.tensorrt.spec import EngineSpec


@dataclass(frozen=True)
class ExportRequest:
    """The options of `srup export`, each as its help describes it; None, empty and False were not given."""

    onnx: bool
    trt: bool
    trt_rtx: bool
    triton: bool
    weights: str
    model_range: tuple[float, float] | None
    model_order: Literal["RGB", "BGR"] | None
    scales: tuple[int, ...]
    io: Literal["uint8", "float32"]
    precision: Literal["fp32", "fp16", "int8"] | None
    attention: str
    calibrate: Path | None
    restore: float
    licence: str | None
    data_note: str | None
    output: Path | None
    targets: tuple[int, ...]
    tile: int | None
    batch: int | None
    builder_level: int | None
    tiling_level: str | None
    static: bool
    compatible: bool
    plans: tuple[Path, ...]
    halo: int | None

    @property
    def conventions(self) -> Conventions | None:
        """What is stated of a network of another program."""
        return stated_conventions(self.model_range, self.model_order)

    @property
    def backends(self) -> list[str]:
        """The backends to build engines for."""
        return [name for name, asked in (("trt", self.trt), ("trt-rtx", self.trt_rtx)) if asked]

    def engine(self, backend: str, scale: int) -> EngineSpec:
        """Return what engine to build for a backend."""
        from sr.backends.tensorrt.spec import EngineSpec

        tile, batch = self.tile or EngineSpec.tile, self.batch or EngineSpec.batch
        usual = EngineSpec(scale, self.precision or "fp16", tile, batch)
        if backend == "trt-rtx":
            return replace(usual, targets=self.targets)
        return replace(
            usual,
            builder_level=self.builder_level,
            tiling_level=self.tiling_level,
            static=self.static,
            compatible=self.compatible,
        )

    def check(self) -> None:
        """Check that options go together.

        Raises:
            UsageError: two do not.
            ModelError: conventions are stated of a file that cannot be read.
        """
        if not (self.onnx or self.backends or self.triton):
            raise click.UsageError("choose an output: --onnx, --trt or --trt-rtx, or several; or --triton")
        self._check_belonging()
        check_stated(self.conventions, [self.weights])
        if self.triton:
            self._check_serving()
        if not self.onnx and (self.io, self.attention) != ("uint8", "frozen"):
            raise click.UsageError(
                "engines have uint8 IO and frozen attention; --io and --attention need --onnx"
            )
        if (self.precision == "int8") != (self.calibrate is not None):
            raise click.UsageError("--precision int8 and --calibrate need each other")
        if not self.onnx and (self.licence, self.data_note) != (None, None):
            raise click.UsageError("--licence and --data-note need --onnx")
        if self.triton and self.restore:
            raise click.UsageError(
                "--restore is not for --triton; export an ONNX file with it, and give that to --weights"
            )
        if self.precision == "int8" and (self.backends or self.io != "uint8"):
            raise click.UsageError("int8 is for ONNX files with uint8 IO")

    def _check_belonging(self) -> None:
        """Check that each option about engines and serving belongs to an output that is made."""
        tiled = bool(self.backends) or self.triton
        for option, value, met, need in (
            ("--gpu", self.targets, self.trt_rtx, "--trt-rtx; TensorRT builds only for this machine's GPUs"),
            ("--builder-level", self.builder_level, self.trt, "--trt"),
            ("--tiling-level", self.tiling_level, self.trt, "--trt"),
            ("--static", self.static, self.trt, "--trt"),
            ("--compatible", self.compatible, self.trt, "--trt"),
            ("--tile", self.tile, tiled, "--trt, --trt-rtx or --triton"),
            ("--batch", self.batch, tiled, "--trt, --trt-rtx or --triton"),
            ("--plan", self.plans, self.triton, "--triton"),
            ("--halo", self.halo, self.triton, "--triton"),
        ):
            if value not in (None, False, ()) and not met:
                raise click.UsageError(f"{option} needs {need}")

    def _check_serving(self) -> None:
        if self.onnx or self.backends:
            raise click.UsageError(
                "--triton makes no ONNX files and builds no engines; build TensorRT engines with --trt first "
                "and name them with --plan (Triton cannot load those of --trt-rtx)"
            )
        if self.precision not in (None, "fp32"):
            raise click.UsageError(
                "--triton serves fp32, and engines in their own precision; drop --precision"
            )
        if self.output is None:
            raise click.UsageError("--triton needs the folder of the model repository (-o)")
