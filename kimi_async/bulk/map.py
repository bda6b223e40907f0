"""
`client.map`: one request after another from any iterable, many at a time, results as they come.

    async with client.map(prompts, model="kimi-k3", journal="out.jsonl") as results:
        async for result in results:
            print(result.custom_id, result.text or result.error)

How it flows::

    source ──pull──▶ workers (at most `concurrency`) ──▶ journal ──sync──▶ outbox ──▶ you
       ▲                                                                           │
       └───────────── nothing is pulled while too much is not taken ◀──────────────┘

The source is read one item at a time, when a worker is free and the results
not yet taken are few: neither a task nor a row is kept for what lies ahead, so
a million rows need no more memory than a thousand.

With a journal, a result is handed out only when its line is in the file, so
what you have seen is never sent again. See `Map` for what that survives.
"""

import asyncio
import difflib
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, TypedDict, cast

import msgspec

from .. import codec
from ..errors import (
    AuthenticationError,
    CircuitOpenError,
    ClientClosedError,
    ConfigurationError,
    KimiError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitWaitError,
    TokensPerDayLimitError,
)
from ..resources.caller import Caller
from ..resources.chat import explain_missing_model
from ..resources.chat_body import accept_with_reply, chat_body
from ..schema.answers import parse_completion, response_format_of
from ..transport.exchange import Response
from ..types.chat import ChatCompletion
from .journal import Answer, Journal, JournalMismatchError, JournalWriteError, Redo, RunInfo, fingerprint
from .request_files import CHAT_URL, MAX_LINE_SIZE, IdTable, LineChecker, check_lines, read_lines
from .results import Result, line_of_answer, line_of_failure

__all__ = [
    "FATAL",
    "Map",
    "MapOptions",
    "MapParams",
    "MapProgress",
    "MapStoppedError",
    "Price",
    "Requests",
    "options_of",
    "request_of",
]

Requests: TypeAlias = Any
"""
A path to a JSONL file in the Batch API's format, or an iterable or async iterable of requests. A request is

* a mapping with ``messages`` and whatever else `chat.completions.create` takes,
* a line of the Batch API, as a mapping (``custom_id``, ``body``) or as JSON bytes,
* a string: one user message,
* a list of messages,
* a tuple (custom_id, any of these).
"""

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

# Ours, not the server's: the request was never refused, so another run should send it.
_LOCAL: Final = (RateLimitWaitError, CircuitOpenError)


@dataclass(frozen=True, slots=True)
class Price:
    """
    Money for a million tokens, in whatever currency.
    """

    input: float
    output: float
    cached_input: float | None = None
    """Input that came from the context cache; as `input` if None."""

    def of(self, completion: ChatCompletion) -> float:
        """
        What this completion cost; 0 if its usage is unknown.
        """
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


class MapStoppedError(KimiError):
    """
    A run ended before its input did. Everything finished until then was handed out before this was raised.
    """

    def __init__(self, reason: str, *, progress: "MapProgress") -> None:
        super().__init__(f"{reason}; {progress.done:,} requests were finished")
        self.reason = reason
        self.progress = progress


@dataclass(frozen=True, slots=True)
class MapProgress:
    """
    How far a run is.
    """

    done: int
    """Finished in this run: answered or failed."""
    ok: int
    failed: int
    skipped: int
    """Already in the journal."""
    in_flight: int
    total: int | None
    """Items in the input, where that is known."""
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    """Where a price is known."""
    elapsed: float
    """Seconds since the start."""
    rate: float
    """Requests a second, lately."""
    token_rate: float
    """Tokens a second, in and out, lately."""
    eta: float | None
    """Seconds left at this rate."""
    errors: Mapping[str, int]
    """Failures by the name of their class."""
    concurrency: int
    """Requests that may be under way at once."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(slots=True)
class MapOptions:
    """
    The options of `client.map`; see `Map`.
    """

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
    on_chunk: Callable[[str, Any], object] | None = None
    token_budget: int | None = None
    cost_budget: float | None = None
    price: "Price | Mapping[str, Price] | Callable[[ChatCompletion], float | None] | None" = None
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
    """
    The options by name. Raises TypeError for one that does not exist, with the one that may have been meant.
    """
    known = MapOptions.__slots__
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(
                f"map() got an unexpected keyword argument {name!r}{hint} (fields of requests go through defaults={{...}})"
            )
    return MapOptions(**given)


class MapParams(TypedDict, total=False):
    """
    The keyword arguments of `client.map`: the fields of `MapOptions`.
    """

    concurrency: int | None
    ordered: bool
    journal: str | os.PathLike[str] | None
    replay: bool
    redo: Redo
    on_changed: Literal["error", "resend", "keep"]
    durability: Literal["disk", "process"]
    model: str | None
    defaults: Mapping[str, Any] | None
    response_format: Any
    stream: bool
    on_chunk: Callable[[str, Any], object] | None
    token_budget: int | None
    cost_budget: float | None
    price: "Price | Mapping[str, Price] | Callable[[ChatCompletion], float | None] | None"
    max_error_rate: float | None
    error_window: int
    deadline: float | None
    stop_on: tuple[type[Exception], ...]
    on_stop: Literal["raise", "return"]
    on_progress: Callable[[MapProgress], object] | None
    progress_interval: float
    window: int | None
    total: int | None
    repair: bool
    max_line_size: int


class Map:
    """
    The results of a run, in the order they are finished, or that of the input with ``ordered=True``.

    Iterate it once; under ``async with``, or `aclose` it, if you may leave
    early. What had finished by then is still written to the journal.

    :param concurrency: requests under way at once. None follows the client's rate limiter (a quarter more than it
        allows at present, so that retries waiting their turn leave no gap), or 64 where it knows no limit.
    :param ordered: results in the order of the input. A slow request then holds up at most ``window`` others.
    :param journal: a JSONL file that gets a line for each result (the Batch API's output format), and from which a run
        that was killed goes on: requests already in it are not sent again.

        Each line is written as soon as its reply is there, so ``kill -9`` loses only what was under way: at most
        ``concurrency`` requests are sent a second time. Against a power failure, ``durability="disk"`` hands a result
        out after an fsync (done in groups), so that none is lost that you have seen; ``"process"`` hands it out at
        once and syncs every 64 results or 200 ms, so that at most those are lost. Nothing is ever written twice.
    :param replay: hand out what the journal holds already, too.
    :param redo: which failures in the journal are sent again: ``"transient"``, ``"failed"`` (all) or ``"none"``.
    :param on_changed: what to do where the journal answers another request under the same ``custom_id``: ``"error"`` ends
        the run with `JournalMismatchError`, ``"resend"`` sends the new one and replaces the old line, ``"keep"`` keeps the
        old answer. Lines written by a batch carry no fingerprint and are believed.
    :param model: for requests that name none.
    :param defaults: more fields for requests that do not have them: ``max_completion_tokens``, ``thinking``, …
    :param response_format: as for ``create``, or a type: then `Result.parsed` is an object of it.
    :param stream: stream every answer; it is put together before it is handed out. ``on_chunk(custom_id, chunk)`` is
        called with each chunk. A request whose body says ``"stream": true`` is streamed anyway.
    :param token_budget: tokens, in and out, after which nothing more is sent. What is under way is finished, so the sum
        may exceed it by that much.
    :param cost_budget: the same in money; needs ``price``: a `Price`, prices by model, or a function.
    :param max_error_rate: stop when more than this share of the last ``error_window`` requests failed.
    :param deadline: seconds after which the run ends; what is under way is given up and counts as not sent.
    :param stop_on: errors that stop the run at once; the request that met one is not journaled.
    :param on_stop: ``"raise"`` a `MapStoppedError` when a condition stopped the run before the end of its input;
        ``"return"`` ends the iteration, and `stopped` tells why.
    :param on_progress: called with a `MapProgress` every ``progress_interval`` seconds and at the end.
    :param window: results that may be under way or not yet taken; nothing more is sent before some are taken.
    :param total: how many requests there are, for the progress, where the input cannot tell.
    :param repair: for a path: read past a byte order mark, CR LF and blank lines.
    :param max_line_size: for a path: bytes of one line; a longer one is reported as bad. Raise it for images inlined as
        base64.

    A failed request does not stop the others: its `Result.error` says why, retries included.
    """

    def __init__(self, client: Caller, requests: Requests, options: MapOptions) -> None:
        _check(options)
        self._run = _Engine(client, requests, options)
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        run = self._run
        if self._task is None:
            if self._over:
                raise StopAsyncIteration
            self._task = asyncio.get_running_loop().create_task(run.run(), name="kimi-map")
        while True:
            if run.outbox:
                return run.take()
            if run.over:
                break
            await run.wait()
        self._over = True
        failure = run.failure
        run.failure = None
        if failure is not None:
            raise failure
        raise StopAsyncIteration

    @property
    def progress(self) -> MapProgress:
        """
        How far it is.
        """
        return self._run.progress()

    @property
    def stopped(self) -> str | None:
        """
        Why it stopped before the end of its input; None if it did not.
        """
        return self._run.stopped

    @property
    def mended(self) -> Any:
        """
        What was put right in the journal when it was opened (`journal.Mended`); None before, or without one.
        """
        return self._run.mended

    def stop(self, reason: str = "stopped by the caller") -> None:
        """
        Send nothing more; what is under way is finished and handed out. For Ctrl-C, say.
        """
        self._run.stop(reason)

    async def aclose(self) -> None:
        """
        Give up what is under way, write what is finished to the journal, and close it. Idempotent.
        """
        self._over = True
        self._run.outbox.clear()
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Left with `break`: the workers hold no reference to this object, so they would go on for ever.
        task = getattr(self, "_task", None)
        if task is not None and not task.done() and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)

    def __repr__(self) -> str:
        shown = self._run.progress()
        return f"<Map {shown.done:,} done, {shown.failed:,} failed, {shown.in_flight:,} in flight>"


def _check(options: MapOptions) -> None:
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


# Requests as they come


class _Line(msgspec.Struct, gc=False):
    custom_id: str
    body: msgspec.Raw


_decode_line = msgspec.json.Decoder(_Line).decode


def request_of(item: Any, index: int) -> tuple[str | None, Any]:
    """
    The custom_id (None if it has none) and the body of a request in any of the forms of `Requests`. The body is a mapping,
    or `msgspec.Raw` JSON where it came as such.

    Raises `ConfigurationError` or TypeError, naming the index.
    """
    name: str | None = None
    if isinstance(item, tuple):
        pair: Any = cast("Any", item)
        if len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"requests[{index}]: a tuple must be (custom_id, request)")
        name, item = pair
    if isinstance(item, str):
        return name, {"messages": [{"role": "user", "content": item}]}
    if isinstance(item, bytes | bytearray | memoryview):
        try:
            line = _decode_line(cast("bytes", item))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise ConfigurationError(f"requests[{index}] is not a request line: {exc}") from None
        return name or line.custom_id, line.body
    if isinstance(item, Mapping):
        fields = cast("Mapping[str, Any]", item)
        if "body" in fields:
            body = fields["body"]
            if not isinstance(body, Mapping):
                raise TypeError(f"requests[{index}]: body must be a mapping, not {type(body).__name__}")
            if fields.get("url", CHAT_URL) != CHAT_URL:
                raise ConfigurationError(
                    f"requests[{index}]: url must be {CHAT_URL!r}, not {fields['url']!r}"
                )
            own: Mapping[str, Any] = cast("Mapping[str, Any]", body)
        elif "messages" in fields:
            own = fields
        else:
            raise ConfigurationError(f"requests[{index}] has neither messages nor body")
        given = fields.get("custom_id")
        if given is not None and not isinstance(given, str):
            raise TypeError(f"requests[{index}]: custom_id must be a string, not {type(given).__name__}")
        if own is fields and "custom_id" in fields:
            own = {key: value for key, value in fields.items() if key != "custom_id"}
        return name or given, own
    if isinstance(item, Sequence):
        messages: Any = cast("Any", item)
        return name, {"messages": list(messages)}
    raise TypeError(
        f"requests[{index}] must be a mapping, a string, a list of messages or JSON bytes, not {type(item).__name__}"
    )


@dataclass(slots=True)
class _Item:
    index: int
    custom_id: str
    body: Any
    started: float
    fingerprint: str = ""
    replaces: bool = False


async def _file_items(path: str, repair: bool, max_line: int) -> AsyncIterator[bytes]:
    """
    The lines of a checked file, read in a thread a block at a time.
    """
    from anyio import to_thread

    file = await to_thread.run_sync(open, path, "rb", 0)
    try:
        checker = LineChecker(batch=False, model="*", repair=repair, max_line=max_line)
        lines = read_lines(cast("Any", file), max_line=max_line)

        def some() -> list[bytes]:
            found: list[bytes] = []
            size = 0
            for _, line in lines:
                if line is None:
                    continue
                if line[:1] != b"{" or line[-1:] != b"}":
                    # The rare line with a mark, a CR or nothing in it; the rest was checked.
                    line = checker.feed(line) or b""
                if line:
                    found.append(line)
                    size += len(line)
                if size > 256 * 1024:
                    break
            return found

        while batch := await to_thread.run_sync(some):
            for line in batch:
                yield line
    finally:
        await to_thread.run_sync(file.close)


_ABSENT: Final = object()

_SYNC_EVERY: Final = 64
_SYNC_AFTER: Final = 0.2


class _Engine:
    """
    The run itself. Knows nothing of the `Map` that shows it, so that dropping the `Map` can end it.
    """

    def __init__(self, client: Caller, requests: Requests, options: MapOptions) -> None:
        self._client = client
        self._requests = requests
        self._options = options
        self.outbox: deque[Result] = deque()
        self.over = False
        self.failure: BaseException | None = None
        self.stopped: str | None = None
        self.mended: Any = None
        self._waiters: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        # source
        self._next: Iterator[Any] | None = None
        self._anext: AsyncIterator[Any] | None = None
        self._lock: asyncio.Lock | None = None
        self._exhausted = False
        self._index = 0
        self._total = options.total
        self._ids = IdTable()
        # workers
        self._group: Any = None
        self._scope: Any = None
        self._pulling: Any = None
        self._workers = 0
        self._idle = 0
        self._in_flight = 0
        self._cap = options.concurrency or 1
        self._held = 0  # pulled and not yet taken by the consumer
        self._window = 0
        self._gates: deque[asyncio.Future[None]] = deque()
        # order
        self._waiting: dict[int, Any] = {}
        self._turn = 0
        # journal
        self._journal: Journal | None = None
        self._commits: list[Result] = []  # written, and handed out after the next sync
        self._commit_waiter: asyncio.Future[None] | None = None
        self._no_more_commits = False
        self._stale = False
        self._unsynced = 0
        # counts
        self._started = 0.0
        self._done = self._ok = self._failed = self._skipped = 0
        self._prompt_tokens = self._completion_tokens = 0
        self._cost = 0.0
        self._errors: Counter[str] = Counter()
        self._recent: deque[bool] = deque(maxlen=options.error_window)
        self._recent_failed = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=21)

    # --- the consumer's side ---

    def take(self) -> Result:
        result = self.outbox.popleft()
        self._held -= 1
        if self._gates:
            self._open_gate()
        return result

    async def wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        if self._waiters:
            # All of them, should several tasks share one iteration: those who come too late wait again.
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _open_gate(self) -> None:
        while self._gates:
            gate = self._gates.popleft()
            if not gate.done():
                gate.set_result(None)
                return

    def stop(self, reason: str, *, now: bool = False) -> None:
        complete = self._exhausted or (self._total is not None and self._index >= self._total)
        if self.stopped is None and (now or not complete):
            # With nothing left to send, stopping changes nothing: what is under way is finished anyway.
            self.stopped = reason
        self._exhausted = True
        while self._gates:
            self._open_gate()
        if self._pulling is not None:
            self._pulling.cancel()
        if now and self._scope is not None:
            self._scope.cancel()

    # --- life ---

    async def run(self) -> None:
        import anyio

        loop = self._loop = asyncio.get_running_loop()
        self._started = loop.time()
        deadline: asyncio.TimerHandle | None = None
        try:
            await self._prepare()
            if self._options.deadline is not None:
                deadline = loop.call_at(self._started + self._options.deadline, self._too_late)
            self._tick()
            async with anyio.create_task_group() as outer:
                if self._journal is not None:
                    outer.start_soon(self._sync_all)
                with anyio.CancelScope() as self._scope:
                    async with anyio.create_task_group() as self._group:
                        self._workers = 1
                        self._group.start_soon(self._work)
                self._no_more_commits = True
                self._wake_committer()
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self.failure = self.failure or _single(exc)
        finally:
            for timer in (deadline, self._ticker):
                if timer is not None:
                    timer.cancel()
            with anyio.CancelScope(shield=True):
                await self._finish()
            self.over = True
            self._wake()

    async def _finish(self) -> None:
        from anyio import to_thread

        journal = self._journal
        if journal is not None:
            try:
                if self._unsynced:
                    await to_thread.run_sync(journal.sync)
                    group, self._commits = self._commits, []
                    for result in group:
                        self._deliver(result)
                if self._stale:
                    # Sent again because the request had changed: of two lines for an id, opening keeps the later.
                    await to_thread.run_sync(_tidy, journal)
            except KimiError as exc:
                self.failure = self.failure or exc
            finally:
                await to_thread.run_sync(journal.close)
        source = self._anext
        close = getattr(source, "aclose", None)
        if close is not None and not self._lock_held():
            with suppress(Exception):
                await close()
        if self.stopped is not None and self.failure is None and self._options.on_stop == "raise":
            self.failure = MapStoppedError(self.stopped, progress=self.progress())
        report = self._options.on_progress
        if report is not None:
            try:
                report(self.progress())
            except Exception as exc:
                self.failure = self.failure or exc

    def _lock_held(self) -> bool:
        return self._lock is not None and self._lock.locked()

    async def _prepare(self) -> None:
        from anyio import to_thread

        options = self._options
        requests: Any = self._requests
        path = _path_of(requests)
        if path is not None:
            found = await to_thread.run_sync(
                lambda: check_lines(
                    path,
                    batch=False,
                    model=self._default_model(),
                    repair=options.repair,
                    max_line=options.max_line_size,
                )
            )
            found.raise_if_bad()
            self._total = found.lines
            self._anext = _file_items(path, options.repair, options.max_line_size)
        elif hasattr(requests, "__aiter__"):
            self._anext = cast("AsyncIterator[Any]", requests.__aiter__())
        elif hasattr(requests, "__iter__"):
            self._next = iter(requests)
        else:
            raise TypeError(
                f"requests must be a path, an iterable or an async iterable, not {type(requests).__name__}"
            )
        if self._total is None and hasattr(requests, "__len__"):
            self._total = len(requests)
        self._lock = asyncio.Lock()
        if options.journal is not None:
            journal, redo = options.journal, options.redo
            self._journal = await to_thread.run_sync(lambda: Journal.open(journal, redo=redo))
            self.mended = self._journal.mended
        self._recap()

    def _default_model(self) -> str | None:
        return self._options.model or cast("str | None", (self._options.defaults or {}).get("model"))

    def _recap(self) -> None:
        """
        How many workers there may be, and how many items may be held.
        """
        options = self._options
        if options.concurrency is None:
            self._cap = _allowed(self._client)
        # The journal writes in groups: while one is being synced, the next must have somewhere to gather.
        slack = max(64, self._cap) if options.journal is None else max(256, 2 * self._cap)
        self._window = options.window or self._cap + (
            3 * self._cap if options.ordered and not options.journal else slack
        )

    def _too_late(self) -> None:
        self.stop(f"the deadline of {self._options.deadline:g} s has passed", now=True)

    def _tick(self) -> None:
        loop = self._loop
        assert loop is not None
        self._marks.append((loop.time(), self._done, self._prompt_tokens + self._completion_tokens))
        if self._options.concurrency is None and self._marks[0][0] < loop.time():
            self._recap()
        if self._options.on_progress is not None and self._done + self._skipped:
            try:
                self._options.on_progress(self.progress())
            except Exception as exc:
                # The caller's function failed: that is no reason to lose what is finished, nor to hide it.
                self.failure = self.failure or exc
                self.stop("on_progress failed")
                return
        self._ticker = loop.call_later(self._options.progress_interval, self._tick)

    def progress(self) -> MapProgress:
        now = self._loop.time() if self._loop is not None else 0.0
        tokens = self._prompt_tokens + self._completion_tokens
        since, done, then = self._marks[0] if self._marks else (self._started, 0, 0)
        seconds = now - since
        rate = (self._done - done) / seconds if seconds > 0 else 0.0
        left = None if self._total is None else self._total - self._done - self._skipped
        return MapProgress(
            done=self._done,
            ok=self._ok,
            failed=self._failed,
            skipped=self._skipped,
            in_flight=self._in_flight,
            total=self._total,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cost=self._cost if self._options.price is not None else None,
            elapsed=now - self._started,
            rate=rate,
            token_rate=(tokens - then) / seconds if seconds > 0 else 0.0,
            eta=left / rate if left is not None and rate > 0 else None,
            errors=dict(self._errors),
            concurrency=self._cap,
        )

    # --- the workers ---

    async def _work(self) -> None:
        try:
            while True:
                if self._held >= self._window and not self._exhausted:
                    await self._gate()
                    continue
                if self._exhausted:
                    return
                item = await self._pull()
                if item is None:
                    return
                if self._workers < self._cap and not self._idle and not self._exhausted:
                    self._workers += 1
                    self._group.start_soon(self._work)
                self._in_flight += 1
                try:
                    await self._one(item)
                finally:
                    self._in_flight -= 1
        finally:
            self._workers -= 1

    async def _gate(self) -> None:
        assert self._loop is not None
        gate = self._loop.create_future()
        self._gates.append(gate)
        self._idle += 1
        try:
            await gate
        finally:
            self._idle -= 1

    async def _pull(self) -> _Item | None:
        """
        The next request to be sent; None when there is none.
        """
        assert self._lock is not None
        self._idle += 1
        try:
            await self._lock.acquire()
        finally:
            self._idle -= 1
        try:
            passed = 0
            while not self._exhausted:
                try:
                    if self._next is not None:
                        raw = next(self._next)
                    else:
                        raw = await self._await_next()
                except (StopIteration, StopAsyncIteration):
                    self._end_of_source()
                    return None
                except Exception as exc:
                    # The caller's iterable failed: what was already taken from it is finished first.
                    self.failure = exc
                    self._end_of_source()
                    return None
                index = self._index
                self._index = index + 1
                self._held += 1
                item = self._admit(raw, index)
                if item is not None:
                    return item
                passed += 1
                if passed % 256 == 0:
                    # A journal may hold a million of them: the loop has other things to do, too.
                    await asyncio.sleep(0)
                while self._held >= self._window and not self._exhausted:
                    await self._gate()
            return None
        finally:
            self._lock.release()

    async def _await_next(self) -> Any:
        """
        The next item of an async source. `stop` ends the wait: a source may have nothing to give for hours.
        """
        from anyio import CancelScope

        assert self._anext is not None
        with CancelScope() as self._pulling:
            return await self._anext.__anext__()
        raise StopAsyncIteration

    def _end_of_source(self) -> None:
        self._exhausted = True
        if self._total is None:
            self._total = self._index
        while self._gates:
            self._open_gate()

    def _admit(self, raw: Any, index: int) -> _Item | None:
        """
        A request to be sent; None where it need not be, or cannot be.
        """
        assert self._loop is not None
        try:
            given, body = request_of(raw, index)
        except (KimiError, TypeError) as exc:
            self._reject(Result(f"request-{index + 1}", index, error=exc, attempts=0))
            return None
        name = given or f"request-{index + 1}"
        if (given is not None or len(self._ids)) and (first := self._ids.add(name, index)) is not None:
            self._reject(
                Result(
                    name,
                    index,
                    error=ConfigurationError(
                        f"requests[{index}]: custom_id {name!r} is also that of requests[{first}]; it was not sent"
                    ),
                    attempts=0,
                )
            )
            return None
        item = _Item(index, name, body, self._loop.time())
        journal = self._journal
        if journal is None:
            return item
        item.fingerprint = self._fingerprint(body)
        at = journal.find(name)
        if at is None:
            return item
        line = journal.read(at)
        # The fingerprint stands in the last field of our lines; a line without one was written by a batch.
        tail = line[-400:]
        if (
            item.fingerprint.encode() in tail
            or b'"fingerprint"' not in tail
            or self._options.on_changed == "keep"
        ):
            self._skip(index, line)
            return None
        if self._options.on_changed == "resend":
            item.replaces = True
            return item
        self.failure = JournalMismatchError(
            f"{journal.path} holds the answer to another request under custom_id {name!r}: the input was changed since. "
            "Give the changed request a new custom_id, another journal, or on_changed='resend' or 'keep'",
            path=journal.path,
            custom_id=name,
        )
        self._held -= 1
        self._end_of_source()
        return None

    def _fingerprint(self, body: Any) -> str:
        options = self._options
        if isinstance(body, msgspec.Raw):
            body = msgspec.json.decode(body)
        merged = {**(options.defaults or {}), **body}
        if options.model and not merged.get("model"):
            merged["model"] = options.model
        # How an answer travels does not change it.
        merged.pop("stream", None)
        merged.pop("stream_options", None)
        try:
            return fingerprint(merged)
        except TypeError:
            return fingerprint(codec.encode(merged))

    def _skip(self, index: int, line: bytes) -> None:
        self._skipped += 1
        if self._options.replay:
            answer = msgspec.json.decode(line, type=Answer)
            self._deliver(Result.of(answer, index, "journal", response_format=self._options.response_format))
        elif self._options.ordered:
            self._deliver_in_turn(index, _ABSENT)
        else:
            self._held -= 1

    def _reject(self, result: Result) -> None:
        """
        A request that cannot be sent: reported, and not journaled, since the journal holds what was answered.
        """
        self._count(result, None)
        self._deliver(result)

    async def _one(self, item: _Item) -> None:
        assert self._loop is not None
        options = self._options
        try:
            completion, body, request_id, attempts, parsed = await self._ask(item)
        except Exception as exc:
            elapsed = self._loop.time() - item.started
            attempts = len(getattr(exc, "attempts", ())) + (0 if isinstance(exc, _LOCAL) else 1)
            result = Result(item.custom_id, item.index, error=exc, attempts=attempts, elapsed=elapsed)
            self._count(result, None)
            if isinstance(exc, options.stop_on):
                self.stop(f"{type(exc).__name__}: {exc}")
                self._deliver(result)
                return
            if self._journal is None:
                self._deliver(result)
                return
            retryable = bool(getattr(exc, "retryable", False)) or isinstance(exc, _LOCAL)
            run = RunInfo(item.fingerprint, attempts, round(elapsed, 6), retryable)
            self._commit(item, result, line_of_failure(item.custom_id, exc, run=run))
            return
        elapsed = self._loop.time() - item.started
        result = Result(
            item.custom_id,
            item.index,
            completion=completion,
            attempts=attempts,
            elapsed=elapsed,
            parsed=parsed,
        )
        self._count(result, completion)
        if self._journal is None:
            self._deliver(result)
            return
        run = RunInfo(item.fingerprint, attempts, round(elapsed, 6))
        self._commit(
            item, result, line_of_answer(item.custom_id, completion, body, request_id=request_id, run=run)
        )

    async def _ask(self, item: _Item) -> tuple[ChatCompletion, bytes | None, str | None, int, Any]:
        """
        Send one request: the completion, the reply as it came, its request id, attempts, and the parsed object.
        """
        options, client = self._options, self._client
        body = item.body
        reader = tools = None
        model: Any
        fields: dict[str, Any]
        raw = isinstance(body, msgspec.Raw)
        row = client.provider
        as_it_is = row is None or row.request_reasoning == codec.REASONING
        if (
            raw
            and as_it_is
            and not (options.defaults or options.model or options.response_format or options.stream)
        ):
            # As the Batch API would take it: the line's own bytes.
            data = bytes(body)
            fields = msgspec.json.decode(data)
            model, streamed = fields.get("model"), fields.get("stream") is True
        else:
            fields = dict(msgspec.json.decode(body)) if raw else dict(body)
            for name, value in (options.defaults or {}).items():
                fields.setdefault(name, value)
            model = fields.pop("model", None) or options.model
            if not model:
                raise ConfigurationError(f"requests[{item.index}] names no model; pass model=")
            messages = fields.pop("messages", ())
            streamed = bool(fields.pop("stream", None)) or options.stream
            wanted = (
                options.response_format
                if options.response_format is not None
                else fields.get("response_format")
            )
            reader = response_format_of(wanted)
            if wanted is not None:
                fields["response_format"] = wanted if reader is None else reader.wire
            tools = fields.get("tools")
            # A line of a file is the wire's own words: what is not known here is sent on.
            extra = fields if raw else fields.pop("extra_body", None)
            data = chat_body(
                "map",
                messages,
                model,
                {} if raw else fields,
                streamed,
                extra,
                row,
                advise=client.gives_advice,
            )
        try:
            completion, answered, response = await self._answer(item, data, streamed)
        except NotFoundError as exc:
            await explain_missing_model(client, model, exc)
            raise
        parsed = None
        if reader is not None:
            completion = parse_completion(completion, reader, tools)
            parsed = completion.parsed
        return completion, answered, response.request_id, len(response.request.history) + 1, parsed

    async def _answer(
        self, item: _Item, data: bytes, streamed: bool
    ) -> tuple[ChatCompletion, bytes | None, Response]:
        """One exchange: what it means, its bytes where it came whole, and the reply."""
        client = self._client
        if streamed:
            stream = await client.open_stream("POST", "chat/completions", data)
            async with stream:
                watch = self._options.on_chunk
                async for chunk in stream:
                    if watch is not None:
                        watch(item.custom_id, chunk)
            snapshot = stream.snapshot()
            assert snapshot is not None
            return snapshot, None, stream.response
        completion, response = await client.call("POST", "chat/completions", data, accept=accept_with_reply)
        return completion, response.content, response

    # --- what is finished ---

    def _count(self, result: Result, completion: ChatCompletion | None) -> None:
        options = self._options
        self._done += 1
        if options.concurrency is None and self._done % 32 == 0:
            # A limiter that learns may have opened up since; waiting for the next tick would hold it back.
            self._recap()
        if completion is None:
            self._failed += 1
            self._errors[type(result.error).__name__] += 1
        else:
            self._ok += 1
            usage = completion.usage
            if usage is not None:
                self._prompt_tokens += usage.prompt_tokens
                self._completion_tokens += usage.completion_tokens
                budget = options.token_budget
                if budget is not None and self._prompt_tokens + self._completion_tokens >= budget:
                    self.stop(f"the budget of {budget:,} tokens is spent")
            if options.price is not None:
                self._cost += _cost_of(options.price, completion)
                if options.cost_budget is not None and self._cost >= options.cost_budget:
                    self.stop(f"the budget of {options.cost_budget:g} is spent")
        if options.max_error_rate is not None:
            recent = self._recent
            if len(recent) == recent.maxlen:
                self._recent_failed -= recent[0]
            recent.append(completion is None)
            self._recent_failed += completion is None
            if len(recent) == recent.maxlen and self._recent_failed > options.max_error_rate * len(recent):
                self.stop(
                    f"{self._recent_failed} of the last {len(recent)} requests failed, "
                    f"most of them with {self._errors.most_common(1)[0][0]}"
                )

    def _deliver(self, result: Result) -> None:
        if self._options.ordered:
            self._deliver_in_turn(result.index, result)
            return
        self.outbox.append(result)
        self._wake()

    def _deliver_in_turn(self, index: int, result: Any) -> None:
        waiting = self._waiting
        waiting[index] = result
        while (ready := waiting.pop(self._turn, None)) is not None:
            self._turn += 1
            if ready is _ABSENT:
                self._held -= 1
            else:
                self.outbox.append(ready)
        self._wake()

    # --- the journal ---

    def _commit(self, item: _Item, result: Result, line: bytes) -> None:
        """
        Write a result's line at once, and hand the result out: now, or after the next sync.

        Written here rather than in groups by a thread: a reply that has arrived and is not in the kernel when the
        process is killed would be paid for twice. One write of a kilobyte costs 5 µs, less than going to a thread.
        """
        assert self._journal is not None
        assert self._loop is not None
        if item.replaces:
            self._stale = True
        try:
            self._journal.append([(item.custom_id, line)])
        except JournalWriteError as exc:
            if isinstance(self.failure, JournalWriteError):
                self.failure.unsaved += exc.unsaved
            else:
                self.failure = exc
            self._end_of_source()
            self._scope.cancel()
            return
        self._unsynced += 1
        if self._options.durability == "disk":
            self._commits.append(result)
            self._wake_committer()
            return
        if self._unsynced == 1 or self._unsynced >= _SYNC_EVERY:
            self._wake_committer()
        self._deliver(result)

    def _wake_committer(self) -> None:
        waiter = self._commit_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _sync_all(self) -> None:
        """
        Sync the journal in groups: as many as gathered during the last sync, or every 64 results or 200 ms.
        """
        from anyio import CancelScope, to_thread

        assert self._loop is not None
        assert self._journal is not None
        loop, journal, disk = self._loop, self._journal, self._options.durability == "disk"
        while True:
            if not self._unsynced:
                if self._no_more_commits:
                    return
                self._commit_waiter = loop.create_future()
                await self._commit_waiter
                continue
            if not disk and self._unsynced < _SYNC_EVERY and not self._no_more_commits:
                self._commit_waiter = loop.create_future()
                timer = loop.call_later(_SYNC_AFTER, self._wake_committer)
                try:
                    await self._commit_waiter
                finally:
                    timer.cancel()
            group, self._commits = self._commits, []
            self._unsynced = 0
            # Not to be abandoned half-way: what is on the disk must be handed out.
            with CancelScope(shield=True):
                await to_thread.run_sync(journal.sync)
            for result in group:
                self._deliver(result)


def _tidy(journal: Journal) -> None:
    path = journal.path
    journal.close()
    Journal.open(path, redo="none").close()


def _path_of(requests: Any) -> str | None:
    return os.fspath(cast("str", requests)) if isinstance(requests, str | os.PathLike) else None


def _single(exc: BaseException) -> BaseException:
    """
    The one exception in a group of one.
    """
    inner: Any = getattr(exc, "exceptions", ())
    return _single(inner[0]) if len(inner) == 1 else exc


def _cost_of(price: Any, completion: ChatCompletion) -> float:
    if isinstance(price, Price):
        return price.of(completion)
    if isinstance(price, Mapping):
        known = cast("Mapping[str, Price]", price).get(completion.model or "")
        return 0.0 if known is None else known.of(completion)
    return float(price(completion) or 0.0)


def _allowed(client: Caller) -> int:
    """
    How many requests the client's limiter lets through at once, and a quarter more.
    """
    try:
        limit = client.limiter.stats().concurrency
    except AttributeError:
        return 64
    allowed = limit.allowed if limit.allowed is not None else limit.limit
    if allowed is None:
        return 64
    return max(2, min(2000, int(allowed * 1.25) + 1))
