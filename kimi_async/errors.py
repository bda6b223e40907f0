"""
Everything that can go wrong, as a tree.

    KimiError
    ├ ConfigurationError (also ValueError)          a client that cannot work: no key, a bad URL, …
    ├ ClientClosedError                             used after close()
    ├ RateLimitWaitError                            our limiter would have to wait longer than allowed
    │ └ RequestTooCostlyError                       … forever: the request can never fit the limit
    ├ SharedLimitsError                             the quota that several processes share cannot be reached
    ├ CircuitOpenError                              we stopped sending, because the last attempts all failed alike
    ├ LengthFinishReasonError                       an answer that had to be parsed was cut by its token budget
    ├ ContentFilterFinishReasonError                … or by moderation
    ├ EmptyResponseError                            an answer without text or tool call, where one was required
    └ APIError
      ├ APIResponseValidationError                  a reply that does not have the shape it should
      ├ APIConnectionError                          no reply, or it broke off
      │ ├ RedirectRefusedError                      the host sent us elsewhere; neither key nor prompt may go there
      │ ├ ProxyError                                the proxy on the way refused: a password, an address
      │ ├ ResponseTooLargeError                     a reply beyond a bound
      │ ├ IncompleteStreamError                     a stream without its end; .partial holds what arrived
      │ └ APITimeoutError
      │   └ StreamStalledError                      a stream that fell silent; .partial holds what arrived
      └ APIStatusError                              the server said no
        ├ BadRequestError 400
        │ ├ ContentFilterError                      moderation refused the request
        │ └ ContextLengthExceededError              prompt and budget do not fit the model
        ├ AuthenticationError 401
        ├ PermissionDeniedError 403
        ├ NotFoundError 404
        ├ ConflictError 409
        ├ RequestTooLargeError 413
        ├ UnprocessableEntityError 422
        ├ RateLimitError 429
        │ ├ RateLimitReachedError                   concurrency, requests or tokens a minute: try later
        │ │ └ TokensPerDayLimitError                tokens a day: not before tomorrow
        │ ├ RequestOverLimitError                   the request alone is larger than a limit a minute
        │ ├ EngineOverloadedError                   no capacity; a higher tier does not help
        │ └ QuotaExceededError                      money (429, 402 or 403)
        └ InternalServerError ≥ 500

Names and attributes follow the OpenAI SDK where it has them, so that `except RateLimitError` keeps its meaning. Every error
pickles, and none holds a key.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

from .redact import PlainHeaders, redact, redact_url, redacted, secrets_of, shown

if TYPE_CHECKING:
    from .types.completions import ChatCompletion

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "CircuitOpenError",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "ContentFilterError",
    "ContentFilterFinishReasonError",
    "ContextLengthExceededError",
    "EmptyResponseError",
    "EngineOverloadedError",
    "IncompleteStreamError",
    "InternalServerError",
    "KimiError",
    "LengthFinishReasonError",
    "NotFoundError",
    "PermissionDeniedError",
    "ProxyError",
    "QuotaExceededError",
    "RateLimitError",
    "RateLimitReachedError",
    "RateLimitWaitError",
    "RedirectRefusedError",
    "RequestInfo",
    "RequestOverLimitError",
    "RequestTooCostlyError",
    "RequestTooLargeError",
    "ResponseInfo",
    "ResponseTooLargeError",
    "SharedLimitsError",
    "StreamStalledError",
    "TokensPerDayLimitError",
    "UnprocessableEntityError",
    "request_id_from",
]

REQUEST_ID_HEADERS = (
    # Kimi sends the first and third (captured 2026-09); gateways the others.
    "msh-request-id",
    "x-request-id",
    "x-msh-trace-id",
    "x-trace-id",
    "x-generation-id",
)


def request_id_from(headers: Mapping[str, str]) -> str | None:
    """The id to give to support, or None. Looks at every header name that Kimi or a known gateway uses, in that order."""
    for name in REQUEST_ID_HEADERS:
        value = headers.get(name)
        if value:
            return value
    return None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed attempt of a call."""

    number: int
    """1 for the first."""
    cause: str
    """Why it failed, one word: `rate_limit`, `overloaded`, `server`, `connection`, `timeout`, …"""
    status: int | None = None
    """HTTP status, or None where no reply came."""
    error_type: str | None = None
    """The server's `error.type`, if it sent one."""
    message: str = ""
    """The error's text, redacted."""
    waited: float = 0.0
    """Seconds waited afterwards, before the next attempt."""
    elapsed: float = 0.0
    """Seconds that the attempt itself took."""
    host: str = ""
    """Whom it asked, where a call went over several hosts."""


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What an error remembers of its request: no key, no body."""

    method: str
    url: str
    """Without query and user info."""
    headers: Mapping[str, str] = field(default_factory=PlainHeaders)
    """Lower-case names, found in any case; secrets left out."""


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """What an error remembers of its reply."""

    status_code: int
    headers: Mapping[str, str]
    """Lower-case names, found in any case; secrets left out."""
    request: RequestInfo | None = None
    content: bytes = field(default=b"", repr=False)
    """The body of an error, or inside a stream the event that told it, as far as it was read; keys are taken out."""

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """
        The decoded body.

        :raises ValueError: if it is not JSON.
        """
        return json.loads(self.content)

    def read(self) -> bytes:
        return self.content

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300

    @property
    def status(self) -> int:
        return self.status_code

    @property
    def url(self) -> str:
        return self.request.url if self.request else ""


def _remember(request: object) -> object:
    """A picture of the request that is safe to keep, print and pickle. Foreign objects are kept as they are."""
    if request is None or isinstance(request, RequestInfo):
        return request
    snapshot = getattr(request, "info", None)
    return snapshot() if callable(snapshot) else request


def _restore(cls: type["KimiError"], args: tuple[object, ...], state: Mapping[str, object]) -> "KimiError":
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


MADE_AS: dict[type, type] = {}
"""What is made in place of a class, where errors are to be another library's as well (`integrations.compat`)."""


class KimiError(Exception):
    """The base of everything that this package raises on purpose."""

    retryable: bool = False
    """Whether sending the same request again can help."""

    def __new__(cls, *args: Any, **_: Any) -> Self:
        made: Any = MADE_AS.get(cls, cls)
        error: Self = super().__new__(made, *args)
        return error

    def __init__(self, *args: object) -> None:
        Exception.__init__(self, *args)  # a class beside ours has no say in it

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        # Exception's own way calls cls(*args), which fails for keyword arguments and loses attributes. What an error is besides
        # is said anew where it is unpickled.
        cls = next(each for each in type(self).__mro__ if each not in MADE_AS.values())
        return _restore, (cast("type[KimiError]", cls), self.args, dict(self.__dict__))


class ConfigurationError(KimiError, ValueError):
    """The client cannot be made, or the request cannot be sent, with these arguments."""


class ClientClosedError(KimiError, RuntimeError):
    """The client was closed before this call."""


class RateLimitWaitError(KimiError):
    """Our own limiter, not the server, refused: the wait would be longer than the caller allows."""

    def __init__(
        self,
        message: str,
        *,
        eta: float | None = None,
        reason: str | None = None,
        limit: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.eta = eta
        """Seconds until the request could be sent, as far as is known now."""
        self.reason = reason
        """What it would wait for: `concurrency`, `rpm`, `tpm`, `tpd` or `gate`."""
        self.limit = limit
        """The limit in question."""
        self.attempts: tuple[Attempt, ...] = ()


class RequestTooCostlyError(RateLimitWaitError):
    """The request alone is larger than the limit: it could never be sent."""


class SharedLimitsError(KimiError):
    """The quota that several processes share cannot be reached, or its ledger failed; nothing was sent."""


class CircuitOpenError(KimiError):
    """Nothing was sent, because the attempts before all failed for the same cause; `attempts` lists them."""

    def __init__(
        self,
        message: str,
        *,
        cause: str,
        retry_after: float | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.retry_after = retry_after
        """Seconds until one request will be let through to see whether things are better, or None if nothing but a new key or top-up helps."""
        self.attempts = attempts


class _FinishReasonError(KimiError):
    def __init__(self, message: str, *, completion: object) -> None:
        super().__init__(message)
        self.completion = completion
        """The whole completion, as far as it goes."""


class LengthFinishReasonError(_FinishReasonError):
    """`finish_reason` is "length" where a whole answer was needed: raise `max_completion_tokens`, which includes reasoning."""

    def __init__(self, *, completion: object) -> None:
        usage = getattr(completion, "usage", None)
        spent = f" after {usage.completion_tokens} tokens" if usage else ""
        super().__init__(
            f"the answer was cut{spent} by its token budget (finish_reason 'length'); raise max_completion_tokens, "
            "which counts reasoning as well",
            completion=completion,
        )


class ContentFilterFinishReasonError(_FinishReasonError):
    """`finish_reason` is "content_filter": the answer was stopped by moderation."""

    def __init__(self, *, completion: object = None) -> None:
        super().__init__(
            "the answer was stopped by moderation (finish_reason 'content_filter')", completion=completion
        )


class EmptyResponseError(_FinishReasonError):
    """The answer holds neither text nor a tool call, and the caller asked for that to be an error."""

    retryable = True

    def __init__(self, *, completion: object) -> None:
        super().__init__(
            "the answer is empty: no text and no tool call (if it reasoned, the budget max_completion_tokens may be spent)",
            completion=completion,
        )


class APIError(KimiError):
    """Something went wrong between us and the server."""

    def __init__(self, message: str, request: Any = None, *, body: object | None = None) -> None:
        secrets = secrets_of(request)
        message = redact(message, secrets)  # it may quote the reply
        super().__init__(message)
        self.message = message
        self.request: Any = _remember(request)
        body = redacted(body, secrets)
        self.body: Any = body
        """The decoded `error` object of the reply, or the text if it is not JSON, or None. Keys and account ids are taken out."""
        self.code: str | None = None
        self.param: str | None = None
        self.type: str | None = None
        if isinstance(body, Mapping):
            fields = cast("Mapping[str, Any]", body)
            code = fields.get("code")
            self.code = None if code is None else str(code)
            self.param = fields.get("param")
            self.type = fields.get("type")
        self.attempts: tuple[Attempt, ...] = ()
        """Failed attempts before this one, oldest first."""
        self.given_up: str = ""
        """Why it was not tried again, where that is not plain from the error itself."""
        self.request_id: str | None = None
        self.partial: ChatCompletion | None = None
        """The `ChatCompletion` as far as it had arrived, where a stream broke off; None before its first chunk."""
        self.chunks: int = 0
        """Chunks that had been decoded before a stream broke off."""
        self.bytes_received: int = 0
        """Bytes of the body that had arrived before a stream broke off."""

    def __str__(self) -> str:
        facts = [f"attempt {len(self.attempts) + 1}"] if self.attempts else []
        if self.given_up:
            facts.append(self.given_up)
        return f"{self.message} ({'; '.join(facts)})" if facts else self.message


class APIResponseValidationError(APIError):
    """
    A reply with a good status whose body cannot be what it should be.

    :param whole: whether the body is JSON to its end, of another shape: the same would come again, so that it is not repeated.
    """

    retryable: bool = True

    def __init__(
        self,
        response: object,
        body: object | None,
        *,
        message: str | None = None,
        whole: bool = False,
    ) -> None:
        super().__init__(
            message or "Data returned by API invalid for expected schema.",
            getattr(response, "request", None),
            body=body,
        )
        if whole:
            # The server meant it: asked again, and paid again, it would say the same.
            self.retryable = False
        self.response: Any = _snapshot(response)
        self.status_code: int = getattr(response, "status_code", 200)
        self.request_id: str | None = request_id_from(getattr(response, "headers", {}))


class APIConnectionError(APIError):
    """No reply came, or it broke off."""

    retryable = True

    def __init__(
        self,
        *,
        message: str = "Connection error.",
        request: Any = None,
        phase: str | None = None,
        elapsed: float | None = None,
    ) -> None:
        super().__init__(message, request)
        self.phase = phase
        """Where it happened: `dns`, `connect`, `tls`, `write`, `headers`, `first_token`, `body`."""
        self.elapsed = elapsed
        """Seconds since the attempt began."""
        self.response: ResponseInfo | None = None
        """The reply, where a stream broke off that had begun; its text is not kept here (see `partial`)."""
        self.reused_connection = False
        """True where a pooled connection turned out to be closed before a byte of the reply came."""


class RedirectRefusedError(APIConnectionError):
    """The reply is a redirect. Following it would hand prompt, and perhaps key, to another address."""

    retryable = False


class ProxyError(APIConnectionError):
    """
    The proxy between us and the host refused: it asks for a password (407), or does not let us through. The host has not seen
    the request, and trying again would not help.
    """

    retryable = False


class ResponseTooLargeError(APIConnectionError):
    """The reply is larger than the bound set for it."""

    retryable = False


class APITimeoutError(APIConnectionError):
    """A phase took longer than its part of `Timeout` allows."""

    def __init__(
        self,
        request: Any = None,
        *,
        message: str = "Request timed out.",
        phase: str | None = None,
        elapsed: float | None = None,
    ) -> None:
        super().__init__(message=message, request=request, phase=phase, elapsed=elapsed)


class IncompleteStreamError(APIConnectionError):
    """
    A stream ended, broke or turned to nonsense before `[DONE]` or a `finish_reason`.

    `partial` holds the completion as far as it had arrived, or None before the first chunk; `chunks` and `bytes_received`
    say how far that was.
    """


class StreamStalledError(APITimeoutError):
    """
    A stream brought no event for longer than `Timeout.first_token` or `Timeout.idle` (comments and blank lines do not count),
    or did not end within `Timeout.total`; `phase` says which. `partial` holds what had arrived.
    """


def _snapshot(response: object) -> object:
    if response is None or isinstance(response, ResponseInfo):
        return response
    snapshot = getattr(response, "info", None)
    return snapshot() if callable(snapshot) else response


class APIStatusError(APIError):
    """
    The server answered, and the answer is an error.

    Inside a stream an error may come under status 200; `status_code` is then 200 and the class still tells the cause.
    """

    def __init__(self, message: str, *, response: Any, body: object | None = None) -> None:
        super().__init__(message, getattr(response, "request", None), body=body)
        self.response: Any = _snapshot(response)
        self.status_code: int = getattr(response, "status_code", 0)
        self.headers: Mapping[str, str] = getattr(self.response, "headers", PlainHeaders())
        self.request_id: str | None = request_id_from(self.headers)
        self.kind: str = ""
        """The cause in one word, the same for every gateway: `rate_limit`, `tpd`, `overloaded`, `quota`, …"""
        self.retry_after: float | None = None
        """Seconds the server asks us to wait, if it said so in any of its ways."""

    @classmethod
    def make(
        cls,
        text: str,
        *,
        status: int,
        headers: Mapping[str, str],
        request: Any,
        body: object | None,
        kind: str,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        content: bytes = b"",
    ) -> Self:
        """
        The error for a reply. `text` is the server's own message; the error's message adds status, type, id and host.

        :param content: the reply's body, or the event that held the error, for `error.response`.
        """
        secrets = secrets_of(request)
        body, type, code, param, request_id = (
            redacted(each, secrets) for each in (body, type, code, param, request_id)
        )
        request = _remember(request)
        kept = shown(headers, secrets)
        rid = request_id or request_id_from(kept)
        facts = [fact for fact in (type, f"request {rid}" if rid else None) if fact]
        if request is not None:
            facts.append(f"{request.method} {redact_url(str(request.url))}")
        tail = f" [{'; '.join(facts)}]" if facts else ""
        error = cls(
            f"Error code: {status} - {redact(text, secrets)}{tail}",
            response=ResponseInfo(
                status, kept, request, redact(content.decode("utf-8", "replace"), secrets).encode()
            ),
            body=body,
        )
        error.kind = kind
        error.type = type if type is not None else error.type
        error.code = code if code is not None else error.code
        error.param = param if param is not None else error.param
        error.request_id = rid
        return error


class BadRequestError(APIStatusError):
    """400: the request is malformed; the message says what."""


class ContentFilterError(BadRequestError):
    """400 `content_filter`: moderation refused input or output."""


class ContextLengthExceededError(BadRequestError):
    """400: the prompt, or prompt plus `max_completion_tokens`, is longer than the model's context."""


class AuthenticationError(APIStatusError):
    """401: no key, a wrong key, or a key of the other region (api.moonshot.ai and api.moonshot.cn do not share keys)."""


class PermissionDeniedError(APIStatusError):
    """403."""


class NotFoundError(APIStatusError):
    """404: an unknown or retired model, an unknown file or batch, or a wrong path."""


class ConflictError(APIStatusError):
    """409."""

    retryable = True


class RequestTooLargeError(APIStatusError):
    """413: the request body is over 100 MB."""


class UnprocessableEntityError(APIStatusError):
    """422: not sent by Kimi, but by gateways."""


class RateLimitError(APIStatusError):
    """429, whatever its cause."""

    retryable = True


class RateLimitReachedError(RateLimitError):
    """429 `rate_limit_reached_error`: concurrency, requests per minute or tokens per minute."""


class TokensPerDayLimitError(RateLimitReachedError):
    """429 `rate_limit_reached_error` whose text names TPD: the day's tokens are spent, so waiting is a matter of hours."""

    retryable = False


class RequestOverLimitError(RequestTooLargeError, RateLimitError):
    """429, or 413: the request alone is larger than a limit a minute. Waiting does not help."""

    retryable = False


class EngineOverloadedError(RateLimitError):
    """429 `engine_overloaded_error`: the service has no capacity now. A higher tier does not help."""


class QuotaExceededError(RateLimitError):
    """Money: the balance, credit or plan is used up. Comes as 429, 402 or 403, depending on host and year."""

    retryable = False


class InternalServerError(APIStatusError):
    """500 and above, HTML from a gateway included."""

    retryable = True
