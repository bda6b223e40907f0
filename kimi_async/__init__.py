"""
The async, typed, fast Python client for the Kimi (Moonshot AI) API.

    from kimi_async import AsyncKimi

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
