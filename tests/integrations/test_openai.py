"""
openai's own client over ours.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.integrations.openai import as_openai
from support.framework_checks import (
    MODEL,
    Driver,
    FrameworkChecks,
    Person,
    get_weather,
)

openai = pytest.importorskip("openai", reason="the official client is not installed")

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def asking(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


class OfficialClient(Driver):
    """By hand, and forgetful: no answer goes back with its reasoning."""

    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        self.official = as_openai(client)

    async def plain(self, text: str) -> str:
        completion = await self.official.chat.completions.create(model=MODEL, messages=asking(text))
        return completion.choices[0].message.content or ""

    async def stream(self, text: str) -> AsyncIterator[str]:
        stream = await self.official.chat.completions.create(model=MODEL, messages=asking(text), stream=True)
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    async def tools(self, text: str) -> str:
        messages = asking(text)
        while True:
            completion = await self.official.chat.completions.create(
                model=MODEL, messages=messages, tools=[TOOL]
            )
            message = completion.choices[0].message
            if not message.tool_calls:
                return message.content or ""
            calls = [each.model_dump() for each in message.tool_calls]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            for each in calls:
                city = __import__("json").loads(each["function"]["arguments"])["city"]
                messages.append({"role": "tool", "tool_call_id": each["id"], "content": get_weather(city)})

    async def structured(self, text: str) -> Any:
        completion = await self.official.chat.completions.parse(
            model=MODEL, messages=asking(text), response_format=Person
        )
        return completion.choices[0].message.parsed


class TestOfficialClient(FrameworkChecks):
    driver = OfficialClient
    refused = (openai.AuthenticationError,)
    broken = (openai.APIConnectionError,)
