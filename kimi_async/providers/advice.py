"""
What Kimi is certain to refuse, known before it is asked.

Each rule is a 400 that was captured from the official host (2026-08 and -09), with its text. They are told as a `KimiWarning` and
the request is sent all the same: models change, and the server decides. `AsyncKimi(advice=False)`, or a filter of the `warnings`
module, silences them. Only the official hosts are judged; gateways and servers of one's own have other rules.
"""

from collections.abc import Callable, Mapping
from typing import Final, cast

__all__ = ["KimiWarning", "certain_refusals"]


class KimiWarning(UserWarning):
    """A request is certain to be refused, or will do something other than it seems to ask."""


_FIXED: Final[Mapping[str, tuple[float, ...]]] = {
    "top_p": (0.95,),
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
}

WATCHED: Final = frozenset({"temperature", "stop", "thinking", "reasoning_effort", "tool_choice", *_FIXED})


def certain_refusals(body: Mapping[str, object]) -> list[str]:
    """
    Why this chat request would be refused, a sentence each; empty if nothing is known against it.

    Models that are not known by name are not judged.
    """
    model = str(body.get("model", ""))
    k3 = model.startswith("kimi-k3")
    k2 = model.startswith(("kimi-k2.6", "kimi-k2.7"))
    told: list[str] = []
    stop = body.get("stop")
    if isinstance(stop, (list, tuple)) and len(cast("list[object]", stop)) > 5:
        told.append(f"stop has {len(cast('list[object]', stop))} strings, and Kimi takes 5 at most")
    if not (k3 or k2):
        return told
    for rule in (_sampling, _thinking, _tool_choice):
        rule(model, k2, body, told.append)
    return told


def _thinks(model: str, body: Mapping[str, object]) -> bool:
    thinking = body.get("thinking")
    kind = cast("Mapping[str, object]", thinking).get("type") if isinstance(thinking, Mapping) else None
    return kind != "disabled"


def _sampling(model: str, k2: bool, body: Mapping[str, object], tell: Callable[[str], None]) -> None:
    for name, allowed in _FIXED.items():
        value = body.get(name)
        if value is not None and value not in allowed:
            tell(f"{name} is fixed at {allowed[0]} for {model}: any other value is refused; leave it out")
    temperature = body.get("temperature")
    if temperature is not None:
        fixed = 0.6 if model.startswith("kimi-k2.6") and not _thinks(model, body) else 1
        if temperature != fixed:
            tell(f"temperature is fixed at {fixed} for {model}: any other value is refused; leave it out")


def _thinking(model: str, k2: bool, body: Mapping[str, object], tell: Callable[[str], None]) -> None:
    if model.startswith("kimi-k2.7") and not _thinks(model, body):
        tell(f"{model} always thinks: thinking of type 'disabled' is refused")
    if k2 and body.get("thinking") is not None and body.get("reasoning_effort") is not None:
        tell(f"{model} does not take both thinking and reasoning_effort; it goes by thinking")
    thinking, effort = body.get("thinking"), body.get("reasoning_effort")
    inner = cast("Mapping[str, object]", thinking).get("effort") if isinstance(thinking, Mapping) else None
    if not k2 and inner is not None and effort is not None and inner != effort:
        # Moonshot's own verifier says the one in a comment and tests the other (2026-08).
        tell(
            f"thinking.effort is {inner!r} and reasoning_effort {effort!r}: sources differ on which wins; send one"
        )


def _dynamic_tools(body: Mapping[str, object]) -> bool:
    """Whether a system message declares tools along the way, as K3 takes them."""
    messages = body.get("messages")
    listed = cast("list[object]", messages) if isinstance(messages, (list, tuple)) else []
    return any(isinstance(m, Mapping) and bool(cast("Mapping[str, object]", m).get("tools")) for m in listed)


def _tool_choice(model: str, k2: bool, body: Mapping[str, object], tell: Callable[[str], None]) -> None:
    choice = body.get("tool_choice")
    if choice is None:
        return
    named = isinstance(choice, Mapping)
    if choice == "required" and not body.get("tools") and not _dynamic_tools(body):
        tell("tool_choice 'required' needs tools")
    elif _thinks(model, body) and (named or (choice == "required" and k2)):
        what = "a named function" if named else "'required'"
        tell(f"tool_choice {what} is refused by {model} while it thinks; use 'auto'")
