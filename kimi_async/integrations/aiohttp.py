"""
A streamed answer as the response of an `aiohttp.web` service.

    from kimi_async.integrations.aiohttp import EventStreamResponse

    async def chat(request: web.Request) -> EventStreamResponse:
        messages = (await request.json())["messages"]
        return EventStreamResponse(client.chat.completions.create(model="kimi-k3", messages=messages, stream=True))

Needs no extra: aiohttp is there.
"""

from collections.abc import Mapping
from typing import Unpack

import anyio
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from .relaying import HEADERS, Relay, RelayEnd, RelayOptions, RelaySource

__all__ = ["EventStreamResponse", "RelayEnd", "RelayOptions"]

# aiohttp tells a handler that its reader has left only where it writes, or cancels it where the server was made with
# `handler_cancellation`. In silence the connection is looked at so often (seconds).
LOOK = 1.0


class EventStreamResponse(web.StreamResponse):
    """
    Hands a stream of chats on to the reader, as server-sent events. To be returned from a handler, as any response.

    What it does, and what `source` is, is said at
    `kimi_async.integrations.starlette.EventStreamResponse`. In silence it takes up to a second until a reader that has left is
    noticed; with `web.AppRunner(app, handler_cancellation=True)` no time at all.
    """

    def __init__(
        self,
        source: RelaySource,
        *,
        status: int = 200,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Unpack[RelayOptions],
    ) -> None:
        kind = {"Content-Type": "text/event-stream; charset=utf-8"}
        super().__init__(status=status, reason=reason, headers={**kind, **HEADERS, **(headers or {})})
        self._relay = Relay(source, **options)
        self._runs = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        # As aiohttp's own FileResponse: what is sent is sent here, so that a handler has only to return it.
        if not self._runs:
            self._runs = True
            wire = _AiohttpWire(self, request)
            await (self._relay.head(wire) if request.method == "HEAD" else self._relay.run(wire))
            if self._relay.left:
                raise ConnectionResetError("the reader has left")  # aiohttp's word for it: nothing is logged
        return await super().prepare(request)


class _AiohttpWire:
    def __init__(self, response: EventStreamResponse, request: web.BaseRequest) -> None:
        self._response = response
        self._request = request
        self.write = response.write

    async def begin(self) -> None:
        await self._response.prepare(self._request)

    async def refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        response = self._response
        response.set_status(status)
        response.content_type = "application/json"
        response.content_length = len(body)
        response.headers.update(headers)
        await self.begin()
        await response.write_eof(body)

    async def end(self) -> None:
        await self._response.write_eof()

    async def gone(self) -> None:
        while (transport := self._request.transport) is not None and not transport.is_closing():  # noqa: ASYNC110 - nothing rings
            await anyio.sleep(LOOK)
