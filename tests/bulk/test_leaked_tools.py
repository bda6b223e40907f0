"""
`leaked_tools=` for many answers: as `create` does it, wherever an answer comes from.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kimi_async import AsyncKimi, ConfigurationError, KimiWarning
from kimi_async.bulk.batch_results import BatchResults
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request

LEAK = (
    '<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{"city": "Ulm"}'
    "<|tool_call_end|><|tool_calls_section_end|>"
)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
MESSAGES: list[Any] = [{"role": "user", "content": "Sunny?"}]
ASKED: dict[str, Any] = {"model": "kimi-k3", "messages": MESSAGES, "tools": TOOLS}
DECLARED: dict[str, Any] = {
    "model": "kimi-k3",
    "messages": [{"role": "system", "tools": TOOLS}, *MESSAGES],
}
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "kimi-k3",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": LEAK}, "finish_reason": "stop"}],
}


async def serve(request: Request) -> Reply:
    if not request.json().get("stream"):
        return Reply(headers={"content-type": "application/json"}, body=json.dumps(COMPLETION).encode())
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": LEAK}, "finish_reason": "stop"}]}
    body = b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"
    return Reply(headers={"content-type": "text/event-stream"}, body=body)


@pytest.fixture
def client() -> AsyncKimi:
    return AsyncKimi(api_key="sk-test", transport=MemoryTransport(serve))


def called(completion: Any) -> list[tuple[str, str]]:
    """
    The calls of an answer.
    """
    return [
        (each.function.name, each.function.arguments)
        for each in completion.choices[0].message.tool_calls or ()
    ]


CALLED = [("weather", '{"city": "Ulm"}')]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", [ASKED, DECLARED], ids=["tools", "declared"])
async def test_map_mends(client: AsyncKimi, stream: bool, asked: Any, tmp_path: Path) -> None:
    """
    Calls are made of the markup, and the journal holds them: a later run hands out the same.
    """
    journal = tmp_path / "answers.jsonl"
    async with client.map([asked], leaked_tools="mend", stream=stream, journal=journal) as answers:
        [result] = [each async for each in answers]
    async with client.map([asked], stream=stream, journal=journal, replay=True) as answers:
        [again] = [each async for each in answers]

    assert CALLED == called(result.completion)
    assert "tool_calls" == result.completion.choices[0].finish_reason
    assert ("journal", CALLED) == (again.source, called(again.completion))


async def test_map_mends_what_the_journal_holds(client: AsyncKimi, tmp_path: Path) -> None:
    """
    Also an answer that an earlier run put there as it came.
    """
    journal = tmp_path / "answers.jsonl"
    async with client.map([ASKED], leaked_tools="off", journal=journal) as answers:
        [before] = [each async for each in answers]
    async with client.map([ASKED], leaked_tools="mend", journal=journal, replay=True) as answers:
        [after] = [each async for each in answers]

    assert (LEAK, []) == (before.text, called(before.completion))
    assert CALLED == called(after.completion)


async def test_map_tells_where_tools_were_offered(client: AsyncKimi) -> None:
    """
    As `create` does: told where tools were offered, and not looked for where none were.
    """
    with pytest.warns(KimiWarning, match="left tool calls in the text"):
        async with client.map([ASKED]) as answers:
            [result] = [each async for each in answers]
    async with client.map([{"model": "kimi-k3", "messages": MESSAGES}]) as answers:
        [unasked] = [each async for each in answers]

    assert LEAK == result.text == unasked.text


@pytest.mark.parametrize("asked", [ASKED, DECLARED], ids=["tools", "declared"])
def test_batch_results_mend(asked: Any, tmp_path: Path) -> None:
    """
    Output lines are joined to what their requests offered, one by one and by id.
    """
    requests, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for name, body in (("a", {"model": "kimi-k3", "messages": MESSAGES}), ("b", asked))
    ]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    answers = [
        {"custom_id": name, "response": {"status_code": 200, "body": COMPLETION}, "error": None}
        for name in "ba"
    ]
    output.write_text("".join(json.dumps(line) + "\n" for line in answers), "utf-8")
    handle: Any = SimpleNamespace(lines=2)
    with BatchResults(handle, inputs=[str(requests)], outputs=[str(output)], batches=[]) as results:
        plain = [called(each.completion) for each in results]
        results.leaked_tools = "mend"
        with pytest.warns(KimiWarning, match="could not be read"):  # a: nothing of that name was offered
            mended = [called(each.completion) for each in results]
        by_id = results.get("b")

    assert [[], []] == plain
    assert [[], CALLED] == mended
    assert by_id is not None
    assert CALLED == called(by_id.completion)


async def test_batch_sent_live_mends(client: AsyncKimi) -> None:
    """
    Where a job is sent live, its answers are mended as well.
    """
    async with await client.batches.run(
        [{"custom_id": "a", "body": ASKED}], via="live", leaked_tools="mend"
    ) as results:
        found = [called(each.completion) for each in results]

    assert [CALLED] == found


@pytest.mark.parametrize("method", ["create", "parse"])
async def test_raw_replies_mend(client: AsyncKimi, method: str) -> None:
    """
    What `parse()` of a raw reply gives is what the method would have returned.
    """
    raw = await getattr(client.chat.completions.with_raw_response, method)(**ASKED, leaked_tools="mend")

    assert CALLED == called(raw.parse())


async def test_leaked_tools_is_checked_when_given(client: AsyncKimi) -> None:
    """
    A word that is not one of the three is refused before anything is sent.
    """
    wrong: Any = "Mend"

    with pytest.raises(ConfigurationError, match="leaked_tools"):
        client.map([ASKED], leaked_tools=wrong)
    with pytest.raises(ConfigurationError, match="leaked_tools"):
        await client.batches.run([ASKED], leaked_tools=wrong)
    with pytest.raises(ConfigurationError, match="leaked_tools"):
        await client.batches.results("batch_1", leaked_tools=wrong)
