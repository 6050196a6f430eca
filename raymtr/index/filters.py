r"""The filter language: `year > 1990 and tags has 'jazz' and not artist in ('A', 'B')`.

Text is parsed into conditions that are checked against the table's columns and types. Only the
parsed conditions become SQL. So user text is never run as SQL, and a misspelt column is an error
that lists the columns instead of an empty result.

The result is as flat as possible: `not` is pushed down to the conditions while parsing (De Morgan),
and nested `and`s are merged, as are nested `or`s. LanceDB's planner hangs on nested negations and
rejects about 20 alternating levels of `and` and `or`. The bounds below are stricter than that, and
far above what people write, so LanceDB can run every filter that parses.

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
from raymtr.index.conditions import (
    COMPARISON_SIGNS,
    Condition,
    ParsedValue,
    condition_on,
    filterable_type,
)

MOST_TOKENS = 500  # per filter
LONGEST_FILTER = 50_000  # characters
MOST_PARENTHESES = 100  # open at a time
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
    """All (`and`) or any (`or`) of `items`; no item is itself joined by the same operator."""

    operator: str
    items: tuple[Filter, ...]

    def sql(self) -> str:
        """The conjunction or disjunction in the table's SQL."""
        return "(" + f" {self.operator.upper()} ".join(item.sql() for item in self.items) + ")"


Filter = Condition | Joined


def joined(operator: str, *items: Filter) -> Filter:
    """All (`and`) or any (`or`) of `items`, flattened."""
    flat: list[Filter] = []
    for item in items:
        same = isinstance(item, Joined) and item.operator == operator
        flat += item.items if isinstance(item, Joined) and same else (item,)
    return flat[0] if len(flat) == 1 else Joined(operator, tuple(flat))


def parse_filter(text: str, schema: pa.Schema) -> Filter:
    """Parse `text` into conditions on the columns of `schema`.

    Raises InputError for a syntax error, an unknown column, or a value of another type.
    """
    return _Parser(text, schema).parse()


class _Parser:
    """Recursive descent parser; precedence from lowest: or, and, not."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self.text, self.schema = text, schema
        self.tokens = _tokens(text)
        self.position = self.open_parentheses = 0  # of the next token; those not closed yet

    def parse(self) -> Filter:
        tree = self.disjunction(negated=False)
        if self.position < len(self.tokens):
            self.fail(f"unexpected {self.tokens[self.position][1]!r:.80}")
        if (depth := _depth(tree)) > DEEPEST:
            self.fail(f"`and` and `or` alternate {depth} levels deep, at most {DEEPEST} are read")
        return tree

    def disjunction(self, *, negated: bool) -> Filter:
        return self.operands("or", "and" if negated else "or", self.conjunction, negated=negated)

    def conjunction(self, *, negated: bool) -> Filter:
        return self.operands("and", "or" if negated else "and", self.primary, negated=negated)

    def operands(
        self, separator: str, operator: str, parse: Callable[..., Filter], *, negated: bool
    ) -> Filter:
        items = [parse(negated=negated)]
        while self.accept_word(separator):
            items.append(parse(negated=negated))
        return joined(operator, *items)

    def primary(self, *, negated: bool) -> Filter:
        while self.accept_word("not"):
            negated = not negated
        if not self.accept_sign("("):
            return self.condition(negated=negated)
        self.open_parentheses += 1
        if self.open_parentheses > MOST_PARENTHESES:
            self.fail(f"at most {MOST_PARENTHESES} parentheses may be open at a time")
        tree = self.disjunction(negated=negated)
        self.expect(")")
        self.open_parentheses -= 1
        return tree

    def condition(self, *, negated: bool) -> Filter:
        kind, text = self.next_token("a column")
        if kind not in ("word", "column"):
            self.fail(f"a column was expected, not {text!r:.80}")
        column = text.strip("`")
        if column not in self.schema.names:
            known = ", ".join(field.name for field in self.schema if filterable_type(field.type))
            raise InputError(f"unknown column {column!r:.80} in the filter; columns: {known}")
        if self.accept_word("is"):
            negated ^= self.accept_word("not")
            if not self.accept_word("null"):
                self.fail("`is` is followed by null or not null")
            return Condition(column, "null", (), negated)
        while self.accept_word("not"):
            negated = not negated
        operator = self.next_token("a comparison")[1].lower()
        if operator not in (*COMPARISON_SIGNS, "in", "has", "contains"):
            self.fail(
                f"{column!r} is followed by = != < <= > >= in has contains is, not {operator!r:.80}"
            )
        values = self.literal_list() if operator == "in" else (self.literal(),)
        kind = self.schema.field(column).type
        return condition_on(column, kind, operator, values, negated=negated)

    def literal_list(self) -> tuple[ParsedValue, ...]:
        self.expect("(")
        values = [self.literal()]
        while self.accept_sign(","):
            values.append(self.literal())
        self.expect(")")
        return tuple(values)

    def literal(self) -> ParsedValue:
        kind, text = self.next_token("a value")
        if kind == "string":
            quote = text[0]
            return text[1:-1].replace(quote * 2, quote)
        if kind == "number":
            return Decimal(text)
        if kind == "word" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        self.fail(f"a value was expected, not {text!r:.80}; text must be in quotes")

    def next_token(self, expected: str) -> tuple[str, str]:
        if self.position >= len(self.tokens):
            self.fail(f"{expected} was expected at the end")
        self.position += 1
        return self.tokens[self.position - 1]

    def accept_word(self, word: str) -> bool:
        return self._accept("word", word)

    def accept_sign(self, sign: str) -> bool:
        return self._accept("sign", sign)

    def expect(self, sign: str) -> None:
        if not self.accept_sign(sign):
            self.fail(f"{sign!r} was expected")

    def _accept(self, kind: str, text: str) -> bool:
        token = self.tokens[self.position] if self.position < len(self.tokens) else ("", "")
        found = token[0] == kind and token[1].lower() == text
        self.position += found
        return found

    def fail(self, problem: str) -> NoReturn:
        _fail(self.text, problem)


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > LONGEST_FILTER:
        _fail(text, f"it has {len(text)} characters, at most {LONGEST_FILTER} are read")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        _fail(text, f"character {error.start + 1} is a lone surrogate, not a character")
    tokens: list[tuple[str, str]] = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            _fail(text, f"cannot read {text[position:].lstrip()[:20]!r}")
        if len(tokens) == MOST_TOKENS:
            _fail(text, f"at most {MOST_TOKENS} words and signs are read")
        tokens.append((str(match.lastgroup), match[match.lastgroup or 0]))
        position = match.end()
    return tokens


def _fail(text: str, problem: str) -> NoReturn:
    shown = text if len(text) <= 100 else f"{text[:100]} ..."
    raise InputError(f"filter {shown!r}: {problem}; an example: {EXAMPLE}")


def _depth(tree: Filter) -> int:
    return 1 + max(map(_depth, tree.items)) if isinstance(tree, Joined) else 0
