"""
The reply beside what it means: `with_raw_response` and `with_streaming_response`, on the client and on every resource.

    raw = await client.chat.completions.with_raw_response.create(...)
    raw.headers["msh-request-id"], raw.parse()

    async with client.files.with_streaming_response.content(file_id) as reply:
        async for block in reply.iter_bytes():
            ...

They work for every method, present and future: the method runs as it is, on a copy of its resource whose caller hands the
reply over before it is read.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, cast, overload

import msgspec

from ..codec.json import decode_reply
from ..config import hide
from ..errors import APIResponseValidationError
from ..providers.hosts import Provider
from ..transport.exchange import Body, Headers, Request, Response
from .caller import Caller, CallOptions
from .verbs import Verbs

if TYPE_CHECKING:
    from ..middleware.rate_limit.limiter import Limiter

__all__ = [
    "APIResponse",
    "AsyncAPIResponse",
    "AsyncStreamedResponseManager",
    "WithRawResponse",
    "WithStreamingResponse",
]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Catch:
    """The replies to one call that asked for them: the last, where a method sends more than once."""

    def __init__(self, *, hold: bool = False) -> None:
        self.response: Response | None = None
        self.misfit: APIResponseValidationError | None = None
        """Why the last reply does not mean what it should. Whoever asked for the reply itself has what they asked for, so
        nothing is asked a second time."""
        self.arrived: asyncio.Event = asyncio.Event()
        self.go_on: asyncio.Event = asyncio.Event()
        if not hold:
            self.go_on.set()

    def around(self, accept: Callable[[Response], Awaitable[T]]) -> Callable[[Response], Awaitable[T]]:
        async def held(response: Response) -> T:
            self.response = response
            self.arrived.set()
            await self.go_on.wait()
            self.misfit = None
            try:
                return await accept(response)
            except APIResponseValidationError as error:
                self.misfit = error
                return cast("T", None)

        return held


class CatchingCaller(Verbs):
    """A caller that shows a `Catch` each reply before it is read, and is the client in everything else."""

    def __init__(self, client: Caller, catch: Catch) -> None:
        self._client = client
        self._catch = catch

    @property
    def provider(self) -> Provider | None:
        return self._client.provider

    @property
    def account(self) -> str:
        return self._client.account

    @property
    def gives_advice(self) -> bool:
        return self._client.gives_advice

    @property
    def max_retries(self) -> int:
        return self._client.max_retries

    @property
    def max_event_size(self) -> int:
        return self._client.max_event_size

    @property
    def limiter(self) -> "Limiter":
        return self._client.limiter

    def with_options(self, **options: Any) -> Self:
        return type(self)(self._client.with_options(**options), self._catch)

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | Body | None = None,
        *,
        accept: Callable[[Response], Awaitable[T]],
        stream: bool = False,
        unlisted: bool = False,
        follow_redirects: bool = True,
        **options: Unpack[CallOptions],
    ) -> T:
        hide(options)
        accept = self._catch.around(accept)
        value = await self._client.call(
            method,
            path,
            body,
            accept=accept,
            stream=stream,
            unlisted=unlisted,
            follow_redirects=follow_redirects,
            **options,
        )
        if self._catch.misfit is not None:
            raise self._catch.misfit
        return value


def caught(target: Any, catch: Catch) -> Any:
    """The same resource, or client, on a caller of its own, so that calls side by side do not share a catch."""
    if isinstance(target, Verbs):
        return CatchingCaller(target, catch)
    return type(target)(CatchingCaller(target._client, catch))


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
        """Failed attempts before this reply."""
        return len(self.http_response.request.history)

    @property
    def is_closed(self) -> bool:
        return self.http_response.is_closed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.http_response!r}>"


class APIResponse(_Reply, Generic[T_co]):
    """A reply that has been read, and what it means. For a streamed call, `parse()` is the `AsyncStream`."""

    def __init__(
        self, response: Response, value: T_co | None, misfit: APIResponseValidationError | None = None
    ) -> None:
        super().__init__(response)
        self._value = value
        self._misfit = misfit

    @overload
    def parse(self) -> T_co: ...

    @overload
    def parse(self, *, to: type[U]) -> U: ...

    def parse(self, *, to: Any = None) -> Any:
        """
        What the call would have returned; or the body decoded as another type.

        :raises APIResponseValidationError: the body is not what it should be; `text` and `content` have it all the same.
        """
        if to is None and self._misfit is not None:
            raise self._misfit
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


class AsyncAPIResponse(_Reply, Generic[T_co]):
    """A reply whose body is still on the way: take it in with one of these, once."""

    def __init__(self, response: Response, go_on: Callable[[], Awaitable[T_co]]) -> None:
        super().__init__(response)
        self._go_on = go_on

    @overload
    async def parse(self) -> T_co: ...

    @overload
    async def parse(self, *, to: type[U]) -> U: ...

    async def parse(self, *, to: Any = None) -> Any:
        """What the call would have returned; or the body decoded as another type."""
        if to is not None:
            return decode_reply(await self.http_response.read(), to, self.http_response)
        return await self._go_on()

    async def read(self) -> bytes:
        return await self.http_response.read()

    async def text(self) -> str:
        return (await self.http_response.read()).decode("utf-8", "replace")

    async def json(self) -> Any:
        return msgspec.json.decode(await self.http_response.read())

    async def iter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """The body as it comes; or in blocks of `chunk_size` bytes, the last one shorter."""
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
        """Lines without their ends: LF, CRLF or CR, and no other (U+2028 belongs to the text)."""
        held = b""
        async for data in self.http_response:
            held += data
            lines = held.replace(b"\r\n", b"\n").split(b"\n")
            held = lines.pop()
            for line in lines:
                yield line.decode("utf-8", "replace")
        if held:
            yield held.decode("utf-8", "replace")

    async def stream_to_file(self, file: str | os.PathLike[str], *, chunk_size: int | None = None) -> None:
        """Writes the body to a file as it comes, in a thread; one that breaks off leaves what had arrived."""
        from anyio import to_thread

        opened = await to_thread.run_sync(open, file, "wb")
        try:
            async for data in self.iter_bytes(chunk_size or 1 << 20):
                await to_thread.run_sync(opened.write, data)
        finally:
            opened.close()

    async def close(self) -> None:
        self.http_response.close()


class AsyncStreamedResponseManager(Generic[T_co]):
    """Sends on entering; the body is read inside, or not at all."""

    def __init__(self, call: Callable[[Catch], Awaitable[T_co]]) -> None:
        self._call = call
        self._task: asyncio.Task[T_co] | None = None
        self._catch: Catch | None = None

    async def __aenter__(self) -> AsyncAPIResponse[T_co]:
        catch = self._catch = Catch(hold=True)

        task = self._task = asyncio.ensure_future(self._call(catch))
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

        async def go_on() -> T_co:
            catch.go_on.set()
            return await asyncio.shield(task)

        return AsyncAPIResponse(catch.response, go_on)

    async def __aexit__(self, *_: object) -> None:
        await self._leave()

    async def _leave(self) -> None:
        task, catch = self._task, self._catch
        if task is not None:
            value: object = None
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
    """The same methods; what they return is an `APIResponse`, whose `parse()` is what they would have returned."""

    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._target, name)
        if not callable(target):
            return WithRawResponse(target)

        async def call(*args: object, **kwargs: object) -> APIResponse[Any]:
            hide(kwargs)
            catch = Catch()
            try:
                value = await getattr(caught(self._target, catch), name)(*args, **kwargs)
            except APIResponseValidationError as error:
                if catch.response is None or not catch.response.is_read:
                    raise
                return APIResponse(catch.response, None, error)
            return APIResponse(cast("Response", catch.response), value)

        return call


if TYPE_CHECKING:
    # What a method becomes on a view, for type checkers alone: at runtime `__getattr__` makes it. An overloaded method has to
    # be written out, since mypy sees its first form only.

    class RawMethod(Generic[P, T]):
        """A method that gives the reply beside what it means."""

        def __get__(self, view: object, owner: object = None) -> Callable[P, Awaitable[APIResponse[T]]]: ...

    class StreamingMethod(Generic[P, T]):
        """A method that gives the reply before its body, as a context manager."""

        def __get__(
            self, view: object, owner: object = None
        ) -> Callable[P, AsyncStreamedResponseManager[T]]: ...

    def raw(method: Callable[Concatenate[Any, P], Awaitable[T]]) -> RawMethod[P, T]: ...

    def streaming(method: Callable[Concatenate[Any, P], Awaitable[T]]) -> StreamingMethod[P, T]: ...


class WithStreamingResponse:
    """The same methods, as context managers that give the reply before its body."""

    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._target, name)
        if not callable(target):
            return WithStreamingResponse(target)

        def call(*args: object, **kwargs: object) -> AsyncStreamedResponseManager[Any]:
            hide(kwargs)

            async def run(catch: Catch) -> object:
                return await getattr(caught(self._target, catch), name)(*args, **kwargs)

            return AsyncStreamedResponseManager(run)

        return call
