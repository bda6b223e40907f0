"""
The OpenAI Agents SDK, over openai's client and over our own model.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.integrations.openai import as_openai
from kimi_async.testing import KimiSimulator
from support.framework_checks import MODEL, Driver, FrameworkChecks, Person, chats, get_weather

pytestmark = pytest.mark.frameworks

agents = pytest.importorskip("agents", reason="the OpenAI Agents SDK is not installed")
openai = pytest.importorskip("openai")


class OverOpenAI(Driver):
    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        agents.set_tracing_disabled(True)
        self.model: Any = agents.OpenAIChatCompletionsModel(MODEL, as_openai(client))

    def agent(self, **options: Any) -> Any:
        return agents.Agent(name="Assistant", model=self.model, **options)

    async def plain(self, text: str) -> str:
        return (await agents.Runner.run(self.agent(), text)).final_output

    async def stream(self, text: str) -> AsyncIterator[str]:
        result = agents.Runner.run_streamed(self.agent(), text)
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                yield event.data.delta

    async def tools(self, text: str) -> str:
        return (
            await agents.Runner.run(self.agent(tools=[agents.function_tool(get_weather)]), text)
        ).final_output

    async def structured(self, text: str) -> Any:
        return (await agents.Runner.run(self.agent(output_type=Person), text)).final_output


class OverOwnModel(OverOpenAI):
    def __init__(self, client: AsyncKimi) -> None:
        from kimi_async.integrations.openai_agents import KimiModel

        super().__init__(client)
        self.model = KimiModel(MODEL, client)


class TestOverOpenAI(FrameworkChecks):
    driver = OverOpenAI
    refused = (openai.AuthenticationError,)


class TestOverOwnModel(FrameworkChecks):
    driver = OverOwnModel
    refused = (openai.AuthenticationError,)


async def test_provider_finds_models_by_name(kimi_simulator: KimiSimulator, kimi_client: AsyncKimi) -> None:
    """A run with the provider uses the model an agent names, and the default where it names none."""
    from kimi_async.integrations.openai_agents import KimiModelProvider

    agents.set_tracing_disabled(True)
    config = agents.RunConfig(model_provider=KimiModelProvider(kimi_client, default="kimi-k3"))

    await agents.Runner.run(agents.Agent(name="one", model=MODEL), "Hello", run_config=config)
    await agents.Runner.run(agents.Agent(name="two"), "Hello", run_config=config)

    assert [MODEL, "kimi-k3"] == [body["model"] for body in chats(kimi_simulator)]
