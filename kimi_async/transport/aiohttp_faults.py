"""
aiohttp's exceptions as ours: none of them leaves, since some print the request's headers, key included, in their repr.
"""

import asyncio
import errno
from contextvars import ContextVar
from urllib.parse import urlsplit

import aiohttp

from ..errors import APIConnectionError, APITimeoutError, ConfigurationError, ProxyError
from ..redact import redact, secrets_of
from .aiohttp_patches import reused
from .exchange import Request

__all__ = ["PHASE", "proxy_wants_a_password", "translated"]

PHASE: ContextVar[str] = ContextVar("kimi_async_phase", default="connect")
"""How far the new connection for the request under way has got: `dns`, `connect`, `tls`."""

_PHASES: tuple[tuple[type[BaseException], str, str], ...] = (
    (aiohttp.ClientConnectorDNSError, "dns", "the host's name could not be resolved"),
    (aiohttp.ClientProxyConnectionError, "connect", "the proxy could not be reached"),
    (aiohttp.ClientConnectorCertificateError, "tls", "the certificate was not accepted"),
    (aiohttp.ClientSSLError, "tls", "TLS failed"),
    (aiohttp.ServerFingerprintMismatch, "tls", "the certificate's fingerprint differs"),
    (aiohttp.ClientConnectorError, "connect", "no connection"),
    (aiohttp.ServerDisconnectedError, "", "the server closed the connection"),
    (aiohttp.ClientConnectionResetError, "", "the connection was reset"),
    (aiohttp.ClientPayloadError, "body", "the body broke off"),
    # aiohttp reports what it cannot parse as a response with status 400. It is not the server's 400.
    (aiohttp.ClientResponseError, "", "the reply is not HTTP that can be understood"),
    (aiohttp.InvalidURL, "connect", "not a URL"),
)


def translated(
    exc: BaseException | None, request: Request, phase: str, elapsed: float
) -> APIConnectionError | ConfigurationError:
    """Our error for one of aiohttp's. The cause it carries is a stand-in with the same words, but no headers and no frames."""
    host = urlsplit(request.url).hostname
    secrets = secrets_of(request)
    if isinstance(exc, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return ConfigurationError(f"not a URL that can be called: {redact(str(exc), secrets)}")
    if (
        phase == "headers"
        and isinstance(exc, ValueError)
        and not isinstance(exc, (aiohttp.ClientError, OSError))  # certificates are ValueErrors as well
    ):
        # Of the request, before anything was sent: its method, a header with a line break, a host's name that is too long.
        return ConfigurationError(f"the request cannot be sent: {redact(str(exc), secrets)}")
    if isinstance(exc, asyncio.TimeoutError):
        # The only timer left to aiohttp is the one on a new connection.
        limit = request.timeout.connect
        phase = PHASE.get()
        waiting = {"dns": "for its address", "tls": "for TLS"}.get(phase, "for TCP")
        bound = "" if limit is None else f"; Timeout.connect = {limit:g}"
        timed_out = APITimeoutError(
            request,
            message=f"no connection to {host} after {elapsed:.3g} s (waiting {waiting}{bound})",
            phase=phase,
            elapsed=elapsed,
        )
        timed_out.__cause__ = _stand_in(exc, secrets)
        return timed_out
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        if exc.status == 407:
            return proxy_wants_a_password(request, elapsed)
        # A proxy that is overloaded, or cannot reach the host just now, may yet; one that forbids will forbid again.
        cls = ProxyError if exc.status < 500 else APIConnectionError
        return cls(
            message=f"the proxy answered {exc.status} ({' '.join(redact(exc.message, secrets).split())[:100]}) when asked for a way "
            f"to {host} (after {elapsed:.3g} s)",
            request=request,
            phase="connect",
            elapsed=elapsed,
        )
    told = "the connection failed"
    for kind, where, words in _PHASES:
        if isinstance(exc, kind):
            phase, told = where or phase, words
            break
    detail = _detail(exc, secrets)
    error = APIConnectionError(
        message=f"Connection error: {told} ({host}, {phase}, after {elapsed:.3g} s{detail})",
        request=request,
        phase=phase,
        elapsed=elapsed,
    )
    # Written on, or waited on, after the other side had closed it in the pool: nobody has seen the request.
    error.reused_connection = (
        phase == "headers"
        and reused.get()
        and (
            isinstance(exc, (aiohttp.ServerDisconnectedError, ConnectionError))
            or (isinstance(exc, OSError) and exc.errno in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED))
        )
    )
    error.__cause__ = _stand_in(exc, secrets)
    return error


def proxy_wants_a_password(request: Request, elapsed: float) -> ProxyError:
    return ProxyError(
        message="the proxy asks for a user and password (407 Proxy Authentication Required), or did not take those it got: "
        "write them into its URL, http://user:password@host:port, special characters percent-encoded",
        request=request,
        phase="connect",
        elapsed=elapsed,
    )


def _detail(exc: BaseException | None, secrets: tuple[str, ...]) -> str:
    if exc is None:
        return ""
    inner = getattr(exc, "os_error", None) if isinstance(exc, aiohttp.ClientConnectorError) else None
    text = redact(str(inner if inner is not None else getattr(exc, "message", None) or exc), secrets)
    # "Got more than 16384 bytes when reading b'…'": what was read is cut anywhere, also inside a key that it repeats.
    text = " ".join(text.partition(" when reading")[0].split())[:300]
    return f": {type(inner or exc).__name__}: {text}" if text else f": {type(inner or exc).__name__}"


def _stand_in(exc: BaseException | None, secrets: tuple[str, ...]) -> BaseException | None:
    if exc is None:
        return None
    inner = getattr(exc, "os_error", None) if isinstance(exc, aiohttp.ClientConnectorError) else None
    if isinstance(inner, OSError):
        return inner.with_traceback(None)
    if isinstance(exc, OSError) and not isinstance(exc, aiohttp.ClientError):
        return exc.with_traceback(None)
    text = f"{type(exc).__name__}{_detail(exc, secrets).removeprefix(': ' + type(exc).__name__)}"
    return TimeoutError(text) if isinstance(exc, asyncio.TimeoutError) else ConnectionError(text)
