"""
One attempt: carried out, read as a failure, and written down.
"""

import asyncio

from ...codec.refusals import RETRYABLE, should_retry
from ...errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    Attempt,
    CircuitOpenError,
    EmptyResponseError,
    KimiError,
    RateLimitWaitError,
)
from ...redact import bare, redact
from ...transport.exchange import Request, Response
from ..chain import Handler
from .organisation import Call, Lost, Organisation
from .policy import Failure

__all__ = [
    "attempt_of",
    "deliver",
    "deliver_in_time",
    "failure_of",
    "not_tried",
    "replayable",
    "too_long",
    "unsent",
    "waited_of",
    "with_body",
]

# The limiter keeps the same deadline and knows better what was waited for: it may speak first.
GRACE = 0.005


def unsent(org: Organisation, history: tuple[Attempt, ...]) -> CircuitOpenError:
    """The error for a request that was not sent because a breaker is open."""
    now = org.loop.time()
    if org.quota is not None:
        return CircuitOpenError(
            f"nothing was sent: the account has no balance or quota left ({org.quota})",
            cause="quota",
            retry_after=max(0.0, org.quota_probe - now),
            attempts=history,
        )
    breaker = org.breaker
    wait = max(0.0, (breaker.next_probe or now) - now)
    return CircuitOpenError(
        f"nothing was sent: the service has had no capacity for {now - breaker.since:.0f} s, "
        f"{breaker.generations} refusals in a row; the next try is in {wait:.0f} s",
        cause="overloaded",
        retry_after=wait,
        attempts=history or tuple(org.recent),
    )


def not_tried(request: Request, lost: Lost) -> APIConnectionError:
    """The error for an attempt that was not made, since somebody else has just found the host out of reach."""
    return APIConnectionError(
        message=f"not tried, since the host could not be reached a moment ago: {lost.message}",
        request=request,
        phase=lost.phase,
        elapsed=0.0,
    )


def too_long(hint: float, allowed: float) -> RateLimitWaitError:
    return RateLimitWaitError(
        f"nothing was sent: the server asks everybody to wait {hint:.6g} s, and only {allowed:.6g} s are allowed (max_wait)",
        eta=hint,
        reason="gate",
    )


async def deliver(request: Request, send: Handler) -> Response:
    """One attempt: the reply, accepted if its status is good."""
    response = await send(request)
    if response.status < 300 and request.accept is not None:
        try:
            response.value = await request.accept(response)
        except APIStatusError as error:
            if response.heard is not None:
                response.heard(error)
            response.close()
            bare(error)
            raise
        except KimiError as error:
            response.close()
            bare(error)
            raise
        except BaseException:
            response.close()  # its slot must not stay taken
            raise
    return response


async def deliver_in_time(request: Request, send: Handler) -> Response:
    """The same, within the caller's deadline."""
    assert request.deadline is not None
    began = asyncio.get_running_loop().time()
    bound = asyncio.timeout_at(request.deadline + GRACE)
    try:
        async with bound:
            return await deliver(request, send)
    except TimeoutError:
        if not bound.expired():
            raise
    elapsed = asyncio.get_running_loop().time() - began
    raise APITimeoutError(
        request,
        message=f"the time allowed for the call was over after {elapsed:.3g} s of this attempt (deadline)",
        phase="deadline",
        elapsed=elapsed,
    )


def waited_of(request: Request) -> float:
    """Seconds that our own limiter held the latest attempt back."""
    return 0.0 if request.turn is None else request.turn.waited


def replayable(request: Request) -> bool:
    body = request.body
    return body is None or isinstance(body, bytes | bytearray | memoryview) or bool(body.replayable)


async def with_body(response: Response) -> Response:
    """A refused reply, read and closed. If its body breaks off, the status must still be heard."""
    try:
        await response.read()
    except APIConnectionError:
        response.close()
        short = Response(
            response.status, response.headers, request=response.request, http_version=response.http_version
        )
        short.extensions, short.refusal = response.extensions, response.refusal
        return short
    return response


def failure_of(error: KimiError, sent: float, now: float) -> Failure:
    """What an error says."""
    elapsed = now - sent
    if isinstance(error, APIStatusError):
        return Failure(
            cause=error.kind or "server",
            status=error.status_code,
            error_type=error.type,
            message=redact(error.message),
            hint=error.retry_after,
            should_retry=should_retry(error.headers),
            retryable=error.retryable or error.kind in RETRYABLE,
            sent=sent,
            elapsed=elapsed,
        )
    if isinstance(error, APITimeoutError):
        cause = "timeout"
    elif isinstance(error, APIConnectionError):
        cause = "connection"
    elif isinstance(error, APIResponseValidationError):
        cause = "invalid"
    elif isinstance(error, EmptyResponseError):
        cause = "empty"
    else:
        cause = type(error).__name__
    return Failure(
        cause=cause,
        message=redact(str(error)),
        retryable=error.retryable,
        reused=isinstance(error, APIConnectionError) and error.reused_connection,
        sent=sent,
        elapsed=elapsed,
    )


def attempt_of(call: Call, failure: Failure, wait: float) -> Attempt:
    return Attempt(
        number=call.attempts,
        cause=failure.cause,
        status=failure.status,
        error_type=failure.error_type,
        message=failure.message,
        waited=wait,
        elapsed=failure.elapsed,
    )
