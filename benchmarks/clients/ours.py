"""
`kimi_async`, at its defaults.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from benchmarks.clients.base import MESSAGES, MODEL, openai_consumers

__all__ = ["Ours", "OursUvloop"]


class Ours(openai_consumers):
    name = "kimi-async"
    label = "this package, at its defaults"
    also = ("aiohttp", "msgspec")
    imports = "from kimi_async import AsyncKimi"
    makes = "AsyncKimi(api_key='sk-bench', base_url=URL)"

    @classmethod
    def versions(cls) -> dict[str, str]:
        # Run from a checkout it is importable without being installed.
        from kimi_async import __version__

        return {"kimi-async": __version__, **super().versions()}

    async def open(self) -> None:
        from kimi_async import AsyncKimi

        self.client = AsyncKimi(api_key="sk-bench", base_url=self.base + "/v1")

    async def close(self) -> None:
        await self.client.close()

    async def chunks(self) -> AsyncIterable[Any]:
        return await self.client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)

    async def helper(self) -> str:
        async with self.client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
            async for _ in stream:
                pass
            completion = await stream.get_final_completion()
        return completion.choices[0].message.content or ""

    async def final(self) -> int:
        async with self.client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
            return len(await stream.get_final_text())

    async def call(self, messages: list[dict[str, Any]]) -> int:
        completion = await self.client.chat.completions.create(model=MODEL, messages=messages)
        return len(completion.choices[0].message.content or "")


class OursUvloop(Ours):
    name = "kimi-async-uvloop"
    label = "this package, at its defaults, on uvloop"
    also = ("aiohttp", "msgspec", "uvloop")
    loop = "uvloop"
