"""
What the simulator refuses, with the host's words.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_async.testing.simulator.chat_model import Turn, generate
from kimi_async.testing.simulator.models import MODELS
from kimi_async.testing.simulator.replies import Head
from kimi_async.testing.simulator.service import KimiService
from kimi_async.testing.simulator.validation import check_chat
from kimi_async.testing.simulator.words import tokenize
from kimi_async.transport.exchange import Headers
from support.bare_client import TOOL, USER, Client, chat

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
    """Each mistake is a 400 that names it."""
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
    """Fixed values, unknown fields and the odd shapes that work live are not refused."""
    assert check_chat({**chat(), **change}, MODELS) is None


async def test_body_that_is_not_json_is_400(client: Client) -> None:
    """Neither broken JSON nor JSON of another shape brings the server down."""
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
    """Whatever JSON comes, the answer is a completion or a refusal, never an exception."""
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
    """With `strict: false` any schema may come; it gets some value."""
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
    """A schema without a bottom is a 400."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(400):
        schema = {"type": "object", "properties": {"a": schema}}
    headers = Headers({"Authorization": "Bearer sk-simulator"})
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    body = json.dumps(chat(tools=[tool])).encode()

    assert 400 == KimiService().answer("POST", "/chat/completions", headers, body, 0.0).status


@given(st.text(), st.integers(1, 40))
def test_generate_keeps_to_the_budget(text: str, budget: int) -> None:
    """Tokens join to a prefix of the text, no more than the budget allows, and the whole text if it fits."""
    generated = generate(Turn(text), budget=budget)

    assert text == "".join(tokenize(text))
    assert text.startswith("".join(generated.content))
    assert generated.completion_tokens <= budget
    assert ("".join(generated.content) == text) == (generated.finish_reason == "stop")
