"""`srup export --triton`: its options, which of the others go with it, and what it prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from sr.cli.types import IntOrWord

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--triton", is_flag=True, help="Write a model repository for Triton Inference Server."),
    click.option(
        "--plan",
        "plans",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE",
        help="TensorRT engine that Triton serves, as srup export --trt builds it; repeat the option for "
        "several scales or kinds of GPU.",
    ),
    click.option(
        "--halo",
        type=IntOrWord("exact", -1, minimum=0),
        metavar="[exact|N]",
        help="Overlap of Triton's tiles in pixels; 'exact' is the whole receptive field.  "
        "[default: the model's own]",
    ),
)


def serving(command: Command) -> Command:
    """Add the options of Triton model repositories to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_serving(
    *, triton: bool, others: Sequence[bool], precision: str | None, output: Path | None
) -> None:
    """Check that `--triton` stands alone.

    Args:
        triton: it was given.
        others: the other outputs of `srup export`, as they were given.
        precision: of `--precision`.
        output: of `-o`.

    Raises:
        click.UsageError: it does not.
    """
    if not triton:
        return
    if any(others):
        raise click.UsageError(
            "--triton makes no ONNX files and builds no engines; build TensorRT engines with --trt first and "
            "name them with --plan (Triton cannot load those of --trt-rtx)"
        )
    if precision not in (None, "fp32"):
        raise click.UsageError("--triton serves fp32, and engines in their own precision; drop --precision")
    if output is None:
        raise click.UsageError("--triton needs the folder of the model repository (-o)")


def export_repository(weights: str, scales: Sequence[int], folder: Path, settings: dict[str, Any]) -> None:
    """Write a model repository; print the folder of each model and what the server needs for it.

    Raises:
        SrupError: the weights or a plan cannot be served.
    """
    from deploy.triton.repository import RepositorySpec, write_repository

    given = {name: settings[name] for name in ("tile", "batch", "halo") if settings[name] is not None}
    spec = RepositorySpec(weights, tuple(scales), settings["plans"], **given)
    for model in write_repository(spec, folder):
        click.echo(f"{model.folder}  {model.note}".rstrip())
