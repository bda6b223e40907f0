"""
One HTTP exchange: a request goes out, a response comes back, and nothing here knows what either means.

`exchange` has the words (Request, Response, Timeout, Headers, Transport), `aiohttp_pool` the sessions that carry them. May use
errors and redact, and from outside aiohttp, multidict and yarl; the pool is loaded when a client first sends.
"""

from .exchange import Body, Headers, Request, Response, Timeout, Transport, TransportSettings
from .phases import send_within

__all__ = [
    "Body",
    "Headers",
    "Request",
    "Response",
    "Timeout",
    "Transport",
    "TransportSettings",
    "send_within",
]
