"""
A streamed answer: `async for chunk in stream`.

A stream ends in one of two ways. Normally, after `[DONE]` or a `finish_reason`; or with an error that carries what had arrived.
A body that merely stops is never a success.

Three clocks watch it, all on the loop's own time and all counting decoded events rather than bytes, so that comments and blank
lines cannot stretch them: `Timeout.first_token`, `idle` and `total`. They run only while the stream is being waited for.
"""

import asyncio
import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import msgspec

from ..codec import SurrogateJoiner, decode_chunk, decode_patiently, error_in_stream, error_object
from ..errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    EmptyResponseError,
    IncompleteStreamError,
    KimiError,
    StreamStalledError,
)
from ..sse import BOM, EventTooLargeError, SSEDecoder
from ..transport.deadlines import Deadline
from ..transport.exchange import Response
from ..types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
    ChunkChoice,
    CompletionUsage,
)
from .fold import Accumulator

__all__ = ["DRAIN", "GRACE", "AsyncStream"]

T = TypeVar("T")

# The end of the chunked body may trail [DONE]. Closing before it comes costs the connection: with an end 5 ms late, twenty
# streams in a row open twenty connections, not one (tests/test_walk.py). Half a second is many round trips.
DRAIN = 0.5
DRAIN_BYTES = 64 * 1024

# Some servers say finish_reason and then neither [DONE] nor goodbye (MoonshotAI/kimi-code#2762). The answer is whole by then;
# this is for the usage that may follow.
GRACE = 5.0

# Turns of the loop between a clock's running out and our believing it. When something else has kept the loop busy, the timer may
# be heard before the socket; the server was not silent because we did not listen. asyncio reads sockets before it looks at
# timers, uvloop after; in three turns what had come is digested with either.
TURNS = 3

DONE = b"[DONE]"

_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


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
        "_cancelling",
        "_decode",
        "_done",
        "_ended",
        "_expired",
        "_fault",
        "_fold",
        "_fresh",
        "_joiner",
        "_loop",
        "_pending",
        "_refuse_empty",
        "_since",
        "_sse",
        "_started",
        "_state",
        "_task",
        "_timer",
        "response",
    )

    def __init__(
        self,
        response: Response,
        *,
        decode: Callable[[bytes | memoryview], T] | None = None,
        fold: Accumulator | None = None,
        max_event_size: int = 16 << 20,
        refuse_empty: bool = False,
    ) -> None:
        self.response: Response = response
        self._loop = asyncio.get_running_loop()
        self._decode = cast("Callable[[bytes | memoryview], T]", decode or decode_chunk)
        self._fold = fold if fold is not None or decode is not None else Accumulator()
        self._sse = SSEDecoder(max_event_size)
        self._refuse_empty = refuse_empty
        self._joiner: SurrogateJoiner | None = None
        self._pending: Iterator[T] = iter(())
        self._fault: BaseException | None = None
        self._fresh = True
        """No byte of the body has been seen."""
        self._done = False
        """The end has been seen; what is pending is still to be handed out."""
        self._ended = False
        """Nothing more will be handed out, and the connection is no longer ours."""
        self._started = self._loop.time() if response.started is None else response.started
        self._state = 0
        """0 before the first event, 1 after it, 2 after the last finish_reason: which clock runs."""
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._expired = False

    # --- for the user ---

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        for item in self._pending:
            return item
        # Here, not in `_advance`: every coroutine between the user and the socket costs 0.2 µs a packet.
        while not (self._done or self._ended) and self._fault is None:
            await self._fill()
            for item in self._pending:
                return item
        return await self._advance()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """
        Ends the stream. If its end had been seen, or a `finish_reason`, which the end follows, the connection goes back to the
        pool; otherwise it is closed, which tells the server to stop.
        """
        self._pending = iter(())
        if (self._done or self._state == 2) and not self._ended and self._fault is None:
            await self._finish()
        else:
            self._end()

    async def aclose(self) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "complete" if self._done else "open"
        return f"<AsyncStream {state}, {self.chunks} chunks, {self.response!r}>"

    @property
    def request_id(self) -> str | None:
        return self.response.request_id

    @property
    def started(self) -> float:
        """
        `loop.time()` when the request was sent.
        """
        return self._started

    @property
    def chunks(self) -> int:
        """
        Chunks decoded so far.
        """
        return self._fold.chunks if self._fold is not None else 0

    @property
    def usage(self) -> CompletionUsage | None:
        """
        Tokens charged, once the server has said so.
        """
        return self._fold.usage if self._fold is not None else None

    def snapshot(self) -> ChatCompletion | None:
        """
        The answer as far as it has been decoded; None before the first chunk.
        """
        return self._fold.completion() if self._fold is not None else None

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
        if self._fault is not None:
            items = self.take()
            if not items:
                raise self._failed()
            self._pending = iter(items)

    async def _advance(self) -> T:
        if self._ended:
            if self._fault is not None:
                # Asked again after an error: the answer is the same. A loop that catches and carries on must not believe
                # that the stream had ended well.
                raise self._fault
            raise StopAsyncIteration
        while True:
            if self._fault is not None:
                raise self._failed()
            if self._done:
                await self._finish()
                if self._refuse_empty and ((completion := self.snapshot()) is None or completion.is_empty):
                    self._fault = EmptyResponseError(completion=completion)
                    raise self._fault
                raise StopAsyncIteration
            await self._fill()
            for item in self._pending:
                return item

    async def _fill(self) -> None:
        """
        Reads until there is something to hand out, or an end, or a fault.
        """
        response, loop = self.response, self._loop
        read = response.reader
        # With the loop, 0.07 µs; without it 0.19: until Python 3.12 asking for the running loop is a system call.
        task = self._task = cast("asyncio.Task[Any]", asyncio.current_task(loop))
        self._cancelling = task.cancelling()
        self._since = loop.time()
        if self._timer is None:
            self._watch()
        try:
            while True:
                data = await read()
                response.bytes_received += len(data)
                items = self._digest(data) if data else self._digest_end()
                if items or self._done or self._fault is not None:
                    break
        except asyncio.CancelledError:
            if not self._expired or task.uncancel() > self._cancelling:
                raise
            items = []
            self._run_out()
        except APIConnectionError as exc:
            items = []
            self._broken_off(exc)
        except _NotAStream as found:
            items = await self._whole(found.head)
        finally:
            self._task = None
            self._expired = False
        self._pending = iter(items)

    def _digest(self, data: bytes) -> list[T]:
        """
        The chunks in these bytes, folded. Notes the end, or a fault, that comes after them.
        """
        if self._fresh and (start := data.lstrip()[:4]):
            self._fresh = False
            if start.removeprefix(BOM)[:1] in (b"{", b"[", b"<"):
                raise _NotAStream(data)
        try:
            payloads = self._sse.payloads(data)
        except EventTooLargeError as exc:
            self._fault = self._incomplete(str(exc))
            return []
        if not payloads:
            return []
        if payloads[-1] == DONE:
            payloads.pop()
            self._done = True
        if self._joiner is None:
            try:
                if len(payloads) == 1 and self._fold is not None:
                    chunk = self._decode(payloads[0])
                    if self._fold.add(cast("ChatCompletionChunk", chunk)):
                        self._moved(self._fold)
                        return [chunk]
                    items = [chunk]
                else:
                    items = list(map(self._decode, payloads))
            except _UNREADABLE:
                pass
            else:
                return self._folded(items, payloads)
        return self._digest_patiently(payloads)

    def _digest_patiently(self, payloads: list[bytes | memoryview]) -> list[T]:
        """
        What the quick way could not decode: an end in the middle, foreign leniencies, halves of characters, or garbage.
        """
        items: list[T] = []
        sources: list[bytes | memoryview] = []
        for payload in payloads:
            found: list[T]
            try:
                found = [self._decode(payload)]
            except _UNREADABLE as exc:
                text = bytes(payload).strip()
                if text == DONE:
                    self._done = True
                    break
                if self._fold is None:
                    self._fault = self._incomplete(f"an event cannot be decoded ({exc})")
                    self._done = False
                    break
                try:
                    found = cast(
                        "list[T]",
                        decode_patiently(payload, ChatCompletionChunk, joined=SurrogateJoiner.FIELDS),
                    )
                except ValueError as reason:
                    self._fault = self._incomplete(f"an event is not a chunk ({reason}): {text[:200]!r}")
                    self._done = False
                    break
                if (
                    self._joiner is None and found
                ):  # not for pings and nulls: with it, every chunk goes the long way
                    self._joiner = SurrogateJoiner()
            if self._joiner is not None:
                for chunk in cast("list[ChatCompletionChunk]", found):
                    self._joiner.mend(chunk)
            items += found
            sources += [payload] * len(found)
        return self._folded(items, sources)

    def _folded(self, items: list[T], sources: list[bytes | memoryview]) -> list[T]:
        fold = self._fold
        if fold is None:
            self._state = 1 if items else self._state
            return items
        chunks = cast("list[ChatCompletionChunk]", items)
        at = fold.extend(chunks)
        while at < len(chunks):
            # Neither choices nor usage, or an error beside them: look at the event itself.
            error = _error_in(chunks[at], sources[at])
            if error is not None:
                del items[at:]
                self._done = False
                self._fault = error_in_stream(error, self.response.headers, self.response.request)
                break
            at += 1 + fold.extend(chunks[at + 1 :])
        if items:
            self._moved(fold)
        return items

    def _moved(self, fold: Accumulator) -> None:
        state = 2 if fold.finished else 1  # back to 1 where a second choice begins after the first has ended
        if self._state != state:
            self._state = state
            self._unwatch()  # the next wait has another bound

    def _digest_end(self) -> list[T]:
        """
        The body has ended: what its last, unterminated event holds.
        """
        items: list[T] = []
        try:
            last = [event.data for event in self._sse.finish()]
        except EventTooLargeError as exc:
            self._fault = self._incomplete(str(exc))
            return items
        if last:
            items = self._digest_patiently(last)
            if (
                self._fold is not None
                and self._fold.finished
                and isinstance(self._fault, IncompleteStreamError)
            ):
                self._fault = None  # cut in the goodbye: the answer is whole
        if not self._done and self._fault is None:
            if self._fold is None or self._fold.finished:
                self._done = True
            else:
                self._fault = self._incomplete("the stream ended before [DONE] and without a finish_reason")
        return items

    async def _whole(self, head: bytes) -> list[T]:
        """
        A body that is no event stream: an error in JSON, a completion from a server that ignores `stream`, or a web page.
        """
        response = self.response
        timeout = response.request.timeout
        self._unwatch()  # this wait has a bound of its own
        seconds = min(
            (each for each in (timeout.read, timeout.first_token) if each is not None), default=None
        )
        parts, size = [head], len(head)
        late = False
        try:
            with Deadline(seconds):
                while size < response.max_body and (data := await response.readany()):
                    parts.append(data)
                    size += len(data)
        except TimeoutError:
            late = True
        except APIConnectionError:
            pass
        body = b"".join(parts)
        kind = response.headers.get("content-type", "no content type")
        error = value = None
        with contextlib.suppress(ValueError):
            for value in decode_patiently(body, cast("type[Any]", Any)):
                error = error or error_object(value)
        if error is not None:
            self._fault = error_in_stream(error, response.headers, response.request)
            return []
        if (
            self._fold is not None
            and isinstance(value, dict)
            and cast("dict[str, Any]", value).get("choices")
        ):
            with contextlib.suppress(ValueError):
                chunk = _as_chunk(decode_patiently(body, ChatCompletion)[0])
                if self._fold.add(chunk):
                    self._done = True
                    return cast("list[T]", [chunk])
        if late:
            self._stalled("first_token", f"the reply is no event stream ({kind}), and did not end")
            return []
        self._fault = APIResponseValidationError(
            response,
            body[:4096].decode("utf-8", "replace"),
            message=f"the reply is not an event stream ({kind}); .body holds its first 4,096 bytes",
        )
        return []

    # --- ends ---

    async def _finish(self) -> None:
        """
        Takes in the end of the body, within a bound, so that the connection can be used again.
        """
        response = self.response
        try:
            if not response.is_closed:
                with Deadline(DRAIN):
                    spent = 0
                    while spent < DRAIN_BYTES and (data := await response.readany()):
                        spent += len(data)
        except (TimeoutError, KimiError):
            pass
        finally:
            self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._unwatch()
        response = self.response
        if self._fold is not None and self._fold.usage is not None:
            response.extensions["usage"] = self._fold.usage
        response.close()

    def _failed(self) -> BaseException:
        """
        The fault, with what had arrived, and the connection closed.
        """
        fault = cast("BaseException", self._fault)
        self._end()
        if isinstance(fault, APIError):
            fault.partial = self.snapshot()
            fault.chunks = self.chunks
            fault.bytes_received = self.response.bytes_received
        return fault

    def _broken_off(self, exc: APIConnectionError) -> None:
        if self._state == 2:
            self._done = True  # the answer was whole; only the goodbye is missing
            return
        error = self._incomplete(f"the connection broke before [DONE]: {exc.message}")
        error.__cause__ = exc.__cause__
        self._fault = error

    def _incomplete(self, why: str) -> IncompleteStreamError:
        response = self.response
        rid = response.request_id
        return IncompleteStreamError(
            message=f"{why}, after {self.chunks} chunks and {response.bytes_received:,} bytes"
            f"{f' (request {rid})' if rid else ''}; .partial holds what arrived",
            request=response.request,
            phase="body" if self._state else "first_token",
            elapsed=self._loop.time() - self._started,
        )

    # --- time ---

    def _limit(self) -> tuple[float, str] | None:
        """
        When the present wait must end, in loop time, and which bound says so.
        """
        timeout = self.response.request.timeout
        limit: tuple[float, str] | None = None
        if self._state == 0:
            if timeout.first_token is not None:
                limit = (self._started + timeout.first_token, "first_token")
        elif self._state == 1:
            if timeout.idle is not None:
                limit = (self._since + timeout.idle, "idle")
        else:
            grace = GRACE if timeout.idle is None else min(GRACE, timeout.idle)
            limit = (self._since + grace, "grace")
        if timeout.total is not None and (limit is None or self._started + timeout.total < limit[0]):
            limit = (self._started + timeout.total, "total")
        return limit

    def _watch(self) -> None:
        # One timer a stream, not one a wait: `_since` moves on with every wait (60 ns), and the timer looks at it only when it
        # fires. It holds the stream weakly, so that a dropped stream is collected at once and not after `idle` seconds.
        limit = self._limit()
        if limit is not None:
            self._timer = self._loop.call_at(
                limit[0], _look, cast("weakref.ref[AsyncStream[Any]]", weakref.ref(self))
            )

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, turns: int) -> None:
        if turns == TURNS:
            self._timer = None
        elif self._timer is not None:
            return  # it was not silence: a later wait has begun
        if self._ended or self._task is None:
            return  # nobody waits; the next wait sets a timer
        limit = self._limit()
        if limit is None:
            return
        if limit[0] > self._loop.time():
            self._watch()
        elif turns:
            self._loop.call_soon(_look, cast("weakref.ref[AsyncStream[Any]]", weakref.ref(self)), turns - 1)
        else:
            self._expired = True
            self._task.cancel()

    def _run_out(self) -> None:
        """
        A clock ran out while we waited.
        """
        limit = self._limit()
        phase = limit[1] if limit is not None else "idle"
        if phase == "grace" or (phase == "total" and self._state == 2):
            self._done = True
            self.response.close()  # it has been waited for long enough
            return
        told = {
            "first_token": "no event came",
            "idle": "the stream fell silent",
            "total": "the stream did not end",
        }[phase]
        self._stalled(phase, told)

    def _stalled(self, phase: str, told: str) -> None:
        response = self.response
        now = self._loop.time()
        seconds = getattr(response.request.timeout, phase) or now - self._started
        rid = response.request_id
        self._fault = StreamStalledError(
            response.request,
            message=f"{told} within {seconds:g} s (Timeout.{phase}), after {self.chunks} chunks and "
            f"{response.bytes_received:,} bytes{f' (request {rid})' if rid else ''}; .partial holds what arrived",
            phase=phase,
            elapsed=now - self._started,
        )

    def __del__(self) -> None:
        if getattr(self, "_ended", True):
            return
        warnings.warn(
            f"{self!r} was dropped before its end; use `async with`, or await stream.close()",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
        loop = self._loop
        if loop.is_closed():
            return
        self._ended = True
        timer, self._timer = self._timer, None
        response = self.response

        def end() -> None:
            if timer is not None:
                timer.cancel()
            response.close()

        try:
            here: Any = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            end()
        else:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(end)


class _NotAStream(Exception):
    """
    The body begins like JSON or HTML. Caught where it was read; never leaves this module.
    """

    def __init__(self, head: bytes) -> None:
        self.head = head


def _look(ref: "weakref.ref[AsyncStream[Any]]", turns: int = TURNS) -> None:
    stream = ref()
    if stream is not None:
        stream._look(turns)  # pyright: ignore[reportPrivateUsage]


def _error_in(chunk: ChatCompletionChunk, payload: bytes | memoryview) -> Any:
    """
    The error that an event holds, or None.
    """
    if chunk.error is not None:
        return {"error": chunk.error}
    try:
        value = msgspec.json.decode(payload)
    except _UNREADABLE:
        return None
    error = error_object(value)
    if error is None and any(choice.finish_reason == "error" for choice in chunk.choices):
        error = {
            "error": {
                "message": "the server ended the answer with finish_reason 'error'",
                "type": "server_error",
            }
        }
    return error


def _as_chunk(completion: ChatCompletion) -> ChatCompletionChunk:
    """
    A whole completion as the one chunk of a stream.
    """
    return ChatCompletionChunk(
        id=completion.id,
        created=completion.created,
        model=completion.model,
        usage=completion.usage,
        choices=[
            ChunkChoice(
                index=choice.index,
                finish_reason=choice.finish_reason or "stop",
                delta=ChoiceDelta(
                    role=choice.message.role,
                    content=choice.message.content,
                    reasoning_content=choice.message.reasoning_content,
                    tool_calls=[
                        ChoiceDeltaToolCall(
                            index=i,
                            id=call.id,
                            type=call.type,
                            function=ChoiceDeltaToolCallFunction(
                                name=call.function.name, arguments=call.function.arguments
                            ),
                        )
                        for i, call in enumerate(choice.message.tool_calls or ())
                    ]
                    or None,
                ),
            )
            for choice in completion.choices
        ],
    )
