"""
One HTTP exchange, without saying who carries it: `Request`, `Response`, `Timeout`, and the one-method `Transport`.

The aiohttp session pool (`aiohttp_pool`) is the transport of every day; `kimi_async.testing.MemoryTransport` needs no socket;
and anything with `async def send(self, request) -> Response` will do. A reply of any status is returned, not raised;
only a connection that fails raises (`APIConnectionError`, `APITimeoutError`).
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeAlias, cast, runtime_checkable
from urllib.parse import urlsplit

import msgspec
from multidict import CIMultiDict

from ..errors import (
    APIConnectionError,
    APIStatusError,
    Attempt,
    RequestInfo,
    ResponseInfo,
    ResponseTooLargeError,
    request_id_from,
)
from ..redact import SecretURL, is_secret, redact_url, secrets_of, shown
from .deadlines import Deadline

if TYPE_CHECKING:
    from ..codec.refusals import ErrorShape

__all__ = [
    "Body",
    "Headers",
    "Request",
    "Response",
    "Timeout",
    "Transport",
    "TransportSettings",
    "Turn",
]

logger: logging.Logger = logging.getLogger("kimi_async")

TimeoutLike: TypeAlias = Any
"""A number of seconds, a `Timeout`, an `httpx.Timeout`, an `aiohttp.ClientTimeout`, or None for no limit."""


class Headers(CIMultiDict[str]):
    """A case-insensitive mapping of header fields that may repeat. Its repr hides keys, cookies and account ids."""

    def __repr__(self) -> str:
        masked = {name: "…" if is_secret(name) else value for name, value in self.items()}
        return f"<Headers {masked!r}>"


FOR_EVER = 1e9
"""Seconds, thirty years. Longer than this is no limit."""


@dataclass(frozen=True, slots=True)
class Timeout:
    """
    How long each phase of a call may take, in seconds; None means for ever.

    The defaults fit Kimi, where a long silence is normal: a cold request at high effort says nothing for minutes, and the
    gateway gives up after 900 s (platform.kimi.ai, error codes: 504). A stream that keeps bringing tokens is never cut,
    since `total` is None.
    """

    connect: float | None = 10.0
    """Name look-up, TCP and TLS together, for a new connection."""
    write: float | None = 60.0
    """Handing over the request body, counted between two blocks of it."""
    read: float | None = 900.0
    """A reply that is not a stream, from the request's end to the reply's. For downloads, each read."""
    first_token: float | None = 600.0
    """A stream, from the request to its first event. Comments are not events."""
    idle: float | None = 300.0
    """A stream, between two events, counted only while we wait: a slow consumer is not an idle server."""
    total: float | None = None
    """One attempt from its start to its end, streamed or not."""

    def __post_init__(self) -> None:
        for name in ("connect", "write", "read", "first_token", "idle", "total"):
            value = getattr(self, name)
            if value is not None and (
                not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0
            ):
                raise ValueError(
                    f"Timeout.{name} must be a number of seconds above 0, or None for no limit; got {value!r}"
                )
            if value is not None and value > FOR_EVER:
                object.__setattr__(self, name, None)  # timers cannot hold infinity

    @classmethod
    def of(cls, value: Any) -> Self:
        """
        Understands what callers pass: a number bounds every phase (not `total`: a healthy stream may outlast it), None lifts
        every bound, and an `httpx.Timeout` or `aiohttp.ClientTimeout` is read for the phases it knows.
        """
        if isinstance(value, cls):
            return value
        if value is None:
            return cls(None, None, None, None, None, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return cls(value, value, value, value, value)
        value = cast("Any", value)
        if hasattr(value, "sock_read") and hasattr(value, "sock_connect"):  # aiohttp.ClientTimeout
            connect = value.sock_connect if value.sock_connect is not None else value.connect
            read = value.sock_read
            return cls(connect, read, read, read, read, value.total)
        if hasattr(value, "read") and hasattr(value, "connect") and hasattr(value, "pool"):  # httpx.Timeout
            return cls(value.connect, value.write, value.read, value.read, value.read)
        raise TypeError(
            f"timeout must be a number of seconds, a kimi_async.Timeout, an httpx.Timeout, an aiohttp.ClientTimeout or None; "
            f"got {type(value).__name__}"
        )

    def replace(self, **changes: float | None) -> Self:
        return replace(self, **changes)


@runtime_checkable
class Body(Protocol):
    """A request body that is produced while it is sent, such as a multipart upload."""

    replayable: bool
    """Whether a second iteration gives the same bytes, so that the request can be sent again."""
    length: int | None
    """Bytes, or None if unknown (then it is sent chunked)."""
    content_type: str

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def read(self) -> bytes: ...


@dataclass(slots=True)
class Turn:
    """
    A request's place in the limiter's queue: what the limiter and the retries above it tell each other.

    One a call, made when there is something to tell; attempts share it, as they share the history.
    """

    queued: float | None = None
    """`loop.time()` when it first came to the queue."""
    waited: float = 0.0
    """Seconds that the latest attempt was held back: when it really left is so much later."""
    pause: float = 0.0
    """Seconds that this request alone should wait before it comes again, its refusal being nobody else's concern."""
    kept: bool = False
    """Whether it comes again and keeps the place that it had, before those of its kind that have not waited yet."""
    limited: bool = True
    """False for what Kimi's limits do not count (files, batches), whose refusals the limiter does not hear of."""


class Request:
    """
    One HTTP request, as middleware and transports see it.

    A middleware may change it or send a `copy()`. It goes through the chain once per attempt.
    """

    __slots__ = (
        "accept",
        "authorize",
        "body",
        "call",
        "cost",
        "deadline",
        "extensions",
        "headers",
        "history",
        "max_retries",
        "method",
        "mode",
        "model",
        "priority",
        "stream",
        "timeout",
        "turn",
        "url",
    )

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Headers | None = None,
        body: bytes | Body | None = None,
        timeout: Timeout | None = None,
        stream: bool = False,
        max_retries: int = 0,
        deadline: float | None = None,
        priority: int = 0,
        cost: int | None = None,
        mode: Literal["wait", "fail_fast"] = "wait",
        accept: "Callable[[Response], Awaitable[Any]] | None" = None,
        history: list[Attempt] | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> None:
        self.method: str = method
        self.url: str = url
        """Absolute, with the query."""
        self.headers: Headers = Headers() if headers is None else headers
        self.body: bytes | Body | None = body
        self.timeout: Timeout = timeout or DEFAULT_TIMEOUT
        self.stream: bool = stream
        """Whether the body of the reply will be taken piece by piece rather than read whole."""
        self.max_retries: int = max_retries
        self.deadline: float | None = deadline
        """`loop.time()` after which nothing more is tried or waited for."""
        self.priority: int = priority
        """Higher goes first where requests queue for a limit."""
        self.cost: int | None = cost
        """Tokens that the caller expects this to be charged, if they know better than our estimate."""
        self.mode: Literal["wait", "fail_fast"] = mode
        """`fail_fast`: raise `RateLimitWaitError` with the expected wait instead of queueing for a limit."""
        self.accept: Callable[[Response], Awaitable[Any]] | None = accept
        """Reads as much of a good reply as shows that the attempt worked, all of it or a stream's first event, and returns what
        the reply means; it travels back with the reply (`Response.take_value`)."""
        self.authorize: Callable[[Request], Awaitable[None]] | None = None
        """Sets what lets this request in, before each attempt: a key that is asked for may have changed since the last one."""
        self.history: list[Attempt] = [] if history is None else history
        self.extensions: dict[str, Any] = {} if extensions is None else extensions
        """Notes of your own middleware; nothing here reads them."""
        self.turn: Turn | None = None
        """Its place in the limiter's queue, once there is something to say of it."""
        self.call: int = 0
        """The number of its call in the events that hooks are told; 0 where nobody watches."""
        self.model: str | None = None
        """The model that its body names, where somebody watches."""

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def content(self) -> bytes | Body | None:
        return self.body

    def json(self) -> Any:
        """The decoded body; None if there is none. A streamed body has no JSON: `TypeError`."""
        if self.body is None:
            return None
        if not isinstance(self.body, (bytes, bytearray)):
            raise TypeError(f"the body of {self.method} {self.path} is streamed, not JSON")
        return msgspec.json.decode(self.body)

    async def read(self) -> bytes:
        """The whole body."""
        if self.body is None:
            return b""
        return bytes(self.body) if isinstance(self.body, (bytes, bytearray)) else await self.body.read()

    def copy(self, **changes: Any) -> "Request":
        """
        A request like this one but for `changes`; headers and extensions are copied, so that a change stays in the copy.
        `history` is shared: it belongs to the call, not to the attempt.
        """
        other = Request.__new__(Request)
        for name in Request.__slots__:
            setattr(other, name, getattr(self, name))
        other.headers = Headers(self.headers)
        other.extensions = dict(self.extensions)
        for name, value in changes.items():
            setattr(other, name, value)
        return other

    def info(self) -> RequestInfo:
        """What an error may keep: no key, no query, no body."""
        return RequestInfo(self.method, redact_url(self.url), shown(self.headers))

    def __repr__(self) -> str:
        return f"<Request {self.method} {redact_url(self.url)}>"


DEFAULT_TIMEOUT = Timeout()

NOTHING: Final = object()
"""What a reply means before anybody has looked."""

# An error's body is small, and comes with its status or not at all. Whoever waits for the status should not wait for a body
# that trickles.
ERROR_PATIENCE = 5.0


class Response:
    """
    One HTTP reply, its body perhaps still on the way.

    The holder must read it to the end, or `close()` it; `async with response:` does. `readany()` gives bytes as they come
    and `b""` at the end; `read()` gives the whole body, bounded by `max_body` bytes, as often as asked.
    """

    __slots__ = (
        "__weakref__",
        "_arrived",
        "_body",
        "_callbacks",
        "_closed",
        "_closer",
        "_reader",
        "_whole",
        "bytes_received",
        "error",
        "extensions",
        "gate",
        "given_up",
        "headers",
        "heard",
        "http_version",
        "max_body",
        "reason",
        "refusal",
        "request",
        "sip",
        "started",
        "status",
        "usage",
        "value",
    )

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        *,
        request: Request,
        body: bytes = b"",
        reader: Callable[[], Awaitable[bytes]] | None = None,
        closer: Callable[[], None] | None = None,
        whole: Callable[[int], bytes | None] | None = None,
        arrived: Callable[[], bytes] | None = None,
        gate: Callable[[bool], None] | None = None,
        sip: Callable[[], bytes] | None = None,
        reason: str = "",
        http_version: str = "1.1",
        max_body: int = 64 << 20,
    ) -> None:
        self.status: int = status
        self.headers: Headers = headers if isinstance(headers, Headers) else Headers(headers or {})
        self.request: Request = request
        self.reason: str = reason
        self.http_version: str = http_version
        self.max_body: int = max_body
        self.bytes_received: int = 0
        self.started: float | None = None
        """`loop.time()` when the attempt began."""
        self.extensions: dict[str, Any] = {}
        """Notes of your own middleware; nothing here reads them."""
        self.refusal: ErrorShape | None = None
        """What a refusal means, once somebody has read it: it is classified once."""
        self.error: APIStatusError | None = None
        """… and the exception that it becomes, which is made once, with the time it came."""
        self.heard: Callable[[APIStatusError], None] | None = None
        """Whom to tell of a refusal that comes inside the body: the limiter."""
        self.given_up: str = ""
        """Why a refusal was not answered by another attempt."""
        self.usage: object = None
        """The usage that whoever decoded the reply found in it."""
        self.value: Any = NOTHING
        """What `request.accept` made of the reply; `NOTHING` until it has seen it."""
        self._body: bytes | None = None
        self.gate: Callable[[bool], None] | None = gate
        """Stops (False) and takes up (True) the reading of the connection, where the transport can: what comes meanwhile gathers
        in the kernel, and one read brings it all."""
        self.sip: Callable[[], bytes] | None = sip
        """What has gathered behind the stopped gate, which stays as it is; nothing where nothing came, or the gate has to be opened
        to tell. For while nobody waits for the reader."""
        self._callbacks: list[Callable[[], None]] = []
        self._closed = False
        self._closer = closer
        self._whole = whole
        self._arrived = arrived
        if reader is None:
            self._body = body
            self._reader: Callable[[], Awaitable[bytes]] = self._nothing
        else:
            self._reader = reader

    @staticmethod
    async def _nothing() -> bytes:
        return b""

    @property
    def status_code(self) -> int:
        return self.status

    @property
    def url(self) -> str:
        return self.request.url

    @property
    def request_id(self) -> str | None:
        return request_id_from(self.headers)

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def is_read(self) -> bool:
        """Whether `content` is there."""
        return self._body is not None

    @property
    def content(self) -> bytes:
        """The body, once `read()` has taken it in."""
        if self._body is None:
            raise RuntimeError("the body has not been read yet: await response.read() first")
        return self._body

    @property
    def text(self) -> str:
        """The body as text, once `read()` has taken it in; what is not UTF-8 becomes U+FFFD."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        return msgspec.json.decode(self.content)

    def take_value(self) -> object:
        """
        What `request.accept` made of the reply, handed over once: a stream holds its response, and a response that kept the
        stream would close a circle, so that a dropped stream stayed until the collector came.
        """
        value, self.value = self.value, NOTHING
        return value

    def settle(self) -> bool:
        """
        Takes the body in if all of it is here already; whether it is. Then `read()` neither waits nor needs a timer: a small
        reply comes with its headers, and reading it costs 4 µs less.
        """
        if self._body is None and self._whole is not None and not (self._closed or self.bytes_received):
            body = self._whole(self.max_body)
            if body is None:
                return False
            self._body = body
            self.bytes_received = len(body)
        if self._body is None:
            return False
        self.close()  # also of a body that never was on a wire: whoever holds a slot for this reply waits for it
        return True

    async def read(self) -> bytes:
        """
        The whole body. Afterwards the connection has been given back.

        An error reply (status 400 and above) is cut at `max_body`, at a fault of the connection, and after a few seconds.

        :raises ResponseTooLargeError: past `max_body` bytes, decompressed.
        """
        if self._body is None:
            parts: list[bytes] = []
            patience = None
            if self.status >= 400:
                patience = min(ERROR_PATIENCE, self.request.timeout.read or ERROR_PATIENCE)
            try:
                with Deadline(patience):
                    while data := await self.readany():
                        parts.append(data)
                        if self.bytes_received > self.max_body:
                            if self.status >= 400:
                                break
                            raise ResponseTooLargeError(
                                message=f"the reply is larger than {self.max_body} bytes, the bound set for it (max_response_size)",
                                request=self.request,
                                phase="body",
                            )
            except TimeoutError:
                self.close()
            except APIConnectionError:
                # The status is news enough: an error reply that breaks off, or never ends, is what arrived of it.
                self.close()
                if self.status < 400:
                    raise
            except BaseException:
                self.close()
                raise
            self._body = parts[0] if len(parts) == 1 else b"".join(parts)
        self.close()
        return self._body

    @property
    def reader(self) -> Callable[[], Awaitable[bytes]]:
        """
        `readany`, or what is below it, for one who reads packet after packet and counts `bytes_received` himself: a coroutine
        less, 0.2 µs.
        """
        return self._reader if self._body is None else self._handed_out

    def take_arrived(self) -> bytes:
        """The bytes that are here already; `b""` where one has to wait (`readany`), which may be for an end or a fault."""
        if self._arrived is None or self._body is not None:
            return b""
        data = self._arrived()
        self.bytes_received += len(data)
        return data

    async def readany(self) -> bytes:
        """The next bytes, decompressed, as soon as there are any; `b""` at the end."""
        data = await self.reader()
        self.bytes_received += len(data)
        return data

    async def _handed_out(self) -> bytes:
        # A body that is here already is handed out once, and stays for read().
        return b"" if self.bytes_received else self._body or b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while data := await self.readany():
                yield data
        finally:
            self.close()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Calls back once, when the body has been read or given up; at once if that has happened."""
        if self._closed:
            callback()
        else:
            self._callbacks.append(callback)

    def close(self) -> None:
        """Gives the connection back if the body was read to its end, and closes it otherwise. May be called again."""
        if self._closed:
            return
        self._closed = True
        closer, self._closer = self._closer, None
        callbacks, self._callbacks = self._callbacks, []
        try:
            if closer is not None:
                closer()
        finally:
            for callback in callbacks:
                try:
                    callback()
                except Exception:
                    # The reply has ended, and others wait to hear of it: who holds a slot for it, above all.
                    logger.exception("a function given to on_close raised")

    async def aclose(self) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def info(self) -> ResponseInfo:
        """What an error may keep."""
        kept = shown(self.headers, secrets_of(self.request))
        return ResponseInfo(self.status, kept, self.request.info())

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.request.method} {redact_url(self.url)}>"


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """How connections are to be made, where somebody else makes them."""

    proxy: str | None = None
    ssl: Any = None
    """An `ssl.SSLContext`; False not to verify; None or True for the default."""

    def __post_init__(self) -> None:
        if isinstance(self.proxy, str):
            object.__setattr__(self, "proxy", SecretURL(self.proxy))  # it may hold a password


class Transport(Protocol):
    """Whatever can carry a request. `aclose()`, where there is one, is called when the client closes."""

    async def send(self, request: Request) -> Response: ...
