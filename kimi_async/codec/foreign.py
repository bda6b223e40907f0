"""
Foreign shapes made the wire's: what servers that are "compatible" send in other places, under other names and as other types.

Plain dicts in, plain dicts out. One unimportant field must never cost an answer: what cannot be read as what it should be is left
out. Text, tool calls and errors are the answer, and are moved where they belong.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

__all__ = ["as_wire", "error_object", "is_suspect", "json_values", "strays_in"]

Fields = dict[str, Any]

# Words that make an event worth a second look, beside what its struct holds. To find none spares the second decoding of the few that
# are looked at at all: those without text.
_SUSPECT = frozenset(
    b"message text x_groq input_tokens output_tokens promptTokenCount prompt_cache_hit_tokens amazon-bedrock-invocationMetrics "
    b"invocationMetrics usageMetadata error errors Error code status status_code base_resp header detail msg type success".split()
)


def is_suspect(event: bytes | memoryview) -> bool:
    """Whether one of these words stands in quotes in it. One split does it in 0.8 µs; to search for them all took 1.7."""
    return not _SUSPECT.isdisjoint(bytes(event).split(b'"')[1:-1])


# --- JSON, as far as it goes -------------------------------------------------------------------------------------------


def json_values(text: str, parse_int: Callable[[str], Any] = int) -> Iterator[tuple[object, int]]:
    """
    The JSON values at the beginning of a text, each with where it ends. Commas and white space between them are passed over.

    :raises ValueError: where no further value can be read, after those before it.
    """
    decoder = json.JSONDecoder(parse_int=parse_int)
    position, end = 0, len(text)
    while position < end:
        if text[position] in " \t\r\n,":
            position += 1
            continue
        try:
            value, position = decoder.raw_decode(text, position)
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None
        yield value, position


def strays_in(text: str) -> tuple[list[Fields], str]:
    """The objects in lines that were no fields of an event stream, and the text that is left of them."""
    found: list[Fields] = []
    at = 0
    try:
        for value, at in json_values(text):  # noqa: B007
            if isinstance(value, dict):
                found.append(cast("Fields", value))
    except ValueError:
        pass
    return found, text[at:]


# --- errors under status 200 -------------------------------------------------------------------------------------------

_FINE = (0, 200, "0", "200", "ok", "success", "OK", True, None, "")
_TEXTS = ("message", "msg", "detail", "error_msg", "error_message", "errmsg", "errorMessage", "status_msg")
_CODES = ("code", "status", "statusCode", "status_code", "error_code", "errcode", "errorCode", "error_type")


def error_object(value: object) -> object:
    """The part of a decoded body or event of status 200 that is one of the shapes errors come in; None if there is none."""
    if not isinstance(value, dict):
        return None
    fields = cast("Fields", value)
    if fields.get("error") or fields.get("object") == "error" or fields.get("success") is False:
        return fields
    choices: object = fields.get("choices")
    for choice in cast("list[object]", choices) if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (fault := cast("Fields", choice).get("error")):
            return {"error": fault}
    groq = _object(fields.get("x_groq"))
    if groq.get("error"):
        return {"error": groq["error"]}
    if choices:
        return None
    if fields.get("errors") or "detail" in fields or fields.get("type") == "error":
        return fields
    # MiniMax's `base_resp`, iFlytek's `header`, Volcengine's `ResponseMetadata.Error`.
    for inner in (_object(fields.get("base_resp")), _object(fields.get("header"))):
        if _refuses(inner):
            return {"error": {"code": _first(inner, _CODES), "message": _first(inner, _TEXTS)}}
    if found := _object(_object(fields.get("ResponseMetadata")).get("Error")):
        return {"error": {"code": found.get("Code"), "message": found.get("Message")}}
    return fields if _refuses(fields) else None


def _refuses(fields: Fields) -> bool:
    """Whether it has an error's text, and a code that is none of success. A text alone may be a greeting."""
    code = _first(fields, _CODES)
    return code is not None and isinstance(_first(fields, _TEXTS), str)


def _first(fields: Fields, names: tuple[str, ...]) -> object:
    for name in names:
        value = fields.get(name)
        if isinstance(value, (str, int, float)) and value not in _FINE:
            return value
    return None


# --- chunks and completions ----------------------------------------------------------------------------------------------

_INTS = frozenset(
    [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "audio_tokens",
        "video_tokens",
        "image_tokens",
        "reasoning_tokens",
        "accepted_prediction_tokens",
        "rejected_prediction_tokens",
        "index",
    ]
)
_WORDS = frozenset(
    ["id", "model", "object", "role", "name", "system_fingerprint", "service_tier", "finish_reason", "type"]
)
_TEXT = frozenset(("content", "reasoning_content", "reasoning", "refusal"))


def as_wire(value: object, part: str) -> object:
    """A decoded chunk (`part` "delta") or completion (`part` "message") with every field where and what it should be."""
    if not isinstance(value, dict):
        return value
    fields = _softened(cast("Fields", value))
    given: object = fields.get("choices")
    if isinstance(given, (dict, list)):
        fields["choices"] = [_choice(each, part) for each in _list(cast("object", given))]
    usage = _usage(fields)
    fields.pop("usage", None)
    if usage:
        fields["usage"] = usage
    if not fields.get("error"):
        fields.pop("error", None)
    return fields


def _choice(given: object, part: str) -> object:
    if not isinstance(given, dict):
        return given
    choice = _softened(cast("Fields", given))
    message: object = choice.get(part) or choice.get("message" if part == "delta" else "delta")
    if not message:
        text = choice.get("text")
        message = {"content": text} if isinstance(text, str) else {}
    choice[part] = message
    if not isinstance(message, dict):
        return choice  # found wrong where it is converted
    message = cast("Fields", message)
    calls: object = message.get("tool_calls")
    if calls is not None:
        if isinstance(calls, (dict, list)):
            message["tool_calls"] = [_call(call) for call in _list(cast("object", calls))]
        if not message["tool_calls"]:
            del message["tool_calls"]
    if not isinstance(choice.get("usage"), dict):
        choice.pop("usage", None)
    return choice


def _call(given: object) -> object:
    if not isinstance(given, dict):
        return given
    call = _softened(cast("Fields", given))
    function = call.get("function")
    if isinstance(function, dict):
        function = dict(cast("Fields", function))
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            function["arguments"] = json.dumps(arguments, ensure_ascii=False)
        call["function"] = function
    return call


def _usage(fields: Fields) -> Fields | None:
    """Tokens from whichever place and under whichever names."""
    places: list[object] = [
        fields.get("usage"),
        _object(fields.get("x_groq")).get("usage"),
        fields.get("amazon-bedrock-invocationMetrics"),
        fields.get("invocationMetrics"),
        fields.get("usageMetadata"),
    ]
    for place in places:
        given = _object(place)
        usage: Fields = {**given}
        for name, others in _USAGE.items():
            if not isinstance(usage.get(name), (int, float)) or isinstance(usage.get(name), bool):
                usage.pop(name, None)
            if not usage.get(name):
                for other in others:
                    if isinstance(value := given.get(other), (int, float)) and not isinstance(value, bool):
                        usage[name] = int(value)
                        break
        if usage.get("prompt_tokens") or usage.get("completion_tokens"):
            if not usage.get("total_tokens"):
                usage["total_tokens"] = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
            hits = usage.get("cached_tokens")
            if hits is None and not _object(usage.get("prompt_tokens_details")).get("cached_tokens"):
                for other in _HITS:
                    if isinstance(value := given.get(other), (int, float)) and not isinstance(value, bool):
                        usage["cached_tokens"] = int(value)
                        break
            for name in ("prompt_tokens_details", "completion_tokens_details"):
                if not isinstance(usage.get(name), dict):
                    usage.pop(name, None)
            return usage
    given = _object(fields.get("usage"))
    return given or None


# OpenAI's Responses and Anthropic's names; Bedrock's; Gemini's.
_USAGE = {
    "prompt_tokens": ("input_tokens", "inputTokenCount", "inputTokens", "promptTokenCount"),
    "completion_tokens": ("output_tokens", "outputTokenCount", "outputTokens", "candidatesTokenCount"),
    "total_tokens": ("totalTokens", "totalTokenCount"),
}
# DeepSeek's; Anthropic's; Bedrock's; Gemini's.
_HITS = (
    "prompt_cache_hit_tokens",
    "cache_read_input_tokens",
    "cacheReadInputTokenCount",
    "cachedContentTokenCount",
)


def _list(value: object) -> list[object]:
    """A list as it is, and one object as the list of it."""
    if isinstance(value, list):
        return cast("list[object]", value)
    return [value] if value else []


def _object(value: object) -> Fields:
    return cast("Fields", value) if isinstance(value, dict) else {}


def _softened(value: Mapping[str, object]) -> Fields:
    """Without nulls, which then read as the default, and with each known field as what it should be, or not at all."""
    soft: Fields = {}
    for name, item in value.items():
        kept = _field(name, item)
        if kept is not None:
            soft[name] = kept
    return soft


def _field(name: str, item: object) -> object:
    if item is None:
        return None
    if name in _TEXT:
        return text_of(item)
    if name in _WORDS:
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            return str(item)
        return item if isinstance(item, str) else None
    if name in _INTS:
        return _int(item)
    if name == "created":
        return _seconds(item)
    if name in ("delta", "message", "function", "error", "tool_calls") and not item:
        return None
    if isinstance(item, dict):
        return _softened(cast("Fields", item))
    if isinstance(item, list):
        return [each for each in _list(cast("object", item)) if each is not None]
    return item


def text_of(item: object) -> object:
    """Text that came as a list of parts, or as a number. What holds no text is returned as it is, to be found wrong."""
    if isinstance(item, str):
        return item
    if isinstance(item, bool):
        return None
    if isinstance(item, (int, float)):
        return str(item)
    if isinstance(item, dict):
        fields = cast("Fields", item)
        return text_of(fields["text"]) if "text" in fields else (fields or None)
    if isinstance(item, list):
        parts = cast("list[object]", item)
        texts = [text for text in map(text_of, parts) if isinstance(text, str)]
        return "".join(texts) if texts or not parts else parts
    return item


def _int(item: object) -> int | None:
    if isinstance(item, bool):
        return None
    if isinstance(item, str):
        try:
            item = float(item)
        except ValueError:
            return None
    if isinstance(item, (int, float)) and abs(item) < 2**63:
        return int(item)
    return None


def _seconds(item: object) -> int | None:
    """Unix time, from a number or from a date as ISO 8601 writes it."""
    if isinstance(item, str) and not item.replace(".", "", 1).isdigit():
        try:
            at = datetime.fromisoformat(item)
        except ValueError:
            return None
        return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp())
    return _int(item)
