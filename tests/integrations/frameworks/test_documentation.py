"""
The programs of the page on frameworks run as they stand there.
"""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from kimi_async import AsyncKimi
from kimi_async.testing import KimiSimulator
from kimi_async.testing.simulator.chat_model import Turn

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore"),  # theirs are theirs
]

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "frameworks.md"


def _sections() -> list[tuple[str, str]]:
    """The first program of each section, by the section's heading; what stands before the first is the page's own."""
    parts = re.split(r"^##? (.*)$", PAGE.read_text("utf-8"), flags=re.M)[1:]
    found: list[tuple[str, str]] = []
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        program = re.search(r"^```python\n(.*?)^```$", text, re.M | re.S)
        found.append((heading, "" if program is None else program[1]))
    return found


SECTIONS = _sections()

# What an answer must look like where a shape is asked for.
ANSWERS = {
    "instructor": '{"name": "Ada", "age": 36}',
    "DSPy": "[[ ## answer ## ]]\nYes\n\n[[ ## completed ## ]]",
}


def test_every_section_has_one_program() -> None:
    """Nothing on the page escapes the tests."""
    programs = PAGE.read_text("utf-8").count("```python")

    assert programs == len(SECTIONS) == sum(bool(code) for _, code in SECTIONS)


@pytest.mark.parametrize(("heading", "code"), SECTIONS, ids=[heading for heading, _ in SECTIONS])
def test_program_runs(heading: str, code: str) -> None:
    """The program runs against the simulator, and sends what it asks through the client."""
    for module in re.findall(r"^(?:from|import) (\w+)", code, re.M):
        if module != "kimi_async":
            pytest.importorskip(module, reason=f"{module} is not installed")
    if "integrations.openai" in code:
        pytest.importorskip("openai")

    async def run(simulator: KimiSimulator) -> None:
        async with AsyncKimi(base_url=simulator.base_url, api_key=simulator.api_key) as client:
            program = compile(code, heading, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            names: dict[str, Any] = {"client": client, "__name__": "__main__"}
            result = eval(program, names)
            if inspect.isawaitable(result):
                await result

    with KimiSimulator().in_thread() as simulator:
        simulator.say(*[Turn(ANSWERS.get(heading, "Yes, it is sunny."), "Let me see.")] * 3)
        asyncio.run(run(simulator))

        assert {200} == {request.status for request in simulator.requests}
