"""
`openai`, with both of its HTTP back ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from benchmarks.clients.base import MESSAGES, MODEL, openai_consumers

__all__ = ["OpenAI", "OpenAIAiohttp"]


class OpenAI(openai_consumers):
    name = "openai"
    label = "AsyncOpenAI, httpx2 back end (its default), connection limit lifted"
    distribution = "openai"
    also = ("httpx2",)
    generated = True
    heavy = 5
    imports = "from openai import AsyncOpenAI"
    makes = "AsyncOpenAI(api_key='sk-bench', base_url=URL)"

    def http_client(self) -> Any:
        import httpx2
        from openai import DefaultAsyncHttpx2Client

        # Its default of 1,000 connections would queue the workloads with more streams.
        return DefaultAsyncHttpx2Client(
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100)
        )

    async def open(self) -> None:
        from openai import AsyncOpenAI

        self.client = AsyncOpenAI(
            api_key="sk-bench", base_url=self.base + "/v1", max_retries=0, http_client=self.http_client()
        )

    async def close(self) -> None:
        await self.client.close()

    async def chunks(self) -> AsyncIterable[Any]:
        return await self.client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)  # type: ignore[call-overload,no-any-return]

    async def helper(self) -> str:
        async with self.client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:  # type: ignore[arg-type]
            async for _ in stream:
                pass
            completion = await stream.get_final_completion()
        return completion.choices[0].message.content or ""

    async def call(self, messages: list[dict[str, Any]]) -> int:
        completion = await self.client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
        return len(completion.choices[0].message.content or "")


class OpenAIAiohttp(OpenAI):
    name = "openai-aiohttp"
    label = "AsyncOpenAI, aiohttp back end (what its README advises for concurrency)"
    also = ("aiohttp", "httpx2")
    makes = "AsyncOpenAI(api_key='sk-bench', base_url=URL, http_client=DefaultAioHttpClient())"
    imports = "from openai import AsyncOpenAI, DefaultAioHttpClient"

    def http_client(self) -> Any:
        import httpx2
        from openai import DefaultAioHttpClient

        # `max_connections=None` would give aiohttp's own default, 100, here.
        return DefaultAioHttpClient(
            limits=httpx2.Limits(max_connections=100_000, max_keepalive_connections=100)
        )
