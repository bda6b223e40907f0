"""
Names that code written for the OpenAI SDK imports, for the day of the move.

    from kimi_async.integrations.compat import AsyncOpenAI, OpenAIError, DefaultAioHttpClient

Where code that cannot be changed catches openai's own classes, `raise_openai_errors()` makes ours theirs as well.
"""

import ssl as ssl_module
from typing import Any

from .. import errors
from ..client import AsyncKimi
from ..errors import KimiError
from ..transport.exchange import TransportSettings

__all__ = [
    "AsyncOpenAI",
    "DefaultAioHttpClient",
    "DefaultAsyncHttpxClient",
    "OpenAIError",
    "raise_openai_errors",
]

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
        timeout: object = None,
        limits: object = None,
        **_: Any,
    ) -> None:
        super().__init__(proxy=str(proxy) if proxy is not None else None, ssl=verify)


DefaultAsyncHttpxClient = DefaultAioHttpClient


def raise_openai_errors(*, on: bool = True) -> None:
    """
    From now on, in this process, an error of this package is also one of openai's: `except openai.RateLimitError` catches a
    `RateLimitError`, `EngineOverloadedError` and so on. Attributes, texts and pickling stay ours; `on=False` ends it.

    :raises ImportError: openai is not installed (extra `[openai]`).
    """
    if not on:
        errors.MADE_AS.clear()
        return
    import openai

    for name in errors.__all__:
        cls = getattr(errors, name)
        if not (isinstance(cls, type) and issubclass(cls, KimiError)) or cls in errors.MADE_AS:
            continue
        theirs: type[Exception] = openai.OpenAIError
        for each in cls.__mro__:
            if each is not KimiError and hasattr(openai, each.__name__) and issubclass(each, KimiError):
                theirs = getattr(openai, each.__name__)
                break
        errors.MADE_AS[cls] = type(
            name, (cls, theirs), {"__module__": cls.__module__, "__doc__": cls.__doc__}
        )
