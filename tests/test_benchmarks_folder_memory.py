"""The measurement of a folder's memory, on few pictures."""

import sys

import pytest

from benchmarks import folder_memory
from sr.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.slow
def test_memory_is_read_after_each_picture() -> None:
    # A network of another strength, opened late, would be more than a small leak.
    growth = folder_memory.run(30, settled=20, arguments=["--restore", "0"])
    assert 20 < growth.settled <= growth.largest
    assert len(growth.curve) == 10
    assert growth.curve[-1] == growth.last
    assert growth.grown < 20  # a leak of every output would be more


def test_a_run_that_fails_is_no_measurement() -> None:
    with pytest.raises(DataError, match="exit status 2"):
        folder_memory.run(2, settled=1, arguments=["--no-such-option"])
