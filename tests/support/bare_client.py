"""
A client of the simulator that forgives nothing: bare aiohttp, so that what is seen is what was sent.
"""

import json
from typing import Any

import aiohttp

from kimi_async.testing.simulator.chat_model import Turn, think
from kimi_async.testing.simulator.models import MODELS
from kimi_async.testing.simulator.server import KimiSimulator

__all__ = ["TOOL", "USER", "Client", "chat", "joined", "undisturbed"]

USER = [{"role": "user", "content": "Tell me about the moon."}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def chat(messages: list[Any] = USER, **options: Any) -> dict[str, Any]:
    return {"model": "kimi-k3", "messages": messages, **options}


class Client:
    """Posts JSON and reads what comes, without any leniency."""

    def __init__(self, sim: KimiSimulator, session: aiohttp.ClientSession) -> None:
        self.url, self.key, self.session = sim.base_url, sim.api_key, session

    def open(self, path: str, body: Any = None, *, method: str = "POST", **headers: str) -> Any:
        sent = {"Authorization": f"Bearer {self.key}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return self.session.request(
            method, self.url + path, data=None if body is None else json.dumps(body), headers=sent
        )

    async def json(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any, Any]:
        async with self.open(path, body, **options) as response:
            return response.status, await response.json(), response.headers

    async def chat(self, body: Any, **options: Any) -> tuple[int, Any, Any]:
        return await self.json("/chat/completions", body, **options)

    async def lines(self, body: Any) -> list[str]:
        """The payloads of a stream; fails on anything but `data:` lines and blank ones."""
        async with self.open("/chat/completions", {**body, "stream": True}) as response:
            assert 200 == response.status
            text = (await response.read()).decode()
        blocks = text.split("\n\n")
        assert "" == blocks.pop()
        assert all(block.startswith("data: ") for block in blocks)
        return [block.removeprefix("data: ") for block in blocks]

    async def chunks(self, body: Any) -> list[Any]:
        lines = await self.lines(body)
        assert "[DONE]" == lines.pop()
        return [json.loads(line) for line in lines]


def joined(chunks: list[Any], key: str) -> str:
    return "".join(chunk["choices"][0]["delta"].get(key) or "" for chunk in chunks if chunk["choices"])


def undisturbed() -> Turn:
    """The answer to `chat()` that no fault has touched."""
    return think(MODELS[2], chat())
