"""
Folding: what servers do to tool calls, roles, usage and ends, case by case.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from kimi_async import ChatCompletionStreamState
from kimi_async.streaming.fold import COMPACT, Accumulator
from kimi_async.types import ChatCompletion, ChatCompletionChunk


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> ChatCompletionChunk:
    choice = {"index": more.pop("index", 0), "delta": delta or {}, "finish_reason": finish}
    return ChatCompletionChunk.model_validate(
        {"id": "c", "model": "m", "created": 1, "choices": [choice], **more}
    )


def folded(*chunks: ChatCompletionChunk) -> ChatCompletion:
    """
    Folds one by one and all at once; both must agree.
    """
    singly, together = Accumulator(), Accumulator()
    for each in chunks:
        assert singly.add(each)
    assert len(chunks) == together.extend(chunks)
    one, other = singly.completion(), together.completion()
    assert one is not None
    assert other is not None
    assert one.to_dict() == other.to_dict()
    assert singly.finished == together.finished
    return one


def calls(*fragments: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    completion = folded(*(chunk({"tool_calls": [each]}) for each in fragments))
    message = completion.choices[0].message
    return [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def fragment(
    index: int | None = None, id: str | None = None, name: str | None = None, arguments: str | None = None
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if index is not None:
        made["index"] = index
    if id is not None:
        made["id"] = id
    if name is not None or arguments is not None:
        made["function"] = {
            key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None
        }
    return made


A, B = ("f:0", "f", '{"a":1}'), ("g:1", "g", '{"b":2}')

CALLS: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str, str]]]] = {
    "as Kimi does": (
        [fragment(0, "f:0", "f", ""), fragment(0, arguments='{"a"'), fragment(0, arguments=":1}"),
         fragment(1, "g:1", "g", ""), fragment(1, arguments='{"b":2}')],
        [A, B],
    ),
    "interleaved": (
        [fragment(0, "f:0", "f"), fragment(1, "g:1", "g"), fragment(0, arguments='{"a"'), fragment(1, arguments='{"b"'),
         fragment(0, arguments=":1}"), fragment(1, arguments=":2}")],
        [A, B],
    ),
    "whole in one fragment": ([fragment(0, *A), fragment(1, *B)], [A, B]),
    "without index": (
        [fragment(None, "f:0", "f", '{"a"'), fragment(arguments=":1}"), fragment(None, "g:1", "g", '{"b"'), fragment(arguments=":2}")],
        [A, B],
    ),
    "without index, with id in every fragment": (
        [fragment(None, "f:0", "f", '{"a"'), fragment(None, "f:0", arguments=":1}"), fragment(None, "g:1", "g", '{"b":2}')],
        [A, B],
    ),
    "id and name in every fragment": (
        [fragment(0, "f:0", "f", '{"a"'), fragment(0, "f:0", "f", ":1}"), fragment(1, "g:1", "g", '{"b"'), fragment(1, "g:1", "g", ":2}")],
        [A, B],
    ),
    "every call numbered 0": (
        [fragment(0, "f:0", "f", '{"a"'), fragment(0, arguments=":1}"), fragment(0, "g:1", "g", '{"b"'), fragment(0, arguments=":2}")],
        [A, B],
    ),
    "arguments before the name": ([fragment(0, arguments='{"a"'), fragment(0, "f:0", "f", ":1}")], [A]),
    "arguments before the name, without index": ([fragment(arguments='{"a"'), fragment(None, "f:0", "f", ":1}")], [A]),
    "an index that starts at 1": ([fragment(1, "f:0", "f", '{"a":1}')], [A]),
    "no id": ([fragment(0, None, "f", "{}"), fragment(1, None, "g", "{}")], [("f:0", "f", "{}"), ("g:1", "g", "{}")]),
    "no id and no name": ([fragment(0, arguments="{}")], [("call:0", "", "{}")]),
    "function null": ([fragment(0, "f:0", "f", '{"a":1}'), {"index": 0, "function": None}], [A]),
    "empty strings": ([fragment(0, "f:0", "f", ""), fragment(0, "", "", '{"a":1}')], [A]),
    "no arguments": ([fragment(0, "f:0", "f")], [("f:0", "f", "")]),
    "arguments that are not JSON": ([fragment(0, "f:0", "f", "{oops")], [("f:0", "f", "{oops")]),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_tool_calls(name: str):
    """
    Parallel calls are put together however their fragments come.
    """
    fragments, expected = CALLS[name]

    assert expected == calls(*fragments)


def test_tool_call_type():
    """
    `builtin_function` survives; without a type it is a function.
    """
    completion = folded(
        chunk({"tool_calls": [{"index": 0, "id": "$web_search:0", "type": "builtin_function", "function": {"name": "$web_search"}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "f:1", "function": {"name": "f"}}]}),
    )  # fmt: skip
    message = completion.choices[0].message

    assert message.tool_calls is not None
    assert ["builtin_function", "function"] == [call.type for call in message.tool_calls]
    assert message.content is None


def test_two_fragments_in_one_chunk():
    """
    One chunk may carry fragments of two calls.
    """
    completion = folded(chunk({"tool_calls": [fragment(0, *A), fragment(1, *B)]}))
    message = completion.choices[0].message

    assert message.tool_calls is not None
    assert ["f:0", "g:1"] == [call.id for call in message.tool_calls]


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


@pytest.mark.parametrize(
    "where", ["in the choice", "beside the last choice", "with choices: []", "in two places"]
)
def test_usage(where: str):
    """
    Usage is found in all three places; the last one wins.
    """
    body = chunk({"content": "x"})
    in_choice = ChatCompletionChunk.model_validate(
        {"choices": [{"delta": {}, "finish_reason": "stop", "usage": USAGE}]}
    )
    beside = chunk(finish="stop", usage=USAGE)
    alone = ChatCompletionChunk.model_validate({"choices": [], "usage": USAGE})
    more = ChatCompletionChunk.model_validate({"choices": [], "usage": {**USAGE, "total_tokens": 9}})
    chunks, total = {
        "in the choice": ([body, in_choice], 3),
        "beside the last choice": ([body, beside], 3),
        "with choices: []": ([body, chunk(finish="stop"), alone], 3),
        "in two places": ([body, in_choice, more], 9),
    }[where]
    completion = folded(*chunks)

    assert completion.usage is not None
    assert total == completion.usage.total_tokens


@pytest.mark.parametrize("where", ["beside", "in the choice"])
@pytest.mark.parametrize(
    "delta",
    [{"content": "b"}, {"reasoning_content": "b"}, {"tool_calls": [fragment(0, arguments="b")]}],
)
def test_usage_first_in_the_middle(where: str, delta: dict[str, Any]):
    """
    A usage that only a later fragment carries is kept, whatever the fragment is of, and what follows is folded on.
    """
    middle: dict[str, Any] = {"choices": [{"index": 0, "delta": delta}]}
    (middle if where == "beside" else middle["choices"][0])["usage"] = USAGE
    begin = chunk({"content": "a", "reasoning_content": "a", "tool_calls": [fragment(0, *A)]})
    completion = folded(
        begin, chunk(delta), ChatCompletionChunk.model_validate(middle), chunk(delta), chunk(finish="stop")
    )

    assert completion.usage is not None
    assert 3 == completion.usage.total_tokens
    text = completion.choices[0].message.to_dict()
    assert "bbb" in str(text)


def test_text_run_usage_in_the_middle():
    """
    A run of text ends before a chunk with a usage: `extend` folds that one.
    """
    fold = Accumulator()
    chunks = [chunk({"content": each}) for each in "abc"] + [chunk({"content": "d"}, usage=USAGE)]
    fold.extend(chunks[:1])

    assert 2 == fold.text_run(chunks, 1)


@pytest.mark.parametrize(
    ("deltas", "role"),
    [
        ([{"role": "assistant", "content": ""}, {"content": "x"}], "assistant"),
        ([{"content": "x"}], "assistant"),
        ([{"role": "assistant", "content": "x"}, {"role": "assistant", "content": ""}], "assistant"),
        ([{"role": "", "content": "x"}], "assistant"),
        ([{"role": "model", "content": "x"}], "model"),
    ],
)
def test_role(deltas: list[dict[str, Any]], role: str):
    """
    The role may be missing, empty or repeated.
    """
    message = folded(*map(chunk, deltas)).choices[0].message

    assert (role, "x") == (message.role, message.content)


def test_finish_reason_twice():
    """
    The last one counts, and ends it once.
    """
    completion = folded(chunk({"content": "x"}), chunk(finish="length"), chunk(finish="stop"))

    assert "stop" == completion.choices[0].finish_reason


def test_finish_reason_empty_until_the_end():
    """
    An empty `finish_reason` is none.
    """
    fold = Accumulator()
    fold.extend([chunk({"content": "a"}, ""), chunk({"content": "b"}, "")])
    assert not fold.finished
    fold.extend([chunk(finish="stop")])

    assert fold.finished


def test_text_after_the_finish():
    """
    What comes after `finish_reason` is kept.
    """
    completion = folded(chunk({"content": "a"}), chunk(finish="stop"), chunk({"content": "b"}))

    assert "ab" == completion.choices[0].message.content


def test_finished_only_when_every_choice_is():
    """
    With n > 1 the stream is whole when the last choice is, also if it begins after another has ended.
    """
    fold = Accumulator()
    states = []
    for each in (
        chunk({"content": "a"}),
        chunk(finish="stop"),
        chunk({"content": "b"}, index=1),
        chunk(finish="stop", index=1),
    ):
        fold.extend([each])
        states.append(fold.finished)

    assert [False, True, False, True] == states


@pytest.mark.parametrize(
    ("deltas", "reasoning", "content"),
    [
        ([{"reasoning_content": "a"}, {"reasoning_content": "b"}, {"content": "c"}], "ab", "c"),
        ([{"reasoning": "a"}, {"reasoning": "b"}, {"content": "c"}], "ab", "c"),
        ([{"reasoning": "a", "reasoning_content": "a"}, {"content": "c"}], "a", "c"),
        ([{"reasoning_content": ""}, {"content": "c"}], "", "c"),
        ([{"content": "c"}], None, "c"),
        ([{"content": "", "reasoning_content": "a"}, {"content": "c", "reasoning_content": None}], "a", "c"),
        ([{"reasoning_content": "a"}], "a", ""),
    ],
)
def test_reasoning(deltas: list[dict[str, Any]], reasoning: str | None, content: str):
    """
    Reasoning under either name, empty apart from absent.
    """
    message = folded(*map(chunk, deltas)).choices[0].message

    assert (reasoning, content) == (message.reasoning_content, message.content)


@pytest.mark.parametrize("foreign", [1.0, [[]], "x", {"": 1.0}, {"content": {"a": 1}}])
def test_logprobs_of_another_shape_do_not_cost_the_answer(foreign: Any):
    """
    Log probabilities that are no object of lists are left out; the text beside them is kept.
    """
    answer = ChatCompletionChunk.model_validate(
        {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop", "logprobs": foreign}]}
    )
    state = ChatCompletionStreamState()

    assert "hi" == folded(answer).choices[0].message.content
    assert not [event for event in state.handle_chunk(answer) if event.type.startswith("logprobs")]


def test_logprobs_and_details_are_collected():
    """
    Token lists are joined in order, structured reasoning too.
    """
    one = ChatCompletionChunk.model_validate(
        {"choices": [{"delta": {"content": "a", "reasoning_details": [1]}, "logprobs": {"content": [{"token": "a"}], "refusal": None}}]}
    )  # fmt: skip
    two = ChatCompletionChunk.model_validate(
        {
            "choices": [
                {
                    "delta": {"content": "b", "reasoning_details": [2]},
                    "logprobs": {"content": [{"token": "b"}]},
                }
            ]
        }
    )
    choice = folded(one, two).choices[0]

    assert {"content": [{"token": "a"}, {"token": "b"}]} == choice.logprobs
    assert [1, 2] == choice.message.reasoning_details


def test_stops_at_what_may_be_an_error():
    """
    An error, and a chunk that holds nothing, are left to the caller.
    """
    good = chunk({"content": "a"})
    for odd in (
        ChatCompletionChunk.model_validate({"error": {"message": "x"}}),
        ChatCompletionChunk.model_validate({}),
        chunk(finish="error"),
    ):
        fold = Accumulator()
        assert 1 == fold.extend([good, odd, good])
        assert not fold.add(odd)
        assert 1 == fold.chunks


def test_completion_before_the_first_chunk():
    """
    Nothing yet is None, not an empty answer.
    """
    assert Accumulator().completion() is None


def test_ids_from_the_first_chunk_that_has_them():
    """
    Id, model and fingerprint may come late.
    """
    completion = folded(
        ChatCompletionChunk.model_validate({"choices": [{"delta": {"content": "a"}}]}),
        ChatCompletionChunk.model_validate(
            {"id": "c", "model": "m", "created": 5, "system_fingerprint": "f", "choices": [{"delta": {"content": "b"}, "finish_reason": "stop"}]}
        ),
    )  # fmt: skip

    assert ("c", "m", 5, "f") == (
        completion.id,
        completion.model,
        completion.created,
        completion.system_fingerprint,
    )


def test_snapshot_is_not_the_fold():
    """
    What was taken stays as it was.
    """
    fold = Accumulator()
    fold.extend([chunk({"content": "a"})])
    before = fold.completion()
    fold.extend([chunk({"content": "b"})])

    assert before is not None
    assert "a" == before.choices[0].message.content


def test_long_stream_is_linear():
    """
    Ten times the chunks take about ten times as long, and memory is that of the text.
    """

    def seconds(count: int) -> float:
        chunks = [chunk({"content": "abcd"})] * count
        fold = Accumulator()
        began = time.process_time()
        for each in chunks:
            fold.add(each)
        fold.completion()
        return time.process_time() - began

    short = min(seconds(10_000) for _ in range(3))
    long = min(seconds(100_000) for _ in range(3))
    fold = Accumulator()
    fold.extend([chunk({"content": "abcd"})] * (3 * COMPACT))

    assert long < 30 * short
    assert len(fold.choices[0].content) <= COMPACT + 1
