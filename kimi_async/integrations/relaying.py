"""
A stream that is handed on to a reader of ours: what the `EventStreamResponse` of each web framework does.

No framework is imported here. A `Wire` is what one of them offers: a beginning, bytes, and word that the reader has left.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypedDict, Unpack, cast

import anyio
import msgspec
from anyio.abc import TaskGroup

from ..codec.json import encode
from ..errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    CircuitOpenError,
    ConfigurationError,
    EmptyResponseError,
    EngineOverloadedError,
    KimiError,
    RateLimitReachedError,
    RateLimitWaitError,
    RequestTooLargeError,
    SharedLimitsError,
    UnprocessableEntityError,
)
from ..sse import encode_comment, encode_event
from ..streaming.stream import AsyncStream
from ..types.completions import ChatCompletion, ChatCompletionChunk, CompletionUsage

__all__ = ["HEADERS", "Refusal", "Relay", "RelayEnd", "RelayOptions", "RelaySource", "Wire", "refusal_of"]

RelaySource: TypeAlias = "AsyncStream[ChatCompletionChunk] | Awaitable[AsyncStream[ChatCompletionChunk]]"
"""An open stream, or the call that opens it, not yet awaited."""

# The first two keep a proxy or a browser from holding events back or keeping them; the last is nginx's word for the first.
HEADERS: Mapping[str, str] = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

# What proxies cut after silence begins at 30 s (Heroku: 55, nginx and AWS: 60). The HTML standard advises a comment "every 15
# seconds or so" (https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes).
KEEP_ALIVE = 15.0

COMMENT = encode_comment("")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a reader is told of an error."""

    status: int
    """Of the reply, where nothing has been sent yet."""
    error: Mapping[str, object]
    """The object under `error`."""
    retry_after: float | None = None


def refusal_of(error: KimiError) -> Refusal:
    """
    What a reader is told of an error: of his own request the host's words; of ours, of our account and of the host only what
    he can act upon.
    """
    if isinstance(error, (RequestTooLargeError, BadRequestError, UnprocessableEntityError)):
        status = error.status_code if 400 <= error.status_code < 500 and error.status_code != 429 else 400
        body: Any = error.body
        said = cast("dict[str, object]", body).get("message") if isinstance(body, dict) else None
        words = said if isinstance(said, str) and said else "the request was refused"
        return Refusal(status, _told(words, error.type or "invalid_request_error", status))
    if isinstance(error, (RateLimitReachedError, EngineOverloadedError)):
        return _busy(error.retry_after)
    if isinstance(error, CircuitOpenError):
        return _busy(error.retry_after)
    if isinstance(error, RateLimitWaitError):
        return _busy(error.eta)
    if isinstance(error, SharedLimitsError):
        return _busy(None)
    if isinstance(error, APITimeoutError):
        return Refusal(504, _told("the model did not answer in time", "timeout_error", 504))
    if isinstance(error, EmptyResponseError):
        return Refusal(502, _told("the model's answer is empty", "empty_response_error", 502))
    if isinstance(error, APIConnectionError) and error.chunks:
        return Refusal(502, _told("the answer broke off", "incomplete_stream_error", 502))
    if isinstance(error, APIStatusError) and 400 <= error.status_code < 500:
        return Refusal(502, _told("the model cannot be asked at present", "upstream_error", 502))
    return Refusal(502, _told("the model did not answer", "upstream_error", 502))


def _busy(retry_after: float | None) -> Refusal:
    told = _told("the model is busy; try again later", "overloaded_error", 503)
    return Refusal(503, told, retry_after)


def _told(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"message": message, "type": kind, "code": code}


@dataclass(frozen=True, slots=True)
class RelayEnd:
    """How a relay ended, for `on_end`."""

    stream: AsyncStream[ChatCompletionChunk] | None
    """Closed by now. None where it could not be opened."""
    error: Exception | None
    """What the answer ended with, if not well."""
    left: bool
    """Whether the relay was over before the answer: the reader has left, or the server was stopped."""

    @property
    def usage(self) -> CompletionUsage | None:
        """Tokens charged, where the host has said so."""
        return None if self.stream is None else self.stream.usage

    @property
    def completion(self) -> ChatCompletion | None:
        """The answer, as far as it came."""
        return None if self.stream is None else self.stream.snapshot()

    @property
    def finish_reason(self) -> str | None:
        """Of the first choice; None where it did not come to its end."""
        completion = self.completion
        return completion.choices[0].finish_reason if completion is not None and completion.choices else None

    @property
    def request_id(self) -> str | None:
        return None if self.stream is None else self.stream.request_id


class RelayOptions(TypedDict, total=False):
    """What every `EventStreamResponse` takes beside its source, and its framework's own."""

    keep_alive: float | None
    """Seconds of silence after which a comment is sent, which readers ignore; 15 if not given, None for none."""
    tell: Callable[[KimiError], Mapping[str, object]] | None
    """Makes the object under `error` of an error, in place of the usual one, which says nothing of your account."""
    on_end: Callable[[RelayEnd], object] | None
    """Called once, however it ended, when the stream is closed; awaited if it is a coroutine function, and then not cancelled with
    the reader's request."""


class _ReaderLeft(Exception):
    """Writing failed: the reader's side is gone."""


class Wire(Protocol):
    """The reader's side of a relay."""

    async def begin(self) -> None:
        """Sends status and headers of a stream."""
        ...

    async def refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Sends a whole reply in its place."""
        ...

    async def write(self, data: bytes, /) -> None:
        """
        :raises OSError: the reader has left.
        """
        ...

    async def end(self) -> None: ...

    async def gone(self) -> None:
        """Returns when the reader has left."""
        ...


class Relay:
    """Hands one stream on: `await relay.run(wire)`, once. See `EventStreamResponse` for the options."""

    def __init__(self, source: RelaySource, **options: Unpack[RelayOptions]) -> None:
        if unknown := options.keys() - RelayOptions.__annotations__.keys():
            raise TypeError(
                f"EventStreamResponse takes {', '.join(RelayOptions.__annotations__)}; not {min(unknown)}"
            )
        keep_alive = options.get("keep_alive", KEEP_ALIVE)
        if not (hasattr(source, "__await__") or hasattr(source, "snapshot")):
            raise ConfigurationError(
                "an EventStreamResponse takes an AsyncStream, or the call that opens one "
                f"(create(..., stream=True)), not {type(source).__name__}"
            )
        if keep_alive is not None and not (math.isfinite(keep_alive) and keep_alive > 0):
            raise ConfigurationError(f"keep_alive must be seconds above 0, or None; got {keep_alive!r}")
        self._source = source
        self._keep_alive = keep_alive
        self._tell = options.get("tell")
        self._on_end = options.get("on_end")
        self.stream: AsyncStream[ChatCompletionChunk] | None = None
        self.error: Exception | None = None
        self.left: bool = False
        self._whole = False
        """The end was written."""
        self._begun = False
        self._writing = False
        """Nothing may be put in between: bytes are on their way, or the relay is over."""
        self._commenting: asyncio.Event | None = None
        self._written = 0.0

    async def run(self, wire: Wire) -> None:
        """
        Opens the stream, hands it on, and closes it, however it ends. An error of the host's or of ours is told to the reader;
        another one is raised, once everything is closed.
        """
        fault: Exception | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch, wire, group.cancel_scope)
                try:
                    await self._relayed(wire, group)
                except _ReaderLeft:
                    pass
                except Exception as exc:
                    self.error = fault = exc
                group.cancel_scope.cancel()
        finally:
            self.left = not self._whole and fault is None
            await self._ended()
        if fault is not None:
            raise fault

    async def _watch(self, wire: Wire, scope: anyio.CancelScope) -> None:
        await wire.gone()
        scope.cancel()

    async def head(self, wire: Wire) -> None:
        """Answers a HEAD: with the headers of a stream, for which the model is not asked."""
        source: object = self._source
        try:
            if isinstance(source, asyncio.Future):
                source.cancel()
            elif isinstance(source, Coroutine):
                source.close()
            elif hasattr(source, "snapshot"):
                await cast("AsyncStream[ChatCompletionChunk]", source).close()
            await wire.begin()
            await wire.end()
        except OSError:
            self.left = True
        finally:
            await self._ended()

    async def _relayed(self, wire: Wire, group: TaskGroup) -> None:
        self._written = asyncio.get_running_loop().time()
        if self._keep_alive is not None:
            group.start_soon(self._comment, wire, self._keep_alive)
        try:
            stream = self.stream = await self._opened()
            async with stream:
                await self._alone()
                await self._begin(wire)
                async with aclosing(self._events(stream)) as events:
                    await self._pass_on(events, wire)
        except ConfigurationError:
            raise  # for whoever wrote the service
        except KimiError as exc:
            self.error = exc
            await self._told(exc, wire)
        if self._begun:
            await self._alone()
            await _sent(wire.end())
        self._whole = True

    async def _begin(self, wire: Wire) -> None:
        if not self._begun:
            await _sent(wire.begin())
            self._begun = True

    async def _opened(self) -> AsyncStream[ChatCompletionChunk]:
        source = self._source
        if hasattr(source, "__await__"):
            source = await cast("Awaitable[AsyncStream[ChatCompletionChunk]]", source)
        if not hasattr(source, "snapshot"):
            raise ConfigurationError(
                f"the call gave no stream but {type(source).__name__}; ask with stream=True"
            )
        return cast("AsyncStream[ChatCompletionChunk]", source)

    def _events(self, stream: AsyncStream[ChatCompletionChunk]) -> AsyncGenerator[bytes, None]:
        """The stream as bytes of events: as they came where they fit together so, else decoded and encoded again."""
        if type(stream) is AsyncStream and stream.mender is None:
            return stream.raw_events()
        return _encoded(stream)

    async def _pass_on(self, events: AsyncGenerator[bytes, None], wire: Wire) -> None:
        write, now = wire.write, asyncio.get_running_loop().time
        self._written, self._writing = now(), False
        async for data in events:
            if self._commenting is not None:
                await self._alone()
            self._writing = True
            try:
                await write(data)
            except OSError as exc:
                raise _ReaderLeft from exc
            self._writing = False
            self._written = now()

    async def _alone(self) -> None:
        """Waits until a comment is out of the way, and lets no other begin."""
        self._writing = True
        if self._commenting is not None:
            await self._commenting.wait()

    async def _comment(self, wire: Wire, interval: float) -> None:
        """
        A comment whenever nothing was written for so long: a proxy must not take the silence for the end. The first begins the
        response, if the model has not: a refusal that comes later has no status any more.
        """
        now = asyncio.get_running_loop().time
        while True:
            silent = now() - self._written
            if self._writing or silent < interval:
                await anyio.sleep(interval if self._writing else interval - silent)
                continue
            done = self._commenting = asyncio.Event()
            try:
                await self._begin(wire)
                await _sent(wire.write(COMMENT))
            except _ReaderLeft:
                return  # whoever hands on will notice as well
            finally:
                self._commenting, self._written = None, now()
                done.set()

    async def _told(self, error: KimiError, wire: Wire) -> None:
        refusal = refusal_of(error)
        told = refusal.error if self._tell is None else self._tell(error)
        body = msgspec.json.encode({"error": dict(told)}, enc_hook=str)
        await self._alone()
        if self._begun:
            await _sent(wire.write(encode_event(body)))
            return
        headers: dict[str, str] = {}
        if refusal.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(refusal.retry_after))
        await _sent(wire.refuse(refusal.status, headers, body))

    async def _ended(self) -> None:
        if self._on_end is None:
            return
        end = RelayEnd(self.stream, self.error, self.left)
        with anyio.CancelScope(shield=True):  # what it notes must be noted although the reader has left
            found = self._on_end(end)
            if hasattr(found, "__await__"):
                await cast("Awaitable[object]", found)


async def _sent(writing: Awaitable[None]) -> None:
    """An `OSError` of the reader's connection, told from one of the caller's own functions."""
    try:
        await writing
    except OSError as exc:
        raise _ReaderLeft from exc


async def _encoded(stream: AsyncStream[ChatCompletionChunk]) -> AsyncGenerator[bytes, None]:
    async for chunk in stream:
        yield b"".join([encode_event(encode(each)) for each in (chunk, *stream.take())])
    yield encode_event(b"[DONE]")
