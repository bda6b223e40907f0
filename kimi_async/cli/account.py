"""`kimi-async models`, `tokens` and `balance`: what a key may use, what a text costs, what is left."""

from collections.abc import Sequence
from typing import Any

from .chat import prompt_from
from .connect import Kimi
from .terminal import Column, print_json, run_async, table

__all__ = ["balance", "models", "tokens"]


def models(kimi: Kimi, *, as_json: bool) -> None:
    async def work() -> list[Any]:
        async with kimi.connected() as client:
            return [model async for model in client.models.list()]

    found = run_async(work())
    if as_json:
        print_json([model.to_dict() for model in found])
        return
    table(
        [
            Column("id", "id"),
            Column("context", "number", drop=1),
            Column("reasons", "word", drop=2),
            Column("owner", "word", drop=3),
        ],
        [
            (model.id, model.context_length, "yes" if model.supports_reasoning else "", model.owned_by)
            for model in found
        ],
    )


def tokens(kimi: Kimi, words: Sequence[str], *, model: str, as_json: bool) -> None:
    messages = [{"role": "user", "content": prompt_from(words)}]

    async def work() -> int:
        async with kimi.connected() as client:
            estimate = await client.tokenizers.estimate_token_count(model=model, messages=messages)
            return estimate.total_tokens

    counted = run_async(work())
    if as_json:
        print_json({"model": model, "total_tokens": counted})
    else:
        print(counted)


def balance(kimi: Kimi, *, as_json: bool) -> None:
    async def work() -> Any:
        async with kimi.connected() as client:
            return await client.users.me.balance()

    found = run_async(work())
    if as_json:
        print_json(found.to_dict())
        return
    table(
        [Column("balance"), Column("amount", "number")],
        [
            ("available", found.available_balance),
            ("voucher", found.voucher_balance),
            ("cash", found.cash_balance),
        ],
    )
