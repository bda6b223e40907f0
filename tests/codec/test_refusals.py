"""
Every error body that Kimi and the gateways send, and every body they should not.
"""

import pickle

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_async.codec.refusals import RETRYABLE, classify

WHO = "Your account org-0123456789abcdef0123456789abcdef<ak-f1v2a3l4u5e6s7h8i9d0>"


def official(message: str, type_: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": type_}})


# status, body, kind. Types and texts as in platform.kimi.ai/docs/api/errors and the public reports of users.
OFFICIAL = [
    (400, official("Invalid request: unknown tool type: x", "invalid_request_error"), "bad_request"),
    (
        400,
        official("invalid temperature: only 1 is allowed for this model", "invalid_request_error"),
        "bad_request",
    ),
    (400, official("Input token length too long", "invalid_request_error"), "context_length"),
    (
        400,
        official("Invalid request: Your request exceeded model token limit: 262144", "invalid_request_error"),
        "context_length",
    ),
    (
        400,
        official("total message size 3000000 exceeds limit 2097152", "invalid_request_error"),
        "bad_request",
    ),
    (
        400,
        official("The request was rejected because it was considered high risk", "content_filter"),
        "content_filter",
    ),
    (
        400,
        official("The request was rejected because it was considered high risk", "invalid_request_error"),
        "content_filter",
    ),
    (401, official("Incorrect API key provided", "incorrect_api_key_error"), "auth"),
    (401, official("Invalid Authentication", "invalid_authentication_error"), "auth"),
    (403, official("The API you are accessing is not open", "permission_denied_error"), "permission"),
    (
        403,
        official("Your IP is not allowed to access this organization", "permission_denied_error"),
        "permission",
    ),
    (
        403,
        official(
            f"{WHO} is not active, organization <org-1> exceeded current quota, please check your plan and billing details",
            "exceeded_current_quota_error",
        ),
        "quota",
    ),
    (
        403,
        official(
            f"{WHO} is not active, current state: suspended, you may consider to check your account balance",
            "permission_denied_error",
        ),
        "quota",
    ),
    (404, official("Not found the model k9 or Permission denied", "resource_not_found_error"), "not_found"),
    (408, b"", "timeout"),
    (409, b"", "conflict"),
    (413, official("Request exceeds the maximum size", "invalid_request_error"), "too_large"),
    (
        429,
        official(
            f"{WHO} request reached organization max concurrency: 10, please try again after 1 seconds",
            "rate_limit_reached_error",
        ),
        "rate_limit",
    ),
    (
        429,
        official(
            "Organization Rate limit exceeded, please try again after 1 seconds", "rate_limit_reached_error"
        ),
        "rate_limit",
    ),
    (429, official("Your account reached max request", "rate_limit_reached_error"), "rate_limit"),
    (
        429,
        official(f"{WHO} request reached TPM rate limit, current:9, limit:7", "rate_limit_reached_error"),
        "rate_limit",
    ),
    (
        429,
        official(
            f"{WHO} request reached organization TPD rate limit, current: 1505241, limit: 1500000",
            "rate_limit_reached_error",
        ),
        "tpd",
    ),
    (
        429,
        official("The engine is currently overloaded, please try again later", "engine_overloaded_error"),
        "overloaded",
    ),
    (
        429,
        official(
            "You exceeded your current token quota: <org-1> 0, please check your account balance",
            "exceeded_current_quota_error",
        ),
        "quota",
    ),
    (
        429,
        official(
            f"{WHO} is suspended due to insufficient balance, please recharge your account or check your plan and "
            "billing details",
            "exceeded_current_quota_error",
        ),
        "quota",
    ),
    (
        429,
        official(
            "Account balance is insufficient or the account has been disabled", "rate_limit_reached_error"
        ),
        "quota",
    ),
    (429, official("Token quota is insufficient", "rate_limit_reached_error"), "quota"),
    (499, official("", "client_closed_request"), "bad_request"),
    (500, official("Failed to extract file: x", "server_error"), "server"),
    (500, official("could not parse", "unexpected_output"), "server"),
    (503, official("", "server_unavailable"), "unavailable"),
    (529, b"", "gateway"),
]

# www.kimi.com/code/docs/en/kimi-code/error-reference.html, github.com/Astro-Han/pawwork/issues/740
KIMI_CODE = [
    (402, official("unable to verify your membership benefits", "x"), "quota"),
    (
        403,
        official("Kimi For Coding is currently only available for Coding Agents", "access_terminated_error"),
        "permission",
    ),
    (
        403,
        official("You've reached your usage limit for this billing cycle", "access_terminated_error"),
        "quota",
    ),
    (403, official("You've reached your 5-hour usage limit", "access_terminated_error"), "quota"),
    (403, official("You've reached your weekly (7-day) usage limit", "x"), "quota"),
    (403, official("You've reached your concurrent request limit", "permission_denied_error"), "rate_limit"),
    (429, official("The engine is currently overloaded", "rate_limit_error"), "overloaded"),
    (
        429,
        official(
            "We're receiving too many requests at the moment. Please wait a moment and try again.",
            "rate_limit_error",
        ),
        "overloaded",
    ),
    (
        429,
        official(
            "You've reached your usage limit for this period. Your quota will be refreshed in the next period.",
            "rate_limit_error",
        ),
        "quota",
    ),
    (400, official("exceeded model token limit: 262144", "invalid_request_error"), "context_length"),
    (500, official("bot_id 1: value does not match id_kinds", "server_error"), "server"),
]


def acedata(code: str, message: str) -> bytes:
    return msgspec.json.encode(
        {"success": False, "error": {"code": code, "message": message}, "trace_id": "t-1"}
    )


def nest(status: object, message: object) -> bytes:
    return msgspec.json.encode(
        {"message": message, "path": "/v1/chat/completions", "requestId": "r-1", "statusCode": status}
    )


def openrouter(code: object, message: str, error_type: str | None = None, **metadata: object) -> bytes:
    if error_type:
        metadata["error_type"] = error_type
    return msgspec.json.encode({"error": {"code": code, "message": message, "metadata": metadata}})


GATEWAYS = [
    (400, acedata("token_mismatched", "no"), "auth"),
    (400, acedata("api_not_implemented", "no"), "bad_request"),
    (401, acedata("invalid_token", "no"), "auth"),
    (403, acedata("used_up", "no"), "quota"),
    (429, acedata("too_many_requests", "slow"), "rate_limit"),
    (500, acedata("api_error", "fetch failed"), "server"),
    (400, nest(400, ["Body validation error", "messages must be an array"]), "bad_request"),
    (401, nest("401", "This request requires a valid API key"), "auth"),
    (403, nest(403, "You've run out of credits. Please top up"), "quota"),
    (429, nest("429", "Too Many Requests"), "rate_limit"),
    (500, nest(500, "Something wrong with the server. Please, try again later."), "server"),
    (502, nest(502, "Bad Gateway"), "gateway"),
    (503, nest(503, "Service unavailable"), "unavailable"),
    (504, nest(504, "Generation timeout"), "gateway"),
    (402, openrouter(402, "Insufficient credits"), "quota"),
    (403, openrouter(403, "flagged", flagged_input="x", reasons=["y"]), "content_filter"),
    (403, openrouter(403, "no", "permission_denied"), "permission"),
    (429, openrouter(429, "Rate limit exceeded", "rate_limit_exceeded", provider_code="x"), "rate_limit"),
    (502, openrouter(502, "Provider disconnected", "provider_unavailable"), "gateway"),
    (503, openrouter(503, "none", "provider_overloaded"), "overloaded"),
    (400, openrouter(400, "long", "context_length_exceeded"), "context_length"),
    # vLLM, new and old; 401 as a bare string
    (400, b'{"error":{"message":"bad","type":"BadRequestError","param":null,"code":400}}', "bad_request"),
    (
        400,
        b'{"object":"error","message":"bad","type":"BadRequestError","param":null,"code":400}',
        "bad_request",
    ),
    (
        400,
        b'{"object":"error","message":"This model\'s maximum context length is 4096 tokens.","code":400}',
        "context_length",
    ),
    (401, b'{"error":"Unauthorized"}', "auth"),
    (404, b'{"detail":"Not Found"}', "not_found"),
    (
        422,
        b'{"detail":[{"loc":["body","messages"],"msg":"Field required","type":"missing"}]}',
        "unprocessable",
    ),
    # OpenAI's own, repeated by relays
    (
        400,
        b'{"error":{"message":"x","type":"invalid_request_error","code":"context_length_exceeded"}}',
        "context_length",
    ),
    (429, b'{"error":{"message":"x","type":"insufficient_quota","code":"insufficient_quota"}}', "quota"),
    (403, b'{"error":{"message":"x","type":"new_api_error","code":"insufficient_user_quota"}}', "quota"),
    # Google's list, one-api's doubled envelope, and an upstream body inside a message
    (503, b'[{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}]', "unavailable"),
    (500, b'{"error":{"error":{"message":"m","type":"engine_overloaded_error"}}}', "overloaded"),
    (
        500,
        b'{"error":{"message":"{\\"error\\":{\\"message\\":\\"m\\",\\"type\\":\\"engine_overloaded_error\\"}}"}}',
        "overloaded",
    ),
]

IN_STREAM = [
    (
        official("The engine is currently overloaded, please try again later", "engine_overloaded_error"),
        "overloaded",
    ),
    (official("insufficient balance", "x"), "quota"),
    (b'{"error":{"message":"m"}}', "server"),
    (b'{"error":"boom"}', "server"),
    (b'{"object":"error","message":"m","type":"BadRequestError","code":400}', "bad_request"),
    (
        b'{"id":"gen-1","choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}],'
        b'"error":{"code":502,"message":"Provider disconnected","metadata":{"error_type":"provider_unavailable"}}}',
        "gateway",
    ),
    (b'{"choices":[],"error":{"code":"server_error","message":"m"}}', "server"),
    (b'{"choices":[{"finish_reason":"error","error":{"code":429,"message":"m"}}]}', "rate_limit"),
]


@pytest.mark.parametrize(("status", "body", "kind"), OFFICIAL + KIMI_CODE + GATEWAYS)
def test_classify_known_reply(status: int, body: bytes, kind: str) -> None:
    """
    The cause is found in every reply that a server is known to send, and decides whether to repeat.
    """
    shape = classify(status, {}, body)

    assert kind == shape.kind
    assert (kind in RETRYABLE) == shape.retryable
    assert shape.message


@pytest.mark.parametrize(("body", "kind"), IN_STREAM)
def test_classify_error_inside_stream(body: bytes, kind: str) -> None:
    """
    Under status 200 the body alone tells the cause; one that tells nothing is a server's fault.
    """
    assert kind == classify(200, {}, body).kind


def test_classify_official_fields() -> None:
    """
    Message, type, limit, hint and request id come out of a captured rate-limit reply.
    """
    headers = {"msh-request-id": "e1c6b6b8", "retry-after": "1"}
    body = official(
        f"{WHO} request reached organization max RPM: 3, please try again after 1 seconds",
        "rate_limit_reached_error",
    )

    shape = classify(429, headers, body)

    assert shape.message.startswith("Your account org-")
    assert "rate_limit_reached_error" == shape.type
    assert ("rpm", 3) == (shape.limit.dimension, shape.limit.limit) if shape.limit else None
    assert 1.0 == shape.retry_after
    assert "e1c6b6b8" == shape.request_id
    assert msgspec.json.decode(body)["error"] == shape.body


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (500, acedata("api_error", "fetch failed"), ("fetch failed", None, "api_error", "t-1")),
        (429, nest("429", "Too Many Requests"), ("Too Many Requests", None, "429", "r-1")),
        (
            429,
            openrouter(429, "slow", "rate_limit_exceeded"),
            ("slow", "rate_limit_exceeded", "429", None),
        ),
        (400, b'{"object":"error","message":"m","type":"T","code":400}', ("m", "T", "400", None)),
        (401, b'{"error":"Unauthorized"}', ("Unauthorized", None, None, None)),
        (404, b'{"detail":"Not Found"}', ("Not Found", None, None, None)),
        (
            422,
            b'{"detail":[{"loc":["body",0],"msg":"Field required"},{"loc":["query"],"msg":"n"}]}',
            ("body.0: Field required; query: n", None, None, None),
        ),
        (400, nest(400, ["a", "b"]), ("a; b", None, "400", "r-1")),
        (500, b'"just a string"', ("just a string", None, None, None)),
        (500, b"plain text", ("plain text", None, None, None)),
        (500, b"\xef\xbb\xbf plain text\r\n", ("plain text", None, None, None)),
        (
            504,
            b"<html><head><title>504 Gateway\n Time-out</title></head>x</html>",
            ("504 Gateway Time-out", None, None, None),
        ),
        (502, b"<HTML><TITLE>502 Bad Gateway</TITLE>", ("502 Bad Gateway", None, None, None)),
        (502, b"<h1>Bad</h1>", ("Bad", None, None, None)),
        (520, b"<p>web server <b>error</b></p>", ("web server error", None, None, None)),
        (429, b"", ("Too Many Requests (empty reply)", None, None, None)),
        (418, b"null", ("no message (empty reply)", None, None, None)),
        (500, b'{"error":{"message":"half \\ud83c here","type":"t"}}', ("half \ufffd here", "t", None, None)),
        (500, b'{"error":{"message":"NaN ok","code":NaN,"type":"t"}}', ("NaN ok", "t", None, None)),
        (
            429,
            b'{"error":{"message":"The engine is curr\\u0065ntly ov',
            ("The engine is currently ov", None, None, None),
        ),
    ],
)
def test_classify_fields_by_envelope(
    status: int, body: bytes, expected: tuple[str, str | None, str | None, str | None]
) -> None:
    """
    Each envelope gives up its message, type, code and request id.
    """
    shape = classify(status, {}, body)

    assert expected == (shape.message, shape.type, shape.code, shape.request_id)


def test_classify_truncated_body_keeps_type() -> None:
    """
    A reply cut off in its middle is still known by the type that had arrived.
    """
    body = b'{"error":{"type":"exceeded_current_quota_error","message":"Your account'

    assert "quota" == classify(429, {}, body).kind


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("FALSE", False), ("perhaps", True)])
def test_classify_x_should_retry_wins(value: str, expected: bool) -> None:
    """
    The server's own verdict beats the kind; anything but true and false is no verdict.
    """
    assert expected is classify(500, {"x-should-retry": value}, b"").retryable
    assert (value == "true") is classify(400, {"x-should-retry": value}, b"").retryable


def test_classify_twice_gives_two_bodies() -> None:
    """
    What one caller does to the body of an error is not seen by the next, though both replies were alike.
    """
    first = classify(500, {}, official("m", "server_error"))
    assert isinstance(first.body, dict)
    first.body["message"] = "changed"

    assert {"message": "m", "type": "server_error"} == classify(500, {}, official("m", "server_error")).body


@pytest.mark.parametrize("headers", [{}, {"retry-after": "9"}, {"retry-after": "2"}])
def test_classify_hint_of_text_and_headers(headers: dict[str, str]) -> None:
    """
    The longer of both hints counts, whichever reply of this text came before with other headers.
    """
    body = official("please try again after 5 seconds", "rate_limit_reached_error")

    assert max(5.0, float(headers.get("retry-after", 0))) == classify(429, headers, body).retry_after


def test_classify_enormous_message_is_cut() -> None:
    """
    A message of a megabyte does not travel through logs and tracebacks.
    """
    shape = classify(500, {}, official("x" * 1_000_000, "server_error"))

    assert 4_001 == len(shape.message)


def test_classify_rate_limit_words_in_bad_request() -> None:
    """
    A 400 whose text happens to speak of quotas is a bad request: the user's prompt may be quoted in it.
    """
    body = official(
        "Invalid request: message 'check your account balance' is malformed", "invalid_request_error"
    )

    assert "bad_request" == classify(400, {}, body).kind


def test_classify_shape_pickles() -> None:
    """
    A shape can cross to another process.
    """
    shape = classify(429, {}, OFFICIAL[17][1])

    assert shape == pickle.loads(pickle.dumps(shape))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "type", "code", "detail", "choices", "errors", "metadata", "msg", "loc"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(100, 999), JSON)
def test_classify_any_json_gives_a_shape(status: int, value: object) -> None:
    """
    No JSON makes it raise, and every text in the shape can be encoded.
    """
    import json

    shape = classify(status, {}, json.dumps(value).encode())

    shape.message.encode()
    for text in (shape.type, shape.code, shape.param, shape.request_id):
        assert text is None or text.encode() is not None


@settings(max_examples=120, deadline=None)
@given(st.integers(100, 999), st.binary(max_size=200))
def test_classify_any_bytes_give_a_shape(status: int, body: bytes) -> None:
    """
    No bytes make it raise.
    """
    classify(status, {}, body).message.encode()


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"error":' * 50_000, b'{"code":' + b"9" * 5_000 + b"}"])
def test_classify_hostile_json(body: bytes) -> None:
    """
    Endless nesting and endless digits are an unreadable body, not a RecursionError or ValueError.
    """
    assert "server" == classify(500, {}, body).kind


@pytest.mark.parametrize("cut", range(0, len(OFFICIAL[17][1]) + 1, 7))
def test_classify_every_cut_of_429(cut: int) -> None:
    """
    However short the body of a 429 was cut, it is a 429 that can be repeated.
    """
    assert "rate_limit" == classify(429, {}, OFFICIAL[17][1][:cut]).kind
