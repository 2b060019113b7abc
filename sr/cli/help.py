"""How `srup` presents itself: options in groups, two examples a command, whole summaries, suggestions."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from sr.cli.debug import show_traceback
from sr.errors import SrupError

Groups = Mapping[str, Sequence[str]]  # heading -> names of the options below it, in order


class GroupedCommand(click.Command):
    """Shows its options under headings, and examples at the end.

    Args:
        groups: headings and the options below them; an option with an attribute `group` stands below that
            heading, an option in no group below "Other options".
        examples: command lines, each with a remark behind `#` if it needs one.
    """

    def __init__(self, *args: Any, groups: Groups | None = None, examples: Sequence[str] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.groups, self.examples = groups or {}, examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by their groups."""
        records, own_groups = {}, {}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx)) is not None:
                records[option.name] = record
                own_groups[option.name] = getattr(option, "group", None)
        for heading, names in self.groups.items():
            names = [*names, *(name for name, group in own_groups.items() if group == heading)]
            if rows := [records.pop(name) for name in names if name in records]:
                with formatter.section(heading):
                    formatter.write_dl(rows)
        with formatter.section("Other options" if self.groups else "Options"):
            formatter.write_dl(list(records.values()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, unwrapped so that they can be copied."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class SrupGroup(click.Group):
    """The group of all commands; turns errors into one line on stderr and exit status 1, in this one place.

    An `OSError` that names a file (no such folder, no permission, disk full) is the environment's
    fault as well.

    Args:
        summaries: the first sentence of each command's help, in the order in which help shows them.
    """

    def __init__(self, *args: Any, summaries: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.summaries = summaries

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        from sr.memory import spare_address_space

        spare_address_space()
        try:
            return super().invoke(ctx)
        except SrupError as error:
            show_traceback(error)
            raise click.ClickException(" ".join(str(error).splitlines())) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has gone: click ends quietly
                raise
            show_traceback(error)
            where = error.filename or "standard output, or a file without a name"
            remedy = "; check its permissions" if isinstance(error, PermissionError) else ""
            raise click.ClickException(f"{where}: {error.strerror or error}{remedy}") from error
        except KeyboardInterrupt:
            from sr.jobs.interrupt import INTERRUPTED

            click.echo("stopped", err=True)
            sys.exit(INTERRUPTED)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a file in its place gets the command that was probably meant."""
        name = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, name) is None and _is_file_name(name):
            ctx.fail(f"{name!r} is not a command; to upscale it: srup upscale {shlex.join(args)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with its whole first sentence; no command is loaded for that."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))


def _is_file_name(word: str) -> bool:
    return word == "-" or (not word.startswith("-") and (bool(Path(word).suffix) or Path(word).exists()))
