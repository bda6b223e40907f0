"""
smolagents over openai's client; it is blocking throughout.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.integrations.openai import as_blocking_openai
from support.framework_checks import MODEL, Driver, FrameworkChecks

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore"),  # theirs are theirs
]

smolagents = pytest.importorskip("smolagents", reason="smolagents is not installed")
openai = pytest.importorskip("openai")


class KimiModel(smolagents.OpenAIModel):
    """A model of smolagents over a client."""

    def __init__(self, model_id: str, kimi: AsyncKimi, **options: Any) -> None:
        self.kimi = kimi
        super().__init__(model_id, retry=False, **options)

    def create_client(self) -> Any:
        return as_blocking_openai(self.kimi)


class Smolagents(Driver):
    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        self.model = KimiModel(MODEL, client)

    async def plain(self, text: str) -> str:
        messages = [{"role": "user", "content": text}]
        return (await asyncio.to_thread(self.model.generate, messages)).content

    async def stream(self, text: str) -> AsyncIterator[str]:
        messages = [{"role": "user", "content": text}]
        pieces = await asyncio.to_thread(lambda: list(self.model.generate_stream(messages)))
        for piece in pieces:
            if piece.content:
                yield piece.content


class TestSmolagents(FrameworkChecks):
    driver = Smolagents
    refused = (openai.AuthenticationError,)

    # A thread cannot be cancelled; tools and shapes are asked for in its own text format.
    test_cancelled_call_lets_go = None
    test_cancelled_stream_lets_go = None
    test_tool_loop_keeps_reasoning = None
    test_structured_answer = None
