"""
Histories: what a strict host refuses is found, named by its message, and mended without inventing anything.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from kimi_async.conversation import check_history, mend_history
from kimi_async.conversation.history import NO_ANSWER
from kimi_async.testing.simulator.models import MODELS
from kimi_async.testing.simulator.validation import check_chat
from kimi_async.types.chat import ChatCompletionMessage, ChatCompletionMessageToolCall, Function
from support.histories import USER, answers, asks, call, spoiled, without_reasoning


def refused(messages: list[Any], model: str = "kimi-k2.6") -> str | None:
    """What a simulator that is strict about pairs and reasoning says."""
    wire = [m.model_dump(exclude_unset=True) if isinstance(m, ChatCompletionMessage) else m for m in messages]
    refusal = check_chat({"model": model, "messages": wire}, MODELS, strict=True)
    return None if refusal is None else refusal.message


WRONG: list[Any] = [
    pytest.param([USER, asks("f:0"), USER], [(1, "unanswered_call")], [USER, asks("f:0"), {"role": "tool", "tool_call_id": "f:0", "content": NO_ANSWER, "name": "f"}, USER], id="no answer"),
    pytest.param([USER, asks("f:0")], [(1, "unanswered_call")], [USER, asks("f:0"), {"role": "tool", "tool_call_id": "f:0", "content": NO_ANSWER, "name": "f"}], id="no answer at the end"),
    pytest.param([USER, answers("f:0")], [(1, "answer_without_call")], [USER], id="no call"),
    pytest.param([USER, asks("f:0"), answers("f:0"), answers("f:0")], [(3, "answer_without_call")], [USER, asks("f:0"), answers("f:0")], id="answered twice"),
    pytest.param([USER, without_reasoning(asks("f:0")), answers("f:0")], [(1, "missing_reasoning")], [USER, asks("f:0", reasoning_content=""), answers("f:0")], id="no reasoning"),
    pytest.param([USER, asks("f:0", "f:0"), answers("f:0", "a"), answers("f:0", "b")], [(1, "duplicate_call_id"), (3, "answer_without_call")], [USER, {**asks("f:0"), "tool_calls": [call("f:0"), call("f:0#2")]}, answers("f:0", "a"), answers("f:0#2", "b")], id="one id twice"),
    pytest.param([USER, asks("f:0"), USER, answers("f:0")], [(1, "unanswered_call"), (3, "answer_without_call")], [USER, asks("f:0"), answers("f:0"), USER], id="answer too late"),
    pytest.param([USER, {"role": "assistant", "content": ""}, USER], [(1, "empty_message")], [USER, USER], id="empty"),
    pytest.param([USER, asks("f:0"), answers("f:0"), asks("f:0"), USER], [(3, "unanswered_call")], [USER, asks("f:0"), answers("f:0"), asks("f:0"), {"role": "tool", "tool_call_id": "f:0", "content": NO_ANSWER, "name": "f"}, USER], id="an id that begins anew"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "faults", "mended"), WRONG)
def test_history_wrong_is_named_and_mended(messages: list[Any], faults: list[Any], mended: list[Any]) -> None:
    """Each fault is told at its message, and mending it makes a history that the strict host takes."""
    before = copy.deepcopy(messages)
    found = check_history(messages)
    result = mend_history(messages)

    assert refused(messages) is not None
    assert faults == [(fault.index, fault.kind) for fault in found]
    assert all(f"messages[{fault.index}]" in str(fault) for fault in found)
    assert mended == result.messages
    assert result.changes
    assert [] == check_history(result.messages)
    assert refused(result.messages) is None
    assert before == messages


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [{"role": "system", "content": "s"}, USER, asks("f:0", "g:1"), answers("g:1"), answers("f:0"), USER],
        [USER, asks("f:0"), answers("f:0"), asks("f:0"), answers("f:0")],
        [USER, {"role": "assistant", "content": "", "partial": True, "reasoning_content": "Hm"}],
        [{"role": "system", "tools": [{"type": "function", "function": {"name": "f"}}]}, USER],
    ],
)
def test_history_right_is_left_alone(messages: list[Any]) -> None:
    """Nothing is said of a history that is in order, and its messages stay the same objects."""
    result = mend_history(messages)

    assert [] == check_history(messages) == result.changes
    assert all(a is b for a, b in zip(messages, result.messages, strict=True))


def test_history_reasoning_is_not_missed_where_nobody_thinks() -> None:
    """With thinking off, or of a model that does not think, no reasoning is asked for."""
    messages = [USER, without_reasoning(asks("f:0")), answers("f:0")]

    assert [] == check_history(messages, thinking={"type": "disabled"})
    assert [] == check_history(messages, model="moonshot-v1-8k")
    assert ["missing_reasoning"] == [
        f.kind for f in check_history(messages, model="kimi-k2.7-code", thinking={"type": "disabled"})
    ]
    assert ["missing_reasoning"] == [f.kind for f in check_history(messages, model="kimi-k3")]


def test_history_of_reply_objects() -> None:
    """Messages from replies are read and mended like dicts, and are not changed."""
    message = ChatCompletionMessage(
        content="",
        tool_calls=[ChatCompletionMessageToolCall(id="f:0", function=Function(name="f", arguments="{}"))],
    )
    result = mend_history([USER, message])

    assert [(1, "missing_reasoning"), (1, "unanswered_call")] == [
        (f.index, f.kind) for f in check_history([USER, message])
    ]
    assert "" == result.messages[1].reasoning_content
    assert message.reasoning_content is None
    assert refused(result.messages) is None


@pytest.mark.parametrize("seed", range(200))
def test_history_spoiled_anyhow_is_mended(seed: int) -> None:
    """The check finds something exactly where the strict host would refuse, and what is mended it takes."""
    messages = spoiled(random.Random(seed))
    result = mend_history(messages)

    assert (refused(messages) is None) == ([] == check_history(messages))
    assert [] == check_history(result.messages)
    assert refused(result.messages) is None
    assert result.messages == mend_history(result.messages).messages


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": [None, "x", {}], "content": "a"},
        {"role": "assistant", "tool_calls": {"a": 1}},
        {"role": "assistant", "tool_calls": [{"id": ["l"], "function": {"name": 5, "arguments": {}}}]},
        {"role": "tool", "tool_call_id": 5, "content": 5},
        {"role": "user", "content": [None, 5, {"type": None}]},
        {"role": ["a"], "content": {}},
        {},
        "x",
        None,
    ],
    ids=str,
)
def test_what_is_no_message_breaks_neither_check_nor_mending(message: Any) -> None:
    """Both are advice: what they cannot read is the host's to refuse."""
    check_history([message])
    mend_history([message])
