"""
The async, typed, fast Python client for the Kimi (Moonshot AI) API.

    import asyncio
    from kimi_async import AsyncKimi

    async def main():
        async with AsyncKimi() as client:  # the key comes from KIMI_API_KEY
            completion = await client.chat.completions.create(
                model="kimi-k3", messages=[{"role": "user", "content": "Why do rivers bend?"}]
            )
            print(completion.choices[0].message.content)

    asyncio.run(main())

No key yet? `kimi-async simulate` is a Kimi on your own machine, and `kimi_async.testing.KimiSimulator` the same in a program.

The names, by what they are for; `help()` of each says more:

    the client      AsyncKimi, Timeout
                    client.chat.completions: create, stream, parse, run_tools
                    client.files, client.batches, client.models, client.map
    streams         AsyncStream, AsyncChatCompletionStream, AsyncChatCompletionStreamManager, ChatCompletionStreamState,
                    StreamMetrics, ResumePolicy, Resumption
    limits          RateLimits, AdmissionController
    retries         RetryPolicy, RetryRule, Attempt
    other hosts     Failover, FailoverTarget; kimi_async.providers
    tools           tool, tool_from, web_search, pydantic_function_tool, Tool, ToolContext, ToolRun, ToolRunResult
    conversations   kimi_async.conversation: fit, check_history, mend_history
    errors          KimiError and its tree, drawn in kimi_async.errors, with RequestInfo and ResponseInfo; KimiWarning
    middleware      Middleware, Handler, Request, Response, Headers, Transport, request_id_from; hooks: kimi_async.middleware.events
    types           BaseModel and kimi_async.types; AsyncPage, AsyncCursorPage, AsyncPaginator;
                    NOT_GIVEN, NotGiven, not_given, Omit, omit
    tests           kimi_async.testing: KimiSimulator, FaultPlan, MemoryTransport; the pytest fixtures kimi_client, kimi_simulator
    beside others   kimi_async.integrations: openai, httpx, langchain, pydantic_ai, openai_agents, opentelemetry, prometheus

Documentation: https://kimi-async.github.io/kimi-async/

Names are resolved when they are first used, so that importing the package costs next to nothing: aiohttp, anyio and tenacity
are loaded by the first call.
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

# Type checkers need imports, and Python, which is not to import them yet, the name of the module: so each name stands here twice,
# which tests compare. The errors are all offered, from their own list.
if TYPE_CHECKING:
    __all__: list[str]

    from .bulk.batch_handle import BatchNotFinishedError as BatchNotFinishedError
    from .bulk.journal import JournalError as JournalError
    from .bulk.journal import JournalLockedError as JournalLockedError
    from .bulk.journal import JournalMismatchError as JournalMismatchError
    from .bulk.journal import JournalWriteError as JournalWriteError
    from .bulk.lines import InvalidLinesError as InvalidLinesError
    from .bulk.meter import MapStoppedError as MapStoppedError
    from .bulk.results import RequestFailedError as RequestFailedError
    from .bulk.results import UnansweredError as UnansweredError
    from .bulk.upload_many import FileLimitError as FileLimitError
    from .client import AsyncKimi as AsyncKimi
    from .errors import *  # noqa: F403
    from .middleware.chain import Handler as Handler
    from .middleware.chain import Middleware as Middleware
    from .middleware.failover.middleware import Failover as Failover
    from .middleware.failover.middleware import FailoverTarget as FailoverTarget
    from .middleware.rate_limit.controller import AdmissionController as AdmissionController
    from .middleware.rate_limit.limits import RateLimits as RateLimits
    from .middleware.retry.policy import RetryPolicy as RetryPolicy
    from .middleware.retry.policy import RetryRule as RetryRule
    from .providers.advice import KimiWarning as KimiWarning
    from .resources.pagination import AsyncCursorPage as AsyncCursorPage
    from .resources.pagination import AsyncPage as AsyncPage
    from .resources.pagination import AsyncPaginator as AsyncPaginator
    from .schema import OutputError as OutputError
    from .schema import SchemaError as SchemaError
    from .schema.answers import pydantic_function_tool as pydantic_function_tool
    from .sse import EventTooLargeError as EventTooLargeError
    from .streaming.events import AsyncChatCompletionStream as AsyncChatCompletionStream
    from .streaming.events import AsyncChatCompletionStreamManager as AsyncChatCompletionStreamManager
    from .streaming.events import ChatCompletionStreamState as ChatCompletionStreamState
    from .streaming.events import StreamMetrics as StreamMetrics
    from .streaming.resume import ResumePolicy as ResumePolicy
    from .streaming.resume import Resumption as Resumption
    from .streaming.stream import AsyncStream as AsyncStream
    from .tools import LeakedToolsError as LeakedToolsError
    from .tools import Tool as Tool
    from .tools import ToolArgumentsError as ToolArgumentsError
    from .tools import ToolContext as ToolContext
    from .tools import ToolError as ToolError
    from .tools import tool as tool
    from .tools import tool_from as tool_from
    from .tools import web_search as web_search
    from .tools.run import MaxTurnsError as MaxTurnsError
    from .tools.run import ToolRun as ToolRun
    from .tools.run import ToolRunResult as ToolRunResult
    from .transport.exchange import Headers as Headers
    from .transport.exchange import Request as Request
    from .transport.exchange import Response as Response
    from .transport.exchange import Timeout as Timeout
    from .transport.exchange import Transport as Transport
    from .types import NOT_GIVEN as NOT_GIVEN
    from .types import BaseModel as BaseModel
    from .types import NotGiven as NotGiven
    from .types import Omit as Omit
    from .types import not_given as not_given
    from .types import omit as omit

_MODULES: dict[str, str] = {
    "bulk.batch_handle": "BatchNotFinishedError",
    "bulk.journal": "JournalError JournalLockedError JournalMismatchError JournalWriteError",
    "bulk.meter": "MapStoppedError",
    "bulk.lines": "InvalidLinesError",
    "bulk.results": "RequestFailedError UnansweredError",
    "bulk.upload_many": "FileLimitError",
    "client": "AsyncKimi",
    "middleware.chain": "Handler Middleware",
    "middleware.failover.middleware": "Failover FailoverTarget",
    "middleware.rate_limit.controller": "AdmissionController",
    "middleware.rate_limit.limits": "RateLimits",
    "middleware.retry.policy": "RetryPolicy RetryRule",
    "providers.advice": "KimiWarning",
    "resources.pagination": "AsyncCursorPage AsyncPage AsyncPaginator",
    "schema": "OutputError SchemaError",
    "schema.answers": "pydantic_function_tool",
    "sse": "EventTooLargeError",
    "streaming.events": "AsyncChatCompletionStream AsyncChatCompletionStreamManager ChatCompletionStreamState StreamMetrics",
    "streaming.resume": "ResumePolicy Resumption",
    "streaming.stream": "AsyncStream",
    "tools": "LeakedToolsError Tool ToolArgumentsError ToolContext ToolError tool tool_from web_search",
    "tools.run": "MaxTurnsError ToolRun ToolRunResult",
    "transport.exchange": "Headers Request Response Timeout Transport",
    "types": "BaseModel NOT_GIVEN NotGiven Omit not_given omit",
}
_MODULE_OF: dict[str, str] = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__all__":
        return __dir__()
    module = _MODULE_OF.get(name)
    if module is None:
        if name.startswith("_") or name not in import_module(".errors", __name__).__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = "errors"
    value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
    return value


def __dir__() -> list[str]:
    from .errors import __all__ as errors

    return sorted({"__version__", *_MODULE_OF, *errors})
