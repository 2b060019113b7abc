"""The quantiser of an AVIF: `base_q_idx` of its one AV1 key frame.

AV1 Bitstream and Decoding Process Specification, version 1.0.0 with Errata 1; the numbers in brackets are
its sections. What is rare in stills (superresolution, uneven tiles, hidden frames) is unknown, not read.
"""

from __future__ import annotations

from dataclasses import dataclass

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6  # kinds of OBU [6.2.2]
_MOST_OBUS = 8  # before the frame: a delimiter, a sequence header, metadata
_CHOSEN = 2  # SELECT_SCREEN_CONTENT_TOOLS, SELECT_INTEGER_MV: the frame says it [3]
_WIDEST_TILE, _LARGEST_TILE, _MOST_TILES = 4096, 4096 * 2304, 64  # px, px, along a side [3]
_HEADER_BYTES = 256  # of a frame, more than what stands before the quantiser


def avif_quantiser(coded: bytes) -> float | None:
    """Return the quantiser of an AV1 still, 0 (fine) to 255; None if it cannot be read.

    Args:
        coded: the beginning of its OBUs, as the item of an AVIF holds them.
    """
    sequence = None
    try:
        for kind, payload in _obus(coded):
            if kind == _SEQUENCE:
                sequence = _sequence(_Bits(payload))
            elif kind in (_FRAME, _FRAME_HEADER):
                return None if sequence is None else float(_base_q_idx(_Bits(payload), sequence))
    except (IndexError, _UnknownError):
        pass
    return None


class _UnknownError(Exception):
    """A header is beyond what is read here."""


@dataclass(frozen=True)
class _Sequence:
    """What a frame header needs to know of the sequence header [5.5.1]."""

    reduced: bool
    width_bits: int
    height_bits: int
    width: int
    height: int
    id_bits: int
    large_blocks: bool
    screen_tools: int
    integer_vectors: int
    order_bits: int
    superres: bool


class _Bits:
    """Bits, the highest of a byte first; IndexError beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data[:_HEADER_BYTES], 0

    def number(self, bits: int) -> int:
        """Return a number of so many bits."""
        value = 0
        for _ in range(bits):
            value = 2 * value + (self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1)
            self._at += 1
        return value

    def expect(self, value: int) -> None:
        """Read one bit, which must be this."""
        if self.number(1) != value:
            raise _UnknownError


def _obus(data: bytes) -> list[tuple[int, bytes]]:
    """Return kind and payload of the first OBUs [5.3]; the last may be cut off."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data) and len(found) < _MOST_OBUS:
        head, at = data[at], at + 1 + (data[at] >> 2 & 1)
        size = len(data) - at
        if head & 2:
            size = 0
            for shift in range(0, 56, 7):  # leb128
                size |= (data[at] & 127) << shift
                at += 1
                if not data[at - 1] & 128:
                    break
        found.append((head >> 3 & 15, data[at : at + size]))
        at += size
    return found


def _sequence(bits: _Bits) -> _Sequence:
    bits.number(4)  # profile, still_picture
    reduced = bool(bits.number(1))
    if reduced:
        bits.number(5)  # level
    else:
        bits.expect(0)  # timing
        delays, points = bits.number(1), 1 + bits.number(5)
        for _ in range(points):
            bits.number(12)
            if bits.number(5) > 7:  # level
                bits.number(1)  # tier
            if delays and bits.number(1):
                bits.number(4)
    width_bits, height_bits = 1 + bits.number(4), 1 + bits.number(4)
    width, height = 1 + bits.number(width_bits), 1 + bits.number(height_bits)
    id_bits = bits.number(4) + 2 + bits.number(3) + 1 if not reduced and bits.number(1) else 0
    large_blocks = bool(bits.number(1))
    bits.number(2)  # filters within a frame
    screen, vectors, order_bits = (_CHOSEN, _CHOSEN, 0) if reduced else _tools(bits)
    superres = bool(bits.number(1))
    return _Sequence(
        reduced, width_bits, height_bits, width, height, id_bits, large_blocks, screen, vectors, order_bits,
        superres,
    )  # fmt: skip


def _tools(bits: _Bits) -> tuple[int, int, int]:
    """Read who chooses screen content tools and whole-pixel vectors, and how many bits the order has."""
    bits.number(4)  # of prediction between frames
    ordered = bits.number(1)
    if ordered:
        bits.number(2)
    screen = _CHOSEN if bits.number(1) else bits.number(1)
    vectors = _CHOSEN
    if screen and not bits.number(1):
        vectors = bits.number(1)
    return screen, vectors, 1 + bits.number(3) if ordered else 0


def _base_q_idx(bits: _Bits, said: _Sequence) -> int:
    """Read a frame header up to the quantiser [5.9.2, 5.9.12]."""
    if not said.reduced:
        bits.expect(0)  # show_existing_frame
        if bits.number(2):  # not a key frame
            raise _UnknownError
        bits.expect(1)  # show_frame
    keeps_statistics = not bits.number(1)
    screen = bits.number(1) if said.screen_tools == _CHOSEN else said.screen_tools
    if screen and said.integer_vectors == _CHOSEN:
        bits.number(1)
    bits.number(said.id_bits)
    width, height = said.width, said.height
    own_size = 0 if said.reduced else bits.number(1)
    bits.number(said.order_bits)
    if own_size:
        width, height = 1 + bits.number(said.width_bits), 1 + bits.number(said.height_bits)
    if said.superres:
        bits.expect(0)
    if bits.number(1):  # the size to be shown
        bits.number(32)
    if screen:
        bits.number(1)  # intra block copy
    if not said.reduced and keeps_statistics:
        bits.number(1)
    _skip_tiles(bits, height, width, 128 if said.large_blocks else 64)
    return bits.number(8)


def _skip_tiles(bits: _Bits, height: int, width: int, block: int) -> None:
    """Read how a frame is divided into tiles [5.9.15]."""
    rows, columns = -(-height // block), -(-width // block)
    most = _WIDEST_TILE // block, _LARGEST_TILE // block**2
    bits.expect(1)  # even tiles
    across = _counted(bits, _log2(most[0], columns), _log2(1, min(columns, _MOST_TILES)))
    least = max(_log2(most[0], columns), _log2(most[1], rows * columns))
    down = _counted(bits, max(least - across, 0), _log2(1, min(rows, _MOST_TILES)))
    if across + down:
        bits.number(across + down + 2)


def _counted(bits: _Bits, least: int, most: int) -> int:
    """Count up from the least as long as bits are set."""
    while least < most and bits.number(1):
        least += 1
    return least


def _log2(unit: int, size: int) -> int:
    """Return how often a unit must be doubled to reach a size [5.9.16]."""
    return (max(0, -(-size // unit) - 1)).bit_length()
