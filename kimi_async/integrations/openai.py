"""
The official client over our engine: for frameworks that test what they are given with `isinstance`.

    from kimi_async.integrations.openai import as_openai

    async with AsyncKimi() as client:
        official = as_openai(client)        # a real openai.AsyncOpenAI
        completion = await official.chat.completions.create(model="kimi-k3", messages=[...])

It has the speed of openai's own client (a delta costs it ten times what it costs here); what it gets from us are the limits,
which it shares with all else that goes through `client`, the retries, the checks of streams, and the reasoning of tool calls.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..client import AsyncKimi
from ..errors import ConfigurationError, KimiError
from .httpx import KimiTransport

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

__all__ = ["as_blocking_openai", "as_openai"]

# openai wants a key, and a framework may print the one it finds. Ours is added below it.
PLACEHOLDER = "held-by-kimi-async"


def as_openai(client: AsyncKimi, *, keep_reasoning: bool = True) -> "AsyncOpenAI":
    """
    An `openai.AsyncOpenAI` whose requests go through `client`.

    Its `max_retries` is 0, because `client` has retried already, and its `timeout` None, because `client` keeps time; a timeout
    passed with a call is obeyed. Closing it leaves `client` open.

    :param keep_reasoning: put back the reasoning of answers with tool calls where the framework above has dropped it.

    :raises ConfigurationError: openai is not installed.
    """
    official: AsyncOpenAI = _through(client, keep_reasoning, "AsyncOpenAI", "AsyncClient")
    return official


def as_blocking_openai(client: AsyncKimi, *, keep_reasoning: bool = True) -> "OpenAI":
    """
    The same for blocking code: an `openai.OpenAI` whose requests go through `client`, on an event loop in a thread of its own.
    """
    official: OpenAI = _through(client, keep_reasoning, "OpenAI", "Client")
    return official


def _through(client: AsyncKimi, keep_reasoning: bool, kind: str, http: str) -> Any:
    """openai's client of this `kind` over a client of httpx, `http`, whose requests go through ours."""
    openai = _openai()
    httpx = _httpx_of(openai)
    transport = _transport_class(openai, httpx)(client, keep_reasoning=keep_reasoning)
    return getattr(openai, kind)(
        api_key=PLACEHOLDER,
        base_url=client.base_url,
        timeout=None,
        max_retries=0,
        http_client=getattr(httpx, http)(transport=transport, timeout=None, trust_env=False),
    )


def _openai() -> object:
    try:
        return import_module("openai")
    except ImportError:
        raise ConfigurationError("openai is not installed: pip install 'kimi-async[openai]'") from None


def _httpx_of(openai: Any) -> object:
    """The httpx that this openai is built on: httpx2 since openai 3, httpx before."""
    for base in openai.DefaultAsyncHttpxClient.__mro__:
        name = base.__module__.partition(".")[0]
        if name in ("httpx", "httpx2"):
            return import_module(name)
    raise ConfigurationError(f"openai {openai.__version__} is built on neither httpx nor httpx2")


@cache
def _transport_class(openai: Any, httpx: Any) -> Any:
    # openai turns what a request raises into errors of its own, but before release 3 not what a stream raises.
    class StreamBrokenError(openai.APIConnectionError, httpx.RemoteProtocolError):  # type: ignore[misc]
        """A stream that broke off, as openai and as httpx would have it."""

    class StreamStalledError(openai.APITimeoutError, httpx.ReadTimeout):  # type: ignore[misc]
        """A stream that fell silent, as openai and as httpx would have it."""

    class OpenAITransport(KimiTransport):
        def translated(self, error: KimiError, request: Any, streaming: bool = False) -> Exception:
            plain = super().translated(error, request, streaming)
            if not streaming:
                return plain
            if isinstance(plain, httpx.TimeoutException):
                stalled = StreamStalledError(request=request)
                stalled.args = (str(error),)
                stalled.message = str(error)
                return stalled
            return StreamBrokenError(message=str(error), request=request)

    return OpenAITransport
