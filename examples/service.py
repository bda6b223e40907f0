"""
A web endpoint that relays a stream to a browser, and stops paying when the browser leaves.

    pip install fastapi uvicorn
    python examples/service.py
    curl -N 'http://127.0.0.1:8000/ask?question=Why+do+rivers+bend'
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from kimi_async import APIError, AsyncKimi, AsyncStream
from kimi_async.types import ChatCompletionChunk


# One client for the whole service: it holds the connections, and the limits that all requests share.
@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncKimi() as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


class Relay(StreamingResponse):
    """
    A stream's text, and the end of the stream when the browser has it all or has left.

    Not in the generator: it may be waiting at its `yield` for a slow browser, where nobody tells it that the browser has gone.
    """

    def __init__(self, stream: AsyncStream[ChatCompletionChunk]) -> None:
        self.stream = stream
        super().__init__(self.text(), media_type="text/plain; charset=utf-8")

    async def text(self) -> AsyncIterator[str]:
        async for chunk in self.stream:
            if chunk.choices and (content := chunk.choices[0].delta.content):
                yield content

    async def __call__(self, *scope_receive_send: Any) -> None:
        async with self.stream:
            await super().__call__(*scope_receive_send)


@app.get("/ask")
async def ask(question: str) -> Relay:
    client: AsyncKimi = app.state.client
    try:
        return Relay(
            await client.chat.completions.create(
                model="kimi-k3", messages=[{"role": "user", "content": question}], stream=True
            )
        )
    except APIError as error:
        # Nothing has been sent yet, so the browser can still be told properly.
        raise HTTPException(503, error.message) from error


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
