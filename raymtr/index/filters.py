r"""The filter language: `year > 1990 and tags has 'jazz' and not artist in ('A', 'B')`.

Text is parsed into a typed tree that knows the table's columns and their types; only the tree is
turned into the table's SQL, by the three functions at the end. So nothing a user types is ever run
as SQL, and a misspelt column is an error that lists the columns instead of an empty answer.
`lancedb.expr` is not used: it cannot say "the list has this value", and its `to_sql` (0.40) leaves
the quote of a text like `\'` open.

A comparison with an absent value is neither true nor false, as in SQL: `year != 1990` does not
find tracks without a year; `year is null` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

import pyarrow as pa
import pyarrow.types as pt

from raymtr.errors import InputError

Literal = str | int | float | bool

MOST_TOKENS = 500  # a longer filter is refused, not recursed into
EXAMPLE = "year > 1990 and tags has 'jazz'"

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\w)
    | (?P<column>`[^`]+`)
    | (?P<word>[^\W\d]\w*)
    | (?P<sign><=|>=|!=|==|<>|[=<>(),])
    )""",
    re.VERBOSE,
)
_SQL_SIGN = {
    "=": "=",
    "==": "=",
    "!=": "<>",
    "<>": "<>",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}


@dataclass(frozen=True)
class Condition:
    """One column against literals; `verb` is a sign, `has`, `contains`, `in` or `null`."""

    column: str
    verb: str
    values: tuple[Literal, ...] = ()

    def sql(self) -> str:
        """The condition in the table's SQL."""
        if self.verb == "null":
            return f"({sql_column(self.column)} IS NULL)"
        if self.verb == "in":
            return sql_among(self.column, self.values)
        column, value = sql_column(self.column), sql_literal(self.values[0])
        if self.verb == "has":
            return f"array_has({column}, {value})"
        if self.verb == "contains":
            return f"contains({column}, {value})"
        return f"({column} {_SQL_SIGN[self.verb]} {value})"


@dataclass(frozen=True)
class Not:
    """True where `item` is false."""

    item: Filter

    def sql(self) -> str:
        """The negation in the table's SQL."""
        return f"(NOT {self.item.sql()})"


@dataclass(frozen=True)
class Joined:
    """All (`and`) or any (`or`) of `items`."""

    word: str
    items: tuple[Filter, ...]

    def sql(self) -> str:
        """The conjunction or disjunction in the table's SQL."""
        return "(" + f" {self.word.upper()} ".join(item.sql() for item in self.items) + ")"


Filter = Condition | Not | Joined


def parse_filter(text: str, schema: pa.Schema) -> Filter:
    """`text` as a tree over the columns of `schema`.

    Raises InputError on what does not parse, an unknown column, or a value of another type.
    """
    return _Parser(text, schema).whole()


class _Parser:
    """Recursive descent: or binds loosest, then and, then not."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self.text, self.schema = text, schema
        self.tokens = _tokens(text)
        self.next = 0

    def whole(self) -> Filter:
        tree = self.either()
        if self.next < len(self.tokens):
            self.refuse(f"unexpected {self.tokens[self.next][1]!r}")
        return tree

    def either(self) -> Filter:
        items = [self.both()]
        while self.word("or"):
            items.append(self.both())
        return items[0] if len(items) == 1 else Joined("or", tuple(items))

    def both(self) -> Filter:
        items = [self.one()]
        while self.word("and"):
            items.append(self.one())
        return items[0] if len(items) == 1 else Joined("and", tuple(items))

    def one(self) -> Filter:
        if self.word("not"):
            return Not(self.one())
        if self.sign("("):
            tree = self.either()
            self.expect(")")
            return tree
        return self.condition()

    def condition(self) -> Filter:
        kind, text = self.take("a column")
        if kind not in ("word", "column"):
            self.refuse(f"a column was expected, not {text!r}")
        column = text.strip("`")
        if column not in self.schema.names:
            known = ", ".join(self.schema.names)
            raise InputError(f"unknown column {column!r} in the filter; columns: {known}")
        if self.word("is"):
            negated = self.word("not")
            if not self.word("null"):
                self.refuse("`is` is followed by null or not null")
            return Not(Condition(column, "null")) if negated else Condition(column, "null")
        if self.word("not"):
            return Not(self.comparison(column))
        return self.comparison(column)

    def comparison(self, column: str) -> Filter:
        verb = self.take("a comparison")[1].lower()
        if verb == "in":
            self.expect("(")
            values = [self.literal(column, verb)]
            while self.sign(","):
                values.append(self.literal(column, verb))
            self.expect(")")
            return Condition(column, "in", tuple(values))
        if verb not in _SQL_SIGN and verb not in ("has", "contains"):
            self.refuse(
                f"{column!r} is followed by = != < <= > >= in has contains is, not {verb!r}"
            )
        return Condition(column, verb, (self.literal(column, verb),))

    def literal(self, column: str, verb: str) -> Literal:
        kind, text = self.take("a value")
        value: Literal
        if kind == "string":
            quote = text[0]
            value = text[1:-1].replace(quote * 2, quote)
        elif kind == "number":
            value = float(text) if re.search(r"[.eE]", text) else int(text)
        elif kind == "word" and text.lower() in ("true", "false"):
            value = text.lower() == "true"
        else:
            self.refuse(f"a value was expected, not {text!r}; text stands in quotes")
        _check_type(column, verb, value, self.schema.field(column).type)
        return value

    def take(self, wanted: str) -> tuple[str, str]:
        if self.next >= len(self.tokens):
            self.refuse(f"{wanted} was expected at the end")
        self.next += 1
        return self.tokens[self.next - 1]

    def word(self, word: str) -> bool:
        return self._skip("word", word)

    def sign(self, sign: str) -> bool:
        return self._skip("sign", sign)

    def expect(self, sign: str) -> None:
        if not self.sign(sign):
            self.refuse(f"{sign!r} was expected")

    def _skip(self, kind: str, text: str) -> bool:
        here = self.next < len(self.tokens) and self.tokens[self.next]
        found = bool(here) and here[0] == kind and here[1].lower() == text  # type: ignore[index]
        self.next += found
        return found

    def refuse(self, what: str) -> NoReturn:
        raise InputError(f"filter {self.text!r}: {what}; an example: {EXAMPLE}")


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or len(tokens) >= MOST_TOKENS:
            seen = text[position : position + 20].strip()
            raise InputError(f"filter {text[:100]!r}: cannot read {seen!r}; an example: {EXAMPLE}")
        tokens.append((str(match.lastgroup), match[match.lastgroup or 0]))
        position = match.end()
    return tokens


def _check_type(column: str, verb: str, value: Literal, kind: pa.DataType) -> None:
    is_list = pt.is_list(kind) or pt.is_large_list(kind)
    if is_list != (verb == "has"):
        cure = f"{column} has 'x'" if is_list else f"{column} = 'x'"
        raise InputError(f"column {column!r} is {kind}: write {cure}")
    inner = kind.value_type if is_list else kind
    if pt.is_string(inner) or pt.is_large_string(inner):
        fits = isinstance(value, str)
    elif pt.is_boolean(inner):
        fits = isinstance(value, bool)
    elif pt.is_integer(inner) or pt.is_floating(inner):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = fits and abs(value) < 2**63  # type: ignore[arg-type]
    else:
        raise InputError(f"column {column!r} is {kind}; filters know text, numbers, truth, lists")
    if not fits or (verb == "contains" and not isinstance(value, str)):
        raise InputError(f"column {column!r} is {kind}; {value!r} does not fit")


def sql_column(name: str) -> str:
    """A column's name in the table's SQL, case and spaces kept."""
    return "`" + name.replace("`", "") + "`"


def sql_literal(value: Literal) -> str:
    """A literal in the table's SQL. Only the single quote means anything inside a text there."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower()


def sql_among(column: str, values: Iterable[Literal]) -> str:
    """That a column has one of some values, of which there may be none."""
    listed = ", ".join(map(sql_literal, values))
    return f"({sql_column(column)} IN ({listed}))" if listed else "false"
