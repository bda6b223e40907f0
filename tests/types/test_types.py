"""
Objects of the wire: absent, null and "" apart; unknown fields; pydantic's methods; pickles.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import msgspec
import pydantic
import pytest

import kimi_async.types.chat
from kimi_async.types import (
    Balance,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    CompletionUsage,
    Model,
    TokenCount,
)

# The shape of a K3 reply with a cache hit: platform.kimi.ai, API reference "Chat Completions".
KIMI: dict[str, Any] = {
    "id": "chatcmpl-6a9753f1f1e03593b5e890e1",
    "object": "chat.completion",
    "created": 1788302325,
    "model": "kimi-k3",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello", "reasoning_content": ""},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 93,
        "completion_tokens": 54,
        "total_tokens": 147,
        "cached_tokens": 93,
        "completion_tokens_details": {"reasoning_tokens": 38},
        "prompt_tokens_details": {"cached_tokens": 93},
    },
}
# OpenRouter's and AIMLAPI's additions.
FOREIGN: dict[str, Any] = {
    **KIMI,
    "provider": "Moonshot AI",
    "system_fingerprint": None,
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "reasoning": "hm",
                "x": {"y": [1]},
            },
            "finish_reason": "stop",
            "native_finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.001, "is_byok": False},
}


def parsed(data: dict[str, Any]) -> ChatCompletion:
    return ChatCompletion.model_validate_json(msgspec.json.encode(data))


@pytest.mark.parametrize("data", [KIMI, FOREIGN], ids=["kimi", "foreign"])
def test_object_goes_back_as_it_came(data: dict[str, Any]):
    """
    However it is dumped, copied or pickled.
    """
    completion = parsed(data)

    assert data == completion.to_dict()
    assert data == completion.model_dump(exclude_unset=True)
    assert data == msgspec.json.decode(completion.to_json())
    assert data == ChatCompletion.model_validate(data).to_dict()
    for again in (
        pickle.loads(pickle.dumps(completion)),
        copy.copy(completion),
        copy.deepcopy(completion),
        completion.model_copy(),
        completion.model_copy(deep=True),
    ):
        assert data == again.to_dict()
        assert completion == again


def test_unknown_fields_are_attributes():
    """
    What this version does not know can still be read.
    """
    completion = parsed(FOREIGN)

    assert "Moonshot AI" == completion.provider
    assert {"provider": "Moonshot AI"} == completion.model_extra
    assert {"y": [1]} == completion.choices[0].message.x
    assert "stop" == completion.choices[0].native_finish_reason
    assert completion.usage is not None
    assert {"is_byok": False} == completion.usage.model_extra
    assert 0.001 == completion.usage.cost
    with pytest.raises(AttributeError, match="nothing"):
        _ = completion.nothing
    assert not hasattr(completion, "_private")


def test_absent_null_and_empty_are_three():
    """
    They read alike where that is convenient, and go back apart.
    """
    absent, null, empty = (
        ChatCompletionMessage.model_validate({"role": "assistant", "content": "x", **more})
        for more in ({}, {"reasoning_content": None}, {"reasoning_content": ""})
    )

    assert (None, None, "") == (absent.reasoning_content, null.reasoning_content, empty.reasoning_content)
    assert "reasoning_content" not in absent.to_dict()
    assert null.to_dict()["reasoning_content"] is None
    assert "" == empty.to_dict()["reasoning_content"]
    assert "reasoning_content" not in null.to_dict(exclude_none=True)
    assert absent.model_dump()["reasoning_content"] is None
    assert "reasoning_content" in null.model_fields_set
    assert "reasoning_content" not in absent.model_fields_set


def test_reasoning_under_either_name():
    """
    `reasoning` reads as `reasoning_content`, and goes back under its own name.
    """
    message = parsed(FOREIGN).choices[0].message

    assert "hm" == message.reasoning_content == message.reasoning
    assert "hm" == message.to_dict()["reasoning"]
    assert "reasoning_content" not in message.to_dict()


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({"cached_tokens": 5}, 5),
        ({"prompt_tokens_details": {"cached_tokens": 6}}, 6),
        ({"cached_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}}, 5),
        ({"cached_tokens": None, "prompt_tokens_details": None}, None),
        ({}, None),
    ],
)
def test_cached_tokens(usage: dict[str, Any], cached: int | None):
    """
    Kimi says it twice, gateways once, and without a hit nobody does.
    """
    assert cached == CompletionUsage.model_validate(usage).cached_tokens


def test_usage_of_a_chunk_and_a_completion():
    """
    Found beside the choices and in them.
    """
    beside = ChatCompletionChunk.model_validate({"choices": [], "usage": {"total_tokens": 1}})
    inside = ChatCompletionChunk.model_validate({"choices": [{"delta": {}, "usage": {"total_tokens": 2}}]})
    reply = ChatCompletion.model_validate({"choices": [{"usage": {"total_tokens": 3}}]})

    assert [1, 2, 3] == [each.usage and each.usage.total_tokens for each in (beside, inside, reply)]
    assert ChatCompletionChunk.model_validate({"choices": [{"delta": {}}]}).usage is None


def test_empty_answer_is_visible():
    """
    An answer that is all reasoning says so.
    """
    assert parsed({**KIMI, "choices": [{"message": {"content": "", "reasoning_content": "long"}}]}).is_empty
    assert parsed({**KIMI, "choices": []}).is_empty
    assert not parsed(KIMI).is_empty


def test_chunk_has_the_same_methods():
    """
    Chunks dump, copy, pickle and print, though nothing refers to them twice.
    """
    data = {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}}]}
    chunk = ChatCompletionChunk.model_validate(data)

    for again in (pickle.loads(pickle.dumps(chunk)), copy.deepcopy(chunk), chunk.model_copy(deep=True)):
        assert chunk == again
    assert "x" == chunk.model_dump()["choices"][0]["delta"]["content"]
    assert chunk.model_dump()["usage"] is None
    assert "usage" not in chunk.to_dict()
    assert "content='x'" in repr(chunk)
    assert chunk.model_extra is None


def test_construct_and_update():
    """
    Objects can be made unchecked, and copied with other values.
    """
    made = ChatCompletionMessage.construct(role="assistant", content=5, other=1)
    copied = made.model_copy(update={"content": "y"})

    assert (5, 1) == (made.content, made.other)
    assert ("y", 1) == (copied.content, copied.other)
    assert 5 == made.content


def test_model_dump_json():
    """
    Compact, or indented as asked.
    """
    model = Model.model_validate({"id": "kimi-k3", "x": 1})

    assert '"x":1' in model.model_dump_json()
    assert "\n" in model.to_json()
    assert '"id":"kimi-k3"' in model.model_dump_json(exclude_unset=True)


def test_validation_names_the_path():
    """
    What does not fit is told with its place.
    """
    with pytest.raises(msgspec.ValidationError, match=r"choices\[0\]\.message"):
        ChatCompletion.model_validate({"choices": [{"message": 5}]})


def test_small_replies():
    """
    Token counts and balances, reached without their envelope too.
    """
    count = TokenCount.model_validate({"data": {"total_tokens": 80}})
    balance = Balance.model_validate(
        {
            "code": 0,
            "data": {"available_balance": 49.58894, "voucher_balance": 46.58893, "cash_balance": 3.00001},
        }
    )

    assert 80 == count.total_tokens == count.data.total_tokens
    assert "49.58894" == str(balance.available_balance)


def test_names_of_openai_s_chat_types_are_found_at_the_same_place():
    """
    A program that imports its types keeps its imports but for the package's name.
    """
    import openai.types.chat

    theirs = {name for name in dir(openai.types.chat) if name[0].isupper()}

    assert set() == theirs - set(dir(kimi_async.types.chat))


@pytest.mark.parametrize(
    "name",
    [
        "ChatModel",
        "CompletionUsage",
        "FileDeleted",
        "FileObject",
        "FilePurpose",
        "Batch",
        "BatchRequestCounts",
        "FunctionDefinition",
        "FunctionParameters",
        "Metadata",
        "Model",
        "ReasoningEffort",
        "ResponseFormatJSONObject",
        "ResponseFormatJSONSchema",
        "ResponseFormatText",
    ],
)
def test_names_of_openai_s_types_that_kimi_has(name: str):
    """
    Those of what Kimi does; images, evals and the like have no counterpart.
    """
    import openai.types

    assert hasattr(openai.types, name)
    assert hasattr(kimi_async.types, name)


def test_dump_of_what_was_sent_alone_and_of_everything():
    """
    A full dump has what the server left out as None; `exclude_unset` has what it sent, nulls included, and no default of ours.
    """
    sent = {
        "choices": [{"message": {"content": None, "tool_calls": [{"function": {"name": "f"}}]}, "odd": 1}],
        "usage": {"prompt_tokens": 0},
    }
    completion = ChatCompletion.model_validate(sent)

    assert sent == completion.model_dump(exclude_unset=True)
    assert sent == completion.to_dict()
    assert {"choices", "usage"} == completion.model_fields_set
    whole = completion.model_dump()
    assert (None, "chat.completion", 0) == (whole["service_tier"], whole["object"], whole["created"])
    assert None is whole["choices"][0]["message"]["reasoning_content"]
    completion.created = 0
    completion.model = "kimi-k3"
    assert {**sent, "model": "kimi-k3"} == completion.model_dump(exclude_unset=True)


def test_dump_of_what_a_program_made():
    """
    What was not sent by a server has what was given and the names that the wire needs.
    """
    message = ChatCompletionMessage(content="x")

    assert {"role": "assistant", "content": "x"} == message.model_dump(exclude_unset=True)


def test_reply_as_the_answer_of_a_fastapi_endpoint():
    """
    `-> ChatCompletion` works: the object is written as it came, unknown fields included, and described as an object.
    """
    fastapi = pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    app = fastapi.FastAPI()
    sent = {"id": "c", "choices": [{"message": {"role": "assistant", "content": "Hi"}, "odd": 1}], "new": [1]}

    @app.get("/whole")
    async def whole() -> ChatCompletion:  # pyright: ignore[reportUnusedFunction]
        return ChatCompletion.model_validate(sent)

    @app.get("/several")
    async def several() -> list[ChatCompletionMessage]:  # pyright: ignore[reportUnusedFunction]
        return [ChatCompletionMessage(content="x")]

    client = TestClient(app)

    assert sent == client.get("/whole").json()
    assert [{"role": "assistant", "content": "x"}] == client.get("/several").json()
    schema = client.get("/openapi.json").json()["paths"]["/whole"]["get"]["responses"]["200"]
    assert "object" == schema["content"]["application/json"]["schema"]["type"]


def test_reply_as_a_field_of_a_pydantic_model():
    """
    Models of one's own may hold such objects, and take them from JSON.
    """

    class Turn(pydantic.BaseModel):
        message: ChatCompletionMessage

    turn = Turn.model_validate_json('{"message": {"role": "assistant", "content": "Hi"}}')

    assert "Hi" == turn.message.content
    assert {"message": {"role": "assistant", "content": "Hi"}} == turn.model_dump()
    assert turn == Turn(message=turn.message)
