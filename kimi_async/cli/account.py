"""
`kimi-async models`, `tokens` and `balance`: what a key may use, what a text costs, what is left.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from .chat import prompt_from
from .connect import connected
from .terminal import run_async, table

__all__ = ["balance", "models", "tokens"]


def models(*, as_json: bool, simulator: bool) -> None:
    async def work() -> list[Any]:
        async with connected(simulator=simulator) as client:
            return [model async for model in client.models.list()]

    found = run_async(work())
    if as_json:
        print(msgspec.json.encode([model.to_dict() for model in found]).decode())
        return
    rows = [
        [
            model.id,
            model.context_length or "",
            "yes" if model.supports_reasoning else "",
            model.owned_by or "",
        ]
        for model in found
    ]
    table(["id", "context", "reasons", "owner"], rows, numbers=["context"])


def tokens(words: Sequence[str], *, model: str, simulator: bool) -> None:
    messages = [{"role": "user", "content": prompt_from(words)}]

    async def work() -> int:
        async with connected(simulator=simulator) as client:
            estimate = await client.tokenizers.estimate_token_count(model=model, messages=messages)
            return estimate.total_tokens

    print(run_async(work()))


def balance(*, as_json: bool, simulator: bool) -> None:
    async def work() -> Any:
        async with connected(simulator=simulator) as client:
            return await client.users.me.balance()

    found = run_async(work())
    if as_json:
        print(msgspec.json.encode(found.to_dict()).decode())
        return
    rows = [
        ["available", found.available_balance],
        ["voucher", found.voucher_balance],
        ["cash", found.cash_balance],
    ]
    table(["balance", "amount"], rows, numbers=["amount"])
