"""
Sending again: what failed decides whether, when and how often.

`decide` is the whole rule, a plain function; `RetryMiddleware` carries it out.

    cause                                      what happens
    ─────────────────────────────────────────  ─────────────────────────────────────────────────────────────
    connection, timeout, 408, 409, 5xx         again, after an exponential wait with jitter, out of a budget
                                               that the whole client shares
    a pooled connection that was closed        again at once, once; it is no attempt
      before a byte came back
    rate_limit                                 back to the limiter, at the head of its queue. No attempt is
                                               used while the organisation is being admitted; otherwise
                                               `max_retries` ends it
    overloaded, 503                            again, on a slower curve; if the whole organisation meets
                                               nothing else for a while, a breaker fails further calls at once
    quota (money)                              never; a breaker fails all calls of the organisation at once
    tpd, content_filter, context_length,       never
      auth, permission, not_found, 400, …

`x-should-retry: true|false` from the server wins over the table, and a request whose body cannot be produced again is
never repeated. An attempt lasts until `request.accept` has seen that it worked: the whole reply, or a stream's first
event; an error that comes as that first event is a failed attempt like any other.

The server's hint (`Retry-After` and its kin) is the least that is waited. A wait longer than the call may still
take (its deadline, `total_time`, `max_wait`) is not begun: the error comes at once, and says so.

The first attempt costs next to nothing here: tenacity, whose machinery takes 25–50 µs a call and 20 ms to
import, is entered only once an attempt has failed.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, cast

from ...codec.faults import error_from
from ...codec.refusals import RETRYABLE, should_retry
from ...errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    Attempt,
    CircuitOpenError,
    ClientClosedError,
    ConfigurationError,
    EmptyResponseError,
    KimiError,
    RateLimitWaitError,
)
from ...redact import redact
from ...transport.exchange import Request, Response
from ..chain import Handler
from ..events import AttemptFailed, CallFailed, Observer, RetryScheduled, report, watched, where
from .breakers import DEPOSIT, TRANSIENT, OverloadBreaker, RetryBudget
from .policy import Failure, RetryPolicy, RetryRule, Verdict, backoff, decide

if TYPE_CHECKING:
    import tenacity

__all__ = [
    "Admissions",
    "Failure",
    "OverloadBreaker",
    "RetryBudget",
    "RetryMiddleware",
    "RetryPolicy",
    "RetryRule",
    "Verdict",
    "backoff",
    "decide",
]


# Refusals of our own, after which nothing has been sent.
LOCAL = (RateLimitWaitError, CircuitOpenError, ClientClosedError, ConfigurationError)


# Which methods no breaker stops: the balance can be asked for and files removed, whatever happens to completions.
HARMLESS = ("GET", "HEAD", "DELETE")

# A loop around a call that fails at once would spin. The first hundred failures of an open breaker are instant; from then on
# each takes a tenth of a second.
SPIN = 100
BRAKE = 0.1

# The limiter keeps the same deadline and knows better what was waited for: it may speak first.
GRACE = 0.005

# Where a limiter holds us back, more time than this passes between two refusals of one call.
QUICK = 0.1


class Admissions(Protocol):
    """
    What retry asks of the limiter below it.
    """

    def alive(self, request: Request, within: float) -> bool:
        """
        Whether a request of the same organisation was admitted within so many seconds, or is under way for longer than a
        refusal takes.
        """
        ...


class _Organisation:
    """
    What is known of one account at one host, on one loop.
    """

    __slots__ = (
        "active",
        "admitted",
        "breaker",
        "loop",
        "quota",
        "quota_probe",
        "quota_since",
        "recent",
        "sleepers",
        "unsent",
    )

    def __init__(self, policy: RetryPolicy, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.active: int = 0
        """Calls under way, waiting ones included."""
        self.admitted: float | None = None
        """When the last good status came."""
        self.breaker: OverloadBreaker = OverloadBreaker(
            policy.overload_threshold, policy.overload_patience, policy.overload_cooldown
        )
        self.recent: deque[Attempt] = deque(maxlen=16)
        """The overloads of the current row, for the error of a call that was never sent."""
        self.quota: str | None = None
        """What the server said about money, while it holds."""
        self.quota_since: float = 0.0
        self.quota_probe: float = 0.0
        self.sleepers: set[asyncio.Future[None]] = set()
        self.unsent: int = 0
        """Calls that a breaker has failed since the last probe."""

    @property
    def open(self) -> bool:
        return self.quota is not None or self.breaker.next_probe is not None

    @property
    def troubled(self) -> bool:
        return self.quota is not None or self.breaker.generations > 0

    def succeeded(self, sent: float) -> None:
        """A request sent at `sent` was answered well. What was sent before the trouble began says nothing about it."""
        self.breaker.succeeded(sent)
        if self.quota is not None and sent >= self.quota_since:
            self.quota = None

    def wake(self) -> None:
        """Lets those who wait see that waiting is over."""
        for sleeper in self.sleepers:
            if not sleeper.done():
                sleeper.set_result(None)


class _Call:
    """
    One call that has failed at least once.
    """

    __slots__ = (
        "attempts",
        "began",
        "error",
        "failure",
        "outcome",
        "previous",
        "quick",
        "reconnected",
        "request",
        "requeued",
        "retries",
        "send",
        "spent",
        "traceback",
        "verdict",
    )

    def __init__(self, request: Request, send: Handler, began: float) -> None:
        self.request: Request = request
        self.send: Handler = send
        self.began: float = began
        self.attempts: int = 1
        """How often it was sent."""
        self.retries: int = 0
        """Retries used."""
        self.previous: float = 0.0
        self.spent: int = 0
        """What its retries took from the budget."""
        self.reconnected: bool = False
        self.requeued: float = -1.0
        """When it was last handed back to the limiter, …"""
        self.quick: int = 0
        """… and how often in a row that came to nothing at once."""
        self.outcome: Response | KimiError | None = None
        """The last failed attempt's reply, or the error it raised …"""
        self.error: KimiError | None = None
        """… and the error that either means."""
        self.traceback: TracebackType | None = None
        self.failure: Failure = Failure(cause="")
        self.verdict: Verdict = Verdict("stop", "")


class RetryMiddleware:
    """
    Sends a request until it works, or until it should not be sent again.

    A reply of status 400 and above that is final is returned, as every reply is; what raised is raised, with
    `.attempts`. `CircuitOpenError` is raised without sending anything while a breaker is open.

    One per client: budget and breakers are shared by all its calls, breakers per host and key. `limiter` is the one below,
    if there is one. `dice` gives numbers in [0, 1); `wall` is Unix time, read only for a `Retry-After` that is a date.
    """

    per_call = True

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        *,
        budget: RetryBudget | None = None,
        watcher: Observer | None = None,
        limiter: Admissions | None = None,
        dice: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.policy: RetryPolicy = policy or RetryPolicy()
        self.budget: RetryBudget = RetryBudget(self.policy.budget) if budget is None else budget
        self._limiter = limiter
        self._asked: Callable[[Request, float], bool] | None = getattr(limiter, "alive", None)
        if hasattr(limiter, "longest_gate"):
            cast("Any", limiter).longest_gate = self.policy.max_wait
        self._watcher = watcher
        self.dice = dice
        self._wall = wall
        self._organisations: dict[tuple[str, int, int], _Organisation] = {}

    # The fast path: two clock readings, a dict look-up, and no object made.
    async def __call__(self, request: Request, send: Handler) -> Response:
        loop = asyncio.get_running_loop()
        org = self._organisation(request, loop)
        if org.open:
            await self._check(org, request, None)
        began = loop.time()
        org.active += 1
        try:
            try:
                response = await (_deliver if request.deadline is None else _deliver_in_time)(request, send)
                if response.status < 300:
                    if request.method == "POST":
                        org.admitted = loop.time()
                    if org.troubled:
                        org.succeeded(began + request.extensions.get("waited", 0.0))
                    if self.budget.available < self.budget.capacity:
                        self.budget.deposit()
                    return response
                outcome: Response | KimiError = await _with_body(response)
            except KimiError as error:
                outcome = error
            call = _Call(request, send, began)
            self._note(org, call, outcome, began)
            del outcome  # the error's traceback holds this frame, which must not hold the error
            return await self._again(org, call)
        finally:
            org.active -= 1

    # --- one attempt --------------------------------------------------------------------------------------------

    async def _attempt(self, org: _Organisation, call: _Call) -> Response | None:
        """
        Sends once more. The response if it worked; otherwise None, and the call knows why.
        """
        request = call.request
        began = org.loop.time()
        call.attempts += 1
        try:
            response = await (_deliver if request.deadline is None else _deliver_in_time)(request, call.send)
            if response.status < 300:
                if request.method == "POST":
                    org.admitted = org.loop.time()
                org.succeeded(began + request.extensions.get("waited", 0.0))
                self.budget.deposit(call.spent or DEPOSIT)
                return response
            outcome: Response | KimiError = await _with_body(response)
        except KimiError as error:
            outcome = error
        self._note(org, call, outcome, began)
        del outcome
        return None

    def _note(self, org: _Organisation, call: _Call, outcome: Response | KimiError, sent: float) -> None:
        """
        Takes in a failed attempt: what it was, what it means for everybody, and what to do.
        """
        now = org.loop.time()
        call.outcome = outcome
        if isinstance(outcome, Response):
            call.error = error_from(
                outcome.status, outcome.headers, outcome.content, outcome.request, now=self._wall()
            )
        else:
            call.error = outcome
        request, policy = call.request, self.policy
        waited = request.extensions.pop("waited", 0.0)
        sent += waited
        if waited and request.history:
            last = request.history[-1]
            request.history[-1] = replace(last, waited=last.waited + waited)
        call.failure = failure = _failure(call.error, sent, now)
        if isinstance(outcome, LOCAL):
            # Nothing was sent, so this was no attempt.
            call.attempts -= 1
            call.verdict = Verdict("stop", str(outcome))
            return
        if failure.cause in ("overloaded", "unavailable"):
            org.recent.append(_attempt(call, failure, 0.0))
            if org.breaker.failed(sent, now):
                self._fail_all(org, request)
        elif failure.cause == "quota":
            first = org.quota is None
            if first:
                org.quota_since = now
            org.quota = failure.message
            org.quota_probe = now + policy.quota_cooldown
            if first:
                self._fail_all(org, request)
        elif failure.cause == "rate_limit" and (failure.hint or 0.0) > policy.max_wait:
            # It concerns all who queue: what one may not wait for, the others may not either.
            self._fail(request, lambda: _too_long(failure.hint or 0.0, policy.max_wait))
        # Only inference counts for Kimi's limits, and only that has passed the limiter.
        limiter = (
            self._limiter is not None
            and request.method == "POST"
            and not request.extensions.get("unlimited", False)
        )
        call.verdict = decide(
            policy,
            failure,
            retries=call.retries,
            max_retries=None if request.max_retries and _stops(policy.strategy) else request.max_retries,
            remaining=self.remaining(call, now),
            previous=call.previous,
            dice=self.dice,
            alive=limiter and self._alive(org, request, now),
            limiter=limiter,
            shared=org.active > 1,
            replayable=_replayable(request),
            reconnected=call.reconnected,
        )
        if call.verdict.action != "stop" and org.open:
            call.verdict = Verdict(
                "stop",
                "the account has no balance or quota left"
                if org.quota is not None
                else "the service has had no capacity for anybody for a while",
            )
        if watched(self._watcher):
            report(
                self._watcher,
                AttemptFailed(**where(request), attempt=_attempt(call, failure, call.verdict.wait)),
            )

    def _alive(self, org: _Organisation, request: Request, now: float) -> bool:
        if org.admitted is not None and now - org.admitted <= self.policy.alive_for:
            return True
        return self._asked is not None and self._asked(request, self.policy.alive_for)

    def remaining(self, call: _Call, now: float) -> float | None:
        """Seconds that the caller, or the policy, still allows."""
        left: float | None = None
        if call.request.deadline is not None:
            left = call.request.deadline - now
        if self.policy.total_time is not None:
            spare = call.began + self.policy.total_time - now
            left = spare if left is None else min(left, spare)
        return left

    # --- after a failure ----------------------------------------------------------------------------------------

    async def _again(self, org: _Organisation, call: _Call) -> Response:
        try:
            response = await self._requeue(org, call)
            if response is not None:
                return response
            if call.verdict.action == "stop" and self.policy.strategy is None:
                return self._finish(org, call)
            return await self._with_tenacity(org, call)
        finally:
            # tenacity's objects refer to each other in circles, and to the call: request and error must not wait for the
            # garbage collector with them.
            del call.request, call.send, call.outcome, call.error, call.traceback

    async def _requeue(self, org: _Organisation, call: _Call) -> Response | None:
        """
        Sends again as long as that uses up no attempt.
        """
        while call.verdict.action == "requeue":
            if call.failure.reused:
                self._remember(call, 0.0)
                call.reconnected = True
            else:
                extensions = call.request.extensions
                if call.failure.cause == "rate_limit" and not extensions.get("requeued"):
                    # Ahead of those who have not waited yet, and only once: its own class stays its own.
                    call.request.priority += 1
                    extensions["requeued"] = True
                now = org.loop.time()
                call.quick = call.quick + 1 if now - call.requeued < QUICK else 0
                # The limiter should have made us wait. If it lets us run against the same wall at once, we wait here.
                wait = (
                    backoff(self.policy.rule("rate_limit"), call.quick - 2, 0.0, self.dice)
                    if call.quick > 2
                    else 0.0
                )
                self._remember(call, wait)
                await self._pause(org, wait)
                call.requeued = org.loop.time()
                if org.open:
                    await self._check(org, call.request, call)
            response = await self._attempt(org, call)
            if response is not None:
                return response
        return None

    async def _with_tenacity(self, org: _Organisation, call: _Call) -> Response:
        """
        Sends again as the policy says. tenacity is handed the first failure as its first attempt.
        """
        retrying = _retrying(self, org, call)
        state: tenacity.RetryCallState | None = None
        first = True
        try:
            async for attempt in retrying:
                state = attempt.retry_state
                if not first:
                    call.retries += 1
                    call.reconnected = False
                    response = await self._attempt(org, call)
                    if response is None:
                        response = await self._requeue(org, call)
                    if response is not None:
                        return response
                first = False
                # Only what we caught as a failed attempt is shown to tenacity. A cancellation has already left through
                # this frame, so that no predicate, ours or the user's, can swallow it.
                failed = call.error
                assert failed is not None
                call.traceback = failed.__traceback__
                state.set_exception((type(failed), failed, call.traceback))
                # tenacity reads the clock of the machine; ours is the loop's.
                state.start_time = call.began
                state.outcome_timestamp = org.loop.time()
                del failed, attempt
        except Exception as error:
            if error is not call.error and not _is_retry_error(error):
                raise  # from the user's own callbacks, or a breaker
            if call.error is not None:
                call.error.__traceback__ = call.traceback  # tenacity's frames say nothing, and hold the error
        finally:
            if state is not None:
                state.outcome = None
        return self._finish(org, call)

    async def sleep(self, org: _Organisation, call: _Call, seconds: float) -> None:
        """
        Waits before a retry, in nobody's way, then pays for it. A breaker that opens ends the wait.
        """
        call.previous = seconds
        self._remember(call, seconds)
        await self._pause(org, seconds)
        if org.open:
            await self._check(org, call.request, call)
        cost = call.verdict.cost
        if cost:
            patience = self.policy.budget_patience
            remaining = self.remaining(call, org.loop.time())
            if remaining is not None:
                patience = min(patience, remaining)
            if not await self.budget.spend_within(cost, patience):
                call.request.history.pop()
                call.verdict = Verdict(
                    "stop", "the client's retry budget is spent: too little succeeds to go on"
                )
                assert call.error is not None
                raise call.error
            call.spent += cost

    async def _pause(self, org: _Organisation, seconds: float) -> None:
        """
        Sleeps, until a breaker opens at the latest.
        """
        if seconds <= 0:
            return
        sleeper: asyncio.Future[None] = org.loop.create_future()
        timer = org.loop.call_later(seconds, _wake, sleeper)
        org.sleepers.add(sleeper)
        try:
            await sleeper
        finally:
            org.sleepers.discard(sleeper)
            timer.cancel()

    def _remember(self, call: _Call, wait: float) -> None:
        """
        Writes a failed attempt into the history, now that another follows.
        """
        request, verdict = call.request, call.verdict
        history = request.history
        history.append(_attempt(call, call.failure, wait))
        if len(history) > 64:
            del history[8]  # the beginning and the latest tell the story of a call that queued for an hour
        if not watched(self._watcher):
            return
        report(
            self._watcher,
            RetryScheduled(
                **where(request),
                attempt=call.attempts,
                cause=call.failure.cause,
                reason=verdict.reason,
                wait=wait,
                requeued=verdict.action == "requeue",
            ),
        )

    def _finish(self, org: _Organisation, call: _Call) -> Response:
        """
        Returns the final reply, or raises the final error, with the history and the reason.
        """
        outcome, history, reason = call.outcome, call.request.history, call.verdict.reason
        report(
            self._watcher,
            CallFailed(
                **where(call.request),
                cause=call.failure.cause,
                reason=reason,
                attempts=call.attempts,
                elapsed=org.loop.time() - call.began,
            ),
        )
        # The traceback of the error holds this frame, which must not hold the error in turn.
        call.outcome = call.error = call.traceback = None
        # That a wrong request is not repeated needs no words; that time or retries ran out does.
        given_up = "" if call.verdict.by_cause else reason
        if isinstance(outcome, Response):
            outcome.extensions["given_up"] = given_up
            return outcome
        assert outcome is not None
        if isinstance(outcome, APIError):
            outcome.attempts = tuple(history)
            outcome.given_up = given_up
        elif history and hasattr(outcome, "attempts"):
            cast("Any", outcome).attempts = tuple(history)
        try:
            raise outcome
        finally:
            del outcome

    # --- breakers -----------------------------------------------------------------------------------------------

    async def _check(self, org: _Organisation, request: Request, call: _Call | None) -> None:
        """
        Raises `CircuitOpenError` while a breaker is open, unless it is this call's turn to probe.
        """
        if request.method in HARMLESS:
            return
        now = org.loop.time()
        if org.quota is not None:
            if now >= org.quota_probe and call is None:
                org.quota_probe = now + self.policy.quota_cooldown
                org.unsent = 0
                return
        elif org.breaker.blocked(now) is None:
            org.unsent = 0
            return
        org.unsent += 1
        if org.unsent > SPIN:
            await asyncio.sleep(BRAKE)
        raise _unsent(org, tuple(request.history))

    def _fail_all(self, org: _Organisation, request: Request) -> None:
        """
        Ends the waiting of everybody: of those who sleep before a retry, and of those who queue in the limiter.
        """
        org.wake()
        self._fail(request, lambda: _unsent(org, ()))

    def _fail(self, request: Request, error: Callable[[], KimiError]) -> None:
        """
        Ends the waiting in the limiter.
        """
        fail = getattr(self._limiter, "fail", None)
        if fail is not None and request.method not in HARMLESS:
            fail(error)

    def _organisation(self, request: Request, loop: asyncio.AbstractEventLoop) -> _Organisation:
        url = request.url
        # The key itself is not kept, only what tells two keys apart.
        key = (url[: url.find("/", 8)], hash(request.headers.get("authorization")), id(loop))
        org = self._organisations.get(key)
        if org is None or org.loop is not loop:
            crowded = len(self._organisations) >= 256
            for name, known in list(self._organisations.items()):
                if known.loop.is_closed() or (crowded and not known.active):
                    del self._organisations[name]
            org = self._organisations[key] = _Organisation(self.policy, loop)
        return org


def _unsent(org: _Organisation, history: tuple[Attempt, ...]) -> CircuitOpenError:
    """
    The error for a request that was not sent because a breaker is open.
    """
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
        f"nothing was sent: the service has been overloaded for {now - breaker.since:.0f} s, "
        f"{breaker.generations} refusals in a row; the next try is in {wait:.0f} s",
        cause="overloaded",
        retry_after=wait,
        attempts=history or tuple(org.recent),
    )


def _too_long(hint: float, allowed: float) -> RateLimitWaitError:
    return RateLimitWaitError(
        f"nothing was sent: the server asks everybody to wait {hint:.6g} s, and only {allowed:.6g} s are allowed (max_wait)",
        eta=hint,
        reason="gate",
    )


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


async def _deliver(request: Request, send: Handler) -> Response:
    """
    One attempt: the reply, accepted if its status is good.
    """
    response = await send(request)
    if response.status < 300 and request.accept is not None:
        try:
            response.value = await request.accept(response)
        except BaseException:
            response.close()  # its slot must not stay taken
            raise
    return response


async def _deliver_in_time(request: Request, send: Handler) -> Response:
    """
    The same, within the caller's deadline.
    """
    assert request.deadline is not None
    began = asyncio.get_running_loop().time()
    bound = asyncio.timeout_at(request.deadline + GRACE)
    try:
        async with bound:
            return await _deliver(request, send)
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


def _replayable(request: Request) -> bool:
    body = request.body
    return body is None or isinstance(body, bytes | bytearray | memoryview) or bool(body.replayable)


async def _with_body(response: Response) -> Response:
    """
    A refused reply, read and closed. If its body breaks off, the status must still be heard.
    """
    try:
        await response.read()
    except APIConnectionError:
        response.close()
        short = Response(
            response.status, response.headers, request=response.request, http_version=response.http_version
        )
        short.extensions = response.extensions
        return short
    return response


def _failure(error: KimiError, sent: float, now: float) -> Failure:
    """
    What an error says.
    """
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


def _attempt(call: _Call, failure: Failure, wait: float) -> Attempt:
    return Attempt(
        number=call.attempts,
        cause=failure.cause,
        status=failure.status,
        error_type=failure.error_type,
        message=failure.message,
        waited=wait,
        elapsed=failure.elapsed,
    )


# --- tenacity ---------------------------------------------------------------------------------------------------------


def _stops(strategy: Any) -> bool:
    """
    Whether the user's strategy says itself when to stop.
    """
    if strategy is None:
        return False
    import tenacity

    if isinstance(strategy, tenacity.BaseRetrying):
        return strategy.stop is not tenacity.stop_never
    return isinstance(strategy, tenacity.stop.stop_base)


def _is_retry_error(error: Exception) -> bool:
    import tenacity

    return isinstance(error, tenacity.RetryError)


def _retrying(middleware: RetryMiddleware, org: _Organisation, call: _Call) -> "tenacity.AsyncRetrying":
    """
    The attempt policy of one call: the verdict already reached, or the user's own strategy within it.
    """
    import tenacity

    strategy = middleware.policy.strategy

    async def sleep(seconds: float) -> None:
        await middleware.sleep(org, call, seconds)

    if strategy is None:
        return tenacity.AsyncRetrying(
            sleep=sleep,
            wait=lambda _: call.verdict.wait,
            retry=lambda _: call.verdict.action == "retry",
            reraise=True,
        )
    own = strategy if isinstance(strategy, tenacity.BaseRetrying) else None
    own_wait = own.wait if own else strategy if isinstance(strategy, tenacity.wait.wait_base) else None
    own_stop = own.stop if own else strategy if isinstance(strategy, tenacity.stop.stop_base) else None
    if own is None and own_wait is None and own_stop is None:
        raise TypeError(
            f"RetryPolicy.strategy must be a tenacity wait, stop or AsyncRetrying; got {type(strategy).__name__}"
        )
    own_retry = own.retry if own and not _is_default_retry(own.retry) else None
    if own_stop is tenacity.stop_never:
        own_stop = None
    if own_wait is not None and own is not None and isinstance(own_wait, tenacity.wait_none):
        own_wait = None

    def wait(state: "tenacity.RetryCallState") -> float:
        if own_wait is None:
            return call.verdict.wait
        seconds = float(own_wait(state))
        return max(0.0, seconds, call.failure.hint or 0.0)

    def stop(state: "tenacity.RetryCallState") -> bool:
        if own_stop is not None and own_stop(state):
            call.verdict = Verdict("stop", "the strategy given as RetryPolicy.strategy stops here")
            return True
        left = middleware.remaining(call, org.loop.time())
        if left is not None and state.upcoming_sleep > left:
            call.verdict = Verdict(
                "stop",
                f"the next attempt would be in {state.upcoming_sleep:.3g} s, and only {left:.3g} s are allowed",
            )
            return True
        return False

    async def retry(state: "tenacity.RetryCallState") -> bool:
        if call.verdict.action == "retry":
            if own_retry is None or await _maybe(cast("Any", own_retry)(state)):
                return True
            call.verdict = Verdict("stop", "the strategy given as RetryPolicy.strategy does not repeat this")
            return False
        # The user's predicate may repeat what the table would not, as long as it is not known to be useless.
        if (
            own_retry is not None
            and call.verdict.by_cause
            and call.failure.cause not in ("tpd", "quota", "content_filter", "context_length", "auth")
            and (own_stop is not None or call.retries < call.request.max_retries)
            and await _maybe(cast("Any", own_retry)(state))
        ):
            rule = middleware.policy.rule(call.failure.cause)
            seconds = backoff(rule, call.retries + 1, call.previous, middleware.dice)
            call.verdict = Verdict(
                "retry",
                "the strategy given as RetryPolicy.strategy repeats it",
                seconds,
                TRANSIENT,
            )
            return True
        return False

    if own is None:
        return tenacity.AsyncRetrying(sleep=sleep, wait=wait, stop=stop, retry=retry, reraise=True)
    return tenacity.AsyncRetrying(
        sleep=sleep,
        wait=wait,
        stop=stop,
        retry=retry,
        before=own.before,
        after=own.after,
        before_sleep=own.before_sleep,
        reraise=True,
    )


def _is_default_retry(predicate: Any) -> bool:
    import tenacity

    return type(predicate) is tenacity.retry_if_exception_type and predicate.exception_types is Exception


async def _maybe(value: Any) -> Any:
    return (
        await cast("Awaitable[Any]", value)
        if asyncio.iscoroutine(value) or isinstance(value, asyncio.Future)
        else value
    )
