"""The options of `srup train`, made from the settings that `train.settings` declares.

An option that is not given is None here: the defaults live with the settings, and a value that was
given can be told from one that was not when a run is resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

from train.config import Declared
from train.setting import FILES
from train.settings import SETTINGS

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


_OPTIONS = (
    *map(_option, SETTINGS.values()),
    _loading("--load-subdir", "Start from a checkpoint: its folder.  [default: --save-subdir]"),
    _loading("--load-prefix", "First part of its file name.  [default: --save-prefix]"),
    _loading("--load-epoch", "Its epoch.  [default: the last]", type=int),
)


def training(command: Command) -> Command:
    """Add all options of a training run to a command."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)
