"""
A client of the simulator that is a socket: it hides nothing and forgives nothing.
"""

import asyncio
import json
from typing import Any

from kimi_async.sse import SSEDecoder
from kimi_async.testing.faults import (
    Fault,
    FaultEntry,
    FaultPlan,
)
from kimi_async.testing.simulator.chat_model import think
from kimi_async.testing.simulator.models import MODELS
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.transport.exchange import Headers

__all__ = ["TEXT", "TOOL", "USER", "Seen", "ask", "body", "calls"]


USER = [{"role": "user", "content": "Tell me about the moon."}]
TEXT = think(MODELS[2], {"messages": USER}).content
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def body(**options: Any) -> bytes:
    return json.dumps({"model": "kimi-k3", "messages": USER, "stream": True, **options}).encode()


class Seen:
    """All that came over one connection, taken apart as far as it goes."""

    def __init__(self, raw: bytes, ending: str, seconds: float) -> None:
        self.raw, self.ending, self.seconds = raw, ending, seconds
        head, _, rest = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1]) if lines[0].startswith("HTTP/1.1 ") else 0
        self.headers = Headers(line.split(": ", 1) for line in lines[1:] if ": " in line)
        self.sizes: list[int] = []
        self.complete = False  # the body ended as HTTP wants it
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._dechunk(rest)
        else:
            self.body = rest
            self.complete = len(rest) == int(self.headers.get("Content-Length", "-1"))

    def _dechunk(self, rest: bytes) -> bytes:
        found = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            try:
                length = int(size, 16)
            except ValueError:
                break
            if length == 0:
                self.complete = rest == b"\r\n"
                break
            self.sizes.append(length)
            found += rest[:length]
            if len(rest) < length + 2:
                break
            rest = rest[length + 2 :]
        return found

    @property
    def data(self) -> list[bytes]:
        decoder = SSEDecoder()
        return [bytes(event.data) for event in decoder.feed(self.body)]

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(data) for data in self.data if data != b"[DONE]"]

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.chunks for choice in chunk["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def calls(self) -> list[Any]:
        choices = [choice for chunk in self.chunks for choice in chunk["choices"]]
        return [call for choice in choices for call in choice["delta"].get("tool_calls") or ()]


async def ask(
    sim: KimiSimulator, *faults: FaultEntry, sent: bytes | None = None, limit: int = 1 << 30
) -> Seen:
    """One request over a fresh connection, read until the server ends it (at most `limit` bytes)."""
    if faults:
        sim.faults = FaultPlan(faults)
    loop = asyncio.get_running_loop()
    started = loop.time()
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    payload = body() if sent is None else sent
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer sk-simulator\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(payload), payload)
    )
    raw, ending = b"", "fin"
    try:
        while len(raw) < limit and (data := await reader.read(1 << 20)):
            raw += data
        if len(raw) >= limit:
            ending = "limit"
    except ConnectionResetError:
        ending = "rst"
    writer.close()
    return Seen(raw, ending, loop.time() - started)


async def calls(sim: KimiSimulator, fault: Fault) -> Seen:
    messages = [{"role": "user", "content": "Weather in Beijing and Shanghai?"}]
    return await ask(sim, fault, sent=body(messages=messages, tools=[TOOL]))
