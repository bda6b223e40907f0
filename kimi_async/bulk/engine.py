"""
The run behind a `Map`: workers that take requests from a source, ask, and hand out what came.

    source ──pull──▶ workers (`Pace`) ──▶ journal ──sync (`Committer`)──▶ `Outbox` ──▶ you
       ▲                                                                           │
       └───────────── nothing is pulled while too much is not taken ◀──────────────┘
"""

import asyncio
import os
from typing import Any, Final

from ..errors import CircuitOpenError, ConfigurationError, KimiError, RateLimitWaitError
from ..resources.caller import Caller
from ..resources.threads import in_thread, to_the_end
from ..types.completions import ChatCompletion
from .ask import Asker
from .committer import Committer, joined
from .id_table import IdTable
from .journal import Journal, JournalMismatchError, JournalWriteError, Mended
from .meter import MapProgress, MapStoppedError, Meter
from .options import MapOptions, cost_of
from .outbox import Outbox
from .output_lines import RunInfo, decode_answer
from .pace import Pace
from .requests import Item, Requests, fingerprint_of, item_of
from .results import Result, line_of_answer, line_of_failure, settler
from .source import Source
from .watching import watching

__all__ = ["Engine"]

# Ours, not the server's: the request was never refused, so another run should send it.
_LOCAL: Final = (RateLimitWaitError, CircuitOpenError)


class Engine:
    """Knows nothing of the `Map` that shows it, so that dropping the `Map` can end it."""

    def __init__(self, client: Caller, requests: Requests, options: MapOptions) -> None:
        self._options = options
        self._report = watching("on_progress", options.on_progress)
        self._asker = Asker(client, options, self._on_chunk)
        self._source = Source(requests, options.total)
        journaled = options.journal is not None
        self._pace = Pace(
            options.concurrency,
            options.window,
            allowed=lambda: _allowed(client),
            # The journal writes in groups: while one is being synced, the next must have somewhere to gather.
            slack=256 if journaled else 0 if options.ordered else 64,
            share=2 if journaled else 3 if options.ordered else 1,
        )
        self.outbox: Outbox = Outbox(ordered=options.ordered, released=self._pace.release)
        self._meter = Meter(
            token_budget=options.token_budget,
            cost_budget=options.cost_budget,
            max_error_rate=options.max_error_rate,
            error_window=options.error_window,
            priced=options.price is not None,
        )
        self._committer: Committer | None = None
        self._ids = IdTable()
        self._group: Any = None
        self._scope: Any = None
        self._ticker: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.over: bool = False
        self.failure: BaseException | None = None
        self.stopped: str | None = None
        self.mended: Mended | None = None

    def stop(self, reason: str, *, now: bool = False) -> None:
        """Sends nothing more. With ``now`` what is under way is given up, too."""
        if self.stopped is None and (now or not self._source.complete):
            # With nothing left to send, stopping changes nothing: what is under way is finished anyway.
            self.stopped = reason
        self._source.stop()
        self._pace.open()
        if now and self._scope is not None:
            self._scope.cancel()

    def progress(self) -> MapProgress:
        return self._meter.progress(
            self._loop.time() if self._loop is not None else 0.0,
            in_flight=self._pace.in_flight,
            total=self._source.total,
            concurrency=self._pace.cap,
        )

    # --- life ---

    async def run(self) -> None:
        import anyio

        loop = self._loop = asyncio.get_running_loop()
        self._meter.started = loop.time()
        deadline: asyncio.TimerHandle | None = None
        try:
            await self._prepare()
            if self._options.deadline is not None:
                deadline = loop.call_at(self._meter.started + self._options.deadline, self._too_late)
            self._tick()
            async with anyio.create_task_group() as outer:
                if self._committer is not None:
                    outer.start_soon(self._committer.run)
                with anyio.CancelScope() as self._scope:
                    async with anyio.create_task_group() as self._group:
                        self._pace.workers = 1
                        self._group.start_soon(self._work)
                if self._committer is not None:
                    self._committer.end()
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self.failure = self.failure or _single(exc)
        finally:
            for timer in (deadline, self._ticker):
                if timer is not None:
                    timer.cancel()
            try:
                await to_the_end(loop.create_task(self._finish()))
            finally:
                self.over = True
                self.outbox.wake()

    async def _prepare(self) -> None:
        options = self._options
        defaults = options.defaults or {}
        await self._source.open(
            model=options.model or defaults.get("model"),
            repair=options.repair,
            max_line=options.max_line_size,
        )
        if options.journal is not None:
            path = options.journal
            await in_thread(self._open, path)
        self._pace.recap()

    def _open(self, path: str | os.PathLike[str]) -> None:
        journal = Journal.open(path, redo=self._options.redo)
        # Kept before anybody can be cancelled: it holds a lock.
        self._committer = Committer(journal, disk=self._options.durability == "disk", deliver=self.outbox.put)
        self.mended = journal.mended

    async def _finish(self) -> None:
        if self._committer is not None:
            try:
                await self._committer.close()
            except KimiError as exc:
                self.failure = self.failure or exc
        await self._source.close()
        if self.stopped is not None and self.failure is None and self._options.on_stop == "raise":
            self.failure = MapStoppedError(self.stopped, progress=self.progress())
        if self._report is not None:
            self._report(self.progress())

    def _too_late(self) -> None:
        self.stop(f"the deadline of {self._options.deadline:g} s has passed", now=True)

    def _tick(self) -> None:
        loop, meter, report = self._loop, self._meter, self._report
        assert loop is not None
        meter.mark(loop.time())
        if meter.marked_before < loop.time():
            self._pace.recap()
        if report is not None and meter.done + meter.skipped:
            report(self.progress())
        self._ticker = loop.call_later(self._options.progress_interval, self._tick)

    def _function_failed(self, name: str, error: Exception) -> None:
        """One of the caller's own functions raised: that is no reason to lose what is finished, nor to hide it."""
        self.failure = self.failure or error
        self.stop(f"{name} failed")

    def _on_chunk(self, custom_id: str, chunk: object) -> None:
        watch = self._options.on_chunk
        if watch is None or self.failure is not None:
            return
        try:
            watch(custom_id, chunk)
        except Exception as exc:
            self._function_failed("on_chunk", exc)

    def _cost_of(self, completion: ChatCompletion) -> float:
        price = self._options.price
        if price is None:
            return 0.0
        try:
            return cost_of(price, completion)
        except Exception as exc:
            self._function_failed("price", exc)
            return 0.0

    # --- the workers ---

    async def _work(self) -> None:
        pace, source = self._pace, self._source
        try:
            while not source.exhausted:
                if pace.full:
                    await pace.room()
                    continue
                item = await self._pull()
                if item is None:
                    return
                if pace.wants_worker:
                    pace.workers += 1
                    self._group.start_soon(self._work)
                pace.in_flight += 1
                try:
                    await self._one(item)
                finally:
                    pace.in_flight -= 1
        finally:
            pace.workers -= 1

    async def _pull(self) -> Item | None:
        """The next request to be sent; None when there is none."""
        pace, source = self._pace, self._source
        pace.idle += 1
        try:
            await source.lock.acquire()
        finally:
            pace.idle -= 1
        try:
            passed = 0
            while not source.exhausted:
                try:
                    index, given = await source.next()
                except StopAsyncIteration:
                    self._end_of_source()
                    return None
                except Exception as exc:
                    # The caller's iterable failed: what was already taken from it is finished first.
                    self.failure = exc
                    self._end_of_source()
                    return None
                pace.held += 1
                item = self._admit(given, index)
                if item is not None:
                    return item
                passed += 1
                if passed % 256 == 0:
                    # A journal may hold a million of them: the loop has other things to do, too.
                    await asyncio.sleep(0)
                await pace.room()
            return None
        finally:
            source.lock.release()

    def _end_of_source(self) -> None:
        self._source.end()
        self._pace.open()

    def _admit(self, given: object, index: int) -> Item | None:
        """A request to be sent; None where it need not be, or cannot be."""
        assert self._loop is not None
        options = self._options
        name = f"request-{index + 1}"
        try:
            item = item_of(given, index, model=options.model, defaults=options.defaults)
            name = item.custom_id
            name.encode()  # a lone surrogate has no place in a file
            if self._committer is not None:
                item.fingerprint = fingerprint_of(item.fields)
        except Exception as exc:
            # Whatever it is, be it raised by the caller's own mapping: it is this request's, and the others go on.
            self._reject(Result(name, index, error=_explained(exc, index), attempts=0))
            return None
        if (item.named or len(self._ids)) and (first := self._ids.add(name, index)) is not None:
            error = ConfigurationError(
                f"requests[{index}]: custom_id {name!r} is also that of requests[{first}]; it was not sent"
            )
            self._reject(Result(name, index, error=error, attempts=0))
            return None
        item.started = self._loop.time()
        if self._committer is None or self._is_new(item, self._committer.journal):
            return item
        return None

    def _is_new(self, item: Item, journal: Journal) -> bool:
        """Whether the journal has no answer to this request."""
        options = self._options
        at = journal.find(item.custom_id)
        if at is None:
            return True
        line = journal.read(at)
        # The fingerprint stands in the last field of our lines; a line without one was written by a batch.
        tail = line[-400:]
        known = item.fingerprint.encode() in tail or b'"fingerprint"' not in tail
        if known or options.on_changed == "keep":
            self._meter.skipped += 1
            if options.replay:
                answer = decode_answer(line)
                fields = item.fields
                self.outbox.put(
                    Result.of(
                        answer,
                        item.index,
                        "journal",
                        response_format=options.response_format,
                        settle=settler(options.leaked_tools, fields.get("tools"), fields.get("messages")),
                    )
                )
            else:
                self.outbox.skip(item.index)
            return False
        if options.on_changed == "resend":
            item.replaces = True
            return True
        self.failure = JournalMismatchError(
            f"{journal.path} holds the answer to another request under custom_id {item.custom_id!r}: the input was "
            "changed since. Give the changed request a new custom_id, another journal, or on_changed='resend' or 'keep'",
            path=journal.path,
            custom_id=item.custom_id,
        )
        self._end_of_source()
        self._pace.release()
        return False

    def _reject(self, result: Result) -> None:
        """A request that cannot be sent: reported, and not journaled, since the journal holds what was answered."""
        self._count_failure(result)
        self.outbox.put(result)

    async def _one(self, item: Item) -> None:
        assert self._loop is not None
        try:
            answered = await self._asker.ask(item)
        except Exception as exc:
            self._failed(item, exc, self._loop.time() - item.started)
            return
        elapsed = self._loop.time() - item.started
        completion = answered.completion
        result = Result(
            item.custom_id,
            item.index,
            completion=completion,
            attempts=answered.attempts,
            elapsed=elapsed,
            parsed=answered.parsed,
        )
        self._judge(self._meter.answered(completion.usage, self._cost_of(completion)))
        if self._committer is None:
            self.outbox.put(result)
            return
        run = RunInfo(item.fingerprint, answered.attempts, round(elapsed, 6))
        line = line_of_answer(
            item.custom_id, completion, answered.body, request_id=answered.request_id, run=run
        )
        self._commit(self._committer, item, result, line)

    def _failed(self, item: Item, error: Exception, elapsed: float) -> None:
        local = isinstance(error, _LOCAL)
        attempts = len(getattr(error, "attempts", ())) + (0 if local else 1)
        result = Result(item.custom_id, item.index, error=error, attempts=attempts, elapsed=elapsed)
        self._count_failure(result)
        fatal = isinstance(error, self._options.stop_on)
        if fatal:
            self.stop(f"{type(error).__name__}: {error}")
        if fatal or self._committer is None:
            self.outbox.put(result)
            return
        retryable = bool(getattr(error, "retryable", False)) or local
        run = RunInfo(item.fingerprint, attempts, round(elapsed, 6), retryable)
        self._commit(self._committer, item, result, line_of_failure(item.custom_id, error, run=run))

    def _commit(self, committer: Committer, item: Item, result: Result, line: bytes) -> None:
        try:
            committer.commit(result, line, replaces=item.replaces)
        except JournalWriteError as exc:
            self.failure = joined(self.failure, exc)
            self._end_of_source()
            self._scope.cancel()

    def _count_failure(self, result: Result) -> None:
        self._judge(self._meter.failed(result.error))

    def _judge(self, reason: str | None) -> None:
        if self._pace.follows and self._meter.done % 32 == 0:
            # A limiter that learns may have opened up since; waiting for the next tick would hold it back.
            self._pace.recap()
        if reason is not None:
            self.stop(reason)


def _explained(error: Exception, index: int) -> Exception:
    """An error that says which request it is about."""
    if isinstance(error, KimiError | TypeError):
        return error
    if isinstance(error, UnicodeEncodeError):
        reason = f"not valid Unicode ({error})"
    elif isinstance(error, RecursionError):
        reason = "it contains itself, or is nested too deeply"
    else:
        reason = f"{type(error).__name__}: {error}"
    explained = ConfigurationError(f"requests[{index}] cannot be sent: {reason}")
    explained.__cause__ = error
    return explained


def _single(exc: BaseException) -> BaseException:
    """The one exception in a group of one."""
    inner: Any = getattr(exc, "exceptions", ())
    return _single(inner[0]) if len(inner) == 1 else exc


def _allowed(client: Caller) -> int:
    """How many requests the client's limiter lets through at once, and a quarter more."""
    try:
        limit = client.limiter.stats().concurrency
    except AttributeError:
        return 64
    allowed = limit.allowed if limit.allowed is not None else limit.limit
    if allowed is None:
        return 64
    return max(2, min(2000, int(allowed * 1.25) + 1))
