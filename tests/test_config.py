"""
Arguments, then environment, then defaults.
"""

from __future__ import annotations

from typing import Any

import pytest

from kimi_async import NOT_GIVEN, ConfigurationError, omit
from kimi_async.config import (
    Config,
    check_headers,
    check_query,
    first_set,
    query_string,
    resolve_base_url,
    resolve_key,
    user_agent,
)
from kimi_async.redact import Secret
from kimi_async.transport.exchange import Timeout


@pytest.mark.parametrize(
    ("environ", "key"),
    [
        ({"MOONSHOT_API_KEY": "sk-m", "KIMI_API_KEY": "sk-k"}, "sk-m"),
        ({"KIMI_API_KEY": "sk-k"}, "sk-k"),
        ({"MOONSHOT_API_KEY": "  ", "KIMI_API_KEY": "sk-k"}, "sk-k"),
        ({"MOONSHOT_API_KEY": " sk-m\n"}, "sk-m"),
    ],
)
def test_key_from_the_environment(environ: dict[str, str], key: str):
    """
    In a fixed order, blanks aside: a trailing newline in a variable is an accident, not a key.
    """
    assert key == resolve_key(None, environ=environ)
    assert "sk-given" == resolve_key("sk-given", environ=environ)
    assert isinstance(resolve_key(None, environ=environ), Secret)


def test_no_key():
    """
    The error says which variables were looked at; where none is needed there is none.
    """
    with pytest.raises(ConfigurationError, match="MOONSHOT_API_KEY or KIMI_API_KEY"):
        resolve_key(None, environ={"OPENAI_API_KEY": "sk-o"})
    assert "" == resolve_key(None, required=False, environ={})


@pytest.mark.parametrize(
    ("given", "environ", "url"),
    [
        (None, {}, "https://api.moonshot.ai/v1/"),
        (None, {"KIMI_BASE_URL": "http://k/v1"}, "http://k/v1/"),
        (None, {"MOONSHOT_API_BASE": "http://b"}, "http://b/"),
        (None, {"MOONSHOT_BASE_URL": "http://m/v1/", "KIMI_BASE_URL": "http://k/v1"}, "http://m/v1/"),
        ("https://api.moonshot.cn/v1", {"KIMI_BASE_URL": "http://k"}, "https://api.moonshot.cn/v1/"),
        (" http://host:8000/v1// ", {}, "http://host:8000/v1/"),
        ("http://[::1]:8000", {}, "http://[::1]:8000/"),
    ],
)
def test_base_url(given: str | None, environ: dict[str, str], url: str):
    """
    Given, then the environment, then the official host; with one slash at its end.
    """
    assert url == resolve_base_url(given, environ=environ)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (None, ""),
        ({"a": 1, "b": True, "c": "x y"}, "a=1&b=true&c=x%20y"),
        ({"a": ["x", "y"], "b": ()}, "a=x&a=y"),
        ({"a": None, "b": NOT_GIVEN, "c": omit}, ""),
        ({"a": "1&b=2", "ä": "ö"}, "a=1%26b%3D2&%C3%A4=%C3%B6"),
        ({"a[b]": 0.5}, "a[b]=0.5"),
        ({"a\r\nb": "c\r\nd"}, "a%0D%0Ab=c%0D%0Ad"),
    ],
)
def test_query_string(query: Any, text: str):
    """
    Everything encoded, lists repeated, what is not given left out.
    """
    assert text == query_string(query)


def test_headers_checked():
    """
    Values become text; sentinels keep their meaning; a key given as a header is masked too.
    """
    checked = check_headers(
        {"A": 1, "B": omit, "C": NOT_GIVEN, "Authorization": "Bearer sk-0123456789abcdef"}
    )

    assert {"A": "1", "B": omit, "Authorization": "Bearer sk-0123456789abcdef"} == checked
    assert "0123456789" not in repr(checked)


def test_headers_of_other_types():
    """
    None takes a header away, as `omit` does; what is no text is refused by its name, and not sent as Python prints it.
    """
    assert {"A": omit} == check_headers({"A": None})
    for value in (b"x", ["x"], {"x": 1}, object()):
        with pytest.raises(ConfigurationError, match="header A must be a string, not"):
            check_headers({"A": value})


@pytest.mark.parametrize("value", [b"x", {"x": 1}])
def test_query_of_other_types(value: object):
    """
    What Python alone can print is refused when it is given; names may be numbers.
    """
    with pytest.raises(ConfigurationError, match="'a' must be a string, a number, or a list of such"):
        check_query({"a": value})

    assert "5=x" == query_string(check_query({5: "x"}))  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://me:hidden@host/v1", "holds a user name or password"),
        ("me:hidden@host/v1", r"got 'host/v1' \(is https:// missing\?\)"),
        ("http://me:hid/den@host/v1", "is not a URL: 'http://host/v1'"),
        ("http://höst.test/v1", "xn--"),
        ("http://host/v1/chat/completions/", "which every call adds by itself"),
    ],
)
def test_base_url_refused(url: str, told: str):
    """
    What is wrong is told when it is given, without a password.
    """
    with pytest.raises(ConfigurationError, match=told) as caught:
        resolve_base_url(url)

    assert "hid" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "Transfer-Encoding",
        "transfer_encoding",
        "CONTENT-LENGTH",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "HTTP2-Settings",
        "Host",
        "Expect",
    ],
)
def test_headers_that_frame_the_message_refused(name: str):
    """
    A service that passes on its callers' headers must not let them make two requests out of one.
    """
    with pytest.raises(ConfigurationError, match=name):
        check_headers({name: "x"})

    assert {name: omit} == check_headers({name: omit})


def test_headers_with_keys_masked():
    """
    Whatever the header in which a gateway takes its key: a repr does not show it.
    """
    checked = check_headers(
        {"api-key": "0123456789abcdefghij", "X-Auth-Token": "0123456789abcdefghij", "X": "y"}
    )

    assert {"api-key": "0123456789abcdefghij", "X-Auth-Token": "0123456789abcdefghij", "X": "y"} == checked
    assert "012345" not in repr(checked)


def test_config_headers():
    """
    The defaults, replaced and removed as asked, whatever the case of their names.
    """
    config = Config(
        api_key=Secret("sk-0123456789abcdef"),
        base_url="http://host/",
        timeout=Timeout(),
        max_retries=2,
        default_headers=check_headers({"user-agent": "mine", "ACCEPT": omit, "X": "1"}),
        organization="org",
        project="proj",
    )
    headers = config.headers("kimi-async/0")

    assert {
        "Content-Type": "application/json",
        "user-agent": "mine",
        "Authorization": "Bearer sk-0123456789abcdef",
        "OpenAI-Organization": "org",
        "OpenAI-Project": "proj",
        "X": "1",
    } == dict(headers)
    assert "0123456789" not in repr(config)
    assert "0123456789" not in repr(headers)
    assert 5 == config.replace(max_retries=5).max_retries
    assert 2 == config.max_retries


def test_first_set():
    """
    The first that is not blank.
    """
    assert "b" == first_set(("A", "B"), {"A": " ", "B": " b "})
    assert first_set(("A",), {}) is None


def test_user_agent():
    """
    Name, version and Python's version.
    """
    assert user_agent("1.2").startswith("kimi-async/1.2 Python/3.")
