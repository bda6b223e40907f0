"""
The simulator obeys the official OpenAPI document.

The facts are those of platform.kimi.ai/docs/openapi.json as mirrored on 2026-08-17 in github.com/tryAGI/Moonshot, put down
here as a table in our own words: for each reply, which keys must be there and of which type every known key is. Keys
that the document does not know may appear only if a capture of the live host has them; they are listed beside.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from kimi_async.testing.simulator.server import KimiSimulator

Shape = Mapping[str, Any]
"""Key → type, tuple of types, nested shape, or [shape] for a list. A key ending in "?" may be absent."""

NULL = type(None)

USAGE: Shape = {
    "prompt_tokens": int,
    "completion_tokens": int,
    "total_tokens": int,
    "cached_tokens?": int,
    # Not in the document; in live replies since 2026.
    "prompt_tokens_details?": {"cached_tokens": int},
    "completion_tokens_details?": {"reasoning_tokens": int},
}
TOOL_CALL: Shape = {"id": str, "type": str, "function": {"name": str, "arguments": str}}
COMPLETION: Shape = {
    "id": str,
    "object": str,
    "created": int,
    "model": str,
    "choices": [
        {
            "index": int,
            "message": {
                "role": str,
                "content": (str, NULL),
                "tool_calls?": [TOOL_CALL],
                "reasoning_content?": (str, NULL),
            },
            "finish_reason": str,
        }
    ],
    "usage": USAGE,
}
CHUNK: Shape = {
    "id": str,
    "object": str,
    "created": int,
    "model": str,
    "choices": [
        {
            "index": int,
            "delta": {
                "role?": str,
                "content?": str,
                "tool_calls?": [
                    # `index` is not in the document, and in every capture.
                    {"index?": int, "id?": str, "type?": str, "function": {"name?": str, "arguments?": str}}
                ],
                "reasoning_content?": str,  # only in captures
            },
            "finish_reason": (str, NULL),
            "usage?": USAGE,
        }
    ],
    "usage?": (USAGE, NULL),
    "system_fingerprint?": str,  # only in captures
}
MODEL: Shape = {
    "id": str,
    "object": str,
    "created": int,
    "owned_by": str,
    "context_length": int,
    "supports_image_in": bool,
    "supports_video_in": bool,
    "supports_reasoning": bool,
    # Only in live replies.
    "permission?": list,
    "root?": str,
    "parent?": (str, NULL),
    "supports_dynamic_tools?": bool,
    "supports_thinking_type?": str,
    "think_efforts?": list,
    "reasoning_efforts?": list,
}
ERROR: Shape = {"error": {"message": str, "type?": str, "code?": str}}
FILE: Shape = {
    "id": str,
    "object": str,
    "bytes": int,
    "created_at": int,
    "filename": str,
    "purpose": str,
    "status": str,
    "status_details?": (str, NULL),
    "file_type?": str,  # only in captures
}
BATCH: Shape = {
    "id": str,
    "object": str,
    "endpoint": str,
    "input_file_id": str,
    "completion_window": str,
    "status": str,
    "output_file_id?": (str, NULL),
    "error_file_id?": (str, NULL),
    "created_at": int,
    **{
        f"{name}_at?": (int, NULL)
        for name in (
            "in_progress",
            "expires",
            "finalizing",
            "completed",
            "failed",
            "cancelling",
            "cancelled",
        )
    },
    "request_counts": {"completed": int, "failed": int, "total": int},
    "metadata?": (dict, NULL),
}


def faults_of(value: Any, shape: Any, path: str = "") -> list[str]:
    """Where `value` differs from `shape`, as sentences."""
    if isinstance(shape, tuple):
        tried = [faults_of(value, one, path) for one in shape]
        return [] if [] in tried else tried[0]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [
            fault for at, item in enumerate(value) for fault in faults_of(item, shape[0], f"{path}[{at}]")
        ]
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return [f"{path} is no object"]
        known = {key.removesuffix("?"): one for key, one in shape.items()}
        found = [f"{path}.{key} is unknown" for key in value.keys() - known.keys()]
        found += [f"{path}.{key} is missing" for key in shape if not key.endswith("?") and key not in value]
        for key in value.keys() & known.keys():
            found += faults_of(value[key], known[key], f"{path}.{key}")
        return found
    right = isinstance(value, shape) and not (shape is int and isinstance(value, bool))
    return [] if right else [f"{path} is {type(value).__name__}, not {shape.__name__}"]


MESSAGES = [{"role": "user", "content": "Weather in Beijing and Shanghai?"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.fixture
async def sim() -> AsyncIterator[KimiSimulator]:
    async with KimiSimulator() as simulator:
        yield simulator


@pytest.fixture
async def session(sim: KimiSimulator) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {sim.api_key}"}
    async with aiohttp.ClientSession(sim.base_url + "/", headers=headers) as session:
        yield session


def test_faults_of_sees_what_is_wrong() -> None:
    """The comparison itself: a missing, an unknown and a mistyped key are told; a right value is not."""
    shape: Shape = {"a": int, "b?": (str, NULL), "c": [{"d": str}]}

    assert [] == faults_of({"a": 1, "b": None, "c": [{"d": "x"}]}, shape)
    assert [".e is unknown", ".a is missing", ".c[0].d is int, not str"] == faults_of(
        {"c": [{"d": 1}], "e": 0}, shape
    )
    assert [".a is bool, not int"] == faults_of({"a": True, "c": []}, shape)


@pytest.mark.parametrize("tools", [[], TOOLS])
async def test_completion_has_the_shape(session: aiohttp.ClientSession, tools: list[Any]) -> None:
    """Text and tool calls, fresh and from the cache."""
    for _ in range(2):
        body = {"model": "kimi-k3", "messages": MESSAGES, "tools": tools}
        async with session.post("chat/completions", json=body) as response:
            value = await response.json()

        assert [] == faults_of(value, COMPLETION)
        assert "chat.completion" == value["object"]
        assert value["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls")
        assert "assistant" == value["choices"][0]["message"]["role"]


@pytest.mark.parametrize("tools", [[], TOOLS])
async def test_every_chunk_has_the_shape(session: aiohttp.ClientSession, tools: list[Any]) -> None:
    """
    Role, text, tool, finish and usage chunks alike; each event is one `data:` line; `[DONE]` ends the stream.
    """
    body = {
        "model": "kimi-k3",
        "messages": MESSAGES,
        "tools": tools,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with session.post("chat/completions", json=body) as response:
        text = await response.text()
    *events, done, rest = text.split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]

    assert "text/event-stream" == response.headers["Content-Type"]
    assert ("data: [DONE]", "") == (done, rest)
    assert [] == [fault for chunk in chunks for fault in faults_of(chunk, CHUNK)]
    assert {"chat.completion.chunk"} == {chunk["object"] for chunk in chunks}
    assert isinstance(chunks[-1]["usage"], dict)


async def test_models_have_the_shape(session: aiohttp.ClientSession) -> None:
    """A list object whose entries tell context and abilities."""
    async with session.get("models") as response:
        value = await response.json()

    assert [] == faults_of(value, {"object": str, "data": [MODEL]})
    assert "list" == value["object"]


async def test_estimate_and_balance_have_the_shape(session: aiohttp.ClientSession) -> None:
    """The two small ones."""
    body = {"model": "kimi-k3", "messages": MESSAGES}
    async with session.post("tokenizers/estimate-token-count", json=body) as response:
        assert [] == faults_of(await response.json(), {"data": {"total_tokens": int}})
    amounts = dict.fromkeys(("available_balance", "voucher_balance", "cash_balance"), float)
    async with session.get("users/me/balance") as response:
        assert [] == faults_of(
            await response.json(), {"code": int, "data": amounts, "scode": str, "status": bool}
        )


async def test_files_and_batches_have_the_shape(sim: KimiSimulator, session: aiohttp.ClientSession) -> None:
    """Upload, list, retrieve, content, delete; create, list, retrieve, cancel."""
    sim.storage.pace.in_progress = 600.0
    form = aiohttp.FormData()
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions"}
    line["body"] = {"model": "kimi-k2.6", "messages": MESSAGES}  # type: ignore[assignment]
    form.add_field("file", json.dumps(line).encode(), filename="x.jsonl")
    form.add_field("purpose", "batch")
    async with session.post("files", data=form) as response:
        file = await response.json()
    assert [] == faults_of(file, FILE)
    async with session.get("files") as response:
        listed = await response.json()
    assert [] == faults_of({key: listed[key] for key in ("object", "data")}, {"object": str, "data": [FILE]})
    async with session.get(f"files/{file['id']}") as response:
        assert file == await response.json()

    order = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    async with session.post("batches", json=order) as response:
        batch = await response.json()
    assert [] == faults_of(batch, BATCH)
    async with session.get("batches") as response:
        assert [] == faults_of(await response.json(), {"object": str, "data": [BATCH], "has_more?": bool})
    async with session.post(f"batches/{batch['id']}/cancel") as response:
        assert [] == faults_of(await response.json(), BATCH)
    async with session.get(f"batches/{batch['id']}") as response:
        assert [] == faults_of(await response.json(), BATCH)
    async with session.get(f"files/{file['id']}/content") as response:
        assert 200 == response.status
    async with session.delete(f"files/{file['id']}") as response:
        assert [] == faults_of(await response.json(), {"id": str, "object": str, "deleted": bool})


@pytest.mark.parametrize(
    ("method", "path", "body", "key", "status"),
    [
        ("GET", "models", None, "sk-wrong", 401),
        ("GET", "users/me/balance", None, "", 401),
        ("GET", "files", None, "sk-wrong", 401),
        ("POST", "chat/completions", {}, None, 400),
        ("POST", "chat/completions", {}, "sk-wrong", 401),
        ("POST", "tokenizers/estimate-token-count", {"model": "kimi-k3"}, None, 400),
        ("POST", "batches", {}, None, 404),
        ("GET", "files/none", None, None, 404),
        ("GET", "batches/none", None, None, 404),
        ("POST", "batches/none/cancel", None, None, 404),
    ],
)
async def test_errors_have_the_shape(
    session: aiohttp.ClientSession, method: str, path: str, body: Any, key: str | None, status: int
) -> None:
    """Every documented error reply is JSON with `error.message`."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with session.request(method, path, json=body, headers=headers) as response:
        assert status == response.status
        assert [] == faults_of(await response.json(), ERROR)


# Every operation of the document, with a request that reaches it.
OPERATIONS = [
    ("GET", "models"),
    ("GET", "users/me/balance"),
    ("POST", "files"),
    ("GET", "files"),
    ("GET", "files/x"),
    ("DELETE", "files/x"),
    ("GET", "files/x/content"),
    ("POST", "chat/completions"),
    ("POST", "tokenizers/estimate-token-count"),
    ("POST", "batches"),
    ("GET", "batches"),
    ("GET", "batches/x"),
    ("POST", "batches/x/cancel"),
]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_every_operation_exists(session: aiohttp.ClientSession, method: str, path: str) -> None:
    """All thirteen are served: none is answered as an unknown path."""
    async with session.request(method, path) as response:
        assert response.status in (200, 400, 404)
        assert b"method not found" not in await response.read()
