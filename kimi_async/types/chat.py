"""
Everything about chats: what a completion, and a chunk of a streamed one, are made of, and what may be sent.

Whatever programs import from `openai.types.chat` is here under its name, the shapes of requests among it (`types.params`).
"""

from typing import Any, TypeAlias, TypedDict

from ._base import Reply
from .completions import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionMessageParam,
    ChatCompletionMessageToolCall,
    ChatOptions,
    ChatParams,
    Choice,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
    ChunkChoice,
    CompletionTokensDetails,
    CompletionUsage,
    Function,
    NoneOrUnset,
    PromptTokensDetails,
    ThinkingParam,
    UsageAttempt,
)
from .params import (
    ChatCompletionAllowedToolChoiceParam,
    ChatCompletionAllowedToolsParam,
    ChatCompletionAssistantMessageParam,
    ChatCompletionAudioParam,
    ChatCompletionContentPartImageParam,
    ChatCompletionContentPartInputAudioParam,
    ChatCompletionContentPartParam,
    ChatCompletionContentPartRefusalParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionContentPartVideoParam,
    ChatCompletionCustomToolParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionFunctionCallOptionParam,
    ChatCompletionFunctionMessageParam,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageCustomToolCallParam,
    ChatCompletionMessageFunctionToolCallParam,
    ChatCompletionMessageToolCallParam,
    ChatCompletionMessageToolCallUnionParam,
    ChatCompletionModality,
    ChatCompletionNamedToolChoiceCustomParam,
    ChatCompletionNamedToolChoiceParam,
    ChatCompletionPredictionContentParam,
    ChatCompletionReasoningEffort,
    ChatCompletionRole,
    ChatCompletionStreamOptionsParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionToolChoiceOptionParam,
    ChatCompletionToolMessageParam,
    ChatCompletionToolParam,
    ChatCompletionToolUnionParam,
    ChatCompletionUserMessageParam,
    CompletionCreateParams,
    CompletionListParams,
    CompletionUpdateParams,
    CreateChatCompletionRequestMessageParam,
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

__all__ = [
    "ChatCompletion",
    "ChatCompletionAllowedToolChoiceParam",
    "ChatCompletionAllowedToolsParam",
    "ChatCompletionAssistantMessageParam",
    "ChatCompletionAudio",
    "ChatCompletionAudioParam",
    "ChatCompletionChunk",
    "ChatCompletionContentPartImage",
    "ChatCompletionContentPartImageParam",
    "ChatCompletionContentPartInputAudioParam",
    "ChatCompletionContentPartParam",
    "ChatCompletionContentPartRefusalParam",
    "ChatCompletionContentPartText",
    "ChatCompletionContentPartTextParam",
    "ChatCompletionContentPartVideoParam",
    "ChatCompletionCustomToolParam",
    "ChatCompletionDeleted",
    "ChatCompletionDeveloperMessageParam",
    "ChatCompletionFunctionCallOptionParam",
    "ChatCompletionFunctionMessageParam",
    "ChatCompletionFunctionTool",
    "ChatCompletionFunctionToolParam",
    "ChatCompletionMessage",
    "ChatCompletionMessageCustomToolCall",
    "ChatCompletionMessageCustomToolCallParam",
    "ChatCompletionMessageFunctionToolCall",
    "ChatCompletionMessageFunctionToolCallParam",
    "ChatCompletionMessageParam",
    "ChatCompletionMessageToolCall",
    "ChatCompletionMessageToolCallParam",
    "ChatCompletionMessageToolCallUnion",
    "ChatCompletionMessageToolCallUnionParam",
    "ChatCompletionModality",
    "ChatCompletionNamedToolChoiceCustomParam",
    "ChatCompletionNamedToolChoiceParam",
    "ChatCompletionPredictionContentParam",
    "ChatCompletionReasoningEffort",
    "ChatCompletionRole",
    "ChatCompletionStoreMessage",
    "ChatCompletionStreamOptionsParam",
    "ChatCompletionSystemMessageParam",
    "ChatCompletionTokenLogprob",
    "ChatCompletionToolChoiceOptionParam",
    "ChatCompletionToolMessageParam",
    "ChatCompletionToolParam",
    "ChatCompletionToolUnionParam",
    "ChatCompletionUserMessageParam",
    "ChatOptions",
    "ChatParams",
    "Choice",
    "ChoiceDelta",
    "ChoiceDeltaToolCall",
    "ChoiceDeltaToolCallFunction",
    "ChunkChoice",
    "CompletionCreateParams",
    "CompletionListParams",
    "CompletionTokensDetails",
    "CompletionUpdateParams",
    "CompletionUsage",
    "CreateChatCompletionRequestMessageParam",
    "Function",
    "FunctionDefinition",
    "FunctionParameters",
    "Metadata",
    "NoneOrUnset",
    "ParsedChatCompletion",
    "ParsedChatCompletionMessage",
    "ParsedChoice",
    "ParsedFunction",
    "ParsedFunctionToolCall",
    "PromptTokensDetails",
    "ReasoningEffort",
    "ResponseFormatJSONObject",
    "ResponseFormatJSONSchema",
    "ResponseFormatText",
    "ThinkingParam",
    "UsageAttempt",
]

# openai's names for what is one thing here.
ChatCompletionMessageFunctionToolCall: TypeAlias = ChatCompletionMessageToolCall
ChatCompletionMessageToolCallUnion: TypeAlias = ChatCompletionMessageToolCall
ChatCompletionFunctionTool: TypeAlias = ChatCompletionFunctionToolParam
ChatCompletionContentPartText: TypeAlias = ChatCompletionContentPartTextParam
ChatCompletionContentPartImage: TypeAlias = ChatCompletionContentPartImageParam
ChatCompletionMessageCustomToolCall: TypeAlias = ChatCompletionMessageCustomToolCallParam


class ChatCompletionTokenLogprob(TypedDict):
    """A token of an answer and how likely it was; `logprobs` holds such, as plain dicts."""

    token: str
    bytes: list[int] | None
    logprob: float
    top_logprobs: list[dict[str, Any]]


class ChatCompletionAudio(TypedDict):
    """A spoken answer. Kimi gives none; the name is for programs that mention it."""

    id: str
    data: str
    expires_at: int
    transcript: str


class ChatCompletionDeleted(Reply):
    """What deleting a stored completion gives. Kimi stores none; the name is for programs that mention it."""

    id: str = ""
    deleted: bool = False
    object: str = "chat.completion.deleted"


class ChatCompletionStoreMessage(ChatCompletionMessage):
    """A message of a stored completion. Kimi stores none; the name is for programs that mention it."""

    id: str = ""
