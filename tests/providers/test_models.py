"""
`model_table`: advice about models, and what usage costs.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from kimi_async.providers.models import AS_OF, MODELS, ModelInfo, Price, cost, model_info, price
from kimi_async.types.chat import CompletionUsage, PromptTokensDetails


@pytest.mark.parametrize("row", MODELS.values(), ids=lambda row: row.id)
def test_model_table_row_holds_together(row: ModelInfo) -> None:
    """Prices are positive, ordered, and name their source; what was removed was removed after it came."""
    assert MODELS[row.id] is row
    assert row.context >= 8192
    for rate in (row.prices or {}).values():
        assert 0 < rate.hit <= rate.miss <= rate.output
        assert rate.source.startswith("https://")
    assert row.released is None or row.removed is None or row.released < row.removed


def test_model_info_understands_gateway_ids_and_knows_nothing_of_others() -> None:
    """A gateway's form finds the model; an unknown id finds nothing and raises nothing."""
    assert model_info("moonshotai/kimi-k2.6") is MODELS["kimi-k2.6"]
    assert model_info("moonshotai/Kimi-K3") is MODELS["kimi-k3"]
    assert model_info("global.moonshotai.kimi-k3.1") is MODELS["kimi-k3.1-pro"]
    assert model_info("k3") is MODELS["kimi-k3"]
    assert model_info("kimi-k9") is None
    assert price("kimi-k9") is None
    assert price("kimi-k3.1-pro", "CNY") is None


@pytest.mark.parametrize(
    ("model", "context"),
    [
        ("k3", 1_048_576),
        ("k3-256k", 262_144),
        ("kimi-for-coding", 1_048_576),
        ("kimi-for-coding-highspeed", 262_144),
    ],
)
def test_model_info_of_kimi_code(model: str, context: int) -> None:
    """Kimi Code's own names have the context they have there, which is not always that of the model behind."""
    info = model_info(model)
    assert info is not None
    assert info.context == context


@pytest.mark.parametrize(("tokens", "expected"), [(8_000, "0.0016"), (20_000, "0.02"), (100_000, "0.2")])
def test_cost_of_the_automatic_model_is_that_of_the_size_it_takes(tokens: int, expected: str) -> None:
    """`moonshot-v1-auto` is billed as the smallest of the three that holds the call."""
    assert cost({"prompt_tokens": tokens}, "moonshot-v1-auto") == Decimal(expected)


def test_model_info_availability_follows_announcements() -> None:
    """K2.5 went on 2026-08-31; K3 is served."""
    assert not MODELS["kimi-k2.5"].is_available(AS_OF)
    assert MODELS["kimi-k2.5"].is_available(date(2026, 8, 30))
    assert MODELS["kimi-k3"].is_available(AS_OF)


@pytest.mark.parametrize(
    ("usage", "options", "expected"),
    [
        ({"prompt_tokens": 1_000_000, "completion_tokens": 0}, {}, "3.00"),
        ({"prompt_tokens": 0, "completion_tokens": 1_000_000}, {}, "15.00"),
        ({"prompt_tokens": 1_000_000, "completion_tokens": 0, "cached_tokens": 1_000_000}, {}, "0.30"),
        ({"prompt_tokens": 1_000_000, "prompt_tokens_details": {"cached_tokens": 500_000}}, {}, "1.65"),
        ({"prompt_tokens": 1_000_000, "prompt_tokens_details": {"cache_write_tokens": 1_000_000}}, {"cache_ttl": "1h"}, "6.00"),
        ({"prompt_tokens": 1_000_000, "prompt_tokens_details": {"cache_write_tokens": 400_000, "cached_tokens": 600_000}}, {}, "1.38"),
        ({"prompt_tokens": 1_000_000, "completion_tokens": 0}, {"batch": True}, "1.80"),
        ({"prompt_tokens": 1_000_000}, {"currency": "CNY"}, "20"),
        ({"prompt_tokens": 10, "cached_tokens": 999}, {}, "0.000003"),
        ({"prompt_tokens": 1_000_000}, {"prices": Price(Decimal(1), Decimal(2), Decimal(3))}, "2"),
        ({}, {}, "0"),
    ],
)  # fmt: skip
def test_cost_of_usage(usage: dict[str, Any], options: dict[str, Any], expected: str) -> None:
    """Cached, written and other prompt tokens and the answer are each charged at their own price, exactly."""
    assert cost(usage, "kimi-k3", **options) == Decimal(expected)


def test_cost_of_reply_usage() -> None:
    """`usage.list_price(model)` works on what a reply carries, and is None for a model without a price."""
    usage = CompletionUsage(
        prompt_tokens=93,
        completion_tokens=54,
        total_tokens=147,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=93),
    )
    assert usage.list_price("kimi-k3") == Decimal("0.0008379")
    assert usage.list_price("somebody/else") is None
