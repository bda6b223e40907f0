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

tenacity, whose machinery takes 25–50 µs a call and 20 ms to import, is entered only for a strategy of the user's own.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from ...codec.faults import error_from
from ...errors import (
    APIConnectionError,
    APIError,
    CircuitOpenError,
    ClientClosedError,
    ConfigurationError,
    KimiError,
    RateLimitWaitError,
    SharedLimitsError,
)
from ...transport.exchange import Request, Response, Turn
from ..chain import Handler
from ..events import AttemptFailed, CallFailed, Observer, RetryScheduled, report, watched, where
from .attempts import (
    attempt_of,
    deliver,
    deliver_in_time,
    failure_of,
    not_tried,
    replayable,
    too_long,
    unsent,
    waited_of,
    with_body,
)
from .breakers import RetryBudget
from .organisation import KNOCK, Admissions, Call, Organisation, is_unreachable
from .policy import RetryPolicy, Verdict, backoff, decide
from .strategy import repeat_with_strategy, stops

__all__ = ["RetryMiddleware"]

# Refusals of our own, after which nothing has been sent.
LOCAL = (RateLimitWaitError, SharedLimitsError, CircuitOpenError, ClientClosedError, ConfigurationError)


# Which methods no breaker stops: the balance can be asked for and files removed, whatever happens to completions.
HARMLESS = ("GET", "HEAD", "DELETE")


# A loop around a call that fails at once would spin. The first hundred failures of an open breaker are instant; from then on
# each takes a tenth of a second.
SPIN = 100


BRAKE = 0.1


# Where a limiter holds us back, more time than this passes between two refusals of one call.
QUICK = 0.1


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
        if limiter is not None:
            limiter.longest_gate = self.policy.max_wait
        self._watcher = watcher
        self.dice = dice
        self._wall = wall
        self._organisations: dict[tuple[str, int, int], Organisation] = {}
        self._latest: tuple[str, int, Organisation] | None = None
        """The address, the digest of the key, and the organisation of the call before."""

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
                if org.lost is not None and not org.take_turn(began):
                    raise not_tried(request, org.lost)
                response = await (deliver if request.deadline is None else deliver_in_time)(request, send)
                if org.lost is not None:
                    org.reached()
                if response.status < 300:
                    if request.method == "POST":
                        org.admitted = loop.time()
                    if org.troubled:
                        org.succeeded(began + waited_of(request))
                    if self.budget.available < self.budget.capacity:
                        self.budget.deposit()
                    return response
                outcome: Response | KimiError = await with_body(response)
            except KimiError as error:
                outcome = error
            call = Call(request, send, began)
            self._note(org, call, outcome, began)
            del outcome  # the error's traceback holds this frame, which must not hold the error
            return await self._again(org, call)
        finally:
            org.active -= 1

    # --- one attempt --------------------------------------------------------------------------------------------

    async def _attempt(self, org: Organisation, call: Call) -> Response | None:
        """Sends once more. The response if it worked; otherwise None, and the call knows why."""
        request = call.request
        began = org.loop.time()
        call.attempts += 1
        try:
            response = await (deliver if request.deadline is None else deliver_in_time)(request, call.send)
            org.reached()
            if response.status < 300:
                if request.method == "POST":
                    org.admitted = org.loop.time()
                org.succeeded(began + waited_of(request))
                self.budget.repay(call.spent)
                return response
            outcome: Response | KimiError = await with_body(response)
        except KimiError as error:
            outcome = error
        self._note(org, call, outcome, began)
        del outcome
        return None

    def _note(self, org: Organisation, call: Call, outcome: Response | KimiError, sent: float) -> None:
        """Takes in a failed attempt: what it was, what it means for everybody, and what to do."""
        now = org.loop.time()
        call.outcome = outcome
        if isinstance(outcome, Response):
            call.error = outcome.error = error_from(
                outcome.status,
                outcome.headers,
                outcome.content,
                outcome.request,
                now=self._wall(),
                shape=outcome.refusal,
            )
        else:
            call.error = outcome
        request, policy = call.request, self.policy
        waited = waited_of(request)
        if request.turn is not None:
            request.turn.waited = 0.0
        sent += waited
        if waited and request.history:
            last = request.history[-1]
            request.history[-1] = replace(last, waited=last.waited + waited)
        call.failure = failure = failure_of(call.error, sent, now)
        if is_unreachable(call.error):
            org.unreachable(cast("APIConnectionError", call.error), now)
        elif not isinstance(outcome, LOCAL):
            org.reached()
        if isinstance(outcome, LOCAL):
            # Nothing was sent, so this was no attempt.
            call.attempts -= 1
            call.verdict = Verdict("stop", str(outcome))
            return
        if failure.cause in ("overloaded", "unavailable", "gateway"):
            org.recent.append(attempt_of(call, failure, 0.0))
            if org.breaker.failed(sent, now, failure.hint):
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
            self._fail(request, lambda: too_long(failure.hint or 0.0, policy.max_wait))
        call.verdict = self._verdict(org, call, now)
        if watched(self._watcher):
            report(
                self._watcher,
                AttemptFailed(**where(request), attempt=attempt_of(call, failure, call.verdict.wait)),
            )

    def _verdict(self, org: Organisation, call: Call, now: float) -> Verdict:
        """What to do after the failure that the call has met."""
        request, policy = call.request, self.policy
        # Only inference counts for Kimi's limits, and only that has passed the limiter.
        limiter = (
            self._limiter is not None
            and request.method == "POST"
            and (request.turn is None or request.turn.limited)
        )
        verdict = decide(
            policy,
            call.failure,
            retries=call.retries,
            max_retries=None if request.max_retries and stops(policy.strategy) else request.max_retries,
            remaining=self.remaining(call, now),
            previous=call.previous,
            dice=self.dice,
            alive=limiter and self._alive(org, request, now),
            limiter=limiter,
            shared=org.active > 1,
            replayable=replayable(request),
            reconnected=call.reconnected,
        )
        if verdict.action != "stop" and org.open:
            return Verdict(
                "stop",
                "the account has no balance or quota left"
                if org.quota is not None
                else "the service has had no capacity for anybody for a while",
            )
        return verdict

    def _alive(self, org: Organisation, request: Request, now: float) -> bool:
        if org.admitted is not None and now - org.admitted <= self.policy.alive_for:
            return True
        return self._limiter is not None and self._limiter.alive(request, self.policy.alive_for)

    def remaining(self, call: Call, now: float) -> float | None:
        """Seconds that the caller, or the policy, still allows."""
        left: float | None = None
        if call.request.deadline is not None:
            left = call.request.deadline - now
        if self.policy.total_time is not None:
            spare = call.began + self.policy.total_time - now
            left = spare if left is None else min(left, spare)
        return left

    # --- after a failure ----------------------------------------------------------------------------------------

    async def _again(self, org: Organisation, call: Call) -> Response:
        try:
            response = await self._requeue(org, call)
            if response is not None:
                return response
            if self.policy.strategy is None:
                return await self._repeat(org, call)
            response = await repeat_with_strategy(self, org, call)
            return self._finish(org, call) if response is None else response
        finally:
            # tenacity's objects refer to each other in circles, and to the call: request and error must not wait for the
            # garbage collector with them.
            del call.request, call.send, call.outcome, call.error, call.traceback

    async def _requeue(self, org: Organisation, call: Call) -> Response | None:
        """Sends again as long as that uses up no attempt."""
        while call.verdict.action == "requeue":
            if call.failure.reused:
                self._remember(call, 0.0)
                call.reconnected = True
            else:
                if call.failure.cause == "rate_limit":
                    turn = call.request.turn = call.request.turn or Turn()
                    turn.kept = True
                now = org.loop.time()
                pause = 0.0 if call.request.turn is None else call.request.turn.pause
                # A wait that the server asked for is no running against the wall.
                call.quick = call.quick + 1 if not pause and now - call.requeued < QUICK else 0
                # The limiter should have made us wait. If it lets us run against the same wall at once, we wait here.
                wait = (
                    backoff(self.policy.rule("rate_limit"), call.quick - 2, 0.0, self.dice)
                    if call.quick > 2
                    else pause
                )
                self._remember(call, wait)
                await org.pause(wait)
                call.requeued = org.loop.time()
                if org.open:
                    await self._check(org, call.request, call)
            response = await self._attempt(org, call)
            if response is not None:
                return response
        return None

    async def _repeat(self, org: Organisation, call: Call) -> Response:
        """Sends again as long as the verdict says so."""
        while call.verdict.action == "retry":
            if org.lost is not None and is_unreachable(call.error):
                response = await self._knock(org, call)
                if response is not None:
                    return response
                continue
            try:
                await self.sleep(org, call, call.verdict.wait)
            except KimiError as error:
                if error is not call.error:
                    raise  # a breaker
                break
            response = await self.again(org, call)
            if response is not None:
                return response
        return self._finish(org, call)

    async def again(self, org: Organisation, call: Call) -> Response | None:
        """One more attempt, which uses up a retry; the reply if it worked."""
        call.retries += 1
        call.reconnected = False
        response = await self._attempt(org, call)
        return await self._requeue(org, call) if response is None else response

    async def _knock(self, org: Organisation, call: Call) -> Response | None:
        """
        Waits for a host that cannot be reached, for as long as the call's retries would take. Meanwhile one caller tries every half
        second, for all and at nobody's cost; when that works, all go on at once.
        """
        loop, patience = org.loop, _retries_take(self.policy, call.request.max_retries)
        if (allowed := self.remaining(call, loop.time())) is not None:
            patience = min(patience, allowed)
        self._remember(call, patience)
        until = loop.time() + patience
        while org.lost is not None and (left := until - loop.time()) > 0:
            await org.pause(min(left, KNOCK))
            if org.take_turn(loop.time()):
                response = await self._attempt(org, call)
                if response is None and not is_unreachable(call.error):
                    return await self._requeue(org, call)  # it is there, and something else is wrong
                if response is not None:
                    return response
        if org.lost is None:
            response = await self._attempt(org, call)
            return await self._requeue(org, call) if response is None else response
        call.verdict = Verdict("stop", f"the host could not be reached for {patience:.3g} s")
        return None

    async def sleep(self, org: Organisation, call: Call, seconds: float) -> None:
        """Waits before a retry, in nobody's way, then pays for it. A breaker that opens ends the wait."""
        call.previous = seconds
        self._remember(call, seconds)
        cost, failure = call.verdict.cost, call.failure
        # What costs nothing, the limiter holds back: those who are woken do not come together.
        await org.pause(seconds, short=not cost and failure.cause != "rate_limit" and failure.hint is None)
        if org.open:
            await self._check(org, call.request, call)
        if cost:
            now = org.loop.time()
            remaining = self.remaining(call, now)
            latest = math.inf if remaining is None else now + remaining
            paid = await self.budget.spend_within(cost, self.policy.budget_patience, latest)
            if not paid:
                call.request.history.pop()
                call.verdict = Verdict(
                    "stop", "the client's retry budget is spent: too little succeeds to go on"
                )
                assert call.error is not None
                raise call.error
            call.spent += paid

    def _remember(self, call: Call, wait: float) -> None:
        """Writes a failed attempt into the history, now that another follows."""
        request, verdict = call.request, call.verdict
        history = request.history
        history.append(attempt_of(call, call.failure, wait))
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

    def _finish(self, org: Organisation, call: Call) -> Response:
        """Returns the final reply, or raises the final error, with the history and the reason."""
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
            outcome.given_up = given_up
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

    async def _check(self, org: Organisation, request: Request, call: Call | None) -> None:
        """Raises `CircuitOpenError` while a breaker is open, unless it is this call's turn to probe."""
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
        raise unsent(org, tuple(request.history))

    def _fail_all(self, org: Organisation, request: Request) -> None:
        """Ends the waiting of everybody: of those who sleep before a retry, and of those who queue in the limiter."""
        org.wake()
        self._fail(request, lambda: unsent(org, ()))

    def _fail(self, request: Request, error: Callable[[], KimiError]) -> None:
        """Ends the waiting in the limiter."""
        if self._limiter is not None and request.method not in HARMLESS:
            self._limiter.fail(error)

    def _organisation(self, request: Request, loop: asyncio.AbstractEventLoop) -> Organisation:
        url = request.url
        # The key itself is not kept, only what tells two keys apart.
        digest = hash(request.headers.get("authorization"))
        latest = self._latest
        if latest is not None and latest[0] == url and latest[1] == digest and latest[2].ref() is loop:
            return latest[2]
        key = (url[: url.find("/", 8)], digest, id(loop))
        org = self._organisations.get(key)
        if org is None or org.ref() is not loop:
            crowded = len(self._organisations) >= 256
            for name, known in list(self._organisations.items()):
                if known.gone or (crowded and not known.active):
                    del self._organisations[name]
            org = self._organisations[key] = Organisation(self.policy, loop)
        self._latest = (url, digest, org)
        return org


def _retries_take(policy: RetryPolicy, max_retries: int) -> float:
    """Seconds that all retries for a lost connection take at most."""
    rule = policy.rule("connection")
    retries = max_retries if rule.max_retries is None else rule.max_retries
    base, cap, factor = rule.base or 0.0, rule.cap or 0.0, rule.factor or 1.0
    return sum(min(cap, base * factor**number) for number in range(retries))
