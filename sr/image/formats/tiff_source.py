"""TIFF files as they are read: pages of 8 bits through Pillow, of 16 bits through libvips."""

from __future__ import annotations

from PIL.TiffImagePlugin import TiffImageFile

from sr.image.arrays import MODES, arrays
from sr.image.formats.tiff_pages import TiffPage, page_metadata, tiff_pages
from sr.image.formats.tiff_raw import page_samples, stored_parts, stored_planes
from sr.image.picture import Frame, Picture, Pixels
from sr.image.source import Header, OpenedFile, Source, upright
from sr.image.vips import REDUCE, read_with_vips, vips_is_installed

_RGB, _YCBCR = 2, 6  # photometric interpretation


class TiffSource(Source):
    """A TIFF file. What its pages are is read from their directories."""

    multi_image = "pages"

    def __init__(self, opened: OpenedFile) -> None:
        super().__init__(opened)
        with self.decoding(by_library=False):
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
        decoder = page.decoder
        if decoder == "libvips" and self._depth == 8 and page.bytewise and not vips_is_installed():
            decoder = "raw"
        if decoder == "raw":
            pixels, alpha = self._raw(page)
        elif decoder == "libvips":
            subject = "16 bits per channel" if page.sixteen_bit else f"{page.compression_name} compression"
            pixels, alpha = read_with_vips(
                self._file,
                self._name,
                self.format,
                loader="tiffload_source",
                subject=subject,
                alternative=REDUCE if page.sixteen_bit else "",
                page=page.index,
            )
        else:
            return self._with_pillow(page)
        picture = Picture(pixels, alpha, page_metadata(self._file, page))
        return Frame(upright(picture, turn=True, orientation=page.orientation))

    def _raw(self, page: TiffPage) -> tuple[Pixels, Pixels | None]:
        with self.decoding():
            layout = stored_parts(self._file, page)
            planes = stored_planes(layout, page)
        return page_samples(planes, layout, page)

    def _with_pillow(self, page: TiffPage) -> Frame:
        if self._image is None:
            self._file.seek(0)
            with self.decoding():
                self._image = TiffImageFile(self._file)
        image = self._image
        with self.decoding():
            image.seek(page.index)
        if image.mode not in MODES:
            self.refuse(
                f"{image.mode} pixels",
                "convert it to sRGB first" if image.mode == "LAB" else "convert it first",
            )
        with self.decoding():
            image.load()
        pixels, alpha, notes = arrays(image, png_bits=None)
        picture = Picture(pixels, alpha, page_metadata(self._file, page), notes)
        # Pillow has turned the pixels, after the same tags.
        return Frame(upright(picture, turn=False, orientation=page.orientation))

    def header(self) -> Header:
        """Describe the first page."""
        page = self._pages[0]
        problem = ""
        if page.photometric > _RGB and page.photometric != _YCBCR:
            problem = "neither grey nor RGB"
        elif page.decoder == "raw":
            problem = "a TIFF of separate planes, odd depth or odd layout"
        return Header(
            self.format,
            self.count,
            *self.size(),
            channels=max(1, len(page.bits)),
            sixteen_bit=page.sixteen_bit,
            metadata=page_metadata(self._file, page),
            orientation=page.orientation,
            problem=problem,
        )

    def _refuse_unfit(self, page: TiffPage) -> None:
        self.refuse_large(page.height, page.width)
        if page.problem is not None:
            self.refuse(page.problem)
        if page.variant is not None:
            self.refuse_variant(page.variant)
