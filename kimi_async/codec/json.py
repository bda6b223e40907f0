"""
Structs to JSON and back.

Decoders are built once. The quick way decodes straight into structs; what msgspec refuses goes the patient way
(`decode_patiently`), which takes what real servers send: numbers as text, `1.0` for an integer, nulls where there should be
none, half a surrogate pair, two objects in one event. Only our own errors come out.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import UNSET

from ..errors import APIResponseValidationError, ConfigurationError
from ..redact import bare
from ..types._base import BaseModel, Reply, bind, is_given
from ..types.completions import ChatCompletion, ChatCompletionChunk
from .foreign import as_wire, json_values

__all__ = [
    "REASONING",
    "SurrogateJoiner",
    "decode_chunk",
    "decode_patiently",
    "decode_reply",
    "decoder_for",
    "encode",
    "fit",
    "given",
    "is_json",
    "outgoing",
]

T = TypeVar("T")


# --- out -------------------------------------------------------------------------------------------------------------


def _foreign(value: Any) -> object:
    # Objects of other libraries find their way into `messages`: pydantic models above all.
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if hasattr(value, "__iter__"):
        return list(value)
    raise TypeError(f"cannot be sent as JSON: {type(value).__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_foreign)


def encode(value: object) -> bytes:
    """
    JSON. Objects of replies go back as they came: what was absent stays absent, and unknown fields are kept.

    :raises ConfigurationError: for what JSON cannot hold, naming it.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError as exc:
        raise ConfigurationError(
            f"the request holds text that is not valid Unicode (a lone surrogate, {exc.object[exc.start : exc.end]!r}); "
            "UTF-8 cannot carry it: replace it before sending"
        ) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise ConfigurationError(f"the request cannot be encoded: {exc}") from None


REASONING = ("reasoning_content",)


def outgoing(message: object, reasoning: tuple[str, ...] = REASONING) -> object:
    """
    A message as it should be encoded: an object from a reply with the unknown fields that came with it.

    `reasoning` says under which names this server reads earlier reasoning. Where that is not `reasoning_content` alone, what
    the message has under either name goes back under each of them, byte for byte.
    """
    if isinstance(message, BaseModel):
        if reasoning == REASONING and not message.model_extra:
            return message
        message = message.to_dict()
    if reasoning == REASONING or not isinstance(message, Mapping):
        return message
    fields: dict[str, object] = dict(cast("Mapping[str, object]", message))
    if fields.get("role") == "assistant":
        told = fields.get("reasoning_content")
        if told is None:
            told = fields.get("reasoning")
        if told is not None:
            fields.update(dict.fromkeys(reasoning, told))
    return fields


# --- in --------------------------------------------------------------------------------------------------------------

decode_chunk: Callable[[bytes | memoryview], ChatCompletionChunk] = msgspec.json.Decoder(
    ChatCompletionChunk
).decode


@lru_cache(maxsize=256)
def decoder_for(cls: object) -> msgspec.json.Decoder[object]:
    return msgspec.json.Decoder(cls)


# A reply that encodes to what it was decoded from holds no unknown field, and need not remember where it came from. Encoding a
# short one (0.5 µs) is quicker than telling each of its parts (3.5 µs), and Kimi's replies pass the test.
SMALL = 4096


def decode_reply(body: bytes, cls: type[T], response: object = None) -> T:
    """
    A reply's body as `cls`.

    :raises APIResponseValidationError: with the path of what does not fit; `body` holds the text.
    """
    if cls is not ChatCompletion:
        if cls is bytes:
            return cast("T", body)
        if cls is str:
            return cast("T", body.decode("utf-8", "replace"))
        if cls in (type(None), None):
            return cast("T", None)
    try:
        return _decoded(body, cls, response)
    except APIResponseValidationError as error:
        body = b""  # nor in this frame
        bare(error)
        raise


def _decoded(body: bytes, cls: type[T], response: object) -> T:
    plain: Any = cls
    if cls is not ChatCompletion:
        plain = Any if cls is object else cls
        foreign = _of_pydantic(cls)
        if foreign is not None:
            try:
                return cast("T", foreign(body))
            except (ValueError, RecursionError) as exc:
                raise _unfit(body, cls, response, exc) from None
    try:
        value = decoder_for(plain).decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        try:
            values = decode_patiently(body, plain)
            if len(values) != 1:
                raise ValueError(f"{len(values)} JSON values in place of one")
            value = values[0]
        except (ValueError, RecursionError):
            raise _unfit(body, cls, response, exc) from None
    if isinstance(value, ChatCompletion) and hides_something(value, body):
        try:
            wire = as_wire(decode_patiently(body, cast("type[Any]", Any))[0], "message")
            found = fit(wire, ChatCompletion)
            if _essence(found) != _essence(value):  # else it goes back as it came, nulls included
                value, body = found, _encoder.encode(wire)
        except (ValueError, IndexError):
            pass  # what was read holds
    if isinstance(value, Reply) and not (len(body) <= SMALL and _encoder.encode(value) == body):
        bind(value, body)
    return cast("T", value)


def hides_something(completion: ChatCompletion, body: bytes) -> bool:
    """Whether a completion may hold more than its struct found: no text, call or usage, or tokens under a foreign name."""
    choices, usage = completion.choices, completion.usage
    if not choices:
        return False  # for the errors that such a body may hold
    message = choices[0].message
    return (
        (message.content is None and message.tool_calls is None)
        or usage is None
        or not (usage.prompt_tokens or usage.completion_tokens)
        or (usage.cached_tokens is None and b"cache_hit_tokens" in body)
    )


def _essence(completion: ChatCompletion) -> object:
    message, usage = completion.choices[0].message, completion.usage
    tokens = (
        (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) if usage is not None else None
    )
    return message.content, message.tool_calls, tokens


def _of_pydantic(cls: object) -> Callable[[bytes], object] | None:
    """
    How a model of pydantic's kind is made of a body; None for every other type. openai's own are made as its client makes them,
    unchecked where they do not fit.
    """
    if not isinstance(cls, type) or issubclass(cls, msgspec.Struct):
        return None
    validate: Callable[[bytes], object] | None = getattr(cast("object", cls), "model_validate_json", None)
    if validate is None or cls.__module__.partition(".")[0] != "openai":
        return validate

    def leniently(body: bytes) -> object:
        try:
            return validate(body)
        except ValueError:
            fields = msgspec.json.decode(body)
            if not isinstance(fields, dict):
                raise
            return cast("Any", cls).construct(**fields)

    return leniently


def _unfit(body: bytes, cls: object, response: object, exc: Exception) -> APIResponseValidationError:
    text = body[:4096].decode("utf-8", "replace")
    start = body[:64].lstrip()[:1]
    what = (
        "empty"
        if not body.strip()
        else "HTML"
        if start == b"<"
        else "not JSON"
        if start not in (b"{", b"[")
        else "not"
    )
    reason = "" if what in ("empty", "HTML", "not JSON") else f": {exc}"
    kind = {"not": f"not a {getattr(cls, '__name__', cls)}"}.get(what, what)
    return APIResponseValidationError(
        response,
        text,
        message=f"the reply's body is {kind}{reason}; .body holds its first 4,096 bytes",
        whole=is_json(body),
    )


def is_json(body: bytes) -> bool:
    """Whether it is JSON to its end."""
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return True


def decode_patiently(
    data: bytes | memoryview | str, cls: type[T], *, joined: frozenset[str] = frozenset()
) -> list[T]:
    """
    The JSON values in `data` as `cls`, one after another: relays have been seen to put two into one event.

    Takes a BOM, invalid UTF-8 and lone surrogates (both as U+FFFD), NaN, integers written as text or with a fraction of zero,
    and null for a field that has a default. null itself gives nothing.

    :param joined: names of the fields whose lone surrogates are left for a `SurrogateJoiner`.
    :raises ValueError: for what is not JSON, or does not fit `cls` even so.
    """
    text = data if isinstance(data, str) else str(data, "utf-8-sig", "replace")
    halves = _SURROGATE.search(text) is not None
    values: list[T] = []
    try:
        for value, _ in json_values(text, _bounded_int):
            if halves:
                value = _mended(value, joined)
            if value is not None:
                values.append(fit(value, cls))
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    return values


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _mended(value: object, joined: frozenset[str]) -> object:
    """With U+FFFD for every half of a character, which no UTF-8 can hold, except in the fields named in `joined`."""
    if isinstance(value, str):
        return value if value.isascii() else _utf16(value)
    if isinstance(value, list):
        return [_mended(item, joined) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {
            _mended(name, joined): item if name in joined and isinstance(item, str) else _mended(item, joined)
            for name, item in cast("dict[str, object]", value).items()
        }
    return value


def _utf16(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _bounded_int(digits: str) -> int | float:
    # int() refuses more than 4,300 digits with a ValueError of its own, and is quadratic below that.
    return int(digits) if len(digits) <= 40 else float("inf")


def fit(value: object, cls: Any) -> Any:
    """
    A decoded value as `cls`; a foreign chunk or completion first made the wire's.

    :raises ValueError: where it does not fit even so.
    """
    part = {ChatCompletionChunk: "delta", ChatCompletion: "message"}.get(cls)
    try:
        return msgspec.convert(value, cls)
    except msgspec.ValidationError:
        pass
    value = _softened(value) if part is None else as_wire(value, part)
    left = LEFT_OUT
    while True:
        try:
            return msgspec.convert(value, cls, strict=False)
        except (OverflowError, RecursionError) as exc:
            raise ValueError(str(exc)) from None
        except msgspec.ValidationError as exc:
            # One unimportant field never costs the answer.
            path = re.findall(r"[^.\[\]]+", str(exc).rpartition("`$.")[2].rstrip("`"))
            while path and path[-1].isdigit():
                path.pop()  # an item of a list: the list
            left -= 1
            if not (left and path) or path[-1] in ESSENTIAL or not _without(value, path):
                raise ValueError(str(exc)) from None


# What an answer consists of. The rest may have any shape: it is left out where it has a foreign one.
ESSENTIAL = frozenset(
    [
        "choices",
        "content",
        "reasoning_content",
        "arguments",
        "tool_calls",
        "function",
        "message",
        "delta",
        "data",
    ]
)
LEFT_OUT = 16
"""Fields that may be left out of one value."""


def _without(value: object, path: list[str]) -> bool:
    """Takes a field out; whether it was there."""
    for step in path[:-1]:
        value = (
            cast("list[object]", value)[int(step)]
            if isinstance(value, list)
            else cast("dict[str, object]", value)[step]
        )
    return isinstance(value, dict) and cast("dict[str, object]", value).pop(path[-1], None) is not None


def _softened(value: object) -> object:
    """Without nulls, which then read as the default, and with whole floats as integers."""
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        soft = {name: _softened(item) for name, item in fields.items() if item is not None}
        if isinstance(created := soft.get("created"), float) and abs(created) < 2**63:
            soft["created"] = int(created)  # time.time() as it is, from servers in Python
        return soft
    if isinstance(value, list):
        return [_softened(item) for item in cast("list[object]", value) if item is not None]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return value


class SurrogateJoiner:
    """
    Puts together characters that a server cut in two.

    JavaScript servers slice text by UTF-16 units, so that an emoji arrives as `"\\ud83c"` at the end of one event and `"\\udf75"`
    at the start of the next. The first half is held back until the second comes; a half that stays alone becomes U+FFFD.
    """

    __slots__ = ("_held",)

    FIELDS = frozenset({"content", "reasoning_content", "reasoning", "refusal", "arguments"})
    """Where text may be cut so."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, str, int], str] = {}

    @property
    def holding(self) -> bool:
        return bool(self._held)

    def mend(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk:
        for choice in chunk.choices:
            delta, last = choice.delta, bool(choice.finish_reason)
            index = choice.index
            for name in ("content", "reasoning_content", "reasoning", "refusal"):
                setattr(delta, name, self._join((index, name, 0), getattr(delta, name), last))
            for position, call in enumerate(delta.tool_calls or ()):
                if call.function is not None:
                    number = cast("int | None", call.index)
                    key = (index, "arguments", position if number is None else number)
                    call.function.arguments = self._join(key, call.function.arguments, last)
        return chunk

    def _join(self, key: tuple[int, str, int], text: str | None, last: bool) -> str | None:
        held = self._held.pop(key, "") if text or last else ""
        if not held and (not text or text.isascii()):
            return text
        joined = held + (text or "")
        if joined and not last and "\ud800" <= joined[-1] <= "\udbff":
            self._held[key] = joined[-1]
            joined = joined[:-1]
        return _utf16(joined)


def given(params: Mapping[str, object]) -> dict[str, object]:
    """The parameters that were passed."""
    return {name: value for name, value in params.items() if is_given(value) and value is not UNSET}
