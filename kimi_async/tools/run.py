"""
The tool loop: ask, run what the model calls, tell it the results, until it answers.

`client.chat.completions.run_tools(...)` makes a `ToolRun`. Await it for the result, or iterate over it for every step:

    run = client.chat.completions.run_tools(model="kimi-k3", messages=messages, tools=[weather])
    async with run:
        async for event in run:
            ...
    run.result.completion, run.messages

The history in `messages` is valid at every moment, for every way out (`break`, an error, cancellation): an assistant message
that calls tools is put there together with an answer to each of its calls, or not at all. Kimi refuses anything else
(platform.kimi.ai/docs/api/errors: "must be followed by tool messages responding to each 'tool_call_id'").
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar, cast

import anyio
import msgspec

from ..errors import ConfigurationError, ContentFilterFinishReasonError, KimiError, LengthFinishReasonError
from ..schema import OutputError
from ..streaming.events import AsyncChatCompletionStreamManager
from ..types.completions import (
    ChatCompletion,
    ChatCompletionMessage,
    ChatCompletionMessageToolCall,
    CompletionUsage,
    total_usage,
)
from ..types.events import ChatCompletionStreamEvent
from .base import EchoTool, Tool, ToolContext, ToolError
from .function import tool
from .leaks import LeakedToolsError, has_leak

__all__ = [
    "AroundTool",
    "MaxTurnsError",
    "RunFinishedEvent",
    "ToolFinishedEvent",
    "ToolRun",
    "ToolRunEvent",
    "ToolRunResult",
    "ToolStartedEvent",
    "TurnEvent",
    "as_tools",
    "echoed",
    "whole_calls",
]

T = TypeVar("T")

AroundTool: TypeAlias = Callable[[ChatCompletionMessageToolCall, Tool | None], AbstractContextManager[None]]
"""Entered around each run of a tool, with the call and the tool, if there is one of that name; what it raises passes through."""

# How long cancelled tools may take to clean up before they are left behind. As long as a person waits for Ctrl-C.
CLOSING = 5.0


@dataclass(frozen=True, slots=True)
class TurnEvent:
    """The model has answered, with text or with calls that will be run next."""

    turn: int
    completion: ChatCompletion
    type: Literal["turn"] = "turn"


@dataclass(frozen=True, slots=True)
class ToolStartedEvent:
    turn: int
    call: ChatCompletionMessageToolCall
    type: Literal["tool.started"] = "tool.started"


@dataclass(frozen=True, slots=True)
class ToolFinishedEvent:
    """
    A call is served. `error` is what the tool raised, None if nothing; `content` is what the model is told either way.
    `elapsed` in seconds. `repaired` are the arguments that the tool was given, where `repair_arguments` changed what the model
    wrote (`call.function.arguments`); else None.
    """

    turn: int
    call: ChatCompletionMessageToolCall
    content: str
    error: Exception | None
    elapsed: float
    repaired: str | None = None
    type: Literal["tool.finished"] = "tool.finished"


@dataclass(frozen=True, slots=True)
class RunFinishedEvent:
    """The last event."""

    result: "ToolRunResult[Any]"
    type: Literal["run.finished"] = "run.finished"


ToolRunEvent: TypeAlias = (
    TurnEvent | ToolStartedEvent | ToolFinishedEvent | RunFinishedEvent | ChatCompletionStreamEvent
)


@dataclass(frozen=True, slots=True)
class ToolRunResult(Generic[T]):
    """
    How a run ended.

    :ivar completion: the last answer.
    :ivar messages: the whole conversation, ready to be gone on with.
    :ivar turns: every answer, in order.
    :ivar reason: `answer`: the model answered without calling; `stopped`: `stop_when` or a tool ended it; `max_turns`.
    :ivar usage: the tokens of all turns together; None if no turn told any.
    :ivar parsed: the value of the answer where `response_format` is a type.
    """

    completion: ChatCompletion
    messages: list[Any]
    turns: list[ChatCompletion]
    reason: Literal["answer", "stopped", "max_turns"]
    usage: CompletionUsage | None
    parsed: T | None = None

    @property
    def text(self) -> str:
        """The text of the last answer, `""` if there is none."""
        choices = self.completion.choices
        return (choices[0].message.content or "") if choices else ""


class MaxTurnsError(KimiError):
    """
    The model still called tools in the last turn it was allowed. `result` has the conversation, whose calls are answered.
    """

    def __init__(self, result: "ToolRunResult[Any]") -> None:
        super().__init__(
            f"the model still called tools after {len(result.turns)} turns; raise max_turns, or go on with .result.messages"
        )
        self.result: ToolRunResult[Any] = result


Ask: TypeAlias = Callable[[list[object], Mapping[str, object]], Awaitable[ChatCompletion]]
AskStream: TypeAlias = Callable[
    [list[object], Mapping[str, object]], AsyncChatCompletionStreamManager[ChatCompletion]
]
OnError: TypeAlias = Literal["reply", "raise"] | Callable[[Exception, ChatCompletionMessageToolCall], str]


def as_tools(given: Iterable[Any]) -> list[Tool]:
    """
    Tools of everything that `tools=` takes: tools, functions, `$web_search`'s definition, and lists of such.

    :raises ConfigurationError: a definition that nothing serves, or two tools of one name (a 400 at the server).
    """
    if isinstance(given, (str, bytes, Mapping)):
        raise TypeError(f"tools must be a list, not {type(cast('object', given)).__name__}")
    found: list[Tool] = []
    for each in given:
        if isinstance(each, (list, tuple)):
            found.extend(as_tools(cast("list[object]", each)))
        elif isinstance(each, Mapping):
            definition = cast("Mapping[str, object]", each)
            name = str(cast("Mapping[str, object]", definition.get("function") or {}).get("name", ""))
            if definition.get("type") != "builtin_function":
                raise ConfigurationError(
                    f"nothing serves the tool {name!r}: pass tool_from(definition, function), or a function with @tool"
                )
            found.append(EchoTool(name))
        elif isinstance(each, Tool) or all(hasattr(each, name) for name in ("run", "definition", "name")):
            found.append(each)
        elif callable(each):
            found.append(tool(cast("Callable[..., Any]", each)))
        else:
            raise TypeError(
                f"{type(each).__name__} is no tool: pass functions, @tool functions or Tool objects"
            )
    names: set[str] = set()
    for each in found:
        if each.name in names:
            raise ConfigurationError(
                f"two tools are called {each.name!r}; Kimi refuses that: pass name= to one of them"
            )
        names.add(each.name)
    return found


def whole_calls(
    message: ChatCompletionMessage,
) -> tuple[ChatCompletionMessage, list[ChatCompletionMessageToolCall]]:
    """
    The calls of a message, each with an id of its own, and the message to send back.

    Both are the same objects as came in, unless ids are missing or stand twice (relays; a 400 at Kimi): then a copy of the
    message has new ones.
    """
    calls = list(message.tool_calls or ())
    seen: set[str] = set()
    mended: list[ChatCompletionMessageToolCall] = []
    for index, call in enumerate(calls):
        name, number = call.id or f"{call.function.name or 'call'}:{index}", 2
        new = name
        while new in seen:
            new, number = f"{name}#{number}", number + 1
        seen.add(new)
        mended.append(call if new == call.id else call.model_copy(update={"id": new}))
    if all(a is b for a, b in zip(calls, mended, strict=True)):
        return message, calls
    return message.model_copy(update={"tool_calls": mended}), mended


def echoed(message: ChatCompletionMessage, repaired: Sequence[str | None]) -> ChatCompletionMessage:
    """
    The message as it goes back: hosts refuse arguments that are no JSON object, the model's own among them (a 400 by some).

    Empty ones become `{}`, repaired ones what was run, and what nobody could read an object that holds it as text, so that the
    model sees what it wrote. A message whose arguments are in order is the same object.
    """
    calls = list(message.tool_calls or ())
    made = [
        call if (text := _valid(call, mended)) is None else _with_arguments(call, text)
        for call, mended in zip(calls, repaired, strict=True)
    ]
    if all(a is b for a, b in zip(calls, made, strict=True)):
        return message
    return message.model_copy(update={"tool_calls": made})


def _valid(call: ChatCompletionMessageToolCall, repaired: str | None) -> str | None:
    """The arguments to send back; None if they may go as they are."""
    if repaired is not None or call.type != "function":
        return repaired
    text = call.function.arguments
    try:
        if isinstance(msgspec.json.decode(text), dict):
            return None
    except (ValueError, RecursionError):
        pass
    return msgspec.json.encode({"not_json": text}).decode("utf-8", "replace") if text.strip() else "{}"


def _with_arguments(call: ChatCompletionMessageToolCall, text: str) -> ChatCompletionMessageToolCall:
    return call.model_copy(update={"function": call.function.model_copy(update={"arguments": text})})


@dataclass(slots=True)
class _Job:
    call: ChatCompletionMessageToolCall
    tool: Tool | None
    context: ToolContext
    content: str | None = None
    error: Exception | None = None
    elapsed: float = 0.0
    repaired: str | None = None


class _Batch:
    """The calls of one turn while they run. Iterate for events; `close` stops what is still running."""

    def __init__(
        self,
        turn: int,
        jobs: list[_Job],
        *,
        limit: int,
        in_order: bool,
        timeout: float | None,
        explain: Callable[[_Job, Exception], str],
        around: AroundTool | None,
        repair: Callable[[str], str] | None,
    ) -> None:
        self.jobs = jobs
        self._around = around
        self._repair = repair
        self._turn = turn
        self._timeout = timeout
        self._explain = explain
        self._slots = asyncio.Semaphore(limit)
        self._events: asyncio.Queue[ToolStartedEvent | ToolFinishedEvent | None] = asyncio.Queue()
        self._left = len(jobs)
        if in_order:
            self._tasks = [asyncio.create_task(self._serve_in_order())]
        else:
            self._tasks = [asyncio.create_task(self._serve(job)) for job in jobs]

    async def _serve_in_order(self) -> None:
        for job in self.jobs:
            await self._serve(job)

    async def _serve(self, job: _Job) -> None:
        loop = asyncio.get_running_loop()
        async with self._slots:
            self._events.put_nowait(ToolStartedEvent(self._turn, job.call))
            started = loop.time()
            content: str | None = None
            error: Exception | None = None
            try:
                content = await self._run(job)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                error = ToolError(
                    "the tool cancelled itself"
                )  # something it waited for was cancelled, not we
            except Exception as caught:  # whatever a tool raises is an answer for the model
                error = caught
            job.elapsed = loop.time() - started
            job.error = error
            job.content = content if error is None else self._explain(job, error)
            event = ToolFinishedEvent(
                self._turn, job.call, job.content or "", error, job.elapsed, job.repaired
            )
            self._events.put_nowait(event)

    async def _run(self, job: _Job) -> str:
        if self._around is None:
            return await self._run_within_time(job)
        with self._around(job.call, job.tool):
            return await self._run_within_time(job)

    async def _run_within_time(self, job: _Job) -> str:
        if job.tool is None:
            raise ToolError(f"there is no tool called {job.call.function.name!r}")
        arguments = job.call.function.arguments
        if self._repair is not None and job.call.type == "function":
            repaired = self._repair(arguments)
            if repaired != arguments:
                arguments = job.repaired = repaired
        seconds = job.tool.timeout if job.tool.timeout is not None else self._timeout
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                return str(await job.tool.run(arguments, job.context))
        except TimeoutError:
            if not scope.expired():
                raise
            raise ToolError(f"the tool took longer than {seconds:g} s and was stopped") from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ToolStartedEvent | ToolFinishedEvent:
        if self._left == 0:
            raise StopAsyncIteration
        event = await self._events.get()
        assert event is not None
        if isinstance(event, ToolFinishedEvent):
            self._left -= 1
        return event

    def answers(self) -> list[dict[str, object]]:
        """A tool message for every call. One that has no result yet is told to have been stopped."""
        return [
            {
                "role": "tool",
                "tool_call_id": job.call.id,
                "name": job.call.function.name,
                "content": job.content if job.content is not None else "Error: stopped before it was done",
            }
            for job in self.jobs
        ]

    async def close(self) -> None:
        running = [task for task in self._tasks if not task.done()]
        for task in running:
            task.cancel()
        if running:
            with anyio.move_on_after(CLOSING, shield=True):
                await asyncio.wait(running)


class ToolRun(Generic[T]):
    """
    One run of the loop: an awaitable, an async iterator and an async context manager. It runs once, while it is asked to.

    :ivar messages: the conversation so far; yours to read. The list that was passed in is not changed.
    :ivar turns: the answers so far.
    """

    def __init__(
        self,
        *,
        ask: Ask,
        ask_stream: AskStream | None,
        messages: Iterable[object],
        tools: Iterable[object],
        options: Mapping[str, Any],
        parse: Callable[[ChatCompletion], T] | None = None,
        max_turns: int = 10,
        concurrent: bool = True,
        max_concurrency: int = 8,
        tool_timeout: float | None = None,
        stop_when: "Callable[[ToolRun[Any]], bool | Awaitable[bool]] | None" = None,
        on_error: OnError = "reply",
        around_tool: AroundTool | None = None,
        fit: Callable[[list[Any], list[Any]], Awaitable[list[Any]]] | None = None,
        repair: Callable[[str], str] | None = None,
    ) -> None:
        for name, value in (("max_turns", max_turns), ("max_concurrency", max_concurrency)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"{name} must be an int of 1 or more; got {value!r}")
        self.messages: list[Any] = list(messages)
        self.turns: list[ChatCompletion] = []
        self._offered = as_tools(tools)
        self._served = {each.name: each for each in self._offered}
        for message in self.messages:
            if isinstance(message, Mapping):
                self._register(cast("Mapping[str, Any]", message).get("tools") or ())
        self._ask, self._ask_stream = ask, ask_stream
        self._options = dict(options)
        self._parse = parse
        self._max_turns = max_turns
        self._concurrent, self._limit, self._timeout = concurrent, max_concurrency, tool_timeout
        self._stop_when = stop_when
        self._on_error = on_error
        self._around_tool = around_tool
        self._fit, self._repair = fit, repair
        self._result: ToolRunResult[T] | None = None
        self._steps: AsyncGenerator[ToolRunEvent, None] = self._loop()
        self._stepped = False
        self._unseen = False
        """Nobody looks at the events: a streamed turn is read for its end, and asked for again where it breaks off."""

    @property
    def result(self) -> ToolRunResult[T]:
        """
        How it ended.

        :raises RuntimeError: it has not ended.
        """
        if self._result is None:
            raise RuntimeError("the run has not ended: await it, or iterate to its end")
        return self._result

    @property
    def usage(self) -> CompletionUsage | None:
        """The tokens of all turns so far."""
        return total_usage([turn.usage for turn in self.turns])

    def _register(self, tools: Iterable[object]) -> None:
        """Tools that dynamic-tools messages offer; plain definitions are somebody else's to serve."""
        for each in tools:
            if isinstance(each, Tool):
                self._served[each.name] = each

    # --- steps ---

    async def _loop(self) -> AsyncGenerator[ToolRunEvent, None]:
        while True:
            turn = len(self.turns) + 1
            options = {**self._options, "tools": [each.definition for each in self._offered]}
            if turn > 1 and options.get("tool_choice") not in (None, "auto", "none"):
                options["tool_choice"] = "auto"  # a forced call in every turn would never end
            asked = self.messages
            if self._fit is not None:
                asked = await self._fit(self.messages, options["tools"])
            if self._ask_stream is None:
                completion = await self._ask(asked, options)
            else:
                async with self._ask_stream(asked, options) as stream:
                    if not self._unseen:
                        async for event in stream:
                            yield event
                    try:
                        completion = await stream.get_final_completion()
                    except OutputError as error:
                        # Arguments that do not fit are the tool's to tell the model, as they are without a stream.
                        if error.completion is None:
                            raise
                        completion = error.completion
            choice = completion.choices[0]
            self.turns.append(completion)
            if choice.finish_reason == "content_filter":
                raise ContentFilterFinishReasonError(completion=completion)
            message, calls = whole_calls(choice.message)
            if calls and choice.finish_reason == "length":
                raise LengthFinishReasonError(
                    completion=completion
                )  # arguments that were cut must not be run
            if not calls and has_leak(message.content):
                raise LeakedToolsError(completion, list(self.messages))
            if not calls:
                if message.content or message.tool_calls:
                    self.messages.append(message)  # an empty one would be a 400
                parsed = self._parse(completion) if self._parse is not None else None
                self._result = self._ended("answer", parsed)
                yield TurnEvent(turn, completion)
                yield RunFinishedEvent(self._result)
                return
            yield TurnEvent(turn, completion)
            # A generator that is left is closed some time later; here it must be now.
            async with aclosing(self._serve(turn, message, calls)) as served:
                async for step in served:
                    yield step
            if self._result is None and await self._should_stop():
                self._result = self._ended("stopped")
            if self._result is not None:
                yield RunFinishedEvent(self._result)
                return
            if turn >= self._max_turns:
                self._result = self._ended("max_turns")
                raise MaxTurnsError(self._result)

    async def _serve(
        self, turn: int, message: ChatCompletionMessage, calls: list[ChatCompletionMessageToolCall]
    ) -> AsyncGenerator[ToolStartedEvent | ToolFinishedEvent, None]:
        asked = [*self.messages, message]
        jobs = [
            _Job(call, self._find(call), ToolContext(call.id, call.function.name, turn, asked))
            for call in calls
        ]
        in_order = not self._concurrent or any(
            job.tool is not None and not job.tool.concurrent for job in jobs
        )
        batch = _Batch(
            turn,
            jobs,
            limit=self._limit,
            in_order=in_order,
            timeout=self._timeout,
            explain=self._explain,
            around=self._around_tool,
            repair=self._repair,
        )
        try:
            async for event in batch:
                yield event
                if (
                    self._on_error == "raise"
                    and isinstance(event, ToolFinishedEvent)
                    and event.error is not None
                ):
                    raise event.error
        finally:
            # In one step, and before anything is awaited: whoever looks finds the history whole.
            self.messages.append(echoed(message, [job.repaired for job in jobs]))
            self.messages.extend(batch.answers())
            await batch.close()
        added = as_tools([each for job in jobs for each in job.context.added])
        if added:
            self._register(added)
            self.messages.append({"role": "system", "tools": [each.definition for each in added]})
        if any(job.context.stopped for job in jobs):
            self._result = self._ended("stopped")

    def _find(self, call: ChatCompletionMessageToolCall) -> Tool | None:
        name = call.function.name
        # Kimi's templates know calls as functions.name; models write that into the name now and then.
        return self._served.get(name) or self._served.get(name.removeprefix("functions."))

    def _explain(self, job: _Job, error: Exception) -> str:
        if callable(self._on_error):
            return str(self._on_error(error, job.call))
        if job.tool is None:
            return f"Error: {error}; there are {', '.join(sorted(self._served))}"
        return (
            f"Error: {error}" if isinstance(error, ToolError) else f"Error: {type(error).__name__}: {error}"
        )

    async def _should_stop(self) -> bool:
        if self._stop_when is None:
            return False
        answer = self._stop_when(self)
        return bool(await answer) if inspect.isawaitable(answer) else bool(answer)

    def _ended(
        self, reason: Literal["answer", "stopped", "max_turns"], parsed: T | None = None
    ) -> ToolRunResult[T]:
        return ToolRunResult(
            completion=self.turns[-1],
            messages=self.messages,
            turns=self.turns,
            reason=reason,
            usage=self.usage,
            parsed=parsed,
        )

    # --- the three ways to use it ---

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ToolRunEvent:
        self._stepped = True
        return await self._steps.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the run where it is. Running tools are cancelled and told to the model as stopped."""
        await self._steps.aclose()

    def __await__(self) -> Generator[Any, None, ToolRunResult[T]]:
        return self._to_the_end().__await__()

    async def _to_the_end(self) -> ToolRunResult[T]:
        self._unseen = self._unseen or not self._stepped
        async with self:
            async for _ in self:
                pass
        return self.result
