"""Control groups of this process (versions 1 and 2), by which containers limit memory and cores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

PROCESS = Path("/proc/self")

Version = Literal[1, 2]


def control_groups(controller: str, process: Path = PROCESS) -> Iterator[tuple[Path, Version]]:
    """Yield the folder of each group that limits a process, ancestors included; none without such groups.

    Args:
        controller: "memory" or "cpu".
        process: folder of the process, as in /proc.
    """
    try:
        memberships = (process / "cgroup").read_text().splitlines()
        mounts = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, own = membership.split(":", 2)
        for mount in mounts:
            before, _, after = mount.partition(" - ")
            root, folder = before.split()[3:5]
            kind, _, options = after.split()[:3]
            if controllers == "" and kind == "cgroup2":
                version: Version = 2
            elif all(controller in names.split(",") for names in (controllers, options)) and kind == "cgroup":
                version = 1
            else:
                continue
            yield from ((group, version) for group in _lineage(own, root=root, folder=Path(folder)))


def number_in(file: Path) -> int | None:
    """Return what a file states; None for "max" and where it is missing, as in the root group."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _lineage(own: str, *, root: str, folder: Path) -> Iterator[Path]:
    """Yield the folders from a group up to the one that is mounted: a container sees a part of the tree."""
    inside = PurePosixPath(own).is_relative_to(root) and ".." not in own.split("/")
    path = folder / PurePosixPath(own).relative_to(root) if inside else folder
    yield path
    yield from (parent for parent in path.parents if parent.is_relative_to(folder))
