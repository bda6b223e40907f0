"""
The async, typed, fast Python client for the Kimi (Moonshot AI) API.

    from kimi_async import AsyncKimi

Names are resolved when they are first used, so that importing the package costs next to nothing: aiohttp, anyio and tenacity
are loaded by the first call.
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .bulk.batch_jobs import BatchNotFinishedError
    from .bulk.journal import JournalError, JournalLockedError, JournalMismatchError, JournalWriteError
    from .bulk.map import MapStoppedError
    from .bulk.request_files import InvalidLinesError
    from .bulk.results import RequestFailedError, UnansweredError
    from .bulk.upload_many import FileLimitError
    from .client import AsyncKimi
    from .errors import (
        APIConnectionError,
        APIError,
        APIResponseValidationError,
        APIStatusError,
        APITimeoutError,
        Attempt,
        AuthenticationError,
        BadRequestError,
        CircuitOpenError,
        ClientClosedError,
        ConfigurationError,
        ConflictError,
        ContentFilterError,
        ContentFilterFinishReasonError,
        ContextLengthExceededError,
        EmptyResponseError,
        EngineOverloadedError,
        IncompleteStreamError,
        InternalServerError,
        KimiError,
        LengthFinishReasonError,
        NotFoundError,
        PermissionDeniedError,
        ProxyError,
        QuotaExceededError,
        RateLimitError,
        RateLimitReachedError,
        RateLimitWaitError,
        RedirectRefusedError,
        RequestTooCostlyError,
        RequestTooLargeError,
        ResponseTooLargeError,
        StreamStalledError,
        TokensPerDayLimitError,
        UnprocessableEntityError,
    )
    from .middleware.chain import Handler, Middleware
    from .middleware.failover.middleware import Failover, FailoverTarget
    from .middleware.rate_limit.controller import AdmissionController
    from .middleware.rate_limit.limits import RateLimits
    from .middleware.retry.policy import RetryPolicy, RetryRule
    from .providers.advice import KimiWarning
    from .resources.pagination import AsyncCursorPage, AsyncPage, AsyncPaginator
    from .schema import OutputError, SchemaError
    from .schema.answers import pydantic_function_tool
    from .sse import EventTooLargeError
    from .streaming.events import (
        AsyncChatCompletionStream,
        AsyncChatCompletionStreamManager,
        ChatCompletionStreamState,
        StreamMetrics,
    )
    from .streaming.resume import ResumePolicy, Resumption
    from .streaming.stream import AsyncStream
    from .tools import Tool, ToolArgumentsError, ToolContext, ToolError, tool, tool_from, web_search
    from .tools.run import MaxTurnsError, ToolRun, ToolRunResult
    from .transport.exchange import Headers, Request, Response, Timeout, Transport
    from .types import NOT_GIVEN, BaseModel, NotGiven, Omit, not_given, omit

# Each room offers its names under its own name; this says which of them are offered at the door.
_ROOMS: dict[str, tuple[str, ...]] = {
    "providers.advice": ("KimiWarning",),
    "streaming.events": (
        "AsyncChatCompletionStream",
        "AsyncChatCompletionStreamManager",
        "ChatCompletionStreamState",
        "StreamMetrics",
    ),
    "client": ("AsyncKimi",),
    "errors": (
        "APIConnectionError",
        "APIError",
        "APIResponseValidationError",
        "APIStatusError",
        "APITimeoutError",
        "Attempt",
        "AuthenticationError",
        "BadRequestError",
        "CircuitOpenError",
        "ClientClosedError",
        "ConfigurationError",
        "ConflictError",
        "ContentFilterError",
        "ContentFilterFinishReasonError",
        "ContextLengthExceededError",
        "EmptyResponseError",
        "EngineOverloadedError",
        "IncompleteStreamError",
        "InternalServerError",
        "KimiError",
        "LengthFinishReasonError",
        "NotFoundError",
        "PermissionDeniedError",
        "ProxyError",
        "QuotaExceededError",
        "RateLimitError",
        "RateLimitReachedError",
        "RateLimitWaitError",
        "RedirectRefusedError",
        "RequestTooCostlyError",
        "RequestTooLargeError",
        "ResponseTooLargeError",
        "StreamStalledError",
        "TokensPerDayLimitError",
        "UnprocessableEntityError",
    ),
    "middleware.chain": ("Handler", "Middleware"),
    "middleware.failover.middleware": ("Failover", "FailoverTarget"),
    "middleware.rate_limit.controller": ("AdmissionController",),
    "middleware.rate_limit.limits": ("RateLimits",),
    "middleware.retry.policy": ("RetryPolicy", "RetryRule"),
    "resources.pagination": ("AsyncCursorPage", "AsyncPage", "AsyncPaginator"),
    "streaming.resume": ("ResumePolicy", "Resumption"),
    "schema": ("OutputError", "SchemaError"),
    "streaming.stream": ("AsyncStream",),
    "schema.answers": ("pydantic_function_tool",),
    "tools.run": ("MaxTurnsError", "ToolRun", "ToolRunResult"),
    "tools": (
        "Tool",
        "ToolArgumentsError",
        "ToolContext",
        "ToolError",
        "tool",
        "tool_from",
        "web_search",
    ),
    "bulk.batch_jobs": ("BatchNotFinishedError",),
    "sse": ("EventTooLargeError",),
    "bulk.upload_many": ("FileLimitError",),
    "bulk.request_files": ("InvalidLinesError",),
    "bulk.journal": (
        "JournalError",
        "JournalLockedError",
        "JournalMismatchError",
        "JournalWriteError",
    ),
    "bulk.map": ("MapStoppedError",),
    "bulk.results": (
        "RequestFailedError",
        "UnansweredError",
    ),
    "transport.exchange": ("Headers", "Request", "Response", "Timeout", "Transport"),
    "types": ("NOT_GIVEN", "BaseModel", "NotGiven", "Omit", "not_given", "omit"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "NOT_GIVEN",
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AdmissionController",
    "AsyncChatCompletionStream",
    "AsyncChatCompletionStreamManager",
    "AsyncCursorPage",
    "AsyncKimi",
    "AsyncPage",
    "AsyncPaginator",
    "AsyncStream",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "BaseModel",
    "BatchNotFinishedError",
    "ChatCompletionStreamState",
    "CircuitOpenError",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "ContentFilterError",
    "ContentFilterFinishReasonError",
    "ContextLengthExceededError",
    "EmptyResponseError",
    "EngineOverloadedError",
    "EventTooLargeError",
    "Failover",
    "FailoverTarget",
    "FileLimitError",
    "Handler",
    "Headers",
    "IncompleteStreamError",
    "InternalServerError",
    "InvalidLinesError",
    "JournalError",
    "JournalLockedError",
    "JournalMismatchError",
    "JournalWriteError",
    "KimiError",
    "KimiWarning",
    "LengthFinishReasonError",
    "MapStoppedError",
    "MaxTurnsError",
    "Middleware",
    "NotFoundError",
    "NotGiven",
    "Omit",
    "OutputError",
    "PermissionDeniedError",
    "ProxyError",
    "QuotaExceededError",
    "RateLimitError",
    "RateLimitReachedError",
    "RateLimitWaitError",
    "RateLimits",
    "RedirectRefusedError",
    "Request",
    "RequestFailedError",
    "RequestTooCostlyError",
    "RequestTooLargeError",
    "Response",
    "ResponseTooLargeError",
    "ResumePolicy",
    "Resumption",
    "RetryPolicy",
    "RetryRule",
    "SchemaError",
    "StreamMetrics",
    "StreamStalledError",
    "Timeout",
    "TokensPerDayLimitError",
    "Tool",
    "ToolArgumentsError",
    "ToolContext",
    "ToolError",
    "ToolRun",
    "ToolRunResult",
    "Transport",
    "UnansweredError",
    "UnprocessableEntityError",
    "__version__",
    "not_given",
    "omit",
    "pydantic_function_tool",
    "tool",
    "tool_from",
    "web_search",
]


def __getattr__(name: str) -> Any:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{room}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
