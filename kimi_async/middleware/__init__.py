"""
What wraps a request on its way: the protocol and the chain, retries, limits, and the hooks that watch.

May use codec, errors and transport, and from outside anyio; tenacity in `retry` alone.
"""

from .chain import Handler, Middleware, chain

__all__ = ["Handler", "Middleware", "chain"]
