"""
What the keeper of reasoning remembers, and to whom it gives it.
"""

from typing import Any

import pytest

from kimi_async.integrations.reasoning import ReasoningKeeper
from kimi_async.types import ChatCompletion


def call(id: str, arguments: str, name: str = "get_weather") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(reasoning: str | None, *calls: dict[str, Any], content: Any = "") -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "tool_calls": list(calls)}
    return message if reasoning is None else {**message, "reasoning_content": reasoning}


def completion(*messages: dict[str, Any]) -> ChatCompletion:
    choices = [
        {"index": index, "finish_reason": "tool_calls", "message": message}
        for index, message in enumerate(messages)
    ]
    return ChatCompletion.model_validate(
        {"id": "1", "created": 1, "model": "kimi-k2.6", "object": "chat.completion", "choices": choices}
    )


ASKED: list[dict[str, Any]] = [{"role": "user", "content": "Weather in Beijing?"}]
CALL = call("get_weather:0", '{"city": "Beijing"}')


def keeper_of(reasoning: str = "Look first.", messages: list[Any] = ASKED, *calls: Any) -> ReasoningKeeper:
    keeper = ReasoningKeeper()
    _, digest = keeper.restore(messages)
    keeper.remember(digest, completion(answer(reasoning, *(calls or (CALL,)))))
    return keeper


def restored(keeper: ReasoningKeeper, messages: list[Any]) -> list[str | None]:
    """The reasoning of each answer after the keeper has seen the messages."""
    told, _ = keeper.restore(messages)
    return [
        message.get("reasoning_content") for message in (told or messages) if message["role"] == "assistant"
    ]


def test_reasoning_comes_back_to_the_conversation_it_came_from() -> None:
    """A dropped reasoning is put back where everything else is as it was, and the caller's messages stay as they are."""
    messages = [
        *ASKED,
        answer(None, CALL),
        {"role": "tool", "tool_call_id": "get_weather:0", "content": "sunny"},
    ]

    assert ["Look first."] == restored(keeper_of(), messages)
    assert "reasoning_content" not in messages[1]


@pytest.mark.parametrize(
    "told",
    [
        answer(None, CALL, content=None),
        {"role": "assistant", "tool_calls": [CALL]},
        answer(None, CALL, content=[]),
        answer(None, call("get_weather:0", '{"city":"Beijing"}')),
        answer(" ", CALL),
        {**answer(None, {**CALL, "index": 0}), "refusal": None, "annotations": []},
    ],
    ids=["null", "absent", "no parts", "other spacing", "one space", "empty fields"],
)
def test_ways_of_saying_the_same_are_the_same(told: dict[str, Any]) -> None:
    """What frameworks write differently without meaning anything else is recognised."""
    assert ["Look first."] == restored(keeper_of(), [*ASKED, told])


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Weather in Paris?"}, answer(None, CALL)],
        [{"role": "system", "content": "Be brief."}, *ASKED, answer(None, CALL)],
        [{**ASKED[0], "name": "Ada"}, answer(None, CALL)],
        [*ASKED, answer(None, call("get_weather:0", '{"city": "Paris"}'))],
        [*ASKED, answer(None, call("get_weather:1", '{"city": "Beijing"}'))],
        [*ASKED, answer(None, call("get_weather:0", '{"city": "Beijing"}', "get_time"))],
        [*ASKED, answer(None, CALL, CALL)],
        [*ASKED, answer(None, CALL, content="Let me see.")],
        [*ASKED, *ASKED, answer(None, CALL)],
    ],
    ids=[
        "question",
        "system",
        "name",
        "arguments",
        "id",
        "function",
        "more calls",
        "text",
        "repeated question",
    ],
)
def test_another_conversation_gets_nothing(messages: list[Any]) -> None:
    """Whatever differs, in the answer or before it: no reasoning is better than a wrong one."""
    assert [None] == restored(keeper_of(), messages)


def test_call_ids_that_begin_anew_do_not_mix_turns() -> None:
    """The same id in every turn, as Kimi gives them, leads to each turn's own reasoning."""
    keeper = ReasoningKeeper()
    messages: list[Any] = list(ASKED)
    for turn in range(3):
        _told, digest = keeper.restore(messages)
        keeper.remember(digest, completion(answer(f"Turn {turn}.", CALL)))
        messages = [
            *messages,
            answer(None, CALL),
            {"role": "tool", "tool_call_id": CALL["id"], "content": "sunny"},
        ]

    assert ["Turn 0.", "Turn 1.", "Turn 2."] == restored(keeper, messages)


def test_reasoning_that_came_along_is_left_alone() -> None:
    """What a framework sends itself goes as it is, right or wrong."""
    told, _ = keeper_of().restore([*ASKED, answer("My own.", CALL)])

    assert told is None


def test_answers_without_calls_are_not_remembered() -> None:
    """Kimi wants reasoning back with tool calls only."""
    keeper = ReasoningKeeper()
    _, digest = keeper.restore(ASKED)
    keeper.remember(
        digest, completion({"role": "assistant", "content": "Sunny.", "reasoning_content": "Easy."})
    )

    assert 0 == len(keeper)


def test_every_choice_is_remembered() -> None:
    """Of several answers to one question, each has its own reasoning."""
    other = call("get_weather:0", '{"city": "Paris"}')
    keeper = ReasoningKeeper()
    _, digest = keeper.restore(ASKED)
    keeper.remember(digest, completion(answer("One.", CALL), answer("Two.", other)))

    assert ["One."] == restored(keeper, [*ASKED, answer(None, CALL)])
    assert ["Two."] == restored(keeper, [*ASKED, answer(None, other)])


def test_memory_is_bounded_by_answers_and_by_size() -> None:
    """The answer not used for longest is forgotten first; one that alone exceeds the bound is not kept."""
    keeper = ReasoningKeeper(max_entries=2, max_size=10)
    questions: list[list[Any]] = [[{"role": "user", "content": str(number)}] for number in range(3)]
    digests = [keeper.restore(question)[1] for question in questions]
    keeper.remember(digests[0], completion(answer("aaaa", CALL)))
    keeper.remember(digests[1], completion(answer("bbbb", CALL)))
    assert ["aaaa"] == restored(keeper, [*questions[0], answer(None, CALL)])  # used: now the younger one

    keeper.remember(digests[2], completion(answer("cccc", CALL)))
    assert [None] == restored(keeper, [*questions[1], answer(None, CALL)])
    assert ["aaaa"] == restored(keeper, [*questions[0], answer(None, CALL)])

    keeper.remember(digests[1], completion(answer("d" * 11, CALL)))
    assert [None] == restored(keeper, [*questions[1], answer(None, CALL)])
    keeper.remember(digests[1], completion(answer("e" * 8, CALL)))
    assert 1 == len(keeper)


@pytest.mark.parametrize(
    "odd", ["text", 7, None, [], {"role": "assistant", "tool_calls": ["x", {"function": 1}]}]
)
def test_malformed_messages_pass(odd: Any) -> None:
    """What is no message is the server's to refuse, not the keeper's to fall over."""
    told, digest = keeper_of().restore([odd, *ASKED, answer(None, CALL)])

    assert told is None
    assert 16 == len(digest)


@pytest.mark.parametrize(
    "arguments", ['{"id": 123456789012345678901234567890}', '{"x": "\\ud83c"}', "{", "[" * 5000]
)
def test_odd_arguments_are_told_apart(arguments: str) -> None:
    """Numbers of any length, halves of characters and text that is no JSON are arguments like any other."""
    mine, other = call("f:0", arguments), call("f:0", arguments + " 1")

    assert ["Odd."] == restored(keeper_of("Odd.", ASKED, mine), [*ASKED, answer(None, mine)])
    assert [None] == restored(keeper_of("Odd.", ASKED, mine), [*ASKED, answer(None, other)])


def test_shown_without_what_it_holds() -> None:
    """Reasoning is a user's text, and stays out of a log."""
    assert "<ReasoningKeeper 1 answers, 11 characters>" == repr(keeper_of())
