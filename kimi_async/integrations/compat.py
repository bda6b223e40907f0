"""
Names that code written for the OpenAI SDK imports, for the day of the move.

    from kimi_async.compat import AsyncOpenAI, OpenAIError, DefaultAioHttpClient
"""

import ssl as ssl_module
from typing import Any

from ..client import AsyncKimi
from ..errors import KimiError
from ..transport.exchange import TransportSettings

__all__ = ["AsyncOpenAI", "DefaultAioHttpClient", "DefaultAsyncHttpxClient", "OpenAIError"]

AsyncOpenAI = AsyncKimi
OpenAIError = KimiError


class DefaultAioHttpClient(TransportSettings):
    """
    Stands where the OpenAI SDK's class of this name stood: `AsyncKimi(http_client=DefaultAioHttpClient(proxy=...))`.

    Only says how the client's own aiohttp sessions are to be made. `proxy` and `verify` are obeyed; `timeout` is the client's
    own argument here, and there is no `limits` to lift: connections are not capped.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        verify: ssl_module.SSLContext | bool = True,
        timeout: Any = None,
        limits: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(proxy=str(proxy) if proxy is not None else None, ssl=verify)


DefaultAsyncHttpxClient = DefaultAioHttpClient
