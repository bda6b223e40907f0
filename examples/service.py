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

from kimi_async import APIError, AsyncKimi


# One client for the whole service: it holds the connections, and the limits that all requests share.
@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with AsyncKimi() as client:
        app.state.client = client
        yield {}


app = FastAPI(lifespan=lifespan)


@app.get("/ask")
async def ask(question: str) -> StreamingResponse:
    client: AsyncKimi = app.state.client
    try:
        stream = await client.chat.completions.create(
            model="kimi-k3", messages=[{"role": "user", "content": question}], stream=True
        )
    except APIError as error:
        # Nothing has been sent yet, so the browser can still be told properly.
        raise HTTPException(503, error.message) from error

    async def text() -> AsyncIterator[str]:
        # When the browser leaves, this generator is cancelled, `async with` closes the stream, and Kimi stops writing.
        async with stream:
            async for chunk in stream:
                if chunk.choices and (content := chunk.choices[0].delta.content):
                    yield content

    return StreamingResponse(text(), media_type="text/plain; charset=utf-8")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
