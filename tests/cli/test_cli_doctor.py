"""`kimi-async doctor`: what it finds, and what it says to do."""

import json
import ssl
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme

from kimi_async.cli.connect import Kimi
from kimi_async.cli.doctor import clock_finding, issuer, key_finding, tls_advice
from kimi_async.providers.hosts import PROVIDERS
from kimi_async.testing.simulator.server import KimiSimulator
from support.command_line import Cli


def found(told: str) -> dict[str, tuple[str, str, str]]:
    header, *lines = told.splitlines()
    assert "check\tstate\tfound\tadvice" == header
    return {name: (state, what, advice) for name, state, what, advice in (line.split("\t") for line in lines)}


def test_doctor_finds_everything_well(cli: Cli, simulator: KimiSimulator):
    """With a key and a host that answers, every check is told, none is wrong, and no key is shown."""
    status, out, _ = cli("doctor")
    checks = found(out)

    assert 0 == status
    assert [
        "versions",
        "key",
        "host",
        "proxy",
        "name",
        "connection",
        "models",
        "clock",
        "balance",
        "limits",
    ] == list(checks)
    assert {"ok"} == {state for state, _, _ in checks.values()}
    assert simulator.api_key not in out
    assert "from KIMI_API_KEY" in checks["key"][1]
    assert "49.58894" in checks["balance"][1]


def test_doctor_json_is_the_same(cli: Cli):
    """--json tells the same as one document."""
    status, out, _ = cli("doctor", "--simulator", "--json")
    checks = json.loads(out)

    assert 0 == status
    assert {"name", "state", "found", "advice"} == set(checks[0])


@pytest.mark.parametrize(
    ("environ", "arguments", "check", "what", "advice"),
    [
        ({"KIMI_API_KEY": ""}, [], "key", "no API key: set MOONSHOT_API_KEY", ""),
        ({"KIMI_API_KEY": "sk-wrong-0123456789"}, [], "models", "401", "platform.kimi.ai"),
        ({}, ["--base-url", "http://127.0.0.1:9/v1"], "connection", "Connection refused", "no server there"),
        ({}, ["--base-url", "https://kimi.invalid/v1"], "name", "cannot be resolved", "spelling"),
        ({}, ["--base-url", "kimi.invalid"], "configuration", "--base-url", ""),
        ({"HTTPS_PROXY": "socks5://127.0.0.1:1"}, ["--base-url", "https://kimi.invalid/v1"], "proxy", "SOCKS", ""),
    ],
)  # fmt: skip
def test_doctor_says_what_is_wrong(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    arguments: list[str],
    check: str,
    what: str,
    advice: str,
):
    """The one thing that is wrong is named, with what to do, and the status says so."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    status, out, _ = cli("doctor", *arguments)
    state, told, todo = found(out)[check]

    assert 1 == status
    assert "wrong" == state
    assert what in told
    assert advice in todo
    assert "0123456789" not in out


def test_doctor_knows_a_certificate_that_is_not_trusted(cli: Cli):
    """A certificate of an unknown authority is told as such, with the variable that makes it known."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with KimiSimulator(ssl=context).in_thread() as server:
        status, out, _ = cli("doctor", "--base-url", server.base_url)
    state, told, todo = found(out)["tls"]

    assert (1, "wrong") == (status, state)
    assert "the certificate is not trusted" in told
    assert "SSL_CERT_FILE" in todo


@pytest.mark.parametrize(
    ("off", "state", "told"),
    [(0.0, "ok", "within"), (60.0, "ok", "within"), (600.0, "wrong", "10 minutes fast"), (-86400.0, "wrong", "1,440 minutes slow")],
)  # fmt: skip
def test_clock_is_compared_with_the_server_s(off: float, state: str, told: str):
    """A clock that is minutes wrong is told, with the direction."""
    now = 1_790_000_000.0
    finding = clock_finding(formatdate(now, usegmt=True), now + off)

    assert state == finding.state
    assert told in finding.found


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_clock_of_a_server_that_does_not_tell_it_is_skipped(date: str | None):
    """Without a date there is nothing to compare."""
    assert "skipped" == clock_finding(date, 0.0).state


def test_key_in_the_shadow_of_another_is_told(tmp_path: Path):
    """Two different keys in two variables are a common mistake; the same one twice is none."""
    one = {"MOONSHOT_API_KEY": "sk-0123456789abcdef", "KIMI_API_KEY": "sk-fedcba9876543210"}
    finding = key_finding(Kimi(), None, one)

    assert ("note", "sk-…cdef from MOONSHOT_API_KEY") == (finding.state, finding.found)
    assert "KIMI_API_KEY" in finding.advice
    assert "ok" == key_finding(Kimi(), None, {**one, "KIMI_API_KEY": "sk-0123456789abcdef"}).state
    assert "ok" == key_finding(Kimi(), PROVIDERS["vllm"], {}).state


def test_tls_advice_looks_at_the_clock_first():
    """A certificate that is not valid yet is more often a wrong clock."""
    error = ssl.SSLCertVerificationError()
    error.verify_message = "certificate is not yet valid"

    assert "clock" in tls_advice(error)
    assert "http://" in tls_advice(ssl.SSLError(1, "WRONG_VERSION_NUMBER"))
    assert "Some CA" == issuer({"issuer": ((("countryName", "X"),), (("organizationName", "Some CA"),))})
    assert "an unnamed issuer" == issuer(None)
