"""
The reply beside what it means: `with_raw_response` and `with_streaming_response`, on the client and on every resource.

    raw = await client.chat.completions.with_raw_response.create(...)
    raw.headers["msh-request-id"], raw.parse()

    async with client.files.with_streaming_response.content(file_id) as reply:
        async for block in reply.iter_bytes():
            ...

They work for every method, present and future: the method runs as it is, and the reply is caught on its way through
`AsyncKimi.send`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import msgspec

from ..codec.json import decode_reply
from ..transport.exchange import Headers, Request, Response

__all__ = [
    "APIResponse",
    "AsyncAPIResponse",
    "AsyncStreamedResponseManager",
    "WithRawResponse",
    "WithStreamingResponse",
]

T = TypeVar("T")

Accept = Callable[[Response], Awaitable[None]]


class Catch:
    """
    What `AsyncKimi.send` tells of the replies that pass it, for the one call that asked.
    """

    def __init__(self, *, hold: bool = False) -> None:
        self.response: Response | None = None
        self.arrived: asyncio.Event = asyncio.Event()
        self.go_on: asyncio.Event = asyncio.Event()
        if not hold:
            self.go_on.set()

    def around(self, accept: Accept | None) -> Accept:
        async def held(response: Response) -> None:
            self.response = response
            self.arrived.set()
            await self.go_on.wait()
            if accept is not None:
                await accept(response)

        return held


catching: ContextVar[Catch | None] = ContextVar("kimi_async_catching", default=None)


class _Reply:
    def __init__(self, response: Response) -> None:
        self.http_response = response

    @property
    def headers(self) -> Headers:
        return self.http_response.headers

    @property
    def status_code(self) -> int:
        return self.http_response.status

    @property
    def request_id(self) -> str | None:
        return self.http_response.request_id

    @property
    def http_request(self) -> Request:
        return self.http_response.request

    @property
    def url(self) -> str:
        return self.http_response.url

    @property
    def method(self) -> str:
        return self.http_response.request.method

    @property
    def http_version(self) -> str:
        return self.http_response.http_version

    @property
    def retries_taken(self) -> int:
        """
        Failed attempts before this reply.
        """
        return len(self.http_response.request.history)

    @property
    def is_closed(self) -> bool:
        return self.http_response.is_closed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.http_response!r}>"


class APIResponse(_Reply, Generic[T]):
    """
    A reply that has been read, and what it means. For a streamed call, `parse()` is the `AsyncStream`.
    """

    def __init__(self, response: Response, value: T) -> None:
        super().__init__(response)
        self._value = value

    def parse(self, *, to: Any = None) -> Any:
        """
        What the call would have returned; or the body decoded as another type.
        """
        return self._value if to is None else decode_reply(self.http_response.content, to, self.http_response)

    @property
    def content(self) -> bytes:
        return self.http_response.content

    @property
    def text(self) -> str:
        return self.http_response.text

    def json(self) -> Any:
        return self.http_response.json()

    def read(self) -> bytes:
        return self.http_response.content


class AsyncAPIResponse(_Reply, Generic[T]):
    """
    A reply whose body is still on the way: take it in with one of these, once.
    """

    def __init__(self, response: Response, go_on: Callable[[], Awaitable[T]]) -> None:
        super().__init__(response)
        self._go_on = go_on

    async def parse(self) -> T:
        """
        What the call would have returned.
        """
        return await self._go_on()

    async def read(self) -> bytes:
        return await self.http_response.read()

    async def text(self) -> str:
        return (await self.http_response.read()).decode("utf-8", "replace")

    async def json(self) -> Any:
        return msgspec.json.decode(await self.http_response.read())

    async def iter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """
        The body as it comes; or in blocks of `chunk_size` bytes, the last one shorter.
        """
        held = bytearray()
        async for data in self.http_response:
            if chunk_size is None:
                yield data
                continue
            held += data
            while len(held) >= chunk_size:
                yield bytes(held[:chunk_size])
                del held[:chunk_size]
        if held:
            yield bytes(held)

    async def iter_text(self, chunk_size: int | None = None) -> AsyncIterator[str]:
        from codecs import getincrementaldecoder

        decoder = getincrementaldecoder("utf-8")("replace")
        async for data in self.iter_bytes(chunk_size):
            if text := decoder.decode(data):
                yield text
        if text := decoder.decode(b"", True):
            yield text

    async def iter_lines(self) -> AsyncIterator[str]:
        """
        Lines without their ends: LF, CRLF or CR, and no other (U+2028 belongs to the text).
        """
        held = b""
        async for data in self.http_response:
            held += data
            lines = held.replace(b"\r\n", b"\n").split(b"\n")
            held = lines.pop()
            for line in lines:
                yield line.decode("utf-8", "replace")
        if held:
            yield held.decode("utf-8", "replace")

    async def close(self) -> None:
        self.http_response.close()


class AsyncStreamedResponseManager(Generic[T]):
    """
    Sends on entering; the body is read inside, or not at all.
    """

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._task: asyncio.Task[T] | None = None
        self._catch: Catch | None = None

    async def __aenter__(self) -> AsyncAPIResponse[T]:
        catch = self._catch = Catch(hold=True)

        async def run() -> T:
            catching.set(catch)
            return await self._call()

        task = self._task = asyncio.ensure_future(run())
        arrived = asyncio.ensure_future(catch.arrived.wait())
        try:
            await asyncio.wait((task, arrived), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self._leave()
            raise
        finally:
            arrived.cancel()
        if catch.response is None:
            await task  # raises what went wrong
            raise RuntimeError("the call sent no request")

        async def go_on() -> T:
            catch.go_on.set()
            return await asyncio.shield(task)

        return AsyncAPIResponse(catch.response, go_on)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        task, catch = self._task, self._catch
        if task is not None:
            value: Any = None
            if task.done() and not task.cancelled() and task.exception() is None:
                value = task.result()
            task.cancel()
            await asyncio.wait((task,))
            close = getattr(value, "close", None)
            if close is not None and hasattr(value, "__anext__"):
                await close()
        if catch is not None and catch.response is not None:
            catch.response.close()


class WithRawResponse:
    """
    The same methods; what they return is an `APIResponse`, whose `parse()` is what they would have returned.
    """

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._target, name)
        if not callable(target):
            return WithRawResponse(target)
        method = cast("Callable[..., Awaitable[Any]]", target)

        async def call(*args: Any, **kwargs: Any) -> APIResponse[Any]:
            catch = Catch()
            token = catching.set(catch)
            try:
                value = await method(*args, **kwargs)
            finally:
                catching.reset(token)
            return APIResponse(cast("Response", catch.response), value)

        return call


class WithStreamingResponse:
    """
    The same methods, as context managers that give the reply before its body.
    """

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._target, name)
        if not callable(target):
            return WithStreamingResponse(target)
        method = cast("Callable[..., Awaitable[Any]]", target)

        def call(*args: Any, **kwargs: Any) -> AsyncStreamedResponseManager[Any]:
            return AsyncStreamedResponseManager(lambda: method(*args, **kwargs))

        return call
