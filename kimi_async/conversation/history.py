"""
What Kimi refuses a history for, known before it is sent; and what can be mended without inventing anything.

Each rule is a 400 of the official host, with its text in platform.kimi.ai/docs/api/errors or in public reports:
"must be followed by tool messages responding to each 'tool_call_id'", "tool_call_id … is not found", "reasoning_content is missing
in assistant tool call message at index N", "must not be empty".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..providers.models import model_info
from .messages import calls_of, changed, field_of, is_empty, role_of

__all__ = ["HistoryFault", "Mended", "check_history", "mend_history", "refused_history"]

FaultKind = Literal[
    "unanswered_call", "answer_without_call", "duplicate_call_id", "missing_reasoning", "empty_message"
]

# What a model is told of a call whose answer nobody has. True, and short.
NO_ANSWER = "(no result: the call was interrupted)"


@dataclass(frozen=True, slots=True)
class HistoryFault:
    """
    One thing that is wrong.

    :ivar index: of the message, from 0.
    :ivar kind: what is wrong, in a word.
    :ivar call_id: the call it is about; None where it is about the message.
    :ivar text: what is wrong there and what to do, in a sentence.
    """

    index: int
    kind: FaultKind
    text: str
    call_id: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Mended:
    """
    :ivar messages: the mended history: a new list; messages that needed nothing are the same objects.
    :ivar changes: what was done, a sentence each; empty if nothing was wrong.
    """

    messages: list[Any]
    changes: list[str]


def check_history(
    messages: Iterable[object], *, model: str = "", thinking: Mapping[str, object] | None = None
) -> list[HistoryFault]:
    """
    What is wrong with a history, in order; empty if nothing is known against it.

    :param model: without it any model that thinks is meant. Models that do not think need no reasoning back.
    :param thinking: as `create` takes it; of type "disabled" no reasoning is missed.
    """
    thinks = _thinks(model, thinking)
    faults: list[HistoryFault] = []
    waiting: dict[str, int] = {}  # ids of calls that still need their answer, and who made them

    def unanswered() -> None:
        for id_, index in waiting.items():
            faults.append(
                HistoryFault(
                    index,
                    "unanswered_call",
                    f"messages[{index}] calls a tool as {id_!r} and no tool message answers it right after: "
                    "add the answer, or take the message out",
                    id_,
                )
            )
        waiting.clear()

    for index, message in enumerate(messages):
        role = role_of(message)
        if role == "tool":
            id_ = str(field_of(message, "tool_call_id") or "")
            if waiting.pop(id_, None) is None:
                faults.append(
                    HistoryFault(
                        index,
                        "answer_without_call",
                        f"messages[{index}] answers {id_!r}, which no message right before it calls: "
                        "put it behind its call, or take it out",
                        id_,
                    )
                )
            continue
        unanswered()
        if role != "assistant":
            continue
        if is_empty(message) and not field_of(message, "partial"):
            faults.append(
                HistoryFault(
                    index,
                    "empty_message",
                    f"messages[{index}] is an assistant's without text and calls: take it out",
                )
            )
        calls = calls_of(message)
        if calls and thinks and not isinstance(field_of(message, "reasoning_content"), str):
            faults.append(
                HistoryFault(
                    index,
                    "missing_reasoning",
                    f"messages[{index}] calls tools without reasoning_content while thinking is on: send the "
                    "message back as it came, reasoning included",
                )
            )
        for call in calls:
            id_ = str(field_of(call, "id") or "")
            if id_ in waiting:
                faults.append(
                    HistoryFault(
                        index,
                        "duplicate_call_id",
                        f"messages[{index}] has two calls with the id {id_!r}: give each its own",
                        id_,
                    )
                )
            waiting[id_] = index
    unanswered()
    return faults


def refused_history(
    messages: Sequence[object], model: str, thinking: Mapping[str, object] | None
) -> list[HistoryFault]:
    """
    What of `check_history` the official host is certain to refuse, for the advice that is given before a request is sent.

    Reasoning is missed on K2 alone: K3 has been seen to answer without. A conversation without tools is looked through for their
    marks and no further.
    """
    for message in messages:
        # The look into a plain dict is twenty times as fast as asking what kind of mapping it is.
        if type(message) is dict:
            if "tool_calls" in message or "tool_call_id" in message:
                break
        elif calls_of(message) or role_of(message) == "tool":
            break
    else:
        return []
    faults = check_history(messages, model=model, thinking=thinking)
    if not model.startswith(("kimi-k2.6", "kimi-k2.7")):
        faults = [fault for fault in faults if fault.kind != "missing_reasoning"]
    return faults


def mend_history(
    messages: Iterable[object], *, model: str = "", thinking: Mapping[str, object] | None = None
) -> Mended:
    """
    The history as the host will take it, changed no more than that needs; nothing of the caller's is changed.

    Answers are put behind their calls, and those without a call are left out; a call without an answer gets one that says so; a
    second id of the same name is renamed with its answer; missing reasoning becomes the empty string, which Kimi takes, and is
    never made up; assistant messages that hold nothing are left out.
    """
    thinks = _thinks(model, thinking)
    listed = list(messages)
    made: list[object] = []
    changes: list[str] = []
    used: set[int] = set()
    for index, message in enumerate(listed):
        role = role_of(message)
        if role == "tool":
            if index not in used:
                id_ = field_of(message, "tool_call_id")
                changes.append(f"left messages[{index}] out: it answers {id_!r}, which nothing calls")
            continue
        if role != "assistant":
            made.append(message)
            continue
        if is_empty(message) and not field_of(message, "partial"):
            changes.append(f"left messages[{index}] out: it holds neither text nor calls")
            continue
        calls = calls_of(message)
        if not calls:
            made.append(message)
            continue
        fields: dict[str, object] = {}
        if thinks and not isinstance(field_of(message, "reasoning_content"), str):
            fields["reasoning_content"] = ""
            changes.append(f"gave messages[{index}] an empty reasoning_content")
        names = _own_ids(calls, index, changes)
        if any(name != field_of(call, "id") for name, call in zip(names, calls, strict=True)):
            fields["tool_calls"] = [changed(call, id=name) for name, call in zip(names, calls, strict=True)]
        made.append(changed(message, **fields) if fields else message)
        # In the order in which they stand, so that a history that is in order stays as it is.
        answered = [
            _answer(listed, index, name, call, used, changes) for name, call in zip(names, calls, strict=True)
        ]
        made += [answer for _, answer in sorted(answered, key=lambda pair: pair[0])]
    return Mended(made, changes)


def _own_ids(calls: Sequence[object], index: int, changes: list[str]) -> list[str]:
    names: list[str] = []
    for call in calls:
        id_ = str(field_of(call, "id") or "") or f"{field_of(field_of(call, 'function'), 'name') or 'call'}:0"
        name, number = id_, 2
        while name in names:
            name, number = f"{id_}#{number}", number + 1
        if name != field_of(call, "id"):
            changes.append(f"renamed a call of messages[{index}] to {name!r}: its id was missing or taken")
        names.append(name)
    return names


def _answer(
    listed: Sequence[object], index: int, name: str, call: object, used: set[int], changes: list[str]
) -> tuple[int, object]:
    """Where it stands, and the answer to a call: the first one after it, up to the next call of the same id, that is not another's."""
    id_ = field_of(call, "id")
    apart = False
    for at in range(index + 1, len(listed)):
        message = listed[at]
        if role_of(message) != "tool":
            apart = True
            if any(field_of(other, "id") == id_ for other in calls_of(message)):
                break
        elif at not in used and field_of(message, "tool_call_id") == id_:
            used.add(at)
            if apart:
                changes.append(f"put messages[{at}] behind the call that it answers")
            return at, message if name == id_ else changed(message, tool_call_id=name)
    changes.append(f"answered {name!r} of messages[{index}], which nothing answers, with {NO_ANSWER!r}")
    made: dict[str, object] = {"role": "tool", "tool_call_id": name, "content": NO_ANSWER}
    if tool := field_of(field_of(call, "function"), "name"):
        made["name"] = tool
    return len(listed), made


def _thinks(model: str, thinking: Mapping[str, object] | None) -> bool:
    info = model_info(model) if model else None
    if info is not None and info.thinking == "no":
        return False
    always = info is not None and info.thinking == "always"
    return always or thinking is None or thinking.get("type") != "disabled"
