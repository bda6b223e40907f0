"""
Schemas round a subschema, and what becomes of it.
"""

from __future__ import annotations

from typing import Any

from kimi_async.schema import SchemaError, check_mfjs, to_mfjs

__all__ = ["ANY", "inside", "outcome", "translated"]

ANY = {"type": ["string", "number", "boolean", "object", "array", "null"]}


def inside(schema: Any, **beside: Any) -> dict[str, Any]:
    """A document with the schema as the property `p`."""
    return {"type": "object", "properties": {"p": schema}, **beside}


def translated(schema: Any, **beside: Any) -> Any:
    """What becomes of a schema that is the property `p` of an object."""
    result = to_mfjs(inside(schema, **beside))
    assert check_mfjs(result) == []
    return result["properties"]["p"]


def outcome(schema: Any) -> tuple[dict[str, Any] | None, str]:
    """The translation, or None and why there is none."""
    try:
        return to_mfjs(schema), ""
    except SchemaError as error:
        return None, error.reason
