"""
Which proxy a request goes through: `proxy=`, else the environment (HTTPS_PROXY, ALL_PROXY, NO_PROXY, …), read as curl does.
"""

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from ..redact import SecretURL, Unshown, redact_url

__all__ = ["check_proxy", "proxy_for"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BLANK = re.compile(r"[\x00-\x20\x7f]")


def check_proxy(given: object, source: str = "proxy") -> SecretURL:
    """
    The proxy's URL, a missing scheme being `http://` (`127.0.0.1:7890`), as curl has it. Its password is masked where shown.

    :param source: where it was said, for the message.

    :raises ConfigurationError: for a SOCKS proxy, to which an HTTP client would send key and prompt in clear; for what is no
        URL, or lacks a port.
    """
    if not isinstance(given, str):
        kind = given.kind if isinstance(given, Unshown) else type(given).__name__
        raise ConfigurationError(f"{source} must be a URL such as http://127.0.0.1:3128, not {kind}")
    url = SecretURL(given.strip())
    named = _SCHEME.match(url)
    if named is None:
        url = SecretURL(f"http://{url}")
    told = redact_url(str(url))
    if _BLANK.search(str(url)):
        raise ConfigurationError(
            f"{source} holds a blank or line break; it must be a URL such as http://127.0.0.1:3128"
        )
    place = _place(url)
    if place is None:
        raise ConfigurationError(f"{source} is not a URL: {told!r}")
    scheme, host, port = place
    if scheme.startswith("socks"):
        raise ConfigurationError(
            f"{source} is a SOCKS proxy ({told}), which this client does not speak. Use the proxy's HTTP port, or pass "
            "http_client=aiohttp.ClientSession(connector=aiohttp_socks.ProxyConnector.from_url(…)); or, where it comes from "
            "the environment, trust_env=False"
        )
    if scheme not in ("http", "https"):
        raise ConfigurationError(f"{source} must be an http:// or https:// URL; got {told!r}")
    if not host:
        raise ConfigurationError(f"{source} must be a URL such as http://127.0.0.1:3128; got {told!r}")
    if named is None and port is None:
        raise ConfigurationError(
            f"{source} names a host without a port ({host!r}): write http://{host}:3128, or whichever port it listens on"
        )
    return url


def _place(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(str(url))
        return parts.scheme, parts.hostname, parts.port
    except ValueError:
        return None


def proxy_for(scheme: str, host: str, port: int | None = None) -> SecretURL | None:
    """
    The proxy that the environment, or the system's settings, want for this address; None for none.

    :raises ConfigurationError: naming the variable, if it cannot be used.
    """
    from urllib.request import getproxies, proxy_bypass  # 10 ms, and the aiohttp pool alone needs it

    proxies = {kind: SecretURL(url) for kind, url in getproxies().items()}
    kind = next((each for each in (scheme, "all") if proxies.get(each)), None)
    if kind is None:
        return None
    found = proxies[kind]
    if proxy_bypass(host) or (port is not None and proxy_bypass(f"{host}:{port}")):
        return None
    return check_proxy(found, _variable(f"{kind}_proxy", found, os.environ))


def _variable(name: str, value: str, environ: Mapping[str, str]) -> str:
    """How the variable is spelt that holds this; the environment may have it in either case."""
    for each in (name, name.upper()):
        if environ.get(each) == value:
            return each
    return "the system's proxy setting"
