"""Specs: frozen records of plain values that are validated on creation.

A spec is a pydantic dataclass, so `dataclasses.replace` validates too. It converts to JSON and
back. `from_dict` is strict, because a silently ignored key gives a wrong experiment.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from raymtr.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most"}

MOST_WIDE = 65_536  # limit of widths and counts: channels, dimensions, threads, actors
MOST_TOKENS = 1 << 20  # limit of any model's input or output
MOST_SEED = (1 << 63) - 1  # torch's limit

Precision = Literal["fp32", "bf16"]
Count = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=1, le=MOST_WIDE)]
Rank = Annotated[int, Field(ge=0, le=MOST_WIDE)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Share = Annotated[float, Field(ge=0, le=1)]
DropoutRate = Annotated[float, Field(ge=0, le=0.9)]


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,)
)
def spec(cls: type[T]) -> type[T]:
    """Make a spec of a class with annotated fields.

    Its constructor takes keywords and raises InputError where a value does not fit its annotation
    or where `__post_init__` raises one.
    """
    made: Any = dataclass(frozen=True, kw_only=True, config=CONFIG)(cls)
    construct = made.__init__

    @functools.wraps(construct)
    def __init__(self: object, **values: Any) -> None:
        try:
            construct(self, **values)
        except ValidationError as error:
            raise InputError(_message(cls, error).removeprefix("setting ")) from None

    made.__init__ = __init__
    return typing.cast(type[T], made)


def at_most(most: float, spec: DataclassInstance, name: str) -> None:
    """Raise InputError where a setting is above `most`, which follows from another setting."""
    if getattr(spec, name) > most:
        raise InputError(f"{name} is at most {most:g}, got {getattr(spec, name)}")


def check_weights(spec: DataclassInstance, name: str) -> None:
    """Raise InputError on negative weights or weights that are all zero; {} is allowed."""
    weights = getattr(spec, name)
    if weights and (min(weights.values()) < 0 or not sum(weights.values())):
        raise InputError(
            f"{name} takes weights of at least 0, one of them above 0; got {dict(weights)}"
        )


def to_dict(spec: DataclassInstance) -> dict[str, Any]:
    """A spec as plain JSON values; the inverse of `from_dict`."""
    values: dict[str, Any] = TypeAdapter(type(spec)).dump_python(spec, mode="json")
    return values


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a spec from JSON values; absent keys keep their defaults.

    Raises InputError, naming the key and the accepted ones, on an unknown key or a wrong type.
    """
    try:  # as JSON, because there a list is a tuple and a mapping is a group
        return TypeAdapter(cls).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise InputError(_message(cls, error)) from None


def _message(cls: type, error: ValidationError) -> str:
    """The first error in one sentence: the setting, what it accepts, and what was seen."""
    first = error.errors(include_url=False)[0]
    kind, got, context = first["type"], first["input"], first.get("ctx", {})
    *groups, key = first["loc"] or ("",)
    path = ".".join(map(str, first["loc"]))
    if kind == "json_invalid":
        return f"settings are Unicode text and plain values: {context['error']}"
    if kind == "value_error":  # raised by a spec, which does not know its path
        return f"setting {path}{'.' if path else ''}{context['error']}"
    if kind == "unexpected_keyword_argument":
        accepted = ", ".join(f.name for f in dataclasses.fields(_annotation(cls, groups)))
        return f"unknown setting {path!r}; accepted here: {accepted}"
    for bound, words in BOUNDS.items():
        if bound in context:
            return f"setting {path} is {words} {context[bound]:g}, got {got}"
    if kind == "missing" and isinstance(key, str):
        return f"setting {path!r} is missing"
    place = groups if kind == "missing" else first["loc"]  # a short list misses its last items
    return (
        f"setting {'.'.join(map(str, place))!r} {_accepts(kind, _annotation(cls, place))} {got!r}"
    )


def _accepts(kind: str, hint: Any) -> str:
    """What a setting of type `hint` accepts, up to what was seen instead."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind == "finite_number":
        return "is a finite number, got"
    if dataclasses.is_dataclass(hint):
        return "is a group of settings, got"
    if origin is Literal:
        return f"accepts {', '.join(arguments)}; got"
    if origin is tuple:
        return "is a list, got" if Ellipsis in arguments else f"is a list of {len(arguments)}, got"
    return f"is a {'mapping' if origin else hint.__name__}, got"


def _annotation(hint: Any, path: Sequence[int | str]) -> Any:
    """The type of the setting at `path` below the type `hint`; that of `T | None` is T."""
    for key in path:
        if dataclasses.is_dataclass(hint):
            hint = typing.get_type_hints(hint)[str(key)]
        else:  # a list or a mapping, of items of one type
            hint = [item for item in typing.get_args(hint) if item is not Ellipsis][-1]
        if typing.get_origin(hint) in (types.UnionType, typing.Union):
            hint = typing.get_args(hint)[0]
    return hint
