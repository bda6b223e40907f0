"""
Watching: hooks that are told what happens to each call, and the log lines of `KIMI_LOG`.

    def watch(event: Event) -> None:
        match event:
            case RetryScheduled(wait=wait, reason=reason):
                metrics.increment("kimi.retries", tags={"reason": event.cause})
            case ResponseFinished(usage=usage, elapsed=elapsed):
                ...

    AsyncKimi(hooks=[watch])

A hook is a plain function, called in place with one frozen object and never awaited: it must be quick. What it
raises is logged once, with its name, and goes no further. Without a hook and with the log silent nothing is built and nothing is called.

`KIMI_LOG=debug` (or `info`, `warning`, `error`) writes lines to standard error through the logger `kimi_async`; an
application that configures that logger itself gets the same lines. Keys, and the account ids that Kimi puts into
error messages and headers, never appear in them, nor do prompts or answers.
"""

import asyncio
import itertools
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import msgspec

from ..errors import Attempt
from ..redact import is_secret, redact, redact_url, redacted, secrets_of
from ..transport.exchange import Request, Response
from .chain import Handler

__all__ = [
    "AttemptFailed",
    "CallFailed",
    "Event",
    "Hook",
    "LimiterWaited",
    "Observer",
    "RequestStarted",
    "ResponseFinished",
    "RetryScheduled",
    "TelemetryMiddleware",
    "headers_shown",
    "observer",
    "setup_logging",
]

logger: logging.Logger = logging.getLogger("kimi_async")
# Or Python would print our warnings to standard error of programs that never asked for a log.
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    call: int
    """The same for all events of one call, different for every call of this process; 0 where it is not known."""
    method: str
    url: str
    """Without query and user info."""
    model: str | None = None
    """The model that the request names; None where it names none, or where its body is produced while it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStarted(_Details):
    """A call begins: before it queues for a limit."""

    stream: bool
    size: int | None
    """Bytes of the request body, or None where it is produced while it is sent."""
    priority: int
    max_retries: int
    deadline: float | None
    """`loop.time()` after which nothing more is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(_Details):
    """One attempt failed; whether another follows, the next event says."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(_Details):
    """The request will be sent again."""

    attempt: int
    """The number of the attempt that failed."""
    cause: str
    reason: str
    """Why it may be sent again, in words."""
    wait: float
    """Seconds until then; 0 where the limiter decides the moment."""
    requeued: bool
    """Whether it goes to the head of the limiter's queue without using up an attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed(_Details):
    """The call has failed for good."""

    cause: str
    reason: str
    """Why it is not tried again."""
    attempts: int
    """How often it was sent."""
    elapsed: float
    """Seconds since the call began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterWaited(_Details):
    """A request was held back by our own limiter, and goes now."""

    wait: float
    """Seconds it was held back."""
    reason: str
    """What it waited for: `concurrency`, `rpm`, `tpm`, `tpd` or `gate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseFinished(_Details):
    """The reply has been read to its end, or given up."""

    status: int
    request_id: str | None
    attempts: int
    """How often the request was sent, this time included."""
    headers_after: float
    """Seconds from the start of the call to the headers of this reply."""
    elapsed: float
    """Seconds from the start of the call to the end of this reply."""
    bytes_received: int
    usage: Any
    """The reply's `usage` with the wire's field names, or None where it has none."""


Event: TypeAlias = (
    RequestStarted | AttemptFailed | RetryScheduled | CallFailed | LimiterWaited | ResponseFinished
)
Hook: TypeAlias = Callable[[Event], None]


class Observer:
    """
    Tells every hook, then the log. Called with an event.
    """

    __slots__ = ("complained", "hooks")

    def __init__(self, hooks: Sequence[Hook] = ()) -> None:
        self.hooks: tuple[Hook, ...] = tuple(hooks)
        self.complained: set[int] = set()
        """Which hooks have raised: each is complained of once."""

    def __call__(self, event: Event) -> None:
        for number, hook in enumerate(self.hooks):
            try:
                hook(event)
            except (Exception, asyncio.CancelledError):
                # Who watches cannot undo what is watched: an answer that was paid for is not lost to a hook. CancelledError is
                # that of another task, whose result it looked at: nothing is awaited here that could be cancelled.
                self._complain(number, hook)
        _log(event)

    def _complain(self, number: int, hook: Hook) -> None:
        if number not in self.complained:
            self.complained.add(number)
            name = getattr(hook, "__qualname__", type(hook).__qualname__)
            logger.exception("the hook %s raised; it goes on being told, and the call goes on", name)


def observer(hooks: Sequence[Hook] = ()) -> Observer | None:
    """
    The observer of a client, or None if nobody watches: no hook, and the log is not at `info` or below.

    Asked once, when the client is made. Failures are logged either way (`report`).
    """
    if hooks or logger.isEnabledFor(logging.INFO):
        return Observer(hooks)
    return None


def report(watcher: Observer | None, event: Event) -> None:
    """
    Tells of something that went wrong: to the observer, or at least to the log.
    """
    if watcher is not None:
        watcher(event)
    else:
        _log(event)


def watched(watcher: Observer | None) -> bool:
    """
    Whether anybody would hear of an event of level `info`. What is told during a storm is made only then.
    """
    return watcher is not None or logger.isEnabledFor(logging.INFO)


_calls = itertools.count(1)


def where(request: Request) -> dict[str, Any]:
    """
    The fields common to all events.
    """
    return {
        "call": request.call,
        "method": request.method,
        "url": redact_url(request.url),
        "model": request.model,
    }


class _Named(msgspec.Struct):
    model: str | None = None


_named = msgspec.json.Decoder(_Named)


def _model_named(body: Any) -> str | None:
    try:
        return _named.decode(body).model
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError):
        return None  # an upload, or nothing that names a model


class TelemetryMiddleware:
    """
    Tells of the beginning and the end of each call. The outermost layer, and only there if somebody watches.

    Usage is taken from a reply that was read whole, and from `response.usage` where whoever decoded a
    stream has left it.
    """

    per_call = True

    def __init__(self, watcher: Observer) -> None:
        self._watcher = watcher

    async def __call__(self, request: Request, send: Handler) -> Response:
        watcher = self._watcher
        clock = asyncio.get_running_loop().time
        began = clock()
        request.call = next(_calls)
        body = request.body
        request.model = _model_named(body)
        size = (
            0
            if body is None
            else len(body)
            if isinstance(body, bytes | bytearray | memoryview)
            else body.length
        )
        watcher(
            RequestStarted(
                **where(request),
                stream=request.stream,
                size=size,
                priority=request.priority,
                max_retries=request.max_retries,
                deadline=request.deadline,
            )
        )
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("call %d headers sent: %s", request.call, headers_shown(request.headers))
        response = await send(request)
        replied = clock()
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "call %d headers received: %s",
                request.call,
                headers_shown(response.headers, secrets_of(request)),
            )

        def finished() -> None:
            watcher(
                ResponseFinished(
                    **where(request),
                    status=response.status,
                    request_id=redacted(response.request_id, secrets_of(request)),
                    attempts=len(request.history) + 1,
                    headers_after=replied - began,
                    elapsed=clock() - began,
                    bytes_received=response.bytes_received,
                    usage=_usage(response),
                )
            )

        response.on_close(finished)
        return response


class _Counted(msgspec.Struct):
    usage: dict[str, Any] | None = None


_counted = msgspec.json.Decoder(_Counted)


def _usage(response: Response) -> object:
    told = response.usage
    if told is not None:
        return told
    try:
        return _counted.decode(response.content).usage
    except (RuntimeError, ValueError, RecursionError):
        return None  # a stream, a file, or not JSON: no usage to tell


# --- the log ----------------------------------------------------------------------------------------------------------


def setup_logging(environ: Mapping[str, str] | None = None) -> int | None:
    """
    Obeys `KIMI_LOG`: sets the level of the logger `kimi_async` and gives it a handler on standard error, once.

    Returns the level, or None where the variable is absent, empty or `off`. A word that is no level means `info`, with a
    warning: a misspelt wish for more output must not look like silence.
    """
    word = (os.environ if environ is None else environ).get("KIMI_LOG", "").strip().lower()
    if word in ("", "off", "none", "0"):
        return None
    levels = {
        "debug": logging.DEBUG,
        "1": logging.DEBUG,
        "info": logging.INFO,
        "warning": logging.WARNING,
        "warn": logging.WARNING,
        "error": logging.ERROR,
    }
    level = levels.get(word)
    logger.setLevel(logging.INFO if level is None else level)
    if not any(isinstance(handler.formatter, RedactingFormatter) for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    if level is None:
        logger.warning(
            "KIMI_LOG=%.20r is not a level (debug, info, warning, error, off); taken as info", word
        )
    return logger.level


class RedactingFormatter(logging.Formatter):
    """
    A formatter that takes keys and account ids out of the finished text, tracebacks included.
    """

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


# A server's text must not begin a line of the log, nor steer the terminal that shows it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

_TIER = re.compile(r"[a-z]+-tier-\d{1,2}")


def headers_shown(headers: Mapping[str, str], secrets: tuple[str, ...] = ()) -> dict[str, str]:
    """
    Headers fit for a log: secrets and account ids masked, other values redacted and cut at 200 characters.

    :param secrets: what a reply may repeat of its request (see `secrets_in`).

    `Msh-Gid` is an account id, too, unless it names the tier (`enterprise-tier-5`).
    """
    shown: dict[str, str] = {}
    for name, value in headers.items():
        low = name.lower()
        if is_secret(low) or (low == "msh-gid" and not _TIER.fullmatch(value)):
            shown[name] = "…"
        else:
            shown[name] = redact(value, secrets)[:200]
    return shown


def _log(event: Event) -> None:
    match event:
        case RequestStarted():
            level = logging.DEBUG
        case AttemptFailed() | RetryScheduled():
            level = logging.INFO
        case CallFailed():
            level = logging.WARNING
        case LimiterWaited():
            level = logging.DEBUG
        case ResponseFinished():
            level = logging.INFO
    if logger.isEnabledFor(level):
        logger.log(level, "%s", _line(event))


def _line(event: Event) -> str:
    """
    One event in one line.
    """
    to = f"{event.method} {event.url}"
    call = f"call {event.call} " if event.call else ""
    match event:
        case RequestStarted():
            size = "a streamed body" if event.size is None else f"{event.size:,} bytes"
            text = f"{to} begins: {size}{', stream' if event.stream else ''}"
        case AttemptFailed(attempt=a):
            status = f"{a.status} " if a.status else ""
            kind = f" ({a.error_type})" if a.error_type else ""
            text = f"{to} attempt {a.number} failed after {a.elapsed:.3f} s: {a.cause}: {status}{a.message}{kind}"
        case RetryScheduled():
            when = (
                "when the limiter admits it" if event.requeued or not event.wait else f"in {event.wait:.3f} s"
            )
            text = f"{to} will be sent again {when}: {event.reason}"
        case CallFailed():
            text = f"{to} failed after {event.attempts} attempt(s) in {event.elapsed:.3f} s: {event.cause}: {event.reason}"
        case LimiterWaited():
            text = f"{to} waited {event.wait:.3f} s for our limiter ({event.reason})"
        case ResponseFinished():
            usage = _spent(event.usage)
            rid = f", request {event.request_id}" if event.request_id else ""
            text = f"{to} {event.status} in {event.elapsed:.3f} s{rid}, {event.bytes_received:,} bytes{usage}"
    return _CONTROL.sub(" ", redact(call + text))


def _spent(usage: object) -> str:
    def count(name: str) -> object:
        if isinstance(usage, Mapping):
            return cast("Mapping[str, object]", usage).get(name)
        return getattr(usage, name, None)

    if usage is None:
        return ""
    return f", {count('prompt_tokens')} + {count('completion_tokens')} tokens"
