"""The options of `srup train`, made from the settings that `train.settings` declares.

An option that is not given is None here: the defaults live with the settings, and a value that was
given can be told from one that was not when a run is resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any, TypeVar

import click

from sr.cli.options import together
from train.config import Declared
from train.setting import FILES
from train.settings import SETTINGS, Settings

Command = TypeVar("Command", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)


class _GroupedOption(click.Option):
    """An option that help lists under a heading."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


def _option(declared: Declared) -> Callable[[Command], Command]:
    setting, default = declared.setting, _default(declared)
    names = "/".join((declared.options[0], setting.off or "--no-" + declared.options[0][2:]))
    details: dict[str, Any] = {"type": _type(declared), "multiple": declared.several}
    if declared.kind is bool:
        details = {"default": None}
    elif setting.alone is not None:
        details |= {"is_flag": False, "flag_value": setting.alone}
    return click.option(
        *([names] if declared.kind is bool else declared.options),
        declared.name,
        cls=_GroupedOption,
        group=setting.group,
        metavar=setting.metavar,
        help=setting.help + (f"  [default: {default}]" if default else ""),
        **details,
    )


def _type(declared: Declared) -> Any:
    if declared.choices:
        return click.Choice(declared.choices)
    return _PATH if declared.kind is Path else declared.kind


def _default(declared: Declared) -> str:
    if declared.setting.said or declared.default in (None, "", ()):
        return declared.setting.said
    if declared.kind is bool:
        return "yes" if declared.default else "no"
    return f"{declared.default:g}" if declared.kind is float else str(declared.default)


def _loading(name: str, help: str, **details: Any) -> Callable[[Command], Command]:
    return click.option(name, cls=_GroupedOption, group=FILES, help=help, **details)


# By the name of what they set.
_OPTIONS = {
    **{name: _option(declared) for name, declared in SETTINGS.items()},
    "load_subdir": _loading(
        "--load-subdir", "Start from a checkpoint: its folder.  [default: --save-subdir]"
    ),
    "load_prefix": _loading("--load-prefix", "First part of its file name.  [default: --save-prefix]"),
    "load_epoch": _loading("--load-epoch", "Its epoch.  [default: the last]", type=int),
}


def training(command: Callable[..., None]) -> Callable[..., None]:
    """Add all options of a training run to a command, which gets those given as one mapping, `settings`."""

    def with_settings(**options: Any) -> None:
        values = {name: options.pop(name) for name in _OPTIONS}
        given: Settings = {name: value for name, value in values.items() if value not in (None, ())}
        command(given, **options)

    return together(*_OPTIONS.values())(update_wrapper(with_settings, command))
