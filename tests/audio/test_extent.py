"""A file that is held gives the bytes that the file has, wherever they are asked for."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest

from raymtr.audio.extent import CachedFile, Extent, once, read_at


@pytest.fixture(params=["on disk", "in memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[BinaryIO, bytes]:
    data = np.random.default_rng(0).bytes(200_000)
    if request.param == "in memory":
        return io.BytesIO(data), data
    path = tmp_path / "file"
    path.write_bytes(data)
    return open(path, "rb", buffering=0), data


def test_a_held_file_gives_the_bytes_of_any_place(opened: tuple[BinaryIO, bytes]) -> None:
    file, data = opened
    held = cast(BinaryIO, CachedFile(file))
    rng = np.random.default_rng(1)
    for offset in [0, 32_767, 32_768, 183_999, 199_999, *map(int, rng.integers(0, 200_000, 300))]:
        for count in (0, 1, 10, 5_000, 70_000, 1 << 40):
            assert read_at(held, offset, count) == data[offset : offset + count]
    assert held.seek(0, 2) == len(data)


def test_numbers_that_a_damaged_file_states_give_what_they_give_of_a_plain_file() -> None:
    data = bytes(range(256))
    for offset, count in [(-5, 10), (300, 10), (1 << 63, 10), (3, -2), (250, 50), (-400, 2)]:
        assert read_at(cast(BinaryIO, CachedFile(io.BytesIO(data))), offset, count) == read_at(
            io.BytesIO(data), offset, count
        )


def test_what_one_reader_found_is_not_looked_for_again() -> None:
    calls = []

    @once
    def length(file: BinaryIO, extent: Extent) -> int:
        calls.append(extent)
        return extent.end - extent.start

    held = cast(BinaryIO, CachedFile(io.BytesIO(b"abc")))
    assert [length(held, Extent(0, 3)) for _ in range(3)] == [3, 3, 3]
    assert len(calls) == 1
