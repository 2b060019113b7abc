"""The pages of the documentation, and what they show: commands, examples, settings, links.

A fenced block says in its first line what it holds and what keeps it from being run:

    sh          commands, which are run one after the other
    sh gpu      commands that need a GPU
    sh hours    commands that take hours, or files that only such commands make
    sh install  commands that install something, which tests/test_bin.py and tests/test_packaging.py do
    sh shell    lines for the start-up file of a shell
    python      an example, which is run
    toml        settings of `srup train`
    text        anything else
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "examples" / "README.md",
        ROOT / "sr" / "weights" / "README.md",
        ROOT / "train" / "checkpoints" / "README.md",
    )
}
# Why a block is not run.
MARKS = ("gpu", "hours", "install", "shell")

_FENCE = re.compile(r"^( *)```(\w*) ?(\w*)\n(.*?)^ *```$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    mark: str
    text: str

    @property
    def lines(self) -> list[str]:
        """The lines, without comments and empty ones."""
        stripped = (line.strip() for line in self.text.splitlines())
        return [line for line in stripped if line and not line.startswith("#")]


@dataclass(frozen=True)
class Command:
    """A command line of a block."""

    block: Block
    line: str

    @property
    def words(self) -> list[str]:
        """The words, without the comment behind them."""
        return shlex.split(self.line, comments=True)

    @property
    def srup(self) -> list[str] | None:
        """The arguments of the first `srup` in it, e.g. behind a pipe; None if there is none.

        `python -m train` and `torchrun ... -m train` are `srup train`.
        """
        words = self.words
        if "-m" in words and words[words.index("-m") + 1] == "train":
            return ["train", *words[words.index("-m") + 2 :]]
        if "srup" not in words or "source" in self.line:
            return None
        arguments = words[words.index("srup") + 1 :]
        return arguments[: arguments.index(">")] if ">" in arguments else arguments


BLOCKS = [
    Block(page, language, mark, text)
    for page, content in PAGES.items()
    for _, language, mark, text in _FENCE.findall(content)
]
COMMANDS = [Command(block, line) for block in BLOCKS if block.language == "sh" for line in block.lines]


def blocks(page: str, language: str) -> list[Block]:
    """Return the blocks of a page that hold a language."""
    return [block for block in BLOCKS if (block.page, block.language) == (page, language)]
