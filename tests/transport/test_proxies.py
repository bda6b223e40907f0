"""
Which proxy is used, and what is said of one that cannot be.
"""

from __future__ import annotations

import pytest

from kimi_async import ConfigurationError
from kimi_async.transport.proxies import check_proxy, proxy_for

VARIABLES = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("https://proxy.example", "https://proxy.example"),
        (" 127.0.0.1:7890 ", "http://127.0.0.1:7890"),
        ("proxy.example:8080/", "http://proxy.example:8080/"),
        ("user:pa%40ss@proxy:8080", "http://user:pa%40ss@proxy:8080"),
        ("[::1]:7890", "http://[::1]:7890"),
    ],
)
def test_proxy_understood_as_curl_does(given: str, url: str):
    """
    A missing scheme is http.
    """
    assert url == check_proxy(given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("foo", "http://foo:3128"),
        ("", "http://127.0.0.1:3128"),
        ("http://", "must be a URL"),
        ("socks5://127.0.0.1:1080", "SOCKS"),
        ("socks5h://me:hidden@127.0.0.1:1080", "aiohttp_socks"),
        ("SOCKS4://127.0.0.1:1080", "SOCKS"),
        ("socks://127.0.0.1:1080", "SOCKS"),
        ("ftp://127.0.0.1:21", "http:// or https://"),
        ("http://ho st:1", "blank"),
        ("http://h:99999", "not a URL"),
        ("http://h\r\nX: y:1", "blank"),
        (7890, "not int"),
        (True, "not bool"),
    ],
)
def test_proxy_refused_with_a_suggestion(given: object, told: str):
    """
    What cannot be spoken to as an HTTP proxy is never sent a key.
    """
    with pytest.raises(ConfigurationError) as caught:
        check_proxy(given)

    assert told in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "scheme", "found"),
    [
        ({}, "https", None),
        ({"HTTPS_PROXY": "127.0.0.1:7890"}, "https", "http://127.0.0.1:7890"),
        ({"HTTPS_PROXY": "127.0.0.1:7890"}, "http", None),
        ({"all_proxy": "http://a:1"}, "https", "http://a:1"),
        ({"all_proxy": "http://a:1", "https_proxy": "http://b:2"}, "https", "http://b:2"),
        ({"https_proxy": "http://b:2", "no_proxy": "other,.example"}, "https", None),
        ({"https_proxy": "http://b:2", "no_proxy": "api.example:8443"}, "https", None),
        ({"https_proxy": "http://b:2", "no_proxy": "*"}, "https", None),
        ({"https_proxy": "socks5://b:2", "no_proxy": "api.example"}, "https", None),
    ],
)
def test_proxy_from_the_environment_by_scheme(
    variables: dict[str, str], scheme: str, found: str | None, monkeypatch: pytest.MonkeyPatch
):
    """
    The scheme's own variable before ALL_PROXY, and none for what NO_PROXY names.
    """
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert found == proxy_for(scheme, "api.example", 8443)


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"])
def test_proxy_from_the_environment_that_cannot_be_used_is_named(name: str, monkeypatch: pytest.MonkeyPatch):
    """
    Whoever never passed a proxy must learn where this one comes from.
    """
    monkeypatch.setenv(name, "socks5://127.0.0.1:1080")

    with pytest.raises(ConfigurationError, match=f"^{name} is a SOCKS proxy.*trust_env=False"):
        proxy_for("https", "api.example")
