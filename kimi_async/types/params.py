"""
What may be sent, as types: messages and their parts, tools, choices. The names are those that programs import from
`openai.types.chat`; the fields are Kimi's (platform.kimi.ai, API reference "Chat Completions").

They are for editors and type checkers: a plain dict of the same shape is the same thing.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, Required, TypeAlias, TypedDict

from .completions import ChatParams

__all__ = [
    "ChatCompletionAllowedToolChoiceParam",
    "ChatCompletionAllowedToolsParam",
    "ChatCompletionAssistantMessageParam",
    "ChatCompletionAudioParam",
    "ChatCompletionContentPartImageParam",
    "ChatCompletionContentPartInputAudioParam",
    "ChatCompletionContentPartParam",
    "ChatCompletionContentPartRefusalParam",
    "ChatCompletionContentPartTextParam",
    "ChatCompletionContentPartVideoParam",
    "ChatCompletionCustomToolParam",
    "ChatCompletionDeveloperMessageParam",
    "ChatCompletionFunctionCallOptionParam",
    "ChatCompletionFunctionMessageParam",
    "ChatCompletionFunctionToolParam",
    "ChatCompletionMessageCustomToolCallParam",
    "ChatCompletionMessageFunctionToolCallParam",
    "ChatCompletionMessageToolCallParam",
    "ChatCompletionMessageToolCallUnionParam",
    "ChatCompletionModality",
    "ChatCompletionNamedToolChoiceCustomParam",
    "ChatCompletionNamedToolChoiceParam",
    "ChatCompletionPredictionContentParam",
    "ChatCompletionReasoningEffort",
    "ChatCompletionRole",
    "ChatCompletionStreamOptionsParam",
    "ChatCompletionSystemMessageParam",
    "ChatCompletionToolChoiceOptionParam",
    "ChatCompletionToolMessageParam",
    "ChatCompletionToolParam",
    "ChatCompletionToolUnionParam",
    "ChatCompletionUserMessageParam",
    "CompletionCreateParams",
    "CompletionListParams",
    "CompletionUpdateParams",
    "CreateChatCompletionRequestMessageParam",
    "FunctionDefinition",
    "FunctionParameters",
    "Metadata",
    "ReasoningEffort",
    "ResponseFormatJSONObject",
    "ResponseFormatJSONSchema",
    "ResponseFormatText",
]

ChatCompletionRole: TypeAlias = Literal["developer", "system", "user", "assistant", "tool", "function"]
ChatCompletionModality: TypeAlias = Literal["text", "audio"]
ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
"""K3 knows `low`, `high` and `max`; the others are OpenAI's."""
ChatCompletionReasoningEffort: TypeAlias = ReasoningEffort
FunctionParameters: TypeAlias = Mapping[str, object]
"""A JSON Schema; Kimi takes the subset that `kimi_async.schema.json_schema` writes."""
Metadata: TypeAlias = Mapping[str, str]


# --- parts of a message ----------------------------------------------------------------------------------------------


class ChatCompletionContentPartTextParam(TypedDict):
    text: str
    type: Literal["text"]


class ImageURL(TypedDict, total=False):
    url: Required[str]
    """`data:image/png;base64,…`, or `ms://` and the id of a file that was uploaded with purpose `image`."""
    detail: Literal["auto", "low", "high"]


class ChatCompletionContentPartImageParam(TypedDict):
    image_url: ImageURL
    type: Literal["image_url"]


class VideoURL(TypedDict):
    url: str
    """`data:video/mp4;base64,…`, or `ms://` and the id of a file that was uploaded with purpose `video`."""


class ChatCompletionContentPartVideoParam(TypedDict):
    """Kimi's own: a video."""

    video_url: VideoURL
    type: Literal["video_url"]


class InputAudio(TypedDict):
    data: str
    format: Literal["wav", "mp3"]


class ChatCompletionContentPartInputAudioParam(TypedDict):
    input_audio: InputAudio
    type: Literal["input_audio"]


class ChatCompletionContentPartRefusalParam(TypedDict):
    refusal: str
    type: Literal["refusal"]


class FileContent(TypedDict, total=False):
    file_data: str
    file_id: str
    filename: str


class File(TypedDict):
    file: FileContent
    type: Literal["file"]


ChatCompletionContentPartParam: TypeAlias = (
    ChatCompletionContentPartTextParam
    | ChatCompletionContentPartImageParam
    | ChatCompletionContentPartVideoParam
    | ChatCompletionContentPartInputAudioParam
    | File
)


# --- calls in a message ----------------------------------------------------------------------------------------------


class CalledFunction(TypedDict):
    arguments: str
    """JSON as text, as the model wrote it."""
    name: str


class ChatCompletionMessageFunctionToolCallParam(TypedDict, total=False):
    id: Required[str]
    function: Required[CalledFunction]
    type: Required[Literal["function", "builtin_function"]]
    index: int


class CalledCustomTool(TypedDict):
    input: str
    name: str


class ChatCompletionMessageCustomToolCallParam(TypedDict):
    id: str
    custom: CalledCustomTool
    type: Literal["custom"]


ChatCompletionMessageToolCallParam: TypeAlias = ChatCompletionMessageFunctionToolCallParam
ChatCompletionMessageToolCallUnionParam: TypeAlias = (
    ChatCompletionMessageFunctionToolCallParam | ChatCompletionMessageCustomToolCallParam
)


# --- messages --------------------------------------------------------------------------------------------------------


class ChatCompletionSystemMessageParam(TypedDict, total=False):
    content: Required[str | Iterable[ChatCompletionContentPartTextParam]]
    role: Required[Literal["system"]]
    name: str


class ChatCompletionDeveloperMessageParam(TypedDict, total=False):
    content: Required[str | Iterable[ChatCompletionContentPartTextParam]]
    role: Required[Literal["developer"]]
    name: str


class ChatCompletionUserMessageParam(TypedDict, total=False):
    content: Required[str | Iterable[ChatCompletionContentPartParam]]
    role: Required[Literal["user"]]
    name: str


class ChatCompletionAssistantMessageParam(TypedDict, total=False):
    role: Required[Literal["assistant"]]
    content: str | Iterable[ChatCompletionContentPartTextParam | ChatCompletionContentPartRefusalParam] | None
    reasoning_content: str | None
    """The model's thinking, which Kimi wants back unchanged while it calls tools."""
    tool_calls: Iterable[ChatCompletionMessageToolCallUnionParam]
    refusal: str | None
    name: str
    partial: bool
    """Whether the answer is to go on from here (partial mode)."""
    audio: Mapping[str, object] | None
    function_call: CalledFunction | None


class ChatCompletionToolMessageParam(TypedDict, total=False):
    content: Required[str | Iterable[ChatCompletionContentPartTextParam]]
    role: Required[Literal["tool"]]
    tool_call_id: Required[str]
    name: str


class ChatCompletionFunctionMessageParam(TypedDict):
    content: str | None
    name: str
    role: Literal["function"]


CreateChatCompletionRequestMessageParam: TypeAlias = (
    ChatCompletionDeveloperMessageParam
    | ChatCompletionSystemMessageParam
    | ChatCompletionUserMessageParam
    | ChatCompletionAssistantMessageParam
    | ChatCompletionToolMessageParam
    | ChatCompletionFunctionMessageParam
)


# --- tools -----------------------------------------------------------------------------------------------------------


class FunctionDefinition(TypedDict, total=False):
    name: Required[str]
    description: str
    parameters: FunctionParameters
    strict: bool | None


class ChatCompletionFunctionToolParam(TypedDict):
    function: FunctionDefinition
    type: Literal["function", "builtin_function"]
    """`builtin_function` for `$web_search`."""


class CustomTool(TypedDict, total=False):
    name: Required[str]
    description: str
    format: Mapping[str, object]


class ChatCompletionCustomToolParam(TypedDict):
    custom: CustomTool
    type: Literal["custom"]


ChatCompletionToolParam: TypeAlias = ChatCompletionFunctionToolParam
ChatCompletionToolUnionParam: TypeAlias = ChatCompletionFunctionToolParam | ChatCompletionCustomToolParam


class NamedTool(TypedDict):
    name: str


class ChatCompletionNamedToolChoiceParam(TypedDict):
    function: NamedTool
    type: Literal["function"]


class ChatCompletionNamedToolChoiceCustomParam(TypedDict):
    custom: NamedTool
    type: Literal["custom"]


class ChatCompletionAllowedToolsParam(TypedDict):
    mode: Literal["auto", "required"]
    tools: Iterable[dict[str, object]]


class ChatCompletionAllowedToolChoiceParam(TypedDict):
    allowed_tools: ChatCompletionAllowedToolsParam
    type: Literal["allowed_tools"]


ChatCompletionToolChoiceOptionParam: TypeAlias = (
    Literal["none", "auto", "required"]
    | ChatCompletionAllowedToolChoiceParam
    | ChatCompletionNamedToolChoiceParam
    | ChatCompletionNamedToolChoiceCustomParam
)


class ChatCompletionFunctionCallOptionParam(TypedDict):
    name: str


# --- the rest of a request -------------------------------------------------------------------------------------------


class ChatCompletionStreamOptionsParam(TypedDict, total=False):
    include_usage: bool
    include_obfuscation: bool


class ChatCompletionPredictionContentParam(TypedDict):
    content: str | Iterable[ChatCompletionContentPartTextParam]
    type: Literal["content"]


class ChatCompletionAudioParam(TypedDict):
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]
    voice: str | Mapping[str, object]


class ResponseFormatText(TypedDict):
    type: Literal["text"]


class ResponseFormatJSONObject(TypedDict):
    type: Literal["json_object"]


class JSONSchema(TypedDict, total=False):
    name: Required[str]
    description: str
    schema: Mapping[str, object]
    strict: bool | None


class ResponseFormatJSONSchema(TypedDict):
    json_schema: JSONSchema
    type: Literal["json_schema"]


class CompletionCreateParams(ChatParams, total=False):
    """A whole request, as `create(**params)` takes it."""

    messages: Required[Iterable[Mapping[str, object]]]
    model: Required[str]
    stream: bool | None


class CompletionListParams(TypedDict, total=False):
    after: str
    limit: int
    metadata: Metadata | None
    model: str
    order: Literal["asc", "desc"]


class CompletionUpdateParams(TypedDict):
    metadata: Metadata | None
