"""
A user's own tenacity strategy around the attempts of a call.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from ...transport.exchange import Response
from .breakers import TRANSIENT
from .organisation import Call, Organisation
from .policy import RetryPolicy, Verdict, backoff

if TYPE_CHECKING:
    import tenacity

__all__ = ["repeat_with_strategy", "stops"]


class Repeater(Protocol):
    """What is asked of the middleware that repeats."""

    policy: RetryPolicy
    dice: Callable[[], float]

    def remaining(self, call: Call, now: float) -> float | None: ...

    async def sleep(self, org: Organisation, call: Call, seconds: float) -> None: ...

    async def again(self, org: Organisation, call: Call) -> Response | None: ...


def stops(strategy: object) -> bool:
    """Whether the user's strategy says itself when to stop."""
    if strategy is None:
        return False
    import tenacity

    if isinstance(strategy, tenacity.BaseRetrying):
        return strategy.stop is not tenacity.stop_never
    return isinstance(strategy, tenacity.stop.stop_base)


def _is_retry_error(error: Exception) -> bool:
    import tenacity

    return isinstance(error, tenacity.RetryError)


def _retrying(middleware: Repeater, org: Organisation, call: Call) -> "tenacity.AsyncRetrying":
    """The attempts of one call under the user's own strategy, within the verdict that the policy has reached."""
    import tenacity

    strategy = middleware.policy.strategy

    async def sleep(seconds: float) -> None:
        await middleware.sleep(org, call, seconds)

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


async def repeat_with_strategy(middleware: Repeater, org: Organisation, call: Call) -> Response | None:
    """
    Sends again as the policy and the user's strategy say; the reply, if it worked in the end. tenacity is handed the first failure as its first attempt.
    """
    retrying = _retrying(middleware, org, call)
    state: tenacity.RetryCallState | None = None
    first = True
    try:
        async for attempt in retrying:
            state = attempt.retry_state
            if not first:
                response = await middleware.again(org, call)
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
    return None


def _is_default_retry(predicate: object) -> bool:
    import tenacity

    return type(predicate) is tenacity.retry_if_exception_type and predicate.exception_types is Exception


async def _maybe(value: Any) -> Any:
    return (
        await cast("Awaitable[object]", value)
        if asyncio.iscoroutine(value) or isinstance(value, asyncio.Future)
        else value
    )
