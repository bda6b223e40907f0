"""
`providers`: rows that hold together, and what is told to somebody who asks the wrong host.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from kimi_async.errors import ConfigurationError
from kimi_async.providers.hosts import (
    PROVIDERS,
    Provider,
    by_base_url,
    foreign_model_message,
    missing_endpoint_message,
    provider,
)
from kimi_async.providers.ids import gateway_of_model_id, official_id

ROWS = list(PROVIDERS.values())


def test_providers_are_those_promised() -> None:
    """Every host that the documentation names has a row."""
    assert sorted(PROVIDERS) == sorted(
        [
            "moonshot",
            "moonshot-cn",
            "api365",
            "acedata",
            "aimlapi",
            "openrouter",
            "vllm",
            "sglang",
            "kimi-code",
        ]
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_provider_row_holds_together(row: Provider) -> None:
    """Each row has an address without a slash at its end, a key variable, and chat."""
    parts = urlsplit(row.base_url)
    assert parts.scheme == ("http" if parts.hostname == "localhost" else "https")
    assert not row.base_url.endswith("/")
    assert row.key_variables
    assert row.supports("chat")
    assert row.request_reasoning
    assert by_base_url(row.base_url) == (row if row.hosts else None)
    assert foreign_model_message(row.example_model, row) is None


def test_provider_unknown_name_tells_which_there_are() -> None:
    """A typo is answered with the names, and with the way for hosts that have none."""
    assert provider(" Moonshot ").name == "moonshot"
    with pytest.raises(ConfigurationError, match=r"'monshot' is not known; there are moonshot, .*base_url="):
        provider("monshot")


@pytest.mark.parametrize(
    ("name", "endpoint", "expected"),
    [
        ("moonshot", "files", True),
        ("moonshot", "users/me/balance", True),
        ("acedata", "files", False),
        ("acedata", "/models", False),
        ("acedata", "chat/completions", True),
        ("aimlapi", "models", True),
        ("openrouter", "v1/files/file-1/content", False),
        ("vllm", "tokenizers/estimate-token-count", False),
        ("vllm", "formulas/moonshot/web-search:latest/tools", False),
        ("kimi-code", "files", True),
        ("kimi-code", "batches?limit=1", False),
        ("acedata", "something/new", True),
    ],
)
def test_provider_supports_endpoint(name: str, endpoint: str, expected: bool) -> None:
    """Endpoints are known by family or by path; what nobody has listed is not forbidden."""
    assert PROVIDERS[name].supports(endpoint) is expected


def test_missing_endpoint_message_says_who_has_it() -> None:
    """The message names who lacks it, what it has, and where to find it."""
    message = missing_endpoint_message(PROVIDERS["acedata"], "files/file-1")
    assert "AceData has no files endpoint, only chat" in message
    assert "it exists at moonshot and moonshot-cn and kimi-code" in message


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.moonshot.ai/v1/", "moonshot"),
        ("https://api.moonshot.ai/anthropic", "moonshot"),
        ("https://API.MOONSHOT.CN/v1", "moonshot-cn"),
        ("https://api.kimi.ai/coding/v1", "kimi-code"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("http://localhost:8000/v1", None),
        ("https://notopenrouter.ai/v1", None),
        ("https://[broken", None),
        ("", None),
    ],
)
def test_provider_by_base_url(url: str, expected: str | None) -> None:
    """An address tells its host by name, and a self-hosted one tells nothing."""
    row = by_base_url(url)
    assert (row.name if row else None) == expected


@pytest.mark.parametrize(
    ("model", "first", "official"),
    [
        ("moonshotai/kimi-k2.6", "openrouter", "kimi-k2.6"),
        ("moonshotai/kimi-k3:free", "openrouter", "kimi-k3"),
        ("moonshotai/kimi-k3-20260715", "openrouter", "kimi-k3"),
        ("openrouter/moonshotai/kimi-k3", "openrouter", "kimi-k3"),
        ("moonshot/kimi-k2-6", "aimlapi", "kimi-k2.6"),
        ("moonshot/kimi-k2-7-code", "aimlapi", "kimi-k2.7-code"),
        ("moonshotai/Kimi-K3", "vllm", "kimi-k3"),
        ("moonshotai/Kimi-K2.6", "vllm", "kimi-k2.6"),
        ("k3", "kimi-code", "kimi-k3"),
        ("k3-256k", "kimi-code", "kimi-k3"),
        ("k3.1-pro", "kimi-code", "kimi-k3.1-pro"),
        ("accounts/fireworks/models/kimi-k3", None, "kimi-k3"),
        ("accounts/fireworks/models/kimi-k3p1-pro", None, "kimi-k3.1-pro"),
        ("accounts/fireworks/models/kimi-k2p6", None, "kimi-k2.6"),
        ("moonshotai/Kimi-K3.1-Pro", "vllm", "kimi-k3.1-pro"),
        ("moonshotai/kimi-k3.1-pro", "openrouter", "kimi-k3.1-pro"),
        ("moonshotai.kimi-k3.1", None, "kimi-k3.1-pro"),
        ("us.moonshotai.kimi-k3.1", None, "kimi-k3.1-pro"),
        ("global.moonshotai.kimi-k3.1", None, "kimi-k3.1-pro"),
        ("kimi-for-coding", "kimi-code", "kimi-k2.7-code"),
        ("kimi-for-coding-highspeed", "kimi-code", "kimi-k2.7-code-highspeed"),
    ],
)
def test_gateway_of_model_id(model: str, first: str | None, official: str) -> None:
    """The form of an id tells whose it is, and what the official host calls the same model."""
    gateway = gateway_of_model_id(model)
    assert gateway is not None
    assert (gateway.names[0] if gateway.names else None) == first
    assert gateway.official_id == official == official_id(model)


@pytest.mark.parametrize(
    "model", ["kimi-k3", "kimi-k3.1-pro-highspeed", "moonshot-v1-8k", "my-model", "", "gpt-5"]
)
def test_gateway_of_model_id_official_or_unknown(model: str) -> None:
    """Official and unknown ids belong to no gateway: they are never judged."""
    assert gateway_of_model_id(model) is None
    assert official_id(model) == model
    assert foreign_model_message(model, PROVIDERS["moonshot"]) is None


def test_foreign_model_message_names_gateway_and_ids() -> None:
    """A foreign id on the official host is answered with its gateway, the likely id here, and the ids that exist."""
    message = foreign_model_message("moonshotai/kimi-k2.6", PROVIDERS["moonshot"], ("kimi-k3", "kimi-k2.6"))
    assert message is not None
    assert "OpenRouter (provider='openrouter')" in message
    assert "'kimi-k2.6'" in message
    assert "Models here: kimi-k3, kimi-k2.6." in message
    assert foreign_model_message("moonshotai/kimi-k3", PROVIDERS["openrouter"]) is None
    assert foreign_model_message("moonshotai/kimi-k3", PROVIDERS["aimlapi"]) is None
    assert foreign_model_message("moonshotai/kimi-k3", PROVIDERS["vllm"]) is None
    assert foreign_model_message("moonshotai/kimi-k3", None) is not None
