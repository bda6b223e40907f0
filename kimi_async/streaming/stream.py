"""
A streamed answer: `async for chunk in stream`.

A stream ends in one of two ways. Normally, after `[DONE]` or a `finish_reason`; or with an error that carries what had arrived.
A body that merely stops is never a success.

`Reading` waits for one reply's bytes, `Digest` says what they mean, `Clocks` bound the waits (`Timeout.first_token`, `idle` and
`total`), and `Resumption`s put another reply in the place of a broken one.
"""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import length_hint
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from ..errors import APIConnectionError, APIError, ConfigurationError, EmptyResponseError
from ..transport.exchange import Response
from ..types.completions import ChatCompletion, ChatCompletionChunk, CompletionUsage
from .digest import Continuation
from .fold import Accumulator
from .reading import GATHER, Reading

__all__ = ["AsyncStream", "Continuation", "Mender", "Repeats", "Resumption", "checked_gather"]

T = TypeVar("T")

# Longer, and a stream that a proxy watches may be taken for a reader that has gone.
LONGEST_GATHER = 5.0


def checked_gather(seconds: object) -> float:
    """
    What `gather=` may be.

    :raises ConfigurationError: for anything else.
    """
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, (int, float))
        or not 0 < seconds <= LONGEST_GATHER  # nor NaN
    ):
        raise ConfigurationError(
            f"gather must be seconds above 0, {LONGEST_GATHER:g} at most; got {seconds!r}"
        )
    return seconds


@dataclass(frozen=True, slots=True)
class Resumption:
    """One resumption of a stream."""

    number: int
    """1 for the first."""
    error: Exception
    """What had ended the request before."""
    restarted: bool
    """Whether the answer began anew, since nothing but reasoning had arrived."""


class Mender(Protocol):
    """Who finds another reply where one broke off."""

    @property
    def resumptions(self) -> list[Resumption]: ...

    async def mended(self, fault: APIError, fold: Accumulator) -> "tuple[AsyncStream[Any], Continuation]":
        """
        The stream that goes on, and how its chunks fit into the answer so far.

        :raises APIError: the fault, or a later one, where nothing goes on.
        """
        ...


class Repeats(Protocol):
    """Who asks again for an answer of which nobody has seen anything."""

    async def again(self, fault: APIError) -> "AsyncStream[Any]": ...


class AsyncStream(Generic[T]):
    """
    The chunks of one answer, as they come.

        async with await client.chat.completions.create(..., stream=True) as stream:
            async for chunk in stream:
                ...

    Leaving the `async with`, `close()`, or dropping the stream gives the connection back or closes it; a stream that is dropped
    unfinished warns (`ResourceWarning`). An iteration that is cancelled can be taken up again.

    `response` holds status, headers and request id.

    :raises IncompleteStreamError: the body ended, broke or was not decodable before `[DONE]` or a `finish_reason`.
    :raises StreamStalledError: no event within `first_token` or `idle`, or no end within `total`.
    :raises APIStatusError: the server put an error into the stream; its class tells the cause.
    :raises EmptyResponseError: it ended well but without text or tool call, and `empty="raise"` was asked for.

    Each has `partial` (a `ChatCompletion`, or None), `chunks` and `bytes_received`. Everything that reached the socket before
    the fault is handed out first.
    """

    __slots__ = (
        "__weakref__",
        "_earlier",
        "_ended",
        "_fault",
        "_fold",
        "_mender",
        "_open",
        "_pending",
        "_primed",
        "_reading",
        "_refuse_empty",
        "_repeater",
    )

    def __init__(
        self,
        response: Response,
        *,
        decode: Callable[[bytes | memoryview], T] | None = None,
        fold: Accumulator | None = None,
        max_event_size: int = 16 << 20,
        refuse_empty: bool = False,
        finishes: bool = False,
    ) -> None:
        self._fold = fold if fold is not None or decode is not None else Accumulator()
        self._reading: Reading[T] = Reading(
            response,
            asyncio.get_running_loop(),
            decode=decode,
            fold=self._fold,
            max_event_size=max_event_size,
            finishes=finishes,
        )
        self._refuse_empty = refuse_empty
        self._mender: Mender | None = None
        self._repeater: Repeats | None = None
        self._earlier = 0
        """Bytes of replies that broke off and were continued."""
        self._pending: Iterator[T] = iter(())
        self._primed = 0
        """Chunks of the first packet that wait from the beginning."""
        self._open = True
        """Neither an end nor a fault has been seen: there is something to wait for."""
        self._fault: Exception | None = None
        """What it ended with, once that has been raised."""
        self._ended = False
        """Nothing more will be handed out, and the connection is no longer ours."""

    # --- for the user ---

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        for item in self._pending:
            return item
        # Here, not in `_advance`: every coroutine between the user and the socket costs 0.2 µs a packet.
        while self._open:
            reading = self._reading
            items = await reading.fill()
            digest = reading.digest
            if digest.done or digest.fault is not None:
                self._open = False
            if len(items) == 1:
                return items[0]
            self._pending = iter(items)
            for item in self._pending:
                return item
        return await self._advance()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """
        Ends the stream. If its end had been seen, or a `finish_reason`, which the end follows, the connection goes back to the
        pool; otherwise it is closed, which tells the server to stop.
        """
        self._pending = iter(())
        self._open, self._ended = False, True
        await self._reading.close()

    async def aclose(self) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "complete" if self._reading.digest.done else "open"
        return f"<AsyncStream {state}, {self.chunks} chunks, {self.response!r}>"

    @property
    def response(self) -> Response:
        """Status, headers and request id: of the latest reply, where it was resumed."""
        return self._reading.response

    @property
    def resumptions(self) -> list[Resumption]:
        """Where it broke off and went on (`resume=`)."""
        return self._mender.resumptions if self._mender is not None else []

    @property
    def request_id(self) -> str | None:
        return self.response.request_id

    @property
    def started(self) -> float:
        """`loop.time()` when the request was sent: the latest, where it was resumed."""
        return self._reading.clocks.started

    @property
    def chunks(self) -> int:
        """Chunks decoded so far."""
        return self._fold.chunks + self._reading.digest.waits if self._fold is not None else 0

    @property
    def usage(self) -> CompletionUsage | None:
        """Tokens charged, once the server has said so."""
        return self._fold.usage if self._fold is not None else None

    def snapshot(self) -> ChatCompletion | None:
        """The answer as far as it has been decoded; None before the first chunk."""
        return self._fold.completion() if self._fold is not None else None

    @property
    def fold(self) -> Accumulator | None:
        """What the chunks so far amount to. None for a stream of something else than chats."""
        return self._fold

    @property
    def in_run(self) -> bool:
        """Whether the chunks at hand are pieces of text and nothing else; see `tell_by_runs`."""
        return self._reading.digest.in_run

    def tell_by_runs(self, on: bool = True) -> None:
        """
        For readers who tell of each chunk with the answer as it is by then: from here on `take` has nothing but text after text.
        """
        self._reading.digest.runs = on

    async def raw_events(self) -> AsyncGenerator[bytes, None]:
        """
        The stream as bytes, to be handed on to another reader: whole events as they came, `data: [DONE]` last. Watched as any
        stream: an error raises, a cut one too, and `usage` and `snapshot()` are known afterwards. Before anything was iterated;
        leaving it early closes the stream, which stops the model.

        A stream with `resume=` cannot be handed on so: its events would not fit together.
        """
        if self._fold is None or self._mender is not None or not self._is_untouched:
            raise ConfigurationError(
                "raw_events() is for a stream of chats, without resume=, of which nothing was iterated"
            )
        for data in self._reading.digest.hand_on():
            yield data
        self._pending = iter(())
        events = cast("AsyncStream[bytes]", self)
        try:
            async for data in events:
                yield data
        finally:
            await self.close()
        yield b"data: [DONE]\n\n"

    @property
    def _is_untouched(self) -> bool:
        return length_hint(self._pending) == self._primed > 0 and bool(self._reading.digest.head)

    def gather(self, seconds: float = GATHER) -> None:
        """
        From the first token on, lets what comes gather between two reads, for so many seconds at most: one wake-up of the loop
        then brings many chunks. For readers who need each not at once: those who want the end only, or so many pictures a
        second. Pauses are short at first. Transports that cannot wait go on as before.
        """
        self._reading.gather = seconds if seconds == 0 else checked_gather(seconds)

    def drop_chunks(self, on: bool = True) -> None:
        """
        Where what comes gathers, chunks after the first token are folded and not handed out: for readers who want the end only.
        """
        self._reading.drops = on

    def tell_texts(self, on: bool = True) -> None:
        """
        For readers who want the text alone: from here on what is iterated may be a `str` in place of a chunk that holds nothing
        else; those that come together are all the one or all the other.
        """
        self._reading.texts = on

    def chunks_of(self, texts: Iterable[str]) -> list[ChatCompletionChunk]:
        """The chunks for which those texts stood."""
        return list(map(self._reading.digest.skim.chunk, texts))

    def take(self) -> list[T]:
        """
        The chunks that have arrived and not been handed out; they will not be handed out again. For readers who build on this.
        """
        return list(self._pending)

    # --- reading ---

    async def prime(self) -> None:
        """
        Waits for the first event, so that an attempt which fails before it can be repeated unseen.

        :raises KimiError: what iterating would have raised; the response is then closed.
        """
        try:
            await self._fill()
        except BaseException:
            self._end()
            raise
        self._primed = length_hint(self._pending)
        if self._reading.digest.fault is not None:
            items = self.take()
            if not items:
                raise self._failed()
            self._pending = iter(items)

    async def _fill(self) -> None:
        items = await self._reading.fill()
        digest = self._reading.digest
        if digest.done or digest.fault is not None:
            self._open = False
        self._pending = iter(items)

    async def _advance(self) -> T:
        """The next chunk where one reply has ended, well or badly."""
        while not self._ended:
            digest = self._reading.digest
            if digest.fault is not None:
                await self._go_on(digest.fault)
            elif digest.done:
                self._open = False
                await self._reading.finish()
                self._ended = True
                if self._refuse_empty and ((completion := self.snapshot()) is None or completion.is_empty):
                    self._fault = EmptyResponseError(completion=completion)
            else:
                await self._fill()
            for item in self._pending:
                return item
        if self._fault is not None:
            # Also when asked again: a loop that catches and carries on must not believe that the stream had ended well.
            raise self._fault
        raise StopAsyncIteration

    async def _go_on(self, fault: APIError) -> None:
        """
        Puts another reply in the place of the broken one: one that goes on, else one that begins anew where that is unseen.

        :raises APIError: what it ended with, where there is neither.
        """
        if self._mender is None and self._repeater is None:
            raise self._failed()
        self._reading.end()
        fold = cast("Accumulator", self._fold)
        continuation: Continuation | None = None
        try:
            try:
                if self._mender is None:
                    raise fault
                stream, continuation = await self._mender.mended(fault, fold)
            except APIError as exc:
                if self._repeater is None:
                    raise
                stream = await self._repeater.again(exc)
        except APIError as exc:
            self._fault = exc
            raise self._failed() from exc.__cause__
        reading, items = stream.handed_over()
        before = self._reading
        reading.digest.runs, reading.gather = before.digest.runs, before.gather
        reading.drops, reading.texts = before.drops, before.texts
        self._earlier += self._reading.response.bytes_received
        self._reading = reading
        if continuation is None:
            self._fold, self._mender = stream.fold, stream.mender or self._mender
            self._pending = iter(items)
        else:
            self._pending = iter(reading.digest.adopted(continuation, fold, items))
        self._open = not (reading.digest.done or reading.digest.fault is not None)

    def repeat_with(self, repeater: Repeats) -> None:
        """
        Where a reply breaks off and is not continued, `repeater` is asked for the answer anew; its chunks come from the first on.
        """
        self._repeater = repeater

    @property
    def mender(self) -> Mender | None:
        return self._mender

    def mend_with(self, mender: Mender) -> None:
        """Where a reply breaks off, `mender` is asked for another."""
        self._mender = mender

    def handed_over(self) -> tuple[Reading[T], list[T]]:
        """The reading, and what it has brought that was not handed out; this stream has then ended."""
        items = self.take()
        self._open, self._ended = False, True
        return self._reading, items

    # --- ends ---

    def _end(self) -> None:
        self._open, self._ended = False, True
        self._reading.end()

    def _failed(self) -> Exception:
        """The fault, with what had arrived, and the connection closed."""
        fault = self._fault or cast("APIError", self._reading.digest.fault)
        self._fault = fault
        self._end()
        if isinstance(fault, APIError):
            fault.request_id = fault.request_id or self.response.request_id
            fault.partial = self.snapshot()
            fault.chunks = self.chunks
            fault.bytes_received = self._earlier + self.response.bytes_received
        if isinstance(fault, APIConnectionError):
            fault.response = self.response.info()
            if fault.elapsed is None:
                fault.elapsed = self._reading.clocks.loop.time() - self.started
        return fault

    def __del__(self) -> None:
        if getattr(self, "_ended", True):
            return
        warnings.warn(
            f"{self!r} was dropped before its end; use `async with`, or await stream.close()",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
        reading = self._reading
        loop = reading.clocks.loop
        if loop.is_closed():
            return
        self._ended = True
        try:
            here: object = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            reading.drop()
        else:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(reading.drop)
