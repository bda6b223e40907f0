"""
Programs as people publish them for the Kimi API with `AsyncOpenAI`: the recipes of the documentation, in the habits of those
who follow them. Each file of `programs/` runs with both clients against a simulator of its own, and must print the same.

What differs between two runs of one client (ids, times) is not printed.
"""

import asyncio
import json
import re
from pathlib import Path

import pytest

from kimi_async.testing import KimiSimulator
from kimi_async.testing.simulator.chat_model import ToolCall, Turn

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
SEARCH = {"search_result": {"search_id": "1"}, "usage": {"total_tokens": 1_000}}


def with_the_import_changed(source: str) -> str:
    source = re.sub(
        "^from openai import AsyncOpenAI$",
        "from kimi_async import AsyncKimi as AsyncOpenAI",
        source,
        flags=re.M,
    )
    return re.sub("^import openai$", "import kimi_async as openai", source, flags=re.M)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
async def test_published_program(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With only the import changed it prints the same."""
    source = await asyncio.to_thread(path.read_text, "utf-8")
    printed: list[list[tuple[object, ...]]] = []
    for name, text in (("theirs", source), ("ours", with_the_import_changed(source))):
        lines: list[tuple[object, ...]] = []

        def write(*values: object, lines: list[tuple[object, ...]] = lines) -> None:
            lines.append(values)

        home = tmp_path / name
        home.mkdir()
        monkeypatch.chdir(home)
        async with KimiSimulator() as simulator:
            monkeypatch.setenv("MOONSHOT_BASE_URL", simulator.base_url)
            monkeypatch.setenv("MOONSHOT_API_KEY", simulator.api_key)
            if path.stem == "web_search":
                simulator.say(
                    Turn(tool_calls=(ToolCall("$web_search:0", "$web_search", json.dumps(SEARCH)),))
                )
            program = compile(text, path, "exec")
            await asyncio.to_thread(exec, program, {"__name__": "__main__", "print": write})
        printed.append(lines)

    assert "kimi_async" in with_the_import_changed(source)
    assert printed[0]
    assert printed[0] == printed[1]
