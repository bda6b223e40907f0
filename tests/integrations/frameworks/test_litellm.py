"""
LiteLLM over openai's client.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.integrations.openai import as_openai
from support.framework_checks import MODEL, Driver, FrameworkChecks, Person, get_weather

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore"),  # theirs are theirs
]

litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed")

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class LiteLLM(Driver):
    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        self.official = as_openai(client)

    def ask(self, messages: Any, **options: Any) -> Any:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return litellm.acompletion(
            model=f"openai/{MODEL}", messages=messages, client=self.official, max_retries=0, **options
        )

    async def plain(self, text: str) -> str:
        return (await self.ask(text)).choices[0].message.content

    async def stream(self, text: str) -> AsyncIterator[str]:
        async for chunk in await self.ask(text, stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    async def tools(self, text: str) -> str:
        import json

        messages: list[Any] = [{"role": "user", "content": text}]
        while True:
            message = (await self.ask(messages, tools=[TOOL])).choices[0].message
            if not message.tool_calls:
                return message.content
            messages.append(message)
            for call in message.tool_calls:
                result = get_weather(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

    async def structured(self, text: str) -> Any:
        reply = await self.ask(text, response_format=Person)
        return Person.model_validate_json(reply.choices[0].message.content)


class TestLiteLLM(FrameworkChecks):
    driver = LiteLLM
    refused = (litellm.AuthenticationError,)
