"""
What is taken out of every text, and how a secret looks when it is printed all the same.
"""

from __future__ import annotations

import pickle

import pytest

from kimi_async.redact import Secret, mask, redact, redact_url, redacted
from kimi_async.transport.exchange import Headers

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
