"""
Which tool definitions the official host refuses, known before it is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from .check import check_mfjs

__all__ = ["refused_tools"]

# platform.kimi.ai, "Tool use": ^[a-zA-Z_][a-zA-Z0-9-_]{0,255}$; answered with 400 otherwise.
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,255}")


def refused_tools(tools: object) -> list[str]:
    """
    Why these definitions would be refused, a sentence each, with what translates them; empty if nothing is known against them.

    Only plain ones are looked at: those that were made here have been translated.
    """
    told: list[str] = []
    for tool in cast("list[object]", tools) if isinstance(tools, (list, tuple)) else ():
        if type(tool) is not dict:
            continue
        function = cast("dict[str, object]", tool).get("function")
        if cast("dict[str, object]", tool).get("type") != "function" or not isinstance(function, Mapping):
            continue
        fields = cast("Mapping[str, Any]", function)
        name = fields.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            told.append(
                f"the tool name {name!r} is refused by Kimi, which takes letters, digits, _ and -, beginning with a letter or _"
            )
        parameters = fields.get("parameters")
        if parameters is None or fields.get("strict") is False:
            continue
        try:
            problem = _problem(msgspec.json.encode(parameters))
        except (TypeError, ValueError, RecursionError):
            continue  # the request itself says what is wrong with it
        if problem is not None:
            told.append(
                f"the parameters of the tool {name!r} are refused by Kimi (at {problem}); "
                "kimi_async.schema.mfjs_tool(definition) translates them"
            )
    return told


@lru_cache(256)
def _problem(schema: bytes) -> str | None:
    """The first of a schema; kept, since tools go with every question of a conversation."""
    problems = check_mfjs(msgspec.json.decode(schema), level="strict")
    return problems[0] if problems else None
