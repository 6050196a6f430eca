"""Conditions, the leaves of a filter: one column compared with values, and its SQL.

A literal is converted to its column's type before it goes to LanceDB, which rejects `year > 1990.5`
on an integer column and rounds some other values. `year > 1990.5` becomes `year > 1990`,
`year = 1990.5` matches no track, and `duration < 1e400` matches every track with a duration.
A negation is part of the condition and never wraps it. LanceDB's planning time doubles with every
nested NOT: 40 of them take minutes, and the call cannot be interrupted.

`lancedb.expr` is not used: it cannot express "the list has this value", and its `to_sql` (0.40)
does not close the quote of a text like `\\'`.
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
ParsedValue = str | bool | Decimal  # a literal of a filter, not yet in its column's type

SUPPORTED_TYPES = "filters support text, numbers, booleans, dates, times, and lists of these"
COMPARISON_SIGNS = ("=", "==", "!=", "<>", "<", "<=", ">", ">=")
_NEGATION_OF = {"!=": "in", "<>": "in", ">": "<=", ">=": "<"}
_AS_IN = {"=": "in", "==": "in"}


@dataclass(frozen=True)
class Condition:
    """One column compared with literals; `operator` is null, in, <, <=, has or contains.

    As in SQL, a null satisfies neither a condition nor its negation, except with `null`. `in`
    without values is never satisfied.
    """

    column: str
    operator: str
    values: tuple[Literal, ...] = ()
    negated: bool = False

    def sql(self) -> str:
        """The condition in the table's SQL."""
        column, negation = sql_column(self.column), "NOT " if self.negated else ""
        if self.operator == "null":
            return f"({column} IS {negation}NULL)"
        if self.operator == "in":
            if not self.values:
                return f"({column} IS NOT NULL)" if self.negated else "false"
            among = f"{column} {negation}IN ({', '.join(map(sql_literal, self.values))})"
            # LanceDB's planner rewrites two negated lists without a common value as "true", even
            # for null.
            return f"({column} IS NOT NULL AND {among})" if self.negated else f"({among})"
        value = sql_literal(self.values[0])
        if self.operator == "has":
            return f"({negation}array_has({column}, {value}))"
        if self.operator == "contains":
            return f"({negation}contains({column}, {value}))"
        sign = {"<": ">=", "<=": ">"}[self.operator] if self.negated else self.operator
        return f"({column} {sign} {value})"


def filterable_type(kind: pa.DataType) -> bool:
    """Whether filters support columns of this type: plain types, and lists of them."""
    inner = kind.value_type if pt.is_list(kind) else kind
    plain = pt.is_string(inner) or pt.is_large_string(inner) or pt.is_boolean(inner)
    number = pt.is_integer(inner) or pt.is_float32(inner) or pt.is_float64(inner)
    return plain or number or pt.is_date32(inner) or _is_time(inner)


def condition_on(
    column: str,
    kind: pa.DataType,
    operator: str,
    written: tuple[ParsedValue, ...],
    *,
    negated: bool,
) -> Condition:
    """The condition for an operator (a sign, in, has, contains), in the column's type.

    `written` are the literals of the filter's text.

    Raises InputError if the operator or a value does not fit the type.
    """
    if not filterable_type(kind):
        raise InputError(f"column {column!r} is {_type_name(kind)}; {SUPPORTED_TYPES}")
    is_list = pt.is_list(kind)
    inner = kind.value_type if is_list else kind
    if is_list != (operator == "has"):
        cure = f"{column} has {_example(inner)}" if is_list else f"{column} = {_example(inner)}"
        raise InputError(f"column {column!r} is {_type_name(kind)}: write {cure}")
    if operator == "contains" and not _is_text(inner):
        raise InputError(f"column {column!r} is {_type_name(kind)}; `contains` needs a text column")
    negated ^= operator in _NEGATION_OF
    operator = _AS_IN.get(operator, _NEGATION_OF.get(operator, operator))
    if operator in ("<", "<=") and pt.is_boolean(inner):
        raise InputError(f"column {column!r} is true or false: write {column} = true")
    values = [_converted(column, inner, value) for value in written]
    never = Condition(column, "in", (), negated)
    if operator in ("<", "<="):
        return _range_condition(never, operator, values[0], inner)
    kept = tuple(
        value for value in (_in_column_type(value, inner) for value in values) if value is not None
    )
    return Condition(column, operator, kept, negated) if kept else never


def _range_condition(
    never: Condition, operator: str, value: Literal | Decimal, kind: pa.DataType
) -> Condition:
    """`column operator value`, for a number of any size and precision."""
    if not isinstance(value, Decimal):
        return replace(never, operator=operator, values=(value,))
    always = replace(never, negated=not never.negated)
    if pt.is_integer(kind):
        low, high = _range(kind)
        if not low <= value <= high:
            return never if value < low else always
        limit = math.floor(value) if operator == "<=" else math.ceil(value) - 1
        return replace(never, operator="<=", values=(limit,)) if limit >= low else never
    number = _rounded(value, kind)
    if math.isinf(number):
        return always if number > 0 else never
    return replace(never, operator=operator, values=(number,))


def _in_column_type(value: Literal | Decimal, kind: pa.DataType) -> Literal | None:
    """The value in the column's type; None if the column cannot hold it."""
    if not isinstance(value, Decimal):
        return value
    if pt.is_integer(kind):
        low, high = _range(kind)
        return int(value) if low <= value <= high and value == math.floor(value) else None
    number = _rounded(value, kind)
    return None if math.isinf(number) else number


def _converted(column: str, kind: pa.DataType, value: ParsedValue) -> Literal | Decimal:
    """A parsed value in the column's type; a number stays an exact decimal."""
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
    _raise_mismatch(column, kind, value)


def _raise_mismatch(column: str, kind: pa.DataType, value: ParsedValue) -> NoReturn:
    shown = f"{value}" if isinstance(value, Decimal) else repr(value)
    raise InputError(
        f"column {column!r} is {_type_name(kind)}; {shown[:80]} does not fit: expected a value "
        f"such as {_example(kind)}"
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


def _type_name(kind: pa.DataType) -> str:
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
    """A column's name, quoted for the table's SQL; case and spaces are kept."""
    return "`" + name.replace("`", "") + "`"


def sql_literal(value: Literal) -> str:
    """A literal in the table's SQL. Inside a text only the single quote needs escaping."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime):
        return f"timestamp '{value.isoformat(sep=' ')}'"
    if isinstance(value, date):
        return f"date '{value.isoformat()}'"
    if isinstance(value, int) and value == -(2**63):  # SQL parses -(2**63), whose operand overflows
        return f"({value + 1} - 1)"
    return str(value).lower()


def sql_among(column: str, values: Iterable[Literal]) -> str:
    """SQL for "the column has one of these values"; `values` may be empty."""
    return Condition(column, "in", tuple(values)).sql()
