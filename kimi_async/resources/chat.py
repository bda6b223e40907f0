"""
`client.chat.completions`: questions and answers.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, Unpack, cast, overload

from ..config import hide
from ..errors import ConfigurationError, EmptyResponseError, NotFoundError
from ..streaming.events import AsyncChatCompletionStreamManager
from ..streaming.resume import ResumePolicy, Resumer, check_resume
from ..streaming.stream import AsyncStream, checked_gather
from ..types._base import NOT_GIVEN, NotGiven, Omit, is_given
from ..types.completions import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessageParam,
    ChatOptions,
    ChatParams,
    NoneOrUnset,
)
from ..types.parsed import ParsedChatCompletion
from ._base import Resource
from .arguments import LeakedTools, call_options, check_leaked_tools
from .caller import CallOptions
from .chat_body import accept_completion, chat_body
from .described import CHAT, describes
from .models import explain_missing_model
from .tokenizers import AsyncTokenizers

if TYPE_CHECKING:
    from ..schema import ResponseFormat
    from ..tools.run import OnError, ToolRun

__all__ = ["AsyncBeta", "AsyncChat", "AsyncCompletions"]

T = TypeVar("T")


Fit: TypeAlias = "Callable[[list[Any]], list[Any] | Awaitable[list[Any]]]"
"""Given a conversation: what of it is sent."""


class CreateOptions(ChatParams, CallOptions, total=False):
    """What `create` takes by name, the options of every call among it."""

    leaked_tools: LeakedTools | None
    gather: float | None


class AskOptions(ChatOptions, CallOptions, total=False):
    """What `parse`, `stream` and `run_tools` take by name, the options of every call among it."""

    leaked_tools: LeakedTools | None
    gather: float | None


class AsyncCompletions(Resource["RawCompletions", "StreamingCompletions"]):
    """Chat completions."""

    # All three take `resume`, though the first refuses it: with `stream=False, **options` pyright can tell them apart only where
    # what the options may hold is the same.
    @overload
    async def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        stream: Literal[False] | NotGiven | Omit | None = ...,
        resume: ResumePolicy | bool | None = ...,
        prefix: str | Mapping[str, object] | None = ...,
        empty: Literal["return", "raise"] = ...,
        **params: Unpack[CreateOptions],
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        stream: Literal[True],
        resume: ResumePolicy | bool | None = ...,
        prefix: str | Mapping[str, object] | None = ...,
        empty: Literal["return", "raise"] = ...,
        **params: Unpack[CreateOptions],
    ) -> AsyncStream[ChatCompletionChunk]: ...

    @overload
    async def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        stream: bool,
        resume: ResumePolicy | bool | None = ...,
        prefix: str | Mapping[str, object] | None = ...,
        empty: Literal["return", "raise"] = ...,
        **params: Unpack[CreateOptions],
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]: ...

    @describes(CHAT)
    async def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        stream: bool | NotGiven | Omit | None = None,
        resume: ResumePolicy | bool | None = None,
        prefix: str | Mapping[str, object] | None = None,
        empty: Literal["return", "raise"] = "return",
        **params: Unpack[CreateOptions],
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]:
        """
        Asks for an answer: whole, or with `stream=True` as an `AsyncStream` of chunks whose first has already arrived.

        The options beside those named here are those of `ChatParams` and, as for every call, of `CallOptions`.

        :param tools: definitions, or tools made by `@tool`.
        :param response_format: `{"type": "json_object"}` and so on; or a type, whose schema is sent (`parse` reads the answer too).
        :param resume: with `stream=True`, go on where the stream breaks off, by partial mode; see `ResumePolicy` and its price.
            True is the usual policy. Off by default.
        :param prefix: how the answer begins; Kimi goes on from there, and the reply holds only the rest (partial mode). Not
            together with a `response_format` of `json_object`.
        :param empty: `"raise"` makes an answer with neither text nor tool call an `EmptyResponseError`; otherwise
            `completion.is_empty` tells. It is what a budget that went into reasoning gives.

        :raises APIStatusError: the server refused; the class tells the cause.
        :raises APIConnectionError: no reply came, or it broke off.
        :raises TypeError, ConfigurationError: a wrong argument, before anything is sent.
        """
        if stream is not None and not isinstance(stream, (bool, NotGiven, Omit)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"stream must be True or False, not {type(stream).__name__}")
        if empty not in ("return", "raise"):
            raise ConfigurationError(f"empty must be 'return' or 'raise'; got {empty!r}")
        streamed = bool(stream)
        policy = ResumePolicy.of(resume)
        client = self._client
        leaked = params.pop("leaked_tools", None)
        check_leaked_tools(leaked)
        if leaked == "mend":  # both are read twice: the names of the tools are in them
            messages = cast("Iterable[ChatCompletionMessageParam]", _lasting(messages))
            params["tools"] = _lasting(params.get("tools", NOT_GIVEN))
        gather = params.pop("gather", None)
        if gather is not None:
            gather = checked_gather(gather)
            if not streamed:
                raise ConfigurationError("gather= needs stream=True: a whole reply comes at once")
        call = call_options(params)
        body = chat_body(
            "create",
            messages,
            model,
            params,
            streamed,
            call.pop("extra_body", None),
            client.provider,
            prefix=prefix,
            advise=client.gives_advice,
        )
        if policy is not None:
            check_resume(client.provider)
        if streamed:

            def open_stream(body: bytes) -> "Awaitable[AsyncStream[ChatCompletionChunk]]":
                return client.open_stream(
                    "POST",
                    "chat/completions",
                    body,
                    refuse_empty=empty == "raise",
                    usage_follows=b'"include_usage":true' in body,
                    **call,
                )

            try:
                opened = await open_stream(body)
            except NotFoundError as exc:
                await explain_missing_model(client, model, exc)
                raise
            if gather is not None:
                opened.gather(gather)
            if policy is not None:
                opened.mend_with(
                    Resumer(body=body, policy=policy, reopen=open_stream, known=client.provider is not None)
                )
            if leaked == "mend":
                from ..tools.leaks import offered_names
                from ..tools.mended_stream import MendedStream

                return cast(
                    "AsyncStream[ChatCompletionChunk]",
                    MendedStream(opened, offered_names(params.get("tools"), messages)),
                )
            return opened
        if policy is not None:
            raise ConfigurationError(
                "resume= needs stream=True: a whole reply is simply asked for again (max_retries)"
            )
        try:
            completion = await client.call("POST", "chat/completions", body, accept=accept_completion, **call)
        except NotFoundError as exc:
            await explain_missing_model(client, model, exc)
            raise
        if leaked != "off" and (leaked is not None or params.get("tools")):
            from ..tools.leaks import settled

            completion = settled(completion, leaked, params.get("tools"), messages)
        if empty == "raise" and completion.is_empty:
            raise EmptyResponseError(completion=completion)
        return completion

    @overload
    async def parse(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        response_format: "type[T] | ResponseFormat[T]",
        tools: Iterable[object] | NoneOrUnset = ...,
        reask: int = ...,
        **params: Unpack[AskOptions],
    ) -> ParsedChatCompletion[T]: ...

    @overload
    async def parse(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        response_format: object = ...,
        tools: Iterable[object] | NoneOrUnset = ...,
        reask: int = ...,
        **params: Unpack[AskOptions],
    ) -> ParsedChatCompletion[Any]: ...

    @describes(CHAT)
    async def parse(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        response_format: object = NOT_GIVEN,
        tools: Iterable[object] | NoneOrUnset = NOT_GIVEN,
        reask: int = 0,
        **params: Unpack[AskOptions],
    ) -> ParsedChatCompletion[Any]:
        """
        An answer as a value: `completion.choices[0].message.parsed`, or `completion.parsed`.

        :param response_format: the type: a msgspec Struct, dataclass, TypedDict, attrs class, pydantic model, union, list, scalar
            (see `kimi_async.schema.json_schema`). Its schema is sent in Moonshot's flavour; what that cannot say, a pattern
            for instance, is still checked here.
        :param tools: as for `create`; of those made by `pydantic_function_tool` the arguments are read too.
        :param reask: how often to ask again, with the validator's words, when an answer is whole and not of the type. Each
            time costs a request. An answer that was cut is not asked for again.

        :raises LengthFinishReasonError: the answer was cut by `max_completion_tokens`, which counts reasoning as well.
        :raises ContentFilterFinishReasonError: the answer was stopped by moderation.
        :raises OutputError: it is whole, and not of the type; `.reason` says where, `.completion` is the answer.
        :raises SchemaError: the type cannot be expressed as a schema that Kimi takes; nothing is sent.
        """
        hide(params)
        if isinstance(reask, bool) or not isinstance(reask, int) or reask < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"reask must be an int of 0 or more; got {reask!r}")
        from ..schema import OutputError
        from ..schema.answers import parse_completion, response_format_of
        from ..schema.answers import reask as reask_messages

        wanted = response_format_of(response_format)
        asked: list[Any] = (
            list(messages) if not isinstance(messages, (str, Mapping)) else cast("Any", messages)
        )
        given = tools if tools is None or isinstance(tools, (NotGiven, Omit)) else list(tools)
        while True:
            completion = await self.create(
                messages=asked,
                model=model,
                response_format=response_format if wanted is None else wanted.wire,
                tools=cast("Any", given),
                **params,
            )
            try:
                return parse_completion(completion, wanted, given)
            except OutputError as error:
                if reask <= 0:
                    raise
                reask -= 1
                asked = [*asked, *reask_messages(error)]

    @overload
    def run_tools(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        tools: Iterable[object],
        response_format: "type[T] | ResponseFormat[T]",
        max_turns: int = ...,
        stream: bool = ...,
        concurrent: bool = ...,
        max_concurrency: int = ...,
        tool_timeout: float | None = ...,
        stop_when: "Callable[[ToolRun[Any]], bool | Awaitable[bool]] | None" = ...,
        on_error: "OnError" = ...,
        fit: "bool | Fit" = ...,
        repair_arguments: bool = ...,
        **params: Unpack[AskOptions],
    ) -> "ToolRun[T]": ...

    @overload
    def run_tools(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        tools: Iterable[object],
        response_format: object = ...,
        max_turns: int = ...,
        stream: bool = ...,
        concurrent: bool = ...,
        max_concurrency: int = ...,
        tool_timeout: float | None = ...,
        stop_when: "Callable[[ToolRun[Any]], bool | Awaitable[bool]] | None" = ...,
        on_error: "OnError" = ...,
        fit: "bool | Fit" = ...,
        repair_arguments: bool = ...,
        **params: Unpack[AskOptions],
    ) -> "ToolRun[Any]": ...

    @describes(CHAT)
    def run_tools(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        tools: Iterable[object],
        response_format: object = NOT_GIVEN,
        max_turns: int = 10,
        stream: bool = False,
        concurrent: bool = True,
        max_concurrency: int = 8,
        tool_timeout: float | None = None,
        stop_when: "Callable[[ToolRun[Any]], bool | Awaitable[bool]] | None" = None,
        on_error: "OnError" = "reply",
        fit: "bool | Fit" = False,
        repair_arguments: bool = False,
        **params: Unpack[AskOptions],
    ) -> "ToolRun[Any]":
        """
        Asks, runs the tools that the model calls, tells it the results, and so on until it answers. Not a coroutine: await it
        for the `ToolRunResult`, or iterate over it for every step (see `ToolRun`).

            result = await client.chat.completions.run_tools(model="kimi-k3", messages=messages, tools=[weather, search])
            print(result.text, result.usage, len(result.turns))

        :param tools: functions, those made by `@tool`, `tool_from`, `client.formulas.tools(...)`, `web_search()`.
        :param response_format: as for `parse`: the last answer as a value, in `result.parsed`.
        :param max_turns: answers the model may give; `MaxTurnsError` if it still calls tools in the last.
        :param stream: whether answers are streamed; the events of `stream()` are then among those of the run.
        :param concurrent: whether the calls of one turn run side by side. With False, and in turns that call a tool which was
            made with `concurrent=False`, they run one after another in the model's order.
        :param max_concurrency: how many calls run at once.
        :param tool_timeout: seconds one call may take, for tools that do not say; the model is told when one is stopped.
        :param stop_when: called with the run after every turn whose calls are answered; True ends it.
        :param on_error: `"reply"` tells the model what a tool raised and goes on; `"raise"` raises it here; a function makes
            the text the model is told.
        :param tool_choice: if it forces a call, it does so in the first turn only.
        :param fit: True sends of a conversation that has grown too long what `conversation.fit` leaves of it; a function of the
            messages makes its own choice. `run.messages` keeps everything.
        :param repair_arguments: whether arguments that are almost JSON are repaired before they are validated (extra `[repair]`);
            the events tell what was changed.
        Markup of calls that a host left in the text is never taken for the answer: `LeakedToolsError`.
        """
        hide(params)
        from ..schema.answers import parse_completion, response_format_of
        from ..tools.run import ToolRun

        wanted = response_format_of(response_format)
        if wanted is not None:
            response_format = wanted.wire

        async def ask(messages: Sequence[object], options: Mapping[str, object]) -> ChatCompletion:
            create = cast("Callable[..., Awaitable[ChatCompletion]]", self.create)
            return await create(
                messages=messages,
                model=model,
                response_format=response_format,
                **options,
            )

        def ask_stream(
            messages: Sequence[object], options: Mapping[str, object]
        ) -> AsyncChatCompletionStreamManager[ChatCompletion]:
            open_stream = cast("Callable[..., AsyncChatCompletionStreamManager[ChatCompletion]]", self.stream)
            return open_stream(
                messages=messages,
                model=model,
                response_format=response_format,
                **options,
            )

        def parse(completion: ChatCompletion) -> object:
            return parse_completion(completion, wanted).parsed

        if not params.get("leaked_tools"):
            params["leaked_tools"] = "off"  # the run looks itself
        repair: Callable[[str], str] | None = None
        if repair_arguments:
            from ..tools.repair import load_repairer, repaired_arguments

            repair = partial(repaired_arguments, repair=load_repairer())

        return ToolRun(
            ask=ask,
            ask_stream=ask_stream if stream else None,
            messages=messages,
            tools=tools,
            options=params,
            parse=None if wanted is None else parse,
            max_turns=max_turns,
            concurrent=concurrent,
            max_concurrency=max_concurrency,
            tool_timeout=tool_timeout,
            stop_when=stop_when,
            on_error=on_error,
            around_tool=self._client.around_tool,
            fit=self._fitting(fit, model, params) if fit else None,
            repair=repair,
        )

    def _fitting(
        self, fit: "Literal[True] | Fit", model: str, params: Mapping[str, Any]
    ) -> Callable[[list[object], list[object]], Awaitable[list[object]]]:
        """What of a conversation is sent, chosen anew before each turn."""

        async def chosen(messages: list[object], tools: list[object]) -> list[object]:
            if callable(fit):
                made = fit(messages)
                return list(await made if inspect.isawaitable(made) else made)
            from ..conversation.fit import fit as fitted

            budget = params.get("max_completion_tokens") or params.get("max_tokens")
            result = await fitted(
                messages,
                model=model,
                max_completion_tokens=budget if isinstance(budget, int) else None,
                tools=tools,
                thinking=params.get("thinking"),
                client=_Tokens(AsyncTokenizers(self._client)) if self._counts_tokens() else None,
            )
            return result.messages

        return chosen

    def _counts_tokens(self) -> bool:
        provider = self._client.provider
        return provider is not None and provider.supports("tokenizers")

    @overload
    def stream(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        response_format: "type[T] | ResponseFormat[T]",
        tools: Iterable[object] | NoneOrUnset = ...,
        resume: ResumePolicy | bool | None = ...,
        **params: Unpack[AskOptions],
    ) -> AsyncChatCompletionStreamManager[ParsedChatCompletion[T]]: ...

    @overload
    def stream(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        response_format: Mapping[str, object] | NoneOrUnset = ...,
        tools: Iterable[object] | NoneOrUnset = ...,
        resume: ResumePolicy | bool | None = ...,
        **params: Unpack[AskOptions],
    ) -> AsyncChatCompletionStreamManager[ChatCompletion]: ...

    @overload
    def stream(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        response_format: object,
        tools: Iterable[object] | NoneOrUnset = ...,
        resume: ResumePolicy | bool | None = ...,
        **params: Unpack[AskOptions],
    ) -> AsyncChatCompletionStreamManager[Any]: ...

    @describes(CHAT)
    def stream(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str,
        response_format: object = NOT_GIVEN,
        tools: Iterable[object] | NoneOrUnset = NOT_GIVEN,
        resume: ResumePolicy | bool | None = None,
        **params: Unpack[AskOptions],
    ) -> AsyncChatCompletionStreamManager[Any]:
        """
        A streamed answer as events, with the whole answer at the end. Not a coroutine:

            async with client.chat.completions.stream(model=..., messages=...) as stream:
                async for text in stream.text_stream():
                    print(text, end="")
                completion = await stream.get_final_completion()

        :param tools: as for `parse`.
        :param resume: as for `create`.

        With a type as `response_format`, `content.done` has the value in `parsed` (None if the text is not one), and so has the
        final completion, which raises what `parse` raises.
        """
        hide(params)
        resume = ResumePolicy.of(resume)
        if (gather := params.get("gather")) is not None:
            checked_gather(gather)  # now, and not when it is entered
        wanted: ResponseFormat[object] | None = None
        if (
            is_given(response_format)
            and response_format is not None
            and not isinstance(response_format, Mapping)
        ):
            from ..schema.answers import response_format_of

            wanted = response_format_of(response_format)
        given = tools if tools is None or isinstance(tools, (NotGiven, Omit)) else list(tools)

        repeats = self._client.max_retries
        row = self._client.provider
        if row is not None and row.asks_for_usage and not is_given(params.get("stream_options", NOT_GIVEN)):
            params["stream_options"] = {"include_usage": True}

        async def open_stream() -> AsyncStream[ChatCompletionChunk]:
            opened: AsyncStream[ChatCompletionChunk] = await self.create(
                messages=messages,
                model=model,
                stream=True,
                response_format=response_format if wanted is None else wanted.wire,
                tools=cast("Any", given),
                resume=resume,
                **params,
            )
            return opened

        from ..schema.answers import arguments_reader, parse_completion, value_or_none, value_so_far

        if wanted is None:
            reader = arguments_reader(given)
            return AsyncChatCompletionStreamManager(
                open_stream,
                repeats=repeats,
                parse_arguments=reader,
                finish=lambda completion: parse_completion(completion, None, given, cut=reader is None),
            )
        read = wanted
        return AsyncChatCompletionStreamManager(
            open_stream,
            repeats=repeats,
            parse=lambda text: value_or_none(read, text),
            parse_arguments=arguments_reader(given),
            finish=lambda completion: parse_completion(completion, read, given),
            so_far=lambda text: value_so_far(read, text),
        )


def _lasting(value: object) -> Any:
    """What can be read once alone, as a list; anything else as it is."""
    return list(cast("Iterable[object]", value)) if isinstance(value, Iterator) else value


class _Tokens:
    """What `fit` asks of a client."""

    def __init__(self, tokenizers: AsyncTokenizers) -> None:
        self.tokenizers = tokenizers


class AsyncChat(Resource["RawChat", "StreamingChat"]):
    @cached_property
    def completions(self) -> AsyncCompletions:
        return AsyncCompletions(self._client)


class AsyncBeta(Resource["RawBeta", "StreamingBeta"]):
    """Where the OpenAI SDK once kept `parse` and `stream`; the same objects."""

    def __init__(self, chat: AsyncChat) -> None:
        super().__init__(chat._client)
        self.chat = chat


if TYPE_CHECKING:
    from .raw_replies import (
        APIResponse,
        AsyncStreamedResponseManager,
        WithRawResponse,
        WithStreamingResponse,
        raw,
        streaming,
    )

    class RawCompletions(WithRawResponse):
        @overload
        async def create(
            self,
            *,
            messages: Iterable[ChatCompletionMessageParam],
            model: str,
            stream: Literal[False] | NotGiven | Omit | None = ...,
            prefix: str | Mapping[str, object] | None = ...,
            empty: Literal["return", "raise"] = ...,
            **params: Unpack[CreateOptions],
        ) -> APIResponse[ChatCompletion]: ...

        @overload
        async def create(
            self,
            *,
            messages: Iterable[ChatCompletionMessageParam],
            model: str,
            stream: Literal[True],
            resume: ResumePolicy | bool | None = ...,
            prefix: str | Mapping[str, object] | None = ...,
            empty: Literal["return", "raise"] = ...,
            **params: Unpack[CreateOptions],
        ) -> APIResponse[AsyncStream[ChatCompletionChunk]]: ...

        @overload
        async def create(
            self,
            *,
            messages: Iterable[ChatCompletionMessageParam],
            model: str,
            stream: bool,
            resume: ResumePolicy | bool | None = ...,
            prefix: str | Mapping[str, object] | None = ...,
            empty: Literal["return", "raise"] = ...,
            **params: Unpack[CreateOptions],
        ) -> APIResponse[ChatCompletion | AsyncStream[ChatCompletionChunk]]: ...

        def create(self, **params: object) -> Any: ...

        parse: Final = raw(AsyncCompletions.parse)

    class StreamingCompletions(WithStreamingResponse):
        @overload
        def create(
            self,
            *,
            messages: Iterable[ChatCompletionMessageParam],
            model: str,
            stream: Literal[False] | NotGiven | Omit | None = ...,
            prefix: str | Mapping[str, object] | None = ...,
            empty: Literal["return", "raise"] = ...,
            **params: Unpack[CreateOptions],
        ) -> AsyncStreamedResponseManager[ChatCompletion]: ...

        @overload
        def create(
            self,
            *,
            messages: Iterable[ChatCompletionMessageParam],
            model: str,
            stream: Literal[True],
            resume: ResumePolicy | bool | None = ...,
            prefix: str | Mapping[str, object] | None = ...,
            empty: Literal["return", "raise"] = ...,
            **params: Unpack[CreateOptions],
        ) -> AsyncStreamedResponseManager[AsyncStream[ChatCompletionChunk]]: ...

        @overload
        def create(
            self,
            *,
            messages: Iterable[ChatCompletionMessageParam],
            model: str,
            stream: bool,
            resume: ResumePolicy | bool | None = ...,
            prefix: str | Mapping[str, object] | None = ...,
            empty: Literal["return", "raise"] = ...,
            **params: Unpack[CreateOptions],
        ) -> AsyncStreamedResponseManager[ChatCompletion | AsyncStream[ChatCompletionChunk]]: ...

        def create(self, **params: object) -> Any: ...

        parse: Final = streaming(AsyncCompletions.parse)

    class RawChat(WithRawResponse):
        completions: RawCompletions

    class StreamingChat(WithStreamingResponse):
        completions: StreamingCompletions

    class RawBeta(WithRawResponse):
        chat: RawChat

    class StreamingBeta(WithStreamingResponse):
        chat: StreamingChat
