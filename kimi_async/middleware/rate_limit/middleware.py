"""
Who may send now: queues and timers around the arithmetic of `law`.

    limits = RateLimits(concurrency=15, rpm=100, tpm=2_000_000)      or "tier1", or None: learnt
    limiter = AdmissionController(limits)                            one per organisation
    RateLimitMiddleware(limiter)                                     below retry, above the user's own

Between retry and this limiter there is one small agreement:

* Every attempt comes down the chain again. A request whose `turn.kept` is set keeps the place in the queue that it was given
  first, before those of its kind that have not waited yet.
* A slot is held from the sending of an attempt to the end of its reply, and never while retry waits.
* `AdmissionController.alive(request, within)` tells retry whether the organisation is being admitted: if so, a refused
  attempt uses nothing up.
* What waits for a limit, or for the server's `Retry-After`, waits here. `RateLimitWaitError` says that the wait was
  ours, what for, and for how long; a refusal by the server keeps its own class.

One quota may be used by several processes: then the limiter is a `SharedController`, which keeps the queue and asks a ledger.

A request that need not wait costs a few microseconds. One that must costs a future and a place in a heap: there is
one timer per event loop, and no task, no polling, nothing at all while nobody waits.
"""

import time
from functools import partial

from ...codec.refusals import classify
from ...codec.waits import LimitTold, limit_told
from ...errors import APIConnectionError, APIStatusError, RequestTooCostlyError
from ...transport.exchange import Request, Response, Turn
from ..chain import Handler
from ..events import LimiterWaited, Observer, where
from .controller import logger
from .cost import UNLIMITED, tokens_of
from .limiter import Limiter, Permission

__all__ = ["RateLimitMiddleware"]


REFUSALS = frozenset({429, 502, 503, 504, 529, *range(520, 531)})
"""Statuses that may tell of a limit, or of nobody who could answer."""
NO_CAPACITY = frozenset({"overloaded", "unavailable", "gateway"})
"""Kinds of refusal that say the same of all requests. That of a proxy whose back end is gone is one of them, in its own words."""


class RateLimitMiddleware:
    """
    Holds each attempt back until the limits allow it, and tells the limiter what came of it.

    Kimi's limits are about inference. Reading lists, files and balances is not held back, nor are uploads, batch jobs and token counts;
    their `turn.limited` is False, so that retry waits for them itself.
    """

    def __init__(self, limiter: Limiter, *, watcher: Observer | None = None) -> None:
        self.limiter = limiter
        self._watcher = watcher
        self._warned = False

    async def __call__(self, request: Request, send: Handler) -> Response:
        if request.method != "POST":
            return await send(request)
        if not request.url.endswith("/chat/completions") and UNLIMITED.search(request.url):
            request.turn = Turn(limited=False)
            return await send(request)
        limiter = self.limiter
        turn = request.turn
        kept = turn is not None and turn.kept
        tokens: partial[int] | int = partial(self._tokens, request)
        try:
            lease = limiter.try_acquire(tokens)
        except RequestTooCostlyError as error:
            tokens = _fitting(request, error)
            lease = limiter.try_acquire(tokens)
        if lease is None:
            lease = await limiter.acquire(
                tokens,
                priority=request.priority + kept,
                deadline=request.deadline,
                mode=request.mode,
                queued=turn.queued if turn is not None and kept else None,
            )
        try:
            if lease.waited > 0.0:
                turn = request.turn = turn or Turn()
                turn.waited = lease.waited
                if self._watcher is not None:
                    self._watcher(LimiterWaited(**where(request), wait=lease.waited, reason=lease.reason))
            response = await send(request)
        except BaseException:
            lease.release()
            raise
        status = response.status
        if status < 400:
            lease.admitted(response.headers)
            response.heard = partial(_heard, lease)
        elif status in REFUSALS:
            turn = request.turn = turn or Turn()
            if turn.queued is None:
                turn.queued = lease.ticket.sent - lease.waited
            await _refused(response, lease)
            turn.pause = lease.pause
            return response
        response.on_close(lease.release)
        return response

    def _tokens(self, request: Request) -> int:
        if request.cost is not None:
            return max(0, request.cost)
        body = request.body
        if not isinstance(body, bytes | bytearray):
            return 0
        prompt, budget, defaulted = tokens_of(bytes(body))
        if defaulted and not self._warned:
            cap = self.limiter.stats().tpm.limit
            if cap is not None and budget > 0.05 * cap:
                self._warned = True
                logger.warning(
                    "max_completion_tokens is not set, so each request is charged the model's default of %d tokens: "
                    "%.0f %% of the %d tokens a minute; set it to what you need",
                    budget,
                    100.0 * budget / cap,
                    int(cap),
                )
        return prompt + budget


def _fitting(request: Request, error: RequestTooCostlyError) -> int:
    """
    What to charge a request that seems larger than the limit. What a request costs is our guess unless the caller says it, or
    gives a budget that alone exceeds the limit: a guess never refuses. Where it is the model's default budget that does not fit,
    the server cannot be charging that, or it would refuse every request.
    """
    limit = int(error.limit or 0)
    if request.cost is not None or not isinstance(request.body, bytes | bytearray):
        raise error
    prompt, budget, defaulted = tokens_of(bytes(request.body))
    if not defaulted and budget > limit:
        raise error
    return min(limit, prompt + limit // 8) if defaulted else limit


def _heard(lease: Permission, error: APIStatusError) -> None:
    """A refusal that came inside a reply of status 200 teaches what one of status 429 does."""
    _teach(lease, error.kind, limit_told(error.message), error.retry_after)


async def _refused(response: Response, lease: Permission) -> None:
    """Tells the limiter why. The body is read here; it stays for whoever asks again."""
    try:
        body = await response.read()
    except APIConnectionError:
        body = b""
    except BaseException:
        lease.release()
        raise
    shape = response.refusal = classify(response.status, response.headers, body, time.time())
    _teach(lease, shape.kind, shape.limit, shape.retry_after)
    lease.release()


def _teach(lease: Permission, kind: str | None, told: LimitTold | None, retry_after: float | None) -> None:
    """Tells the limiter of a refusal for a limit or for want of capacity, which ends the lease; others teach it nothing."""
    if kind == "rate_limit":
        dimension = told.dimension if told is not None else None
        lease.refused(
            "rpm" if dimension == "qps" else dimension,
            limit=told.limit if told is not None else None,
            current=told.current if told is not None else None,
            retry_after=retry_after,
        )
    elif kind in NO_CAPACITY:
        lease.overloaded(retry_after)
