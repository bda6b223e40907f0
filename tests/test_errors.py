"""
Every error: its place in the tree, its attributes, and that it survives pickling and copying.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import kimi_async.errors
from kimi_async import errors
from kimi_async.codec.faults import error_from
from kimi_async.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    Attempt,
    IncompleteStreamError,
    KimiError,
    RateLimitError,
    RequestInfo,
    ResponseInfo,
    StreamStalledError,
)
from kimi_async.transport.exchange import Headers, Request, Response
from kimi_async.types import ChatCompletion, CompletionUsage

REQUEST = Request(
    "POST", "https://user:pw@host/v1/x?secret=1", headers=Headers({"Authorization": "Bearer sk-x", "A": "1"})
)
RESPONSE = Response(429, {"Msh-Request-Id": "rid-1", "Set-Cookie": "c"}, request=REQUEST, body=b"{}")
COMPLETION = ChatCompletion.model_validate(
    {"id": "c", "choices": [{"message": {"content": "Hel", "x": 1}}], "usage": {"total_tokens": 3}}
)
ATTEMPTS = (Attempt(1, "server", 500, "server_error", "boom", 0.5, 0.1),)


def made(cls: type[KimiError]) -> KimiError:
    """
    An error of this class, every attribute of it set.
    """
    error: Any
    if issubclass(cls, APIStatusError):
        error = cls(
            "Error code: 429", response=RESPONSE, body={"message": "m", "code": 5, "type": "t", "param": "p"}
        )
    elif issubclass(cls, APIResponseValidationError):
        error = cls(RESPONSE, "text")
    elif issubclass(cls, APITimeoutError):
        error = cls(REQUEST, message="late", phase="idle", elapsed=1.5)
    elif issubclass(cls, APIConnectionError):
        error = cls(message="gone", request=REQUEST, phase="body", elapsed=1.5)
    elif cls is APIError:
        error = cls("odd", REQUEST, body=None)
    elif issubclass(cls, errors.RateLimitWaitError):
        error = cls("wait", eta=1.0, reason="rpm", limit=3.0)
    elif issubclass(cls, errors.CircuitOpenError):
        error = cls("open", cause="quota", retry_after=2.0, attempts=ATTEMPTS)
    elif hasattr(cls, "completion") or "FinishReason" in cls.__name__ or cls is errors.EmptyResponseError:
        error = cls(completion=COMPLETION)  # type: ignore[call-arg]
    else:
        error = cls("said")
    if isinstance(error, APIError):
        error.attempts = ATTEMPTS
        error.partial, error.chunks, error.bytes_received = COMPLETION, 3, 99
    return error


CLASSES = sorted(
    (each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, KimiError) and not each.__name__.startswith("_")),
    key=lambda cls: cls.__name__,
)  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_error_survives(cls: type[KimiError]):
    """
    Across processes and copies, with every attribute.
    """
    error = made(cls)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(error) is type(again)
        assert (str(error), repr(error), error.args) == (str(again), repr(again), again.args)
        assert {k: repr(v) for k, v in vars(error).items()} == {k: repr(v) for k, v in vars(again).items()}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_error_is_public_and_described(cls: type[KimiError]):
    """
    Each class is exported, documented, and knows whether a repetition can help.
    """
    assert cls.__name__ in kimi_async.errors.__all__
    assert cls.__doc__
    assert isinstance(cls.retryable, bool)


def test_tree():
    """
    `except` clauses written for the OpenAI SDK keep their meaning.
    """
    for cls in (
        errors.RateLimitReachedError,
        errors.TokensPerDayLimitError,
        errors.EngineOverloadedError,
        errors.QuotaExceededError,
    ):
        assert issubclass(cls, RateLimitError)
    assert issubclass(errors.ContentFilterError, errors.BadRequestError)
    assert issubclass(errors.ContextLengthExceededError, errors.BadRequestError)
    assert issubclass(IncompleteStreamError, APIConnectionError)
    assert issubclass(StreamStalledError, APITimeoutError)
    assert issubclass(APITimeoutError, APIConnectionError)
    assert not errors.TokensPerDayLimitError.retryable
    assert not errors.QuotaExceededError.retryable


def test_error_remembers_no_secret():
    """
    What it keeps of request and response has no key, cookie, query or user info.
    """
    error = made(errors.RateLimitError)
    assert isinstance(error, APIStatusError)

    assert RequestInfo("POST", "https://host/v1/x", {"a": "1"}) == error.request
    assert {"msh-request-id": "rid-1"} == error.headers
    assert isinstance(error.response, ResponseInfo)
    assert (429, "https://host/v1/x", "rid-1") == (
        error.response.status,
        error.response.url,
        error.request_id,
    )
    assert ("5", "t", "p") == (error.code, error.type, error.param)


def test_error_text_tells_the_attempts():
    """
    An error after repetitions says so.
    """
    error = APIConnectionError(message="gone")
    assert "gone" == str(error)
    error.attempts = ATTEMPTS

    assert "attempt 2" in str(error)


@pytest.mark.parametrize(
    ("headers", "id"),
    [
        ({"Msh-Request-Id": "a", "X-Request-Id": "b"}, "a"),
        ({"X-Request-Id": "b", "X-Msh-Trace-Id": "c"}, "b"),
        ({"X-Msh-Trace-Id": "c"}, "c"),
        ({"X-Trace-Id": "d"}, "d"),
        ({"X-Generation-Id": "e"}, "e"),
        ({"Msh-Request-Id": ""}, None),
        ({}, None),
    ],
)
def test_request_id(headers: dict[str, str], id: str | None):
    """
    Every name that Kimi or a gateway uses, the best first.
    """
    assert id == errors.request_id_from(Headers(headers))
    assert id == error_from(500, Headers(headers), b"").request_id


def test_body_of_an_error_is_redacted_however_deep():
    """
    Keys and account ids go out of nested bodies; what is nested deeper than any error is left out.
    """
    deep: Any = "sk-0123456789abcdef"
    for _ in range(3):
        deep = [{"a": deep}]
    assert "sk-…" in repr(APIError("x", body=deep).body)
    for _ in range(5000):
        deep = [deep]

    assert "0123456789" not in repr(APIError("x", body=deep).body)


def test_usage_in_length_error():
    """
    The message of a cut answer says what was spent.
    """
    completion = ChatCompletion(usage=CompletionUsage(completion_tokens=64))

    assert "after 64 tokens" in str(errors.LengthFinishReasonError(completion=completion))
    assert "budget" in str(errors.LengthFinishReasonError(completion=ChatCompletion()))
