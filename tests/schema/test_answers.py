"""
`parse`, and `stream` with a type: an answer as a value, and what is wrong when it is not one.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from typing import Any

import msgspec
import openai
import pydantic
import pytest

from kimi_async import (
    AsyncKimi,
    ChatCompletionStreamState,
    ContentFilterFinishReasonError,
    LengthFinishReasonError,
    OutputError,
    Request,
    SchemaError,
    pydantic_function_tool,
)
from kimi_async.schema import response_format_for
from kimi_async.schema.answers import reask, response_format_of
from kimi_async.testing import KimiSimulator, MemoryTransport, Reply, ToolCall, Turn
from kimi_async.types import ChatCompletion, ChatCompletionChunk
from kimi_async.types.parsed import ParsedChatCompletion

QUESTION = {"role": "user", "content": "Where?"}


class City(msgspec.Struct):
    name: str
    people: int


class Hotel(pydantic.BaseModel):
    stars: int = pydantic.Field(ge=1, le=5)


@dataclass
class Road:
    length: float


def answer(content: str | None, finish: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "kimi-k3",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


class Script:
    """A server that gives these replies in order, and keeps what it was asked."""

    def __init__(self, *replies: dict[str, Any]) -> None:
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []
        self.completions = AsyncKimi(
            api_key="sk-test", transport=MemoryTransport(self.reply), max_retries=0
        ).chat.completions

    async def reply(self, request: Request) -> Reply:
        self.asked.append(request.json())
        return Reply(headers={"content-type": "application/json"}, body=json.dumps(self.replies.pop(0)))

    async def parse(self, response_format: Any, **options: Any) -> Any:
        return await self.completions.parse(
            model="kimi-k3", messages=[QUESTION], response_format=response_format, **options
        )


@pytest.mark.parametrize(
    ("tp", "content", "value"),
    [
        (City, '{"name": "北京", "people": 22}', City("北京", 22)),
        (Hotel, '{"stars": 4}', Hotel(stars=4)),
        (Road, '{"length": 1.5}', Road(1.5)),
        (list[City], '{"value": [{"name": "a", "people": 1}]}', [City("a", 1)]),
        (int | None, '{"value": null}', None),
        (City, '```json\n{"name": "a", "people": 1}\n```', City("a", 1)),
    ],
)
async def test_parse_gives_the_value(tp: Any, content: str, value: Any) -> None:
    """The schema is sent, and the answer is read as the type, also where the text stands in a fence."""
    script = Script(answer(content, reasoning_content="thinking", vendor=1))
    completion = await script.parse(tp, reasoning_effort="low")
    assert isinstance(completion, ParsedChatCompletion)
    assert isinstance(completion, ChatCompletion)
    assert completion.choices[0].message.parsed == value
    assert completion.parsed == value
    assert completion.choices[0].message.content == content
    assert completion.choices[0].message.reasoning_content == "thinking"
    assert completion.choices[0].message.vendor == 1
    assert completion.usage is not None
    assert completion.usage.total_tokens == 3
    assert script.asked[0]["response_format"] == response_format_for(tp).wire
    assert script.asked[0]["reasoning_effort"] == "low"


async def test_parsed_message_goes_back_as_it_came() -> None:
    """What was read does not find its way into the next request."""
    message = {
        "role": "assistant",
        "content": '{"name":"a","people":1}',
        "reasoning_content": "",
        "vendor": [1],
    }
    script = Script(answer(**{k: v for k, v in message.items() if k != "role"}), answer("{}"))
    completion = await script.parse(City)
    await script.completions.create(model="kimi-k3", messages=[QUESTION, completion.choices[0].message])
    assert script.asked[1]["messages"][1] == message


async def test_parse_tells_cut_from_filtered_from_wrong() -> None:
    """Three ways to fail are three errors, each with the completion."""
    with pytest.raises(LengthFinishReasonError) as cut:
        await Script(answer('{"name": "a', "length")).parse(City)
    assert cut.value.completion.choices[0].message.content == '{"name": "a'
    with pytest.raises(ContentFilterFinishReasonError):
        await Script(answer("", "content_filter")).parse(City)
    with pytest.raises(OutputError, match=r"Expected `int`, got `str` - at `\$\.people`") as wrong:
        await Script(answer('{"name": "a", "people": "many"}')).parse(City)
    assert wrong.value.completion.id == "chatcmpl-1"
    assert not wrong.value.truncated
    with pytest.raises(OutputError, match="less than or equal to 5"):
        await Script(answer('{"stars": 9}')).parse(Hotel)
    for nothing in ("", "\n"):
        with pytest.raises(OutputError, match=r"^the answer is empty$") as empty:
            await Script(answer(nothing)).parse(City)
        assert not empty.value.truncated


async def test_parse_asks_again_with_the_validators_words() -> None:
    """A wrong answer goes back with what is wrong with it, as often as allowed; a cut one is never asked for again."""
    wrong = '{"name": "a", "people": "many"}'
    script = Script(
        answer(wrong, reasoning_content="r"), answer("nonsense"), answer('{"name": "a", "people": 1}')
    )
    completion = await script.parse(City, reask=2)
    assert completion.parsed == City("a", 1)
    assert script.asked[1]["messages"][1] == {"role": "assistant", "content": wrong, "reasoning_content": "r"}
    assert "Expected `int`, got `str` - at `$.people`" in script.asked[1]["messages"][2]["content"]
    assert [m["role"] for m in script.asked[2]["messages"]] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]

    script = Script(answer("nonsense"), answer("nonsense"))
    with pytest.raises(OutputError):
        await script.parse(City, reask=1)
    assert len(script.asked) == 2

    script = Script(answer("", "length"))
    with pytest.raises(LengthFinishReasonError):
        await script.parse(City, reask=3)
    assert len(script.asked) == 1


async def test_reask_leaves_an_empty_answer_out() -> None:
    """An empty assistant message in the history would be refused."""
    with pytest.raises(OutputError) as caught:
        await Script(answer("")).parse(City)
    assert [m["role"] for m in reask(caught.value)] == ["user"]


async def test_parse_without_a_type_reads_nothing() -> None:
    """A mapping, or nothing, is sent as it is; `parsed` is None."""
    script = Script(answer("{}"), answer("x"))
    assert (await script.parse({"type": "json_object"})).parsed is None
    assert script.asked[0]["response_format"] == {"type": "json_object"}
    completion = await script.completions.parse(model="kimi-k3", messages=[QUESTION])
    assert completion.choices[0].message.parsed is None
    assert "response_format" not in script.asked[1]


async def test_parse_reads_arguments_of_tools_given_by_type() -> None:
    """Calls of a `pydantic_function_tool` have their arguments read; the answer then has no value."""
    calls = [
        {"id": "Hotel:0", "type": "function", "function": {"name": "Hotel", "arguments": '{"stars": 3}'}}
    ]
    script = Script(answer(None, "tool_calls", tool_calls=calls))
    completion = await script.parse(City, tools=[pydantic_function_tool(Hotel, description="Books.")])
    message = completion.choices[0].message
    assert message.parsed is None
    assert message.tool_calls[0].function.parsed_arguments == Hotel(stars=3)
    assert script.asked[0]["tools"][0]["function"]["name"] == "Hotel"
    assert script.asked[0]["tools"][0]["function"]["description"] == "Books."
    assert script.asked[0]["tools"][0]["function"]["strict"] is True

    calls[0]["function"]["arguments"] = '{"stars": 30}'
    with pytest.raises(OutputError):
        await Script(answer(None, "tool_calls", tool_calls=calls)).parse(
            City, tools=[pydantic_function_tool(Hotel)]
        )


async def test_parse_refuses_types_before_anything_is_sent() -> None:
    """A type without a schema costs no request."""
    script = Script()
    with pytest.raises(SchemaError):
        await script.parse(complex)
    assert script.asked == []


async def test_create_takes_a_type_and_sends_its_schema() -> None:
    """`create` sends the schema and leaves the answer as text."""
    script = Script(answer("{}"))
    await script.completions.create(model="kimi-k3", messages=[QUESTION], response_format=City)
    assert script.asked[0]["response_format"] == response_format_for(City).wire


def test_response_format_of_is_made_once() -> None:
    """Schemas are kept for each type, and what is one already is taken as it is."""
    assert response_format_of(City) is response_format_of(City)
    mine = response_format_for(City, "mine")
    assert response_format_of(mine) is mine
    assert response_format_of({"type": "text"}) is None
    assert response_format_of(None) is None


def test_output_error_pickles_with_its_completion() -> None:
    """The error crosses process borders with the answer."""
    error = OutputError("why", "text")
    error.completion = ChatCompletion.model_validate(answer("text"))
    again = pickle.loads(pickle.dumps(error))
    assert again.completion == error.completion


async def test_stream_with_a_type(kimi_simulator: KimiSimulator) -> None:
    """`content.done` and the final completion carry the value."""
    kimi_simulator.say(Turn(reasoning="Hm.", content='{"name": "Beijing", "people": 22}'))
    async with (
        AsyncKimi(api_key=kimi_simulator.api_key, base_url=kimi_simulator.base_url) as client,
        client.chat.completions.stream(model="kimi-k3", messages=[QUESTION], response_format=City) as stream,
    ):
        done = [event async for event in stream if event.type == "content.done"]
        completion = await stream.get_final_completion()
    assert [event.parsed for event in done] == [City("Beijing", 22)]
    assert completion.choices[0].message.parsed == City("Beijing", 22)
    assert kimi_simulator.requests[-1].json()["response_format"]["json_schema"]["name"] == "City"


async def test_stream_with_a_type_and_a_wrong_answer(kimi_simulator: KimiSimulator) -> None:
    """Events do not raise; the final completion says what is wrong, cut or not of the type."""
    kimi_simulator.say(Turn(content="nonsense"), Turn(content='{"name": "Bei', finish_reason="length"))
    async with AsyncKimi(api_key=kimi_simulator.api_key, base_url=kimi_simulator.base_url) as client:
        for error in (OutputError, LengthFinishReasonError):
            async with client.chat.completions.stream(
                model="kimi-k3", messages=[QUESTION], response_format=City
            ) as stream:
                done = [event async for event in stream if event.type == "content.done"]
                with pytest.raises(error):
                    await stream.get_final_completion()
            assert [event.parsed for event in done] == [None]


async def test_stream_reads_arguments_of_whole_calls(kimi_simulator: KimiSimulator) -> None:
    """A whole call's event carries its arguments as a value: of a type, as plain JSON where strict, None if they do not fit."""
    strict = {
        "type": "function",
        "function": {"name": "plain", "strict": True, "parameters": {"type": "object"}},
    }
    calls = (
        ToolCall("Hotel:0", "Hotel", '{"stars": 3}'),
        ToolCall("plain:1", "plain", '{"a": [1]}'),
        ToolCall("Hotel:2", "Hotel", '{"stars": 30}'),
    )
    kimi_simulator.say(Turn(tool_calls=calls))
    async with (
        AsyncKimi(api_key=kimi_simulator.api_key, base_url=kimi_simulator.base_url) as client,
        client.chat.completions.stream(
            model="kimi-k3", messages=[QUESTION], tools=[pydantic_function_tool(Hotel), strict]
        ) as stream,
    ):
        done = [e.parsed_arguments async for e in stream if e.type == "tool_calls.function.arguments.done"]
        with pytest.raises(OutputError):
            await stream.get_final_completion()
    assert done == [Hotel(stars=3), {"a": [1]}, None]


async def test_stream_with_tools_by_type_ends_with_their_values(kimi_simulator: KimiSimulator) -> None:
    """The final completion of such a stream has `parsed_arguments`; so it has for definitions that the OpenAI SDK made."""
    kimi_simulator.say(Turn(tool_calls=(ToolCall("Hotel:0", "Hotel", '{"stars": 3}'),)))
    async with (
        AsyncKimi(api_key=kimi_simulator.api_key, base_url=kimi_simulator.base_url) as client,
        client.chat.completions.stream(
            model="kimi-k3", messages=[QUESTION], tools=[openai.pydantic_function_tool(Hotel)]
        ) as stream,
    ):
        completion = await stream.get_final_completion()
    call = completion.choices[0].message.tool_calls[0]  # type: ignore[index]
    assert call.function.parsed_arguments == Hotel(stars=3)  # type: ignore[attr-defined]


def test_stream_state_reads_values_without_a_client() -> None:
    """Chunks from anywhere: the state reads the answer as the type, and calls' arguments as theirs."""
    state = ChatCompletionStreamState(response_format=City, input_tools=[pydantic_function_tool(Hotel)])
    events: list[Any] = []
    for text, finish in (('{"name": "a", ', None), ('"people": 1}', None), ("", "stop")):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
        events += state.handle_chunk(ChatCompletionChunk.model_validate({"id": "c", "choices": [choice]}))
    assert [event.parsed for event in events if event.type == "content.done"] == [City("a", 1)]
    completion = state.get_final_completion()
    assert isinstance(completion, ParsedChatCompletion)
    assert completion.parsed == City("a", 1)
    assert state.current_completion_snapshot.choices[0].message.content == '{"name": "a", "people": 1}'
