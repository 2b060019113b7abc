"""`srup export --triton`: its options, and what it prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sr.cli.export_request import ExportRequest
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


def export_repository(request: ExportRequest) -> None:
    """Write a model repository; print the folder of each model and what the server needs for it.

    Raises:
        SrupError: the weights or a plan cannot be served.
    """
    from deploy.triton.repository import RepositorySpec, write_repository

    spec = RepositorySpec(
        request.weights,
        request.scales,
        request.plans,
        tile=request.tile,
        batch=request.batch or RepositorySpec.batch,
        halo=request.halo,
        conventions=request.conventions,
    )
    for model in write_repository(spec, request.output or Path()):
        click.echo(f"{model.folder}  {model.note}".rstrip())
