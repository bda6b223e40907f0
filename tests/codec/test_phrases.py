"""
What hosts say when they refuse is understood by its cause, row by row of the table, under every status it was met with.
"""

import json
from typing import Any

import pytest

from kimi_async import (
    APIStatusError,
    AuthenticationError,
    ContextLengthExceededError,
    InternalServerError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
)
from kimi_async.codec import error_from, error_in_stream
from kimi_async.codec.phrases import PHRASES, Phrase
from kimi_async.codec.refusals import RETRYABLE, classify
from kimi_async.errors import RequestTooLargeError
from kimi_async.middleware.retry.policy import NEVER
from kimi_async.transport.exchange import Headers, Request

CASES = [(row, status) for row in PHRASES for status in sorted(row.statuses)]


def body(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


def named(row: Phrase) -> str:
    return f"{row.kind}: {row.said[:40]}"


@pytest.mark.parametrize(("row", "status"), CASES, ids=[f"{status} {named(row)}" for row, status in CASES])
def test_phrase_means_its_cause(row: Phrase, status: int) -> None:
    """
    A phrase means the same under each status that it was met with.
    """
    expected = "quota" if status == 402 else row.kind

    assert expected == classify(status, {}, body(row.said)).kind


@pytest.mark.parametrize("row", PHRASES, ids=named)
def test_phrase_in_stream_means_its_cause(row: Phrase) -> None:
    """
    Inside a stream of status 200 it means the same.
    """
    assert row.kind == error_in_stream({"error": {"message": row.said}}, {}).kind


@pytest.mark.parametrize("row", PHRASES, ids=named)
def test_phrase_is_repeated_only_where_time_helps(row: Phrase) -> None:
    """
    Money, size and moderation are final; only a lack of capacity passes.
    """
    assert (row.kind in RETRYABLE) == (row.kind in ("overloaded", "unavailable"))
    assert (row.kind in NEVER) == (row.kind not in RETRYABLE)
    assert row.source


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": "Arrearage", "message": "Access denied."}, "quota"),
        (403, {"code": "AccountOverdueError", "message": "The request failed."}, "quota"),
        (400, {"type": "budget_exceeded", "message": "No more."}, "quota"),
        (429, {"type": "budget_exceeded", "message": "No more.", "code": "400"}, "quota"),
        (400, {"code": "data_inspection_failed", "message": "No."}, "content_filter"),
        (400, {"code": "InputTextSensitiveContentDetected", "message": "No."}, "content_filter"),
        (400, {"code": "SensitiveContentDetected.SevereViolation", "message": "No."}, "content_filter"),
        (400, {"message": "your plan is not active in this project's settings"}, "bad_request"),
        (400, {"message": "unknown field 'billing cycle'"}, "bad_request"),
        (
            429,
            {
                "message": "Rate limit reached for x on tokens per minute (TPM): Limit 6000, Used 5034, Requested 1443."
            },
            "rate_limit",
        ),
    ],
)
def test_code_and_common_words(status: int, error: dict[str, Any], kind: str) -> None:
    """
    A code decides as a phrase does, and common words decide nothing where a request may be quoted.
    """
    assert kind == classify(status, {}, json.dumps({"error": error}).encode()).kind


RAWS = [
    ("Insufficient balance", "quota", 402),
    ('{"error":{"message":"You exceeded your current quota","type":"insufficient_quota"}}', "quota", 429),
    ({"error": {"message": "This model's maximum context length is 8192 tokens."}}, "context_length", 400),
    ({"__kind": "OK", "data": '{"error":{"message":"Rate limit exceeded","type":"rate_limit_exceeded"}}'}, "rate_limit", 429),
    ('{"message":"Too many images: at most 5 images may be given"}', "bad_request", 400),
    ("prompt is too long: 208310 tokens > 200000 maximum", "context_length", 502),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "kind", "status"), RAWS, ids=[str(raw)[:40] for raw, _, _ in RAWS])
def test_gateway_names_the_host_behind_it(raw: Any, kind: str, status: int) -> None:
    """
    Where a gateway quotes the host behind it, that host's name and words are the message, and its cause the cause.
    """
    found = error_from(
        status,
        {},
        body("Provider returned error", code=status, metadata={"raw": raw, "provider_name": "BaseTen"}),
    )

    assert kind == found.kind
    assert "BaseTen" in found.message
    assert any(
        word in found.message for word in ("balance", "quota", "context", "Rate limit", "images", "too long")
    )


@pytest.mark.parametrize("status", [400, 413, 422])
def test_context_overflow_has_its_class(status: int) -> None:
    """
    A prompt that is too long is one error, whichever status a host chose.
    """
    assert isinstance(error_from(status, {}, body("Context length exceeded")), ContextLengthExceededError)


@pytest.mark.parametrize("status", [400, 402, 403, 412, 429, 500])
def test_money_has_its_class(status: int) -> None:
    """
    So is an account without money.
    """
    error = error_from(status, {}, body("Your credit balance is too low to access the API"))

    assert isinstance(error, QuotaExceededError)
    assert not error.retryable


@pytest.mark.parametrize("status", [413, 429])
def test_request_over_limit_is_final(status: int) -> None:
    """
    A request larger than a minute's limit is too large, and under 429 a rate limit as well; it is not repeated.
    """
    error = error_from(
        status, {}, body("Request too large for m on tokens per minute (TPM): Limit 6000, Requested 6294")
    )

    assert isinstance(error, RequestTooLargeError)
    assert (status == 429) == isinstance(error, RateLimitError)
    assert not error.retryable


def test_degraded_function_is_unavailable() -> None:
    """
    NIM's 400 for a function that is down is a server's fault, and repeated.
    """
    error = error_from(400, {}, body("DEGRADED function cannot be invoked"))

    assert isinstance(error, InternalServerError)
    assert error.retryable


def asked(url: str, key: str = "sk-1") -> Request:
    return Request("POST", url, headers=Headers({"Authorization": f"Bearer {key}"}))


@pytest.mark.parametrize(
    ("status", "request_", "kind", "word"),
    [
        (404, asked("https://h/v1/chat/completions/chat/completions"), NotFoundError, "leave that out"),
        (404, asked("https://h/chat/completions"), NotFoundError, "/v1"),
        (405, asked("https://h/api/chat/completions"), APIStatusError, "/v1"),
        (401, asked("https://h/v1/chat/completions", '"sk-1"'), AuthenticationError, "quotes"),
    ],
)
def test_hint_at_address_and_key(status: int, request_: Request, kind: type[Exception], word: str) -> None:
    """
    A wrong address or a quoted key is told where the refusal comes.
    """
    error = error_from(status, {}, body("Not found"), request_)

    assert isinstance(error, kind)
    assert word in error.message
    assert "sk-1" not in error.message


def test_no_hint_where_nothing_is_odd() -> None:
    """
    A right address is not suspected.
    """
    assert (
        "base_url"
        not in error_from(404, {}, body("no such model"), asked("https://h/v1/chat/completions")).message
    )
