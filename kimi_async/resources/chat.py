"""
`client.chat.completions`: questions and answers.
"""

import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Literal, Unpack, cast, overload

import msgspec

from .. import codec
from ..advice import WATCHED, KimiWarning, certain_refusals
from ..chat_stream import AsyncChatCompletionStreamManager
from ..client import AsyncKimi, TimeoutLike, read_whole, unknown_argument
from ..errors import APIResponseValidationError, ConfigurationError, KimiError, NotFoundError
from ..providers import Provider, foreign_model_message, gateway_of_model_id
from ..resume import ResumePolicy, ResumingStream
from ..streaming import AsyncStream
from ..transport import Response
from ..types._base import NOT_GIVEN, BaseModel, NotGiven, Omit, held, is_given
from ..types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam, ChatParams
from ._base import Resource

__all__ = ["AsyncBeta", "AsyncChat", "AsyncCompletions"]

_KNOWN = frozenset(ChatParams.__annotations__)

_INT = (int, "an int")
_NUMBER = ((int, float), "a number")
_TEXT = (str, "a string")
_OBJECT = (Mapping, "a mapping")
_BOOL = (bool, "True or False")

_TYPES: dict[str, tuple[Any, str]] = {
    "frequency_penalty": _NUMBER,
    "logprobs": _BOOL,
    "max_completion_tokens": _INT,
    "max_tokens": _INT,
    "n": _INT,
    "parallel_tool_calls": _BOOL,
    "prediction": _OBJECT,
    "presence_penalty": _NUMBER,
    "prompt_cache_key": _TEXT,
    "prompt_cache_options": _OBJECT,
    "reasoning_effort": _TEXT,
    "safety_identifier": _TEXT,
    "seed": _INT,
    "stop": ((str, list, tuple), "a string or a list of strings"),
    "stream_options": _OBJECT,
    "temperature": _NUMBER,
    "thinking": _OBJECT,
    "tool_choice": ((str, Mapping), "a string or a mapping"),
    "top_logprobs": _INT,
    "top_p": _NUMBER,
    "user": _TEXT,
}


def outgoing_messages(
    messages: Iterable[ChatCompletionMessageParam], reasoning: tuple[str, ...] = codec.REASONING
) -> list[Any]:
    """
    Messages ready to be encoded; objects from replies go back as they came. For `reasoning` see `codec.outgoing`.

    :raises ConfigurationError: if there are none.
    :raises TypeError: naming the message that is not one.
    """
    if isinstance(messages, (str, bytes, Mapping, BaseModel)):
        kind = type(cast("object", messages)).__name__
        raise TypeError(
            f"messages must be a list of messages, not one {kind}; "
            'for a single question: [{"role": "user", "content": "…"}]'
        )
    out: list[Any] = []
    try:
        for message in messages:
            if isinstance(message, (dict, BaseModel)):
                out.append(codec.outgoing(message, reasoning))
            elif isinstance(message, Mapping) or hasattr(message, "model_dump"):  # pyright: ignore[reportUnnecessaryIsInstance]
                out.append(message)
            else:
                raise TypeError(
                    f"messages[{len(out)}] must be a mapping with a role, or a message from a reply; "
                    f"got {type(message).__name__}"
                )
    except TypeError as exc:
        if "messages[" in str(exc):
            raise
        raise TypeError(f"messages must be a list of messages, not {type(messages).__name__}") from None
    if not out:
        raise ConfigurationError("messages is empty: a chat needs at least one message")
    return out


def chat_body(
    method: str,
    messages: Iterable[ChatCompletionMessageParam],
    model: str,
    params: Mapping[str, Any],
    stream: bool,
    extra_body: Any,
    provider: Provider | None = None,
    *,
    prefix: str | Mapping[str, Any] | None = None,
    advise: bool = False,
) -> bytes:
    """
    The encoded request, its arguments checked as far as a wrong one can be known here.
    """
    if not isinstance(model, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"model must be a string such as 'kimi-k3', not {type(model).__name__}")
    if not model.strip():
        raise ConfigurationError("model is empty; client.models.list() says which there are")
    reasoning = codec.REASONING if provider is None else provider.request_reasoning
    body: dict[str, Any] = {"model": model, "messages": outgoing_messages(messages, reasoning)}
    if prefix is not None:
        body["messages"].append(prefix_message(prefix))
    for name, value in params.items():
        if name not in _KNOWN:
            raise unknown_argument(
                method, name, [*_KNOWN, "messages", "model", "stream", "timeout", "extra_body"]
            )
        if not is_given(value):
            continue
        expected = _TYPES.get(name)
        if (
            expected is not None
            and value is not None
            and (not isinstance(value, expected[0]) or (isinstance(value, bool) and expected is not _BOOL))
        ):
            raise TypeError(f"{name} must be {expected[1]}, not {type(value).__name__} ({value!r:.80})")
        if name == "tools" and value is not None and not isinstance(value, (list, tuple)):
            if isinstance(value, (str, bytes, Mapping)):
                kind = type(cast("object", value)).__name__
                raise TypeError(f"tools must be a list of tool definitions, not one {kind}")
            value = list(cast("Iterable[Any]", value))
        body[name] = value
    if stream:
        body["stream"] = True
    if extra_body is not None and is_given(extra_body):
        if not isinstance(extra_body, Mapping):
            raise TypeError(f"extra_body must be a mapping, not {type(extra_body).__name__}")
        body.update(cast("Mapping[str, Any]", extra_body))
    if advise and not WATCHED.isdisjoint(body):
        for told in certain_refusals(body):
            warnings.warn(told, KimiWarning, stacklevel=4)
    return codec.encode(body)


def prefix_message(prefix: str | Mapping[str, Any]) -> dict[str, Any]:
    """
    The beginning of an answer, as the message that makes Kimi go on with it (partial mode).

    :param prefix: its text; or a mapping with `content`, and if wanted `reasoning_content` and `name`.
    """
    fields = {"content": prefix} if isinstance(prefix, str) else dict(prefix)
    if not fields.get("content") and not fields.get("reasoning_content") and not fields.get("name"):
        raise ConfigurationError("prefix is empty: an answer that begins with nothing needs none")
    return {"role": "assistant", "content": "", **fields, "partial": True}


def check_completion(completion: ChatCompletion, body: bytes, response: Response) -> None:
    """
    Some gateways put an error into a reply of status 200.

    :raises APIStatusError: of the class that the error's own words mean.
    :raises APIResponseValidationError: for a reply without choices.
    """
    choices = completion.choices
    if (
        choices
        and completion.error is None
        and choices[0].error is None
        and choices[0].finish_reason != "error"
    ):
        return
    error: Any = completion.error
    if error is None and choices:
        error = choices[0].error or {
            "message": "the answer ended with finish_reason 'error'",
            "type": "server_error",
        }
    if error is None:
        try:
            fields = codec.error_object(msgspec.json.decode(body))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            fields = None
        if fields is None:
            raise APIResponseValidationError(
                response,
                body[:4096].decode("utf-8", "replace"),
                message="the reply holds no choices; .body holds its first 4,096 bytes",
            )
        raise codec.error_in_stream(fields, response.headers, response.request, status=response.status)
    raise codec.error_in_stream({"error": error}, response.headers, response.request, status=response.status)


class AsyncCompletions(Resource):
    """
    Chat completions.
    """

    @overload
    async def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        stream: Literal[False] | NotGiven | Omit | None = ...,
        prefix: str | Mapping[str, Any] | None = ...,
        extra_headers: Mapping[str, Any] | None = ...,
        extra_query: Mapping[str, Any] | None = ...,
        extra_body: Any = ...,
        timeout: TimeoutLike = ...,
        **params: Unpack[ChatParams],
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        stream: Literal[True],
        resume: ResumePolicy | None = ...,
        prefix: str | Mapping[str, Any] | None = ...,
        extra_headers: Mapping[str, Any] | None = ...,
        extra_query: Mapping[str, Any] | None = ...,
        extra_body: Any = ...,
        timeout: TimeoutLike = ...,
        **params: Unpack[ChatParams],
    ) -> AsyncStream[ChatCompletionChunk]: ...

    @overload
    async def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        stream: bool,
        resume: ResumePolicy | None = ...,
        prefix: str | Mapping[str, Any] | None = ...,
        extra_headers: Mapping[str, Any] | None = ...,
        extra_query: Mapping[str, Any] | None = ...,
        extra_body: Any = ...,
        timeout: TimeoutLike = ...,
        **params: Unpack[ChatParams],
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]: ...

    async def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        stream: bool | NotGiven | Omit | None = None,
        resume: ResumePolicy | None = None,
        prefix: str | Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        extra_body: Any = None,
        timeout: TimeoutLike = NOT_GIVEN,
        **params: Unpack[ChatParams],
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]:
        """
        Asks for an answer: whole, or with `stream=True` as an `AsyncStream` of chunks whose first has already arrived.

        `params` are those of `ChatParams`; nothing is sent that is not given. Fields that this client does not know go through
        `extra_body`, which is merged over the named ones.

        :param resume: with `stream=True`, go on where the stream breaks off, by partial mode; see `ResumePolicy` and its price.
            Off by default.
        :param prefix: how the answer begins; Kimi goes on from there, and the reply holds only the rest (partial mode). Not
            together with a `response_format` of `json_object`.

        :raises APIStatusError: the server refused; the class tells the cause.
        :raises APIConnectionError: no reply came, or it broke off.
        :raises TypeError, ConfigurationError: a wrong argument, before anything is sent.
        """
        if stream is not None and not isinstance(stream, (bool, NotGiven, Omit)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"stream must be True or False, not {type(stream).__name__}")
        streamed = bool(stream)
        client = self._client
        body = chat_body(
            "create",
            messages,
            model,
            params,
            streamed,
            extra_body,
            client.provider,
            prefix=prefix,
            advise=client.gives_advice,
        )
        if streamed:

            async def open_stream(body: bytes) -> AsyncStream[ChatCompletionChunk]:
                stream: AsyncStream[ChatCompletionChunk] = await client.open_stream(
                    "POST",
                    "chat/completions",
                    body,
                    extra_headers=extra_headers,
                    extra_query=extra_query,
                    timeout=timeout,
                )
                return stream

            try:
                opened = await open_stream(body)
            except NotFoundError as exc:
                await explain_missing_model(client, model, exc)
                raise
            return (
                opened
                if resume is None
                else ResumingStream(opened, body=body, policy=resume, reopen=open_stream)
            )
        if resume is not None:
            raise ConfigurationError(
                "resume= needs stream=True: a whole reply is simply asked for again (max_retries)"
            )
        accept, answers = _acceptor()
        try:
            await client.send(
                "POST",
                "chat/completions",
                body,
                extra_headers=extra_headers,
                extra_query=extra_query,
                timeout=timeout,
                accept=accept,
            )
        except NotFoundError as exc:
            await explain_missing_model(client, model, exc)
            raise
        return answers[0]

    def stream(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        resume: ResumePolicy | None = None,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        extra_body: Any = None,
        timeout: TimeoutLike = NOT_GIVEN,
        **params: Unpack[ChatParams],
    ) -> AsyncChatCompletionStreamManager:
        """
        A streamed answer as events, with the whole answer at the end. Not a coroutine:

            async with client.chat.completions.stream(model=..., messages=...) as stream:
                async for text in stream.text_stream():
                    print(text, end="")
                completion = await stream.get_final_completion()
        """

        async def open_stream() -> AsyncStream[ChatCompletionChunk]:
            opened: AsyncStream[ChatCompletionChunk] = await self.create(
                messages=messages,
                model=model,
                stream=True,
                resume=resume,
                extra_headers=extra_headers,
                extra_query=extra_query,
                extra_body=extra_body,
                timeout=timeout,
                **params,
            )
            return opened

        return AsyncChatCompletionStreamManager(open_stream)


async def explain_missing_model(client: AsyncKimi, model: str, error: NotFoundError) -> None:
    """
    Adds to the error, where the id has another gateway's form, whose form it is and which ids exist here.

    Asks for the list of models once, for five seconds at most; without an answer the error is only shorter.
    """
    if gateway_of_model_id(model) is None:
        return
    known: tuple[str, ...] = ()
    try:
        known = tuple([each.id async for each in client.with_options(max_retries=0).models.list(timeout=5.0)])
    except KimiError:
        pass
    told = foreign_model_message(model, client.provider, known[:50])
    if told:
        error.message = f"{error.message}. {told}"
        error.args = (error.message,)


def _acceptor() -> tuple[Callable[[Response], Awaitable[None]], list[ChatCompletion]]:
    answers: list[ChatCompletion] = []

    async def accept(response: Response) -> None:
        await read_whole(response)
        body = response.content
        completion = codec.decode_reply(body, ChatCompletion, response)
        check_completion(completion, body, response)
        held(completion)["_rid"] = response.request_id
        response.extensions["usage"] = completion.usage
        answers[:] = [completion]

    return accept, answers


class AsyncChat(Resource):
    @cached_property
    def completions(self) -> AsyncCompletions:
        return AsyncCompletions(self._client)


class AsyncBeta(Resource):
    """
    Where the OpenAI SDK once kept `parse` and `stream`; the same objects.
    """

    @property
    def chat(self) -> AsyncChat:
        return self._client.chat
