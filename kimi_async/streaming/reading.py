"""
The reading of one streamed reply: waits for bytes under its clocks, and gives the connection back.

`Digest` says what the bytes mean; an `AsyncStream` reads one reply after another through this, where it is resumed.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import APIConnectionError, APIError, APIStatusError, KimiError, StreamStalledError
from ..transport.deadlines import Deadline
from ..transport.exchange import Response
from .clocks import FLOWS, SAID, TICK, WAITS, Clocks, Turn, ticks_of, turn_of
from .digest import Digest
from .fold import Accumulator
from .not_a_stream import NotAStream, rest_of, unfit

__all__ = ["GATHER", "Reading"]

T = TypeVar("T")

# The end of the chunked body may trail [DONE]. Closing before it comes costs the connection: with an end 5 ms late, twenty
# streams in a row open twenty connections, not one (tests/whole/test_walk.py). Half a second is many round trips.
DRAIN = 0.5
DRAIN_BYTES = 64 * 1024

# What is digested in one go. While others have the loop, 768 KiB may gather in a connection: all at once they took 18 ms, and in slices, of
# which the chunks stay in the processor's cache, 11 (`python -m benchmarks -w fair`).
SLICE = 32 * 1024

# The longest pause between two reads of a stream that is only read for its end: so much later, at most, does it end.
GATHER = 0.25
# The shortest, and how pauses grow with the time since the first token. 300 streams of 50 tokens a second read for their end:
# `python -m benchmarks -w final`.
SHORTEST = 0.02
GROWTH = 0.25
# What brings so many bytes at once need not gather, and would be held up by the 120 KiB that one read takes: a cache, a test server.
PLENTY = 64 * 1024


class Reading(Generic[T]):
    """One reply, packet after packet: `items = await reading.fill()`, until `digest.done` or `digest.fault`."""

    __slots__ = (
        "_at",
        "_held",
        "_pause",
        "_paused",
        "_seen",
        "_shut",
        "_spoken",
        "_turn",
        "_waited",
        "clocks",
        "digest",
        "drops",
        "ended",
        "gather",
        "response",
        "texts",
    )

    def __init__(
        self,
        response: Response,
        loop: asyncio.AbstractEventLoop,
        *,
        decode: Callable[[bytes | memoryview], T] | None,
        fold: Accumulator | None,
        max_event_size: int,
        finishes: bool,
    ) -> None:
        self.response: Response = response
        started = loop.time() if response.started is None else response.started
        self.clocks: Clocks = Clocks(loop, response.request.timeout, started)
        self.digest: Digest[T] = Digest(
            response, decode=decode, fold=fold, max_event_size=max_event_size, finishes=finishes
        )
        self.ended: bool = False
        """The connection is no longer ours."""
        self.gather: float = 0.0
        """Seconds for which what comes may gather between two reads, at most."""
        self.drops: bool = False
        """Whether nobody wants the chunks: after the first token they are folded, and only an end or a fault is worth a wake-up."""
        self.texts: bool = False
        """Whether chunks that hold a piece of text and nothing else, as those before them, are wanted as that text."""
        self._shut = False
        """Whether the connection is not read."""
        self._pause = 0
        """The tick, or the timer of its own, at which that is looked into; 0 where none is set."""
        self._paused: asyncio.Future[None] | None = None
        """Who waits for that."""
        self._seen = 0
        """Bytes that had been received at the latest pause."""
        self._spoken = 0.0
        """When the first token had come."""
        self._turn: Turn | None = None
        self._waited = 0.0
        """When the turn came that was waited for, until the next read."""
        self._held: bytes | None = None
        """Bytes that were read, and wait until others have had the loop, …"""
        self._at = 0
        """… and how many of them were digested."""

    async def fill(self) -> list[T]:
        """What has arrived, as soon as it holds something to hand out, or an end, or a fault."""
        response, digest, clocks = self.response, self.digest, self.clocks
        if digest.waits:
            return self._came(digest.next_run())
        if clocks.state == WAITS and self._held is None and (data := response.take_arrived()):
            # What came with the head was not waited for, and needs no clock.
            try:
                items = digest.feed(data if len(data) <= SLICE else self._slice(data))
            except NotAStream as found:
                items = await self._whole(found.head)
            if items or digest.done or digest.fault is not None:
                return self._came(items)
        turn = self._turn
        if turn is None:
            turn = self._turn = turn_of(clocks.loop)
        read, now = response.reader, clocks.loop.time
        # With the loop, 0.07 µs; without it 0.19: until Python 3.12 asking for the running loop is a system call.
        task = clocks.task = asyncio.current_task(clocks.loop)
        assert task is not None
        clocks.cancelling = task.cancelling()
        clocks.since = now()
        if self._waited:
            turn.took(clocks.since - self._waited)
            self._waited = 0.0
        if self.gather and not self._pause and self._held is None:
            self._let_gather()
        if clocks.timer is None:
            clocks.watch()
        try:
            while True:
                if self._shut and self._held is None:
                    await self._rest()
                    if digest.done or digest.fault is not None:
                        items = []
                        break
                if self._held is None:
                    data = await read()
                    response.bytes_received += len(data)
                else:
                    data, self._held = self._held, None
                if turn.is_over(now(), self._at > 0):
                    await self._step_aside(data, turn)
                if len(data) > SLICE:
                    data = self._slice(data)
                if self.drops and self._spoken:
                    items = []
                    self._swallow(data)
                    if clocks.timer is None:
                        clocks.watch()
                elif self.texts and data:
                    items = digest.take_texts(data)
                else:
                    items = digest.feed(data) if data else digest.end()
                if items or digest.done or digest.fault is not None:
                    break
        except asyncio.CancelledError:
            if not clocks.expired or task.uncancel() > clocks.cancelling:
                raise
            items = []
            self._run_out()
        except APIConnectionError as exc:
            items = []
            self._broken_off(exc)
        except NotAStream as found:
            items = await self._whole(found.head)
        finally:
            clocks.task = None
            clocks.expired = False
        fold = digest.fold
        if (
            items
            and clocks.state == FLOWS
            and digest.fault is None
            and fold is not None
            and not fold.finished
        ):
            return items  # nothing changes: no call
        return self._came(items)

    def _came(self, items: list[T]) -> list[T]:
        fault = self.digest.fault
        if fault is not None:
            self._tell(fault)
        if items:
            self._moved()
        return items

    def _tell(self, fault: APIError) -> None:
        """Whoever keeps the limits hears of a refusal that comes after a good status, also after the first event; once."""
        heard, self.response.heard = self.response.heard, None
        if heard is not None and isinstance(fault, APIStatusError):
            heard(fault)

    def _moved(self) -> None:
        fold = self.digest.fold
        state = SAID if fold is not None and fold.finished else FLOWS  # back where a second choice begins
        if self.clocks.state != state:
            self.clocks.moved(state)  # the next wait has another bound

    def _let_gather(self) -> None:
        """
        Stops the reading of the connection for a while: short at first, a quarter of the time since the first token, so that
        little of an answer's time is added to it.
        """
        clocks, fold, response = self.clocks, self.digest.fold, self.response
        gate = response.gate
        if gate is None or clocks.state != FLOWS:
            return
        now, came = clocks.since, response.bytes_received - self._seen
        self._seen = response.bytes_received
        if not self._spoken:
            if fold is None or not fold.says_something:
                return
            self._spoken = now
        if came > PLENTY:
            return
        pause = min(self.gather, max(SHORTEST, (now - self._spoken) * GROWTH))
        if not self._shut:
            self._shut = True
            gate(False)
        ticks = ticks_of(clocks.loop)
        call = ticks.call if self.gather >= TICK else ticks.call_alone
        self._pause = call(now, pause, self._look)
        clocks.since = now + pause  # a pause of ours is no silence of the server's

    async def _rest(self) -> None:
        """Until the pause is over, and something is to be done."""
        if self._pause:
            self._paused = self.clocks.loop.create_future()
            try:
                await self._paused
            finally:
                self._paused = None
            if self.clocks.timer is None:
                self.clocks.watch()
        if self._held is None:
            self._take_up()

    def _look(self, tick: int) -> None:
        """A pause is over: what has gathered?"""
        if tick != self._pause:
            return
        self._pause = 0
        response, waiter = self.response, self._paused
        data = b""
        try:
            if response.sip is not None and (data := response.sip()):
                response.bytes_received += len(data)
                if self.drops and waiter is not None:
                    self._swallow(data)
                    if self._pause:
                        return
                else:
                    self._held = data
        except Exception as exc:  # raised where somebody waits: whoever rings knows of no stream
            if waiter is None or waiter.done():
                raise
            waiter.set_exception(exc)
        if not data:
            self._take_up()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _swallow(self, data: bytes) -> None:
        """Folds what nobody wants to see, and lets more gather unless that was the end."""
        digest = self.digest
        found = digest.take_in(data) if data else digest.end()
        if found and not digest.done and digest.fault is None:
            self._moved()
            self.clocks.since = self.clocks.loop.time()
            if self._held is None:
                self._let_gather()

    def _take_up(self) -> None:
        self._pause = 0
        if self._shut:
            self._shut = False
            if self.response.gate is not None:
                self.response.gate(True)

    async def _step_aside(self, data: bytes, turn: Turn) -> None:
        self._held = data  # a cancellation must not lose it
        task, self.clocks.task = self.clocks.task, None  # this is no silence of the server's
        await turn.wait()
        self._waited = self.clocks.loop.time()
        self.clocks.task = task
        self._held = None

    def _slice(self, data: bytes) -> bytes:
        """The next of many bytes, whole events where they end as usual; the others are held."""
        start = self._at
        end = start + SLICE
        if end >= len(data):
            self._at = 0
            return data[start:]
        found = data.rfind(b"\n\n", start, end)
        self._held, self._at = data, end if found < 0 else found + 2
        return data[start : self._at]

    async def close(self) -> None:
        """
        Ends it. After its end, or a `finish_reason`, which the end follows, the connection is given back; else it is closed.
        """
        digest = self.digest
        if digest.waits and not self.ended:
            digest.settle()
            self._moved()
        if (digest.done or self.clocks.state == SAID) and not self.ended and digest.fault is None:
            await self.finish()
        else:
            self.end()

    async def finish(self) -> None:
        """Takes in the end of the body, within a bound, so that the connection can be used again."""
        response = self.response
        self._take_up()
        try:
            if not response.is_closed:
                with Deadline(DRAIN):
                    spent = 0
                    while spent < DRAIN_BYTES and (data := await response.readany()):
                        spent += len(data)
        except (TimeoutError, KimiError):
            pass
        finally:
            self.end()

    def end(self) -> None:
        if self.ended:
            return
        self.ended, self._held = True, None
        self.clocks.stop()
        self._take_up()
        if (usage := self.digest.charged) is not None:
            self.response.usage = usage
        self.response.close()

    def drop(self) -> None:
        """Ends it where nobody asks for it any more."""
        self.ended = True
        self.clocks.stop()
        self._take_up()
        self.response.close()

    # --- what goes wrong ---

    async def _whole(self, head: bytes) -> list[T]:
        self.clocks.stop()  # this wait has a bound of its own
        digest, response = self.digest, self.response
        if self._held is not None:
            head, self._held = head + self._held[self._at :], None
        body, late = await rest_of(response, head)
        try:
            return digest.take(body)
        except ValueError:
            kind = response.headers.get("content-type", "no content type")
            if late:
                self._stalled("first_token", f"the reply is no event stream ({kind}), and did not end")
            else:
                digest.fault = unfit(body, response)
            return []

    def _broken_off(self, exc: APIConnectionError) -> None:
        if self.clocks.state == SAID:
            self.digest.done = True  # the answer was whole; only the goodbye is missing
            return
        error = self.digest.incomplete(f"the connection broke before [DONE]: {exc.message}")
        error.__cause__ = exc.__cause__
        self.digest.fault = error

    def _run_out(self) -> None:
        """A clock ran out while we waited."""
        limit = self.clocks.limit()
        phase = limit[1] if limit is not None else "idle"
        if phase == "grace" or (phase == "total" and self.clocks.state == SAID):
            self.digest.done = True
            self.response.close()  # it has been waited for long enough
            return
        words = {
            "first_token": "no event came",
            "idle": "the stream fell silent",
            "total": "the stream did not end",
        }
        self._stalled(phase, words[phase])

    def _stalled(self, phase: str, what: str) -> None:
        response, fold = self.response, self.digest.fold
        elapsed = self.clocks.loop.time() - self.clocks.started
        seconds = getattr(response.request.timeout, phase) or elapsed
        rid = response.request_id
        self.digest.fault = StreamStalledError(
            response.request,
            message=f"{what} within {seconds:g} s (Timeout.{phase}), after {0 if fold is None else fold.chunks} chunks and "
            f"{response.bytes_received:,} bytes{f' (request {rid})' if rid else ''}; .partial holds what arrived",
            phase=phase,
            elapsed=elapsed,
        )
