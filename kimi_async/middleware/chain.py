"""
What wraps a request on its way: the protocol, and the chain.

    async def __call__(self, request: Request, send: Handler) -> Response

A middleware passes the request on with `await send(request)`, as often as it likes, and returns a response. Replies of every
status come back as a `Response`; only connection failures raise. Listed outermost first.

A user's middleware runs once per attempt, inside retry and rate limit. With a class attribute `per_call = True` it wraps the
whole call instead, retries included.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from ..transport.exchange import Request, Response

__all__ = ["Handler", "Middleware", "chain"]

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@runtime_checkable
class Middleware(Protocol):
    """
    Anything that can be called with a request and the next handler.
    """

    async def __call__(self, request: Request, send: Handler) -> Response: ...


def chain(middleware: Sequence[Middleware], send: Handler) -> Handler:
    """
    One handler out of many, the first the outermost. Built once per client, so that a call costs one call per layer.
    """
    for layer in reversed(middleware):
        send = _wrap(layer, send)
    return send


def _wrap(layer: Middleware, send: Handler) -> Handler:
    def handle(request: Request) -> Awaitable[Response]:
        return layer(request, send)

    return handle
