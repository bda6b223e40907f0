"""
The objects of the wire: replies as structs, the shapes of requests as TypedDicts. Import them from here, or from the module of
their family. May use providers, and from outside msgspec.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

from ._base import NOT_GIVEN, BaseModel, NotGiven, Omit, Reply, not_given, omit
from .batches import Batch, BatchList, BatchRequestCounts, BatchStatus
from .completions import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionMessageParam,
    ChatCompletionMessageToolCall,
    ChatParams,
    Choice,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
    ChunkChoice,
    CompletionTokensDetails,
    CompletionUsage,
    Function,
    PromptTokensDetails,
    ThinkingParam,
    UsageAttempt,
)
from .files import FileDeleted, FileList, FileObject, FilePurpose
from .formulas import Fiber, FiberContext, FormulaTools
from .models import Model
from .parsed import (
    ParsedChatCompletion,
    ParsedChatCompletionMessage,
    ParsedChoice,
    ParsedFunction,
    ParsedFunctionToolCall,
)
from .signatures import RequestSignature, SignatureVerification
from .tokenizers import TokenCount, TokenCountData
from .users import Balance, BalanceData

if TYPE_CHECKING:
    from .params import (
        FunctionDefinition,
        FunctionParameters,
        Metadata,
        ReasoningEffort,
        ResponseFormatJSONObject,
        ResponseFormatJSONSchema,
        ResponseFormatText,
    )

# The shapes of requests are for editors and type checkers; making them takes 5 ms of every start.
_OF_PARAMS = frozenset(
    {
        "FunctionDefinition",
        "FunctionParameters",
        "Metadata",
        "ReasoningEffort",
        "ResponseFormatJSONObject",
        "ResponseFormatJSONSchema",
        "ResponseFormatText",
    }
)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in ("chat", "params"):
        return import_module(f".{name}", __name__)
    if name in _OF_PARAMS:
        return getattr(import_module(".params", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


ChatModel: TypeAlias = str
"""A model's id. `client.models.list()` says which there are."""

__all__ = [
    "NOT_GIVEN",
    "Balance",
    "BalanceData",
    "BaseModel",
    "Batch",
    "BatchList",
    "BatchRequestCounts",
    "BatchStatus",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "ChatCompletionMessageParam",
    "ChatCompletionMessageToolCall",
    "ChatModel",
    "ChatParams",
    "Choice",
    "ChoiceDelta",
    "ChoiceDeltaToolCall",
    "ChoiceDeltaToolCallFunction",
    "ChunkChoice",
    "CompletionTokensDetails",
    "CompletionUsage",
    "Fiber",
    "FiberContext",
    "FileDeleted",
    "FileList",
    "FileObject",
    "FilePurpose",
    "FormulaTools",
    "Function",
    "FunctionDefinition",
    "FunctionParameters",
    "Metadata",
    "Model",
    "NotGiven",
    "Omit",
    "ParsedChatCompletion",
    "ParsedChatCompletionMessage",
    "ParsedChoice",
    "ParsedFunction",
    "ParsedFunctionToolCall",
    "PromptTokensDetails",
    "ReasoningEffort",
    "Reply",
    "RequestSignature",
    "ResponseFormatJSONObject",
    "ResponseFormatJSONSchema",
    "ResponseFormatText",
    "SignatureVerification",
    "ThinkingParam",
    "TokenCount",
    "TokenCountData",
    "UsageAttempt",
    "not_given",
    "omit",
]
