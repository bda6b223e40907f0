"""
The body of a chat request, and what its reply must hold: one way for `create`, `stream`, `parse`, `map` and batches.
"""

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from .. import codec
from ..conversation.history import refused_history
from ..errors import APIResponseValidationError, ConfigurationError
from ..providers.advice import WATCHED, KimiWarning, certain_refusals
from ..providers.hosts import Provider
from ..streaming.digest import folded
from ..transport.exchange import Response
from ..transport.phases import read_whole
from ..types._base import BaseModel, held, is_given
from ..types.completions import ChatCompletion, ChatCompletionMessageParam, ChatParams
from .arguments import unknown_argument

__all__ = [
    "accept_completion",
    "accept_with_reply",
    "chat_body",
    "check_completion",
    "outgoing_messages",
    "prefix_message",
]

_KNOWN = frozenset(ChatParams.__annotations__)

_INT = (int, "an int")
_NUMBER = ((int, float), "a number")
_TEXT = (str, "a string")
_OBJECT = (Mapping, "a mapping")
_BOOL = (bool, "True or False")

_TYPES: dict[str, tuple[Any, str]] = {
    "frequency_penalty": _NUMBER,
    "logprobs": _BOOL,
    "max_completion_tokens": _INT,
    "max_tokens": _INT,
    "n": _INT,
    "parallel_tool_calls": _BOOL,
    "prediction": _OBJECT,
    "presence_penalty": _NUMBER,
    "prompt_cache_key": _TEXT,
    "prompt_cache_options": _OBJECT,
    "reasoning_effort": _TEXT,
    "safety_identifier": _TEXT,
    "seed": _INT,
    "stop": ((str, list, tuple), "a string or a list of strings"),
    "stream_options": _OBJECT,
    "temperature": _NUMBER,
    "thinking": _OBJECT,
    "tool_choice": ((str, Mapping), "a string or a mapping"),
    "top_logprobs": _INT,
    "top_p": _NUMBER,
    "user": _TEXT,
}


def outgoing_messages(
    messages: Iterable[ChatCompletionMessageParam], reasoning: tuple[str, ...] = codec.REASONING
) -> list[object]:
    """
    Messages ready to be encoded; objects from replies go back as they came. For `reasoning` see `codec.outgoing`.

    :raises ConfigurationError: if there are none.
    :raises TypeError: naming the message that is not one.
    """
    # Of a list nothing need be asked: whether it is a Mapping takes 0.3 µs to find out.
    kind: type[object] = type(messages)
    if kind is not list and isinstance(messages, (str, bytes, Mapping, BaseModel)):
        raise TypeError(
            f"messages must be a list of messages, not one {kind.__name__}; "
            'for a single question: [{"role": "user", "content": "…"}]'
        )
    out: list[object] = []
    as_it_is = reasoning == codec.REASONING
    try:
        for message in messages:
            kind = type(message)
            if as_it_is and kind is dict:
                out.append(message)
            elif isinstance(message, (dict, BaseModel)):
                out.append(codec.outgoing(message, reasoning))
            elif isinstance(message, Mapping) or hasattr(message, "model_dump"):  # pyright: ignore[reportUnnecessaryIsInstance]
                out.append(message)
            else:
                raise TypeError(
                    f"messages[{len(out)}] must be a mapping with a role, or a message from a reply; "
                    f"got {type(message).__name__}"
                )
    except TypeError as exc:
        if "messages[" in str(exc):
            raise
        raise TypeError(f"messages must be a list of messages, not {type(messages).__name__}") from None
    if not out:
        raise ConfigurationError("messages is empty: a chat needs at least one message")
    return out


def chat_body(
    method: str,
    messages: Iterable[ChatCompletionMessageParam],
    model: str,
    params: Mapping[str, object],
    stream: bool,
    extra_body: Any,
    provider: Provider | None = None,
    *,
    prefix: str | Mapping[str, object] | None = None,
    advise: bool = False,
) -> bytes:
    """The encoded request, its arguments checked as far as a wrong one can be known here."""
    if not isinstance(model, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"model must be a string such as 'kimi-k3', not {type(model).__name__}")
    if not model.strip():
        raise ConfigurationError("model is empty; client.models.list() says which there are")
    reasoning = codec.REASONING if provider is None else provider.request_reasoning
    body: dict[str, Any] = {"model": model, "messages": outgoing_messages(messages, reasoning)}
    if prefix is not None:
        body["messages"].append(prefix_message(prefix))
    for name, value in params.items():
        if not is_given(value):
            continue
        if name not in _KNOWN:
            raise unknown_argument(
                method, name, [*_KNOWN, "messages", "model", "stream", "timeout", "extra_body"]
            )
        expected = _TYPES.get(name)
        if (
            expected is not None
            and value is not None
            and (not isinstance(value, expected[0]) or (isinstance(value, bool) and expected is not _BOOL))
        ):
            raise TypeError(f"{name} must be {expected[1]}, not {type(value).__name__} ({value!r:.80})")
        if name == "response_format" and value is not None and not isinstance(value, Mapping):
            from ..schema.answers import response_format_of

            wanted = response_format_of(value)
            value = wanted.wire if wanted is not None else value
        if name == "tools" and value is not None and not isinstance(value, (list, tuple)):
            value = _listed(value)  # pyright: ignore[reportUnknownArgumentType]
        body[name] = value
    if stream:
        body["stream"] = True
    if extra_body is not None and is_given(extra_body):
        if not isinstance(extra_body, Mapping):
            raise TypeError(f"extra_body must be a mapping, not {type(extra_body).__name__}")
        body.update(cast("Mapping[str, object]", extra_body))
    if advise:
        if not WATCHED.isdisjoint(body):
            for told in certain_refusals(body):
                _warn(told)
        if body.get("tools"):
            from ..schema.refused import refused_tools

            for told in refused_tools(body["tools"]):
                _warn(told)
        for fault in refused_history(body["messages"], model, body.get("thinking")):
            _warn(fault.text)
    return codec.encode(body)


def _listed(tools: object) -> list[object]:
    kind = type(tools).__name__
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Iterable):
        raise TypeError(f"tools must be a list of tool definitions, not one {kind}")
    return list(cast("Iterable[object]", tools))


def _warn(text: str) -> None:
    """A warning that points at the caller's line, through however many of our own methods it came."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("kimi_async."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, KimiWarning, stacklevel=level)


def prefix_message(prefix: str | Mapping[str, object]) -> dict[str, Any]:
    """
    The beginning of an answer, as the message that makes Kimi go on with it (partial mode).

    :param prefix: its text; or a mapping with `content`, and if wanted `reasoning_content` and `name`.
    """
    if not isinstance(prefix, (str, Mapping)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"prefix must be a string or a mapping with content, not {type(prefix).__name__}")
    fields = {"content": prefix} if isinstance(prefix, str) else dict(prefix)
    if not fields.get("content") and not fields.get("reasoning_content") and not fields.get("name"):
        raise ConfigurationError("prefix is empty: an answer that begins with nothing needs none")
    return {"role": "assistant", "content": "", **fields, "partial": True}


def check_completion(completion: ChatCompletion, body: bytes, response: Response) -> None:
    """
    Some gateways put an error into a reply of status 200.

    :raises APIStatusError: of the class that the error's own words mean.
    :raises APIResponseValidationError: for a reply without choices.
    """
    choices = completion.choices
    if choices and not completion.error and not choices[0].error and choices[0].finish_reason != "error":
        return
    error: Any = completion.error
    if not error and choices:
        error = choices[0].error or {
            "message": "the answer ended with finish_reason 'error'",
            "type": "server_error",
        }
    if not error:
        value: Any = None
        fields: Any = None
        try:
            value = msgspec.json.decode(body)
            fields = codec.error_object(value)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass
        if fields is None:
            raise APIResponseValidationError(
                response,
                body[:4096].decode("utf-8", "replace"),
                message="the reply holds no choices; .body holds its first 4,096 bytes",
                # Something else altogether will come again; an answer without choices is a server's mishap.
                whole=bool(value) and "choices" not in value,
            )
        raise codec.error_in_stream(fields, response.headers, response.request, status=response.status)
    raise codec.error_in_stream({"error": error}, response.headers, response.request, status=response.status)


def read_completion(body: bytes, response: Response) -> ChatCompletion:
    """
    A whole reply as a completion, in whichever shape it came: also as events or as JSON lines, from servers that stream whatever
    they were asked.
    """
    start = body[:64].lstrip()
    if start[:1] == b"{" or not start.startswith((b"data:", b":", b"event:", b"id:", b"retry:")):
        try:
            return codec.decode_reply(body, ChatCompletion, response)
        except APIResponseValidationError:
            if not start.startswith(b"{") or b'"choices"' not in body:
                raise
            try:
                return folded(body, response)
            except APIResponseValidationError:
                pass
            raise
    return folded(body, response)


async def accept_completion(response: Response) -> ChatCompletion:
    """A whole reply as a completion, checked; what `request.accept` is for a chat that is not streamed."""
    await read_whole(response)
    body = response.content
    completion = read_completion(body, response)
    check_completion(completion, body, response)
    beside = held(completion)
    beside["_rid"] = response.request_id
    beside["_history"] = response.request.history
    response.usage = completion.usage
    return completion


async def accept_with_reply(response: Response) -> tuple[ChatCompletion, Response]:
    """The same, with the reply that it was read from."""
    return await accept_completion(response), response
