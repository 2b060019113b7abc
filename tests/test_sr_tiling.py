"""Tile arithmetic: coverage, depth, sizes; no arrays of pixels and no model."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sr.errors import TilingError
from sr.tiling import MIN_HALOS_PER_TILE, TileSpec, constant_grid, ladder, tile_grid

specs = st.builds(
    lambda halo, extra, equalise: TileSpec(
        tile=max(1, MIN_HALOS_PER_TILE * halo) + extra, halo=halo, equalise=equalise
    ),
    halo=st.integers(0, 40),
    extra=st.integers(0, 500),
    equalise=st.booleans(),
)
sides = st.integers(1, 600)


@pytest.mark.parametrize("cut", [tile_grid, constant_grid])
@given(height=st.integers(1, 120), width=st.integers(1, 120), spec=specs)
def test_every_pixel_is_written_exactly_once(cut, height, width, spec):
    written = np.zeros((height, width), int)
    grid = cut(height, width, spec)
    assume(grid is not None)
    for tile in grid:
        rows, columns = tile.rows, tile.columns
        written[rows.keep_start : rows.keep_stop, columns.keep_start : columns.keep_stop] += 1
    assert (written == 1).all()


@given(height=st.integers(40, 600), width=st.integers(40, 600), spec=specs)
def test_constant_tiles_have_a_shape_of_the_ladder(height, width, spec):
    shapes = ladder(spec)
    assert len(shapes) <= 5
    grid = constant_grid(height, width, spec)
    fitting = [(rows, columns) for rows, columns in shapes if rows <= height and columns <= width]
    assert (grid is None) == (not fitting)
    assert grid is None or (grid.tile_height, grid.tile_width) in fitting


@given(size=sides, spec=specs)
def test_tiles_lie_inside_the_picture_and_have_one_size(size, spec):
    spans = tile_grid(size, 1, spec).rows
    assert {span.length for span in spans} == {spans[0].length}
    assert spans[0].length <= min(size, spec.tile)
    for span in spans:
        assert 0 <= span.start <= span.keep_start < span.keep_stop <= span.start + span.length <= size


@given(size=sides, spec=specs)
def test_kept_pixels_are_a_halo_away_from_inner_tile_edges(size, spec):
    for span in tile_grid(size, 1, spec).rows:
        if span.start > 0:
            assert span.keep_start - span.start >= spec.halo
        if span.start + span.length < size:
            assert span.start + span.length - span.keep_stop >= spec.halo


@given(size=sides, spec=specs)
def test_each_pixel_comes_from_the_tile_in_which_it_lies_deepest(size, spec):
    spans = tile_grid(size, 1, spec).rows
    assume(len(spans) > 1)
    pixels = np.arange(size)
    depths = []
    for span in spans:
        before = np.inf if span.start == 0 else pixels - span.start
        after = np.inf if span.start + span.length == size else span.start + span.length - 1 - pixels
        depths.append(np.minimum(before, after) * np.ones(size))
    deepest = np.max(depths, axis=0)
    for span, depth in zip(spans, depths, strict=True):
        kept = slice(span.keep_start, span.keep_stop)
        # An even overlap has its middle between two pixels: one is as deep in either tile, less one.
        assert (depth[kept] >= deepest[kept] - 1).all()


def test_a_picture_of_one_tile_is_not_cut_nor_padded():
    grid = tile_grid(7, 5, TileSpec(tile=512, halo=21))
    assert len(grid) == 1
    assert (grid.tile_height, grid.tile_width, grid.work) == (7, 5, 1.0)


def test_equal_tiles_cost_less_than_fixed_ones():
    """2040x1356 at 512 px and halo 21: 1.42 times the pixels with fixed tiles, 1.15 with equal ones."""
    fixed = tile_grid(1356, 2040, TileSpec(tile=512, halo=21, equalise=False))
    equal = tile_grid(1356, 2040, TileSpec(tile=512, halo=21))
    assert fixed.work == pytest.approx(1.42, abs=0.01)
    assert equal.work == pytest.approx(1.15, abs=0.01)
    assert (fixed.tile_height, fixed.tile_width) == (512, 512)


@pytest.mark.parametrize(("tile", "halo"), [(83, 21), (0, 0), (3, 1)])
def test_a_tile_of_under_four_halos_is_refused(tile, halo):
    with pytest.raises(TilingError, match="halo"):
        TileSpec(tile=tile, halo=halo)


def test_a_negative_halo_and_an_empty_picture_are_refused():
    with pytest.raises(TilingError, match="-1"):
        TileSpec(tile=64, halo=-1)
    with pytest.raises(TilingError, match="0x5"):
        tile_grid(5, 0, TileSpec(tile=64, halo=1))
