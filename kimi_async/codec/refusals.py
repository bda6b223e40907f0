"""
What a failed reply means, whoever sent it.

`classify` turns status, headers and body into an `ErrorShape`: the server's words taken out of whichever
envelope they came in, and one word for the cause, the same for every gateway. Pure, and total: no body can make
it raise.

Kimi sends `{"error": {"message", "type"}}` and, from its edge, HTML; the envelopes of AceData, AIMLAPI, OpenRouter, vLLM, SGLang
and FastAPI differ, and so do their words for the same thing. Status alone does not tell them apart: one 429
may mean "in a second", "not today" or "not before you pay" (platform.kimi.ai/docs/api/errors), and an error
inside a stream comes under 200. So the type decides where it is specific, then the text, then the status.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import msgspec

from ..errors import request_id_from
from .phrases import meant
from .waits import LimitTold, limit_told, retry_after

__all__ = ["RETRYABLE", "ErrorShape", "Kind", "classify", "should_retry"]

Kind = Literal[
    "rate_limit",  # concurrency, requests or tokens a minute
    "tpd",  # tokens or requests a day
    "overloaded",  # no capacity
    "quota",  # money, or a plan used up
    "content_filter",
    "context_length",
    "auth",
    "permission",
    "not_found",
    "too_large",
    "unprocessable",
    "bad_request",
    "conflict",  # 409
    "timeout",  # 408
    "unavailable",  # 503
    "gateway",  # 502, 504, 520–530: something between us and the server
    "server",  # any other 5xx, and errors in a stream that say no more
    "redirect",
]

RETRYABLE: frozenset[Kind] = frozenset(
    {"rate_limit", "overloaded", "conflict", "timeout", "unavailable", "gateway", "server"}
)
"""Kinds for which sending the same request again can help."""

# A body larger than this is not an error message. It is still searched, from the front.
DECODED = 1 << 20
SEARCHED = 1 << 14
LONGEST_MESSAGE = 4_000


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """One failed reply, in words common to all gateways."""

    message: str
    """The server's own text, without its envelope; a phrase for the status where it sent none. Not redacted."""
    kind: Kind
    type: str | None = None
    """`error.type`, or what the gateway sends in its place (OpenRouter: `metadata.error_type`)."""
    code: str | None = None
    """`error.code`; integers as digits."""
    param: str | None = None
    request_id: str | None = None
    """From the headers, else from the body (`trace_id`, `requestId`)."""
    body: object | None = None
    """The decoded inner error object, or the text if there is none, or None if the body is empty."""
    limit: LimitTold | None = None
    """For `rate_limit` and `tpd`: the limit named in the text."""
    retry_after: float | None = None
    """Seconds the server asks us to wait, in whichever form it says so."""
    retryable: bool = False
    """Whether to send it again; `x-should-retry` decides where the server sends it, else the kind."""


_TYPES: dict[str, Kind] = {
    # Kimi: platform.kimi.ai/docs/api/errors
    "rate_limit_reached_error": "rate_limit",
    "engine_overloaded_error": "overloaded",
    "exceeded_current_quota_error": "quota",
    "content_filter": "content_filter",
    "incorrect_api_key_error": "auth",
    "invalid_authentication_error": "auth",
    "permission_denied_error": "permission",
    "access_terminated_error": "permission",
    "resource_not_found_error": "not_found",
    "server_unavailable": "unavailable",
    "server_error": "server",
    "unexpected_output": "server",
    "invalid_request_error": "bad_request",
    # Anthropic's face of Kimi, and OpenAI's words, which relays repeat
    "rate_limit_error": "rate_limit",
    "rate_limit_exceeded": "rate_limit",
    "tokens": "rate_limit",
    "requests": "rate_limit",
    "overloaded_error": "overloaded",
    "insufficient_quota": "quota",
    "billing_error": "quota",
    "billing_hard_limit_reached": "quota",
    "billing_not_active": "quota",
    "content_policy_violation": "content_filter",
    "context_length_exceeded": "context_length",
    "invalid_api_key": "auth",
    "authentication_error": "auth",
    "permission_error": "permission",
    "not_found_error": "not_found",
    "model_not_found": "not_found",
    "request_too_large": "too_large",
    "timeout_error": "timeout",
    "internal_server_error": "server",
    "api_error": "server",
    # one-api and new-api relays
    "insufficient_user_quota": "quota",
    "pre_consume_token_quota_failed": "quota",
    # AceData: docs.acedata.cloud
    "too_many_requests": "rate_limit",
    "invalid_token": "auth",
    "token_mismatched": "auth",
    "used_up": "quota",
    "api_not_implemented": "bad_request",
    # OpenRouter: openrouter.ai/docs/api/reference/errors-and-debugging, metadata.error_type
    "provider_overloaded": "overloaded",
    "provider_unavailable": "gateway",
    "payment_required": "quota",
    "authentication": "auth",
    "permission_denied": "permission",
    "not_found": "not_found",
    "payload_too_large": "too_large",
    "max_tokens_exceeded": "context_length",
    "token_limit_exceeded": "context_length",
    "string_too_long": "bad_request",
    "invalid_request": "bad_request",
    "invalid_prompt": "bad_request",
    "precondition_failed": "bad_request",
    "unprocessable": "unprocessable",
    "refusal": "content_filter",
    "timeout": "timeout",
    "server": "server",
    # Together
    "dynamic_request_limited": "rate_limit",
    "dynamic_token_limited": "rate_limit",
    # DashScope: help.aliyun.com/zh/model-studio/error-code
    "arrearage": "quota",
    "data_inspection_failed": "content_filter",
    "datainspectionfailed": "content_filter",
    # Volcengine: www.volcengine.com/docs/82379/1299023
    "accountoverdueerror": "quota",
    # LiteLLM: docs.litellm.ai/docs/proxy/error_reference
    "budget_exceeded": "quota",
    # vLLM and SGLang name Python classes
    "badrequesterror": "bad_request",
    "notfounderror": "not_found",
    "authenticationerror": "auth",
    "ratelimiterror": "rate_limit",
    "internalservererror": "server",
    "serviceunavailableerror": "unavailable",
    "unprocessableentityerror": "unprocessable",
}

# Words that mean the same under every status; the rest ("invalid_request_error", "api_error") are how gateways
# say "something", and the status knows better.
_DECISIVE: frozenset[Kind] = frozenset(
    {"rate_limit", "overloaded", "quota", "content_filter", "context_length", "auth"}
)

_STATUSES: dict[int, Kind] = {
    401: "auth",
    402: "quota",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    422: "unprocessable",
    429: "rate_limit",
    502: "gateway",
    503: "unavailable",
    504: "gateway",
}

_PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    499: "Client Closed Request",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    520: "Web Server Returned an Unknown Error",
    521: "Web Server Is Down",
    522: "Connection Timed Out",
    523: "Origin Is Unreachable",
    524: "A Timeout Occurred",
    529: "Overloaded",
}


def classify(
    status: int, headers: Mapping[str, str] | None, body: bytes, now: float | None = None
) -> ErrorShape:
    """
    The error in a reply, or in one event of a stream (`status` 200, `body` its data).

    `headers` are case-insensitive, or have lower-case names. `now` is the wall clock as a Unix time, for a
    `Retry-After` date in a reply that has no `Date`.
    """
    headers = headers if headers is not None else {}
    # The limiter, retry and the client each ask about the same reply.
    shape = _classified(status, body) if len(body) <= 4_096 else _classified.__wrapped__(status, body)
    verdict = should_retry(headers)
    hint = retry_after(headers, "", now)
    if hint is None or (shape.retry_after is not None and shape.retry_after > hint):
        hint = shape.retry_after
    shown = shape.body
    return ErrorShape(
        message=shape.message,
        kind=shape.kind,
        type=shape.type,
        code=shape.code,
        param=shape.param,
        request_id=request_id_from(headers) or shape.request_id,
        body=dict(cast("dict[str, object]", shown)) if isinstance(shown, dict) else shown,
        limit=shape.limit,
        retry_after=hint,
        retryable=shape.retryable if verdict is None else verdict,
    )


@lru_cache(maxsize=64)
def _classified(status: int, body: bytes) -> ErrorShape:
    """What status and body say by themselves."""
    found = _open(body[:DECODED])
    inner = found.inner
    type_ = _text(inner.get("type")) or _text(found.outer.get("type"))
    code = _text(inner.get("code")) or _text(found.outer.get("code")) or _text(found.outer.get("statusCode"))
    metadata: object = inner.get("metadata")
    details = cast("dict[str, object]", metadata) if isinstance(metadata, dict) else {}
    if type_ is None:
        type_ = _text(details.get("error_type"))
    message = found.message or _phrase(status)
    cause = _quoted(details)
    if cause is not None:
        # OpenRouter and its kin: "Provider returned error", and what the host behind it said.
        name = _text(details.get("provider_name"))
        said = cause.message or "no message"
        message = f"{name}: {said} ({message})" if name else f"{said} ({message})"
        inner_type = _text(cause.inner.get("type"))
        inner_code = _text(cause.inner.get("code"))
        if _word(inner_type) in _DECISIVE or _word(inner_code) in _DECISIVE:
            type_, code = inner_type or type_, inner_code or code
    # Under 200 the number in the event is the status that the reply could no longer have.
    if status < 400 and code is not None and re.fullmatch(r"[45]\d\d", code):
        status = int(code)
    kind = _kind(status, type_, code, message[:SEARCHED].lower(), details, quoted=cause is not None)
    limit = limit_told(message) if kind == "rate_limit" else None
    if limit is not None and limit.per_day:
        kind = "tpd"
    return ErrorShape(
        message=message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + "…",
        kind=kind,
        type=type_,
        code=code,
        param=_text(inner.get("param")) or _text(found.outer.get("param")),
        request_id=found.request_id,
        body=found.shown,
        limit=limit,
        retry_after=retry_after(None, message),
        retryable=kind in RETRYABLE,
    )


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """The server's own verdict, `x-should-retry: true` or `false`, or None. It wins over everything else."""
    value = headers.get("x-should-retry")
    return None if value is None else {"true": True, "false": False}.get(value.strip().lower())


def _kind(
    status: int,
    type_: str | None,
    code: str | None,
    text: str,
    details: Mapping[str, object],
    *,
    quoted: bool = False,
) -> Kind:
    typed = _word(type_) or _word(code)
    coded = _word(code)
    if coded in _DECISIVE and typed not in _DECISIVE:
        typed = coded  # {"type": "invalid_request_error", "code": "context_length_exceeded"}
    by_status = _STATUSES.get(status)
    if by_status is None:
        if status >= 500:
            by_status = "gateway" if 520 <= status <= 530 else "server"
        elif status >= 400:
            by_status = "bad_request"
        elif status >= 300:
            by_status = "redirect"

    # An error in a stream has no status, and one that quotes another host's reply has that of the one between.
    meaning = meant(text, None if by_status is None or quoted else status)
    if typed == "quota" or by_status == "quota" or meaning == "quota":
        # The faces of money, and of a plan that is used up: Kimi sends them under 429 and 403, gateways under 402, others under
        # 400, 412 and 500, and Kimi Code under the type of a rate limit.
        return "quota"
    if meaning in ("too_large", "unavailable"):
        return meaning
    if by_status in ("permission", "rate_limit", None) or typed in ("rate_limit", "permission"):
        if meaning == "overloaded":
            return "overloaded"
        told = limit_told(text) if by_status == "permission" else None
        if told is not None:
            # Kimi Code refuses a third concurrent request with 403.
            return "rate_limit"
        if by_status == "permission" and "flagged_input" in details:
            return "content_filter"
    if typed in _DECISIVE and not (typed == "auth" and status >= 500):
        return typed
    if meaning in ("context_length", "content_filter"):
        return meaning
    if by_status in (None, "redirect"):
        return typed or by_status or "server"
    if by_status == "bad_request" and typed in ("permission", "not_found", "too_large"):
        return typed
    if by_status in ("server", "gateway") and typed in ("unavailable", "gateway"):
        return typed
    return by_status


def _word(name: str | None) -> Kind | None:
    if not name:
        return None
    word = name.lower()
    # Volcengine: InputTextSensitiveContentDetected, OutputImageSensitiveContentDetected.PolicyViolation, …
    return _TYPES.get(word) or ("content_filter" if "sensitivecontentdetected" in word else None)


@dataclass(slots=True)
class _Found:
    """What an envelope held."""

    outer: dict[str, object]
    inner: dict[str, object]
    message: str
    shown: object | None

    @property
    def request_id(self) -> str | None:
        for fields in (self.outer, self.inner):
            for name in ("trace_id", "requestId", "request_id"):
                if (value := _text(fields.get(name))) is not None:
                    return value
        return None


def _open(body: bytes) -> _Found:
    """Take the error out of its envelope."""
    data = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not data:
        return _Found({}, {}, "", None)
    if data[:1] == b"<":
        text = _page(data[:SEARCHED].decode("utf-8", "replace"))
        return _Found({}, {}, text, text)
    value = _json(data)
    if value is _UNREADABLE:
        text = data[:SEARCHED].decode("utf-8", "replace")
        salvaged = _salvage(text) if data[:1] in (b"{", b"[") else {}
        return _Found({}, salvaged, str(salvaged.get("message", "")) or text, text)
    return _unpack(value, depth=0)


def _unpack(value: Any, depth: int) -> _Found:
    shown: object = value
    if isinstance(value, list) and value and depth < 4:
        return _unpack(cast("list[object]", value)[0], depth + 1)
    if not isinstance(value, dict):
        text = _clean(value) if isinstance(value, str) else "" if value is None else _dump(value)
        if isinstance(value, str) and depth < 4 and text.lstrip()[:1] == "{":
            # A relay that hands on the upstream's body as a string.
            nested = _json(text.encode("utf-8", "replace"))
            if isinstance(nested, dict):
                return _unpack(nested, depth + 1)
        return _Found({}, {}, text, shown)
    outer = cast("dict[str, object]", value)
    error = outer.get("error")
    if error is None and isinstance(choices := outer.get("choices"), list):
        # OpenRouter: a 200 whose only choice has finish_reason "error".
        for choice in cast("list[object]", choices):
            if (
                isinstance(choice, dict)
                and (error := cast("dict[str, object]", choice).get("error")) is not None
            ):
                break
    if error is None and isinstance(errors := outer.get("errors"), list) and errors:
        error = cast("list[object]", errors)[0]
    if isinstance(error, str | list) and error and depth < 4:
        found = _unpack(error, depth + 1)
        return _Found(outer, found.inner, found.message, found.shown if found.inner else outer)
    if isinstance(error, dict) and error:
        inner = cast("dict[str, object]", error)
        message = _message(inner) or _message(outer)
        if depth < 4 and ("error" in inner or message.lstrip()[:1] == "{"):
            # One error inside another ({"error": {"error": {…}}}), or as its message.
            found = _unpack(inner if "error" in inner else message, depth + 1)
            if found.inner and found.message:
                return _Found({**outer, **inner}, found.inner, found.message, inner)
        return _Found(outer, inner, message, inner)
    return _Found(outer, outer, _message(outer), outer)


def _quoted(details: Mapping[str, object]) -> _Found | None:
    """What the host behind a gateway answered: text, JSON as text, JSON, or JSON in `data`."""
    raw: object = details.get("raw")
    if isinstance(raw, dict) and isinstance(inner := cast("dict[str, object]", raw).get("data"), (str, dict)):
        raw = cast("object", inner)
    if isinstance(raw, str):
        found = _open(raw.encode("utf-8", "replace"))
    elif isinstance(raw, (dict, list)) and raw:
        found = _unpack(raw, depth=1)
    else:
        return None
    return found if found.message else None


def _message(fields: Mapping[str, object]) -> str:
    for name in ("message", "msg", "detail", "error_msg", "error_message", "title"):
        value = fields.get(name)
        if value is None or value == "":
            continue
        if isinstance(value, str):
            return _clean(value)
        if isinstance(value, list):
            return "; ".join(_item(item) for item in cast("list[object]", value)[:20])
        if isinstance(value, dict):
            return _message(cast("dict[str, object]", value)) or _dump(value)
        return _dump(value)
    return ""


def _item(item: object) -> str:
    # FastAPI: {"loc": ["body", "messages"], "msg": "Field required", "type": "missing"}
    if isinstance(item, dict):
        fields = cast("dict[str, object]", item)
        where = fields.get("loc")
        path = ".".join(map(str, cast("list[object]", where))) if isinstance(where, list) else ""
        text = _message(fields)
        if text:
            return f"{path}: {text}" if path else text
    return _clean(item) if isinstance(item, str) else _dump(item)


def _text(value: object) -> str | None:
    """A short word as a string: integers become digits, everything else that is not a string is dropped."""
    if isinstance(value, str):
        return _clean(value)[:200] or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**18 else None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e9:
        return str(int(value))
    return None


def _clean(text: str) -> str:
    """The text without half emoji, which cannot be encoded, printed or pickled."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _dump(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return repr(value)[:SEARCHED].encode("utf-8", "replace").decode()


_UNREADABLE = object()


def _json(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):  # MsgspecError and UnicodeDecodeError are ValueErrors
        pass
    # Half an emoji, a NaN or broken UTF-8 does not make an error message unreadable.
    import json

    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return _UNREADABLE


def _salvage(text: str) -> dict[str, object]:
    """Fields of a JSON object that was cut off: the first of each name, its end perhaps missing."""
    fields: dict[str, object] = {}
    for found in re.finditer(r'"(message|type|code)"\s*:\s*(?:"((?:[^"\\]|\\.)*)|(\d{1,9}))', text):
        name, words, digits = found.groups()
        if name not in fields:
            fields[name] = int(digits) if digits else _unescape(words)
    return fields


def _unescape(words: str) -> str:
    value = _json(b'"' + words.encode("utf-8", "replace") + b'"')
    return _clean(value) if isinstance(value, str) else words


def _page(text: str) -> str:
    """An HTML page in one line: its title, else its words."""
    found = re.search(r"<title[^>]*>([^<]{1,300})", text, re.IGNORECASE) or re.search(
        r"<h1[^>]*>([^<]{1,300})", text, re.IGNORECASE
    )
    words = found[1] if found else re.sub(r"<[^<>]{0,2000}>", " ", text)
    return " ".join(words.split())[:300]


def _phrase(status: int) -> str:
    return f"{_PHRASES.get(status, 'no message')} (empty reply)" if status >= 300 else "no message"
