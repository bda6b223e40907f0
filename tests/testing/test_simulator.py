"""
The simulator behaves like the API it stands for. Clients here are bare aiohttp: what they see is what was sent.
"""

import asyncio
import json
import math
import os
import re
import ssl
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_async import testing
from kimi_async.errors import ConfigurationError
from kimi_async.schema import check_mfjs
from kimi_async.testing.faults import Drop, Error, Fault, FaultPlan
from kimi_async.testing.service_in_memory import in_memory
from kimi_async.testing.simulator.chat_model import ToolCall, Turn, generate, think
from kimi_async.testing.simulator.models import MODELS
from kimi_async.testing.simulator.replies import Head, Pace, error_reply
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.testing.simulator.server_limits import ServerLedger, ServerLimits, Storm
from kimi_async.testing.simulator.service import KimiService
from kimi_async.testing.simulator.validation import check_chat
from kimi_async.testing.simulator.words import tokenize
from kimi_async.transport.exchange import Headers, Request

USER = [{"role": "user", "content": "Tell me about the moon."}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def chat(messages: list[Any] = USER, **options: Any) -> dict[str, Any]:
    return {"model": "kimi-k3", "messages": messages, **options}


class Client:
    """Posts JSON and reads what comes, without any leniency."""

    def __init__(self, sim: KimiSimulator, session: aiohttp.ClientSession) -> None:
        self.url, self.key, self.session = sim.base_url, sim.api_key, session

    def open(self, path: str, body: Any = None, *, method: str = "POST", **headers: str) -> Any:
        sent = {"Authorization": f"Bearer {self.key}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return self.session.request(
            method, self.url + path, data=None if body is None else json.dumps(body), headers=sent
        )

    async def json(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any, Any]:
        async with self.open(path, body, **options) as response:
            return response.status, await response.json(), response.headers

    async def chat(self, body: Any, **options: Any) -> tuple[int, Any, Any]:
        return await self.json("/chat/completions", body, **options)

    async def lines(self, body: Any) -> list[str]:
        """The payloads of a stream; fails on anything but `data:` lines and blank ones."""
        async with self.open("/chat/completions", {**body, "stream": True}) as response:
            assert 200 == response.status
            text = (await response.read()).decode()
        blocks = text.split("\n\n")
        assert "" == blocks.pop()
        assert all(block.startswith("data: ") for block in blocks)
        return [block.removeprefix("data: ") for block in blocks]

    async def chunks(self, body: Any) -> list[Any]:
        lines = await self.lines(body)
        assert "[DONE]" == lines.pop()
        return [json.loads(line) for line in lines]


@pytest.fixture
async def sim() -> AsyncIterator[KimiSimulator]:
    async with KimiSimulator() as simulator:
        yield simulator


@pytest.fixture
async def client(sim: KimiSimulator) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(sim, session)


def joined(chunks: list[Any], key: str) -> str:
    return "".join(chunk["choices"][0]["delta"].get(key) or "" for chunk in chunks if chunk["choices"])


# --- chat -----------------------------------------------------------------------------------------------


async def test_chat_same_text_streamed_or_whole(client: Client) -> None:
    """
    Streaming changes how the answer comes, not what it says.
    """
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
    """
    include_usage adds a chunk without choices, equal to the usage of the finish chunk.
    """
    chunks = await client.chunks(chat(stream_options={"include_usage": True}))

    assert [] == chunks[-1]["choices"]
    assert chunks[-2]["choices"][0]["usage"] == chunks[-1]["usage"]


async def test_chat_counts_every_token(client: Client) -> None:
    """
    completion_tokens includes reasoning; one chunk carries one token.
    """
    chunks = await client.chunks(chat())

    usage = chunks[-1]["choices"][0]["usage"]
    spoken = [chunk for chunk in chunks[1:-1] if chunk["choices"]]
    reasoned = [chunk for chunk in spoken if "reasoning_content" in chunk["choices"][0]["delta"]]
    assert len(spoken) == usage["completion_tokens"]
    assert len(reasoned) == usage["completion_tokens_details"]["reasoning_tokens"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


async def test_chat_cached_tokens_only_on_a_hit(client: Client) -> None:
    """
    The cached count stands in two places, and in neither the first time; the header repeats it.
    """
    _, first, _ = await client.chat(chat())
    _, second, headers = await client.chat(chat())

    assert not {"cached_tokens", "prompt_tokens_details"} & first["usage"].keys()
    assert second["usage"]["prompt_tokens"] == second["usage"]["cached_tokens"]
    assert second["usage"]["cached_tokens"] == second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert str(second["usage"]["cached_tokens"]) == headers["Msh-Context-Cache-Token-Saved"]


async def test_chat_budget_spent_on_reasoning_gives_empty_content(client: Client) -> None:
    """
    A small budget is a 200 with content "" and finish_reason "length": reasoning is paid from it first.
    """
    status, body, _ = await client.chat(chat(max_completion_tokens=3))

    choice = body["choices"][0]
    assert (200, "", "length") == (status, choice["message"]["content"], choice["finish_reason"])
    assert 3 == body["usage"]["completion_tokens"]


async def test_chat_stop_word_ends_content_before_it(client: Client) -> None:
    """
    The stop word and what follows it are not in the answer.
    """
    _, undisturbed, _ = await client.chat(chat())
    text: str = undisturbed["choices"][0]["message"]["content"]
    word = text.split()[8]

    _, body, _ = await client.chat(chat(stop=word))

    assert text[: text.index(word)] == body["choices"][0]["message"]["content"]
    assert "stop" == body["choices"][0]["finish_reason"]


async def test_chat_thinking_disabled_gives_no_reasoning(client: Client) -> None:
    """
    K3 and K2.6 can be told not to think.
    """
    _, body, _ = await client.chat(chat(thinking={"type": "disabled"}))

    assert "reasoning_content" not in body["choices"][0]["message"]
    assert "completion_tokens_details" not in body["usage"]


async def test_chat_parallel_tool_calls_stream_in_fragments(client: Client) -> None:
    """
    The head of a call has an empty arguments string; the fragments join to JSON; ids restart at 0.
    """
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
    """
    Once every call has its answer the model speaks.
    """
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
    """
    `$web_search` comes back as a builtin_function; its tokens are billed in the next prompt.
    """
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
    """
    `words` is the least and greatest length of the prose, so a test can ask for long streams.
    """
    turn = think(MODELS[2], {"messages": []}, words=words)
    count = len([word for word in turn.content.split() if word.strip()])

    assert words[0] <= count <= words[1] * 1.6


@pytest.mark.parametrize("seed", range(40))
def test_think_json_schema_is_satisfied(seed: int) -> None:
    """
    A structured answer parses and satisfies its schema, bounds, enums, anyOf and recursion included.
    """
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
    """
    Scripted turns are given out once each, in order; then the usual text returns.
    """
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
    """
    A function may answer instead; None leaves the question to the model.
    """
    answers = {"ping": "pong"}

    def responder(request: dict[str, Any]) -> str | None:
        return answers.get(request["messages"][-1]["content"])

    async with KimiSimulator(responder=responder) as sim, aiohttp.ClientSession() as session:
        client = Client(sim, session)
        _, known, _ = await client.chat(chat([{"role": "user", "content": "ping"}]))
        _, other, _ = await client.chat(chat())

    assert "pong" == known["choices"][0]["message"]["content"]
    assert "pong" != other["choices"][0]["message"]["content"]


# --- partial mode ---------------------------------------------------------------------------------------


def undisturbed() -> Turn:
    return think(MODELS[2], chat())


async def test_partial_continues_content_at_every_character(client: Client) -> None:
    """
    Whatever prefix of the text is given back, the reply is the rest of it, and no reasoning again.
    """
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
    """
    With reasoning only, the thinking goes on where it stopped and the content follows whole.
    """
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
    """
    Interrupted while thinking, the model still makes the calls it was thinking about.
    """
    service = KimiService()
    body = chat([{"role": "user", "content": "Weather in Beijing and Shanghai?"}], tools=[TOOL])
    turn = service.turn(MODELS[2], body)
    assert isinstance(turn, Turn)
    partial = {"role": "assistant", "content": "", "reasoning_content": turn.reasoning[:9], "partial": True}

    rest = service.turn(MODELS[2], {**body, "messages": [*body["messages"], partial]})

    assert 2 == len(turn.tool_calls)
    assert Turn("", turn.reasoning[9:], turn.tool_calls) == rest


async def test_partial_streams_only_the_continuation(client: Client) -> None:
    """
    On the wire too: prefix + streamed continuation is the undisturbed text.
    """
    turn = undisturbed()
    partial = {"role": "assistant", "content": turn.content[:37], "partial": True}
    chunks = await client.chunks(chat([*USER, partial]))

    assert turn.content[37:] == joined(chunks, "content")
    assert "" == joined(chunks, "reasoning_content")


async def test_partial_foreign_prefix_gets_its_own_continuation(client: Client) -> None:
    """
    A prefix the model would not have said is continued all the same, always by the same words.
    """
    partial = {"role": "assistant", "content": "Quoth the raven: ", "partial": True}
    texts = [joined(await client.chunks(chat([*USER, partial])), "content") for _ in range(2)]

    assert texts[0] == texts[1]
    assert texts[0]
    assert texts[0] not in undisturbed().content


async def test_partial_on_an_earlier_message_means_nothing(client: Client) -> None:
    """
    Only the last message can be a prefix.
    """
    history = [
        *USER,
        {"role": "assistant", "content": "You said", "partial": True},
        {"role": "user", "content": "Go on"},
    ]
    _, body, _ = await client.chat(chat(history))

    assert body["choices"][0]["message"]["content"].startswith("You said: 'Go on'.")


# --- other endpoints and headers ------------------------------------------------------------------------


async def test_models_lists_current_ids_only(client: Client) -> None:
    """
    Retired models are neither listed nor answered.
    """
    _, models, _ = await client.json("/models", method="GET")
    _, one, _ = await client.json("/models/kimi-k3", method="GET")
    status, gone, _ = await client.chat(chat(model="kimi-k2.5"))

    assert [model.id for model in MODELS] == [entry["id"] for entry in models["data"]]
    assert next(entry for entry in models["data"] if entry["id"] == "kimi-k3") == one
    assert (404, "Not found the model kimi-k2.5 or Permission denied") == (status, gone["error"]["message"])


async def test_estimate_equals_prompt_tokens(client: Client) -> None:
    """
    What the tokenizer says beforehand is what chat bills afterwards.
    """
    _, estimate, _ = await client.json("/tokenizers/estimate-token-count", chat())
    _, body, _ = await client.chat(chat())

    assert estimate["data"]["total_tokens"] == body["usage"]["prompt_tokens"]


async def test_balance_has_the_envelope(client: Client) -> None:
    """
    code, data, scode and status surround the three amounts.
    """
    _, body, _ = await client.json("/users/me/balance", method="GET")

    assert ["code", "data", "scode", "status"] == list(body)
    assert {"available_balance", "voucher_balance", "cash_balance"} == body["data"].keys()


async def test_signature_verifies_only_what_was_signed(client: Client) -> None:
    """
    A nonce brings two headers; they prove that reply and no other.
    """
    _, _, headers = await client.chat(chat(), X_Msh_Request_Nonce="6f1c")
    claim = {
        "nonce": "6f1c",
        "timestamp": int(headers["Msh-Request-Timestamp"]),
        "model": "kimi-k3",
        "signature": headers["Msh-Request-Signature"],
    }
    _, good, _ = await client.json("/signatures/verify", claim)
    _, bad, _ = await client.json("/signatures/verify", {**claim, "model": "kimi-k2.6"})
    _, _, unsigned = await client.chat(chat())

    assert ({"valid": True}, {"valid": False}) == (good, bad)
    assert claim["signature"].startswith("reqsigv1_")
    assert "Msh-Request-Signature" not in unsigned


@pytest.mark.parametrize("uri", ["moonshot/web-search:latest", "moonshot%2Fweb-search%3Alatest"])
async def test_formula_runs_whether_its_uri_is_escaped_or_not(client: Client, uri: str) -> None:
    """
    Slashes and the colon of a formula's uri are accepted as they are and percent-encoded.
    """
    _, tools, _ = await client.json(f"/formulas/{uri}/tools", method="GET")
    name = tools["tools"][0]["function"]["name"]
    _, fiber, _ = await client.json(f"/formulas/{uri}/fibers", {"name": name, "arguments": '{"query":"x"}'})

    assert ("succeeded", "moonshot/web-search:latest") == (fiber["status"], fiber["formula"])
    assert fiber["context"]["encrypted_output"].startswith("----MOONSHOT ENCRYPTED BEGIN----")


async def test_headers_identify_every_reply(client: Client) -> None:
    """
    Request ids differ from reply to reply and have the official shapes; there is no x-request-id.
    """
    _, _, first = await client.json("/models", method="GET")
    _, _, second = await client.json("/models", method="GET")

    assert 36 == len(first["Msh-Request-Id"])
    assert 32 == len(first["X-Msh-Trace-Id"])
    assert first["Msh-Request-Id"] != second["Msh-Request-Id"]
    assert "on" == first["Msh-Trace-Mode"]
    assert "x-request-id" not in first
    assert "application/json; charset=utf-8" == first["Content-Type"]


@pytest.mark.parametrize(
    ("authorization", "kind"),
    [
        ("", "incorrect_api_key_error"),
        ("Bearer", "incorrect_api_key_error"),
        ("Bearer nonsense", "incorrect_api_key_error"),
        ("Bearer sk-of-somebody-else", "invalid_authentication_error"),
    ],
)
async def test_key_refused_without_account_ids(client: Client, authorization: str, kind: str) -> None:
    """
    No or garbled key and a foreign key have their own types; whom the account belongs to is not told.
    """
    status, body, headers = await client.json("/models", method="GET", Authorization=authorization)

    assert (401, kind) == (status, body["error"]["type"])
    assert "Msh-Org-Id" not in headers


async def test_files_share_key_books_and_faults(sim: KimiSimulator, client: Client) -> None:
    """
    Files and batches are behind the same door as chat: key, counters, records and faults apply.
    """
    refused, _, _ = await client.json("/files", method="GET", Authorization="Bearer sk-wrong")
    status, files, headers = await client.json("/files", method="GET")
    sim.faults = FaultPlan([Error("server_error")], path="/files")
    broken, _, _ = await client.json("/files", method="GET")

    assert (401, 200, 500) == (refused, status, broken)
    assert [] == files["data"]
    assert "Msh-Request-Id" in headers
    assert {"GET /v1/files": 3} == sim.stats.by_path
    assert [401, 200, 500] == [request.status for request in sim.requests]
    assert {"error": 1} == sim.stats.faults


async def test_batch_is_answered_by_the_same_model(sim: KimiSimulator, client: Client) -> None:
    """
    What a batch line gets is what chat would have said; a refused line carries the refusal.
    """
    question = {"model": "kimi-k2.6", "messages": USER}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for name, body in (("good", question), ("bad", {**question, "temperature": 0}))
    ]
    data = "\n".join(map(json.dumps, lines)).encode()
    file = sim.storage.put("in.jsonl", data, purpose="batch")
    sim.storage.pace.validating = sim.storage.pace.in_progress = sim.storage.pace.finalizing = 0
    order = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    _, batch, _ = await client.json("/batches", order)
    _, batch, _ = await client.json(f"/batches/{batch['id']}", method="GET")
    _, direct, _ = await client.chat(question)
    results = {}
    for key in ("output_file_id", "error_file_id"):
        async with client.open(f"/files/{batch[key]}/content", method="GET") as response:
            results[key] = json.loads(await response.read())

    assert "completed" == batch["status"]
    body = results["output_file_id"]["response"]["body"]
    assert direct["choices"][0]["message"] == body["choices"][0]["message"]
    assert direct["id"] != body["id"]
    assert "invalid temperature" in results["error_file_id"]["error"]["message"]


async def test_unknown_path_and_method_are_404(client: Client) -> None:
    """
    `POST /v1/models` does not exist, nor do embeddings.
    """
    wrong_method = await client.json("/models", {}, method="POST")
    wrong_path = await client.json("/embeddings", {}, method="POST")

    assert [404, 404] == [wrong_method[0], wrong_path[0]]


# --- the 400s -------------------------------------------------------------------------------------------

ASSISTANT_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"messages": []}, "messages is required"),
        ({"model": ""}, "model is required"),
        ({"temperature": 0.3}, "invalid temperature: only 1 is allowed for this model"),
        ({"model": "kimi-k2.6", "thinking": {"type": "disabled"}, "temperature": 1}, "only 0.6 is allowed"),
        ({"top_p": 1}, "invalid top_p: only 0.95 is allowed for this model"),
        ({"n": 2}, "invalid n: only 1 is allowed for this model"),
        ({"presence_penalty": 0.5}, "invalid presence_penalty: only 0 is allowed"),
        (
            {"stop": list("abcdef")},
            "stop array too long. Expected an array with maximum length 5, but got 6",
        ),
        ({"stop": "x" * 33}, "32 bytes"),
        ({"max_completion_tokens": 2_000_000}, "exceeded model token limit: 1048576"),
        (
            {"messages": [*USER, {"role": "assistant", "content": ""}]},
            "position 1 with role 'assistant' must not be empty",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
            "text content is empty",
        ),
        ({"messages": [{"role": "developer", "content": "x"}]}, "invalid role: developer"),
        ({"messages": [{"role": "user", "content": 7}]}, "tokenization failed"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}],
                    }
                ]
            },
            "unsupported image url",
        ),
        (
            {"messages": [*USER, ASSISTANT_CALL]},
            "The following tool_call_ids did not have response messages: f:0",
        ),
        (
            {"messages": [*USER, {"role": "tool", "content": "x", "tool_call_id": "ghost"}]},
            "tool_call_id ghost is not found",
        ),
        ({"messages": [*USER, {"role": "tool", "content": "x"}]}, "tool_call_id  is not found"),
        (
            {
                "model": "kimi-k2.6",
                "messages": [*USER, ASSISTANT_CALL, {"role": "tool", "tool_call_id": "f:0", "content": "x"}],
            },
            "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1",
        ),
        (
            {"messages": [*USER, {**ASSISTANT_CALL, "tool_calls": ASSISTANT_CALL["tool_calls"] * 2}]},
            "f:0 is duplicated",
        ),
        ({"tools": [{"function": {"name": "f"}}]}, "unknown tool type: , currently only function and plugin"),
        ({"tools": [{"type": "function", "function": {"name": "1bad"}}]}, "function name '1bad' is invalid"),
        ({"tools": [TOOL, TOOL]}, "function name get_weather is duplicated"),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "parameters": {
                                "type": "object",
                                "properties": {"x": {"type": "string", "anyOf": [{"type": "string"}]}},
                            },
                        },
                    }
                ]
            },
            "At path '/properties/x/type': type must not stand beside anyOf",
        ),
        ({"tool_choice": "required"}, "tool_choice 'required' needs tools"),
        ({"tool_choice": "required", "tools": []}, "tool_choice 'required' needs tools"),
        ({"thinking": {"effort": "none"}}, "effort must be low, high or max"),
        (
            {"model": "kimi-k2.6", "tools": [TOOL], "tool_choice": "required"},
            "tool_choice 'required' is incompatible with thinking enabled",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
            "tool_choice 'specified' is incompatible with thinking enabled",
        ),
        ({"tool_choice": "sometimes"}, "invalid tool_choice"),
        (
            {"model": "kimi-k2.7-code", "thinking": {"type": "disabled"}},
            "invalid thinking: only type=enabled is allowed for this model",
        ),
        (
            {"model": "kimi-k2.6", "thinking": {"type": "enabled"}, "reasoning_effort": "high"},
            "cannot specify both 'thinking' and 'reasoning_effort'",
        ),
        ({"response_format": {"type": "yaml"}}, "unknown response_format type: yaml"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "name is required"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "array"}},
                }
            },
            "the root must have type object",
        ),
        (
            {
                "messages": [*USER, {"role": "assistant", "content": "{", "partial": True}],
                "response_format": {"type": "json_object"},
            },
            "partial is incompatible",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "tools": [TOOL]}]},
            "only allowed in system messages",
        ),
    ],
)
def test_check_chat_refuses(change: dict[str, Any], text: str) -> None:
    """
    Each mistake is a 400 that names it.
    """
    refusal = check_chat({**chat(), **change}, MODELS)

    assert refusal is not None
    assert (400, "invalid_request_error") == (refusal.status, refusal.type)
    assert text in refusal.message


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 1, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0},
        {"seed": 1, "store": True, "parallel_tool_calls": False, "user": "u", "never_heard_of": {}},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"tools": [TOOL], "tool_choice": "required"},
        {"messages": [{"role": "system", "tools": [TOOL]}, *USER], "tool_choice": "required"},
        {"thinking": {"effort": "low"}},
        {"thinking": {"type": "enabled", "keep": "all", "effort": "max"}},
        {"thinking": {"type": "disabled"}, "temperature": 0.6},
        {"tool_choice": "none"},
        {"thinking": {"type": "disabled"}, "reasoning_effort": "medium"},
        {"messages": [*USER, {"role": "assistant", "content": "", "name": "Kelsier", "partial": True}]},
        {"messages": [{"role": "system", "tools": [TOOL]}, *USER]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "ms://abc"}]}]},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "object"}},
            }
        },
    ],
)
def test_check_chat_lets_pass(change: dict[str, Any]) -> None:
    """
    Fixed values, unknown fields and the odd shapes that work live are not refused.
    """
    assert check_chat({**chat(), **change}, MODELS) is None


async def test_body_that_is_not_json_is_400(client: Client) -> None:
    """
    Neither broken JSON nor JSON of another shape brings the server down.
    """
    for data in (b"{", b"[]", b"\xff", b"[" * 200_000):
        headers = {"Authorization": f"Bearer {client.key}"}
        async with client.session.post(
            client.url + "/chat/completions", data=data, headers=headers
        ) as response:
            assert 400 == response.status


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "model messages max_completion_tokens max_tokens stream stream_options stop response_format tools tool_choice "
    "reasoning_effort thinking logprobs top_logprobs temperature top_p n presence_penalty frequency_penalty"
)
KEYS = (
    "role content name partial reasoning_content tool_calls tool_call_id tools type function parameters properties "
    "required items anyOf $ref $defs enum minimum maxLength json_schema schema strict text image_url url id arguments"
)
WORDS = (
    "system user assistant tool function builtin_function $web_search required none json_object json_schema text "
    "object array string integer null image_url video_url kimi-k2.6 kimi-k2.7-code f #/$defs/a # disabled enabled all"
)
LIKELY = st.recursive(
    JSON | st.sampled_from(WORDS.split()),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(st.sampled_from(FIELDS.split()), LIKELY, max_size=6),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_service_never_breaks_on_strange_requests(fields: dict[str, Any], known: bool, talks: bool) -> None:
    """
    Whatever JSON comes, the answer is a completion or a refusal, never an exception.
    """
    if known:
        fields["model"] = "kimi-k3"
    if talks:
        fields["messages"] = USER
    headers = Headers({"Authorization": "Bearer sk-simulator"})
    scripted = KimiService().reply("POST", "/v1/chat/completions", headers, json.dumps(fields).encode(), 0.0)
    steps = list(scripted.steps)

    assert scripted.answer.status in (200, 400, 404)
    assert isinstance(steps[0], Head)


SCHEMA_KEYS = "type properties required items anyOf $ref $defs enum minimum maximum minLength maxLength minItems maxItems a b"
SCHEMAS = st.recursive(
    JSON | st.sampled_from(["object", "array", "string", "integer", "number", "null", "#", "#/$defs/a", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(SCHEMA_KEYS.split()), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(SCHEMAS, st.booleans())
@settings(max_examples=80, deadline=None)
def test_service_never_breaks_on_strange_schemas(schema: Any, tool: bool) -> None:
    """
    With `strict: false` any schema may come; it gets some value.
    """
    root = {"type": "object", "properties": {"a": schema}, "required": ["a"], "$defs": {"a": schema}}
    options: dict[str, Any] = {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": root, "strict": False},
        }
    }
    if tool:
        function = {"name": "f", "parameters": root, "strict": False}
        options = {"tools": [{"type": "function", "function": function}]}
    headers = Headers({"Authorization": "Bearer sk-simulator"})
    reply = KimiService().reply(
        "POST", "/chat/completions", headers, json.dumps(chat(**options)).encode(), 0.0
    )

    assert reply.answer.status in (200, 400)


def test_service_refuses_what_is_nested_too_deeply() -> None:
    """
    A schema without a bottom is a 400.
    """
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(400):
        schema = {"type": "object", "properties": {"a": schema}}
    headers = Headers({"Authorization": "Bearer sk-simulator"})
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    body = json.dumps(chat(tools=[tool])).encode()

    assert 400 == KimiService().answer("POST", "/chat/completions", headers, body, 0.0).status


@given(st.text(), st.integers(1, 40))
def test_generate_keeps_to_the_budget(text: str, budget: int) -> None:
    """
    Tokens join to a prefix of the text, no more than the budget allows, and the whole text if it fits.
    """
    generated = generate(Turn(text), budget=budget)

    assert text == "".join(tokenize(text))
    assert text.startswith("".join(generated.content))
    assert generated.completion_tokens <= budget
    assert ("".join(generated.content) == text) == (generated.finish_reason == "stop")


# --- pace, counters, life -------------------------------------------------------------------------------


async def test_pace_spreads_a_stream_over_time() -> None:
    """
    First token and tempo are kept: n tokens at r per second take n/r seconds, less one gap.
    """
    pace = Pace(headers=0.02, first_token=0.03, tokens_per_second=1_000)
    async with KimiSimulator(pace=pace, words=(60, 60)) as sim, aiohttp.ClientSession() as session:
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with Client(sim, session).open("/chat/completions", chat(stream=True)) as response:
            headers_at = loop.time() - started
            await response.read()
        took = loop.time() - started

    tokens = sim.stats.events_sent - 3
    assert headers_at >= 0.02
    assert 0.05 + (tokens - 1) / 1_000 <= took < 0.05 + tokens / 1_000 + 5.0


async def test_stats_count_connections_and_requests(sim: KimiSimulator, client: Client) -> None:
    """
    Sequential calls share a connection; every request and its bytes are on the books.
    """
    for _ in range(3):
        await client.chat(chat())
    await client.chat(chat(temperature=0))

    stats = sim.stats
    assert (1, 1) == (stats.connections_opened, stats.connections_open)
    assert {"POST /v1/chat/completions": 4} == stats.by_path
    assert {200: 3, 400: 1} == stats.by_status
    assert {"invalid_request_error": 1} == stats.rejected
    assert (0, 1) == (stats.in_flight, stats.peak_in_flight)
    assert [chat()] * 3 == [request.json() for request in list(sim.requests)[:3]]
    assert all(request.finished and request.connection for request in sim.requests)


async def test_stats_see_a_client_that_leaves() -> None:
    """
    When the client closes a stream the handler ends, and its slot is free again.
    """
    limits = ServerLedger(ServerLimits(concurrency=1))
    pace = Pace(tokens_per_second=5)
    async with KimiSimulator(pace=pace, limits=limits) as sim, aiohttp.ClientSession() as session:
        client = Client(sim, session)
        async with client.open("/chat/completions", chat(stream=True)) as response:
            await response.content.readany()
            assert (1, 1) == (sim.stats.in_flight, limits.in_flight)
            response.close()
            await sim.until(lambda stats: stats.in_flight == 0)

        assert (0, 1) == (limits.in_flight, sim.stats.clients_gone)
        assert sim.requests[0].client_gone


async def test_until_waits_across_loops() -> None:
    """
    A test may wait for the counters of a simulator that serves from a thread.
    """
    with KimiSimulator(pace=Pace(first_token=3600)).in_thread() as sim:
        async with (
            aiohttp.ClientSession() as session,
            Client(sim, session).open("/chat/completions", chat(stream=True)) as response,
        ):
            await sim.until(lambda stats: stats.in_flight == 1)
            response.close()
            await sim.until(lambda stats: stats.in_flight == 0)

    assert 1 == sim.stats.clients_gone


async def test_close_ends_streams_in_progress() -> None:
    """
    Leaving the context drops open connections at once and may be done twice.
    """
    sim = KimiSimulator(pace=Pace(first_token=3600))
    await sim.start()
    async with (
        aiohttp.ClientSession() as session,
        Client(sim, session).open("/chat/completions", chat(stream=True)) as response,
    ):
        await sim.close()
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    await sim.close()

    assert 0 == sim.stats.connections_open


async def test_start_twice_is_an_error(sim: KimiSimulator) -> None:
    """
    A second start says where the first one listens.
    """
    with pytest.raises(RuntimeError, match=str(sim.port)):
        await sim.start()


async def test_many_streams_at_once_each_get_their_own_text(sim: KimiSimulator, client: Client) -> None:
    """
    Fifty interleaved streams do not mix.
    """
    bodies = [chat([{"role": "user", "content": f"Number {number}"}]) for number in range(50)]
    replies = await asyncio.gather(*map(client.chunks, bodies))

    for number, chunks in enumerate(replies):
        assert joined(chunks, "content").startswith(f"You said: 'Number {number}'.")
    assert 50 == sim.stats.peak_in_flight


async def test_ssl_serves_https() -> None:
    """
    With a certificate the same server speaks TLS, and a reset still is one.
    """
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trusting)
    async with (
        KimiSimulator(ssl=server, faults=[None, Drop(after_events=3)]) as sim,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        client = Client(sim, session)
        status, _, _ = await client.chat(chat())
        with pytest.raises(aiohttp.ClientError):
            await client.chunks(chat())

    assert 200 == status
    assert sim.base_url.startswith("https://")


def test_in_thread_serves_blocking_callers() -> None:
    """
    A synchronous test can use the simulator too.
    """
    with KimiSimulator().in_thread() as sim:
        request = urllib.request.Request(
            sim.base_url + "/models", headers={"Authorization": f"Bearer {sim.api_key}"}
        )
        with urllib.request.urlopen(request) as response:
            body = json.load(response)

    assert len(MODELS) == len(body["data"])
    assert 1 == sim.stats.requests


# --- limits ---------------------------------------------------------------------------------------------


async def test_limits_refuse_with_the_captured_headers() -> None:
    """
    A third-minute request at tier 0 gets the captured 429, its three hints included; the tier is in Msh-Gid.
    """
    async with KimiSimulator(limits="tier0") as sim, aiohttp.ClientSession() as session:
        client = Client(sim, session)
        replies = [await client.chat(chat(max_completion_tokens=50)) for _ in range(4)]

    _, body, headers = replies[-1]
    assert [200, 200, 200, 429] == [reply[0] for reply in replies]
    assert "rate_limit_reached_error" == body["error"]["type"]
    assert (
        "request reached organization max RPM: 3, please try again after 1 seconds"
        in body["error"]["message"]
    )
    assert ["1", "1", "1"] == [
        headers[name] for name in ("Retry-After", "X-Retry-After", "Msh-Cooldown-Seconds")
    ]
    assert "enterprise-tier-0" == headers["Msh-Gid"]
    assert {"rpm": 1} == sim.stats.rejected


@pytest.mark.parametrize(
    ("limits", "kind", "text"),
    [
        (ServerLimits(concurrency=0), "concurrency", "max concurrency: 0, please try again after 1 seconds"),
        (ServerLimits(tpm=1_000), "tpm", "TPM rate limit, current: 1050, limit: 1000"),
        (ServerLimits(tpd=1_000), "tpd", "TPD rate limit, current: 1050, limit: 1000"),
    ],
)
def test_admit_names_the_limit_it_hit(limits: ServerLimits, kind: str, text: str) -> None:
    """
    Each dimension has its own text, with the numbers a client can learn from.
    """
    ledger = ServerLedger(limits)
    permit = ledger.admit(0.0, tokens=1_050)

    assert permit.refusal is not None
    assert (kind, 429) == (permit.refusal.kind, permit.refusal.status)
    assert text in permit.refusal.message


def test_admit_sliding_window_forgets_after_a_minute() -> None:
    """
    Exactly the last 60 seconds count.
    """
    ledger = ServerLedger(ServerLimits(rpm=2), rejects_count=False)
    times = [0.0, 30.0, 59.9, 60.0, 60.1, 90.0]

    assert [True, True, False, True, False, True] == [ledger.admit(at).refusal is None for at in times]


def test_admit_rejects_count_keeps_the_window_full() -> None:
    """
    Where refused requests are charged, one retry a second never gets through again.
    """
    ledger = ServerLedger(ServerLimits(rpm=3))
    admitted = sum(ledger.admit(float(second)).refusal is None for second in range(600))

    assert 3 == admitted


def test_admit_fixed_window_resets_on_the_minute() -> None:
    """
    Two bursts may straddle the boundary.
    """
    ledger = ServerLedger(ServerLimits(rpm=2), window="fixed")
    times = [59.0, 59.5, 59.9, 60.0, 60.1, 60.2]

    assert [True, True, False, True, True, False] == [ledger.admit(at).refusal is None for at in times]


def test_admit_bucket_refills_steadily() -> None:
    """
    A bucket of 60 per minute is full at first and gives one a second afterwards.
    """
    ledger = ServerLedger(ServerLimits(rpm=60), window="bucket")
    burst = sum(ledger.admit(0.0).refusal is None for _ in range(100))
    later = [ledger.admit(float(second)).refusal is None for second in range(1, 5)]

    assert 60 == burst
    assert [True] * 4 == later


def test_admit_tokens_are_not_charged_for_refused_requests() -> None:
    """
    A 429 costs no tokens, and a limit raised on the fly is used at once.
    """
    ledger = ServerLedger(ServerLimits(tpm=1_000), schedule=[(10.0, ServerLimits(tpm=2_000))])

    verdicts = [ledger.admit(at, tokens=600).refusal is None for at in (0.0, 1.0, 2.0, 10.0, 11.0, 12.0)]

    assert [True, False, False, True, True, False] == verdicts
    assert 1_800 == ledger.tokens_admitted


def test_admit_storm_takes_its_time_and_hints_nothing() -> None:
    """
    Overload holds the slot for the seconds it took live and carries no Retry-After.
    """
    ledger = ServerLedger(ServerLimits(concurrency=1), storms=[Storm(5.0, 10.0)])
    permit = ledger.admit(7.0)
    meanwhile = ledger.admit(7.1)
    permit.release()
    permit.release()

    assert permit.refusal is not None
    assert ("engine_overloaded_error", (), 8.0) == (permit.refusal.type, permit.refusal.headers, permit.delay)
    assert "concurrency" == (meanwhile.refusal.kind if meanwhile.refusal else None)
    assert 0 == ledger.in_flight
    assert ledger.admit(10.0).refusal is None


def test_admit_hidden_numbers_use_the_short_text() -> None:
    """
    A client that cannot read limits must still cope.
    """
    ledger = ServerLedger(ServerLimits(rpm=0), hide_numbers=True, retry_after=2.5)
    refusal = ledger.admit(0.0).refusal

    assert refusal is not None
    assert "Organization Rate limit exceeded, please try again after 2.5 seconds" == refusal.message
    assert {"2.5"} == {value for _, value in refusal.headers}


def test_unknown_tier_names_the_known_ones() -> None:
    """
    A misspelt tier is an error where it is written.
    """
    with pytest.raises(ValueError, match="tier0"):
        ServerLedger("tier9")


# --- without sockets ------------------------------------------------------------------------------------


def virtual(main: Any) -> Any:
    from kimi_async.testing.clock import run

    return run(main)


def request_for(body: dict[str, Any]) -> Request:
    return Request(
        "POST",
        "http://memory/v1/chat/completions",
        headers=Headers({"Authorization": "Bearer sk-simulator"}),
        body=json.dumps(body).encode(),
    )


def test_in_memory_paces_on_the_loop_clock() -> None:
    """
    A minute of generation passes in virtual time; the text is the one of the sockets.
    """

    async def main() -> tuple[float, str]:
        transport = in_memory(KimiService(pace=Pace(first_token=10, tokens_per_second=4)))
        response = await transport.send(request_for(chat(stream=True)))
        data = await response.read()
        return asyncio.get_running_loop().time(), data.decode()

    seconds, text = virtual(main())
    chunks = [json.loads(line[6:]) for line in text.split("\n\n") if line and not line.endswith("[DONE]")]

    tokens = len(generate(undisturbed(), budget=10**6).content) + len(tokenize(undisturbed().reasoning))
    assert undisturbed().content == joined(chunks, "content")
    assert seconds == pytest.approx(10 + (tokens + 1) / 4, abs=0.5)


def test_in_memory_slot_is_held_until_the_body_is_closed() -> None:
    """
    The concurrency limit counts open streams, also those the client gives up.
    """

    async def main() -> list[int]:
        service = KimiService(limits=ServerLimits(concurrency=1))
        assert service.limits is not None
        transport = in_memory(service)
        first = await transport.send(request_for(chat(stream=True)))
        refused = await transport.send(request_for(chat(stream=True)))
        await refused.read()
        before = service.limits.in_flight
        first.close()
        return [refused.status, before, service.limits.in_flight]

    assert [429, 1, 0] == virtual(main())


def test_in_memory_storm_waits_before_it_refuses() -> None:
    """
    The overloaded answer arrives after its delay, on the virtual clock.
    """

    async def main() -> tuple[int, float]:
        limits = ServerLedger(ServerLimits(), storms=[Storm(0.0, math.inf)])
        response = await in_memory(KimiService(limits=limits)).send(request_for(chat()))
        await response.read()
        return response.status, asyncio.get_running_loop().time()

    assert (429, 8.0) == virtual(main())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_host_that_others_reach_needs_a_word(host: str) -> None:
    """
    A simulator whose key everybody knows is not opened to a network by a slip; `exposed` says that it is meant.
    """
    with pytest.raises(ConfigurationError, match="exposed=True"):
        KimiSimulator(host=host)

    assert host == KimiSimulator(host=host, exposed=True).host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_host_of_this_machine_needs_none(host: str) -> None:
    """
    Loopback, in every spelling, is the machine's own.
    """
    assert host == KimiSimulator(host=host).host


# --- the package ---------------------------------------------------------------------------------------


def test_import_of_testing_is_light() -> None:
    """
    The package, and the pytest plugin that every test run loads, bring in neither aiohttp nor the client.
    """
    code = "import sys, kimi_async.testing.pytest_plugin; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert "kimi_async.testing.pytest_plugin" in loaded
    assert not {"aiohttp", "anyio", "tenacity", "kimi_async.client"} & set(loaded)


def test_testing_names_resolve() -> None:
    """
    Every name that the package offers is there.
    """
    assert [] == [name for name in testing.__all__ if not hasattr(testing, name)]
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = testing.nothing_such


def test_plugin_fixtures_work_in_a_users_suite(tmp_path: Any) -> None:
    """
    A stranger's test file, synchronous and asynchronous, gets a simulator and a client, and a mark configures them.
    """
    (tmp_path / "test_theirs.py").write_text(
        textwrap.dedent(
            """
            import urllib.request, urllib.error
            import pytest

            @pytest.fixture
            def anyio_backend():
                return "asyncio"

            @pytest.mark.anyio
            async def test_client(kimi_simulator, kimi_client):
                kimi_simulator.say("Forty-two.")
                reply = await kimi_client.chat.completions.create(
                    model="kimi-k3", messages=[{"role": "user", "content": "?"}]
                )
                assert "Forty-two." == reply.choices[0].message.content

            @pytest.mark.kimi_simulator(api_key="sk-other")
            def test_blocking(kimi_simulator):
                request = urllib.request.Request(
                    kimi_simulator.base_url + "/models", headers={"Authorization": "Bearer sk-other"}
                )
                assert 200 == urllib.request.urlopen(request).status

            def test_unused(kimi_client):
                pass
            """
        )
    )
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")])),
    }
    plugins = ["-p", "anyio", "-p", "kimi_async.testing.pytest_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-markers", *plugins, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )

    assert "3 passed" in done.stdout, done.stdout + done.stderr


# --- what is written about it ---------------------------------------------------------------------------

GUIDE = (Path(testing.__file__).parent / "README.md").read_text("utf-8")


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
def test_guide_examples_run(block: str) -> None:
    """
    The programs in the guide do what they say.
    """
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


def test_guide_names_every_fault() -> None:
    """
    A fault nobody can find might as well not be there.
    """
    table = GUIDE.partition("| layer | faults |")[2]

    assert [] == [kind.__name__ for kind in Fault.__subclasses__() if f"`{kind.__name__}`" not in table]
