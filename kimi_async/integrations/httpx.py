"""
The standard client over our engine: a transport for httpx and httpx2, asynchronous and blocking.

    http = httpx_client(client)             # an httpx2.AsyncClient; where that is not installed, an httpx.AsyncClient
    http = httpx_client(client, "httpx")    # where both are, the one that the SDK above wants

Whatever is built on httpx gets this client's connections, limits, retries and checks of streams. Replies come as the server
sent them, byte for byte, so that an SDK above reads them with its own types.
"""

import json
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import SplitResult, urlsplit

import msgspec
from anyio import to_thread

from ..client import AsyncKimi
from ..errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    ConfigurationError,
    ConflictError,
    KimiError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RateLimitWaitError,
    RequestTooLargeError,
    UnprocessableEntityError,
)
from ..resources.chat_body import accept_completion
from ..streaming.fold import Accumulator
from ..streaming.stream import AsyncStream
from ..transport.exchange import Body, Headers, Request, Response, Timeout
from ..transport.framing import FRAMING
from ..transport.phases import unread, whole
from ..types.completions import ChatCompletion
from .blocking import blocking
from .reasoning import ReasoningKeeper

__all__ = ["KimiTransport", "httpx_client"]

if TYPE_CHECKING:
    # An `AsyncBaseTransport` and a `BaseTransport`, of httpx or of httpx2: Any fits where any of the four is wanted.
    _BaseTransport = Any
else:
    _BaseTransport = object

MODULES = ("httpx2", "httpx")

# What httpx and openai put into a request where nobody has said anything. It would cut Kimi's silences, which last minutes.
UNSAID: tuple[Mapping[str, object], ...] = (
    {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0},
    {"connect": 5.0, "read": 600, "write": 600, "pool": 600},
)

# Fields that aiohttp writes, and fields that are no longer true once aiohttp has taken a body off the wire.
OURS_TO_WRITE = FRAMING | {"accept-encoding", "authorization"}
TRUE_ON_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})

_keepers: "weakref.WeakKeyDictionary[AsyncKimi, ReasoningKeeper]" = weakref.WeakKeyDictionary()


class KimiTransport(_BaseTransport):  # type: ignore[misc]
    """
    An `AsyncBaseTransport`, and a `BaseTransport`, over a client.

    The client's key goes to the client's own address only, whatever key the SDK above was given; other addresses get a request
    without it. Its limits, retries and clocks apply: of a timeout passed with a request, what differs from the defaults of
    httpx and openai is obeyed (`read` as `Timeout.read`, `first_token` and `idle`). A refusal is the server's reply, after our
    retries and with `x-should-retry: false`, so that nobody above repeats it once more; what was never sent, because a limit or
    a breaker forbade it, comes as the 429 or 503 that it stands for. Closing the transport leaves the client open.

    In blocking use requests run on one event loop in a thread of its own, shared by all.

    :param keep_reasoning: put back the reasoning of answers with tool calls where the framework above has dropped it.
    It serves clients of httpx and of httpx2 alike, and answers each in its own kind.

    Errors are httpx's own, each with ours as its cause. A chat stream that breaks off raises `RemoteProtocolError`, one that falls
    silent `ReadTimeout`; what had arrived is handed out first.
    """

    def __new__(cls, client: AsyncKimi, *, keep_reasoning: bool = True) -> Self:
        _newest()  # imports it, or says that none is installed
        bound: Any = _bound(
            cast("Any", cls), tuple(sys.modules[name] for name in MODULES if name in sys.modules)
        )
        return cast("Self", object.__new__(bound))

    def __init__(self, client: AsyncKimi, *, keep_reasoning: bool = True) -> None:
        if not isinstance(client, AsyncKimi):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"client must be an AsyncKimi, not {type(client).__name__}")
        self.client: AsyncKimi = client
        self._keeper: ReasoningKeeper | None = None
        if keep_reasoning:
            # The client's own, so that a transport made for each call still knows what the last one saw.
            self._keeper = _keepers.setdefault(client, ReasoningKeeper())

    def __repr__(self) -> str:
        return f"<KimiTransport of {self.client!r}>"

    async def handle_async_request(self, request: object) -> Any:
        return await self._handle(request)

    def handle_request(self, request: object) -> Any:
        return blocking(self._handle(request))

    async def aclose(self) -> None:
        """Does nothing: the client is closed by whoever opened it."""

    def close(self) -> None:
        """Does nothing: the client is closed by whoever opened it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    # --- one request ----------------------------------------------------------------------------------------------------

    async def _handle(self, request: object) -> object:
        httpx = httpx_of(request)
        try:
            response, remember = await self._send(request)
        except APIStatusError as exc:
            return self._refused(httpx, _status_of(exc), [], _error_body(exc))
        except RateLimitWaitError as exc:
            return self._refused(httpx, 429, [], _error_body(exc, "rate_limit_reached_error"))
        except CircuitOpenError as exc:
            if exc.cause == "quota":
                return self._refused(httpx, 429, [], _error_body(exc, "exceeded_current_quota_error"))
            return self._refused(httpx, 503, [], _error_body(exc, "engine_overloaded_error"))
        except KimiError as exc:
            if isinstance(exc, RuntimeError | ValueError):
                raise  # a closed client, or a wrong argument: nothing that a network could do
            raise self.translated(exc, request) from exc
        value = response.take_value()
        headers = [
            (name, each) for name, each in response.headers.items() if name.lower() not in TRUE_ON_THE_WIRE
        ]
        extensions = {
            "http_version": f"HTTP/{response.http_version}".encode(),
            "reason_phrase": response.reason.encode("ascii", "replace"),
        }
        if response.status >= 300:
            return self._refused(httpx, response.status, headers, await response.read(), extensions)
        if isinstance(value, ChatCompletion):
            remember(value)
        if isinstance(value, AsyncStream) or not response.is_closed:
            broken = partial(self.translated, request=request, streaming=True)
            source = (
                _Events(cast("_Tapped", value), broken, remember)
                if isinstance(value, AsyncStream)
                else _Bytes(response, broken)
            )
            return self._reply(
                httpx, response.status, headers, extensions, stream=_stream_class(httpx)(source)
            )
        return self._reply(httpx, response.status, headers, extensions, content=await response.read())

    async def _send(self, request: Any) -> "tuple[Response, Callable[[ChatCompletion], None]]":
        client, url = self.client, urlsplit(str(request.url))
        body = _body_of(request, httpx_of(request).RequestNotRead)
        chat = _chat_fields(request.method, url.path, body)
        stream = chat is not None and chat.get("stream") is True

        remember: Callable[[ChatCompletion], None] = _forget
        if chat is not None and self._keeper is not None and isinstance(chat.get("messages"), list):
            restored, digest = self._keeper.restore(chat["messages"])
            if restored is not None:
                body = _encode({**chat, "messages": restored})
            remember = partial(_remember, self._keeper, digest)
        headers = {
            name: each
            for name, each in request.headers.items()
            if name.lower().replace("_", "-") not in OURS_TO_WRITE
        }
        timeout = _timeout(client.timeout, request.extensions.get("timeout"))
        if _origin(url) == _origin(urlsplit(client.base_url)):
            if stream:
                headers.pop("accept", None)
            # In the words of `base_url`: httpx leaves a default port out, and origins are compared as text.
            base = urlsplit(client.base_url)
            ours = await client.build_request(
                request.method,
                url._replace(scheme=base.scheme, netloc=base.netloc, fragment="").geturl(),
                body,
                stream=stream,
                unlisted=True,
                extra_headers=headers,
                timeout=timeout,
            )
        else:
            theirs = request.headers.get("authorization")
            if theirs is not None and client.api_key and client.api_key not in theirs:
                headers["authorization"] = theirs
            ours = Request(
                request.method, str(request.url), headers=Headers(headers), body=body, timeout=timeout
            )
        if stream and chat is not None:
            follows = chat.get("stream_options")
            usage = isinstance(follows, dict) and bool(
                cast("dict[str, object]", follows).get("include_usage")
            )
            ours.accept = partial(_tapped, max_event_size=client.max_event_size, usage_follows=usage)
        elif chat is not None:
            ours.accept = accept_completion
        else:
            ours.accept = unread if _is_long(request, url.path) else whole
        return await client.send(ours), remember

    @staticmethod
    def _reply(httpx: Any, status: int, headers: object, extensions: object, **body: object) -> object:
        return httpx.Response(status, headers=headers, extensions=extensions, **body)

    @staticmethod
    def _refused(httpx: Any, status: int, headers: object, body: bytes, extensions: object = None) -> object:
        reply = httpx.Response(status, headers=headers, content=body, extensions=extensions or {})
        # For SDKs such as openai's, which ask the reply: what could be repeated has been.
        reply.headers["x-should-retry"] = "false"
        return reply

    def translated(self, error: KimiError, request: object, streaming: bool = False) -> Exception:
        """The error as httpx would have raised it."""
        httpx = httpx_of(request)
        kind = httpx.RemoteProtocolError
        if isinstance(error, APITimeoutError):
            kind = {"connect": httpx.ConnectTimeout, "write": httpx.WriteTimeout}.get(
                error.phase or "", httpx.ReadTimeout
            )
        elif isinstance(error, APIConnectionError) and not streaming:
            kind = {
                "dns": httpx.ConnectError,
                "connect": httpx.ConnectError,
                "tls": httpx.ConnectError,
                "write": httpx.WriteError,
                "headers": httpx.ReadError,
            }.get(error.phase or "", httpx.RemoteProtocolError)
        elif isinstance(error, APIResponseValidationError):
            kind = httpx.DecodingError
        return cast("Exception", kind(str(error), request=request))


def httpx_client(
    client: AsyncKimi,
    module: "ModuleType | str | None" = None,
    *,
    keep_reasoning: bool = True,
    **options: object,
) -> Any:
    """
    An `AsyncClient` of httpx2 or httpx over `client`; base address, key, limits and retries are the client's.

        http = httpx_client(client)
        reply = await http.get("models")

    :param module: `"httpx"`, `"httpx2"` or the module itself; without it, httpx2 where it is installed.
    :param options: passed on to `AsyncClient`: `headers`, `event_hooks`, …

    :raises ConfigurationError: neither is installed.
    """
    httpx = httpx_module(module)
    # httpx's default of five seconds would be a timeout that nobody has asked for.
    options.setdefault("timeout", None)
    options.setdefault("base_url", client.base_url)
    transport = KimiTransport(client, keep_reasoning=keep_reasoning)
    return httpx.AsyncClient(transport=transport, **options)


@cache
def _newest() -> object:
    for name in MODULES:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ConfigurationError(
        "neither httpx2 nor httpx is installed: pip install 'kimi-async[httpx2]' or 'kimi-async[httpx]'"
    )


def httpx_module(module: "ModuleType | str | None") -> Any:
    """The module that is meant: httpx, or httpx2."""
    if module is None:
        return _newest()
    if isinstance(module, str):
        try:
            return import_module(module)
        except ImportError:
            raise ConfigurationError(
                f"{module} is not installed: pip install 'kimi-async[{module}]'"
            ) from None
    return module


@cache
def _bound(cls: type, modules: tuple[Any, ...]) -> type:
    """The transport as a class that each of the modules takes for one of its own."""
    bases = [base for httpx in modules for base in (httpx.AsyncBaseTransport, httpx.BaseTransport)]
    return type(cls.__name__, (cls, *bases), {})


def httpx_of(request: object) -> Any:
    """The module that a request is of."""
    return _module_of(cast("object", type(request)))


@cache
def _module_of(kind: type) -> object:
    for base in kind.__mro__:
        name = base.__module__.partition(".")[0]
        if name in MODULES:
            return sys.modules[name]
    raise TypeError(f"a request of httpx or httpx2 is wanted, not {kind.__name__}")


# --- the body of a request ------------------------------------------------------------------------------------------


class _Upload:
    """A body that httpx produces while it is sent."""

    def __init__(self, stream: Any, headers: Mapping[str, str]) -> None:
        self._stream = stream
        self.content_type: str = headers.get("content-type", "application/octet-stream")
        length = headers.get("content-length")
        self.length: int | None = int(length) if length is not None and length.isdecimal() else None
        # Multipart forms seek their files back; whether a file can be sought is all that is asked here. Other streams may be
        # generators, which give their bytes once.
        fields = getattr(stream, "fields", None)
        self.replayable: bool = isinstance(fields, list) and all(
            not hasattr(file := getattr(field, "file", None), "read") or hasattr(file, "seek")
            for field in cast("Iterable[object]", fields)
        )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if hasattr(self._stream, "__aiter__"):
            async for data in self._stream:
                yield data
            return
        pieces: Iterator[bytes] = iter(self._stream)
        while True:
            data = await to_thread.run_sync(next, pieces, None)
            if data is None:
                return
            yield data

    async def read(self) -> bytes:
        return b"".join([data async for data in self])


def _body_of(request: Any, unread_error: type[Exception]) -> bytes | Body | None:
    try:
        return cast("bytes", request.content) or None
    except unread_error:
        return _Upload(request.stream, request.headers)


def _chat_fields(method: str, path: str, body: bytes | Body | None) -> dict[str, Any] | None:
    """What a chat request says; None for any other request, and for one that only the server can make sense of."""
    if method != "POST" or not path.endswith("/chat/completions") or not isinstance(body, bytes):
        return None
    try:
        fields: object = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return cast("dict[str, object]", fields) if isinstance(fields, dict) else None


def _encode(body: Mapping[str, object]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except OverflowError:  # a whole number of more than 64 bits
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _is_long(request: Any, path: str) -> bool:
    """
    Whether the reply may be large, or may take its time: it is passed on as it comes, and not repeated once it has begun.
    """
    return path.endswith("/content") or request.headers.get("accept", "") in (
        "text/event-stream",
        "application/octet-stream",
    )


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _timeout(ours: Timeout, told: Mapping[str, Any] | None) -> Timeout:
    if not told or told in UNSAID:
        return ours
    read = told.get("read")
    changes = {
        "connect": told.get("connect"),
        "write": told.get("write"),
        "read": read,
        "first_token": read,
        "idle": read,
    }
    return ours.replace(**{name: value for name, value in changes.items() if value is not None})


# --- the body of a reply --------------------------------------------------------------------------------------------


class _Tapped(AsyncStream[object]):
    """A chat stream that keeps the bytes from which its chunks were made, for whoever wants those."""

    __slots__ = ("caught",)

    caught: list[bytes]


async def _tapped(response: Response, *, max_event_size: int, usage_follows: bool) -> _Tapped:
    """
    A stream whose first event has come, and was no error. Made anew for every attempt, so that nothing of one that failed is
    handed out with the next.
    """
    caught: list[bytes] = []
    read = response.reader

    async def reader() -> bytes:
        data = await read()
        if data:
            response.bytes_received += len(data)
            caught.append(data)
        return data

    def closed() -> None:
        response.usage = below.usage
        response.close()

    below = Response(
        response.status, response.headers, request=response.request, reader=reader, closer=closed
    )
    below.started = response.started
    below.extensions = response.extensions
    stream = _Tapped(below, fold=Accumulator(usage_follows=usage_follows), max_event_size=max_event_size)
    stream.caught = caught
    await stream.prime()
    return stream


class _Events:
    """The bytes of a chat stream, in the packets in which they came; an error after them if the answer is not whole."""

    def __init__(
        self,
        stream: _Tapped,
        broken: Callable[[KimiError], Exception],
        remember: Callable[[ChatCompletion], None],
    ) -> None:
        self._stream = stream
        self._broken = broken
        self._remember = remember
        self._error: Exception | None = None
        self._ended = False

    async def next(self) -> bytes:
        stream = self._stream
        while not self._ended:
            if self._error is not None:
                raise self._error
            try:
                async for _ in stream:
                    stream.take()
                    break
                else:
                    self._ended = True
                    completion = stream.snapshot()
                    if completion is not None:
                        self._remember(completion)
            except KimiError as exc:
                self._error = self._broken(exc)
                self._error.__cause__ = exc
            data = b"".join(stream.caught)
            stream.caught.clear()
            if data:
                return data
        return b""

    async def close(self) -> None:
        await self._stream.close()


class _Bytes:
    """The bytes of any other reply, as they come."""

    def __init__(self, response: Response, broken: Callable[[KimiError], Exception]) -> None:
        self._response = response
        self._broken = broken

    async def next(self) -> bytes:
        try:
            data = await self._response.readany()
        except KimiError as exc:
            raise self._broken(exc) from exc
        if not data:
            self._response.close()
        return data

    async def close(self) -> None:
        self._response.close()


@cache
def _stream_class(httpx: Any) -> Callable[[_Events | _Bytes], object]:
    class ReplyStream(httpx.AsyncByteStream, httpx.SyncByteStream):  # type: ignore[misc]
        def __init__(self, source: _Events | _Bytes) -> None:
            self._source = source

        def __aiter__(self) -> Self:
            return self

        async def __anext__(self) -> bytes:
            data = await self._source.next()
            if not data:
                raise StopAsyncIteration
            return data

        def __iter__(self) -> Iterator[bytes]:
            while data := blocking(self._source.next()):
                yield data

        async def aclose(self) -> None:
            await self._source.close()

        def close(self) -> None:
            blocking(self._source.close())

    return ReplyStream


# Of an error inside a stream, whose reply had begun with 200.
STATUS: tuple[tuple[type[APIStatusError], int], ...] = (
    (BadRequestError, 400),
    (AuthenticationError, 401),
    (PermissionDeniedError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (RequestTooLargeError, 413),
    (UnprocessableEntityError, 422),
    (RateLimitError, 429),
)


def _status_of(error: APIStatusError) -> int:
    if error.status_code >= 400:
        return error.status_code
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def _forget(completion: ChatCompletion) -> None:
    """For whoever keeps no reasoning."""


def _remember(keeper: ReasoningKeeper, digest: bytes, completion: ChatCompletion) -> None:
    keeper.remember(digest, completion)


def _error_body(error: KimiError, kind: str | None = None) -> bytes:
    body: object = getattr(error, "body", None)
    if not isinstance(body, dict):
        body = {"message": getattr(error, "message", None) or str(error), "type": kind or "server_error"}
    return msgspec.json.encode({"error": body})
