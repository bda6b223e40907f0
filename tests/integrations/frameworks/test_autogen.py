"""
AutoGen over httpx over this client.
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

autogen = pytest.importorskip("autogen_ext.models.openai", reason="AutoGen is not installed")
openai = pytest.importorskip("openai")


class AutoGen(Driver):
    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        self.model: Any = autogen.BaseOpenAIChatCompletionClient(
            as_openai(client),
            create_args={"model": MODEL},
            model_info={
                "vision": True,
                "function_calling": True,
                "json_output": True,
                "structured_output": True,
                "family": "unknown",
            },
        )

    def agent(self, **options: Any) -> Any:
        from autogen_agentchat.agents import AssistantAgent

        return AssistantAgent("assistant", self.model, **options)

    async def plain(self, text: str) -> str:
        return (await self.agent().run(task=text)).messages[-1].content

    async def stream(self, text: str) -> AsyncIterator[str]:
        from autogen_core.models import UserMessage

        thinking = False
        async for piece in self.model.create_stream([UserMessage(content=text, source="user")]):
            if isinstance(piece, str):
                thinking = thinking or piece.startswith("<think>")
                if not thinking:
                    yield piece
                thinking = thinking and piece != "</think>"

    async def tools(self, text: str) -> str:
        agent = self.agent(tools=[get_weather], max_tool_iterations=5)
        return (await agent.run(task=text)).messages[-1].content

    async def structured(self, text: str) -> Any:
        return (await self.agent(output_content_type=Person).run(task=text)).messages[-1].content


class TestAutoGen(FrameworkChecks):
    driver = AutoGen
    refused = (openai.AuthenticationError, RuntimeError)
