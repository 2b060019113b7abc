"""Requested output sizes, and the chains of networks that reach them."""

import math
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr.errors import ImageError
from sr.sizing import MAX_FACTOR, SizeRequest, chain

SIDES = st.integers(1, 5000)


@given(SIDES, SIDES, st.fractions(Fraction(1, 8), MAX_FACTOR))
def test_a_factor_gives_both_sides_rounded(height: int, width: int, factor: Fraction) -> None:
    got = SizeRequest(factor=float(factor)).target(height=height, width=width)
    for side, result in zip((height, width), got, strict=True):
        assert result == max(1, round(side * float(factor)))


@given(SIDES, SIDES, st.integers(1, 5000))
def test_the_long_side_is_met_exactly_and_proportions_within_a_pixel(
    height: int, width: int, long_side: int
) -> None:
    if long_side > MAX_FACTOR * max(height, width):
        with pytest.raises(ImageError, match="16"):
            SizeRequest(long_side=long_side).target(height=height, width=width)
        return
    got = SizeRequest(long_side=long_side).target(height=height, width=width)
    assert max(got) == long_side
    short = min(height, width) * Fraction(long_side, max(height, width))
    assert abs(min(got) - max(1, short)) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("text", "picture", "expected"),
    [
        ("1920x1080", (540, 960), (1080, 1920)),
        ("1920X1080", (541, 961), (1080, 1920)),  # within rounding of its proportions
        ("1920x", (501, 960), (1002, 1920)),
        ("x1002", (501, 960), (1002, 1920)),
        ("10x10", (40, 40), (10, 10)),
    ],
)
def test_sizes(text: str, picture: tuple[int, int], expected: tuple[int, int]) -> None:
    assert SizeRequest.parse_size(text).target(height=picture[0], width=picture[1]) == expected


def test_a_size_that_would_distort_is_refused_with_what_fits() -> None:
    with pytest.raises(ImageError, match=r"1920x1080.*960x500.*1920x1000"):
        SizeRequest.parse_size("1920x1080").target(height=500, width=960)


@pytest.mark.parametrize("text", ["", "x", "1920", "1920x1080x3", "0x10", "10x0", "-3x4", "1.5x2", "axb"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ImageError, match="WIDTHxHEIGHT"):
        SizeRequest.parse_size(text)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (0.5, ()),
        (1, ()),
        (1.01, (2,)),
        (2, (2,)),
        (2.5, (3,)),
        (4, (4,)),
        (5, (2, 3)),
        (8, (2, 4)),
        (9, (3, 3)),
        (16, (4, 4)),
    ],
)
def test_chains_of_the_shipped_scales(factor: float, expected: tuple[int, ...]) -> None:
    assert chain(factor, (2, 3, 4)) == expected


@given(st.floats(1.0001, MAX_FACTOR), st.sets(st.integers(2, 5), min_size=1))
def test_no_chain_is_closer(factor: float, scales: set[int]) -> None:
    found = chain(factor, tuple(scales))
    assert set(found) <= scales
    assert math.prod(found) >= factor - 1e-9
    for length in range(1, 5):
        for other in product(scales, repeat=length):
            assert not factor <= math.prod(other) < math.prod(found)


def test_labels() -> None:
    assert SizeRequest(factor=1.5).label == "x1.5"
    assert SizeRequest(factor=3.0).label == "x3"
    assert SizeRequest(long_side=2000).label == "long2000"
    assert SizeRequest.parse_size("1920x").label == "1920x"
