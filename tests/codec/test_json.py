"""
JSON in and out, leniency by leniency, and errors by status and text.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any

import msgspec
import pytest

from kimi_async import (
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    ContentFilterError,
    ContextLengthExceededError,
    EngineOverloadedError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RateLimitReachedError,
    RequestTooLargeError,
    TokensPerDayLimitError,
    UnprocessableEntityError,
)
from kimi_async.codec import (
    SurrogateJoiner,
    decode_chunk,
    decode_patiently,
    decode_reply,
    encode,
    error_from,
    error_in_stream,
    error_object,
    outgoing,
)
from kimi_async.types import ChatCompletion, ChatCompletionChunk


def content(data: bytes | str) -> list[str | None]:
    return [value.choices[0].delta.content for value in decode_patiently(data, ChatCompletionChunk)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b'\xef\xbb\xbf{"choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b'{"choices":[{"delta":{"content":"a"}}]}{"choices":[{"delta":{"content":"b"}}]}', ["a", "b"]),
        (b'{"choices":[{"delta":{"content":"a"}}]}, \n{"choices":[{"delta":{"content":"b"}}]}', ["a", "b"]),
        (b'{"choices":[{"delta":{"content":"a\xff"}}]}', ["a\ufffd"]),
        (b'{"choices":[{"delta":{"content":"\\ud83c"}}]}', ["\ufffd"]),
        (b'{"choices":[{"delta":{"content":"\\ud83c\\udf75"}}]}', ["🍵"]),
        (b'{"choices":[{"delta":{"content":"\\udf75\\ud83c"}}]}', ["\ufffd\ufffd"]),
        (b'{"created":"17","choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b'{"created":17.0,"choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b'{"created":17.5,"choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b'{"created":1e3,"choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b'{"created":null,"id":null,"model":null,"choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b'{"x":NaN,"y":Infinity,"choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b'{"x":' + b"9" * 5000 + b',"choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b'{"created":1e999,"choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b'{"created":[1],"choices":[{"delta":{"content":"a"}}]}', ["a"]),
        (b"null", []),
        (b"", []),
        (b" \n", []),
    ],
)
def test_decode_patiently_takes(data: bytes, expected: list[str]):
    """
    Each leniency was met on a real server, and decided for.
    """
    assert expected == content(data)


@pytest.mark.parametrize(
    "data",
    [b"oops", b'{"a":', b'"text"', b"[1]", b"17", b"true", b'{"choices":5}', b'{"choices":[{"delta":"a"}]}',
     b"[" * 100_000, b'{"choices":[7]}', b'{"choices":[{"delta":{"content":{"a":1}}}]}'],
)  # fmt: skip
def test_decode_patiently_refuses(data: bytes):
    """
    What is no chunk is a ValueError, whatever is wrong with it.
    """
    with pytest.raises(ValueError):  # noqa: PT011
        decode_patiently(data, ChatCompletionChunk)


def test_decode_chunk_hot_path_is_strict():
    """
    The quick decoder takes bytes and views alike, and leaves leniency to the patient one.
    """
    data = b'{"id":"c","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}],"unknown":1}'

    assert decode_chunk(data) == decode_chunk(memoryview(data))
    with pytest.raises(msgspec.ValidationError):
        decode_chunk(b'{"created":"17"}')


def test_joiner_holds_halves_per_choice_and_field():
    """
    Halves of different choices and fields are not mixed up, and a held half is let go at the end.
    """
    joiner = SurrogateJoiner()

    def mended(**delta: str) -> dict[str, Any]:
        index, finish = int(delta.pop("index", "0")), delta.pop("finish", None)
        raw = json.dumps({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}).encode()
        (chunk,) = decode_patiently(raw, ChatCompletionChunk, joined=SurrogateJoiner.FIELDS)
        given = joiner.mend(chunk).choices[0].delta
        return {name: getattr(given, name) for name in delta}

    assert {"content": "a"} == mended(content="a\ud83c")
    assert joiner.holding
    assert {"reasoning_content": "b"} == mended(reasoning_content="b\ud83c")
    assert {"content": "c"} == mended(content="c\ud83d", index="1")
    assert {"content": "🍵"} == mended(content="\udf75")
    assert {"reasoning_content": "🍵"} == mended(reasoning_content="\udf75")
    assert {"content": "\ufffdd"} == mended(content="d", index="1", finish="stop")
    assert not joiner.holding


def test_decode_reply_casts():
    """
    `str`, `bytes`, plain data, dataclasses, structs, and nothing.
    """

    @dataclasses.dataclass
    class Point:
        x: int

    assert "é" == decode_reply("é".encode(), str)
    assert b"\xff" == decode_reply(b"\xff", bytes)
    assert {"a": [1]} == decode_reply(b'{"a": [1]}', object)
    assert {"a": 1} == decode_reply(b'{"a": 1}', dict)
    assert Point(1) == decode_reply(b'{"x": 1, "y": 2}', Point)
    assert decode_reply(b"whatever", type(None)) is None


@pytest.mark.parametrize(
    ("body", "told"),
    [(b"", "empty"), (b"  ", "empty"), (b"<html>", "HTML"), (b"ok", "not JSON"), (b'{"a"', "ChatCompletion"), (b"[]", "ChatCompletion")],
)  # fmt: skip
def test_decode_reply_refuses(body: bytes, told: str):
    """
    The error says what it was, and keeps the text.
    """
    with pytest.raises(APIResponseValidationError, match=told) as caught:
        decode_reply(body, ChatCompletion)

    assert body.decode() == caught.value.body
    assert caught.value.__cause__ is None


class Foreign:
    def model_dump(self, **_: Any) -> dict[str, Any]:
        return {"role": "user", "content": "from afar"}


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ({"a": None, "b": ""}, b'{"a":null,"b":""}'),
        ({"m": Foreign()}, b'{"m":{"role":"user","content":"from afar"}}'),
        ({"m": (x for x in (1, 2))}, b'{"m":[1,2]}'),
        ({"m": {"é": "\u2028"}}, '{"m":{"é":"\u2028"}}'.encode()),
        ([msgspec.UNSET], None),
    ],
)
def test_encode(value: Any, data: bytes | None):
    """
    Dicts as they are, foreign models by their `model_dump`, iterables as lists.
    """
    if data is None:
        with pytest.raises(ConfigurationError):
            encode(value)
    else:
        assert data == encode(value)


@pytest.mark.parametrize("value", [{"a": object()}, {"a": "\ud83c"}, {"a": {1, 2}, ("b",): 1}, {"a": 1j}])
def test_encode_refuses(value: Any):
    """
    What JSON cannot hold is refused before anything is sent.
    """
    with pytest.raises(ConfigurationError):
        encode(value)


def test_encode_a_circle():
    """
    A structure that holds itself is refused, not a crash.
    """
    circle: dict[str, Any] = {}
    circle["me"] = circle
    with pytest.raises(ConfigurationError):
        encode(circle)


def test_outgoing_keeps_what_came():
    """
    A message of a reply goes back with null, "" and unknown fields as they came, and without what did not come.
    """
    body = b'{"choices":[{"index":0,"message":{"role":"assistant","content":null,"reasoning_content":"","x":1},"finish_reason":"stop"}]}'
    message = decode_reply(body, ChatCompletion).choices[0].message

    assert {"role": "assistant", "content": None, "reasoning_content": "", "x": 1} == msgspec.json.decode(
        encode(outgoing(message))
    )


ORG = "org-0123456789abcdef0123456789abcdef<ak-0123456789abcdefghij>"


def kimi(message: str, type: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": type}}


ERRORS: list[tuple[int, Any, type[APIStatusError]]] = [
    (400, kimi("Invalid request: unknown tool type", "invalid_request_error"), BadRequestError),
    (400, kimi("Input token length too long", "invalid_request_error"), ContextLengthExceededError),
    (400, kimi("Invalid request: Your request exceeded model token limit: 262144", "invalid_request_error"), ContextLengthExceededError),
    (400, kimi("The request was rejected because it was considered high risk", "content_filter"), ContentFilterError),
    (401, kimi("Incorrect API key provided", "incorrect_api_key_error"), AuthenticationError),
    (401, kimi("Invalid Authentication", "invalid_authentication_error"), AuthenticationError),
    (403, kimi("The API you are accessing is not open", "permission_denied_error"), PermissionDeniedError),
    (403, kimi(f"Your account {ORG} is not active, exceeded current quota", "exceeded_current_quota_error"), QuotaExceededError),
    (404, kimi("Not found the model kimi-k9 or Permission denied", "resource_not_found_error"), NotFoundError),
    (409, {}, ConflictError),
    (413, kimi("Request exceeds the maximum size", "invalid_request_error"), RequestTooLargeError),
    (422, {"detail": [{"msg": "field required"}]}, UnprocessableEntityError),
    (429, kimi(f"Your account {ORG} request reached organization max concurrency: 3, please try again after 1 seconds", "rate_limit_reached_error"), RateLimitReachedError),
    (429, kimi(f"Your account {ORG} request reached organization max RPM: 3, please try again after 1 seconds", "rate_limit_reached_error"), RateLimitReachedError),
    (429, kimi(f"Your account {ORG} request reached organization TPD rate limit, current: 1505241, limit: 1500000", "rate_limit_reached_error"), TokensPerDayLimitError),
    (429, kimi("The engine is currently overloaded, please try again later", "engine_overloaded_error"), EngineOverloadedError),
    (429, kimi("You exceeded your current token quota, please check your account balance", "exceeded_current_quota_error"), QuotaExceededError),
    (429, {"success": False, "error": {"code": "too_many_requests", "message": "x"}, "trace_id": "t"}, RateLimitError),
    (402, {"error": {"code": 402, "message": "Insufficient credits"}}, QuotaExceededError),
    (500, kimi("Failed to extract file", "server_error"), InternalServerError),
    (500, {"success": False, "error": {"code": "api_error", "message": "fetch failed"}}, InternalServerError),
    (502, None, InternalServerError),
    (503, kimi("x", "server_unavailable"), InternalServerError),
    (504, "<html>", InternalServerError),
    (524, "<html>", InternalServerError),
    (529, None, InternalServerError),
    (418, "teapot", APIStatusError),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "cls"), ERRORS)
def test_error_from(status: int, body: Any, cls: type[APIStatusError]):
    """
    The class tells the cause, whoever sent it; the text hides account ids; the error pickles.
    """
    raw = b"" if body is None else body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    error = error_from(status, {"msh-request-id": "rid-1"}, raw)

    assert isinstance(error, cls)
    assert type(error) is cls or cls is RateLimitError or cls is APIStatusError
    assert (status, "rid-1") == (error.status_code, error.request_id)
    assert f"Error code: {status} - " in str(error)
    assert "0123456789abcdef" not in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error), vars(error)) == (type(again), str(again), vars(again))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"error": {"message": "x"}}, True),
        ({"error": "x"}, True),
        ({"error": None, "choices": []}, False),
        ({"object": "error", "message": "x"}, True),
        ({"success": False}, True),
        ({"success": True}, False),
        ({"detail": "x"}, True),
        ({"detail": "x", "choices": [{}]}, False),
        ({"message": "x", "statusCode": 500}, True),
        ({"message": "x"}, False),
        ({"choices": [{"error": {"message": "x"}}]}, True),
        ({"choices": [{"error": None}, 5, None]}, False),
        ({"choices": 5}, False),
        ([], False),
        ("error", False),
        (None, False),
    ],
)
def test_error_object(value: Any, found: bool):
    """
    Every shape in which errors come under status 200, and none else.
    """
    assert found == (error_object(value) is not None)


def test_error_in_stream_takes_its_status_from_the_event():
    """
    Under 200 the number in the event is the status that the reply could no longer have.
    """
    error = error_in_stream({"error": {"code": 429, "message": "slow down"}}, {})

    assert isinstance(error, RateLimitError)
    assert 200 == error.status_code


@pytest.mark.parametrize("odd", ["\ud83c", 10**400, object(), float("nan")])
def test_error_in_stream_of_anything(odd: Any):
    """
    Whatever an error holds, it is raised as one.
    """
    assert isinstance(error_in_stream({"error": {"message": "boom", "x": odd}}, {}), APIStatusError)
