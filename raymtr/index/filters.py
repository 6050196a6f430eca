r"""The filter language: `year > 1990 and tags has 'jazz' and not artist in ('A', 'B')`.

Text is parsed into conditions that are checked against the table's columns and types. Only the
parsed conditions become SQL. So user text is never run as SQL, and a misspelt column is an error
that lists the columns instead of an empty result.

The result is as flat as possible: `not` is pushed down to the conditions while parsing (De Morgan),
and nested `and`s are merged, as are nested `or`s. LanceDB's planner hangs on nested negations and
rejects about 20 alternating levels of `and` and `or`. The bounds below are stricter than that, and
far beyond what people write, so LanceDB answers every filter that parses.

A comparison with an absent value is neither true nor false, as in SQL: `year != 1990` does not
find tracks without a year; `year is null` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import NoReturn

import pyarrow as pa

from raymtr.errors import InputError
from raymtr.index.conditions import SIGNS, Condition, Written, condition_on, filterable_type

MOST_TOKENS = 500  # per filter
LONGEST_FILTER = 50_000  # characters
MOST_OPEN = 100  # nested parentheses
DEEPEST = 16  # alternating levels of `and` and `or`
EXAMPLE = "year > 1990 and tags has 'jazz'"

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?)(?!\w)
    | (?P<column>`[^`]+`)
    | (?P<word>[^\W\d]\w*)
    | (?P<sign><=|>=|!=|==|<>|[=<>(),])
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Joined:
    """All (`and`) or any (`or`) of `items`; no item is itself joined by the same word."""

    word: str
    items: tuple[Filter, ...]

    def sql(self) -> str:
        """The conjunction or disjunction in the table's SQL."""
        return "(" + f" {self.word.upper()} ".join(item.sql() for item in self.items) + ")"


Filter = Condition | Joined


def joined(word: str, *items: Filter) -> Filter:
    """All (`and`) or any (`or`) of `items`, flattened."""
    flat: list[Filter] = []
    for item in items:
        flat += item.items if isinstance(item, Joined) and item.word == word else (item,)
    return flat[0] if len(flat) == 1 else Joined(word, tuple(flat))


def parse_filter(text: str, schema: pa.Schema) -> Filter:
    """Parse `text` into conditions on the columns of `schema`.

    Raises InputError for a syntax error, an unknown column, or a value of another type.
    """
    return _Parser(text, schema).whole()


class _Parser:
    """Recursive descent parser; precedence from lowest: or, and, not."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self.text, self.schema = text, schema
        self.tokens = _tokens(text)
        self.next = self.open = 0

    def whole(self) -> Filter:
        tree = self.either(negated=False)
        if self.next < len(self.tokens):
            self.refuse(f"unexpected {self.tokens[self.next][1]!r:.80}")
        if (depth := _depth(tree)) > DEEPEST:
            self.refuse(
                f"`and` and `or` in turn are {depth} levels deep, at most {DEEPEST} are read"
            )
        return tree

    def either(self, *, negated: bool) -> Filter:
        return self.several("or", "and" if negated else "or", self.both, negated=negated)

    def both(self, *, negated: bool) -> Filter:
        return self.several("and", "or" if negated else "and", self.one, negated=negated)

    def several(
        self, between: str, word: str, read: Callable[..., Filter], *, negated: bool
    ) -> Filter:
        items = [read(negated=negated)]
        while self.word(between):
            items.append(read(negated=negated))
        return joined(word, *items)

    def one(self, *, negated: bool) -> Filter:
        while self.word("not"):
            negated = not negated
        if not self.sign("("):
            return self.condition(negated=negated)
        self.open += 1
        if self.open > MOST_OPEN:
            self.refuse(f"at most {MOST_OPEN} parentheses may be open at a time")
        tree = self.either(negated=negated)
        self.expect(")")
        self.open -= 1
        return tree

    def condition(self, *, negated: bool) -> Filter:
        kind, text = self.take("a column")
        if kind not in ("word", "column"):
            self.refuse(f"a column was expected, not {text!r:.80}")
        column = text.strip("`")
        if column not in self.schema.names:
            known = ", ".join(field.name for field in self.schema if filterable_type(field.type))
            raise InputError(f"unknown column {column!r:.80} in the filter; columns: {known}")
        if self.word("is"):
            negated ^= self.word("not")
            if not self.word("null"):
                self.refuse("`is` is followed by null or not null")
            return Condition(column, "null", (), negated)
        while self.word("not"):
            negated = not negated
        verb = self.take("a comparison")[1].lower()
        if verb not in (*SIGNS, "in", "has", "contains"):
            self.refuse(
                f"{column!r} is followed by = != < <= > >= in has contains is, not {verb!r:.80}"
            )
        values = self.listed() if verb == "in" else (self.literal(),)
        kind = self.schema.field(column).type
        return condition_on(column, kind, verb, values, negated=negated)

    def listed(self) -> tuple[Written, ...]:
        self.expect("(")
        values = [self.literal()]
        while self.sign(","):
            values.append(self.literal())
        self.expect(")")
        return tuple(values)

    def literal(self) -> Written:
        kind, text = self.take("a value")
        if kind == "string":
            quote = text[0]
            return text[1:-1].replace(quote * 2, quote)
        if kind == "number":
            return Decimal(text)
        if kind == "word" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        self.refuse(f"a value was expected, not {text!r:.80}; text must be in quotes")

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
        here = self.tokens[self.next] if self.next < len(self.tokens) else ("", "")
        found = here[0] == kind and here[1].lower() == text
        self.next += found
        return found

    def refuse(self, what: str) -> NoReturn:
        _refuse(self.text, what)


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > LONGEST_FILTER:
        _refuse(text, f"it has {len(text)} characters, at most {LONGEST_FILTER} are read")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        _refuse(text, f"character {error.start + 1} is half of one (a lone surrogate)")
    tokens: list[tuple[str, str]] = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            _refuse(text, f"cannot read {text[position:].lstrip()[:20]!r}")
        if len(tokens) == MOST_TOKENS:
            _refuse(text, f"at most {MOST_TOKENS} words and signs are read")
        tokens.append((str(match.lastgroup), match[match.lastgroup or 0]))
        position = match.end()
    return tokens


def _refuse(text: str, what: str) -> NoReturn:
    shown = text if len(text) <= 100 else f"{text[:100]} ..."
    raise InputError(f"filter {shown!r}: {what}; an example: {EXAMPLE}")


def _depth(tree: Filter) -> int:
    return 1 + max(map(_depth, tree.items)) if isinstance(tree, Joined) else 0
