"""
A chat in the browser: answers appear as they are written, and Kimi stops writing when the person presses Stop or leaves.

    pip install fastapi uvicorn && python examples/service.py   # then open http://127.0.0.1:8000
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from kimi_async import APIError, AsyncKimi, AsyncStream
from kimi_async.types import ChatCompletionChunk


# One client for the whole service: it holds the connections, and the limits that all requests share.
@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncKimi() as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


class Conversation(BaseModel):
    messages: list[dict[Literal["role", "content", "reasoning_content"], str]] = Field(
        min_length=1, max_length=200
    )


class Relay(StreamingResponse):
    """A stream as server-sent events, and the end of the stream when the browser has it all or has left."""

    def __init__(self, stream: AsyncStream[ChatCompletionChunk]) -> None:
        self.stream = stream
        # Of text/plain a browser collects a kilobyte to guess what it is, and shows nothing meanwhile.
        super().__init__(self.events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def events(self) -> AsyncIterator[str]:
        try:
            async for chunk in self.stream:
                for choice in chunk.choices:
                    delta = {"reasoning": choice.delta.reasoning_content, "content": choice.delta.content}
                    if told := {name: text for name, text in delta.items() if text}:
                        yield f"data: {json.dumps(told)}\n\n"
        except APIError as error:
            yield f"data: {json.dumps({'error': error.message})}\n\n"

    async def __call__(self, *scope_receive_send: Any) -> None:
        # Not in the generator: it may wait at its `yield` for a slow browser, where nobody tells it that the browser left.
        async with self.stream:
            await super().__call__(*scope_receive_send)


@app.post("/chat")
async def chat(conversation: Conversation) -> Relay:
    client: AsyncKimi = app.state.client
    messages: Any = conversation.messages  # with the reasoning, as it came: the model reads what it thought
    try:
        return Relay(await client.chat.completions.create(model="kimi-k3", messages=messages, stream=True))
    except APIError as error:
        raise HTTPException(503, error.message) from error  # nothing has been sent yet: a proper status


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(os.path.join(os.path.dirname(__file__), "service.html"))


if __name__ == "__main__":
    # Ctrl-C does not wait for answers that are being written.
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), timeout_graceful_shutdown=1)
