"""Reader of a TensorFlow V2 checkpoint without TensorFlow: variable names to float32 arrays.

`<prefix>.index` is a LevelDB table of BundleEntryProto by variable name.
`<prefix>.data-00000-of-00001` is the arrays end to end (tensorflow/core/util/tensor_bundle). Only
one uncompressed shard is supported; anything else is an error. Of the protocol buffers only the
five fields that locate an array are read. Limitation: checksums are not checked (a pip package has
its own).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FOOTER = 48  # bytes: two block handles, padding, the magic number
MAGIC = bytes.fromhex("57fb808b247547db")
FLOAT32 = 1  # DataType.DT_FLOAT; other types (step counters) are left out
DTYPE, SHAPE, SHARD, OFFSET, SIZE = 1, 2, 3, 4, 5  # fields of BundleEntryProto
DIM, DIM_SIZE = 2, 1  # of TensorShapeProto, and of its Dim


def read_tf_checkpoint(index: Path, data: Path) -> dict[str, np.ndarray]:
    """Every float32 variable of a checkpoint of one shard.

    Raises ValueError where the files are not such a checkpoint, OSError where they cannot be read.
    """
    table = index.read_bytes()
    if table[-len(MAGIC) :] != MAGIC:
        raise ValueError(f"{index} is not an index of a TensorFlow checkpoint")
    values = data.read_bytes()
    _, at = _handle(table, len(table) - FOOTER)  # skips the meta index, which is empty
    blocks, _ = _handle(table, at)
    variables: dict[str, np.ndarray] = {}
    for _, handle in _entries(table, *blocks):
        where, _ = _handle(handle, 0)
        for key, entry in _entries(table, *where):
            fields = dict(_fields(entry))
            if key and fields.get(DTYPE) == FLOAT32:  # the empty key is the table's header
                variables[key.decode()] = _array(fields, values)
    return variables


def _array(fields: dict[int, int | bytes], values: bytes) -> np.ndarray:
    shape = [
        int(dict(_fields(dim)).get(DIM_SIZE, 0))
        for number, dim in _fields(_bytes(fields.get(SHAPE, b"")))
        if number == DIM and isinstance(dim, bytes)
    ]
    offset, size = int(fields.get(OFFSET, 0)), int(fields.get(SIZE, 0))
    if fields.get(SHARD, 0) or offset + size > len(values) or size != 4 * math.prod(shape):
        raise ValueError(f"an entry of {size} bytes at {offset} does not fit {len(values)} bytes")
    return np.frombuffer(values, "<f4", math.prod(shape), offset).reshape(shape)


def _entries(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; each key is stored as a shared prefix length and a suffix."""
    if table[offset + size]:
        raise ValueError("the checkpoint's index is compressed")
    block = table[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")
    at, end, key = 0, size - 4 * (restarts + 1), b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of the fields of a protocol buffer message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        length, at = _varint(message, at) if kind == 2 else (4 if kind == 5 else 8, at)
        yield tag >> 3, message[at : at + length]
        at += length


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position of the next handle."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("the checkpoint's index ends in the middle of a number")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("the checkpoint's index has a number where a shape should be")
    return value
