"""
What goes on to another host, which host comes next, and when one that failed is trusted again.

Plain arithmetic: the time is an argument, and there are no dice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from ...codec.refusals import Kind
from ...errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    CircuitOpenError,
    RateLimitWaitError,
    RedirectRefusedError,
    ResponseTooLargeError,
    SharedLimitsError,
)
from ..retry.policy import RetryPolicy

__all__ = [
    "COOLDOWN",
    "GOES_ON",
    "Health",
    "Order",
    "Rotation",
    "asking_again_soon",
    "cause_of",
    "goes_on",
    "order",
]

Order = Literal["in_order", "weight", "free"]

# What another host may do better. A wrong request, moderation and a conversation that is too long are the same
# everywhere; an id that a host does not have is found before it is asked.
GOES_ON: Final[frozenset[str]] = frozenset(
    {
        *("overloaded", "unavailable", "gateway", "server", "timeout"),  # no capacity, or something broke
        *("quota", "tpd", "rate_limit"),  # used up there, whatever is left elsewhere
        *("auth", "permission"),  # a revoked key, an account that was ended
        *("connection", "limiter", "circuit", "garbage"),  # nobody there; ours held it back; a proxy's page
    }
)

# Short, since a question to a host that is still ill costs one refused request, and a host that is well again is to be
# preferred within seconds; doubled while it stays ill, so that a dead one is not asked by every second call.
COOLDOWN: Final = 1.0
LONGEST_COOLDOWN: Final = 5.0


def cause_of(error: BaseException) -> str:
    """The cause in one word, as `Attempt.cause` has it; `""` for what no other host can mend."""
    match error:
        case APIStatusError():
            return error.kind
        case RedirectRefusedError() | ResponseTooLargeError():
            return ""
        case APIConnectionError():
            return "connection"
        case APIResponseValidationError():
            return "garbage"
        case CircuitOpenError():
            return "circuit"
        case RateLimitWaitError() | SharedLimitsError():
            return "limiter"
        case _:
            return ""


def goes_on(cause: Kind | str) -> bool:
    """Whether a request that failed for this cause may succeed at another host."""
    return cause in GOES_ON


@dataclass(slots=True)
class Health:
    """Whether a host is worth asking first: it is, until it fails, and again after a pause that its failures lengthen."""

    failures: int = 0
    """Failures in a row."""
    until: float = 0.0
    """When it may be asked again."""
    probing: bool = False
    """Whether one request is finding out; the others do not wait for its answer."""

    def well(self, now: float) -> bool:
        """Whether a request should go here before others; a host that may be asked again is asked by one request at first."""
        return self.failures == 0 or (now >= self.until and not self.probing)

    def asked(self, now: float) -> None:
        """A request goes there."""
        if self.failures and now >= self.until:
            self.probing = True

    def worked(self) -> None:
        """It accepted a request, so it is well."""
        self.failures, self.until, self.probing = 0, 0.0, False

    def failed(self, now: float) -> None:
        """It failed for a cause of its own."""
        self.failures += 1
        self.until = now + min(LONGEST_COOLDOWN, COOLDOWN * 2.0 ** min(self.failures - 1, 8))
        self.probing = False

    def left(self) -> None:
        """The question was given up (cancelled), so it says nothing."""
        self.probing = False


@dataclass(slots=True)
class Rotation:
    """
    Hosts in proportion to their weights, evenly spread: of weights 2 and 1 every third request goes to the second.

    Smooth weighted round robin, as nginx balances its upstreams (nginx commit 52327e0627f4, 2012).
    """

    weights: Sequence[float]
    credit: list[float] = field(default_factory=list[float])

    def next(self) -> int:
        """The host whose turn it is."""
        if not self.credit:
            self.credit = [0.0] * len(self.weights)
        for index, weight in enumerate(self.weights):
            self.credit[index] += weight
        chosen = max(range(len(self.credit)), key=lambda index: (self.credit[index], -index))
        self.credit[chosen] -= sum(self.weights)
        return chosen


def asking_again_soon(policy: RetryPolicy | None) -> RetryPolicy:
    """
    A retry policy whose breakers let a request through every second: with another host to go on to, finding out
    whether the first is well again costs one refused request.
    """
    policy = policy or RetryPolicy()
    return replace(
        policy,
        quota_cooldown=min(policy.quota_cooldown, COOLDOWN),
        overload_cooldown=min(policy.overload_cooldown, COOLDOWN),
    )


def order(
    wanted: Order,
    health: Sequence[Health],
    now: float,
    *,
    first: int = 0,
    waits: Sequence[float] = (),
) -> list[int]:
    """
    The hosts in the order in which they are tried: those that are well first, the rest as a last resort.

    :param first: for `weight`, whose turn it is; the others follow in the order given.
    :param waits: for `free`, the seconds that each limiter would hold the request back.
    """
    hosts = list(range(len(health)))
    if wanted == "weight":
        hosts = hosts[first:] + hosts[:first]
    elif wanted == "free":
        hosts.sort(key=lambda index: waits[index])
    return sorted(hosts, key=lambda index: not health[index].well(now))
