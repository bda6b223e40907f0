"""
Other clients that people point at Kimi, or would.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Callable
from typing import Any, ClassVar

from benchmarks.clients.base import MESSAGES, MODEL, Peer, Unsupported, openai_consumers

__all__ = ["Groq", "KimiAgents", "LiteLLM", "Mistral"]


class Groq(openai_consumers):
    name = "groq"
    label = "AsyncGroq: a further SDK of the same generator"
    distribution = "groq"
    also = ("httpx",)
    generated = True
    heavy = 5
    imports = "from groq import AsyncGroq"
    makes = "AsyncGroq(api_key='sk-bench', base_url=URL)"

    async def open(self) -> None:
        import httpx
        from groq import AsyncGroq, DefaultAsyncHttpxClient

        self.client = AsyncGroq(
            api_key="sk-bench",
            base_url=self.base,
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=100)
            ),
        )

    async def close(self) -> None:
        await self.client.close()

    async def chunks(self) -> AsyncIterable[Any]:
        return await self.client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)

    async def call(self, messages: list[dict[str, Any]]) -> int:
        completion = await self.client.chat.completions.create(model=MODEL, messages=messages)
        return len(completion.choices[0].message.content or "")


class Mistral(openai_consumers):
    name = "mistralai"
    label = "Mistral: an SDK of another generator"
    distribution = "mistralai"
    also = ("httpx2",)
    generated = True
    heavy = 20
    imports = "from mistralai.client import Mistral"
    makes = "Mistral(api_key='sk-bench', server_url=URL)"

    async def open(self) -> None:
        import httpx2
        from mistralai.client import Mistral as SDK

        # As its own default but for the limits, which would queue all but 100 streams.
        self.http = httpx2.AsyncClient(
            follow_redirects=True,
            timeout=300,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
        )
        self.client = SDK(api_key="sk-bench", server_url=self.base, async_client=self.http)
        await self.client.__aenter__()

    async def close(self) -> None:
        await self.client.__aexit__(None, None, None)
        await self.http.aclose()

    async def _data(self) -> AsyncIterable[Any]:
        async with await self.client.chat.stream_async(model=MODEL, messages=MESSAGES) as stream:
            async for event in stream:
                yield event.data

    async def chunks(self) -> AsyncIterable[Any]:
        return self._data()

    async def reasoning(self) -> int:
        raise Unsupported("its chunks have no reasoning_content")

    async def call(self, messages: list[dict[str, Any]]) -> int:
        completion = await self.client.chat.complete_async(model=MODEL, messages=messages)
        return len(completion.choices[0].message.content or "")


class LiteLLM(openai_consumers):
    name = "litellm"
    label = "litellm.acompletion, moonshot provider, its local cost map"
    distribution = "litellm"
    generated = True
    heavy = 20
    environment: ClassVar[dict[str, str]] = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        # 0 would give aiohttp's own default, 100.
        "AIOHTTP_CONNECTOR_LIMIT": "100000",
        "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "100000",
    }
    imports = "from litellm import acompletion"
    makes = "None"

    async def open(self) -> None:
        import litellm

        litellm.suppress_debug_info = True
        litellm.telemetry = False
        self.module = litellm
        self.settings = {
            "model": "moonshot/" + MODEL,
            "api_base": self.base + "/v1",
            "api_key": "sk-bench",
            "max_retries": 0,
        }

    async def close(self) -> None:
        closing = getattr(self.module, "close_litellm_async_clients", None)
        if closing is not None:
            await closing()

    async def chunks(self) -> AsyncIterable[Any]:
        return await self.module.acompletion(messages=MESSAGES, stream=True, **self.settings)  # type: ignore[no-any-return]

    async def helper(self) -> str:
        chunks = [chunk async for chunk in await self.chunks()]
        return self.module.stream_chunk_builder(chunks).choices[0].message.content or ""  # type: ignore[no-any-return]

    async def call(self, messages: list[dict[str, Any]]) -> int:
        completion = await self.module.acompletion(messages=messages, **self.settings)
        return len(completion.choices[0].message.content or "")


class KimiAgents(openai_consumers):
    name = "kimi-agents"
    label = "kimi-agents-python: httpx and pydantic, for Kimi (Python 3.12 and later)"
    distribution = "kimi-agents-python"
    also = ("httpx",)
    heavy = 2
    imports = "from kimi_agents_python import AsyncKimiClient"
    makes = "AsyncKimiClient(api_key='sk-bench', base_url=URL)"

    @classmethod
    def missing(cls) -> str | None:
        if sys.version_info < (3, 12):
            return "kimi-agents-python needs Python 3.12"
        return Peer.missing.__func__(cls)  # type: ignore[attr-defined,no-any-return]

    async def open(self) -> None:
        import httpx
        from kimi_agents_python import NO_RETRY, AsyncKimiClient

        self.client = AsyncKimiClient(
            api_key="sk-bench",
            base_url=self.base + "/v1",
            retries=NO_RETRY,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
        )
        await self.client.__aenter__()

    async def close(self) -> None:
        await self.client.__aexit__(None, None, None)

    async def chunks(self) -> AsyncIterable[Any]:
        return await self.client.chat.create(model=MODEL, messages=MESSAGES, stream=True)

    async def call(self, messages: list[dict[str, Any]]) -> int:
        completion = await self.client.chat.create(model=MODEL, messages=messages)
        return len(completion.choices[0].message.content or "")

    async def follow(self, each: Callable[[str], object]) -> None:
        await super().follow(each)
