"""
The limits and names of MFJS, and the errors and losses that speak of them.

Learned from https://github.com/MoonshotAI/walle: `docs/walle.md` (the rules), `docs/mfjs-spec.md`,
`docs/validation-principles.md` (the limits), `keyword_validators.go` (what the documents leave open).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeGuard

from ..errors import KimiError

__all__ = [
    "ALL_TYPES",
    "FORBIDDEN_KEYS",
    "MAX_BRANCHES",
    "MAX_DEPTH",
    "MAX_ENUM",
    "MAX_INT",
    "MAX_PROPERTIES",
    "MAX_SIZE",
    "TYPES",
    "Json",
    "Loss",
    "RootError",
    "SchemaError",
    "escape",
    "is_list",
    "is_object",
    "kind_of",
    "same",
]

Json = dict[str, Any]

MAX_INT: Final = 2**53 - 1
"""Largest integer, and with a minus the smallest, that MFJS takes (walle.md: what a double holds exactly)."""

# The validator's own limits (walle conf.go, as described in docs/validation-principles.md). The prose of walle.md
# names far smaller ones (100 properties, 5 levels, 10 branches); which the servers use is not published, so only what
# every version refuses is refused here.
MAX_PROPERTIES: Final = 3000
MAX_DEPTH: Final = 30
MAX_BRANCHES: Final = 500
MAX_ENUM: Final = 1000
MAX_SIZE: Final = 120_000

ALL_TYPES: Final = ("string", "number", "boolean", "object", "array", "null")
TYPES: Final = frozenset((*ALL_TYPES, "integer"))
FORBIDDEN_KEYS: Final = frozenset(("$defs", "$ref", "anyOf", "required", "additionalProperties"))


class SchemaError(KimiError, ValueError):
    """
    A schema or a type that Moonshot's JSON schema flavour cannot express.

    `pointer` is the JSON pointer (RFC 6901) of the place, "" for the root; `reason` says what is wrong there and what
    to do about it.
    """

    retryable = False

    def __init__(self, pointer: str, reason: str) -> None:
        self.pointer: str = pointer
        self.reason: str = reason
        super().__init__(f"at {pointer or 'the root'}: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.pointer, self.reason))


class RootError(SchemaError):
    """The only thing wrong is that the root is no object, so that wrapping helps."""


class Loss(NamedTuple):
    """A constraint that the MFJS form of a schema does not carry: where it stood, its keyword, and why it went."""

    pointer: str
    keyword: str
    reason: str


def kind_of(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


# isinstance() makes of Any a list of something unknown; these make it a list of anything.
def is_object(value: object) -> TypeGuard[Json]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def escape(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")


def same(a: object, b: object) -> bool:
    """JSON equality: 1 is 1.0, and neither is true."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)
