"""
What is taken out of every text, and how a secret looks when it is printed all the same.
"""

from __future__ import annotations

import pickle

import pytest

from kimi_async.redact import (
    Secret,
    SecretURL,
    is_secret,
    mask,
    redact,
    redact_url,
    redacted,
    secrets_in,
    shown,
)
from kimi_async.transport.exchange import Headers, TransportSettings

KEY = "sk-Zx9secretsecretsecretsecret0000secretsecretsecret9f2c"


@pytest.mark.parametrize(
    ("secret", "masked"),
    [
        ("sk-0123456789abcdef9f2c", "sk-…9f2c"),
        ("sk-short", "…"),
        ("", "…"),
        ("abcdefghijklmnopqrst", "…qrst"),
        ("toolongprefix-0123456789", "…6789"),
    ],
)
def test_mask(secret: str, masked: str):
    """
    Enough to tell two keys apart, and no more; short keys show nothing.
    """
    assert masked == mask(secret)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("key sk-0123456789abcdef wrong", "key sk-… wrong"),
        ("org-0123456789abcdef<ak-0123456789abcdefghij>", "org-…<ak-…>"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer …"),
        ("risk-free task-force ask-me", "risk-free task-force ask-me"),
        ("sk-short", "sk-short"),
    ],
)
def test_redact(text: str, clean: str):
    """
    Keys and account ids go, words that look a little like them stay.
    """
    assert clean == redact(text)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://user:pass@host/v1/x?key=1#f", "https://host/v1/x"),
        ("http://[bad", "<unreadable URL>"),
        ("http://me:pa/ss@host/v1?key=1", "http://host/v1"),
        ("me:pass@host/v1", "host/v1"),
        ("http://host/users/@me", "http://host/users/@me"),
        ("http://h/sk-0123456789abcdef", "http://h/sk-…"),
    ],
)
def test_redact_url(url: str, clean: str):
    """
    No user, password, query or fragment.
    """
    assert clean == redact_url(url)


def test_secret_is_a_string_that_prints_masked():
    """
    On the wire it is the key; in a repr, a slice's repr and a pickle it is not.
    """
    secret = Secret(KEY)

    assert KEY == secret
    assert KEY == str(secret)
    assert KEY == f"{secret}"
    assert f"'{mask(KEY)}'" == repr(secret)
    for data in (
        repr([secret]),
        repr({"a": secret}),
        repr(secret[:40]),
        pickle.dumps(secret).decode("latin-1"),
    ):
        assert "Zx9secret" not in data


def test_headers_repr():
    """
    Secret values are dots whatever they are; the rest is shown.
    """
    headers = Headers({"Authorization": "Bearer plain", "X-Api-Key": "plain", "Accept": "*/*"})

    assert "<Headers {'Authorization': '…', 'X-Api-Key': '…', 'Accept': '*/*'}>" == repr(headers)


def test_redacted_keeps_the_shape():
    """
    Strings are redacted wherever they are; numbers and names stay.
    """
    body = {"message": f"bad {KEY}", "code": 5, "list": [KEY, None, {"org": "org-0123456789abcdef"}]}

    assert {"message": "bad sk-…", "code": 5, "list": ["sk-…", None, {"org": "org-…"}]} == redacted(body)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "api-key",
        "API_KEY",
        "apikey",
        "X-Api-Key",
        "X-Goog-Api-Key",
        "Ocp-Apim-Subscription-Key",
        "X-Auth-Token",
        "X-Access-Token",
        "X-Amz-Security-Token",
        "CF-Access-Client-Secret",
        "Cookie",
        "Set-Cookie",
        "X-User-Password",
        "Msh-Uid",
        "Msh-Org-Id",
    ],
)
def test_is_secret_names_of_keys(name: str):
    """
    The headers in which gateways, clouds and proxies take keys.
    """
    assert is_secret(name)
    assert "{}" == repr(shown({name: "0123456789abcdef"}))
    assert "0123456789" not in repr(Headers({name: "0123456789abcdef"}))


@pytest.mark.parametrize(
    "name",
    [
        "Content-Type",
        "X-RateLimit-Remaining-Tokens",
        "Idempotency-Key",
        "Msh-Gid",
        "Msh-Request-Id",
        "WWW-Authenticate",
    ],
)
def test_is_secret_names_of_no_keys(name: str):
    """
    What somebody who looks for a fault needs stays.
    """
    assert not is_secret(name)
    assert {name.lower(): "7"} == shown({name: "7"})


def test_shown_found_in_any_case_also_after_pickling():
    """
    Kept headers are looked up as headers are.
    """
    kept = pickle.loads(pickle.dumps(shown({"Msh-Request-Id": "r-1"})))

    assert "r-1" == kept["MSH-Request-ID"]
    assert "r-1" == kept.get("msh-Request-Id")
    assert "Msh-request-id" in kept
    assert kept.get("other") is None


def test_redact_a_secret_of_any_form_that_was_sent():
    """
    A server that repeats what it was sent cannot show it, whatever it looks like.
    """
    secrets = secrets_in(
        {"X-Auth-Token": "letmein-please", "Cookie": "id=0123456789; a=b", "Accept": "application/json"}
    )

    assert "bad … of … for application/json" == redact(
        "bad letmein-please of id=0123456789; a=b for application/json", secrets
    )
    assert {"…": ["…"]} == redacted({"letmein-please": ["letmein-please"]}, secrets)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("let/me+in=please, let/me+in=please", "…, …"),
        ('{"key": "let\\/me+in=please"}', '{"key": "…"}'),
        ('{"key": "l\\u0065t/me+in=please", "a": "\\u0022"}', '{"key": "…", "a": "\\u0022"}'),
        ("?key=let%2Fme%2Bin%3Dplease&a=b", "?key=…&a=b"),
        ("<b>let/me&#43;in&#61;please</b>", "<b>…</b>"),
        ("50 % of R&amp;D, a\\/b", "50 % of R&amp;D, a\\/b"),
    ],
)
def test_redact_a_secret_spelt_in_another_way(text: str, clean: str):
    """
    As JSON, URLs and pages spell it; a text without it stays as it is, and JSON stays JSON.
    """
    assert clean == redact(
        text, secrets_in({}, "http://host/v1?api_key=let%2Fme%2Bin%3Dplease&model=kimi-k3")
    )


def test_redact_the_user_of_a_url():
    """
    A proxy's password stands in its URL, and messages of connections name that.
    """
    assert "no http://…@proxy:3128/ today" == redact("no http://me:pass@proxy:3128/ today")


def test_secret_url_is_a_string_that_prints_without_its_user():
    """
    A proxy's URL is whole where it is used, and without password everywhere else.
    """
    url = SecretURL("http://me:pass@proxy:3128")

    assert "http://me:pass@proxy:3128" == f"{url}"
    assert "'http://proxy:3128'" == repr(url)
    assert "pass" not in repr(url[:12])
    assert "pass" not in pickle.dumps(url).decode("latin-1")
    assert "pass" not in repr(TransportSettings(proxy="http://me:pass@proxy:3128"))
