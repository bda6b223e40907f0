"""
A server on a raw socket, scripted byte by byte, for what no HTTP library would send.

    async def script(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(head(), sse(delta("Hel")))
        conversation.reset()

    async with RawServer(script) as server:
        client = AsyncKimi(api_key="sk-test", base_url=server.base_url)

The script runs once a connection; when it returns, the connection is closed with a FIN. `server.connections` counts what was
opened, `server.requests` lists what was asked, `await server.quiet()` waits until every connection is gone.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl as ssl_module
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Self

END = b"0\r\n\r\n"
"""The chunked body's terminator."""

DONE = b"data: [DONE]\n\n"


def head(
    status: int = 200, *headers: str, kind: str = "text/event-stream", framing: str = "chunked"
) -> bytes:
    """
    A reply's head. `framing`: `chunked`, `close` (the body ends with the connection), or a number for Content-Length.
    """
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", "Msh-Request-Id: rid-1", *headers]
    if framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
    elif framing == "close":
        lines.append("Connection: close")
    else:
        lines.append(f"Content-Length: {framing}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunked(*parts: bytes) -> bytes:
    """Each part as one chunk of a chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)


def event(value: Any) -> bytes:
    """One server-sent event with this value as JSON; bytes are taken as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return b"data: " + data + b"\n\n"


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chat chunk, as Kimi sends it."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1762748041,
        "model": "kimi-k3",
        "choices": [choice],
        **more,
    }


def text(content: str) -> bytes:
    """The event of a chunk with content."""
    return event(chunk({"content": content}))


ROLE = event(chunk({"role": "assistant", "content": ""}))
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
FINISH = event(chunk(finish="stop"))
HELLO = ROLE + text("Hel") + text("lo")
WHOLE = HELLO + FINISH + DONE

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1762748041,
    "model": "kimi-k3",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def reply(
    body: bytes | dict[str, Any] | str, status: int = 200, *headers: str, kind: str = "application/json"
) -> bytes:
    """A whole reply with Content-Length."""
    data = (
        body
        if isinstance(body, bytes)
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    return head(status, *headers, kind=kind, framing=str(len(data))) + data


class Asked:
    """One request, as it came."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Conversation:
    """One connection."""

    def __init__(
        self, server: RawServer, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.number = number
        """0 for the first connection."""
        self.reader = reader
        self.writer = writer

    async def request(self) -> Asked | None:
        """The next request, body included; None when the client has gone."""
        try:
            top = await self.reader.readuntil(b"\r\n\r\n")
            asked = Asked(top[:-4], b"")
            length = int(asked.headers.get("content-length", "0"))
            asked.body = await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self.server.requests.append(asked)
        self.server.told.set()
        return asked

    async def send(self, *data: bytes) -> None:
        """Sends, in one write, and waits until the kernel has taken it."""
        if self.writer.transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self.writer.write(b"".join(data))
        await self.writer.drain()

    async def gone(self) -> None:
        """Waits until the client has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Ends the connection with a RST."""
        if self.writer.transport.is_closing():
            return
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Conversation], Awaitable[None]]


class RawServer:
    """Listens on a free loopback port and plays `script` to every connection."""

    def __init__(self, script: Script, *, ssl: ssl_module.SSLContext | None = None) -> None:
        self.script = script
        self.ssl = ssl
        self.connections = 0
        self.requests: list[Asked] = []
        self.told = asyncio.Event()
        """Set at every request."""
        self.open: set[asyncio.Task[None]] = set()
        self.faults: list[BaseException] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0, ssl=self.ssl, limit=1 << 20)
        return self

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def base_url(self) -> str:
        return f"http{'s' if self.ssl else ''}://127.0.0.1:{self.port}/v1"

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = Conversation(self, self.connections, reader, writer)
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        try:
            await self.script(conversation)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as exc:
            self.faults.append(exc)
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except (OSError, asyncio.CancelledError):
                pass
            self.open.discard(task)

    async def quiet(self, seconds: float = 5.0) -> None:
        """Waits until no connection is open."""
        async with asyncio.timeout(seconds):
            while self.open:
                await asyncio.wait(self.open)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self.open):
            task.cancel()
        if self.open:
            await asyncio.wait(self.open)
        await self._server.wait_closed()
        if self.faults:
            raise self.faults[0]


def every(answer: Callable[[Conversation], Awaitable[None]]) -> Script:
    """A script that answers every request of a connection alike, until the client goes."""

    async def script(conversation: Conversation) -> None:
        while await conversation.request() is not None:
            await answer(conversation)
            if conversation.writer.is_closing():
                return

    return script


def sends(*data: bytes) -> Script:
    """A script that answers every request with these bytes."""

    async def answer(conversation: Conversation) -> None:
        await conversation.send(*data)

    return every(answer)
