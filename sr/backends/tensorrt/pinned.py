"""Page-locked memory for outputs, which the GPU writes to without a copy in between; blocks are used again.

Page-locking takes about as long as copying, so a block goes back to the pool when the last view of its array
is gone. Arrays stay valid when the pool is closed.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

from sr.backends.tensorrt.cuda import Cuda
from sr.errors import BackendError, OutOfDeviceMemoryError
from sr.memory import available_memory

# Twice what may wait to be written (`sr.jobs.pipeline.WAITING_BYTES`), so that a folder needs no other
# memory; less where memory is scarce, because other programs cannot use page-locked memory.
_POOL_BYTES, _POOL_SHARE = 512 * 2**20, 1 / 8

_STEP = 2**20  # sizes of blocks are multiples of it, so that pictures of nearly one size share them
_Block = tuple[int, int]  # address and bytes


class PinnedPool:
    """Arrays in page-locked memory."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._room = int(min(_POOL_BYTES, available_memory() * _POOL_SHARE))
        self._blocks: set[_Block] = set()
        self._returned: deque[_Block] = deque()  # filled by the collector of garbage, in any thread
        self._closed = False

    def array(self, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Return an array of undefined content, or None if the pool has no room.

        Raises:
            BackendError: CUDA failed, other than for lack of memory.
        """
        size = math.prod(shape)
        block = self._block(size)
        if block is None:
            return None
        buffer = (ctypes.c_uint8 * size).from_address(block[0])
        weakref.finalize(buffer, self._take_back, block).atexit = False
        return np.ctypeslib.as_array(buffer).reshape(shape)

    def holds(self, array: NDArray[np.uint8]) -> bool:
        """Say whether an array, or the one that it is a view of, lies in the pool."""
        address = array.__array_interface__["data"][0]
        return any(first <= address < first + size for first, size in self._blocks)

    def _block(self, size: int) -> _Block | None:
        suitable = [block for block in self._returned if size <= block[1] <= max(2 * size, _STEP)]
        if suitable:
            block = min(suitable, key=lambda block: block[1])
            self._returned.remove(block)
            return block
        wanted = max(1, -(-size // _STEP)) * _STEP
        while self._used + wanted > self._room and self._returned:
            self._free(self._returned.popleft())
        if self._used + wanted > self._room:
            return None
        try:
            with self._cuda.current():  # or CUDA would start on GPU 0 as well
                block = (int(self._cuda.call("cudaMallocHost", wanted)), wanted)
        except OutOfDeviceMemoryError:  # of the host, whose limit for it may be low
            self._room = self._used
            return None
        self._blocks.add(block)
        return block

    @property
    def _used(self) -> int:
        return sum(size for _, size in self._blocks)

    def _take_back(self, block: _Block) -> None:
        self._returned.append(block)
        if self._closed:
            self._free_returned()

    def _free_returned(self) -> str:
        failure = ""
        while self._returned:
            try:
                self._free(self._returned.popleft())
            except BackendError as error:
                failure = failure or str(error)
        return failure

    def _free(self, block: _Block) -> None:
        self._blocks.discard(block)
        self._cuda.call("cudaFreeHost", block[0])

    def close(self) -> str:
        """Free blocks that are not in use, now, and the others once they are not; return a failure, or ""."""
        self._closed = True
        return self._free_returned()
