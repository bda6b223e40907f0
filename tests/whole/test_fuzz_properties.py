"""
Properties that hold for all inputs: cuts do not matter, folding undoes splitting, and only our own errors come out.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimi_async import AsyncKimi, KimiError
from kimi_async.codec import (
    SurrogateJoiner,
    decode_patiently,
    decode_reply,
    encode,
    error_from,
    error_in_stream,
    error_object,
)
from kimi_async.errors import APIError, APIResponseValidationError, ConfigurationError
from kimi_async.streaming.fold import Accumulator
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.testing.clock import run
from kimi_async.transport.exchange import Request
from kimi_async.types import ChatCompletion, ChatCompletionChunk

RELAXED = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))

texts = st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | texts
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def often(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values) | anything


functions = st.fixed_dictionaries(
    {}, optional={"name": often("f", ""), "arguments": often("{", '"a": 1}', "")}
)
fragments = st.fixed_dictionaries(
    {}, optional={"index": often(0, 1, None), "id": often("f:0", "f:1", ""), "type": often("function"), "function": functions | anything}
)  # fmt: skip
deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": often("assistant"),
        "content": often("Hel", "lo", "", None),
        "reasoning_content": often("Hm", "", None),
        "reasoning": often("Hm", None),
        "tool_calls": st.lists(fragments, max_size=2) | anything,
        "refusal": often("no", None),
    },
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": often(0, 0, 0, 1, "0", 0.0),
        "delta": deltas | anything,
        "finish_reason": often(None, None, None, "stop", "error", ""),
        "usage": anything,
        "error": anything,
        "logprobs": often(None, {"content": [{"token": "a"}]}),
    },
)
chunks = st.fixed_dictionaries(
    {},
    optional={
        "id": often("chatcmpl-1"),
        "created": often(1762748041, "1762748041", 1.5),
        "choices": st.lists(choices, max_size=2) | anything,
        "usage": often(None, {"prompt_tokens": 1}),
        "error": often(None, {"message": "boom"}, "boom"),
        "object": often("chat.completion.chunk", "error"),
        "message": anything,
        "detail": anything,
    },
)


def as_event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


lines = st.sampled_from(
    [b"data: [DONE]\n\n", b": hi\n", b"\n", b"\r\n", b"data:", b"event: ping\n", b"data: null\n\n", b"data: {\n",
     b'data: {"choices":[{"delta":{"content":"\\ud83c"}}]}\n\n', b'data: {"choices":[{"delta":{"content":"\\udf75"}}]}\n\n',
     b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
     b"\xef\xbb\xbf", b"\xff\xfe", b"<html>", b"{", b"[", b'{"error":"x"}', b"id: 1\n", b"retry: 9\n"]
)  # fmt: skip
streams = st.lists(chunks.map(as_event) | lines | st.binary(max_size=8), max_size=8).map(b"".join)


async def outcome(pieces: list[bytes], *, stream: bool = True) -> tuple[Any, ...]:
    async def handler(request: Request) -> Reply:
        return Reply(body=pieces)

    transport = MemoryTransport(handler)
    client = AsyncKimi(api_key="sk-test", transport=transport, max_retries=0)
    got: list[Any] = []
    try:
        answer: Any = await client.chat.completions.create(
            model="kimi-k3", messages=[{"role": "user", "content": "x"}], stream=stream
        )
        if stream:
            async with answer:
                async for chunk in answer:
                    got.append(repr(chunk))
            return got, repr(answer.snapshot()), None
        return repr(answer), None
    except KimiError as error:
        assert isinstance(error, APIError)  # noqa: PT017
        str(error).encode()  # whatever it says can be printed
        return got, repr(error.partial), type(error).__name__, error.chunks
    finally:
        assert 0 == transport.open


@RELAXED
@given(streams, st.lists(st.integers(0, 400), max_size=6))
def test_stream_of_any_bytes_however_cut(body: bytes, cuts: list[int]):
    """Any bytes at all give chunks, and then an end or one of our errors; the same however they are cut."""
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]

    async def both() -> None:
        assert await outcome([body]) == await outcome(pieces)
        assert await outcome([body]) == await outcome([body[i : i + 1] for i in range(len(body))])

    run(both())


@pytest.mark.filterwarnings("ignore:.*without a finish_reason")
@RELAXED
@given(streams | chunks.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
def test_reply_of_any_bytes(body: bytes):
    """A reply that is not streamed: a completion, or one of our errors."""
    run(outcome([body], stream=False))


@RELAXED
@given(st.binary(max_size=60) | chunks.map(lambda value: json.dumps(value).encode()))
def test_decode_raises_only_our_errors(data: bytes):
    """
    `decode_reply` gives an object or `APIResponseValidationError`; `decode_patiently` objects or ValueError.
    """
    for cls in (ChatCompletion, ChatCompletionChunk, dict, list, object, str, bytes):
        try:
            decode_reply(data, cls)
        except APIResponseValidationError:
            pass
    try:
        values = decode_patiently(data, ChatCompletionChunk)
    except ValueError:
        pass
    else:
        for value in values:
            value.model_dump_json().encode()  # no string in it is half a character


@RELAXED
@given(st.integers(300, 599), anything, st.binary(max_size=40))
def test_error_from_any_body(status: int, value: Any, raw: bytes):
    """Every failed reply is an error, whatever its body."""
    for body in (raw, json.dumps(value).encode(), json.dumps({"error": value}).encode()):
        error = error_from(status, {}, body)
        assert status == error.status_code
        str(error).encode()
    error_in_stream(error_object({"error": value}) or value, {})


contents = st.text(alphabet=st.characters(), max_size=40)


@RELAXED
@given(contents, contents, contents, st.data())
def test_accumulate_undoes_split(content: str, reasoning: str, arguments: str, data: st.DataObject):
    """An answer cut into deltas, however finely, and folded again is the answer."""

    def parts(text: str) -> list[str]:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
        edges = [0, *cuts, len(text)]
        return [text[a:b] for a, b in itertools.pairwise(edges)]

    events: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}}]
    events += [{"delta": {"reasoning_content": part}} for part in parts(reasoning)]
    events += [{"delta": {"content": part}} for part in parts(content)]
    for index in range(2):
        call = {
            "index": index,
            "id": f"f:{index}",
            "type": "function",
            "function": {"name": "f", "arguments": ""},
        }
        events.append({"delta": {"tool_calls": [call]}})
        events += [
            {"delta": {"tool_calls": [{"index": index, "function": {"arguments": part}}]}}
            for part in parts(arguments)
        ]
    events.append({"delta": {}, "finish_reason": "tool_calls", "usage": {"total_tokens": 3}})
    decoded = [ChatCompletionChunk.model_validate({"id": "c", "choices": [each]}) for each in events]
    singly, together = Accumulator(), Accumulator()
    for each in decoded:
        assert singly.add(each)
    assert len(decoded) == together.extend(decoded)

    for fold in (singly, together):
        completion = fold.completion()
        assert completion is not None
        message = completion.choices[0].message
        assert (content, reasoning) == (message.content, message.reasoning_content)
        assert message.tool_calls is not None
        assert [("f:0", arguments), ("f:1", arguments)] == [
            (call.id, call.function.arguments) for call in message.tool_calls
        ]
        assert (True, "tool_calls", 3) == (
            fold.finished,
            completion.choices[0].finish_reason,
            completion.usage and completion.usage.total_tokens,
        )


@RELAXED
@given(st.lists(st.text(alphabet="a🍵é\u2028", max_size=6), max_size=6))
def test_surrogates_joined(words: list[str]):
    """Text cut anywhere in UTF-16, as JavaScript servers cut it, comes out whole."""
    text = "".join(words)
    units = text.encode("utf-16-le")
    joiner = SurrogateJoiner()
    got = ""
    for i in range(0, len(units), 2):
        half = units[i : i + 2].decode("utf-16-le", "surrogatepass")
        last = i + 2 == len(units)
        raw = json.dumps(
            {"choices": [{"delta": {"content": half}, "finish_reason": "stop" if last else None}]}
        )
        for chunk in decode_patiently(raw, ChatCompletionChunk, joined=SurrogateJoiner.FIELDS):
            got += joiner.mend(chunk).choices[0].delta.content or ""

    assert text == got


@RELAXED
@given(anything)
def test_encode_anything(value: Any):
    """What JSON can hold is encoded; what it cannot is refused as a configuration error."""
    try:
        data = encode(value)
    except ConfigurationError:
        return
    json.loads(data)


@RELAXED
@given(chunks.map(json.dumps))
def test_reply_goes_back_as_it_came(text: str):
    """
    An object of a reply, sent back, is what the server sent: absent, null and "" stay apart, unknown fields stay.
    """
    message = {"role": "assistant", "content": None, "reasoning_content": "", "x_unknown": json.loads(text)}
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    try:
        completion = decode_reply(body, ChatCompletion)
    except APIResponseValidationError:
        return
    sent = completion.choices[0].message.to_dict()

    assert repr(message) == repr(sent) or "nan" in text.lower() or "inf" in text.lower()
