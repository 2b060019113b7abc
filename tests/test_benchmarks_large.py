"""The measurement of gigapixels, on a small mosaic."""

import re
from pathlib import Path

import pytest

from benchmarks import large
from sr.errors import DataError, ImageError

pyvips = pytest.importorskip("pyvips")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.slow
def test_a_mosaic_is_upscaled_and_checked(tmp_path):
    spec = large.LargeSpec(width=700, height=600, scale=2)
    result = large.run(EXAMPLES, spec, folder=tmp_path)
    assert [each["killed"] for each in result["runs"]] == [False]
    assert result["peak_rss_mib"] > 0
    source = pyvips.Image.new_from_file(str(tmp_path / "mosaic.tif"))
    source.invert().tiffsave(str(tmp_path / "other.tif"))
    with pytest.raises(ImageError, match=r"upscaled\.tif: "):
        large.check(tmp_path / "other.tif", tmp_path / "upscaled.tif", spec)


def test_a_folder_without_photographs_is_named(tmp_path):
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: ")):
        large.make_mosaic(tmp_path, tmp_path / "mosaic.tif", height=10, width=10)
