"""
An embedded Kimi server on loopback, for tests, demonstrations and benchmarks.

    async with KimiSimulator() as sim:
        client = AsyncKimi(base_url=sim.base_url, api_key=sim.api_key)

It answers like the official host: the same paths, bodies, headers, errors and order of chunks; see `service` for
the behaviour and `replies` for the bytes. The text of an answer is a function of the conversation. What a test wants
to know afterwards is in `sim.stats` and `sim.requests`; how to make the server misbehave is in `faults`.

Replies are written on the socket by hand rather than through aiohttp's response classes: a server that can cut a
chunk in half must own its bytes, and a plain write costs a third of `StreamResponse.write`.

`kimi-async simulate --help` runs it alone.
"""

import asyncio
import ipaddress
import math
import socket
import ssl as ssl_module
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import formatdate
from http import HTTPStatus
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict

from ...errors import ConfigurationError
from ...providers.models import ModelInfo
from ...resources.threads import to_the_end
from ..faults import FaultEntry, FaultPlan
from .chat_model import Turn
from .models import MODELS
from .records import RecordedRequest, SimulatorStats
from .replies import ACCOUNT, Account, Answer, End, Head, Pace, Pause, Raw, Refusal, Send, Step
from .server_limits import ServerLedger, ServerLimits
from .service import KimiService, Responder, Scripted
from .storage import Storage, add_routes

__all__ = ["KimiSimulator", "Pace", "RecordedRequest", "Refusal", "SimulatorStats", "Turn"]


# Each request is handled in a task of its own, so this is the request's own record.
_record: ContextVar[RecordedRequest] = ContextVar("kimi_async_simulator_record")


class KimiSimulator:
    """
    The server; an async context manager. `base_url` ends in `/v1`.

    `pace` shapes the timing of replies. `words` is the least and greatest length of an answer, `seed` changes
    every text. `limits` (a tier's name, `ServerLimits`, or a `ServerLedger`) refuses requests as Kimi does. `faults`
    (a `FaultPlan` or its entries) makes replies fail. `ssl` is a server-side context, for https. `keep_requests` bounds
    `requests`; `on_finished` is called with each when its reply has ended, however. Port 0 lets the system choose.

    Its key is known to everybody, and it reads whatever it is sent: a `host` that other machines can reach is refused
    with `ConfigurationError`, unless `exposed=True` says that it is meant.

    It serves on the running loop: no thread, no subprocess (but see `in_thread`).
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str = "sk-simulator",
        seed: int = 0,
        pace: Pace | None = None,
        models: Sequence[ModelInfo] = MODELS,
        account: Account = ACCOUNT,
        words: tuple[int, int] = (40, 120),
        responder: Responder | None = None,
        limits: ServerLedger | ServerLimits | str | None = None,
        faults: FaultPlan | Iterable[FaultEntry] | None = None,
        ssl: ssl_module.SSLContext | None = None,
        keep_requests: int = 1_000,
        exposed: bool = False,
        strict_history: bool = False,
        on_finished: Callable[[RecordedRequest], None] | None = None,
    ) -> None:
        if not isinstance(host, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"host must be a string such as '127.0.0.1', not {type(host).__name__}")
        if not exposed and not _is_loopback(host):
            raise ConfigurationError(
                f"host={host!r} can be reached from other machines, and the simulator's key is known to everybody; "
                "pass exposed=True (--exposed) if that is meant"
            )
        self.service: KimiService = KimiService(
            api_key=api_key,
            seed=seed,
            pace=pace,
            models=models,
            account=account,
            words=words,
            responder=responder,
            limits=limits,
            faults=faults,
            wall=time.time,
            strict_history=strict_history,
        )
        self.host = host
        self.port: int = port
        self.requests: deque[RecordedRequest] = deque(maxlen=keep_requests)
        self.stats: SimulatorStats = SimulatorStats(rejected=self.service.rejected)
        self._wanted_port = port
        self._on_finished = on_finished
        self._ssl = ssl
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._date = (0, "")
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def api_key(self) -> str:
        return self.service.api_key

    @property
    def base_url(self) -> str:
        """`http://host:port/v1`; the port is known once the server has started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self._ssl is None else 'https'}://{host}:{self.port}/v1"

    @property
    def storage(self) -> Storage:
        """Files and batches; batches are answered by the same model as chat."""
        return self.service.storage

    @property
    def limits(self) -> ServerLedger | None:
        """The ledger of limits, with its counters; `limits.change(...)` works while the server runs."""
        return self.service.limits

    @property
    def faults(self) -> FaultPlan | None:
        """The plan in force; assign another at any time."""
        return self.service.faults

    @faults.setter
    def faults(self, plan: FaultPlan | Iterable[FaultEntry] | None) -> None:
        self.service.faults = plan if plan is None or isinstance(plan, FaultPlan) else FaultPlan(plan)

    def say(self, *turns: Turn | str | Refusal) -> None:
        """Answer the next chat requests with these, in order, instead of the usual text."""
        self.service.queue.extend(Turn(turn) if isinstance(turn, str) else turn for turn in turns)

    async def until(self, reached: Callable[[SimulatorStats], bool]) -> None:
        """
        Wait until the counters satisfy `reached`; it is asked whenever a request or a connection begins or ends.

            await sim.until(lambda stats: stats.in_flight == 0)

        It may be called from another loop than the simulator's. It waits without end: bound it with `asyncio.timeout`.
        """
        serving = self._loop
        if serving is None or serving is asyncio.get_running_loop():
            await self._until(reached)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._until(reached), serving))

    async def _until(self, reached: Callable[[SimulatorStats], bool]) -> None:
        while not reached(self.stats):
            self._changed.clear()
            await self._changed.wait()

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. RuntimeError if it already does."""
        if self._server is not None:
            raise RuntimeError(f"the simulator already listens on {self.base_url}")
        starting = asyncio.ensure_future(self._start())
        try:
            await to_the_end(starting)
        except asyncio.CancelledError:
            await self.close()
            raise
        starting.result()

    async def _start(self) -> None:
        self._loop = asyncio.get_running_loop()

        @web.middleware
        async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._observe(request, handler)

        # The service refuses what is too large, in its own words.
        app = web.Application(client_max_size=1 << 40, middlewares=[observe])
        add_routes(app, self._refused, self.storage)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # A handler must learn that its client has gone: stalls end then, and slots are given back.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, keepalive_timeout=3600.0
        )
        await self._runner.setup()
        # 4,096 is what Linux allows by default: thousands of clients connect in one burst.
        self._server = await self._loop.create_server(
            self._protocol, self.host, self._wanted_port, backlog=4096, ssl=self._ssl
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection, replies in progress included; also when cancelled. Idempotent."""
        closing = asyncio.ensure_future(self._close())
        await to_the_end(closing)
        closing.result()

    async def _close(self) -> None:
        server, runner = self._server, self._runner
        self._server = self._runner = None
        if server is None or runner is None:
            return
        server.close()
        inner = runner.server
        for protocol in inner.connections if inner is not None else ():
            protocol.force_close()
        await runner.cleanup()
        await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @contextmanager
    def in_thread(self) -> Generator[Self]:
        """
        Serve from a thread with a loop of its own: for synchronous tests, or a loop that is not to be shared.

        Counters may be read and `say`, `faults` and `limits` used from any thread.
        """
        ready: Future[None] = Future()
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()

        async def serve() -> None:
            try:
                await self.start()
            except BaseException as error:
                ready.set_exception(error)
                return
            ready.set_result(None)
            await stop.wait()
            await self.close()

        def run() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())

        thread = threading.Thread(target=run, name="KimiSimulator", daemon=True)
        thread.start()
        try:
            ready.result()
            yield self
        finally:
            if ready.exception() is None:
                loop.call_soon_threadsafe(stop.set)
            thread.join()

    def _protocol(self) -> asyncio.Protocol:
        assert self._runner is not None
        assert self._runner.server is not None
        protocol = self._runner.server()
        stats = self.stats
        stats.connections_opened += 1
        stats.connections_open += 1
        self._changed.set()
        return _Counted(protocol, stats, self._changed)

    # --- one request ------------------------------------------------------------------------------------

    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every request: the books, and the faults for replies that aiohttp's classes carry (files, batches)."""
        loop = asyncio.get_running_loop()
        stats = self.stats
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        record = RecordedRequest(
            ordinal=stats.requests,
            method=request.method,
            path=request.path_qs,
            headers=CIMultiDict(request.headers),
            at=loop.time(),
            connection=peer[1] if peer else 0,
        )
        _record.set(record)
        self.requests.append(record)
        stats.requests += 1
        stats.by_path[f"{request.method} {request.path}"] += 1
        stats.bytes_received += request.content_length or 0
        stats.in_flight += 1
        stats.peak_in_flight = max(stats.peak_in_flight, stats.in_flight)
        self._changed.set()
        try:
            response = await handler(request)
            if isinstance(response, web.Response) and isinstance(response.body, bytes):
                if request.content_type == "application/json":
                    record.body = await request.read()
                answer = Answer(response.status, list(response.headers.items()), response.body)
                response = await self._carry_out(
                    request, self.service.scripted(answer, request.method, request.path, record.body)
                )
            if not isinstance(response, _Sent):
                record.status = response.status
            record.finished = True
            return response
        except ConnectionError:
            # Not raised on: aiohttp may have cancelled whoever would have taken it, and asyncio would log it.
            record.client_gone = True
            stats.clients_gone += 1
            return _Sent(False)
        except asyncio.CancelledError:
            record.client_gone = True
            stats.clients_gone += 1
            raise
        finally:
            stats.in_flight -= 1
            stats.by_status[record.status] += 1
            self._changed.set()
            if self._on_finished is not None:
                self._on_finished(record)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        """Everything but files and batches."""
        body = _record.get().body = await request.read()
        now = asyncio.get_running_loop().time()
        scripted = self.service.reply(request.method, request.raw_path, request.headers, body, now)
        try:
            return await self._carry_out(request, scripted)
        finally:
            if scripted.answer.closing is not None:
                scripted.answer.closing()

    async def _carry_out(self, request: web.Request, scripted: Scripted) -> web.StreamResponse:
        record = _record.get()
        record.faults = scripted.faults
        self.stats.faults.update(scripted.faults)
        return _Sent(await self._play(request, scripted.steps, record))

    def _refused(self, request: web.Request) -> web.StreamResponse | None:
        refusal = self.service.check_key(request.headers)
        if refusal is None:
            return None
        answer = self.service.refuse(refusal)
        return web.Response(status=answer.status, body=answer.body, headers=CIMultiDict(answer.headers))

    async def _play(self, request: web.Request, steps: Iterable[Step], record: RecordedRequest) -> bool:
        """Carry out the steps on the socket; True if the connection can serve another request."""
        loop = asyncio.get_running_loop()
        stats, transport, writer = self.stats, request.transport, request.writer
        if transport is None:
            raise ConnectionResetError("the client left before the reply")
        keep_alive = request.keep_alive
        chunked = False
        held = b""  # a head that waits for its body: a short reply is one write, as servers do
        due = loop.time()
        writes = 0
        for step in steps:
            if transport.is_closing():
                # Writing on would only make asyncio log a warning per write until the loop turns.
                raise ConnectionResetError("the client left inside the reply")
            if isinstance(step, Send):
                data = b"%x\r\n%b\r\n" % (len(step.data), step.data) if chunked else step.data
                transport.write(held + data if held else data)
                held = b""
                stats.bytes_sent += len(data)
                stats.events_sent += step.events
                record.events += step.events
                writes += 1
                await writer.drain()
                if writes % 16 == 0:
                    # drain() does not yield unless the buffer is full; others want to speak too.
                    await asyncio.sleep(0)
            elif isinstance(step, Pause):
                if held:
                    transport.write(held)
                    held = b""
                if step.seconds == math.inf:
                    await loop.create_future()  # until the client goes away: then we are cancelled
                now = loop.time()
                # A beat is held against the schedule, not from now, so that a busy loop does not slow the pace
                # down; but what a slow reader held up for long is not made up for in one burst.
                due = (max(due, now - 1.0) if step.tempo else now) + step.seconds
                if due > now:
                    await asyncio.sleep(due - now)
            elif isinstance(step, Head):
                chunked = step.framing == "chunked"
                keep_alive = keep_alive and step.framing != "close"
                record.status = step.status
                held = self._head(step, keep_alive)
                if step.trickle > 0:
                    begun = loop.time()
                    for position in range(len(held)):
                        transport.write(held[position : position + 1])
                        ahead = begun + step.trickle * (position + 1) / len(held) - loop.time()
                        await asyncio.sleep(max(0.0, ahead))
                    held = b""
                if chunked and held:
                    transport.write(held)
                    stats.bytes_sent += len(held)
                    held = b""
            elif isinstance(step, Raw):
                transport.write(held + step.data)
                held = b""
                stats.bytes_sent += len(step.data)
                await writer.drain()
            elif isinstance(step, End):
                tail = held + (b"0\r\n\r\n" if chunked else b"")
                if tail:
                    transport.write(tail)
                if step.close_after is not None:
                    loop.call_later(step.close_after, transport.close)
                return keep_alive
            else:
                if held:
                    transport.write(held)
                if step.how == "rst":
                    _reset(transport)
                else:
                    transport.close()
                return False
        return False

    def _head(self, head: Head, keep_alive: bool) -> bytes:
        now = int(time.time())
        if now != self._date[0]:
            self._date = (now, formatdate(now, usegmt=True))
        lines = [f"HTTP/1.1 {head.status} {_reason(head.status)}", f"Date: {self._date[1]}"]
        lines += [f"{name}: {value}" for name, value in head.headers]
        if head.framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
        elif head.framing == "length":
            lines.append(f"Content-Length: {head.length}")
        if not keep_alive:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class _Counted(asyncio.Protocol):
    """Passes everything on to aiohttp's protocol and counts the connection out when it is lost."""

    def __init__(self, inner: asyncio.Protocol, stats: SimulatorStats, changed: asyncio.Event) -> None:
        self._inner = inner
        self._stats = stats
        self._changed = changed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stats.connections_open -= 1
        self._changed.set()
        self._inner.connection_lost(exc if isinstance(exc, Exception) else None)


class _Sent(web.StreamResponse):
    """Tells aiohttp that the reply is on its way already."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name other than localhost may be anybody's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.localdomain")


def _reset(transport: asyncio.Transport) -> None:
    """Close with RST: linger for no time, then drop."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
