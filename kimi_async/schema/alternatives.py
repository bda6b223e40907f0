"""
The values a schema accepts, type by type.

JSON Schema is a conjunction of keywords, MFJS a union of typed alternatives. In between stands this form: a schema is
a list of alternatives, each of exactly one JSON type. "and" meets alternatives of equal type, "or" joins the lists.
Subschemas stay unread in it: an alternative names them by a conjunction of places in the document, so that recursive
schemas are finite and `allOf` of recursive ones ends too (there are finitely many sets of places).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from .rules import ALL_TYPES, MAX_INT, Json, is_object, same

__all__ = [
    "NEVER",
    "Alt",
    "Alts",
    "Conj",
    "Node",
    "both",
    "everything",
    "expressible",
    "is_integral",
    "is_number",
    "meet",
    "tighter_high",
    "tighter_low",
]

Conj = tuple["Node", ...]


@dataclass(slots=True, eq=False)
class Node:
    """A place in the document: a subschema and how to read references in it. `branches` makes it an artificial union."""

    schema: Any
    pointer: str
    resource: str
    branches: tuple[Conj, ...] | None = None
    keywords: Json = field(init=False)

    def __post_init__(self) -> None:
        self.keywords = self.schema if is_object(self.schema) else {}


@dataclass(slots=True)
class Alt:
    """One alternative. `at` is the place it was written, for reports."""

    kind: str
    at: str
    notes: Json = field(default_factory=dict[str, object])
    integer: bool = False
    low: int | float | None = None
    high: int | float | None = None
    values: tuple[Any, ...] | None = None
    pattern: str | None = None
    props: dict[str, Conj] | None = None
    required: tuple[str, ...] = ()
    extra: Conj = ()
    patterned: bool = False
    items: Conj = ()

    @property
    def closed(self) -> bool:
        return any(node.schema is False for node in self.extra)


class Alts(NamedTuple):
    """`typed`: some keyword named the type. If none did, `hints` are the types its other keywords speak of."""

    alts: list[Alt]
    typed: bool
    hints: frozenset[str]

    def settled(self) -> list[Alt]:
        if self.typed or not self.hints:
            return self.alts
        return [alt for alt in self.alts if alt.kind in self.hints]


def both(a: Conj, b: Conj) -> Conj:
    return a + tuple(node for node in b if all(node.pointer != other.pointer for other in a))


def tighter_low(a: int | float | None, b: int | float | None) -> int | float | None:
    return b if a is None else a if b is None else max(a, b)


def tighter_high(a: int | float | None, b: int | float | None) -> int | float | None:
    return b if a is None else a if b is None else min(a, b)


def meet(a: Alt, b: Alt) -> Alt | None:
    """The alternative that accepts what both accept; None if nothing is left."""
    if a.kind != b.kind:
        return None
    low, high = tighter_low(a.low, b.low), tighter_high(a.high, b.high)
    integer = a.integer or b.integer
    values = a.values if a.values is not None else b.values
    if a.values is not None and b.values is not None:
        values = tuple(v for v in a.values if any(same(v, w) for w in b.values))
    if values is not None:
        if a.kind == "string":
            values = tuple(
                v for v in values if (low is None or len(v) >= low) and (high is None or len(v) <= high)
            )
        elif a.kind == "number":
            values = tuple(
                v
                for v in values
                if (low is None or v >= low) and (high is None or v <= high) and (not integer or v == int(v))
            )
        if not values:
            return None
        low = high = None
    elif low is not None and high is not None and low > high:
        return None
    met = replace(a, notes={**b.notes, **a.notes}, low=low, high=high, values=values, integer=integer)
    if met.pattern is None:
        met.pattern = b.pattern
    if a.kind == "object":
        props = dict(a.props or {})
        for name, conj in (b.props or {}).items():
            props[name] = both(props.get(name, a.extra), conj)
        for name in a.props or {}:
            if name not in (b.props or {}):
                props[name] = both(props[name], b.extra)
        met.props = props if a.props is not None or b.props is not None else None
        met.required = a.required + tuple(name for name in b.required if name not in a.required)
        met.extra = both(a.extra, b.extra)
        met.patterned = a.patterned or b.patterned
    elif a.kind == "array":
        met.items = both(a.items, b.items)
    return met


def everything(at: str) -> list[Alt]:
    return [Alt(kind, at) for kind in ALL_TYPES]


NEVER: Final[Json] = {"\0never": True}
"""Stands for a schema that accepts nothing while the result is put together; compared by identity."""


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_integral(value: Any) -> bool:
    return is_number(value) and value == int(value)


def expressible(value: int | float) -> bool:
    """Whether MFJS can write this number: an integer in range, or a float whose JSON has no exponent."""
    if value == int(value):
        return abs(value) <= MAX_INT
    return "e" not in repr(float(value))
