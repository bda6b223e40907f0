"""
What is known about Kimi's models: context, thinking, prices, and when each was removed. Advice, never a gate.

Model ids are free strings: an id that is not here is simply not advised about. Prices are those of the official hosts,
per million tokens without tax, on the day of `AS_OF`; a bill is the only truth, and gateways have prices of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal, Protocol, cast

from .ids import official_id

__all__ = [
    "AS_OF",
    "BATCH_SHARE",
    "MODELS",
    "Currency",
    "ModelInfo",
    "Price",
    "cost",
    "default_budget",
    "model_info",
    "price",
]

AS_OF: Final = date(2026, 11, 22)
"""When this table was last compared with its sources."""

BATCH_SHARE: Final = Decimal("0.6")
"""What a batch costs, as a share of the list price (platform.kimi.ai/docs/pricing/batch)."""

Currency = Literal["USD", "CNY"]
_MILLION: Final = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Price:
    """
    Per million tokens.

    :ivar hit: input read from the cache.
    :ivar miss: other input.
    :ivar output: reasoning included.
    :ivar write_5m: input written to the cache for five minutes, instead of `miss`; None where writing is not billed apart.
    :ivar write_1h: the same for an hour.
    :ivar source: where it was read.
    """

    hit: Decimal
    miss: Decimal
    output: Decimal
    write_5m: Decimal | None = None
    write_1h: Decimal | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """
    One model.

    :ivar context: tokens of prompt and answer together.
    :ivar thinking: `always`, `switchable` (by `thinking=`), `effort` (by `reasoning_effort=`), or `no`.
    :ivar efforts: values of `reasoning_effort` that are documented.
    :ivar default_max_tokens: budget of an answer that does not name one; charged against tokens per minute all the same.
    :ivar images: whether it sees pictures.
    :ivar videos: whether it sees films.
    :ivar released: when it came, as far as is known.
    :ivar removed: when it went, or is announced to go.
    :ivar prices: by currency.
    """

    id: str
    context: int
    thinking: Literal["always", "switchable", "effort", "no"]
    efforts: tuple[str, ...] = ()
    default_max_tokens: int | None = None
    images: bool = False
    videos: bool = False
    batch: bool = False
    released: date | None = None
    removed: date | None = None
    prices: Mapping[Currency, Price] | None = None

    def is_available(self, on: date) -> bool:
        """Whether the official host still serves it on a day, by what was announced when this table was made."""
        return self.removed is None or on < self.removed


def _price(
    hit: str, miss: str, output: str, w5: str | None = None, w1: str | None = None, source: str = ""
) -> Price:
    return Price(
        Decimal(hit),
        Decimal(miss),
        Decimal(output),
        None if w5 is None else Decimal(w5),
        None if w1 is None else Decimal(w1),
        source,
    )


_OFFICIAL: Final = "https://platform.kimi.ai/docs/pricing/chat (2026-09-23)"
_OFFICIAL_CN: Final = "https://platform.kimi.com/docs/pricing/chat (2026-09-23)"
_K31: Final = "https://apidog.com/blog/kimi-k3-1-pro-api (2026-10-26)"
_V1: Final = "https://www.lava.so/docs/gateway/providers/moonshot (2026-11; as their text-only namesakes)"
_EFFORTS: Final = ("low", "high", "max")
_MI: Final = 1_048_576
_QUARTER_MI: Final = 262_144
_K3_DEFAULT: Final = 131_072
_K2_DEFAULT: Final = 32_768
_END_OF_K2: Final = date(2026, 12, 31)
_MAY: Final = date(2026, 5, 25)
_AUGUST: Final = date(2026, 8, 31)

MODELS: Final[dict[str, ModelInfo]] = {
    row.id: row
    for row in (
        ModelInfo(
            "kimi-k3.1-pro", _MI, "effort", _EFFORTS, _K3_DEFAULT, images=True, videos=True, released=date(2026, 10, 24),
            prices={"USD": _price("0.20", "2.00", "10.00", "2.00", "4.00", _K31)},
        ),
        ModelInfo(
            "kimi-k3.1-pro-highspeed", _MI, "effort", _EFFORTS, _K3_DEFAULT, images=True, videos=True,
            released=date(2026, 10, 24), prices={"USD": _price("0.20", "4.00", "20.00", "4.00", "8.00", _K31)},
        ),
        ModelInfo(
            "kimi-k3", _MI, "effort", _EFFORTS, _K3_DEFAULT, images=True, videos=True, released=date(2026, 7, 16),
            prices={
                "USD": _price("0.30", "3.00", "15.00", "3.00", "6.00", _OFFICIAL),
                "CNY": _price("2", "20", "100", "20", "40", _OFFICIAL_CN),
            },
        ),
        ModelInfo(
            "kimi-k2.7-code", _QUARTER_MI, "always", (), _K2_DEFAULT, images=True, videos=True, batch=True,
            released=date(2026, 6, 1), removed=_END_OF_K2,
            prices={
                "USD": _price("0.19", "0.95", "4.00", source=_OFFICIAL),
                "CNY": _price("1.30", "6.50", "27", source=_OFFICIAL_CN),
            },
        ),
        ModelInfo(
            "kimi-k2.7-code-highspeed", _QUARTER_MI, "always", (), _K2_DEFAULT, images=True, videos=True,
            released=date(2026, 6, 1), removed=_END_OF_K2,
            prices={
                "USD": _price("0.38", "1.90", "8.00", source=_OFFICIAL),
                "CNY": _price("2.60", "13", "54", source=_OFFICIAL_CN),
            },
        ),
        ModelInfo(
            "kimi-k2.6", _QUARTER_MI, "switchable", (), _K2_DEFAULT, images=True, videos=True, batch=True,
            released=date(2026, 4, 1), removed=_END_OF_K2,
            prices={
                "USD": _price("0.16", "0.95", "4.00", source=_OFFICIAL),
                "CNY": _price("1.10", "6.50", "27", source=_OFFICIAL_CN),
            },
        ),
        ModelInfo(
            "kimi-k2.5", _QUARTER_MI, "switchable", (), _K2_DEFAULT, images=True, videos=True, batch=True, removed=_AUGUST,
            prices={"USD": _price("0.10", "0.60", "3.00", source=_OFFICIAL)},
        ),
        ModelInfo("kimi-k2-thinking", _QUARTER_MI, "always", removed=_MAY),
        ModelInfo("kimi-k2-thinking-turbo", _QUARTER_MI, "always", removed=_MAY),
        ModelInfo("kimi-k2-0905-preview", _QUARTER_MI, "no", removed=_MAY),
        ModelInfo("kimi-k2-turbo-preview", _QUARTER_MI, "no", removed=_MAY),
        ModelInfo("kimi-k2-0711-preview", 131_072, "no", removed=_MAY),
        ModelInfo("moonshot-v1-8k", 8_192, "no", (), 1024, removed=_AUGUST, prices={"USD": _price("0.20", "0.20", "2.00", source=_OFFICIAL)}),
        ModelInfo("moonshot-v1-32k", 32_768, "no", (), 1024, removed=_AUGUST, prices={"USD": _price("1.00", "1.00", "3.00", source=_OFFICIAL)}),
        ModelInfo("moonshot-v1-128k", 131_072, "no", (), 1024, removed=_AUGUST, prices={"USD": _price("2.00", "2.00", "5.00", source=_OFFICIAL)}),
        # Billed as the smallest of the three that holds the call: see `cost`.
        ModelInfo("moonshot-v1-auto", 131_072, "no", (), 1024, removed=_AUGUST),
        ModelInfo("moonshot-v1-8k-vision-preview", 8_192, "no", (), 1024, images=True, removed=_AUGUST, prices={"USD": _price("0.20", "0.20", "2.00", source=_V1)}),
        ModelInfo("moonshot-v1-32k-vision-preview", 32_768, "no", (), 1024, images=True, removed=_AUGUST, prices={"USD": _price("1.00", "1.00", "3.00", source=_V1)}),
        ModelInfo("moonshot-v1-128k-vision-preview", 131_072, "no", (), 1024, images=True, removed=_AUGUST, prices={"USD": _price("2.00", "2.00", "5.00", source=_V1)}),
        ModelInfo("kimi-latest", 131_072, "no", images=True, removed=date(2026, 1, 28)),
        ModelInfo("kimi-thinking-preview", 131_072, "always", removed=date(2025, 11, 11)),
    )
}  # fmt: skip
"""Every model of the official hosts that is or was, by id. Removed ones are kept: gateways may still serve them."""


# Kimi Code's own names where they differ from the open platform's model in what matters here: the context
# (https://github.com/MoonshotAI/kimi-code 2.1.0, 2026-11). No prices: its plans are paid by the month.
_CODE: Final[dict[str, ModelInfo]] = {
    row.id: row
    for row in (
        ModelInfo("k3-256k", _QUARTER_MI, "effort", _EFFORTS, _K3_DEFAULT, images=True, videos=True),
        ModelInfo("kimi-for-coding", _MI, "always", (), _K2_DEFAULT, images=True, videos=True),
        ModelInfo(
            "kimi-for-coding-highspeed", _QUARTER_MI, "always", (), _K2_DEFAULT, images=True, videos=True
        ),
    )
}


def model_info(model: str) -> ModelInfo | None:
    """What is known about a model, None if nothing. A gateway's form of an id (`moonshotai/kimi-k3`) is understood."""
    return MODELS.get(model) or _CODE.get(model) or MODELS.get(official_id(model))


@lru_cache(256)  # asked for each request that names no budget: 10 µs for a gateway's id without
def default_budget(model: str) -> int:
    """What is charged for an answer where a request to this model does not bound it; K2's for a model that nothing is known of."""
    info = model_info(model)
    return (info and info.default_max_tokens) or _K2_DEFAULT


def price(model: str, currency: Currency = "USD") -> Price | None:
    """The official list price of a model; None if it is not known. For gateways' ids too, as a measure: theirs differ."""
    info = model_info(model)
    return None if info is None or info.prices is None else info.prices.get(currency)


class _Usage(Protocol):
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int | None: ...


def _count(usage: object, *path: str) -> int:
    value: Any = usage
    for name in path:
        value = (
            cast("Mapping[str, object]", value).get(name)
            if isinstance(value, Mapping)
            else getattr(value, name, None)
        )
        if value is None:
            return 0
    return max(0, int(value))


def cost(
    usage: _Usage | Mapping[str, object],
    model: str,
    *,
    currency: Currency = "USD",
    batch: bool = False,
    cache_ttl: Literal["5m", "1h"] = "5m",
    prices: Price | None = None,
) -> Decimal | None:
    """
    What some usage costs at list price, without rounding; None if the price of the model is not known.

    `usage` is a reply's `usage`, or a mapping of the same shape. Prompt tokens are the cached ones at `hit`, the written
    ones at `write_…` and the rest at `miss`; a server that does not tell how many were written is taken to have written
    none, which on K3 costs the same for five minutes.

    :param prices: yours, instead of the table's.
    """
    prompt = _count(usage, "prompt_tokens")
    if model == "moonshot-v1-auto":
        size = prompt + _count(usage, "completion_tokens")
        model = f"moonshot-v1-{'8k' if size <= 8_192 else '32k' if size <= 32_768 else '128k'}"
    rate = prices or price(model, currency)
    if rate is None:
        return None
    cached = _count(usage, "cached_tokens") or _count(usage, "prompt_tokens_details", "cached_tokens")
    cached = min(cached, prompt)
    written = min(_count(usage, "prompt_tokens_details", "cache_write_tokens"), prompt - cached)
    write = rate.write_1h if cache_ttl == "1h" else rate.write_5m
    total = (
        rate.hit * cached
        + (rate.miss if write is None else write) * written
        + rate.miss * (prompt - cached - written)
        + rate.output * _count(usage, "completion_tokens")
    ) / _MILLION
    return total * BATCH_SHARE if batch else total
