"""
Chat: what a completion, and a chunk of a streamed one, are made of, and what may be sent.

Field names are the wire's (platform.kimi.ai, API reference "Chat Completions"); class names are the OpenAI SDK's where it has
them. `finish_reason`, `role` and model ids are plain strings: gateways send values that no list foresees.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypedDict

import msgspec

from ..providers.models import cost as list_price
from ._base import BaseModel, NotGiven, Omit, Reply, absent, held, wire

__all__ = [
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "ChatCompletionMessageParam",
    "ChatCompletionMessageToolCall",
    "ChatOptions",
    "ChatParams",
    "Choice",
    "ChoiceDelta",
    "ChoiceDeltaToolCall",
    "ChoiceDeltaToolCallFunction",
    "ChunkChoice",
    "CompletionTokensDetails",
    "CompletionUsage",
    "Function",
    "PromptTokensDetails",
    "ThinkingParam",
    "UsageAttempt",
    "total_usage",
]


# --- usage -----------------------------------------------------------------------------------------------------------


@wire
class PromptTokensDetails(Reply):
    cached_tokens: int | None = absent()
    cache_write_tokens: int | None = absent()
    """Tokens written to the cache, billed since 2026-09. The name on the chat face is not certain."""
    audio_tokens: int | None = absent()
    video_tokens: int | None = absent()
    image_tokens: int | None = absent()


@wire
class CompletionTokensDetails(Reply):
    reasoning_tokens: int | None = absent()
    audio_tokens: int | None = absent()
    image_tokens: int | None = absent()
    accepted_prediction_tokens: int | None = absent()
    rejected_prediction_tokens: int | None = absent()


@wire
class UsageAttempt(BaseModel):
    """What one request of a resumed stream was charged."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    request_id: str | None = absent()
    cost: float | None = absent()
    """In money, where the host says so."""


@wire
class CompletionUsage(Reply):
    """Tokens charged. `prompt_tokens` includes cached ones, `completion_tokens` includes reasoning."""

    __children__: ClassVar[tuple[str, ...]] = ("completion_tokens_details", "prompt_tokens_details")

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int | None = absent()
    """Prompt tokens served from the cache. None without a hit: Kimi then leaves the field out."""
    completion_tokens_details: CompletionTokensDetails | None = absent()
    prompt_tokens_details: PromptTokensDetails | None = absent()
    attempts: list[UsageAttempt] | None = absent()
    """Ours, not the wire's: where a stream was resumed, what each of its requests was charged."""

    cost: float | None = absent()
    """
    What this was charged, where the host says so: OpenRouter, in US dollars (credits). A sum over several requests (a resumed
    stream, a run of tools) has it only where each of them said.
    """

    def list_price(
        self,
        model: str,
        *,
        currency: Literal["USD", "CNY"] = "USD",
        batch: bool = False,
        cache_ttl: Literal["5m", "1h"] = "5m",
    ) -> Decimal | None:
        """
        What this costs at the official list price, by the table in `kimi_async.providers`; None if that does not know the model.
        """
        return list_price(self, model, currency=currency, batch=batch, cache_ttl=cache_ttl)


_cached_tokens = CompletionUsage.__dict__["cached_tokens"]


def _read_cached_tokens(self: CompletionUsage) -> int | None:
    # Kimi sends the number twice, gateways only the nested one.
    value: int | None = _cached_tokens.fget(self)
    if value is None and (details := self.prompt_tokens_details) is not None:
        value = details.cached_tokens
    return value


CompletionUsage.cached_tokens = property(_read_cached_tokens, _cached_tokens.fset)  # type: ignore[assignment]


def total_usage(usages: Iterable[CompletionUsage | None]) -> CompletionUsage | None:
    """
    Several requests together; None if none told. Money is added up only where each told: a part of it is not the price.
    """
    told = [usage for usage in usages if usage is not None]
    if not told:
        return None
    total = CompletionUsage(
        prompt_tokens=sum(usage.prompt_tokens for usage in told),
        completion_tokens=sum(usage.completion_tokens for usage in told),
        total_tokens=sum(usage.total_tokens for usage in told),
    )
    prompts = _details(usage.prompt_tokens_details for usage in told)
    if cached := sum(usage.cached_tokens or 0 for usage in told):
        total.cached_tokens = prompts["cached_tokens"] = cached
    if prompts:
        total.prompt_tokens_details = PromptTokensDetails(**prompts)
    if completions := _details(usage.completion_tokens_details for usage in told):
        total.completion_tokens_details = CompletionTokensDetails(**completions)
    costs = [usage.cost for usage in told if usage.cost is not None]
    if len(costs) == len(told):
        total.cost = sum(costs)
    return total


def _details(several: Iterable[PromptTokensDetails | CompletionTokensDetails | None]) -> dict[str, int]:
    """Each number that is more than 0, added up."""
    sums: dict[str, int] = {}
    for each in several:
        for name in () if each is None else each.__struct_fields__:
            if number := getattr(each, name):
                sums[name] = sums.get(name, 0) + number
    return sums


# --- a completion ----------------------------------------------------------------------------------------------------


@wire
class Function(Reply):
    name: str = ""
    arguments: str = ""
    """JSON as text, exactly as the model wrote it: not necessarily valid."""


@wire
class ChatCompletionMessageToolCall(Reply):
    """A call that the model asks for. `id` looks like `get_weather:0` and starts again at 0 each turn; echo it unchanged."""

    __children__: ClassVar[tuple[str, ...]] = ("function",)

    id: str = ""
    function: Function = msgspec.field(default_factory=Function)
    type: str = "function"
    """`builtin_function` for `$web_search`."""
    index: int | None = absent()


@wire
class ChatCompletionMessage(Reply):
    """An answer. Append it to `messages` as it is: Kimi needs `reasoning_content` and `tool_calls` back unchanged."""

    __children__: ClassVar[tuple[str, ...]] = ("tool_calls",)

    role: str = "assistant"
    content: str | None = absent()
    reasoning_content: str | None = absent()
    """The model's thinking. Read from `reasoning` where a gateway names it so."""
    tool_calls: list[ChatCompletionMessageToolCall] | None = absent()
    refusal: str | None = absent()
    name: str | None = absent()
    partial: bool | None = absent()
    reasoning: str | None = absent()
    reasoning_details: list[Any] | None = absent()
    """OpenRouter's and AIMLAPI's structured form of the reasoning; goes back unchanged."""
    annotations: list[Any] | None = absent()
    audio: Any = absent()
    function_call: Any = absent()


@wire
class Choice(Reply):
    __children__: ClassVar[tuple[str, ...]] = ("message", "usage")

    index: int = 0
    message: ChatCompletionMessage = msgspec.field(default_factory=ChatCompletionMessage)
    finish_reason: str | None = None
    """`stop`, `length`, `tool_calls`, `content_filter`; foreign values pass."""
    logprobs: Any = absent()
    usage: CompletionUsage | None = absent()
    error: Any = absent()


@wire
class ChatCompletion(Reply):
    """A whole answer."""

    __children__: ClassVar[tuple[str, ...]] = ("choices", "usage")

    # In the order in which Kimi sends them: a reply without unknown fields then encodes to itself (codec.decode_reply).
    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: list[Choice] = msgspec.field(default_factory=list[Choice])
    usage: CompletionUsage | None = absent()
    system_fingerprint: str | None = absent()
    service_tier: str | None = absent()
    error: Any = absent()

    @property
    def attempts(self) -> tuple[Any, ...]:
        """What had failed before this answer, as `Attempt`s, oldest first; each says its cause, and its host where there are several."""
        return tuple(held(self).get("_history", ()))

    @property
    def host(self) -> str:
        """Which host gave it, where a call may go over several (`fallback=`); `""` otherwise."""
        return str(held(self).get("_host", ""))

    @property
    def is_empty(self) -> bool:
        """Whether no choice holds text or a tool call: typically all of `max_completion_tokens` went into reasoning."""
        return not any(c.message.content or c.message.tool_calls for c in self.choices)


# --- a chunk ---------------------------------------------------------------------------------------------------------
# Thousands of these a second. They have plain defaults, for speed: in a chunk, null and absent mean the same. They take no
# part in garbage collection (`gc=False`): nothing in them can point back.


class ChoiceDeltaToolCallFunction(BaseModel, gc=False):
    name: str | None = None
    arguments: str | None = None


class ChoiceDeltaToolCall(BaseModel, gc=False):
    """A fragment of a call: `id`, `type` and `function.name` come once per `index`, `function.arguments` in many fragments."""

    if TYPE_CHECKING:
        index: int
        """None at relays that leave it out; programs written for OpenAI's types use it as a number unasked."""
    else:
        index: int | None = None
    id: str | None = None
    function: ChoiceDeltaToolCallFunction | None = None
    type: str | None = None


class ChoiceDelta(BaseModel, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    """The model's thinking, before any content. A stream copies it from `reasoning` where a gateway names it so."""
    role: str | None = None
    tool_calls: list[ChoiceDeltaToolCall] | None = None
    reasoning: str | None = None
    refusal: str | None = None
    reasoning_details: list[Any] | None = None
    function_call: Any = None


class ChunkChoice(BaseModel, gc=False):
    delta: ChoiceDelta = msgspec.field(default_factory=ChoiceDelta)
    index: int = 0
    finish_reason: str | None = None
    """Not None in the last chunk of a choice."""
    usage: CompletionUsage | None = None
    """Kimi puts it here, in the chunk with `finish_reason`, without being asked; `chunk.usage` finds it too, unless
    `include_usage` was asked for: then a chunk of its own has it, and who adds up `chunk.usage` must not count it twice."""
    logprobs: Any = None


class ChatCompletionChunk(BaseModel, gc=False):
    """One event of a stream. `choices` may be empty: the usage chunk's are."""

    choices: list[ChunkChoice] = msgspec.field(default_factory=list[ChunkChoice])
    id: str = ""
    created: int = 0
    model: str = ""
    object: str = "chat.completion.chunk"
    usage: CompletionUsage | None = None
    """Tokens charged, from whichever of its three places the server used."""
    system_fingerprint: str | None = None
    service_tier: str | None = None
    error: Any = None

    _usage_beside: ClassVar[Any]
    """The usage that stands beside the choices, without a look into them."""


def _fall_back(cls: object, name: str, other: str) -> None:
    """Makes one field read from another where it is absent; what is encoded stays as it came."""
    first, second = cls.__dict__[name], cls.__dict__[other]
    get, get_other = (
        getattr(first, "fget", None) or first.__get__,
        getattr(second, "fget", None) or second.__get__,
    )
    put = getattr(first, "fset", None) or first.__set__

    def read(self: Any) -> Any:
        value = get(self)
        return get_other(self) if value is None else value

    setattr(cls, name, property(read, put))


_fall_back(ChatCompletionMessage, "reasoning_content", "reasoning")

_chunk_usage = ChatCompletionChunk.__dict__["usage"]


def _read_usage(self: ChatCompletionChunk) -> CompletionUsage | None:
    usage: CompletionUsage | None = _chunk_usage.__get__(self)
    if usage is None:
        for choice in self.choices:
            if choice.usage is not None:
                usage = choice.usage
    return usage or None


def withhold_usage(chunk: ChatCompletionChunk) -> None:
    """Leaves a usage that stands in a choice there alone: `chunk.usage` is then None."""
    if _chunk_usage.__get__(chunk) is None:
        _chunk_usage.__set__(chunk, msgspec.UNSET)


ChatCompletionChunk.usage = property(_read_usage, _chunk_usage.__set__)  # type: ignore[assignment]
# The slot itself, for the fold, which looks at every chunk: with `choice.usage` that costs 10 to 15 of 100 ns (CPython 3.11).
ChatCompletionChunk._usage_beside = _chunk_usage  # pyright: ignore[reportPrivateUsage]

_completion_usage = ChatCompletion.__dict__["usage"]


def _read_completion_usage(self: ChatCompletion) -> CompletionUsage | None:
    usage: CompletionUsage | None = _completion_usage.fget(self)
    if usage is None:
        for choice in self.choices:
            if choice.usage is not None:
                usage = choice.usage
    return usage


ChatCompletion.usage = property(_read_completion_usage, _completion_usage.fset)  # type: ignore[assignment]


# --- what may be sent ------------------------------------------------------------------------------------------------

ChatCompletionMessageParam: TypeAlias = Mapping[str, object] | BaseModel
"""A message: a dict of the wire's shape, or an object from a reply, which goes back as it came."""

NoneOrUnset: TypeAlias = NotGiven | Omit | None


class ThinkingParam(TypedDict, total=False):
    """
    K2.6: `type` may be "disabled"; `keep="all"` preserves earlier reasoning. K2.7: only "enabled". K3 takes `reasoning_effort`.
    """

    type: Literal["enabled", "disabled"]
    keep: Literal["all"] | None
    effort: str


class ChatOptions(TypedDict, total=False):
    """
    What every way to ask takes by name and passes on: all of `ChatParams` but `response_format` and `tools`.

    Kimi fixes `temperature`, `top_p`, `n` and the penalties per model and answers 400 to other values, so nothing is defaulted.
    Names that Kimi does not know are accepted because code written for OpenAI sends them; the server decides.
    """

    audio: Mapping[str, object] | NoneOrUnset
    frequency_penalty: float | NoneOrUnset
    function_call: Any
    functions: Any
    logit_bias: Mapping[str, int] | NoneOrUnset
    logprobs: bool | NoneOrUnset
    max_completion_tokens: int | NoneOrUnset
    """Budget for reasoning, content and tool arguments together. Charged against tokens per minute when the request arrives."""
    max_tokens: int | NoneOrUnset
    """Deprecated by Kimi in favour of `max_completion_tokens`; still accepted."""
    metadata: Mapping[str, str] | NoneOrUnset
    modalities: Sequence[str] | NoneOrUnset
    moderation: Mapping[str, object] | NoneOrUnset
    n: int | NoneOrUnset
    parallel_tool_calls: bool | NoneOrUnset
    prediction: Mapping[str, object] | NoneOrUnset
    presence_penalty: float | NoneOrUnset
    prompt_cache_key: str | NoneOrUnset
    """A stable id of the conversation or task, which raises the rate of cache hits."""
    prompt_cache_options: Mapping[str, object] | NoneOrUnset
    """`{"mode": "implicit", "ttl": "5m" | "1h"}`, since 2026-09."""
    prompt_cache_retention: str | NoneOrUnset
    reasoning_effort: str | NoneOrUnset
    """K3 family: `low`, `high` or `max`."""
    safety_identifier: str | NoneOrUnset
    """A stable, hashed id of the end user."""
    seed: int | NoneOrUnset
    service_tier: str | NoneOrUnset
    stop: str | Sequence[str] | NoneOrUnset
    """At most 5 strings of at most 32 bytes."""
    store: bool | NoneOrUnset
    stream_options: Mapping[str, object] | NoneOrUnset
    temperature: float | NoneOrUnset
    thinking: ThinkingParam | Mapping[str, object] | NoneOrUnset
    tool_choice: str | Mapping[str, object] | NoneOrUnset
    top_logprobs: int | NoneOrUnset
    top_p: float | NoneOrUnset
    user: str | NoneOrUnset
    verbosity: str | NoneOrUnset
    web_search_options: Mapping[str, object] | NoneOrUnset


class ChatParams(ChatOptions, total=False):
    """Everything optional that `chat.completions.create` takes by name. What is not given is not sent."""

    response_format: Any
    """`{"type": "json_object"}` and so on; or a type, whose schema is then sent (`parse` reads the answer too)."""
    tools: Iterable[Any] | NoneOrUnset
    """Definitions, or tools made by `@tool`."""
