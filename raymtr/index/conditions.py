"""Conditions, the leaves of a filter: one column compared with values, and its SQL.

A literal is converted to its column's type before it goes to LanceDB, which rejects `year > 1990.5`
on an integer column and rounds some other values. `year > 1990.5` becomes `year > 1990`,
`year = 1990.5` matches no track, and `duration < 1e400` matches every track with a duration.
A negation is part of the condition and never wraps it, because LanceDB's work doubles with every
nested NOT: 40 of them take minutes, which nothing can interrupt.

`lancedb.expr` is not used: it cannot express "the list has this value", and its `to_sql` (0.40)
leaves the quote of a text like `\\'` open.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from raymtr.errors import InputError

Literal = str | int | float | bool | date
Written = str | bool | Decimal  # a literal as written in a filter

KNOWS = "filters know text, numbers, truth values, dates, times, and lists of these"
SIGNS = ("=", "==", "!=", "<>", "<", "<=", ">", ">=")
_OPPOSITE = {"!=": "in", "<>": "in", ">": "<=", ">=": "<"}
_AS_IN = {"=": "in", "==": "in"}


@dataclass(frozen=True)
class Condition:
    """One column compared with literals; `verb` is null, in, <, <=, has or contains.

    As in SQL, an absent value satisfies neither a condition nor its negation, except with `null`.
    `in` without values is never satisfied.
    """

    column: str
    verb: str
    values: tuple[Literal, ...] = ()
    negated: bool = False

    def sql(self) -> str:
        """The condition in the table's SQL."""
        column, no = sql_column(self.column), "NOT " if self.negated else ""
        if self.verb == "null":
            return f"({column} IS {no}NULL)"
        if self.verb == "in":
            if not self.values:
                return f"({column} IS NOT NULL)" if self.negated else "false"
            among = f"{column} {no}IN ({', '.join(map(sql_literal, self.values))})"
            # The planner turns two negated lists without a common value into "true", even for null.
            return f"({column} IS NOT NULL AND {among})" if self.negated else f"({among})"
        value = sql_literal(self.values[0])
        if self.verb == "has":
            return f"({no}array_has({column}, {value}))"
        if self.verb == "contains":
            return f"({no}contains({column}, {value}))"
        sign = {"<": ">=", "<=": ">"}[self.verb] if self.negated else self.verb
        return f"({column} {sign} {value})"


def filterable_type(kind: pa.DataType) -> bool:
    """Whether filters support columns of this type: plain types, and lists of them."""
    inner = kind.value_type if pt.is_list(kind) else kind
    plain = pt.is_string(inner) or pt.is_large_string(inner) or pt.is_boolean(inner)
    number = pt.is_integer(inner) or pt.is_float32(inner) or pt.is_float64(inner)
    return plain or number or pt.is_date32(inner) or _is_time(inner)


def condition_on(
    column: str, kind: pa.DataType, verb: str, written: tuple[Written, ...], *, negated: bool
) -> Condition:
    """The condition for a verb as written (a sign, in, has, contains), fitted to the column's type.

    Raises InputError if the verb or a value does not fit the type.
    """
    if not filterable_type(kind):
        raise InputError(f"column {column!r} is {_named(kind)}; {KNOWS}")
    is_list = pt.is_list(kind)
    inner = kind.value_type if is_list else kind
    if is_list != (verb == "has"):
        cure = f"{column} has {_example(inner)}" if is_list else f"{column} = {_example(inner)}"
        raise InputError(f"column {column!r} is {_named(kind)}: write {cure}")
    if verb == "contains" and not _is_text(inner):
        raise InputError(f"column {column!r} is {_named(kind)}; only text contains a text")
    negated ^= verb in _OPPOSITE
    verb = _AS_IN.get(verb, _OPPOSITE.get(verb, verb))
    if verb in ("<", "<=") and pt.is_boolean(inner):
        raise InputError(f"column {column!r} is true or false: write {column} = true")
    values = [_fitted(column, inner, value) for value in written]
    never = Condition(column, "in", (), negated)
    if verb in ("<", "<="):
        return _bounded(never, verb, values[0], inner)
    kept = tuple(value for value in (_exact(value, inner) for value in values) if value is not None)
    return Condition(column, verb, kept, negated) if kept else never


def _bounded(never: Condition, verb: str, value: Literal | Decimal, kind: pa.DataType) -> Condition:
    """`column verb value`, for a number of any size and precision."""
    if not isinstance(value, Decimal):
        return replace(never, verb=verb, values=(value,))
    always = replace(never, negated=not never.negated)
    if pt.is_integer(kind):
        low, high = _range(kind)
        if not low <= value <= high:
            return never if value < low else always
        limit = math.floor(value) if verb == "<=" else math.ceil(value) - 1
        return replace(never, verb="<=", values=(limit,)) if limit >= low else never
    number = _rounded(value, kind)
    if math.isinf(number):
        return always if number > 0 else never
    return replace(never, verb=verb, values=(number,))


def _exact(value: Literal | Decimal, kind: pa.DataType) -> Literal | None:
    """The value in the column's type; None if the column cannot hold it."""
    if not isinstance(value, Decimal):
        return value
    if pt.is_integer(kind):
        low, high = _range(kind)
        return int(value) if low <= value <= high and value == math.floor(value) else None
    number = _rounded(value, kind)
    return None if math.isinf(number) else number


def _fitted(column: str, kind: pa.DataType, value: Written) -> Literal | Decimal:
    """A written value converted to the column's kind; a number stays exact, as written."""
    fits = _is_text(kind) and isinstance(value, str)
    fits |= pt.is_boolean(kind) and isinstance(value, bool)
    fits |= isinstance(value, Decimal) and (pt.is_integer(kind) or pt.is_floating(kind))
    if fits:
        return value
    try:
        if isinstance(value, str) and pt.is_date32(kind):
            return date.fromisoformat(value)
        if isinstance(value, str) and _is_time(kind):
            time = datetime.fromisoformat(value)
            return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        pass
    _refuse(column, kind, value)


def _refuse(column: str, kind: pa.DataType, value: Written) -> NoReturn:
    said = f"{value}" if isinstance(value, Decimal) else repr(value)
    raise InputError(
        f"column {column!r} is {_named(kind)}; {said[:80]} does not fit: expected a value such "
        f"as {_example(kind)}"
    )


def _range(kind: pa.DataType) -> tuple[int, int]:
    bits = kind.bit_width
    if pt.is_unsigned_integer(kind):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _rounded(value: Decimal, kind: pa.DataType) -> float:
    """The nearest number that the column can hold."""
    return float(pc.cast(pa.scalar(float(value)), kind, safe=False).as_py())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pt.is_timestamp(kind) and kind.unit == "us" and kind.tz in (None, "UTC"))


def _named(kind: pa.DataType) -> str:
    return str(kind).replace("element: ", "").replace("item: ", "")


def _example(kind: pa.DataType) -> str:
    if pt.is_boolean(kind):
        return "true"
    if pt.is_date32(kind):
        return "'2020-01-31'"
    if pt.is_timestamp(kind):
        return "'2020-01-31 18:30:00'"
    return "'x'" if _is_text(kind) else "1990"


def sql_column(name: str) -> str:
    """A column's name in the table's SQL; keeps case and spaces."""
    return "`" + name.replace("`", "") + "`"


def sql_literal(value: Literal) -> str:
    """A literal in the table's SQL. Inside a text only the single quote needs escaping."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime):
        return f"timestamp '{value.isoformat(sep=' ')}'"
    if isinstance(value, date):
        return f"date '{value.isoformat()}'"
    if isinstance(value, int) and value == -(2**63):  # SQL reads it as minus a number too large
        return f"({value + 1} - 1)"
    return str(value).lower()


def sql_among(column: str, values: Iterable[Literal]) -> str:
    """SQL for "the column has one of these values", of which there may be none."""
    return Condition(column, "in", tuple(values)).sql()
