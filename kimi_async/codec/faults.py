"""
A refusal as an exception: the class from its cause, whichever gateway's words it uses.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from ..errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
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
    RequestOverLimitError,
    RequestTooLargeError,
    TokensPerDayLimitError,
    UnprocessableEntityError,
)
from .refusals import ErrorShape, Kind, classify

__all__ = ["error_from", "error_in_stream"]

_BY_KIND: dict[Kind, type[APIStatusError]] = {
    "rate_limit": RateLimitReachedError,
    "tpd": TokensPerDayLimitError,
    "overloaded": EngineOverloadedError,
    "quota": QuotaExceededError,
    "content_filter": ContentFilterError,
    "context_length": ContextLengthExceededError,
    "auth": AuthenticationError,
    "permission": PermissionDeniedError,
    "not_found": NotFoundError,
    "too_large": RequestTooLargeError,
    "unprocessable": UnprocessableEntityError,
    "bad_request": BadRequestError,
    "conflict": ConflictError,
    "unavailable": InternalServerError,
    "gateway": InternalServerError,
    "server": InternalServerError,
}

_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: RequestTooLargeError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def error_from(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    request: object = None,
    *,
    now: float | None = None,
    shape: ErrorShape | None = None,
) -> APIStatusError:
    """
    The error that a reply of status 400 and above means: its class from the cause, whichever gateway's words it uses.

    `now` is Unix time, to read a `Retry-After` that is a date; `shape` is what the reply means, where that is known already.
    """
    if shape is None:
        shape = classify(status, headers, body, now=now)
    return _error(shape, status, headers, request, body)


def error_in_stream(
    error: object, headers: Mapping[str, str], request: object = None, *, status: int = 200
) -> APIStatusError:
    """The error that an event inside a stream of status 200 means."""
    try:
        data = msgspec.json.encode(error, enc_hook=str)
    except (UnicodeError, OverflowError, RecursionError, TypeError, ValueError):
        data = str(error).encode("utf-8", "replace")
    shape = classify(status, headers, data)
    return _error(shape, status, headers, request, data)


def _error(
    shape: ErrorShape, status: int, headers: Mapping[str, str], request: object, content: bytes
) -> APIStatusError:
    cls = _BY_KIND.get(shape.kind)
    exact = _BY_STATUS.get(status)
    if cls is None:
        cls = exact or (InternalServerError if status >= 500 else APIStatusError)
    elif exact is not None and issubclass(exact, cls):
        cls = exact
    elif shape.kind == "too_large" and status == 429:
        cls = RequestOverLimitError
    elif (
        exact is not None
        and not issubclass(cls, (exact, RateLimitError, ContextLengthExceededError))
        and status in (401, 404, 409, 413, 422)
    ):
        # `except NotFoundError` must hold for every 404, whatever the text says.
        cls = exact
    told = hint(status, request)
    error = cls.make(
        f"{shape.message} ({told})" if told else shape.message,
        status=status,
        headers=headers,
        request=request,
        body=shape.body,
        kind=shape.kind,
        type=shape.type,
        code=shape.code,
        param=shape.param,
        request_id=shape.request_id,
        content=content,
    )
    error.retry_after = shape.retry_after
    return error


def hint(status: int, request: Any) -> str:
    """What is probably wrong with the address or the key, where the request shows it; else ""."""
    url = str(getattr(request, "url", ""))
    if status in (404, 405):
        path = url.partition("://")[2].partition("?")[0].partition("/")[2]
        if path.count("chat/completions") > 1:
            return "base_url ends in /chat/completions, which is added to it: leave that out"
        if path and not re.search(r"(?:^|/)v\d", path) and "chat/completions" in path:
            return "base_url names no version: most hosts want it to end in /v1"
    if status in (401, 403):
        headers: object = getattr(request, "headers", None)
        key = (
            cast("Mapping[str, object]", headers).get("Authorization") if isinstance(headers, Mapping) else ""
        )
        if str(key).removeprefix("Bearer ")[:1] in ('"', "'"):
            return "the key was sent in quotes: they are no part of it"
    return ""
