"""
A chat in the browser: answers appear as they are written, and Kimi stops writing when the person presses Stop or leaves.

    pip install fastapi uvicorn && python examples/service.py   # then open http://127.0.0.1:8000
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from kimi_async import AsyncKimi
from kimi_async.integrations.starlette import EventStreamResponse


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


@app.post("/chat")
async def chat(conversation: Conversation) -> EventStreamResponse:
    client: AsyncKimi = app.state.client
    messages: Any = conversation.messages  # with the reasoning, as it came: the model reads what it thought
    # Not awaited here: the response does it, and stops the model when the browser leaves, before the first word as well.
    return EventStreamResponse(
        client.chat.completions.create(model="kimi-k3", messages=messages, stream=True)
    )


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(os.path.join(os.path.dirname(__file__), "service.html"))


if __name__ == "__main__":
    # Ctrl-C does not wait for answers that are being written.
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), timeout_graceful_shutdown=1)
