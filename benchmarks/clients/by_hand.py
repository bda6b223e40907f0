"""
Clients without a library: what our client is measured against from below.

`raw` is the floor under everything in Python: an `asyncio.Protocol` that takes the transfer coding apart itself.
`floor` is what a good engineer writes for one service: aiohttp, msgspec, one loop. `aiohttp-json` is what people do
write. None of them retries, times out, limits, checks that a stream was complete, or has typed errors.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from benchmarks.clients.base import MESSAGES, MODEL, Peer

__all__ = ["AiohttpJSON", "Floor", "FloorUvloop", "Raw"]


# The same fields as a full client decodes, not only the one that is used: this is the typed decode that
# "hand-written" is allowed to save nothing on.
class Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct, gc=False):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int | None = None


class Choice(msgspec.Struct, gc=False):
    index: int
    delta: Delta
    finish_reason: str | None = None
    usage: Usage | None = None


class Chunk(msgspec.Struct, gc=False):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None
    system_fingerprint: str | None = None


class Message(msgspec.Struct, gc=False):
    role: str
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class Answer(msgspec.Struct, gc=False):
    index: int
    message: Message
    finish_reason: str | None = None


class Completion(msgspec.Struct, gc=False):
    id: str
    object: str
    created: int
    model: str
    choices: list[Answer]
    usage: Usage | None = None


_chunk = msgspec.json.Decoder(Chunk).decode
_completion = msgspec.json.Decoder(Completion).decode
_encode = msgspec.json.Encoder().encode
_AUTHORIZATION = "Bearer sk-bench"
_DONE = b"[DONE]"


def _body(messages: list[dict[str, Any]], stream: bool) -> bytes:
    return _encode({"model": MODEL, "messages": messages, "stream": stream})


class Floor(Peer):
    name = "floor"
    label = "aiohttp + msgspec, by hand: the loop a good engineer writes"
    distribution = "aiohttp"
    also = ("msgspec",)
    imports = "import aiohttp, msgspec"
    makes = "aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))"

    async def open(self) -> None:
        import aiohttp

        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Authorization": _AUTHORIZATION, "Content-Type": "application/json"},
        )
        self.url = self.base + "/v1/chat/completions"
        self.body = _body(MESSAGES, True)

    async def close(self) -> None:
        await self.session.close()

    # The loop stands four times, each with its own innermost lines, because a function call a chunk would be a tenth
    # of what is measured here; nobody who writes such a loop by hand would pay it either.

    async def text(self) -> int:
        size = 0
        async with self.session.post(self.url, data=self.body) as response:
            response.raise_for_status()
            held = b""
            async for data in response.content.iter_any():
                if held:
                    data = held + data
                view = memoryview(data)
                start = 0
                while (end := data.find(b"\n\n", start)) >= 0:
                    event = view[start + 6 : end]
                    start = end + 2
                    if event == _DONE:
                        continue
                    for choice in _chunk(event).choices:
                        text = choice.delta.content
                        if text:
                            size += len(text)
                held = data[start:]
        return size

    async def reasoning(self) -> int:
        size = 0
        async with self.session.post(self.url, data=self.body) as response:
            response.raise_for_status()
            held = b""
            async for data in response.content.iter_any():
                if held:
                    data = held + data
                view = memoryview(data)
                start = 0
                while (end := data.find(b"\n\n", start)) >= 0:
                    event = view[start + 6 : end]
                    start = end + 2
                    if event == _DONE:
                        continue
                    for choice in _chunk(event).choices:
                        text = choice.delta.reasoning_content
                        if text:
                            size += len(text)
                held = data[start:]
        return size

    async def tools(self) -> list[str]:
        joined: list[list[str]] = [[], []]
        async with self.session.post(self.url, data=self.body) as response:
            response.raise_for_status()
            held = b""
            async for data in response.content.iter_any():
                if held:
                    data = held + data
                view = memoryview(data)
                start = 0
                while (end := data.find(b"\n\n", start)) >= 0:
                    event = view[start + 6 : end]
                    start = end + 2
                    if event == _DONE:
                        continue
                    for choice in _chunk(event).choices:
                        for call in choice.delta.tool_calls or ():
                            if call.function is not None and call.function.arguments:
                                joined[call.index].append(call.function.arguments)
                held = data[start:]
        return ["".join(pieces) for pieces in joined]

    async def follow(self, each: Callable[[str], object]) -> None:
        async with self.session.post(self.url, data=self.body) as response:
            response.raise_for_status()
            held = b""
            async for data in response.content.iter_any():
                if held:
                    data = held + data
                view = memoryview(data)
                start = 0
                while (end := data.find(b"\n\n", start)) >= 0:
                    event = view[start + 6 : end]
                    start = end + 2
                    if event == _DONE:
                        continue
                    for choice in _chunk(event).choices:
                        text = choice.delta.content
                        if text:
                            each(text)
                held = data[start:]

    async def helper(self) -> str:
        pieces: list[str] = []
        await self.follow(pieces.append)
        return "".join(pieces)

    async def call(self, messages: list[dict[str, Any]]) -> int:
        async with self.session.post(self.url, data=_body(messages, False)) as response:
            response.raise_for_status()
            completion = _completion(await response.read())
        return len(completion.choices[0].message.content or "")


class FloorUvloop(Floor):
    name = "floor-uvloop"
    label = "the same on uvloop"
    also = ("msgspec", "uvloop")
    loop = "uvloop"


class AiohttpJSON(Peer):
    name = "aiohttp-json"
    label = "aiohttp + json, by hand: lines and dicts, what people do write"
    distribution = "aiohttp"
    imports = "import aiohttp, json"
    makes = "aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))"

    async def open(self) -> None:
        import aiohttp

        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Authorization": _AUTHORIZATION},
        )
        self.url = self.base + "/v1/chat/completions"

    async def close(self) -> None:
        await self.session.close()

    async def _lines(self) -> Any:
        async with self.session.post(
            self.url, json={"model": MODEL, "messages": MESSAGES, "stream": True}
        ) as response:
            response.raise_for_status()
            async for line in response.content:
                line = line.strip()
                if not line.startswith(b"data: "):
                    continue
                data = line[6:]
                if data == _DONE:
                    break
                yield json.loads(data)

    async def text(self) -> int:
        size = 0
        async for chunk in self._lines():
            for choice in chunk["choices"]:
                size += len(choice["delta"].get("content") or "")
        return size

    async def reasoning(self) -> int:
        size = 0
        async for chunk in self._lines():
            for choice in chunk["choices"]:
                size += len(choice["delta"].get("reasoning_content") or "")
        return size

    async def tools(self) -> list[str]:
        joined: list[list[str]] = [[], []]
        async for chunk in self._lines():
            for choice in chunk["choices"]:
                for call in choice["delta"].get("tool_calls") or ():
                    joined[call["index"]].append(call["function"].get("arguments") or "")
        return ["".join(pieces) for pieces in joined]

    async def follow(self, each: Callable[[str], object]) -> None:
        async for chunk in self._lines():
            for choice in chunk["choices"]:
                text = choice["delta"].get("content")
                if text:
                    each(text)

    async def helper(self) -> str:
        text = ""
        async for chunk in self._lines():
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
        return text

    async def call(self, messages: list[dict[str, Any]]) -> int:
        async with self.session.post(self.url, json={"model": MODEL, "messages": messages}) as response:
            response.raise_for_status()
            completion = await response.json()
        return len(completion["choices"][0]["message"]["content"])


class _Wire(asyncio.Protocol):
    """A connection that knows just enough HTTP for this server: a head, then chunks or a body of known length."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.take: Callable[[bytes], object]
        self.done: asyncio.Future[None]
        self._begin()

    def _begin(self) -> None:
        self._held = b""
        self._in_head = True
        self._left = -1  # of a body with a length; -1: chunked

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
            self._held = b""
        at = 0
        if self._in_head:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._held = data
                return
            head = data[:end].lower()
            if not head.startswith(b"http/1.1 200"):
                self.done.set_exception(ConnectionError(head.decode("latin-1")))
                return
            mark = head.find(b"content-length: ")
            if mark >= 0:
                self._left = int(head[mark + 16 :].partition(b"\r")[0])
            self._in_head = False
            at = end + 4
        if self._left >= 0:
            if len(data) - at < self._left:
                self._held = data[at:]
                return
            self.take(data[at:])
            self._finish()
            return
        while True:
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            size = int(data[at:end], 16)
            if size == 0:
                if len(data) < end + 4:
                    break
                self._finish()
                return
            if len(data) < end + 4 + size:
                break
            self.take(data[end + 2 : end + 2 + size])
            at = end + 4 + size
        self._held = data[at:]

    def _finish(self) -> None:
        self._begin()
        self.done.set_result(None)


class Raw(Peer):
    name = "raw"
    label = "asyncio.Protocol + msgspec, by hand: the floor below, callbacks instead of async for"
    distribution = "msgspec"
    imports = "import asyncio, msgspec"
    makes = "None"

    async def open(self) -> None:
        parts = urlsplit(self.base)
        self.host, self.port = parts.hostname, parts.port
        self.path = parts.path + "/v1/chat/completions"
        self.idle: list[_Wire] = []
        self.body = _body(MESSAGES, True)

    async def close(self) -> None:
        for wire in self.idle:
            wire.transport.abort()
        await asyncio.sleep(0)

    async def _exchange(self, body: bytes, take: Callable[[bytes], object]) -> None:
        loop = asyncio.get_running_loop()
        if self.idle:
            wire = self.idle.pop()
        else:
            _, wire = await loop.create_connection(_Wire, self.host, self.port)
        wire.take = take
        wire.done = loop.create_future()
        wire.transport.write(
            b"POST %b HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer sk-bench\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (self.path.encode(), str(self.host).encode(), len(body), body)
        )
        await wire.done
        self.idle.append(wire)

    @staticmethod
    def _events(data: bytes) -> Iterator[Chunk]:
        # This server never cuts an event between two chunks of the transfer coding; the floor may know that.
        view = memoryview(data)
        start = 0
        while (end := data.find(b"\n\n", start)) >= 0:
            event = view[start + 6 : end]
            start = end + 2
            if event != _DONE:
                yield _chunk(event)

    async def text(self) -> int:
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            view = memoryview(data)
            start = 0
            while (end := data.find(b"\n\n", start)) >= 0:
                event = view[start + 6 : end]
                start = end + 2
                if event == _DONE:
                    continue
                for choice in _chunk(event).choices:
                    text = choice.delta.content
                    if text:
                        size += len(text)

        await self._exchange(self.body, take)
        return size

    async def reasoning(self) -> int:
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            for chunk in self._events(data):
                for choice in chunk.choices:
                    size += len(choice.delta.reasoning_content or "")

        await self._exchange(self.body, take)
        return size

    async def tools(self) -> list[str]:
        joined: list[list[str]] = [[], []]

        def take(data: bytes) -> None:
            for chunk in self._events(data):
                for choice in chunk.choices:
                    for call in choice.delta.tool_calls or ():
                        if call.function is not None and call.function.arguments:
                            joined[call.index].append(call.function.arguments)

        await self._exchange(self.body, take)
        return ["".join(pieces) for pieces in joined]

    async def follow(self, each: Callable[[str], object]) -> None:
        def take(data: bytes) -> None:
            for chunk in self._events(data):
                for choice in chunk.choices:
                    text = choice.delta.content
                    if text:
                        each(text)

        await self._exchange(self.body, take)

    async def helper(self) -> str:
        pieces: list[str] = []
        await self.follow(pieces.append)
        return "".join(pieces)

    async def call(self, messages: list[dict[str, Any]]) -> int:
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size = len(_completion(data).choices[0].message.content or "")

        await self._exchange(_body(messages, False), take)
        return size
