"""
LangChain, over openai's client and over our own model.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.integrations.openai import as_openai
from kimi_async.testing import KimiSimulator
from kimi_async.testing.simulator.chat_model import Turn
from support.framework_checks import (
    MODEL,
    Driver,
    FrameworkChecks,
    Person,
    call,
    chats,
    get_weather,
    reasoning_sent,
)

pytestmark = pytest.mark.frameworks

langchain_openai = pytest.importorskip("langchain_openai", reason="LangChain is not installed")
openai = pytest.importorskip("openai")


class OverOpenAI(Driver):
    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        official = as_openai(client)
        self.model: Any = langchain_openai.ChatOpenAI(
            model=MODEL,
            api_key="unused",
            root_async_client=official,
            async_client=official.chat.completions,
            stream_chunk_timeout=None,
        )

    async def plain(self, text: str) -> str:
        return (await self.model.ainvoke(text)).text

    async def stream(self, text: str) -> AsyncIterator[str]:
        async for chunk in self.model.astream(text):
            if chunk.text:
                yield chunk.text

    async def tools(self, text: str) -> str:
        from langchain.agents import create_agent

        agent = create_agent(self.model, tools=[get_weather])
        result = await agent.ainvoke({"messages": [{"role": "user", "content": text}]})
        return result["messages"][-1].text

    async def structured(self, text: str) -> Any:
        return await self.model.with_structured_output(Person, method="json_schema").ainvoke(text)


class OverOwnModel(OverOpenAI):
    def __init__(self, client: AsyncKimi) -> None:
        from kimi_async.integrations.langchain import ChatKimi

        Driver.__init__(self, client)
        self.model = ChatKimi(model=MODEL, kimi=client)

    async def structured(self, text: str) -> Any:
        return await self.model.with_structured_output(Person).ainvoke(text)


class Blocking(OverOwnModel):
    """The blocking entry points, each in a thread, as a server would."""

    async def plain(self, text: str) -> str:
        return (await asyncio.to_thread(self.model.invoke, text)).text

    async def stream(self, text: str) -> AsyncIterator[str]:
        pieces = await asyncio.to_thread(
            lambda: [chunk.text for chunk in self.model.stream(text) if chunk.text]
        )
        for piece in pieces:
            yield piece

    async def tools(self, text: str) -> str:
        from langchain.agents import create_agent

        agent = create_agent(self.model, tools=[get_weather])
        question = {"messages": [{"role": "user", "content": text}]}
        return (await asyncio.to_thread(agent.invoke, question))["messages"][-1].text

    async def structured(self, text: str) -> Any:
        return await asyncio.to_thread(self.model.with_structured_output(Person).invoke, text)


class TestOverOpenAI(FrameworkChecks):
    driver = OverOpenAI
    refused = (openai.AuthenticationError,)


class TestOverOwnModel(FrameworkChecks):
    driver = OverOwnModel
    refused = (openai.AuthenticationError,)


class TestBlocking(FrameworkChecks):
    driver = Blocking
    refused = (openai.AuthenticationError,)

    test_cancelled_call_lets_go = None  # a thread cannot be cancelled
    test_cancelled_stream_lets_go = None


@pytest.fixture
def model(kimi_client: AsyncKimi) -> Any:
    from kimi_async.integrations.langchain import ChatKimi

    return ChatKimi(model=MODEL, kimi=kimi_client)


async def test_reasoning_and_usage_come_with_an_answer(kimi_simulator: KimiSimulator, model: Any) -> None:
    """A whole answer has its reasoning, among its content blocks too, and its usage."""
    kimi_simulator.say(Turn("Rivers bend.", "Think of water."))

    answer = await model.ainvoke("A headline, please.")

    assert "Think of water." == answer.additional_kwargs["reasoning_content"]
    assert {"type": "reasoning", "reasoning": "Think of water."} in answer.content_blocks
    assert answer.usage_metadata["output_tokens"] > 0
    assert "moonshot" == answer.response_metadata["model_provider"]


async def test_reasoning_and_usage_come_with_a_stream(kimi_simulator: KimiSimulator, model: Any) -> None:
    """The chunks of a stream add up to the same."""
    kimi_simulator.say(Turn("Rivers bend.", "Think of water."))

    whole = None
    async for chunk in model.astream("A headline, please."):
        whole = chunk if whole is None else whole + chunk

    assert whole is not None
    assert "Rivers bend." == whole.text
    assert "Think of water." == whole.additional_kwargs["reasoning_content"]
    assert whole.usage_metadata["output_tokens"] > 0
    assert "moonshot" == whole.response_metadata["model_provider"]


async def test_reasoning_goes_back_with_a_message_of_another_client(
    kimi_simulator: KimiSimulator, model: Any
) -> None:
    """A message that was stored and loaded carries its own reasoning: nothing depends on what a client remembers."""
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    await model.ainvoke(
        [
            HumanMessage("Weather in Beijing?"),
            AIMessage(
                "",
                tool_calls=[{"id": "get_weather:0", "name": "get_weather", "args": {"city": "Beijing"}}],
                additional_kwargs={"reasoning_content": "Stored."},
            ),
            ToolMessage("sunny", tool_call_id="get_weather:0"),
        ]
    )

    assert ["Stored."] == reasoning_sent(chats(kimi_simulator)[0])


async def test_agent_with_a_shape_and_tools(kimi_simulator: KimiSimulator, model: Any) -> None:
    """`create_agent` with a response format asks by schema and does not force a tool call."""
    from langchain.agents import create_agent

    kimi_simulator.say(
        Turn("", "Look first.", (call(0, "Beijing"),)), Turn('{"name": "Ada", "age": 36}', "Known now.")
    )
    agent = create_agent(model, tools=[get_weather], response_format=Person)

    result = await agent.ainvoke({"messages": [{"role": "user", "content": "Who lives in Beijing?"}]})

    assert Person(name="Ada", age=36) == result["structured_response"]
    assert all(body.get("tool_choice", "auto") == "auto" for body in chats(kimi_simulator))


def test_something_else_as_client_is_refused() -> None:
    """A key in place of the client gets a clear error, which does not show it."""
    from kimi_async.integrations.langchain import ChatKimi

    with pytest.raises(ValueError, match="kimi must be an AsyncKimi, not str") as caught:
        ChatKimi(model=MODEL, kimi="sk-secret-value")
    assert "sk-secret" not in repr(caught.value.__cause__)
