"""
Fitting a conversation into the window: the newest stays, pairs stay whole, and a strict host takes what is left.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kimi_async import AsyncKimi, ConfigurationError
from kimi_async.conversation import TooLongError, check_history, estimate_tokens, fit
from kimi_async.conversation.fit import newest
from kimi_async.testing import KimiService, in_memory
from kimi_async.testing.simulator.chat_model import estimate_tokens as counted
from support.histories import USER, answers, asks, spoiled

SYSTEM = {"role": "system", "content": "Be brief."}
DYNAMIC = {
    "role": "system",
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
}


def said(number: int, words: int = 20) -> dict[str, Any]:
    return {
        "role": "user" if number % 2 == 0 else "assistant",
        "content": f"Number {number}. " + "silver " * words,
    }


@pytest.fixture
async def service() -> KimiService:
    return KimiService(strict_history=True)


@pytest.fixture
async def client(service: KimiService) -> AsyncIterator[AsyncKimi]:
    async with AsyncKimi(api_key=service.api_key, transport=in_memory(service), max_retries=0) as opened:
        yield opened


def one(_: Any) -> float:
    return 1


@pytest.mark.parametrize(
    ("messages", "room", "kept"),
    [
        ([said(0), said(1), said(2)], 3, [0, 1, 2]),
        ([said(0), said(1), said(2)], 2, [2]),
        ([said(0), said(1), said(2), said(3), said(4)], 3, [2, 3, 4]),
        ([SYSTEM, said(0), said(1), said(2)], 2, [0, 3]),
        ([said(0), DYNAMIC, said(1), said(2)], 2, [1, 3]),
        ([USER, asks("f:0"), answers("f:0"), asks("f:0"), answers("f:0")], 4, [0, 3, 4]),
        ([USER, asks("f:0", "f:1"), answers("f:0"), answers("f:1"), asks("f:0"), answers("f:0")], 5, [0, 4, 5]),
        ([said(0), asks("f:0"), answers("f:0"), said(1), said(2)], 4, [4]),
        ([said(0), asks("f:0"), answers("f:0"), said(1), said(2)], 5, [0, 1, 2, 3, 4]),
        ([], 0, []),
    ],
)  # fmt: skip
def test_newest_keeps_what_must_stay_and_whole_pairs(messages: list[Any], room: int, kept: list[int]) -> None:
    """System messages, the last question and the newest message stay; then the newest, pairs whole, from a question on."""
    stays, goes = newest(messages, room, cost=one)

    assert [messages[at] for at in kept] == stays
    assert [message for at, message in enumerate(messages) if at not in kept] == goes


def test_newest_too_long_is_told() -> None:
    """What must stay and does not fit is an error with both numbers."""
    with pytest.raises(TooLongError) as caught:
        newest([SYSTEM, said(0), said(1)], 2, cost=one)

    assert (3, 2) == (caught.value.tokens, caught.value.room)


async def test_fit_short_history_is_the_same_objects() -> None:
    """What fits is not touched, and nobody is asked."""
    history = [SYSTEM, said(0), said(1), said(2)]
    fitted = await fit(history, model="kimi-k3")

    assert (history, [], False) == (fitted.messages, [], fitted.checked)
    assert all(a is b for a, b in zip(history, fitted.messages, strict=True))
    assert 1_048_576 - 131_072 == fitted.room


async def test_fit_estimate_is_on_the_safe_side(client: AsyncKimi) -> None:
    """The host counts no more than was estimated, so that what fits by the estimate fits; and it is not far off."""
    history = [SYSTEM, *(said(n, 300) for n in range(41)), {"role": "user", "content": "你好，月亮。" * 50}]
    estimate = estimate_tokens(history)

    assert counted({"messages": history}) <= estimate <= 2 * counted({"messages": history})


@pytest.mark.parametrize("asked", [False, True], ids=["estimated", "checked"])
@pytest.mark.parametrize("seed", range(100))
async def test_fit_any_history_is_taken_by_a_strict_host(client: AsyncKimi, seed: int, asked: bool) -> None:
    """Right or wrong, however long: what is left of a history is sent and answered, within the window."""
    dice = random.Random(seed)
    history = [message for _ in range(dice.randint(1, 4)) for message in spoiled(dice)]
    history.append({"role": "user", "content": "And now?"})
    for message in history:
        if message.get("content"):
            message["content"] += " moon" * dice.choice((0, 10, 400))
    context = dice.choice((2_500, 6_000, 20_000))
    model = dice.choice(("kimi-k3", "kimi-k2.6"))
    fitted = await fit(
        history, model=model, max_completion_tokens=1_000, context=context, client=client if asked else None
    )
    completion = await client.chat.completions.create(
        model=model, messages=fitted.messages, max_completion_tokens=1_000
    )

    assert [] == check_history(fitted.messages)
    assert completion.usage is not None
    assert completion.usage.prompt_tokens <= fitted.room == context - 1_000
    assert fitted.messages[-1] == history[-1]
    assert fitted.checked or not asked or not fitted.dropped


async def test_fit_checked_keeps_more_than_the_estimate_would(client: AsyncKimi) -> None:
    """The endpoint's numbers are smaller than the estimate, so that more of the conversation stays."""
    history = [said(n, 200) for n in range(101)]
    estimated = await fit(history, model="kimi-k2.6", max_completion_tokens=1_000, context=11_000)
    checked = await fit(
        history, model="kimi-k2.6", max_completion_tokens=1_000, context=11_000, client=client
    )

    assert len(checked.messages) > len(estimated.messages)
    assert checked.room * 0.85 < checked.tokens <= checked.room


async def test_fit_summary_stands_for_what_is_gone(client: AsyncKimi) -> None:
    """A function of the dropped messages says what they were, behind the system messages; it may be async."""
    history = [SYSTEM, *(said(n, 100) for n in range(41))]
    seen: list[int] = []

    async def summary(dropped: list[Any]) -> str:
        seen.append(len(dropped))
        return f"{len(dropped)} messages were here. " + "moon " * 150

    fitted = await fit(history, model="kimi-k3", max_completion_tokens=500, context=3_000, summary=summary)

    assert SYSTEM is fitted.messages[0]
    assert f"{len(fitted.dropped)} messages" in fitted.messages[1]["content"]
    assert seen[-1] == len(fitted.dropped)
    assert estimate_tokens(fitted.messages) <= fitted.room


async def test_fit_summary_is_not_asked_where_all_fits() -> None:
    """Nothing is gone, so nothing has to be summed up."""

    def summary(dropped: list[Any]) -> str:
        raise AssertionError("asked for a summary of nothing")

    fitted = await fit([USER], model="kimi-k3", summary=summary)

    assert [USER] == fitted.messages


async def test_fit_counts_tools_and_pictures() -> None:
    """Tools and pictures take room: with them less of the conversation stays."""
    tools = [{"type": "function", "function": {"name": "f", "description": "moon " * 500}}]
    picture = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
    }
    history = [said(n, 50) for n in range(40)]
    options: dict[str, Any] = {"model": "kimi-k3", "max_completion_tokens": 500, "context": 3_000}
    plain = await fit([*history, USER], **options)

    assert len((await fit([*history, USER], tools=tools, **options)).messages) < len(plain.messages)
    assert len((await fit([*history, picture], **options)).messages) < len(plain.messages)


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"model": "my-model"}, ConfigurationError, "context="),
        ({"model": "kimi-k3", "max_completion_tokens": 2_000_000}, ConfigurationError, "between 1 and"),
        ({"model": "kimi-k3", "context": 400, "max_completion_tokens": 300}, TooLongError, "shorten"),
    ],
)
async def test_fit_that_cannot_be(options: dict[str, Any], error: type[Exception], word: str) -> None:
    """A window that nobody knows, no room beside the answer, a question that is too long: each is told with what to do."""
    with pytest.raises(error, match=word):
        await fit([said(0, 200)], **options)
