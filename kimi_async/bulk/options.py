"""
The options of `client.map`, what they may be, and what a token costs.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, TypedDict

from ..errors import (
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    PermissionDeniedError,
    QuotaExceededError,
    TokensPerDayLimitError,
)
from ..resources.arguments import LeakedTools, check_leaked_tools, unknown_argument
from ..streaming.resume import ResumePolicy
from ..types.completions import ChatCompletion
from .journal import Redo
from .kinds import check_kinds, check_positive
from .lines import MAX_LINE_SIZE
from .meter import MapProgress

__all__ = [
    "FATAL",
    "MapOptions",
    "MapParams",
    "Prices",
    "TokenPrice",
    "check_options",
    "cost_of",
    "options_of",
]

FATAL: Final[tuple[type[Exception], ...]] = (
    AuthenticationError,
    PermissionDeniedError,
    QuotaExceededError,
    TokensPerDayLimitError,
    ClientClosedError,
)
"""
Errors after which every other request would fail alike: they stop a run.
"""


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """Money for a million tokens, in whatever currency."""

    input: float
    output: float
    cached_input: float | None = None
    """Input that came from the context cache; as `input` if None."""

    def of(self, completion: ChatCompletion) -> float:
        """What this completion cost; 0 if its usage is unknown."""
        usage = completion.usage
        if usage is None:
            return 0.0
        cached = 0
        if usage.prompt_tokens_details is not None:
            cached = usage.prompt_tokens_details.cached_tokens or 0
        cached = cached or getattr(usage, "cached_tokens", None) or 0
        fresh = usage.prompt_tokens - cached
        rate = self.input if self.cached_input is None else self.cached_input
        return (fresh * self.input + cached * rate + usage.completion_tokens * self.output) / 1_000_000


Prices: TypeAlias = TokenPrice | Mapping[str, TokenPrice] | Callable[[ChatCompletion], float | None]
"""One price, prices by model, or a function that tells what a completion cost."""


def cost_of(prices: Prices, completion: ChatCompletion) -> float:
    """What this completion cost; 0 where no price is known."""
    if isinstance(prices, TokenPrice):
        return prices.of(completion)
    if callable(prices):
        return float(prices(completion) or 0.0)
    known = prices.get(completion.model or "")
    return 0.0 if known is None else known.of(completion)


class MapParams(TypedDict, total=False):
    """The keyword arguments of `client.map`. Their defaults stand in `MapOptions`."""

    concurrency: int | None
    """
    Requests under way at once. None follows the client's rate limiter (a quarter more than it allows at present, so
    that retries waiting their turn leave no gap), or 64 where it knows no limit.
    """
    ordered: bool
    """Results in the order of the input. A slow request then holds up at most ``window`` others."""
    journal: str | os.PathLike[str] | None
    """
    A JSONL file that gets a line for each result (the Batch API's output format), and from which a run that was killed
    goes on: requests already in it are not sent again.

    Each line is written as soon as its reply is there, so ``kill -9`` loses only what was under way: at most
    ``concurrency`` requests are sent a second time. Against a power failure, ``durability="disk"`` hands a result out
    after an fsync (done in groups), so that none is lost that you have seen; ``"process"`` hands it out at once and
    syncs every 64 results or 200 ms, so that at most those are lost. Nothing is ever written twice.
    """
    replay: bool
    """Hand out what the journal holds already, too."""
    redo: Redo
    """Which failures in the journal are sent again: ``"transient"``, ``"failed"`` (all) or ``"none"``."""
    on_changed: Literal["error", "resend", "keep"]
    """
    What to do where the journal answers another request under the same ``custom_id``: ``"error"`` ends the run with
    `JournalMismatchError`, ``"resend"`` sends the new one and replaces the old line, ``"keep"`` keeps the old answer.
    Lines written by a batch carry no fingerprint and are believed.
    """
    durability: Literal["disk", "process"]
    """What a result is safe from when it is handed out: the end of the machine's power, or that of the process."""
    model: str | None
    """For requests that name none."""
    defaults: Mapping[str, Any] | None
    """More fields for requests that do not have them: ``max_completion_tokens``, ``thinking``, …"""
    response_format: Any
    """As for ``create``, or a type: then `Result.parsed` is an object of it."""
    stream: bool
    """
    Stream every answer; it is put together before it is handed out. ``on_chunk(custom_id, chunk)`` is called with each
    chunk. A request whose body says ``"stream": true`` is streamed anyway.
    """
    resume: ResumePolicy | bool | None
    """
    Where a streamed answer breaks off: go on by partial mode, which is charged what had arrived as prompt. Otherwise, and
    where it cannot be continued, the answer is asked for again from its beginning, at most ``max_retries`` times.
    """
    on_chunk: Callable[[str, Any], object] | None
    """
    Called with the custom_id and each chunk of a streamed answer, and with an `AnswerBegunAnew` where one that had broken
    off comes once more.
    """
    leaked_tools: LeakedTools | None
    """
    As for ``create``. What is mended is mended in the journal; what an earlier run put there as it came is mended when it is
    handed out (``replay``).
    """
    token_budget: int | None
    """
    Tokens, in and out, after which nothing more is sent. What is under way is finished, so the sum may exceed it by
    that much.
    """
    cost_budget: float | None
    """The same in money; needs ``price``: a `TokenPrice`, prices by model, or a function."""
    price: Prices | None
    """What tokens cost, for the progress and the budget."""
    max_error_rate: float | None
    """Stop when more than this share of the last ``error_window`` requests failed."""
    error_window: int
    """Results that ``max_error_rate`` looks back on."""
    deadline: float | None
    """Seconds after which the run ends; what is under way is given up and counts as not sent."""
    stop_on: tuple[type[Exception], ...]
    """Errors that stop the run at once; the request that met one is not journaled."""
    on_stop: Literal["raise", "return"]
    """
    ``"raise"`` a `MapStoppedError` when a condition stopped the run before the end of its input; ``"return"`` ends the
    iteration, and `stopped` tells why.
    """
    on_progress: Callable[[MapProgress], object] | None
    """Called with a `MapProgress` every ``progress_interval`` seconds and at the end."""
    progress_interval: float
    """Seconds."""
    window: int | None
    """Results that may be under way or not yet taken; nothing more is sent before some are taken."""
    total: int | None
    """How many requests there are, for the progress, where the input cannot tell."""
    repair: bool
    """For a path: read past a byte order mark, CR LF and blank lines."""
    max_line_size: int
    """For a path: bytes of one line; a longer one is reported as bad. Raise it for images inlined as base64."""


@dataclass(slots=True)
class MapOptions:
    """The options of `client.map`, each with its default; `MapParams` tells what they mean."""

    concurrency: int | None = None
    ordered: bool = False
    journal: str | os.PathLike[str] | None = None
    replay: bool = False
    redo: Redo = "transient"
    on_changed: Literal["error", "resend", "keep"] = "error"
    durability: Literal["disk", "process"] = "disk"
    model: str | None = None
    defaults: Mapping[str, Any] | None = None
    response_format: Any = None
    stream: bool = False
    resume: ResumePolicy | bool | None = None
    on_chunk: Callable[[str, Any], object] | None = None
    leaked_tools: LeakedTools | None = None
    token_budget: int | None = None
    cost_budget: float | None = None
    price: Prices | None = None
    max_error_rate: float | None = None
    error_window: int = 100
    deadline: float | None = None
    stop_on: tuple[type[Exception], ...] = FATAL
    on_stop: Literal["raise", "return"] = "raise"
    on_progress: Callable[[MapProgress], object] | None = None
    progress_interval: float = 0.5
    window: int | None = None
    total: int | None = None
    repair: bool = False
    max_line_size: int = MAX_LINE_SIZE


def options_of(given: Mapping[str, Any]) -> MapOptions:
    """The options by name. Raises TypeError for one that does not exist, with the one that may have been meant."""
    known = list(MapOptions.__slots__)
    for name in given:
        if name not in known:
            raise unknown_argument("map", name, known, "fields of requests go through defaults={...}")
    check_leaked_tools(given.get("leaked_tools"))  # these two have words of their own
    ResumePolicy.of(given.get("resume"))
    check_kinds("map", given, MapOptions)
    check_positive(
        given,
        *("token_budget", "cost_budget", "error_window", "deadline", "progress_interval", "max_line_size"),
    )
    return MapOptions(**given)


def check_options(options: MapOptions) -> None:
    """Refuse what cannot be meant, before anything is sent."""
    if options.concurrency is not None and options.concurrency < 1:
        raise ConfigurationError(f"concurrency must be at least 1, not {options.concurrency}")
    if options.cost_budget is not None and options.price is None:
        raise ConfigurationError("cost_budget needs price: prices change too often to be built in")
    if options.max_error_rate is not None and not 0 <= options.max_error_rate < 1:
        raise ConfigurationError(f"max_error_rate is a share between 0 and 1, not {options.max_error_rate}")
    if options.replay and options.journal is None:
        raise ConfigurationError("replay needs a journal")
    if options.window is not None and options.window < 1:
        raise ConfigurationError(f"window must be at least 1, not {options.window}")
    check_leaked_tools(options.leaked_tools)
