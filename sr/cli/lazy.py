"""Commands that are loaded when they are used, so that `srup --help` starts fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module

import click


class LazyCommands(MutableMapping[str, click.Command]):
    """Commands by name, each the object `command` of its own module.

    Attributes:
        summaries: the first sentence of each command's help, which `srup --help` shows.
    """

    def __init__(self, modules: Mapping[str, tuple[str, str]]) -> None:
        """Take the module and the summary of each command, by its name."""
        self._modules = {name: module for name, (module, _) in modules.items()}
        self._loaded: dict[str, click.Command] = {}
        self.summaries = {name: summary for name, (_, summary) in modules.items()}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            self._loaded[name] = import_module(self._modules[name]).command
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        self._loaded.pop(name, None)
        del self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)
