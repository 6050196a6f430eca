"""Converts columns to plain types, which Parquet, LanceDB, filters and JSON all support.

Plain types are text, booleans, numbers, dates, timestamps (microseconds, UTC if a zone was given),
and lists and objects of these. Any other type is converted to one of them if that loses nothing, or
is refused with the column's name before a job has spent an hour on it. NaN is an unknown number and
becomes null. So does an infinite number, which JSON cannot express; that is logged.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from raymtr.errors import InputError

LOG = logging.getLogger("raymtr")

DEEPEST = 16  # nested lists and objects
MISFITS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError)
_TEXTS = (pt.is_string, pt.is_large_string, pt.is_string_view)
_BYTES = (pt.is_binary, pt.is_large_binary, pt.is_binary_view, pt.is_fixed_size_binary)
_LISTS = (
    pt.is_list,
    pt.is_large_list,
    pt.is_fixed_size_list,
    pt.is_list_view,
    pt.is_large_list_view,
)
_AS_THEY_ARE = (pt.is_null, pt.is_boolean, pt.is_integer, pt.is_date32)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def plain_table(table: pa.Table) -> pa.Table:
    """`table` with plain columns. Raises InputError that names the first that cannot be plain."""
    return join_parts([plain_columns(table)])


def plain_columns(part: pa.Table) -> pa.Table:
    """Like `plain_table`, for a part of a table: a column of only nulls has no type yet."""
    names = part.column_names
    return pa.table(list(map(plain_column, part.columns, names)), names=names)


def join_parts(parts: list[pa.Table]) -> pa.Table:
    """Join plain parts to one table, with types that fit all parts; missing columns are null.

    Raises pa.ArrowException if two parts have columns of incompatible types.
    """
    table = pa.concat_tables(parts, promote_options="permissive")
    return table.cast(pa.schema([(field.name, _settled(field.type)) for field in table.schema]))


def _settled(kind: pa.DataType) -> pa.DataType:
    """A type with null types replaced by text."""
    if pt.is_null(kind):
        return pa.string()
    if pt.is_list(kind):
        return pa.list_(_settled(kind.value_type))
    if pt.is_struct(kind):
        return pa.struct([(field.name, _settled(field.type)) for field in kind])
    return kind


def plain_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """`column` in a plain type. Raises InputError that names it if that is not possible."""
    try:
        chunks = column.chunks or [pa.nulls(0, column.type)]
        plain = pa.chunked_array([_plain(chunk, name, 0) for chunk in chunks])
        plain.validate(full=True)  # a text can contain bytes that are not UTF-8
    except MISFITS as error:
        problem = str(error).splitlines()[0]
        raise InputError(
            f"column {name!r} ({column.type}) cannot be kept: {problem}; {CURE}"
        ) from error
    return plain


CURE = "leave it out, or write it as text or numbers"


def _plain(array: pa.Array, name: str, depth: int) -> pa.Array:
    kind = array.type
    if depth > DEEPEST:
        raise pa.ArrowInvalid(f"lists and objects are more than {DEEPEST} deep")
    for fits, turn in _TURNS:
        if fits(kind):
            return turn(array, name, depth)
    raise pa.ArrowInvalid(f"{kind} is not a plain type")


def _text(array: pa.Array, name: str, depth: int) -> pa.Array:
    return array.cast(pa.string())


def _bytes(array: pa.Array, name: str, depth: int) -> pa.Array:
    return array.cast(pa.binary()).cast(pa.string())  # refuses what is not UTF-8


def _same(array: pa.Array, name: str, depth: int) -> pa.Array:
    return array


def _float(array: pa.Array, name: str, depth: int) -> pa.Array:
    if pt.is_float16(array.type):
        array = array.cast(pa.float32())
    finite = pc.is_finite(array)
    if pc.all(finite).as_py() is not False:
        return array
    infinite = pc.sum(pc.is_inf(array)).as_py()
    if infinite:
        LOG.warning("column %r: %d infinite numbers are kept as unknown", name, infinite)
    return pc.if_else(finite, array, pa.scalar(None, array.type))


def _decimal(array: pa.Array, name: str, depth: int) -> pa.Array:
    is_integer = array.type.scale <= 0 and array.type.precision - array.type.scale <= 18
    return array.cast(pa.int64() if is_integer else pa.float64())


def _moment(array: pa.Array, name: str, depth: int) -> pa.Array:
    return array.cast(pa.timestamp("us", "UTC" if array.type.tz else None), safe=False)


def _seconds(array: pa.Array, name: str, depth: int) -> pa.Array:
    return pc.divide(array.cast(pa.int64()).cast(pa.float64()), float(_PER_SECOND[array.type.unit]))


def _list(array: pa.Array, name: str, depth: int) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    items = _plain(_flat(array), name, depth + 1)
    return pa.ListArray.from_arrays(offsets, items, mask=array.is_null())


def _flat(array: pa.Array) -> pa.Array:
    """The items of the lists that are not null; fixed-size null lists have items too."""
    return pc.list_flatten(array.drop_null() if pt.is_fixed_size_list(array.type) else array)


def _object(array: pa.Array, name: str, depth: int) -> pa.Array:
    names = [field.name for field in array.type]
    if not names:
        return pa.nulls(len(array))  # an object without keys has no content
    parts = [
        _plain(part, f"{name}.{key}", depth + 1)
        for key, part in zip(names, array.flatten(), strict=True)
    ]
    return pa.StructArray.from_arrays(parts, names, mask=array.is_null())


def _pairs(array: pa.Array, name: str, depth: int) -> pa.Array:
    pair = pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])
    rows = [
        None if row is None else [{"key": key, "value": value} for key, value in row]
        for row in array.to_pylist()
    ]
    return _plain(pa.array(rows, pa.list_(pair)), name, depth)


def _extension(array: pa.Array, name: str, depth: int) -> pa.Array:
    if array.type.extension_name == "arrow.uuid":
        values = array.storage.to_pylist()
        return pa.array(
            [None if b is None else str(uuid.UUID(bytes=b)) for b in values], pa.string()
        )
    return _plain(array.storage, name, depth)


def _decoded(array: pa.Array, name: str, depth: int) -> pa.Array:
    runs = pt.is_run_end_encoded(array.type)
    return _plain(pc.run_end_decode(array) if runs else array.dictionary_decode(), name, depth)


def _any_of(*kinds: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    return lambda kind: any(fits(kind) for fits in kinds)


def _is_extension(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType)


_Turn = Callable[[pa.Array, str, int], pa.Array]
_TURNS: tuple[tuple[Callable[[pa.DataType], bool], _Turn], ...] = (
    (_is_extension, _extension),
    (_any_of(pt.is_dictionary, pt.is_run_end_encoded), _decoded),
    (_any_of(*_TEXTS, pt.is_time), _text),
    (_any_of(*_BYTES), _bytes),
    (_any_of(*_AS_THEY_ARE), _same),
    (pt.is_floating, _float),
    (pt.is_decimal, _decimal),
    (pt.is_date64, lambda array, name, depth: array.cast(pa.date32())),
    (pt.is_timestamp, _moment),
    (pt.is_duration, _seconds),
    (pt.is_map, _pairs),
    (_any_of(*_LISTS), _list),
    (pt.is_struct, _object),
)
