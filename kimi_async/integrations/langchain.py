"""
Kimi for LangChain, over our engine.

    from kimi_async.integrations.langchain import ChatKimi

    model = ChatKimi(model="kimi-k3", kimi=client)
    answer = await model.ainvoke("What is the weather in Beijing?")
    answer.additional_kwargs["reasoning_content"]
"""

# Read where LangChain is not installed, its classes are unknown.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai.chat_models.base import BaseChatOpenAI
from pydantic import Field, model_validator

from ..client import AsyncKimi
from ..providers.models import model_info
from .openai import as_blocking_openai, as_openai

__all__ = ["ChatKimi"]


class ChatKimi(BaseChatOpenAI):  # type: ignore[misc,unused-ignore]
    """
    A chat model over a client: its connections, limits, retries and checks of streams, for `ainvoke`, `astream` and the blocking
    `invoke`, `stream` alike.

    Reasoning stands in `additional_kwargs["reasoning_content"]` of an answer (and among its `content_blocks`), and goes back
    with the message. `with_structured_output` goes by JSON schema where nothing else is said: the other way is a forced tool
    call, which Kimi refuses while it thinks. Usage comes with streams too. Keys, address and retries are the client's; LangChain's
    own fields for them are not used.

    :param model: `"kimi-k3"`.
    :param kimi: the client. It stays yours to close.
    """

    kimi: Any = Field(exclude=True)
    """The client, an `AsyncKimi`."""

    stream_usage: bool | None = True
    use_responses_api: bool | None = False
    stream_chunk_timeout: float | None = Field(default=None, exclude=True)
    """The client's own clocks count; LangChain's would cut the silence before a first token."""

    @model_validator(mode="after")
    def validate_environment(self) -> Self:
        if not isinstance(self.kimi, AsyncKimi):
            raise ValueError(f"kimi must be an AsyncKimi, not {type(self.kimi).__name__}")
        self.openai_api_base: str = self.kimi.base_url
        self.root_async_client = as_openai(self.kimi)
        self.async_client: Any = self.root_async_client.chat.completions
        self.root_client = as_blocking_openai(self.kimi)
        self.client: Any = self.root_client.chat.completions
        return self

    @property
    def _llm_type(self) -> str:
        return "kimi-chat"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: object) -> object:
        return {**super()._get_ls_params(stop=stop, **kwargs), "ls_provider": "moonshot"}

    def _resolve_model_profile(self) -> object:
        known = model_info(self.model_name)
        profile: dict[str, object] = {
            "tool_calling": True,
            "structured_output": True,  # or create_agent would force a tool call, which Kimi refuses while it thinks
            "reasoning_output": True,
            "text_inputs": True,
            "text_outputs": True,
            "image_inputs": True,
        }
        if known is not None:
            profile["max_input_tokens"] = known.context
        return profile

    def _get_request_payload(
        self, input_: object, *, stop: list[str] | None = None, **kwargs: object
    ) -> dict[str, object]:
        payload = cast("dict[str, Any]", super()._get_request_payload(input_, stop=stop, **kwargs))
        for message, sent in zip(self._convert_input(input_).to_messages(), payload["messages"], strict=True):
            if isinstance(message, AIMessage):
                reasoning = _reasoning_of(message)
                if reasoning is not None:
                    sent["reasoning_content"] = reasoning
        return payload

    def _create_chat_result(
        self, response: Any, generation_info: Mapping[str, object] | None = None
    ) -> object:
        result = super()._create_chat_result(response, generation_info)
        choices: Iterable[Any] = response["choices"] if isinstance(response, Mapping) else response.choices
        for generation, choice in zip(result.generations, choices, strict=False):
            said: object = choice["message"] if isinstance(choice, Mapping) else choice.message
            told = (
                said.get("reasoning_content")
                if isinstance(said, Mapping)
                else getattr(said, "reasoning_content", None)
            )
            if told is not None:
                generation.message.additional_kwargs["reasoning_content"] = told
            generation.message.response_metadata["model_provider"] = "moonshot"
        if result.llm_output:
            result.llm_output["model_provider"] = "moonshot"
        return result

    def _convert_chunk_to_generation_chunk(
        self, chunk: Any, default_chunk_class: object, base_generation_info: object
    ) -> object:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        if made is None or not isinstance(made.message, AIMessageChunk):
            return made
        # `chunk` inside: from the helper that streams structured answers.
        choices = chunk.get("choices") or chunk.get("chunk", {}).get("choices") or ()
        for choice in choices[:1]:
            told = (choice.get("delta") or {}).get("reasoning_content")
            if told is not None:
                made.message.additional_kwargs["reasoning_content"] = told
            made.message.response_metadata["model_provider"] = "moonshot"
        return made

    def with_structured_output(
        self,
        schema: object = None,
        *,
        method: Literal["function_calling", "json_mode", "json_schema"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: object,
    ) -> Any:
        """The same model with answers of a given shape; see LangChain. By JSON schema where `method` says nothing else."""
        return super().with_structured_output(
            schema, method=method, include_raw=include_raw, strict=strict, **kwargs
        )


def _reasoning_of(message: AIMessage) -> str | None:
    told = message.additional_kwargs.get("reasoning_content")
    if isinstance(told, str):
        return told
    if not isinstance(message.content, list):
        return None
    # With output_version="v1" reasoning is a block of the content.
    blocks = [
        block.get("reasoning")
        for block in message.content
        if isinstance(block, Mapping) and block.get("type") == "reasoning"
    ]
    texts = [text for text in blocks if isinstance(text, str)]
    return "".join(texts) if texts else None
