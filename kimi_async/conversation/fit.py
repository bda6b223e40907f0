"""
The newest part of a conversation that fits the model's window.

    history = (await fit(history, model="kimi-k2.6", max_completion_tokens=8_192)).messages

What stays, whatever it costs: system messages (dynamic tools among them), the last user's message, and the newest message. A call
stays with its answers and its reasoning, or goes with them: Kimi answers 400 to anything else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from ..errors import ConfigurationError, KimiError
from ..providers.models import default_budget, model_info
from .history import mend_history
from .messages import calls_of, role_of
from .tokens import TEMPLATE, estimate_tokens, message_tokens

__all__ = ["Fitted", "TooLongError", "fit", "newest"]

Summary = Callable[[list[Any]], object]
"""Given the messages that are left out: a text, a message or messages to stand for them; or an awaitable of that."""

# An estimate that uses more of the room than this is checked with the endpoint, where a client is given: the estimate is a
# third too high for prose, so below it the truth fits for certain, and above it more might.
_CLOSE: Final = 0.6
# More is tried where the endpoint counts less than this share of what was thought: otherwise too little is wasted to ask again.
_WASTE: Final = 0.9
_ROUNDS: Final = 6


class _Counts(Protocol):
    """What is asked of a client: `tokenizers.estimate_token_count`."""

    @property
    def tokenizers(self) -> Any: ...


class TooLongError(KimiError):
    """
    What must stay (system messages, the last user's message, the newest message) does not fit by itself.

    :ivar tokens: what it needs; `room` is what there is.
    """

    retryable = False

    def __init__(self, tokens: int, room: int) -> None:
        self.tokens: int = tokens
        self.room: int = room
        super().__init__(
            f"the system messages, the last user's message and the newest message need about {tokens:,} tokens, and "
            f"the window has room for {room:,}: shorten them, lower max_completion_tokens, or take a model with more context"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.tokens, self.room))


@dataclass(frozen=True, slots=True)
class Fitted:
    """
    :ivar messages: what fits, in order: a new list of the same objects.
    :ivar dropped: what was left out, in order.
    :ivar tokens: prompt tokens of `messages` with the tools: the endpoint's number where `checked`, else an estimate.
    :ivar room: prompt tokens there were room for.
    :ivar checked: whether the token endpoint was asked.
    :ivar changes: what had to be mended in the history, a sentence each; see `mend_history`.
    """

    messages: list[Any]
    dropped: list[Any]
    tokens: int
    room: int
    checked: bool = False
    changes: tuple[str, ...] = ()


def newest(
    messages: Sequence[object], room: int, *, cost: Callable[[Any], float] = message_tokens
) -> tuple[list[Any], list[Any]]:
    """
    What of a valid history stays within `room`, and what goes: pinned messages first, then the newest while they fit.

    The first unit that does not fit ends it, so that what stays is one piece; a leading answer of the assistant's without its
    question goes as well.

    :raises TooLongError: the pinned ones need more.
    """
    units = _units(messages)
    users = [at for at, unit in enumerate(units) if role_of(unit[0]) == "user"]
    pinned = {at for at, unit in enumerate(units) if role_of(unit[0]) == "system"}
    pinned |= {len(units) - 1, *users[-1:]} if units else set()
    costs = [sum(map(cost, unit)) for unit in units]
    used = sum(costs[at] for at in pinned)
    if used > room:
        raise TooLongError(int(used), room)
    kept = set(pinned)
    for at in range(len(units) - 1, -1, -1):
        if at in pinned:
            continue
        if used + costs[at] > room:
            break
        used += costs[at]
        kept.add(at)
    whole = len(kept) == len(units)
    for at in sorted(kept - pinned):
        # A conversation that was cut begins with a question: what answers one that is gone says nothing.
        if whole or role_of(units[at][0]) == "user" or (users and at > users[-1]):
            break
        kept.discard(at)
    stays = [message for at, unit in enumerate(units) if at in kept for message in unit]
    goes = [message for at, unit in enumerate(units) if at not in kept for message in unit]
    return stays, goes


async def fit(
    messages: Iterable[object],
    *,
    model: str,
    max_completion_tokens: int | None = None,
    tools: Iterable[object] = (),
    thinking: Mapping[str, object] | None = None,
    client: _Counts | None = None,
    summary: Summary | None = None,
    context: int | None = None,
) -> Fitted:
    """
    The newest messages that fit the model's window with room for the answer; mended where the host would refuse them.

    :param max_completion_tokens: what the answer may use; the model's default where it is not given.
    :param tools: as they are sent with the request: they take room as well.
    :param client: where given, its token endpoint is asked when the estimate is close (it costs a request, no tokens).
    :param summary: makes of the messages left out what stands in for them: a text (it becomes a system message), a message, or a
        list of them; it may be a coroutine function. It is asked again where its own length makes more go.
    :param context: the window in tokens, for models that are in no table.

    :raises TooLongError: what must stay does not fit by itself.
    :raises ConfigurationError: the model's window is not known, or no room is left beside the answer.
    """
    room = _room(model, max_completion_tokens, context)
    mended = mend_history(messages, model=model, thinking=thinking)
    offered = list(tools)
    overhead = estimate_tokens((), offered) if offered else TEMPLATE
    sizes = {id(message): message_tokens(message) for message in mended.messages}
    standing: list[object] = []  # what the summary put in
    summed = 0  # messages it stands for
    scale = 1.0  # the endpoint's tokens for one of the estimate's
    counted: int | None = None
    for _ in range(_ROUNDS):
        kept, goes = _choose(mended.messages, sizes, room, overhead, standing, scale)
        if summary is not None and len(goes) > summed:
            standing, summed = await _summarised(summary, goes), len(goes)
            continue
        made = _with_summary(kept, standing) if goes else kept
        estimate = overhead + sum(map(message_tokens, made))
        if client is None or (counted is None and not goes and estimate <= room * _CLOSE):
            return Fitted(made, goes, int(estimate * scale), room, False, tuple(mended.changes))
        counted = await _count(client, model, made) + int(scale * (overhead - TEMPLATE))
        exact = counted / estimate
        if counted <= room and (not goes or exact >= scale * _WASTE):
            return Fitted(made, goes, counted, room, True, tuple(mended.changes))
        # Half a percent over, so that what stands between messages cannot make it too long again.
        scale = exact * 1.005
    kept, goes = _choose(mended.messages, sizes, room, overhead, standing, scale)
    made = _with_summary(kept, standing) if goes else kept
    tokens = int((overhead + sum(map(message_tokens, made))) * scale)
    return Fitted(made, goes, tokens, room, counted is not None, tuple(mended.changes))


def _choose(
    messages: Sequence[object],
    sizes: dict[int, int],
    room: int,
    overhead: int,
    standing: Sequence[object],
    scale: float,
) -> tuple[list[object], list[object]]:
    beside = overhead + sum(map(message_tokens, standing))
    try:
        return newest(messages, int(room / scale) - beside, cost=lambda message: sizes[id(message)])
    except TooLongError as error:
        raise TooLongError(int((error.tokens + beside) * scale), room) from None


def _room(model: str, budget: int | None, context: int | None) -> int:
    info = model_info(model)
    window = context if context is not None else info.context if info is not None else None
    if window is None:
        raise ConfigurationError(
            f"the window of {model!r} is not known; pass context= (client.models.list() tells context_length)"
        )
    if budget is None:
        budget = min(default_budget(model), window // 2)
    if not 0 < budget < window:
        raise ConfigurationError(
            f"max_completion_tokens must lie between 1 and the window of {window:,} tokens; got {budget:,}"
        )
    return window - budget


def _units(messages: Sequence[object]) -> list[list[object]]:
    """What stays or goes together: a message; one that calls tools with the answers behind it."""
    units: list[list[object]] = []
    for message in messages:
        if role_of(message) == "tool" and units and calls_of(units[-1][0]):
            units[-1].append(message)
        else:
            units.append([message])
    return units


async def _summarised(summary: Summary, dropped: Sequence[object]) -> list[object]:
    made = summary(list(dropped))
    if inspect.isawaitable(made):
        made = await made
    if made is None or made == "":
        return []
    if isinstance(made, str):
        return [{"role": "system", "content": made}]
    return list(cast("Iterable[object]", made)) if isinstance(made, (list, tuple)) else [made]


def _with_summary(kept: Sequence[object], standing: Sequence[object]) -> list[object]:
    """Behind the system messages that begin the conversation, where what is gone stood."""
    at = next((at for at, message in enumerate(kept) if role_of(message) != "system"), len(kept))
    return [*kept[:at], *standing, *kept[at:]]


async def _count(client: _Counts, model: str, messages: Sequence[object]) -> int:
    answer = await client.tokenizers.estimate_token_count(model=model, messages=messages)
    return int(answer.data.total_tokens)
