"""Where data sets keep their pictures: hr folders, and lr pictures distributed beside them.

Owns the layout that DIV2K, Flickr2K and the benchmark sets share: `HR` or `PREFIX_HR`, beside it
`LR_bicubic` or `PREFIX_LR_bicubic` with `X2/0001x2.png` for `0001.png`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sr.errors import DataError
from sr.files import TEMPORARY_PREFIX
from sr.image.content import SYSTEM_FOLDERS, is_picture, kind_left_out, left_out_words

UNLISTED = "folder that cannot be listed"  # a kind of what is left out

# Says what lies beside it: `train.prepare.manifest` writes it into every folder of prepared pairs.
MANIFEST_NAME = "prepare.json"

# LR, LR_bicubic, DIV2K_train_LR_unknown, LRbicx2; but not "LRT" or "COLOR".
_LR_FOLDER = re.compile(r"(?:^|_)LR(?:$|_|bic)")
_PREPARED_SCALE = re.compile(r"x\d+")


@dataclass(frozen=True)
class Source:
    """An hr picture, or a copy of it that is `shrink` times as large.

    The names of what is made of it begin with `name`, which has no suffix.
    """

    path: Path
    name: str
    shrink: float = 1.0

    def label(self, folder: Path) -> str:
        """Return what it is called in messages: its path in the folder, and its factor."""
        return f"{self.path.relative_to(folder)}{'' if self.shrink == 1 else f' at {self.shrink:g}'}"

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what is made of a picture of this size."""
        return max(1, round(height * self.shrink)), max(1, round(width * self.shrink))


@dataclass(frozen=True)
class Found:
    """The hr pictures of a folder, sorted, and the number of files that are none, by kind."""

    pictures: list[Path]
    left_out: Counter[str]


def find_hr_folder(folder: Path) -> Path:
    """Return `folder`, or the one hr folder of the data set that lies in it.

    Raises:
        DataError: there is no such folder, it holds lr pictures, or several hr folders.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: {'is not a folder' if folder.exists() else 'no such folder'}")
    absolute = _absolute(folder)
    of_one_scale = re.fullmatch(r"[Xx]\d+", absolute.name) is not None
    if _LR_FOLDER.search(absolute.parent.name if of_one_scale else absolute.name):
        raise DataError(f"{folder}: holds lr pictures by its name; give the folder of the hr pictures")
    if _is_hr_name(absolute.name):
        return folder
    bare = not any(is_picture(path) for path in folder.iterdir())
    found = [path for path in _hr_folders_in(folder) if bare or _lr_root(path).is_dir()]
    if not found and bare:  # a folder of several sets
        found = [
            path for one in _folders_in(folder) for path in _hr_folders_in(one) if _lr_root(path).is_dir()
        ]
    if len(found) > 1:
        raise DataError(f"{folder}: holds several hr folders, give one: {', '.join(map(str, found))}")
    return found[0] if found else folder


def set_name(hr_folder: Path) -> str:
    """Return what a data set is called: Set5 for Set5/HR, DIV2K_valid for DIV2K_valid_HR."""
    absolute = _absolute(hr_folder)
    if absolute.name == "HR":
        return absolute.parent.name
    return absolute.name.removesuffix("_HR")


def find_sources(hr_folder: Path, *, made: Sequence[Path] = ()) -> Found:
    """Return the pictures in `hr_folder` and below, sorted; neither lr pictures nor prepared ones.

    Args:
        made: folders whose pictures are no sources, wherever they lie.

    Raises:
        DataError: there is none, or they would be replaced by what is made.
    """
    made = [folder.resolve() for folder in made]
    if any(hr_folder.resolve().is_relative_to(folder) for folder in made):
        raise DataError(f"{hr_folder}: its pictures would be replaced; name another output folder (-o)")
    found = Found([], Counter())
    for path in _files_below(hr_folder, onerror=lambda _: found.left_out.update([UNLISTED])):
        if any(path.resolve().is_relative_to(folder) for folder in made):
            continue
        if kind := kind_left_out(path):
            found.left_out[kind] += 1
        else:
            found.pictures.append(path)
    if not found.pictures:
        raise DataError(f"{hr_folder}: no pictures found{left_out_words(found.left_out)}")
    return found


def named_sources(paths: Sequence[Path], hr_folder: Path) -> list[Source]:
    """Name each picture after its path in `hr_folder`; where two would have one name, suffixes tell them."""
    inside = [path.relative_to(hr_folder) for path in paths]
    uses = Counter("-".join(path.with_suffix("").parts) for path in inside)
    sources = []
    for path in inside:
        name = "-".join(path.with_suffix("").parts)
        name += f"-{path.suffix[1:]}" if uses[name] > 1 else ""
        sources.append(Source(hr_folder / path, name))
    # a/b.png and a-b.png still have the same name: all but the first get a number.
    seen = Counter[str]()
    for index, source in enumerate(sources):
        seen[source.name] += 1
        if seen[source.name] > 1:
            sources[index] = Source(source.path, f"{source.name}-{seen[source.name]}")
    return sources


def with_copies(sources: Sequence[Source], factors: Sequence[float]) -> list[Source]:
    """Return the sources, each followed by its copies at these factors, under names that no other has."""
    names = {source.name for source in sources}
    found = []
    for source in sources:
        found.append(source)
        for factor in factors:
            name = f"{source.name}_at{factor:g}"
            while name in names:
                name += "-copy"
            names.add(name)
            found.append(Source(source.path, name, factor))
    return found


def distributed_lr(hr_folder: Path, *, scale: int) -> dict[Path, Path]:
    """Return the lr pictures distributed for `scale`, by hr path relative to `hr_folder`, no suffix."""
    if not _is_hr_name(_absolute(hr_folder).name):
        return {}
    root, ending = _lr_root(hr_folder), f"x{scale}"
    for folder in (root / f"X{scale}", root / f"x{scale}"):
        if folder.is_dir():
            return {
                path.relative_to(folder).with_name(path.stem.removesuffix(ending)): path
                for path in _files_below(folder)
                if not kind_left_out(path) and path.stem.endswith(ending)
            }
    return {}


def _absolute(path: Path) -> Path:
    """Return the path with a name even for "." and ".."; of a link, its own name."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the link


def _is_hr_name(name: str) -> bool:
    return name == "HR" or name.endswith("_HR")


def _lr_root(hr_folder: Path) -> Path:
    """Return the folder beside an hr folder that would hold the lr pictures distributed with it."""
    absolute = _absolute(hr_folder)
    parent = hr_folder.parent if hr_folder.name == absolute.name else absolute.parent
    return parent / (absolute.name.removesuffix("HR") + "LR_bicubic")


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _hr_folders_in(folder: Path) -> list[Path]:
    return [path for path in _folders_in(folder) if _is_hr_name(path.name)]


def _files_below(root: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Yield the files of a folder and of those in it, less lr pictures, prepared ones and hidden folders.

    `onerror` is called for each folder that cannot be listed.
    """
    for directory, folders, files in os.walk(root, onerror=onerror):
        prepared = MANIFEST_NAME in files
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SYSTEM_FOLDERS
            and not _LR_FOLDER.search(name)
            and not (prepared and _PREPARED_SCALE.fullmatch(name))
        )
        yield from (Path(directory, name) for name in sorted(files) if not name.startswith(TEMPORARY_PREFIX))
