"""
The simulator answers chats like the API it stands for.
"""

import json
from typing import Any

import aiohttp
import pytest

from kimi_async.schema import check_mfjs
from kimi_async.testing.simulator.chat_model import ToolCall, Turn, think
from kimi_async.testing.simulator.models import MODELS
from kimi_async.testing.simulator.replies import error_reply
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.testing.simulator.service import KimiService
from support.bare_client import TOOL, USER, Client, chat, joined, undisturbed

# --- chat ----------------------------------------------------------------------------------------------


async def test_chat_same_text_streamed_or_whole(client: Client) -> None:
    """Streaming changes how the answer comes, not what it says."""
    _, whole, _ = await client.chat(chat())
    chunks = await client.chunks(chat())

    message = whole["choices"][0]["message"]
    assert message["content"] == joined(chunks, "content")
    assert message["reasoning_content"] == joined(chunks, "reasoning_content")
    assert len(message["content"]) > 100


async def test_chat_chunks_in_documented_order(client: Client) -> None:
    """
    Role, reasoning, content, finish chunk with usage inside its choice; nothing after it without include_usage.
    """
    chunks = await client.chunks(chat())

    kinds = ["+".join(chunk["choices"][0]["delta"]) or "finish" for chunk in chunks]
    order = list(dict.fromkeys(kinds))
    assert ["role+content", "reasoning_content", "content", "finish"] == order
    assert "stop" == chunks[-1]["choices"][0]["finish_reason"]
    assert chunks[-1]["choices"][0]["usage"]["completion_tokens"] > 0
    assert 1 == len({chunk["id"] for chunk in chunks})


async def test_chat_last_chunk_has_usage_when_asked(client: Client) -> None:
    """include_usage adds a chunk without choices, equal to the usage of the finish chunk."""
    chunks = await client.chunks(chat(stream_options={"include_usage": True}))

    assert [] == chunks[-1]["choices"]
    assert chunks[-2]["choices"][0]["usage"] == chunks[-1]["usage"]


async def test_chat_counts_every_token(client: Client) -> None:
    """completion_tokens includes reasoning; one chunk carries one token."""
    chunks = await client.chunks(chat())

    usage = chunks[-1]["choices"][0]["usage"]
    spoken = [chunk for chunk in chunks[1:-1] if chunk["choices"]]
    reasoned = [chunk for chunk in spoken if "reasoning_content" in chunk["choices"][0]["delta"]]
    assert len(spoken) == usage["completion_tokens"]
    assert len(reasoned) == usage["completion_tokens_details"]["reasoning_tokens"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


async def test_chat_cached_tokens_only_on_a_hit(client: Client) -> None:
    """The cached count stands in two places, and in neither the first time; the header repeats it."""
    _, first, _ = await client.chat(chat())
    _, second, headers = await client.chat(chat())

    assert not {"cached_tokens", "prompt_tokens_details"} & first["usage"].keys()
    assert second["usage"]["prompt_tokens"] == second["usage"]["cached_tokens"]
    assert second["usage"]["cached_tokens"] == second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert str(second["usage"]["cached_tokens"]) == headers["Msh-Context-Cache-Token-Saved"]


async def test_chat_budget_spent_on_reasoning_gives_empty_content(client: Client) -> None:
    """A small budget is a 200 with content "" and finish_reason "length": reasoning is paid from it first."""
    status, body, _ = await client.chat(chat(max_completion_tokens=3))

    choice = body["choices"][0]
    assert (200, "", "length") == (status, choice["message"]["content"], choice["finish_reason"])
    assert 3 == body["usage"]["completion_tokens"]


async def test_chat_stop_word_ends_content_before_it(client: Client) -> None:
    """The stop word and what follows it are not in the answer."""
    _, undisturbed, _ = await client.chat(chat())
    text: str = undisturbed["choices"][0]["message"]["content"]
    word = text.split()[8]

    _, body, _ = await client.chat(chat(stop=word))

    assert text[: text.index(word)] == body["choices"][0]["message"]["content"]
    assert "stop" == body["choices"][0]["finish_reason"]


async def test_chat_thinking_disabled_gives_no_reasoning(client: Client) -> None:
    """K3 and K2.6 can be told not to think."""
    _, body, _ = await client.chat(chat(thinking={"type": "disabled"}))

    assert "reasoning_content" not in body["choices"][0]["message"]
    assert "completion_tokens_details" not in body["usage"]


async def test_chat_parallel_tool_calls_stream_in_fragments(client: Client) -> None:
    """The head of a call has an empty arguments string; the fragments join to JSON; ids restart at 0."""
    body = chat([{"role": "user", "content": "Weather in Beijing and Shanghai?"}], tools=[TOOL])
    chunks = await client.chunks(body)

    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    heads = [delta for delta in deltas if "id" in delta]
    text = {0: "", 1: ""}
    for delta in deltas:
        text[delta["index"]] += delta["function"]["arguments"]
    assert ["get_weather:0", "get_weather:1"] == [head["id"] for head in heads]
    assert {""} == {head["function"]["arguments"] for head in heads}
    assert [{"city": "Beijing"}, {"city": "Shanghai"}] == [json.loads(text[0]), json.loads(text[1])]
    assert "tool_calls" == chunks[-1]["choices"][0]["finish_reason"]


async def test_chat_answers_in_text_after_tool_results(client: Client) -> None:
    """Once every call has its answer the model speaks."""
    call = {"id": "get_weather:0", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        *USER,
        {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "get_weather:0", "content": "21 C"},
    ]
    _, body, _ = await client.chat(chat(messages, tools=[TOOL]))

    assert "stop" == body["choices"][0]["finish_reason"]
    assert body["choices"][0]["message"]["content"]


async def test_chat_web_search_call_is_builtin(client: Client) -> None:
    """`$web_search` comes back as a builtin_function; its tokens are billed in the next prompt."""
    tool = {"type": "builtin_function", "function": {"name": "$web_search"}}
    _, body, _ = await client.chat(chat(tools=[tool], thinking={"type": "disabled"}))
    message = body["choices"][0]["message"]
    call = message["tool_calls"][0]
    arguments = json.loads(call["function"]["arguments"])
    result = {
        "role": "tool",
        "tool_call_id": call["id"],
        "name": "$web_search",
        "content": call["function"]["arguments"],
    }
    _, after, _ = await client.chat(
        chat([*USER, message, result], tools=[tool], thinking={"type": "disabled"})
    )

    assert "builtin_function" == call["type"]
    assert after["usage"]["prompt_tokens"] > arguments["usage"]["total_tokens"]


@pytest.mark.parametrize("words", [(1, 3), (200, 300)])
async def test_chat_words_bound_the_length(words: tuple[int, int]) -> None:
    """`words` is the least and greatest length of the prose, so a test can ask for long streams."""
    turn = think(MODELS[2], {"messages": []}, words=words)
    count = len([word for word in turn.content.split() if word.strip()])

    assert words[0] <= count <= words[1] * 1.6


@pytest.mark.parametrize("seed", range(40))
def test_think_json_schema_is_satisfied(seed: int) -> None:
    """A structured answer parses and satisfies its schema, bounds, enums, anyOf and recursion included."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "kind": {"type": "string", "enum": ["a", "b"]},
            "count": {"type": "integer", "minimum": 3, "maximum": 5},
            "share": {"type": "number", "minimum": 0.5, "maximum": 0.75},
            "name": {"type": "string", "minLength": 30, "maxLength": 40},
            "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        },
        "required": ["kind", "count", "share", "name", "tags", "next"],
        "additionalProperties": False,
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["next"],
            }
        },
    }
    request = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    value = json.loads(think(MODELS[2], {"messages": USER, **request}, seed=seed).content)

    assert check_mfjs(schema) == []
    assert value["kind"] in ("a", "b")
    assert 3 <= value["count"] <= 5
    assert 0.5 <= value["share"] <= 0.75
    assert 30 <= len(value["name"]) <= 40
    assert 2 <= len(value["tags"]) <= 3
    node = value["next"]
    while node is not None:
        assert {"next"} == node.keys()
        node = node["next"]


async def test_say_scripts_the_next_answers(sim: KimiSimulator, client: Client) -> None:
    """Scripted turns are given out once each, in order; then the usual text returns."""
    call = ToolCall("f:0", "f", "{}")
    sim.say("One.", Turn("Two.", "hm", (call,)), error_reply("overloaded"))

    first = (await client.chat(chat()))[1]["choices"][0]
    second = (await client.chat(chat()))[1]["choices"][0]
    status, third, _ = await client.chat(chat())
    _, fourth, _ = await client.chat(chat())

    assert ("One.", "stop") == (first["message"]["content"], first["finish_reason"])
    assert ("Two.", "tool_calls") == (second["message"]["content"], second["finish_reason"])
    assert (429, "engine_overloaded_error") == (status, third["error"]["type"])
    assert fourth["choices"][0]["message"]["content"].startswith("You said: ")


async def test_responder_sees_the_request() -> None:
    """A function may answer instead; None leaves the question to the model."""
    answers = {"ping": "pong"}

    def responder(request: dict[str, Any]) -> str | None:
        return answers.get(request["messages"][-1]["content"])

    async with KimiSimulator(responder=responder) as sim, aiohttp.ClientSession() as session:
        client = Client(sim, session)
        _, known, _ = await client.chat(chat([{"role": "user", "content": "ping"}]))
        _, other, _ = await client.chat(chat())

    assert "pong" == known["choices"][0]["message"]["content"]
    assert "pong" != other["choices"][0]["message"]["content"]


# --- partial mode --------------------------------------------------------------------------------------


async def test_partial_continues_content_at_every_character(client: Client) -> None:
    """Whatever prefix of the text is given back, the reply is the rest of it, and no reasoning again."""
    turn = undisturbed()
    service = KimiService()
    for at in range(1, len(turn.content) + 1):
        partial = {
            "role": "assistant",
            "content": turn.content[:at],
            "reasoning_content": turn.reasoning,
            "partial": True,
        }
        rest = service.turn(MODELS[2], chat([*USER, partial]))
        assert Turn(turn.content[at:]) == rest


async def test_partial_continues_reasoning_at_every_character() -> None:
    """With reasoning only, the thinking goes on where it stopped and the content follows whole."""
    turn = undisturbed()
    service = KimiService()
    for at in range(1, len(turn.reasoning) + 1):
        partial = {
            "role": "assistant",
            "content": "",
            "reasoning_content": turn.reasoning[:at],
            "partial": True,
        }
        rest = service.turn(MODELS[2], chat([*USER, partial]))
        assert Turn(turn.content, turn.reasoning[at:]) == rest


async def test_partial_reasoning_before_tool_calls_leads_to_the_same_calls() -> None:
    """Interrupted while thinking, the model still makes the calls it was thinking about."""
    service = KimiService()
    body = chat([{"role": "user", "content": "Weather in Beijing and Shanghai?"}], tools=[TOOL])
    turn = service.turn(MODELS[2], body)
    assert isinstance(turn, Turn)
    partial = {"role": "assistant", "content": "", "reasoning_content": turn.reasoning[:9], "partial": True}

    rest = service.turn(MODELS[2], {**body, "messages": [*body["messages"], partial]})

    assert 2 == len(turn.tool_calls)
    assert Turn("", turn.reasoning[9:], turn.tool_calls) == rest


async def test_partial_streams_only_the_continuation(client: Client) -> None:
    """On the wire too: prefix + streamed continuation is the undisturbed text."""
    turn = undisturbed()
    partial = {"role": "assistant", "content": turn.content[:37], "partial": True}
    chunks = await client.chunks(chat([*USER, partial]))

    assert turn.content[37:] == joined(chunks, "content")
    assert "" == joined(chunks, "reasoning_content")


async def test_partial_foreign_prefix_gets_its_own_continuation(client: Client) -> None:
    """A prefix the model would not have said is continued all the same, always by the same words."""
    partial = {"role": "assistant", "content": "Quoth the raven: ", "partial": True}
    texts = [joined(await client.chunks(chat([*USER, partial])), "content") for _ in range(2)]

    assert texts[0] == texts[1]
    assert texts[0]
    assert texts[0] not in undisturbed().content


async def test_partial_on_an_earlier_message_means_nothing(client: Client) -> None:
    """Only the last message can be a prefix."""
    history = [
        *USER,
        {"role": "assistant", "content": "You said", "partial": True},
        {"role": "user", "content": "Go on"},
    ]
    _, body, _ = await client.chat(chat(history))

    assert body["choices"][0]["message"]["content"].startswith("You said: 'Go on'.")
