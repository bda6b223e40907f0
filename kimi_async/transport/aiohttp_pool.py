"""
The transport of every day: aiohttp's connections, one session per event loop.

This is the only module that opens connections with aiohttp.

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
import re
import socket
import ssl as ssl_module
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
from aiohttp import hdrs
from yarl import URL

from ..errors import (
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    KimiError,
    RedirectRefusedError,
)
from ..redact import bare, redact_url
from . import leavings
from .aiohttp_body import ReplyBody
from .aiohttp_faults import PHASE, proxy_wants_a_password, translated
from .aiohttp_patches import AT_ONCE, Connection, Reply, Straight, reused, straight
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
            PHASE.set("tls")
            return Connection(loop)

        self._factory = cast("Any", connected)

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        PHASE.set("connect")
        connection = await super().connect(req, traces, timeout)
        protocol = cast("Connection", connection.protocol)
        reused.set(protocol.used)
        protocol.begin()
        return connection

    async def _resolve_host(self, host: str, port: int, traces: Any = None) -> Any:
        PHASE.set("dns")
        found = await super()._resolve_host(host, port, traces)
        PHASE.set("connect")
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
        return translated(fault, request, "headers", elapsed)

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
                PHASE.set("connect")
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
                raise proxy_wants_a_password(request, asyncio.get_running_loop().time() - started)
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
        body = ReplyBody(reply, request, loop, started, self)
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
