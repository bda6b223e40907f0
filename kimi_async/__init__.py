"""
The async, typed, fast Python client for the Kimi (Moonshot AI) API.

    from kimi_async import AsyncKimi

Names are resolved when they are first used, so that importing the package costs next to nothing: aiohttp, anyio and tenacity
are loaded by the first call.
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .advice import KimiWarning
    from .batching import BatchNotFinishedError
    from .chat_stream import (
        AsyncChatCompletionStream,
        AsyncChatCompletionStreamManager,
        ChatCompletionStreamState,
        StreamMetrics,
    )
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
    from .journal import JournalError, JournalLockedError, JournalMismatchError, JournalWriteError
    from .jsonl import InvalidLinesError
    from .middleware import Handler, Middleware
    from .middleware.rate_limit import AdmissionController, RateLimits
    from .middleware.retry import RetryPolicy, RetryRule
    from .pagination import AsyncCursorPage, AsyncPage, AsyncPaginator
    from .pipeline import MapStoppedError
    from .results import RequestFailedError, UnansweredError
    from .resume import ResumePolicy, Resumption
    from .schema import OutputError, SchemaError
    from .sse import EventTooLargeError
    from .streaming import AsyncStream
    from .structured import pydantic_function_tool
    from .tool_loop import MaxTurnsError, ToolRun, ToolRunResult
    from .tools import Tool, ToolArgumentsError, ToolContext, ToolError, tool, tool_from, web_search
    from .transport import Headers, Request, Response, Timeout, Transport
    from .types import NOT_GIVEN, BaseModel, NotGiven, Omit, not_given, omit
    from .upload_many import FileLimitError

# Each room offers its names under its own name; this says which of them are offered at the door.
_ROOMS: dict[str, tuple[str, ...]] = {
    "advice": ("KimiWarning",),
    "chat_stream": (
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
    "middleware": ("Handler", "Middleware"),
    "middleware.rate_limit": ("AdmissionController", "RateLimits"),
    "middleware.retry": ("RetryPolicy", "RetryRule"),
    "pagination": ("AsyncCursorPage", "AsyncPage", "AsyncPaginator"),
    "resume": ("ResumePolicy", "Resumption"),
    "schema": ("OutputError", "SchemaError"),
    "streaming": ("AsyncStream",),
    "structured": ("pydantic_function_tool",),
    "tool_loop": ("MaxTurnsError", "ToolRun", "ToolRunResult"),
    "tools": (
        "Tool",
        "ToolArgumentsError",
        "ToolContext",
        "ToolError",
        "tool",
        "tool_from",
        "web_search",
    ),
    "batching": ("BatchNotFinishedError",),
    "sse": ("EventTooLargeError",),
    "upload_many": ("FileLimitError",),
    "jsonl": ("InvalidLinesError",),
    "journal": (
        "JournalError",
        "JournalLockedError",
        "JournalMismatchError",
        "JournalWriteError",
    ),
    "pipeline": ("MapStoppedError",),
    "results": (
        "RequestFailedError",
        "UnansweredError",
    ),
    "transport": ("Headers", "Request", "Response", "Timeout", "Transport"),
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
