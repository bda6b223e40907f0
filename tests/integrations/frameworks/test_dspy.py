"""
DSPy over openai's client.
"""

from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.integrations.openai import as_blocking_openai, as_openai
from support.framework_checks import MODEL, Driver, FrameworkChecks

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore"),  # theirs are theirs
]

dspy = pytest.importorskip("dspy", reason="DSPy is not installed")


class KimiLM(dspy.BaseLM):
    """A language model of DSPy over a client."""

    def __init__(self, model: str, client: AsyncKimi, **options: Any) -> None:
        super().__init__(model=model, **options)
        self.blocking, self.official = as_blocking_openai(client), as_openai(client)

    def _asked(self, prompt: str | None, messages: Any, options: Any) -> dict[str, Any]:
        given = {name: value for name, value in {**self.kwargs, **options}.items() if value is not None}
        return {"model": self.model, "messages": messages or [{"role": "user", "content": prompt}], **given}

    def forward(self, prompt: str | None = None, messages: Any = None, **options: Any) -> Any:
        return self.blocking.chat.completions.create(**self._asked(prompt, messages, options))

    async def aforward(self, prompt: str | None = None, messages: Any = None, **options: Any) -> Any:
        return await self.official.chat.completions.create(**self._asked(prompt, messages, options))


class DSPy(Driver):
    def __init__(self, client: AsyncKimi) -> None:
        super().__init__(client)
        self.model = KimiLM(MODEL, client, cache=False, num_retries=0)

    async def plain(self, text: str) -> str:
        answer = (await self.model.acall(text))[0]
        return answer if isinstance(answer, str) else answer["text"]

    async def structured(self, text: str) -> Any:
        with dspy.context(lm=self.model, adapter=dspy.JSONAdapter()):
            return await dspy.Predict("question -> name: str, age: int").acall(question=text)


class TestDSPy(FrameworkChecks):
    driver = DSPy
    refused = (Exception,)

    # It hands out no streams of a model of one's own, and runs tools in its own text format.
    test_stream_hands_out_all_pieces = None
    test_cancelled_stream_lets_go = None
    test_error_before_first_piece_is_repeated = None
    test_truncated_stream_is_an_error = None
    test_tool_loop_keeps_reasoning = None
