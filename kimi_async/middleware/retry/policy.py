"""
Whether, when and how often a failed attempt is repeated: the policy, and the rule that applies it.

Plain functions. What failed, the time that is left and the dice are arguments; `retry.py` carries out the verdict.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from .breakers import THROTTLE, TRANSIENT

__all__ = [
    "NEVER",
    "THROTTLED",
    "Failure",
    "Jitter",
    "RetryPolicy",
    "RetryRule",
    "Verdict",
    "backoff",
    "decide",
]

Jitter: TypeAlias = Literal["none", "full", "equal", "decorrelated"] | float

# Causes for which nothing but a change of the request, the key or the account helps, and how to say so.
NEVER: Mapping[str, str] = {
    "tpd": "the day's quota is used up: waiting is a matter of hours",
    "quota": "the account has no balance or quota left",
    "content_filter": "moderation refuses this request, and will again",
    "context_length": "the request does not fit the model",
    "auth": "the key is not accepted",
    "permission": "the account may not do this",
    "not_found": "it is not there",
    "too_large": "the request is too large",
    "unprocessable": "the request is wrong",
    "bad_request": "the request is wrong",
    "redirect": "the server sends us elsewhere",
}

# Decorrelated jitter as it was published may wait less the second time than the first, one time in four: to a server that is
# down, a client that does not back off (llmock's verdict: `no_backoff`). With this floor under it, a hundred colliding clients
# need 30 % fewer calls (700 for 1,000) and 34 % more time.
GROWTH = 1.25

# Which causes the server's limits explain: waiting for them belongs to the limiter.
THROTTLED = frozenset({"rate_limit", "overloaded", "unavailable"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """How one cause is repeated. None leaves a point to the policy."""

    retry: bool | None = None
    """False: never. True: also where it would not be repeated by default."""
    max_retries: int | None = None
    base: float | None = None
    """Seconds of the first wait, before jitter."""
    cap: float | None = None
    """Seconds of the longest wait, before the server's hint is counted in."""
    factor: float | None = None
    """Growth from one wait to the next."""
    jitter: Jitter | None = None


# Overloads last: on K3, three attempts within 25 s failed and the fourth worked, each failure taking 7–11 s to
# arrive (probes/raw/kimi.jsonl of github.com/leandromineti/ai-assisted-coding, September 2026). Two retries
# on this curve span 8–16 s of waiting, against 1–2 s on the usual one.
SLOW = RetryRule(base=4.0, cap=60.0, factor=3.0, jitter="equal")
_DEFAULTS: Mapping[str, RetryRule] = {
    "overloaded": SLOW,
    "unavailable": SLOW,
    # Where no limiter waits for us. One second is what Kimi's Retry-After says whatever the truth is, and four
    # retries a second apart all failed (same source), so the wait doubles.
    "rate_limit": RetryRule(base=1.0, cap=60.0, factor=2.0, jitter="equal"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """
    How failed attempts are repeated. All times in seconds.

    The defaults of `base`, `cap` and `jitter`: 100 colliding clients took 620 calls and 1.75 s to get through with decorrelated
    jitter (as published; ours has a floor, `GROWTH`), 676 and 2.3 with full, 664 and 2.8 with equal, 5,050 and 185 without
    (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter, recomputed).
    """

    max_retries: int | None = None
    """Retries after the first attempt, where the client is not given `max_retries=`; None: 2."""
    attempts: int | None = None
    """The same, the first attempt counted: `attempts=3` is `max_retries=2`."""
    total_time: float | None = None
    """Seconds from the start of a call after which no new attempt begins."""
    base: float = 0.25
    cap: float = 8.0
    factor: float = 2.0
    jitter: Jitter = "decorrelated"
    """`decorrelated`: between 1.25 times and three times the last wait, or `base`; `full`: between 0 and the curve; `equal`: its upper half; a
    number j: the curve less up to j of it (0.25 is what the OpenAI SDK does); `none`."""
    statuses: frozenset[int] | None = None
    """If given, replies of exactly these statuses are repeated, those of `NEVER` causes excepted; None: by cause."""
    max_wait: float = 120.0
    """The longest hint of a server that is obeyed; a longer one raises at once."""
    overrides: Mapping[str, RetryRule | Mapping[str, Any]] = field(default_factory=dict[str, "RetryRule"])
    """Other rules by cause: `{"timeout": RetryRule(max_retries=0), "overloaded": {"base": 10, "max_retries": 5}}`."""
    strategy: Any = None
    """A tenacity wait, stop, or (Async)Retrying of your own. Its wait replaces the curve (never the server's hint), its stop
    `max_retries`, its retry the table, but for the causes that nothing helps; its callbacks are called."""
    alive_for: float = 90.0
    """Seconds after the organisation's last admission during which a rate-limit refusal uses no attempt: the longest window of
    Kimi's limits, 60 s, and time for a reply. Beyond it, refusals count, so that a server that only refuses ends the call."""
    overload_threshold: int = 5
    """The breaker opens after so many generations of overloads in a row (those in flight together are one), …"""
    overload_patience: float = 90.0
    """… and no sooner than so many seconds after the first of them, …"""
    overload_cooldown: float = 3.0
    """… and lets one call through to see whether things are better: after a second, then more slowly, up to every so many seconds; a
    `Retry-After` is waited for. Callers that fail meanwhile wait for nothing once the service is back."""
    quota_cooldown: float = 60.0
    """After a quota error, one call every so many seconds is let through to see whether the account was topped up."""
    budget: int | None = 500
    """What the retries of all calls of a client together may cost: 14 each, or 5 where the server throttled, earned back by
    success. A server that is down gets 35 retries, not two for every call, and then one a second while calls wait for the budget;
    if that succeeds two go on, then four. None: without limit."""
    budget_patience: float = 10.0
    """The longest wait for the retry budget without a retry of another call that succeeds."""

    def __post_init__(self) -> None:
        for name in (
            "base", "cap", "factor", "max_wait", "alive_for", "overload_patience", "overload_cooldown", "quota_cooldown",
            "budget_patience",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"RetryPolicy.{name} must be a number of 0 or more; got {value!r}")
        for name in ("max_retries", "attempts", "budget", "total_time", "overload_threshold"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(
                    f"RetryPolicy.{name} must be a number, not {type(value).__name__} ({value!r:.40})"
                )
        if self.total_time is not None and not self.total_time > 0:
            raise ValueError(f"RetryPolicy.total_time must be above 0, or None; got {self.total_time!r}")
        if self.max_retries is not None and (isinstance(self.max_retries, bool) or not self.max_retries >= 0):
            raise ValueError(f"RetryPolicy.max_retries must be 0 or more, or None; got {self.max_retries!r}")
        if self.attempts is not None:
            if isinstance(self.attempts, bool) or not self.attempts >= 1:
                raise ValueError(f"RetryPolicy.attempts must be 1 or more, or None; got {self.attempts!r}")
            if self.max_retries is None:
                object.__setattr__(self, "max_retries", self.attempts - 1)
            elif self.max_retries != self.attempts - 1:
                raise ValueError(
                    f"RetryPolicy: attempts={self.attempts} and max_retries={self.max_retries} contradict each other"
                )
        if self.overload_threshold < 1:
            raise ValueError(
                f"RetryPolicy.overload_threshold must be 1 or more; got {self.overload_threshold!r}"
            )
        if self.strategy is not None and not callable(self.strategy):
            raise TypeError(
                "RetryPolicy.strategy must be a tenacity wait, stop or AsyncRetrying; "
                f"got {type(self.strategy).__name__}"
            )
        _check_jitter(self.jitter)
        if self.statuses is not None:
            object.__setattr__(self, "statuses", frozenset(self.statuses))
        if self.budget is not None and not self.budget >= 0:
            raise ValueError(f"RetryPolicy.budget must be 0 or more, or None; got {self.budget!r}")
        rules = {
            cause: rule if isinstance(rule, RetryRule) else RetryRule(**rule)
            for cause, rule in self.overrides.items()
        }
        for rule in rules.values():
            if rule.jitter is not None:
                _check_jitter(rule.jitter)
        object.__setattr__(self, "overrides", rules)

    def rule(self, cause: str) -> RetryRule:
        """The rule for a cause with nothing left open but, perhaps, `retry` and `max_retries`."""
        chosen = cast("Mapping[str, RetryRule]", self.overrides).get(cause)
        default = _DEFAULTS.get(cause)

        def pick(name: str) -> Any:
            for rule in (chosen, default):
                if rule is not None and (value := getattr(rule, name)) is not None:
                    return value
            return getattr(self, name)

        return RetryRule(
            retry=chosen.retry if chosen else None,
            max_retries=chosen.max_retries if chosen else None,
            base=pick("base"),
            cap=pick("cap"),
            factor=pick("factor"),
            jitter=pick("jitter"),
        )


def _check_jitter(jitter: object) -> None:
    if jitter in ("none", "full", "equal", "decorrelated"):
        return
    if isinstance(jitter, int | float) and not isinstance(jitter, bool) and 0 <= jitter <= 1:
        return
    raise ValueError(
        f"jitter must be none, full, equal, decorrelated or a number from 0 to 1; got {jitter!r}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is known of one failed attempt."""

    cause: str
    """`connection`, `timeout`, `invalid` (a reply of the wrong shape), `empty`, or a kind of `error_shapes`."""
    status: int | None = None
    error_type: str | None = None
    message: str = ""
    """Redacted."""
    hint: float | None = None
    """Seconds the server asks us to wait."""
    should_retry: bool | None = None
    """The server's own verdict."""
    retryable: bool = True
    """What the error's class says, where the cause says nothing."""
    reused: bool = False
    """A pooled connection was closed before a byte of the reply came."""
    sent: float = 0.0
    """`loop.time()` when the attempt began."""
    elapsed: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after a failed attempt."""

    action: Literal["stop", "retry", "requeue"]
    """`requeue` sends it again without using up an attempt."""
    reason: str
    wait: float = 0.0
    """Seconds to wait before, here; the limiter may add its own."""
    cost: int = 0
    """What the retry costs the budget."""
    by_cause: bool = False
    """Whether it stops for what failed, not for what is left of time or retries."""


def backoff(rule: RetryRule, failures: int, previous: float, dice: Callable[[], float]) -> float:
    """
    Seconds to wait after the `failures`-th failure of a call; `previous` is the wait before this one, 0 at first.
    `dice` gives a number in [0, 1).
    """
    base, cap, factor, jitter = rule.base or 0.0, rule.cap or 0.0, rule.factor or 1.0, rule.jitter
    if jitter == "decorrelated":
        least = max(base, GROWTH * previous)
        return min(cap, least + dice() * max(0.0, 3.0 * max(previous, base) - least))
    # 64 doublings are the age of the universe; a larger exponent would only overflow.
    curve = min(cap, base * factor ** min(failures - 1, 64))
    if jitter == "full":
        return dice() * curve
    if jitter == "equal":
        return curve * (0.5 + 0.5 * dice())
    return curve * (1.0 - jitter * dice()) if isinstance(jitter, int | float) else curve


def decide(
    policy: RetryPolicy,
    failure: Failure,
    *,
    retries: int,
    max_retries: int | None,
    remaining: float | None,
    previous: float,
    dice: Callable[[], float],
    alive: bool = False,
    limiter: bool = False,
    shared: bool = False,
    replayable: bool = True,
    reconnected: bool = False,
) -> Verdict:
    """
    What to do about a failed attempt.

    `retries` counts those already used, `max_retries` those allowed to this call (None: without
    end; 0: it is sent once, whatever the policy says). `remaining` is how many
    seconds the caller still allows, `previous` the last wait. `alive`: somebody of this organisation was admitted lately.
    `limiter`: a limiter below does the waiting for limits. `shared`: other calls of the organisation are under way. `reconnected`: a
    stale connection has been replaced for this attempt already.
    """
    cause, told = failure.cause, failure.should_retry
    if told is False:
        return Verdict("stop", "the server says not to repeat it (x-should-retry: false)")
    if not replayable:
        return Verdict("stop", "its body cannot be sent a second time")
    rule = policy.rule(cause)
    if remaining is not None and remaining <= 0:
        return Verdict("stop", "the time allowed for the call is over")
    if failure.reused and not reconnected and rule.retry is not False:
        return Verdict("requeue", "an idle connection had been closed")
    if told is not True:
        if cause in NEVER:
            if not rule.retry:
                return Verdict("stop", NEVER[cause], by_cause=True)
        elif rule.retry is False:
            return Verdict("stop", f"the policy does not repeat {cause}", by_cause=True)
        elif policy.statuses is not None and failure.status is not None and failure.status >= 400:
            if failure.status not in policy.statuses and not rule.retry:
                return Verdict("stop", f"the policy does not repeat status {failure.status}", by_cause=True)
        elif not failure.retryable and not rule.retry:
            return Verdict("stop", "repeating it would not help", by_cause=True)

    hint = failure.hint
    if hint is not None:
        allowed = policy.max_wait if remaining is None else min(policy.max_wait, remaining)
        if hint > allowed:
            return Verdict(
                "stop",
                f"the server asks to wait {hint:.6g} s, and only {max(0.0, allowed):.6g} s are allowed",
            )

    throttled = cause in THROTTLED
    # What came as an event inside a good reply, or under a status of its own, the limiter has not seen.
    held = limiter and failure.status in (429, 503, 529) and (cause == "rate_limit" or (throttled and shared))
    if held and alive and max_retries != 0:
        # The limit is being shared out and our turn will come; when, the limiter knows. While others share an
        # overload, too, a probe that fails was sent for everybody and is nobody's attempt: the breaker ends it.
        return Verdict("requeue", "others are being admitted: it is a matter of our turn")

    allowed_retries = rule.max_retries if rule.max_retries is not None and max_retries != 0 else max_retries
    if allowed_retries is not None and retries >= allowed_retries:
        return Verdict(
            "stop", f"all {allowed_retries} retries are used" if allowed_retries else "no retries are allowed"
        )
    wait = 0.0
    # Where nobody has been admitted, the limiter may know no reason to wait: a crowd that comes at once to a server that names
    # neither limit nor time would spend its retries in milliseconds (64 slots: 936 of 1,000 calls lost in half a second). Few calls are
    # no outage, and where they are, each would be the probe until it has no retry left, sooner than one call alone.
    if not held or cause != "rate_limit" or hint is None:
        wait = backoff(rule, retries + 1, previous, dice)
        if hint is not None:
            # Everybody was given the same hint; coming back together would be the next collision.
            wait = max(wait, hint * (1.0 + 0.25 * dice()))
    if remaining is not None and wait > remaining:
        return Verdict(
            "stop", f"the next attempt would be in {wait:.3g} s, and only {remaining:.3g} s are allowed"
        )
    return Verdict(
        "retry",
        f"{cause}: retry {retries + 1}" + (f" of {allowed_retries}" if allowed_retries is not None else ""),
        wait,
        # What the limiter holds back cannot storm: it sends a probe every few seconds, whoever waits.
        0 if held else THROTTLE if throttled else TRANSIENT,
    )
