"""
The transport of every day: aiohttp's connections, one session per event loop.

This is the only module that opens connections with aiohttp. Its exceptions are translated here, once, and none of them leaves: some print the
request's headers, key included, in their repr.

Decisions, where aiohttp has defaults:

* No cap on connections (aiohttp: 100). The limiter, or the caller, decides how much happens at once.
* Idle connections are kept for 75 s (aiohttp: 15): a chat service that speaks once a minute should not shake hands each time.
  The edge may close them sooner; such a connection fails before a byte of the reply, and the call is repeated on a new one.
* No cookies: the edge sets `__cf_bm`, and a cookie jar would tie every key in the process to one identity.
* Redirects are followed only within the same origin. Neither key nor prompt goes anywhere else.
* No netrc. Proxies come from `proxy=`, else from the environment (HTTPS_PROXY, NO_PROXY, …).
* TLS is verified, unless `ssl=False` says otherwise.
* Silent peers are noticed by TCP keep-alive: a model may think for minutes, so that silence alone means nothing.
"""

import asyncio
import errno
import re
import socket
import ssl as ssl_module
import weakref
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from aiohttp import hdrs
from aiohttp.base_protocol import BaseProtocol
from yarl import URL

from ..errors import (
    APIConnectionError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    KimiError,
    ProxyError,
    RedirectRefusedError,
)
from ..redact import bare, redact, redact_url, secrets_of
from . import leavings
from .aiohttp_patches import AT_ONCE, Connection, Reply, Straight, reused, socket_of, straight
from .exchange import Body, Headers, Request, Response, Timeout
from .loops import PerLoop, nobody
from .proxies import check_proxy, proxy_for

__all__ = ["SessionPool"]

KEEP_ALIVE = 75.0
DNS_TTL = 300
REDIRECTS = 3

# Larger bytes bodies go out in pieces: aiohttp warns that they would block the loop (payload.BytesPayload, 1 MiB).
IN_ONE_PIECE = 1 << 20
PIECE = 256 << 10

_NOT_IN_A_URL = re.compile(r"[^!-~]")

_phase: ContextVar[str] = ContextVar("kimi_async_phase", default="connect")


class _Connector(aiohttp.TCPConnector):
    """
    Notes whether the connection for a request came out of the pool: only then may a disconnect be blamed on its age. And
    notes how far a new connection got.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]
        loop = self._loop

        def connected() -> Connection:
            # asyncio asks for the protocol when TCP stands, before TLS.
            _phase.set("tls")
            return Connection(loop)

        self._factory = cast("Any", connected)

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        _phase.set("connect")
        connection = await super().connect(req, traces, timeout)
        protocol = cast("Connection", connection.protocol)
        reused.set(protocol.used)
        protocol.begin()
        return connection

    async def _resolve_host(self, host: str, port: int, traces: Any = None) -> Any:
        _phase.set("dns")
        found = await super()._resolve_host(host, port, traces)
        _phase.set("connect")
        return found


def _socket_factory(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    # Probe a silent peer after 60 s, every 15 s, four times; give up on unacknowledged data after 60 s.
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 60),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 15),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 4),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 60_000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            try:
                sock.setsockopt(level, option, value)
            except OSError:
                pass  # a kernel that does not know it; the connection works without
    return sock


class SessionPool:
    """
    Sends requests over aiohttp.

    Sessions are made lazily, one per running event loop. When the pool meets a second loop, or finds itself in a forked
    process, it makes a fresh one; connections never move between them.

    :param session: the caller's own `aiohttp.ClientSession`: used as it is, in its own loop, and never closed here.
    """

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        trust_env: bool = True,
        keep_alive: float = KEEP_ALIVE,
        max_response_size: int = 64 << 20,
        max_error_size: int = 1 << 20,
        max_header_size: int = 16 << 10,
    ) -> None:
        self._own = session
        self._proxy = None if proxy is None else check_proxy(proxy)
        self._ssl = True if ssl is None else ssl
        self._trust_env = trust_env
        self._keep_alive = keep_alive
        self._max_response_size = max_response_size
        self._max_error_size = max_error_size
        self._max_header_size = max_header_size
        self._closed = False
        self._doors: PerLoop[leavings.Door] = PerLoop()
        self._latest: Callable[[], leavings.Door | None] = nobody
        """A weak reference to the door of the loop that sent last."""
        self._own_door: leavings.Door | None = None
        # For a pool that nobody closes: at its collection, and at the latest when the program ends.
        self._finalizer = weakref.finalize(self, leavings.left_open, self._doors)
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[Timeout, aiohttp.ClientTimeout] = {}
        self._timeout_of: tuple[Timeout | None, aiohttp.ClientTimeout] = (None, aiohttp.ClientTimeout())
        self._proxies: dict[str, str | None] = {}
        self._proxy_of: tuple[URL | None, str | None] = (None, None)

    # --- sessions ---

    def session(self) -> aiohttp.ClientSession:
        """The session of the running loop."""
        return cast("aiohttp.ClientSession", self._door().session)

    def _door(self) -> leavings.Door:
        loop = asyncio.get_running_loop()
        door = self._latest()
        if door is not None and door.loop is loop and door.generation == leavings.generation:
            return door
        if self._closed:
            raise ClientClosedError("this client was closed; make a new one")
        door = self._door_of(loop) if self._own is None else self._own_door_of(loop, self._own)
        self._latest = weakref.ref(door)
        return door

    def _own_door_of(self, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> leavings.Door:
        if session.closed:
            raise ClientClosedError("the aiohttp.ClientSession passed as http_client is closed")
        if getattr(session, "_loop", loop) is not loop:
            raise ConfigurationError(
                "the aiohttp.ClientSession passed as http_client belongs to another event loop; "
                "leave http_client out, and the client makes a session for each loop"
            )
        self._own_door = leavings.Door(loop, ours=False)
        self._own_door.session = session
        return self._own_door

    def _door_of(self, loop: asyncio.AbstractEventLoop) -> leavings.Door:
        self._doors.clean()
        for other, left in self._doors.all():
            if left.generation != leavings.generation:
                self._doors.pop(other)
                left.shut()
        door = self._doors.get(loop)
        if door is None or cast("aiohttp.ClientSession", door.session).closed:
            door = leavings.Door(loop)
            door.session = aiohttp.ClientSession(
                connector=_Connector(
                    limit=0,
                    limit_per_host=0,
                    keepalive_timeout=self._keep_alive,
                    ttl_dns_cache=DNS_TTL,
                    ssl=self._ssl,
                    socket_factory=_socket_factory,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
                max_line_size=self._max_header_size,
                max_field_size=self._max_header_size,
            )
            door.straight = straight(door.session, self._max_header_size)
            self._doors.put(loop, door)
        return door

    async def aclose(self) -> None:
        """Closes every session that this pool made. Replies still open end with an error at their next read."""
        self._closed = True
        self._latest = nobody
        here = asyncio.get_running_loop()
        for loop, door in self._doors.all():
            self._doors.pop(loop)
            if loop is here and door.generation == leavings.generation and door.session is not None:
                await door.session.close()
            else:
                # Perhaps it runs in another thread: its sockets are its own to close.
                door.shut()

    # --- one exchange ---

    async def send(self, request: Request) -> Response:
        door = self._door()
        session, straight, loop = cast("aiohttp.ClientSession", door.session), door.straight, door.loop
        started = loop.time()
        body, headers = request.body, request.headers
        upload: _Upload | None = None
        data: Any = body
        if body is not None and not isinstance(body, bytes):
            upload = _Upload(body, request.timeout.write, loop)
            data = upload.blocks()
            if body.length is not None:
                headers[hdrs.CONTENT_LENGTH] = str(body.length)
            else:
                headers.popall(hdrs.CONTENT_LENGTH, None)
        elif body is not None and len(body) > IN_ONE_PIECE:
            data = _Pieces(body)
        # Taken out again before anything is raised, since a traceback shows this frame.
        faults: list[BaseException] = []
        try:
            return self._response(
                request, await self._exchange(session, straight, request, data, started), loop, started
            )
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, RuntimeError, KimiError) as exc:
            faults.append(exc)
        except asyncio.CancelledError as exc:
            if upload is None or not upload.timed_out():
                bare(exc)
                raise
        finally:
            if upload is not None:
                upload.stop()
        # Raised outside the except block: the original, which may hold the key, stays out of __context__ too. So do the frames
        # below this one, here and above: they hold the address with its query, a proxy's password, and what a reply repeats.
        if upload is not None and upload.fault is not None:
            faults.clear()
            raise upload.fault
        raise self._told(faults.pop(), session, request, loop.time() - started)

    def _told(
        self, fault: BaseException, session: aiohttp.ClientSession, request: Request, elapsed: float
    ) -> BaseException:
        """What the caller is told of it."""
        if isinstance(fault, KimiError):
            bare(fault)
            return fault
        if self._closed:
            return ClientClosedError("the client was closed while a request was under way")
        if session.closed:
            return ClientClosedError("the aiohttp.ClientSession passed as http_client is closed")
        return _translated(fault, request, "headers", elapsed)

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        straight: Straight | None,
        request: Request,
        data: object,
        started: float,
    ) -> aiohttp.ClientResponse | Reply:
        """The reply, after redirects within the origin."""
        url = self._url(request.url)
        proxy = self._proxy_for(url)  # one for all, since redirects stay on the origin
        headers = request.headers
        reply: aiohttp.ClientResponse | Reply
        for _ in range(REDIRECTS + 1):
            if (
                straight is not None
                and proxy is None
                and request.method == "POST"
                and isinstance(data, bytes)
                and len(data) <= AT_ONCE
                and straight.takes(url)
            ):
                reply = await straight.post(url, headers, data, self._timeout(request.timeout))
            else:
                reused.set(False)
                _phase.set("connect")
                if isinstance(request.body, bytes):
                    headers[hdrs.CONTENT_LENGTH] = str(len(request.body))  # aiohttp would believe another
                elif request.body is None:
                    headers.popall(hdrs.CONTENT_LENGTH, None)
                reply = await session.request(
                    request.method,
                    url,
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    timeout=self._timeout(request.timeout),
                    proxy=proxy,
                )
            if reply.status == 407:
                reply.close()
                raise _proxy_wants_a_password(request, asyncio.get_running_loop().time() - started)
            if (
                reply.status not in (301, 302, 303, 307, 308)
                or hdrs.LOCATION not in reply.headers
                or not request.extensions.get("follow_redirects", True)
            ):
                return reply
            url = self._redirected(request, url, reply)
        raise RedirectRefusedError(
            message=f"{url.host} sent more than {REDIRECTS} redirects", request=request, phase="headers"
        )

    def _response(
        self,
        request: Request,
        reply: aiohttp.ClientResponse | Reply,
        loop: asyncio.AbstractEventLoop,
        started: float,
    ) -> Response:
        body = _Reading(reply, request, loop, started, self)
        version = reply.version
        return Response(
            reply.status,
            Headers(reply.headers),
            request=request,
            reader=body.readany,
            closer=body.close,
            whole=body.whole,
            arrived=body.arrived,
            gate=body.gate,
            sip=body.sip,
            reason=reply.reason or "",
            http_version="1.1"
            if version is None or version is aiohttp.HttpVersion11
            else f"{version.major}.{version.minor}",
            max_body=self._max_response_size if reply.status < 400 else self._max_error_size,
        )

    def _url(self, text: str) -> URL:
        url = self._urls.get(text)
        if url is None:
            if _NOT_IN_A_URL.search(text):
                # A blank in it would end the request line, and what follows would be another request to some.
                raise ConfigurationError(
                    f"a blank or another character that no URL has, in {redact_url(text)!r}"
                )
            try:
                url = URL(text, encoded=True)
            except ValueError as exc:
                raise ConfigurationError(f"not a URL: {exc}") from None
            if len(self._urls) >= 256:
                self._urls.clear()
            self._urls[text] = url
        return url

    def _timeout(self, timeout: Timeout) -> aiohttp.ClientTimeout:
        # Only the connection is left to aiohttp. Its other timers count bytes, so that a trickle resets them, and re-arm
        # themselves with every packet (1.5 µs); `send_within` and the stream's own watch count what matters.
        if timeout is self._timeout_of[0]:  # a dict would hash six numbers, 0.6 µs
            return self._timeout_of[1]
        known = self._timeouts.get(timeout)
        if known is None:
            known = aiohttp.ClientTimeout(total=None, connect=timeout.connect)
            if len(self._timeouts) >= 256:
                self._timeouts.clear()
            self._timeouts[timeout] = known
        self._timeout_of = (timeout, known)
        return known

    def _proxy_for(self, url: URL) -> str | None:
        if self._proxy is not None or not self._trust_env:
            return self._proxy
        if url is self._proxy_of[0]:
            return self._proxy_of[1]
        origin = f"{url.scheme}://{url.host}:{url.port}"
        if origin not in self._proxies:
            self._proxies[origin] = proxy_for(url.scheme, url.host or "", url.port)
        found = self._proxies[origin]
        self._proxy_of = (url, found)
        return found

    @staticmethod
    def _redirected(request: Request, url: URL, reply: aiohttp.ClientResponse | Reply) -> URL:
        target: URL | None = None
        told = "an address that cannot be read"
        try:
            target = url.join(URL(reply.headers[hdrs.LOCATION]))
            told = str(target.origin())
        except ValueError:
            pass
        keeps_method = reply.status in (307, 308) or request.method in ("GET", "HEAD")
        replayable = request.body is None or isinstance(request.body, bytes)
        reply.close()
        if (
            target is None
            or told != str(url.origin())
            or target.raw_user != url.raw_user
            or not keeps_method
            or not replayable
        ):
            raise RedirectRefusedError(
                message=f"{url.host} redirects {request.method} {url.path} ({reply.status}) to {told}; refused, "
                "since neither key nor prompt may go elsewhere: set base_url to the right address",
                request=request,
                phase="headers",
            )
        return target


class _Reading:
    """The body of a reply, as bytes come."""

    __slots__ = ("_content", "_fault", "_loop", "_pool", "_reply", "_request", "_started")

    def __init__(
        self,
        reply: aiohttp.ClientResponse | Reply,
        request: Request,
        loop: asyncio.AbstractEventLoop,
        started: float,
        pool: SessionPool,
    ) -> None:
        self._pool = pool  # whoever holds a stream may have let go of the client
        self._reply = reply
        self._content = reply.content
        self._request = request
        self._loop = loop
        self._started = started
        self._fault: BaseException | None = None

    async def readany(self) -> bytes:
        if self._fault is None:
            try:
                return await self._content.readany()
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as exc:
                self._fault = exc
            # When data and a reset arrive in one turn of a busy loop, aiohttp raises before it hands out the data
            # (StreamReader.readany looks at its exception first). What reached us goes to the user before the bad news.
            left = getattr(self._content, "_read_nowait", None)
            if left is not None:
                data: bytes = left(-1)
                if data:
                    return data
        raise _translated(self._fault, self._request, "body", self._loop.time() - self._started)

    def gate(self, on: bool) -> None:
        """Takes up the reading of the connection, or stops it. One that has been given back already is left alone."""
        protocol = self._connection()
        if isinstance(protocol, Connection):
            protocol.hold(not on)
            return
        # A session of the caller's has connections of another kind: each piece that is handed out takes up their reading too.
        transport = None if protocol is None else socket_of(protocol.transport)
        if transport is None or transport.is_closing():
            return
        if not on:
            transport.pause_reading()
        elif not getattr(protocol, "_reading_paused", False):
            transport.resume_reading()

    def sip(self) -> bytes:
        """What has come behind the gate; nothing where it has to be opened for that, or for an end or a fault."""
        content, protocol = self._content, self._connection()
        if not isinstance(protocol, Connection):
            return b""
        protocol.sip()
        if content.is_eof():
            protocol.hold(False)  # it has gone back to the pool with that
        return self.arrived()

    def _connection(self) -> BaseProtocol | None:
        connection = self._reply.connection
        return None if connection is None else connection.protocol

    def whole(self, at_most: int) -> bytes | None:
        """
        The body, if it is here to its end and unharmed and of which nothing was taken; not more than so many bytes of it.
        """
        content = self._content
        if content.is_eof() and content.exception() is None and content.total_bytes <= at_most:
            return content.read_nowait(-1)
        return None

    def arrived(self) -> bytes:
        content = self._content
        return content.read_nowait(-1) if content.exception() is None else b""

    def close(self) -> None:
        if self._content.is_eof():
            self._reply.release()
        else:
            self._reply.close()


class _Pieces(aiohttp.payload.Payload):
    """Many bytes, written piece by piece and never copied: `io.BytesIO`, as aiohttp would have it, copies them twice."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._size = len(body)

    async def write(self, writer: Any) -> None:
        view = memoryview(cast("bytes", self._value))
        for start in range(0, len(view), PIECE):
            if start and start % IN_ONE_PIECE == 0:
                await asyncio.sleep(0)  # a socket that takes all at once would keep the loop to itself
            await writer.write(view[start : start + PIECE])

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return cast("bytes", self._value).decode(encoding, errors)


class _Upload:
    """A request body on its way out, watched: `Timeout.write` bounds the time that the socket takes for one block."""

    def __init__(self, body: Body, seconds: float | None, loop: asyncio.AbstractEventLoop) -> None:
        self._body = body
        self._seconds = seconds
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._expired = False
        self.fault: BaseException | None = None

    async def blocks(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._body:
                if self._seconds is not None:
                    self._timer = self._loop.call_later(self._seconds, self._expire)
                yield block
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
        except (OSError, ValueError, TypeError, RuntimeError) as exc:
            # The caller's file, not the network: aiohttp would call it a connection error.
            self.fault = exc
            raise
        finally:
            self.stop()

    def _expire(self) -> None:
        self._timer = None
        if self._task is not None and not self._task.done():
            self._expired = True
            self.fault = APITimeoutError(
                message=f"the server took no part of the upload for {self._seconds:g} s (Timeout.write)",
                phase="write",
            )
            self._task.cancel()

    def timed_out(self) -> bool:
        """Whether a cancellation that just came is ours. Takes it back if so."""
        return self._expired and self._task is not None and self._task.uncancel() <= self._cancelling

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_PHASES: tuple[tuple[type[BaseException], str, str], ...] = (
    (aiohttp.ClientConnectorDNSError, "dns", "the host's name could not be resolved"),
    (aiohttp.ClientProxyConnectionError, "connect", "the proxy could not be reached"),
    (aiohttp.ClientConnectorCertificateError, "tls", "the certificate was not accepted"),
    (aiohttp.ClientSSLError, "tls", "TLS failed"),
    (aiohttp.ServerFingerprintMismatch, "tls", "the certificate's fingerprint differs"),
    (aiohttp.ClientConnectorError, "connect", "no connection"),
    (aiohttp.ServerDisconnectedError, "", "the server closed the connection"),
    (aiohttp.ClientConnectionResetError, "", "the connection was reset"),
    (aiohttp.ClientPayloadError, "body", "the body broke off"),
    # aiohttp reports what it cannot parse as a response with status 400. It is not the server's 400.
    (aiohttp.ClientResponseError, "", "the reply is not HTTP that can be understood"),
    (aiohttp.InvalidURL, "connect", "not a URL"),
)


def _translated(
    exc: BaseException | None, request: Request, phase: str, elapsed: float
) -> APIConnectionError | ConfigurationError:
    """Our error for one of aiohttp's. The cause it carries is a stand-in with the same words, but no headers and no frames."""
    host = urlsplit(request.url).hostname
    secrets = secrets_of(request)
    if isinstance(exc, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return ConfigurationError(f"not a URL that can be called: {redact(str(exc), secrets)}")
    if (
        phase == "headers"
        and isinstance(exc, ValueError)
        and not isinstance(exc, (aiohttp.ClientError, OSError))  # certificates are ValueErrors as well
    ):
        # Of the request, before anything was sent: its method, a header with a line break, a host's name that is too long.
        return ConfigurationError(f"the request cannot be sent: {redact(str(exc), secrets)}")
    if isinstance(exc, asyncio.TimeoutError):
        # The only timer left to aiohttp is the one on a new connection.
        limit = request.timeout.connect
        phase = _phase.get()
        waiting = {"dns": "for its address", "tls": "for TLS"}.get(phase, "for TCP")
        bound = "" if limit is None else f"; Timeout.connect = {limit:g}"
        timed_out = APITimeoutError(
            request,
            message=f"no connection to {host} after {elapsed:.3g} s (waiting {waiting}{bound})",
            phase=phase,
            elapsed=elapsed,
        )
        timed_out.__cause__ = _stand_in(exc, secrets)
        return timed_out
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        if exc.status == 407:
            return _proxy_wants_a_password(request, elapsed)
        # A proxy that is overloaded, or cannot reach the host just now, may yet; one that forbids will forbid again.
        cls = ProxyError if exc.status < 500 else APIConnectionError
        return cls(
            message=f"the proxy answered {exc.status} ({' '.join(redact(exc.message, secrets).split())[:100]}) when asked for a way "
            f"to {host} (after {elapsed:.3g} s)",
            request=request,
            phase="connect",
            elapsed=elapsed,
        )
    told = "the connection failed"
    for kind, where, words in _PHASES:
        if isinstance(exc, kind):
            phase, told = where or phase, words
            break
    detail = _detail(exc, secrets)
    error = APIConnectionError(
        message=f"Connection error: {told} ({host}, {phase}, after {elapsed:.3g} s{detail})",
        request=request,
        phase=phase,
        elapsed=elapsed,
    )
    # Written on, or waited on, after the other side had closed it in the pool: nobody has seen the request.
    error.reused_connection = (
        phase == "headers"
        and reused.get()
        and (
            isinstance(exc, (aiohttp.ServerDisconnectedError, ConnectionError))
            or (isinstance(exc, OSError) and exc.errno in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED))
        )
    )
    error.__cause__ = _stand_in(exc, secrets)
    return error


def _proxy_wants_a_password(request: Request, elapsed: float) -> ProxyError:
    return ProxyError(
        message="the proxy asks for a user and password (407 Proxy Authentication Required), or did not take those it got: "
        "write them into its URL, http://user:password@host:port, special characters percent-encoded",
        request=request,
        phase="connect",
        elapsed=elapsed,
    )


def _detail(exc: BaseException | None, secrets: tuple[str, ...]) -> str:
    if exc is None:
        return ""
    inner = getattr(exc, "os_error", None) if isinstance(exc, aiohttp.ClientConnectorError) else None
    text = redact(str(inner if inner is not None else getattr(exc, "message", None) or exc), secrets)
    # "Got more than 16384 bytes when reading b'…'": what was read is cut anywhere, also inside a key that it repeats.
    text = " ".join(text.partition(" when reading")[0].split())[:300]
    return f": {type(inner or exc).__name__}: {text}" if text else f": {type(inner or exc).__name__}"


def _stand_in(exc: BaseException | None, secrets: tuple[str, ...]) -> BaseException | None:
    if exc is None:
        return None
    inner = getattr(exc, "os_error", None) if isinstance(exc, aiohttp.ClientConnectorError) else None
    if isinstance(inner, OSError):
        return inner.with_traceback(None)
    if isinstance(exc, OSError) and not isinstance(exc, aiohttp.ClientError):
        return exc.with_traceback(None)
    text = f"{type(exc).__name__}{_detail(exc, secrets).removeprefix(': ' + type(exc).__name__)}"
    return TimeoutError(text) if isinstance(exc, asyncio.TimeoutError) else ConnectionError(text)
