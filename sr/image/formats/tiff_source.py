"""TIFF files as they are read: pages of 8 bits through Pillow, of 16 bits through libvips."""

from __future__ import annotations

from PIL.TiffImagePlugin import TiffImageFile

from sr.image.arrays import MODES, arrays
from sr.image.formats.tiff_pages import TiffPage, page_metadata, tiff_pages
from sr.image.picture import Frame, Picture
from sr.image.sixteen_bit import read_sixteen_bit
from sr.image.source import Header, OpenedFile, Source, upright

_RGB, _YCBCR = 2, 6  # photometric interpretation


class TiffSource(Source):
    """A TIFF file. What its pages are is read from their directories."""

    multi_image = "pages"

    def __init__(self, opened: OpenedFile) -> None:
        super().__init__(opened)
        self._pages = tiff_pages(self._file)
        self._image: TiffImageFile | None = None
        self._refuse_unfit(self._pages[0])

    def close(self) -> None:
        """Free what Pillow has opened."""
        if self._image is not None:
            self._image.close()

    @property
    def count(self) -> int:
        """How many pages there are."""
        return len(self._pages)

    def size(self) -> tuple[int, int]:
        """Return rows and columns of the first page, as stored."""
        return self._pages[0].height, self._pages[0].width

    def frame(self, index: int) -> Frame:
        """Decode a page."""
        page = self._pages[index]
        self._refuse_unfit(page)
        if page.sixteen_bit:  # of which Pillow knows not all kinds
            pixels, alpha = read_sixteen_bit(self._file, self._name, page.index)
            picture = Picture(pixels, alpha, page_metadata(self._file, page))
            return Frame(upright(picture, turn=True, orientation=page.orientation))
        if self._image is None:
            self._file.seek(0)
            self._image = TiffImageFile(self._file)
        image = self._image
        if page.index:
            image.seek(page.index)
        if image.mode not in MODES:
            self.refuse(
                f"{image.mode} pixels",
                "convert it to sRGB first" if image.mode == "LAB" else "convert it first",
            )
        image.load()
        pixels, alpha, notes = arrays(image, png_bits=None)
        picture = Picture(pixels, alpha, page_metadata(self._file, page), notes)
        # Pillow has turned the pixels, after the same tags.
        return Frame(upright(picture, turn=False, orientation=page.orientation))

    def header(self) -> Header:
        """Describe the first page."""
        page = self._pages[0]
        known = page.photometric <= _RGB or page.photometric == _YCBCR
        return Header(
            self.format,
            self.count,
            *self.size(),
            channels=max(1, len(page.bits)),
            sixteen_bit=page.sixteen_bit,
            metadata=page_metadata(self._file, page),
            orientation=page.orientation,
            problem="" if known else "neither grey nor RGB",
        )

    def _refuse_unfit(self, page: TiffPage) -> None:
        self.refuse_large(page.height, page.width)
        if page.problem is not None:
            self.refuse(page.problem)
