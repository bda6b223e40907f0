"""
The objects of the wire. Import them from here, or from the module of their family.
"""

from typing import TypeAlias

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
from .params import (
    FunctionDefinition,
    FunctionParameters,
    Metadata,
    ReasoningEffort,
    ResponseFormatJSONObject,
    ResponseFormatJSONSchema,
    ResponseFormatText,
)
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
