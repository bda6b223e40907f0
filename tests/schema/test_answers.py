"""
`parse`, and `stream` with a type: an answer as a value, and what is wrong when it is not one.
"""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import dataclass
from typing import Annotated, Any

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
from kimi_async.schema import ROOT_KEY, check_mfjs, partial, response_format_for
from kimi_async.schema.answers import reask, response_format_of, value_so_far
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


class Cat(pydantic.BaseModel):
    lives: int
    name: str = "?"


class Dog(pydantic.BaseModel):
    name: str


@dataclass
class Fare:
    price: float


@pytest.mark.parametrize(
    ("tp", "text", "value"),
    [
        (Cat | Dog, '{"lives": 9}', Cat(lives=9)),
        (Cat | Dog, '{"name": "Rex"}', Dog(name="Rex")),
        (Dog | Cat, '{"name": "Tom", "lives": 9}', Cat(lives=9, name="Tom")),
        (list[Cat | Dog], '[{"name": "Rex"}, {"lives": 9}]', [Dog(name="Rex"), Cat(lives=9)]),
        (dict[str, Cat | Dog], '{"a": {"name": "Rex"}}', {"a": Dog(name="Rex")}),
        (Cat | str, '"none"', "none"),
        (Cat | str, '{"lives": 9}', Cat(lives=9)),
        (Cat | Dog | None, "null", None),
        (Road | Fare, '{"price": 2.5}', Fare(2.5)),
        (Road | Fare, '{"length": 3.0}', Road(3.0)),
        (list[Road | Fare], '[{"price": 1.0}]', [Fare(1.0)]),
        (City | Road, '{"name": "Rome", "people": 3}', City("Rome", 3)),
        (Annotated[Cat | Dog, "either"], '{"name": "Rex"}', Dog(name="Rex")),
    ],
    ids=str,
)
def test_response_format_of_a_union_that_has_no_tag(tp: Any, text: str, value: Any) -> None:
    """Each member is tried; the one that knows most of the fields has the answer. The schema is one that Kimi takes."""
    wanted = response_format_for(tp)
    assert [] == check_mfjs(wanted.schema)
    assert value == wanted.decode(f'{{"{ROOT_KEY}": {text}}}' if wanted.wrapped else text)


def test_response_format_of_a_union_that_fits_no_member() -> None:
    """The reason names every member's."""
    wanted = response_format_for(list[Road | Fare])
    with pytest.raises(OutputError) as caught:
        wanted.decode(f'{{"{ROOT_KEY}": [{{"colour": "red"}}]}}')
    assert "Road" in caught.value.reason
    assert "Fare" in caught.value.reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("{", {}),
        ('{"na', {}),
        ('{"name": "Bei', {"name": "Bei"}),
        ('{"name": "Beijing", "people": 2', {"name": "Beijing", "people": 2}),
        ("nonsense", None),
        ("[" * 10_000, None),
    ],
)
def test_value_so_far_of_a_text_that_is_still_coming(text: str, value: Any) -> None:
    """As much as can be read, the last string as far as it goes."""
    wanted = response_format_for(City)
    assert value == value_so_far(wanted, text)
    assert value_so_far(response_format_for(list[int]), '{"value": [1, 2,') == [1, 2]


@pytest.mark.parametrize("missing", [("jiter",), ("jiter", "pydantic_core")])
def test_value_so_far_with_what_is_installed(
    missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pydantic's reader does where jiter is not there; without either nothing is read, and nothing breaks."""
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    partial._reader.cache_clear()
    try:
        expected = {"name": "Bei"} if len(missing) == 1 else None
        assert expected == partial.read_so_far('{"name": "Bei')
    finally:
        partial._reader.cache_clear()


async def test_stream_with_a_type_shows_the_value_as_it_comes(kimi_simulator: KimiSimulator) -> None:
    """`content.delta` has in `parsed` what can be read so far; without a type it has None."""
    kimi_simulator.say(Turn(content='{"name": "Beijing", "people": 22}'), Turn(content='{"a": 1}'))
    async with AsyncKimi(api_key=kimi_simulator.api_key, base_url=kimi_simulator.base_url) as client:
        async with client.chat.completions.stream(
            model="kimi-k3", messages=[QUESTION], response_format=City
        ) as stream:
            seen = [event.parsed async for event in stream if event.type == "content.delta"]
        async with client.chat.completions.stream(model="kimi-k3", messages=[QUESTION]) as stream:
            plain = [event.parsed async for event in stream if event.type == "content.delta"]
            completion = await stream.get_final_completion()
    assert seen[-1] == {"name": "Beijing", "people": 22}
    assert len({str(value) for value in seen}) > 2
    assert {None} == set(plain)
    assert completion.choices[0].message.parsed is None


async def test_stream_without_a_type_has_the_attributes_of_parsed_ones(kimi_simulator: KimiSimulator) -> None:
    """Programs ask `message.parsed` and `function.parsed_arguments` of every final completion, cut or not."""
    kimi_simulator.say(
        Turn(tool_calls=(ToolCall("f:0", "f", '{"a": 1}'),)), Turn(content="Be", finish_reason="length")
    )
    async with AsyncKimi(api_key=kimi_simulator.api_key, base_url=kimi_simulator.base_url) as client:
        for expected in ("tool_calls", "length"):
            async with client.chat.completions.stream(model="kimi-k3", messages=[QUESTION]) as stream:
                completion = await stream.get_final_completion()
            choice = completion.choices[0]
            assert choice.finish_reason == expected
            assert choice.message.parsed is None
            for call in choice.message.tool_calls or ():
                assert call.function.parsed_arguments is None
