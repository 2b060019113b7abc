"""What a run upscales with: an upscaler, what it can do besides, and how it is described."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Self, Unpack

from sr.backends.base import BackendInfo
from sr.errors import BackendError
from sr.jobs.upscaler import Capabilities, PictureUpscaler
from sr.sized import ChainedUpscaler, SizedUpscaler, UpscalerSettings, Upscaling, opened
from sr.upscale import Upscaler


@dataclass(frozen=True)
class Description:
    """How an upscaler is described to its user.

    Attributes:
        label: what is done to a picture, in a word: "x3", "3840x2160".
        backend: name of the backend.
        device: what runs it, in words.
        why: why this backend and device were chosen, where they were not named.
        model: name of the network.
        precision: of inference.
    """

    label: str = ""
    backend: str = "custom"
    device: str = "unknown device"
    why: str = ""
    model: str = ""
    precision: str = ""


@dataclass(frozen=True)
class UpscalerSetup:
    """An upscaler with all that a run needs to know of it; a context manager.

    Attributes:
        upscaler: upscales pictures.
        capabilities: what it can do besides.
        description: for its user.
        warning: what the user should know before the run, or None.
        notes: called after the run; returns what the user should know of it.
        close: frees the upscaler.
    """

    upscaler: PictureUpscaler
    capabilities: Capabilities = field(default_factory=Capabilities)
    description: Description = field(default_factory=Description)
    warning: str | None = None
    notes: Callable[[], Sequence[str]] = tuple
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A failure to free matters less than the one that ended the work.
        with nullcontext() if kind is None else suppress(BackendError):
            self.close()


def open_setup(upscaling: Upscaling, **settings: Unpack[UpscalerSettings]) -> UpscalerSetup:
    """Open the networks that make pictures of the size that was asked for.

    Raises:
        BackendError, ModelError, TilingError: as `Upscaler`.
    """
    if upscaling.request is None:
        scale = None if upscaling.scale is None else int(upscaling.scale)
        upscaler = opened(upscaling.models, scale=scale, **settings)
        return _chained(upscaler) if isinstance(upscaler, ChainedUpscaler) else _single(upscaler)
    sized = SizedUpscaler(
        upscaling.request, linear_light=upscaling.linear, models=upscaling.models, **settings
    )
    remedy = "exact sizes are made in memory; use a factor that one network has (--scale 2, 3 or 4)"
    return UpscalerSetup(
        sized,
        Capabilities(without_bands=remedy, working_bytes=sized.working_bytes),
        _description(sized.label, sized.backend.info),
        warning=sized.warning,
        notes=lambda: [note for backend in sized.backends for note in backend.notes],
        close=sized.close,
    )


def _single(upscaler: Upscaler) -> UpscalerSetup:
    """Describe one network; one that must see whole pictures cannot upscale in bands."""
    model = upscaler.backend.info.model
    whole = not (model.tiles_exact and model.any_size)
    return UpscalerSetup(
        upscaler,
        Capabilities(
            bands=None if whole else upscaler,
            pictures=upscaler.pictures,
            without_bands="this model looks at whole pictures; use another (--model)",
        ),
        _description(upscaler.label, upscaler.backend.info),
        warning=upscaler.warning,
        notes=lambda: [note for backend in upscaler.backends for note in backend.notes],
        close=upscaler.close,
    )


def _chained(upscaler: ChainedUpscaler) -> UpscalerSetup:
    """Describe networks that run one after the other."""
    models = [backend.info.model.name for backend in upscaler.backends]
    return UpscalerSetup(
        upscaler,
        Capabilities(
            without_bands="several models are run in memory; use one after the other, with --low-memory",
            working_bytes=upscaler.working_bytes,
        ),
        replace(_description(upscaler.label, upscaler.backend.info), model=", then ".join(models)),
        warning=upscaler.warning,
        notes=lambda: [note for backend in upscaler.backends for note in backend.notes],
        close=upscaler.close,
    )


def _description(label: str, info: BackendInfo) -> Description:
    return Description(
        label=label,
        backend=info.name,
        device=info.device,
        why=info.why,
        model=info.model.name,
        precision=info.model.precision,
    )
