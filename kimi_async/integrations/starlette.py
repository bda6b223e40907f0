"""
A streamed answer as the response of a Starlette or FastAPI service.

    from kimi_async.integrations.starlette import EventStreamResponse

    @app.post("/chat")
    async def chat(question: Question) -> EventStreamResponse:
        return EventStreamResponse(client.chat.completions.create(model="kimi-k3", messages=question.messages, stream=True))

Needs no extra: who has Starlette has all of it.
"""

from collections.abc import Mapping
from typing import Unpack

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .relaying import HEADERS, Relay, RelayEnd, RelayOptions, RelaySource

__all__ = ["EventStreamResponse", "RelayEnd", "RelayOptions"]


class EventStreamResponse(Response):
    """
    Hands a stream of chats on to the reader, as server-sent events.

    Events go out as they came, not encoded again, and are watched: an error or a cut inside the stream becomes an event `data: {"error": {"message": …, "type": …, "code": …}}`, the last one, without `[DONE]` after it. A
    stream with `resume=` or `leaked_tools="mend"` is decoded, mended and encoded again.

    When the reader leaves, the request to the model is closed, also while the model is silent or has not begun.

    :param source: the call that opens the stream, not awaited: `create(..., stream=True)`. It is awaited before the response
        starts, so that a refusal has its status, with the error as JSON: 400, 413 and 422 with the host's words; 503 with
        `Retry-After` where the model is busy; 504 where it took too long; 502 for everything else that is no fault of the
        reader's. Or an open `AsyncStream`, whose refusals were yours.
    :param options: `keep_alive`, `tell` and `on_end`, see `RelayOptions`.
    :param background: as for any response: run when all is over.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: RelaySource,
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
        **options: Unpack[RelayOptions],
    ) -> None:
        # Not super().__init__: it would set a body, and the length of it.
        self.status_code = status_code
        self.background = background
        self.init_headers({**HEADERS, **(headers or {})})
        self._relay = Relay(source, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = _ASGIWire(self, receive, send)
        await (self._relay.head(wire) if scope["method"] == "HEAD" else self._relay.run(wire))
        if self.background is not None:
            await self.background()


class _ASGIWire:
    def __init__(self, response: EventStreamResponse, receive: Receive, send: Send) -> None:
        self._response = response
        self._receive = receive
        self._send = send

    async def begin(self) -> None:
        response = self._response
        await self._send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": response.raw_headers,
            }
        )

    async def refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        response = self._response
        response.status_code = status
        response.headers.update({"content-type": "application/json", "content-length": str(len(body))})
        response.headers.update(headers)
        await self.begin()
        await self._send({"type": "http.response.body", "body": body})

    async def write(self, data: bytes, /) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
