"""
What only the connection may say of a message: how it is framed, and where it goes.
"""

from collections.abc import Iterable

from ..errors import ConfigurationError

__all__ = ["FRAMING", "check_framing"]

# With one of them from outside, a proxy and the host can see two different requests in the same bytes (RFC 9112 §11.2). Some
# servers read `_` as `-`.
FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)


def check_framing(names: Iterable[str], *, but: str = "") -> None:
    """
    :param but: one that is let pass, since the transport writes its own over it.
    :raises ConfigurationError: one of these headers says how the message is framed, or where it goes.
    """
    for name in names:
        low = name.lower().replace("_", "-")
        if low in FRAMING and low != but:
            raise ConfigurationError(
                f"the header {name} cannot be set: it says how the message is framed or where it goes, which the "
                "connection itself decides; leave it out (relaying a request, pass on only the headers that you know)"
            )
