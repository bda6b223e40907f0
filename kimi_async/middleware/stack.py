"""
One client's middleware, put together: the chain of each organisation, from its hooks down to the transport.
"""

from collections.abc import Awaitable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..transport.exchange import Request, Response, Transport
from ..transport.phases import send_within
from .chain import Handler, Middleware, chain

if TYPE_CHECKING:
    from .rate_limit.controller import AdmissionController
    from .retry.breakers import RetryBudget

__all__ = ["Stack"]


class Stack:
    """What a client shares with its `with_options` views: the transport, and the chains that lead to it."""

    def __init__(
        self,
        *,
        transport: Transport | None,
        pool_options: dict[str, Any],
        middleware: Sequence[Middleware],
        limits: Any,
        limiter: Any,
        retry: Any,
        hooks: Sequence[Any],
    ) -> None:
        self.closed = False
        self._transport = transport
        self._pool_options = pool_options
        self._middleware = list(middleware)
        self.around_tool: Any = next(
            (found for layer in middleware if (found := getattr(layer, "around_tool", None)) is not None),
            None,
        )
        """The first middleware's that has one: see `kimi_async.tools.run.AroundTool`."""
        self._limits = limits
        self._shared_limiter: AdmissionController | None = limiter
        self._limiters: dict[tuple[str, str], AdmissionController] = {}
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._budget: RetryBudget | None = None
        self._retry = retry
        self._hooks = hooks
        # Whoever makes a client will use it: what its first call needs is imported now, so that the call does not pay.
        import_module(".rate_limit", __package__)
        import_module(".retry", __package__)
        if transport is None:
            import_module("..transport.aiohttp_pool", __package__)

    def limiter_for(self, organisation: tuple[str, str]) -> "AdmissionController":
        """
        Who admits the requests of one organisation: the address and the key, as a digest. Views with another key have their own
        limits, since Kimi counts by organisation; a limiter that was passed in serves them all.
        """
        from .rate_limit.controller import AdmissionController

        limiter = self._shared_limiter or self._limiters.get(organisation)
        if limiter is None:
            limiter = self._limiters[organisation] = AdmissionController(self._limits)
        return limiter

    def handler(self, organisation: tuple[str, str]) -> Handler:
        """
        The whole chain, made at an organisation's first call.
        """
        known = self._handlers.get(organisation)
        if known is not None:
            return known
        from .events import TelemetryMiddleware, observer, setup_logging
        from .rate_limit.middleware import RateLimitMiddleware
        from .retry.breakers import RetryBudget
        from .retry.middleware import RetryMiddleware

        setup_logging()
        send = self.transport.send

        def attempt(request: Request) -> Awaitable[Response]:
            return send_within(send, request)

        if self._budget is None:
            self._budget = RetryBudget(500 if self._retry is None else self._retry.budget)
        watcher = observer(self._hooks)
        limiter = self.limiter_for(organisation)
        layers: list[Middleware] = [
            *([TelemetryMiddleware(watcher)] if watcher is not None else []),
            *(layer for layer in self._middleware if getattr(layer, "per_call", False)),
            RetryMiddleware(self._retry, budget=self._budget, watcher=watcher, limiter=limiter),
            RateLimitMiddleware(limiter, watcher=watcher),
            *([_authorized] if organisation[1].startswith("function-") else []),
            *(layer for layer in self._middleware if not getattr(layer, "per_call", False)),
        ]
        handle = self._handlers[organisation] = chain(layers, attempt)
        return handle

    @property
    def transport(self) -> Transport:
        if self._transport is None:
            from ..transport.aiohttp_pool import SessionPool

            self._transport = SessionPool(**self._pool_options)
        return self._transport

    async def aclose(self) -> None:
        self.closed = True
        transport = self._transport
        close = getattr(transport, "aclose", None)
        if close is not None:
            await close()


async def _authorized(request: Request, send: Handler) -> Response:
    """Asks for the key when the attempt's turn has come, however long it waited for it."""
    if request.authorize is not None:
        await request.authorize(request)
    return await send(request)
