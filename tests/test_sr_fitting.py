"""Pictures and tiles of the sizes that a network takes."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sr.backends.ort import read_metadata
from sr.fitting import fitted, fitted_grid, fitted_size
from sr.network.modelfile import shipped_onnx
from sr.tiling import MIN_HALOS_PER_TILE, TileSpec, tile_grid

OURS = read_metadata(shipped_onnx(scale=2))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 20), st.integers(0, 200))
def test_our_networks_take_pictures_as_they_are(height, width, halo, more):
    spec = TileSpec(tile=max(1, MIN_HALOS_PER_TILE * halo) + more, halo=halo)
    assert fitted_size(height, width, OURS) == (height, width)
    assert fitted_grid(height, width, spec, OURS) == tile_grid(height, width, spec)


@given(
    *(st.integers(1, 200), st.integers(1, 200), st.integers(0, 20), st.integers(0, 100)),
    *(st.sampled_from([1, 2, 3, 4, 8, 16]), st.integers(1, 70)),
)
def test_tiles_are_multiples_and_cover_the_picture(height, width, halo, more, multiple, minimum):
    model = replace(OURS, multiple=multiple, minimum=minimum)
    spec = TileSpec(tile=max(1, MIN_HALOS_PER_TILE * halo) + more, halo=halo)
    full = fitted_size(height, width, model)
    grid = fitted_grid(height, width, spec, model)
    for size, to, spans in zip((height, width), full, (grid.rows, grid.columns), strict=True):
        assert to % multiple == 0
        assert to >= max(size, minimum)
        assert to < max(size, minimum) + multiple
        assert spans[0].keep_start == 0
        assert spans[-1].keep_stop == to
        for span in spans:
            assert span.start % multiple == span.length % multiple == 0
            assert span.start <= span.keep_start < span.keep_stop <= span.start + span.length <= to
            assert span.start == 0 or span.keep_start - span.start >= halo
        assert all(one.keep_stop == next_.keep_start for one, next_ in pairwise(spans))


@given(st.integers(1, 200), st.integers(1, 200), st.integers(16, 64), st.integers(16, 64))
def test_tiles_of_one_size_have_that_size(height, width, tile_height, tile_width):
    ends = replace(OURS.ends, size=(tile_height, tile_width))
    grid = fitted_grid(height, width, TileSpec(tile=16, halo=4), replace(OURS, ends=ends))
    assert (grid.tile_height, grid.tile_width) == (tile_height, tile_width)
    assert (grid.rows[-1].keep_stop, grid.columns[-1].keep_stop) == (
        max(height, tile_height),
        max(width, tile_width),
    )


def test_pictures_are_continued_by_their_mirror_image():
    model = replace(OURS, multiple=4)
    picture = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    made = fitted(picture, model)
    assert made.shape == (8, 8, 3)
    assert np.array_equal(made[:5, :6], picture)
    assert np.array_equal(made[5:, :6], picture[:1:-1])
    assert fitted(picture, OURS) is picture
    assert fitted(picture[..., 0], model).shape == (8, 8)
