"""
Pydantic AI, over openai's client and over our own model.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.integrations.openai import as_openai
from support.framework_checks import MODEL, Driver, FrameworkChecks, Person, get_weather

pytestmark = pytest.mark.frameworks

pydantic_ai = pytest.importorskip("pydantic_ai", reason="Pydantic AI is not installed")


class OverOpenAI(Driver):
    def __init__(self, client: AsyncKimi) -> None:
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.moonshotai import MoonshotAIProvider

        super().__init__(client)
        self.model: Any = OpenAIChatModel(MODEL, provider=MoonshotAIProvider(openai_client=as_openai(client)))

    async def plain(self, text: str) -> str:
        return (await pydantic_ai.Agent(self.model).run(text)).output

    async def stream(self, text: str) -> AsyncIterator[str]:
        async with pydantic_ai.Agent(self.model).run_stream(text) as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                yield piece

    async def tools(self, text: str) -> str:
        return (await pydantic_ai.Agent(self.model, tools=[get_weather]).run(text)).output

    async def structured(self, text: str) -> Any:
        output = pydantic_ai.PromptedOutput(
            Person
        )  # the profile of others does not know that Kimi takes a schema
        return (await pydantic_ai.Agent(self.model, output_type=output).run(text)).output


class OverOwnModel(OverOpenAI):
    def __init__(self, client: AsyncKimi) -> None:
        from kimi_async.integrations.pydantic_ai import KimiModel

        super().__init__(client)
        self.model = KimiModel(MODEL, client)

    async def structured(self, text: str) -> Any:
        return (await pydantic_ai.Agent(self.model, output_type=Person).run(text)).output


class TestOverOpenAI(FrameworkChecks):
    driver = OverOpenAI
    refused = (pydantic_ai.ModelHTTPError,)


class TestOverOwnModel(FrameworkChecks):
    driver = OverOwnModel
    refused = (pydantic_ai.ModelHTTPError,)


async def test_structured_answer_beside_tools(kimi_simulator: Any, kimi_client: AsyncKimi) -> None:
    """An agent with tools and a shape for its answer calls the tool, then answers in that shape."""
    from kimi_async.integrations.pydantic_ai import KimiModel
    from kimi_async.testing.simulator.chat_model import Turn
    from support.framework_checks import call

    kimi_simulator.say(
        Turn("", "Look first.", (call(0, "Beijing"),)), Turn('{"name": "Ada", "age": 36}', "Known now.")
    )
    agent = pydantic_ai.Agent(KimiModel(MODEL, kimi_client), tools=[get_weather], output_type=Person)

    assert Person(name="Ada", age=36) == (await agent.run("Who lives in Beijing?")).output
