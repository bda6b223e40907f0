"""
LlamaIndex over openai's client.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.integrations.openai import as_blocking_openai, as_openai
from support.framework_checks import MODEL, Driver, FrameworkChecks, Person, get_weather

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore"),  # theirs are theirs
]

openai_like = pytest.importorskip("llama_index.llms.openai_like", reason="LlamaIndex is not installed")
openai = pytest.importorskip("openai")


class LlamaIndex(Driver):
    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        self.model: Any = openai_like.OpenAILike(
            model=MODEL,
            api_key="unused",
            is_chat_model=True,
            is_function_calling_model=True,
            should_use_structured_outputs=True,
            context_window=262_144,
            max_retries=0,
            temperature=1.0,  # LlamaIndex sends one of its own otherwise, which Kimi refuses
            async_openai_client=as_openai(client),
            openai_client=as_blocking_openai(client),
        )

    async def plain(self, text: str) -> str:
        return (await self.model.acomplete(text)).text

    async def stream(self, text: str) -> AsyncIterator[str]:
        async for piece in await self.model.astream_complete(text):
            if piece.delta:
                yield piece.delta

    async def tools(self, text: str) -> str:
        from llama_index.core.agent.workflow import FunctionAgent

        return str(await FunctionAgent(tools=[get_weather], llm=self.model, streaming=False).run(text))

    async def structured(self, text: str) -> Any:
        from llama_index.core.llms import ChatMessage

        return (await self.model.as_structured_llm(Person).achat([ChatMessage(text)])).raw


class TestLlamaIndex(FrameworkChecks):
    driver = LlamaIndex
    refused = (openai.AuthenticationError,)
