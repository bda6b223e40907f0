"""
How the arguments of a method are sorted and checked: options of the call, ids in paths, misspelt names.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, cast
from urllib.parse import quote

from ..config import hide
from ..errors import ConfigurationError
from .caller import CallOptions

__all__ = [
    "CALL_OPTIONS",
    "LeakedTools",
    "call_options",
    "check_leaked_tools",
    "path_segment",
    "unknown_argument",
    "with_query",
]

LeakedTools: TypeAlias = Literal["mend", "warn", "off"]
"""What to do with tool calls that a host left in the text."""

CALL_OPTIONS: tuple[str, ...] = tuple(CallOptions.__annotations__)


def call_options(given: Mapping[str, object]) -> CallOptions:
    """Takes the options of the call out of what a method was given, so that its own arguments are left."""
    if not given:
        return {}
    fields = cast("dict[str, object]", given)
    hide(given)
    return cast("CallOptions", {name: fields.pop(name) for name in CALL_OPTIONS if name in fields})


def check_leaked_tools(value: object) -> None:
    """:raises ConfigurationError: for what `leaked_tools=` may not be."""
    if value not in (None, "mend", "warn", "off"):
        raise ConfigurationError(f"leaked_tools must be 'mend', 'warn' or 'off'; got {value!r}")


def with_query(call: CallOptions, params: Mapping[str, object]) -> CallOptions:
    """The options of the call with more query parameters; the caller's own win."""
    return {**call, "extra_query": {**params, **(call.get("extra_query") or {})}}


def path_segment(name: str, value: object) -> str:
    """An id as one segment of a path, from which it cannot escape."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    if not value.strip() or value in (".", ".."):
        raise ConfigurationError(f"expected a non-empty value for `{name}` but received {value!r}")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"`{name}` holds half a character (a lone surrogate): {value!r:.100}"
        ) from None


def unknown_argument(
    method: str,
    name: str,
    known: Sequence[str],
    elsewhere: str = "fields that this client does not know go through extra_body={...}",
) -> TypeError:
    """The error for a misspelt option. Kimi ignores unknown fields, so that a typo would go unnoticed there."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return TypeError(f"{method}() got an unexpected keyword argument {name!r}{hint} ({elsewhere})")
