"""
Messages as they come: dicts of the wire's shape, or objects from replies, read and changed alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

__all__ = ["calls_of", "changed", "field_of", "is_empty", "role_of"]


def field_of(message: object, name: str) -> Any:
    """A field of a message, None where it is absent."""
    if isinstance(message, Mapping):
        return cast("Mapping[str, object]", message).get(name)
    return getattr(message, name, None)


def role_of(message: object) -> str:
    return str(field_of(message, "role") or "")


def calls_of(message: object) -> list[Any]:
    """The tool calls of a message; what is no list of them is none."""
    calls = field_of(message, "tool_calls")
    listed = cast("list[object]", calls) if isinstance(calls, (list, tuple)) else []
    return [call for call in listed if isinstance(call, Mapping) or hasattr(call, "model_copy")]


def is_empty(message: object) -> bool:
    """Whether a message says nothing and calls nothing."""
    return not field_of(message, "content") and not calls_of(message)


def changed(message: Any, **fields: object) -> Any:
    """A copy of a message, or of a call, with some fields changed; of the same kind."""
    if isinstance(message, Mapping):
        return {**cast("Mapping[str, object]", message), **fields}
    return message.model_copy(update=fields)
