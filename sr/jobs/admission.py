"""Which pictures are upscaled whole, which band by band, and which are refused: decided from the header.

Every array of a picture is counted before anything is decoded: its pixels, each stage of a chain of
networks, the frames of an animation that are in memory together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sr.errors import TooLargeError, printable
from sr.image import DEFAULT_MAX_PIXELS, Picture
from sr.image.decode import read_header
from sr.image.formats import format_of_suffix
from sr.image.formats.tiff import TIFF
from sr.image.source import Header
from sr.jobs.job import FileJob
from sr.jobs.upscaler import Capabilities, PictureUpscaler
from sr.memory import address_space_available, available_memory

# A picture that takes more than this share of free memory is looked at more closely: others wait beside it.
_MEMORY_SHARE = 0.5
# Decoders hold a second copy of the input, with 8 bits in four bytes a pixel.
_COPIES = 2
# Allocated besides: the smallest tiles, threads. A container of 128 MiB could not do without.
_BESIDE_BYTES = 16 * 2**20
# Never let address space run out: libraries that get none end the process. Decoders' threads take 8 MiB each.
_ADDRESS_SPACE_BYTES = 32 * 2**20
# Of an animation there are, beside one that is upscaled, one that is decoded ahead and the canvas; behind
# it one that waits and one that is encoded.
_LR_FRAMES, _HR_FRAMES = 4, 3

Route = Literal["whole", "bands"]


class NotNowError(TooLargeError):
    """A picture does not fit beside others that are in memory; alone it does.

    Attributes:
        header: of the picture, so that it need not be read again.
        address_space: bytes that must be left of it when the picture is decoded alone.
    """

    header: Header | None = None
    address_space: int = 0


@dataclass(frozen=True)
class RunLimits:
    """What is refused, and what is upscaled in bands.

    Attributes:
        max_pixels: of any picture; None is `DEFAULT_MAX_PIXELS` for those that are decoded whole, and no
            limit for those that are read in bands.
        low_memory: upscale in bands whatever can be.
    """

    max_pixels: int | None = None
    low_memory: bool = False


class Admission:
    """Decides about pictures; made when nothing is in memory yet."""

    def __init__(self, upscaler: PictureUpscaler, capabilities: Capabilities, limits: RunLimits) -> None:
        self._upscaler, self._capabilities, self._limits = upscaler, capabilities, limits
        # Asked once: for each picture it would take longer than some pictures do.
        self.memory = available_memory()

    @property
    def max_pixels(self) -> int:
        """The most pixels that a picture may have to be decoded whole."""
        return self._limits.max_pixels or DEFAULT_MAX_PIXELS

    def header(self, job: FileJob, *, depth: int | None = None) -> Header:
        """Read the header of a job's picture.

        Raises:
            ImageError: the file is missing, damaged or not a picture.
        """
        return read_header(job.source, job.stdin, depth=depth)

    def route(self, job: FileJob, header: Header) -> Route:
        """Decide how a picture is upscaled.

        Raises:
            ImageError: the size that was asked for does not fit the picture.
            TooLargeError: it has more pixels than allowed, or takes more memory than there is.
            NotNowError: it has to wait until others have left memory.
        """
        obstacle = self._obstacle_to_bands(job, header)
        if header.pixels > (self._limits.max_pixels or (DEFAULT_MAX_PIXELS if obstacle else header.pixels)):
            raise TooLargeError(
                f"{printable(job.source)}: {header.width}x{header.height} are {header.pixels:,} pixels, the "
                f"limit is {self.max_pixels:,}; if you trust the file, allow them with "
                f"--max-pixels {header.pixels}"
            )
        if not obstacle and (self._limits.low_memory or not self._fits_whole(job, header)):
            return "bands"
        height, width = header.upright_size
        self._check(job, height, width, _stored_bytes(header), obstacle, count=header.count)
        return "whole"

    def check_page(self, job: FileJob, page: Picture) -> None:
        """Check one picture of several, which may be larger than the first.

        Raises:
            TooLargeError: it takes more memory than there is.
        """
        self._check(job, page.height, page.width, _pixel_bytes(page), "split the file first", count=2)

    def _fits_whole(self, job: FileJob, header: Header) -> bool:
        height, width = self._upscaler.output_size(*header.upright_size)
        pixel_bytes = _stored_bytes(header)
        in_file = TIFF.largest_bytes is None or pixel_bytes * height * width <= TIFF.largest_bytes
        needed = self._needed(job.target, *header.upright_size, pixel_bytes, count=1)
        few = header.pixels <= DEFAULT_MAX_PIXELS or header.pixels <= (self._limits.max_pixels or 0)
        return few and in_file and needed <= self.memory * _MEMORY_SHARE

    def _check(
        self, job: FileJob, height: int, width: int, pixel_bytes: int, remedy: str, *, count: int
    ) -> None:
        needed = self._needed(job.target, height, width, pixel_bytes, count=count)
        few, space = needed <= self.memory * _MEMORY_SHARE, address_space_available() - _ADDRESS_SPACE_BYTES
        if few and needed <= space:
            return
        address_space = needed + _ADDRESS_SPACE_BYTES
        needed += _BESIDE_BYTES
        available = max(0, min(available_memory(), space))
        if needed <= available:
            return
        larger_height, larger_width = self._upscaler.output_size(height, width)
        message = (
            f"{printable(job.source)}: {width}x{height} to {larger_width}x{larger_height} takes about "
            f"{needed / 2**20:,.0f} MiB of memory, {available / 2**20:,.0f} MiB are available; {remedy}"
        )
        if needed > self.memory:
            raise TooLargeError(message)
        not_now = NotNowError(message)
        not_now.address_space = address_space
        raise not_now

    def _needed(self, target: Path, height: int, width: int, pixel_bytes: int, *, count: int) -> int:
        """Return the bytes of all arrays that are in memory together."""
        larger_height, larger_width = self._upscaler.output_size(height, width)
        lr, hr = height * width * pixel_bytes, larger_height * larger_width * pixel_bytes
        spec = format_of_suffix(target.suffix)
        encoding = 0 if spec is None else int(spec.encoder_copies * hr)
        beside = encoding + (_LR_FRAMES * lr + _HR_FRAMES * hr if count > 1 else _COPIES * lr + hr)
        if self._capabilities.working_bytes is None:
            return beside
        working = self._capabilities.working_bytes(height, width, pixel_bytes)
        # While a picture is upscaled nothing encodes it yet; of an animation, those before it are encoded.
        return max(beside, (beside - lr - hr if count > 1 else lr) + working)

    def _obstacle_to_bands(self, job: FileJob, header: Header) -> str:
        """Return what keeps a picture from being upscaled in bands, as a remedy; empty if nothing does."""
        if header.count > 1:
            return "it holds several pictures; split it first, or use a smaller scale (--scale)"
        if self._capabilities.bands is None:
            return self._capabilities.without_bands
        if job.stdin is not None or job.stdout is not None:
            return "name files in place of - to have it upscaled in bands"
        if job.target.suffix.lower() not in TIFF.write_suffixes:
            return "only TIFF is written in bands; use -o NAME.tif or --format tif"
        if header.problem:
            return f"it is {header.problem}, which is not read in bands; convert it to an RGB TIFF first"
        return ""


def _stored_bytes(header: Header) -> int:
    return header.channels * (2 if header.sixteen_bit else 1)


def _pixel_bytes(picture: Picture) -> int:
    return ((1 if picture.grey else 3) + (picture.alpha is not None)) * (2 if picture.sixteen_bit else 1)
