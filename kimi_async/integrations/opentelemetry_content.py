"""
Messages and answers in the form in which OpenTelemetry's conventions write them into a span.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from ..types.completions import ChatCompletion

__all__ = ["record_answer", "record_request"]


def record_request(attributes: dict[str, object], body: bytes) -> None:
    """Adds `gen_ai.input.messages`, `gen_ai.system_instructions` and `gen_ai.tool.definitions`."""
    try:
        fields: object = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return
    if not isinstance(fields, dict):
        return
    asked = cast("dict[str, object]", fields)
    given: object = asked.get("messages")
    messages = [
        cast("Mapping[str, object]", each)
        for each in (cast("Iterable[object]", given) if isinstance(given, list) else ())
        if isinstance(each, Mapping)
    ]
    system = [part for each in messages if each.get("role") == "system" for part in _parts(each)]
    if system:
        attributes["gen_ai.system_instructions"] = _json(system)
    attributes["gen_ai.input.messages"] = _json(
        [
            {"role": str(each.get("role")), "parts": _parts(each)}
            for each in messages
            if each.get("role") != "system"
        ]
    )
    if asked.get("tools"):
        attributes["gen_ai.tool.definitions"] = _json(asked["tools"])


def record_answer(attributes: dict[str, object], answer: ChatCompletion) -> None:
    """Adds `gen_ai.output.messages`."""
    attributes["gen_ai.output.messages"] = _json(
        [
            {
                "role": "assistant",
                "parts": _parts(choice.message.to_dict()),
                "finish_reason": choice.finish_reason or "",
            }
            for choice in answer.choices
        ]
    )


def _parts(message: Mapping[str, Any]) -> list[dict[str, object]]:
    content: object = message.get("content")
    if message.get("role") == "tool":
        return [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}]
    parts: list[dict[str, object]] = []
    if reasoning := message.get("reasoning_content"):
        parts.append({"type": "reasoning", "content": reasoning})
    if isinstance(content, str):
        if content:
            parts.append({"type": "text", "content": content})
    elif isinstance(content, list):
        parts += [_part(each) for each in cast("Iterable[object]", content)]
    for call in message.get("tool_calls") or ():
        function: object = (
            cast("Mapping[str, object]", call).get("function") if isinstance(call, Mapping) else None
        )
        if isinstance(function, Mapping):
            told = cast("Mapping[str, object]", function)
            parts.append(
                {
                    "type": "tool_call",
                    "id": cast("Mapping[str, object]", call).get("id"),
                    "name": told.get("name"),
                    "arguments": _arguments(told.get("arguments")),
                }
            )
    return parts


def _part(part: object) -> dict[str, object]:
    fields = cast("Mapping[str, object]", part) if isinstance(part, Mapping) else _NO_FIELDS
    if fields.get("type") == "text":
        return {"type": "text", "content": fields.get("text")}
    # An image is megabytes of base64, and no trace of it is wanted in a trace.
    return {"type": str(fields.get("type", "unknown"))}


_NO_FIELDS: Mapping[str, object] = {}


def _arguments(text: Any) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError):
        return text


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
