"""
`kimi-async doctor`: looks at everything between a person and an answer, and says what to do about what is wrong.

Nothing it asks costs money: the list of models, and the balance.
"""

import asyncio
import os
import platform
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from .. import __version__
from ..config import KEY_VARIABLES, resolve_base_url, resolve_key
from ..errors import AuthenticationError, ConfigurationError, KimiError
from ..providers.hosts import by_base_url
from ..redact import mask
from ..transport.proxies import proxy_for
from .connect import Kimi, asks_kimi
from .options import Json
from .terminal import console, explain, print_json, run_async

if TYPE_CHECKING:
    from ..client import AsyncKimi
    from ..providers.hosts import Provider

__all__ = ["Finding", "app", "clock_finding", "issuer", "key_finding", "tls_advice"]

app: typer.Typer = typer.Typer()

PATIENCE = 10.0
"""Seconds for each look."""
CLOCK = 120.0
"""Seconds that a clock may be wrong before certificates and dates of retries suffer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    state: Literal["ok", "note", "wrong", "skipped"]
    found: str
    advice: str = ""


MARKS = {"ok": "[green]✓[/]", "note": "[yellow]![/]", "wrong": "[red]✗[/]", "skipped": "[dim]-[/]"}


@app.command()
@asks_kimi(simulator=True)
def doctor(kimi: Kimi, as_json: Json = False) -> int:
    """
    Look at key, host, clock, proxy, TLS, models, balance and limits; tell what is wrong and what to do.

    It asks for nothing that costs money. The status is 1 where something is wrong.
    """
    out = console()
    findings: list[Finding] = []

    if not (as_json or out.is_terminal):
        print("check\tstate\tfound\tadvice")

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if as_json:
            return
        if not out.is_terminal:
            print("\t".join((finding.name, finding.state, finding.found, finding.advice)), flush=True)
            return
        out.print(f"{MARKS[finding.state]} [bold]{finding.name}[/]  {escape(finding.found)}", highlight=False)
        if finding.advice:
            out.print(f"  → {escape(finding.advice)}")

    run_async(_examine(kimi, tell))
    if as_json:
        print_json(findings)
    return 1 if any(each.state == "wrong" for each in findings) else 0


async def _examine(kimi: Kimi, tell: Callable[[Finding], None]) -> None:
    tell(_versions())
    if kimi.simulator:
        async with kimi.connected() as client:
            await _ask(client, tell)
        return
    try:
        row, base_url = _place(kimi)
        key = key_finding(kimi, row, os.environ)
        tell(key)
        through = await _road(base_url, tell)
        if key.state == "wrong":
            # What lies before the key was looked at all the same.
            tell(Finding("models", "skipped", "no key to ask with"))
        elif through:
            async with kimi.connected() as client:
                await _ask(client, tell)
    except ConfigurationError as exc:
        tell(Finding("configuration", "wrong", explain(exc)))


def _place(kimi: Kimi) -> "tuple[Provider | None, str]":
    """The address that the options and the environment name, and what is known about the host there."""
    row = kimi.host()
    if kimi.provider is not None and row is not None:
        url = resolve_base_url(kimi.base_url, row.base_url_variables, row.base_url)
        return row, url
    url = resolve_base_url(kimi.base_url)
    return by_base_url(url), url


def _versions() -> Finding:
    def installed(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return ""

    parts = [
        f"kimi-async {__version__}",
        f"Python {platform.python_version()}",
        *filter(None, (installed("aiohttp"), installed("uvloop"))),
    ]
    return Finding("versions", "ok", ", ".join(parts))


def key_finding(kimi: Kimi, row: "Provider | None", environ: Mapping[str, str]) -> Finding:
    """Where the key comes from, and whether another one lies in its shadow."""
    variables = KEY_VARIABLES if row is None else row.key_variables
    try:
        key = kimi.key()
        source = f"--api-key-file {kimi.api_key_file}" if key is not None else ""
        set_ = [name for name in variables if environ.get(name, "").strip()]
        required = row is None or row.key_required
        found = str(resolve_key(key, variables, required=required, environ=environ))
    except (ConfigurationError, OSError, ValueError) as exc:
        return Finding("key", "wrong", explain(exc))
    if not found:
        return Finding("key", "ok", "none, and this host needs none")
    source = source or set_[0]
    shown = f"{mask(found)} from {source}"
    others = [name for name in set_ if name != source and environ[name].strip() != found]
    if others:
        return Finding(
            "key", "note", shown, f"another key in {', '.join(others)} is not used; unset one of them"
        )
    return Finding("key", "ok", shown)


# --- the road to the host ----------------------------------------------------------------------------------


async def _road(base_url: str, tell: Callable[[Finding], None]) -> bool:
    """Name, connection and certificate; False where there is no getting through."""
    parts = urlsplit(base_url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    tell(Finding("host", "ok", base_url))
    try:
        proxy = proxy_for(parts.scheme, host, parts.port)
    except ConfigurationError as exc:
        tell(Finding("proxy", "wrong", explain(exc)))
        return False
    if proxy is not None:
        place = urlsplit(str(proxy))
        tell(
            Finding(
                "proxy",
                "note",
                f"{place.scheme}://{place.hostname}:{place.port}",
                "NO_PROXY lists hosts to reach without it",
            )
        )
        return True
    tell(Finding("proxy", "ok", "none"))
    try:
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as exc:
        tell(
            Finding(
                "name",
                "wrong",
                f"{host} cannot be resolved ({_reason(exc)})",
                "look at the spelling, the network and DNS",
            )
        )
        return False
    tell(
        Finding("name", "ok", f"{host} is {', '.join(dict.fromkeys(str(each[4][0]) for each in found[:4]))}")
    )
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            context = ssl.create_default_context() if secure else None
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as exc:
        tell(Finding("tls", "wrong", _reason(exc), tls_advice(exc)))
        return False
    except (OSError, TimeoutError) as exc:
        tell(
            Finding(
                "connection",
                "wrong",
                f"{host}:{port}: {_reason(exc)}",
                "a firewall, a proxy that is not set, or no server there",
            )
        )
        return False
    took = f"{(time.perf_counter() - begun) * 1000:.0f} ms"
    session: Any = writer.get_extra_info("ssl_object")
    writer.close()
    if session is not None:
        seen = f"{session.version()} in {took}, certificate of {issuer(session.getpeercert())}"
        tell(Finding("tls", "ok", seen))
    elif _is_local(host):
        tell(Finding("connection", "ok", f"in {took}"))
    else:
        advice = "key and prompts travel in clear: use https"
        tell(Finding("connection", "note", f"in {took}, without TLS", advice))
    return True


def issuer(certificate: Mapping[str, Any] | None) -> str:
    """Who signed a certificate, as Python's ssl module shows it."""
    parts: list[list[tuple[str, str]]] = certificate["issuer"] if certificate else []
    names = dict(pair for part in parts for pair in part)
    return names.get("organizationName") or names.get("commonName") or "an unnamed issuer"


def _is_local(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if (
        isinstance(error, socket.gaierror)
        or not isinstance(error, OSError)
        or not error.errno
        or error.errno < 0
    ):
        return str(error.args[-1] if error.args else error)
    return os.strerror(error.errno)


def tls_advice(error: ssl.SSLError) -> str:
    """What to do about a handshake that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if "expired" in error.verify_message or "not yet valid" in error.verify_message:
            return "is this machine's clock right?"
        return (
            "something between here and there shows a certificate of its own (a company's proxy, often): "
            "point SSL_CERT_FILE at its root certificate"
        )
    return "the other side does not speak TLS as expected: is it http:// instead, or another port?"


# --- what the host says --------------------------------------------------------------------------------------


async def _ask(client: "AsyncKimi", tell: Callable[[Finding], None]) -> None:
    began = time.time()
    try:
        async with asyncio.timeout(3 * PATIENCE):
            reply = await client.models.with_raw_response.list()
    except (KimiError, TimeoutError) as exc:
        what = explain(exc) if isinstance(exc, KimiError) else f"no answer within {3 * PATIENCE:g} s"
        wrong_key = isinstance(exc, AuthenticationError)
        tell(
            Finding(
                "models",
                "wrong",
                what,
                "make a key at platform.kimi.ai, or platform.kimi.com for api.moonshot.cn"
                if wrong_key
                else "",
            )
        )
        return
    page: Any = reply.parse()
    headers: Mapping[str, str] = reply.headers
    tell(Finding("models", "ok", ", ".join(model.id for model in page.data) or "none"))
    tell(clock_finding(headers.get("date"), (began + time.time()) / 2))
    await _balance(client, tell)
    tell(_limits(headers.get("msh-gid")))


def clock_finding(date: str | None, now: float) -> Finding:
    """This machine's clock beside the server's, whose seconds are whole."""
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return Finding("clock", "skipped", "the server does not tell the time")
    off = now - theirs
    if abs(off) < CLOCK:
        return Finding("clock", "ok", "within two minutes of the server's")
    way = "fast" if off > 0 else "slow"
    return Finding(
        "clock",
        "wrong",
        f"{abs(off) / 60:,.0f} minutes {way}",
        "set it: certificates and waits are reckoned by it",
    )


async def _balance(client: "AsyncKimi", tell: Callable[[Finding], None]) -> None:
    row = client.provider
    if row is not None and not row.supports("balance"):
        tell(Finding("balance", "skipped", f"{row.title} does not tell it"))
        return
    left = await _or_none(client.users.me.balance)
    if left is None:
        tell(Finding("balance", "skipped", "the host does not tell it"))
    elif left.available_balance > 0:
        tell(Finding("balance", "ok", f"{left.available_balance} available"))
    else:
        tell(
            Finding(
                "balance",
                "wrong",
                f"{left.available_balance} available",
                "nothing is answered at or below zero: top up",
            )
        )


async def _or_none(ask: Callable[[], Awaitable[Any]]) -> Any:
    try:
        async with asyncio.timeout(PATIENCE):
            return await ask()
    except (KimiError, TimeoutError):
        return None


def _limits(group: str | None) -> Finding:
    if group is None:
        return Finding(
            "limits",
            "note",
            "the host does not tell them",
            "say --tier where you know yours; they are learnt otherwise",
        )
    return Finding("limits", "ok", f"group {group}")
