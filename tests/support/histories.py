"""
Conversations with tools, right and wrong.
"""

from __future__ import annotations

import random
from typing import Any

__all__ = ["USER", "answers", "asks", "call", "spoiled", "without_reasoning"]

USER = {"role": "user", "content": "Weather?"}


def call(id_: str, name: str = "f") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": "{}"}}


def asks(*ids: str, **more: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Hm.",
        "tool_calls": [call(i) for i in ids],
        **more,
    }


def answers(id_: str, content: str = "21 C") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": content}


def without_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != "reasoning_content"}


def spoiled(dice: random.Random) -> list[Any]:
    """A long history, with things gone wrong in it here and there."""
    messages: list[Any] = [{"role": "system", "content": "Be brief."}] if dice.random() < 0.7 else []
    for turn in range(dice.randint(1, 12)):
        messages.append({"role": "user", "content": f"Question {turn}"})
        for _ in range(dice.randint(0, 3)):
            ids = [f"f:{n}" for n in range(dice.randint(1, 3))]
            block = [asks(*ids), *(answers(i) for i in ids)]
            match dice.randint(0, 12):
                case 0:
                    block.pop(dice.randrange(1, len(block)))
                case 1:
                    block.pop(0)
                case 2:
                    block[0] = without_reasoning(block[0])
                case 3:
                    block.insert(1, {"role": "user", "content": "Wait."})
                case 4:
                    block.append(answers(ids[0]))
                case 5:
                    block[0]["tool_calls"].append(call(ids[0]))
                case 6:
                    block.append({"role": "assistant", "content": ""})
                case 7:
                    block[0]["tool_calls"][0]["id"] = ""
                case _:
                    pass
            messages += block
        if dice.random() < 0.8:
            messages.append({"role": "assistant", "content": f"Answer {turn}", "reasoning_content": "Hm."})
    return messages
