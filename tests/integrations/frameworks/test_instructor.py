"""
instructor over openai's client.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.integrations.openai import as_openai
from kimi_async.testing import KimiSimulator
from kimi_async.testing.simulator.chat_model import ToolCall, Turn
from support.framework_checks import MODEL, Driver, FrameworkChecks, Person, chats, reasoning_sent

pytestmark = pytest.mark.frameworks

instructor = pytest.importorskip("instructor", reason="instructor is not installed")


class Instructor(Driver):
    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        self.instructor: Any = instructor.from_openai(as_openai(client), mode=instructor.Mode.JSON_SCHEMA)

    def ask(self, text: str, **options: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        return self.instructor.chat.completions.create(
            model=MODEL, messages=messages, max_retries=0, **options
        )

    async def plain(self, text: str) -> str:
        return (await self.ask(text, response_model=None)).choices[0].message.content

    async def stream(self, text: str) -> AsyncIterator[str]:
        async for chunk in await self.ask(text, response_model=None, stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    async def structured(self, text: str) -> Any:
        return await self.ask(text, response_model=Person)


class TestInstructor(FrameworkChecks):
    driver = Instructor
    refused = (Exception,)

    test_tool_loop_keeps_reasoning = None  # it runs no tools; below is where it repeats an answer


async def test_ask_again_keeps_reasoning(kimi_simulator: KimiSimulator, kimi_client: AsyncKimi) -> None:
    """Asked again after a wrong answer, the model gets its own call back with the reasoning that led to it."""
    wrong = ToolCall("Person:0", "Person", '{"name": "Ada", "age": "unknown"}')
    right = ToolCall("Person:1", "Person", '{"name": "Ada", "age": 36}')
    kimi_simulator.say(Turn("", "Age is hard.", (wrong,)), Turn("", "Now I know.", (right,)))
    asking = instructor.from_openai(as_openai(kimi_client), mode=instructor.Mode.TOOLS)

    person = await asking.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Who was first?"}],
        response_model=Person,
        max_retries=1,
        # A forced call is refused while Kimi thinks.
        extra_body={"tool_choice": "auto"},
    )

    assert ("Ada", 36) == (person.name, person.age)
    assert ["Age is hard."] == reasoning_sent(chats(kimi_simulator)[1])
