"""
`run_tools`: what is sent, what is run, and that the history is valid on every way out.
"""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import anyio
import msgspec
import pytest

from kimi_async import (
    AsyncKimi,
    BadRequestError,
    ConfigurationError,
    ContentFilterFinishReasonError,
    LengthFinishReasonError,
    MaxTurnsError,
    OutputError,
    Request,
    ToolContext,
    ToolError,
    tool,
    web_search,
)
from kimi_async.codec.json import encode
from kimi_async.testing import KimiSimulator, MemoryTransport, Reply, ToolCall, Turn
from kimi_async.tools.run import whole_calls
from kimi_async.types import ChatCompletionMessage

QUESTION = {"role": "user", "content": "Weather?"}


def called(name: str, arguments: str = "{}", call_id: str | None = None, **more: Any) -> dict[str, Any]:
    call_id = f"{name}:0" if call_id is None else call_id
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def answer(
    *calls: dict[str, Any], content: str | None = "", finish: str | None = None, **more: Any
) -> dict[str, Any]:
    """A completion as Kimi sends it, with the calls given."""
    message = {"role": "assistant", "content": content, **more}
    if calls:
        message["tool_calls"] = list(calls)
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "kimi-k3",
        "choices": [
            {"index": 0, "message": message, "finish_reason": finish or ("tool_calls" if calls else "stop")}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 4},
    }


class Script:
    """A server that gives these replies in order, and keeps what it was asked."""

    def __init__(self, *replies: dict[str, Any]) -> None:
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []
        self.client = AsyncKimi(api_key="sk-test", transport=MemoryTransport(self.reply), max_retries=0)

    async def reply(self, request: Request) -> Reply:
        self.asked.append(request.json())
        assert_valid(self.asked[-1]["messages"])
        return Reply(headers={"content-type": "application/json"}, body=json.dumps(self.replies.pop(0)))

    def run(self, tools: Any, **options: Any) -> Any:
        return self.client.chat.completions.run_tools(
            model="kimi-k3", messages=options.pop("messages", [QUESTION]), tools=tools, **options
        )


def assert_valid(messages: list[Any]) -> None:
    """The rule of Kimi's API: every call is answered, right after, and nothing is answered that was not called."""
    plain = json.loads(encode(messages))
    at = 0
    while at < len(plain):
        wanted = [call["id"] for call in plain[at].get("tool_calls") or []]
        assert len(set(wanted)) == len(wanted)
        assert plain[at]["role"] != "tool"
        at += 1
        answered = []
        while at < len(plain) and plain[at]["role"] == "tool":
            assert isinstance(plain[at]["content"], str)
            answered.append(plain[at]["tool_call_id"])
            at += 1
        assert sorted(answered) == sorted(wanted)


def contents(messages: list[Any]) -> list[str]:
    """The contents of the tool messages."""
    return [m["content"] for m in json.loads(encode(messages)) if m["role"] == "tool"]


@tool
async def weather(city: str) -> dict[str, Any]:
    """The weather of a city."""
    return {"city": city, "temp": 21}


@tool
async def broken() -> str:
    raise ValueError("no such thing")


async def test_run_tools_answers_calls_until_the_model_answers() -> None:
    """Two turns: the calls are run, told, and the second answer is the result; usage is summed."""
    first = answer(
        called("weather", '{"city": "Beijing"}'),
        called("weather", '{"city":"Shanghai"}', "weather:1"),
        reasoning_content="Need two lookups.",
    )
    script = Script(first, answer(content="Sunny."))
    result = await script.run([weather])
    assert result.text == "Sunny."
    assert result.reason == "answer"
    assert len(result.turns) == 2
    assert (result.usage.prompt_tokens, result.usage.completion_tokens, result.usage.cached_tokens) == (
        20,
        10,
        8,
    )
    assert script.asked[0]["tools"] == [weather.definition]
    assert script.asked[1]["messages"] == [
        QUESTION,
        first["choices"][0]["message"],
        {
            "role": "tool",
            "tool_call_id": "weather:0",
            "name": "weather",
            "content": '{"city":"Beijing","temp":21}',
        },
        {
            "role": "tool",
            "tool_call_id": "weather:1",
            "name": "weather",
            "content": '{"city":"Shanghai","temp":21}',
        },
    ]
    assert [m["role"] for m in json.loads(encode(result.messages))] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]


async def test_run_tools_sends_assistant_messages_back_as_they_came() -> None:
    """Empty reasoning, null content, unknown fields and odd arguments come back byte for byte."""
    odd = '{ "city" :\t"北京\\u00e9", "x": 1.50 }'
    message = {"content": None, "reasoning_content": "", "vendor": {"k": [1]}}
    script = Script(
        answer(called("weather", odd, "functions.weather:7", index=0), **message), answer(content="ok")
    )
    await script.run([weather])
    assert script.asked[1]["messages"][1] == {
        "role": "assistant",
        **message,
        "tool_calls": [
            {
                "id": "functions.weather:7",
                "type": "function",
                "function": {"name": "weather", "arguments": odd},
                "index": 0,
            }
        ],
    }


async def test_run_tools_leaves_the_callers_list_alone() -> None:
    """`messages` of the caller is not changed."""
    messages = [QUESTION]
    script = Script(answer(called("weather", '{"city": "x"}')), answer(content="ok"))
    run = script.run([weather], messages=messages)
    await run
    assert messages == [QUESTION]
    assert len(run.messages) == 4


async def test_run_tools_events_in_order() -> None:
    """Iterating gives turns, starts and ends of calls, and the result at the end."""
    script = Script(answer(called("weather", '{"city": "x"}'), called("broken", "{}")), answer(content="ok"))
    events = []
    async with script.run([weather, broken], concurrent=False) as run:
        async for event in run:
            events.append((event.type, getattr(event, "content", None)))
            assert_valid(run.messages)
    assert events == [
        ("turn", None),
        ("tool.started", None),
        ("tool.finished", '{"city":"x","temp":21}'),
        ("tool.started", None),
        ("tool.finished", "Error: ValueError: no such thing"),
        ("turn", None),
        ("run.finished", None),
    ]
    assert run.result.text == "ok"


@pytest.mark.parametrize(
    ("call", "content"),
    [
        (called("broken"), "Error: ValueError: no such thing"),
        (
            called("weather", '{"city": 3}'),
            "Error: the arguments do not fit: Expected `str`, got `int` - at `$.city`",
        ),
        (called("weather", '{"city": "x'), "Error: the arguments do not fit: Input data was truncated"),
        (called("rain"), "Error: there is no tool called 'rain'; there are broken, weather"),
        (called("", "{}", "x:0"), "Error: there is no tool called ''; there are broken, weather"),
        (called("functions.weather", '{"city": "x"}'), '{"city":"x","temp":21}'),
    ],
)
async def test_run_tools_tells_the_model_what_went_wrong(call: dict[str, Any], content: str) -> None:
    """Failures of tools, wrong arguments and unknown names go back to the model, and the run goes on."""
    script = Script(answer(call), answer(content="ok"))
    result = await script.run([weather, broken])
    assert contents(result.messages) == [content]
    assert result.text == "ok"


async def test_run_tools_on_error_raises_or_words_it() -> None:
    """`on_error="raise"` raises the tool's own error with a valid history; a function chooses the words."""
    script = Script(answer(called("broken"), called("weather", '{"city": "x"}')))
    run = script.run([weather, broken], on_error="raise")
    with pytest.raises(ValueError, match="no such thing"):
        await run
    assert_valid(run.messages)
    assert len(contents(run.messages)) == 2

    script = Script(answer(called("broken")), answer(content="ok"))
    result = await script.run([broken], on_error=lambda error, call: f"{call.function.name} said {error}")
    assert contents(result.messages) == ["broken said no such thing"]


async def test_run_tools_tool_error_is_said_in_its_own_words() -> None:
    """A ToolError's text is what the model is told."""

    @tool
    async def picky() -> str:
        raise ToolError("only on Sundays")

    script = Script(answer(called("picky")), answer(content="ok"))
    assert contents((await script.run([picky])).messages) == ["Error: only on Sundays"]


async def test_run_tools_runs_calls_side_by_side_within_the_cap() -> None:
    """Calls of one turn overlap, never more than the cap; opted out, they run one after another in order."""
    running = most = 0
    order: list[int] = []
    together = asyncio.Event()

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(number)
        if running == 3:
            together.set()
        if not alone:
            await together.wait()
        running -= 1
        return number

    calls = [called("work", json.dumps({"number": n}), f"work:{n}") for n in range(6)]
    alone = False
    script = Script(answer(*calls), answer(content="ok"))
    result = await script.run([tool(work)], max_concurrency=3)
    assert most == 3
    assert contents(result.messages) == ["0", "1", "2", "3", "4", "5"]

    for options, made in (({"concurrent": False}, tool(work)), ({}, tool(concurrent=False)(work))):
        running = most = 0
        order.clear()
        alone = True
        await Script(answer(*calls), answer(content="ok")).run([made], **options)
        assert (most, order) == (1, [0, 1, 2, 3, 4, 5])


async def test_run_tools_timeout_stops_one_tool_and_not_the_run() -> None:
    """A tool that takes too long is stopped, the model told; a tool's own TimeoutError is its own."""
    stopped = asyncio.Event()

    @tool(timeout=0.01)
    async def slow() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    @tool
    async def own() -> str:
        raise TimeoutError("mine")

    script = Script(answer(called("slow"), called("own")), answer(content="ok"))
    result = await script.run([slow, own], tool_timeout=60)
    assert contents(result.messages) == [
        "Error: the tool took longer than 0.01 s and was stopped",
        "Error: TimeoutError: mine",
    ]
    assert stopped.is_set()


async def test_run_tools_timeout_leaves_a_stuck_thread_behind() -> None:
    """A function in a thread cannot be stopped; the run goes on without it."""
    gate = threading.Event()

    @tool(timeout=0.01)
    def stuck() -> str:
        gate.wait(30)
        return "late"

    script = Script(answer(called("stuck")), answer(content="ok"))
    result = await script.run([stuck])
    gate.set()
    assert contents(result.messages) == ["Error: the tool took longer than 0.01 s and was stopped"]


async def test_run_tools_tool_that_cancels_itself_is_an_error() -> None:
    """A CancelledError that nobody asked for is told to the model; it does not end the run."""

    @tool
    async def gone() -> str:
        raise asyncio.CancelledError

    script = Script(answer(called("gone")), answer(content="ok"))
    assert contents((await script.run([gone])).messages) == ["Error: the tool cancelled itself"]


async def waiting() -> tuple[Any, asyncio.Event, asyncio.Event]:
    """A tool that waits for ever, and what tells that it began and that it was cleaned up."""
    began, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    return wait, began, ended


async def test_run_tools_cancelled_leaves_a_valid_history() -> None:
    """Cancelled while tools run: they are cancelled too, done calls keep their results, the others say so."""
    wait, began, ended = await waiting()
    script = Script(answer(called("weather", '{"city": "x"}'), called("wait")))
    run = script.run([weather, wait])
    task = asyncio.ensure_future(run._to_the_end())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert_valid(run.messages)
    assert contents(run.messages)[1] == "Error: stopped before it was done"


async def test_run_tools_cancelled_by_a_scope_leaves_a_valid_history() -> None:
    """The same under anyio's cancellation, which is delivered again at every await."""
    wait, began, ended = await waiting()
    script = Script(answer(called("wait")))
    run = script.run([wait])
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await began.wait()
                scope.cancel()

            group.start_soon(stop)
            await run
    assert scope.cancelled_caught
    assert ended.is_set()
    assert_valid(run.messages)
    assert len(run.messages) == 3


@pytest.mark.parametrize("kind", ["turn", "tool.started", "tool.finished"])
async def test_run_tools_left_early_leaves_a_valid_history(kind: str) -> None:
    """`break` at any event, inside `async with`: nothing runs on, and the history can be gone on with."""
    wait, began, ended = await waiting()
    script = Script(answer(called("weather", '{"city": "x"}'), called("wait")))
    async with script.run([weather, wait]) as run:
        async for event in run:
            assert_valid(run.messages)
            if event.type == kind:
                break
    assert_valid(run.messages)
    assert began.is_set() == ended.is_set()
    assert len(run.messages) == (1 if kind == "turn" else 4)
    with pytest.raises(RuntimeError, match="has not ended"):
        run.result  # noqa: B018


async def test_run_tools_request_that_fails_leaves_a_valid_history() -> None:
    """An error of the API comes out as it is; what was said before is kept."""
    script = Script(answer(called("weather", '{"city": "x"}')))

    async def reply(request: Request) -> Reply:
        if script.replies:
            return await script.reply(request)
        return Reply(400, body=b'{"error":{"message":"bad","type":"invalid_request_error"}}')

    script.client = AsyncKimi(api_key="sk-test", transport=MemoryTransport(reply), max_retries=0)
    run = script.run([weather])
    with pytest.raises(BadRequestError):
        await run
    assert_valid(run.messages)
    assert len(run.messages) == 3


async def test_run_tools_cut_call_is_not_run() -> None:
    """Arguments that were cut by the budget are an error, and not in the history."""
    script = Script(answer(called("weather", '{"city": "x'), finish="length"))
    run = script.run([weather])
    with pytest.raises(LengthFinishReasonError):
        await run
    assert run.messages == [QUESTION]


async def test_run_tools_filtered_answer_raises() -> None:
    """An answer stopped by moderation is an error."""
    with pytest.raises(ContentFilterFinishReasonError):
        await Script(answer(content="x", finish="content_filter")).run([weather])


async def test_run_tools_empty_answer_stays_out_of_the_history() -> None:
    """An assistant message without text would be refused in the next request."""
    script = Script(answer(content="", finish="length", reasoning_content="all budget"))
    result = await script.run([weather])
    assert result.messages == [QUESTION]
    assert result.completion.choices[0].finish_reason == "length"


async def test_run_tools_max_turns() -> None:
    """A model that never stops calling is stopped, with its calls answered and the conversation at hand."""
    script = Script(*[answer(called("weather", '{"city": "x"}')) for _ in range(5)])
    with pytest.raises(MaxTurnsError, match="after 2 turns") as caught:
        await script.run([weather], max_turns=2)
    assert len(script.asked) == 2
    assert caught.value.result.reason == "max_turns"
    assert_valid(caught.value.result.messages)


async def test_run_tools_stop_conditions() -> None:
    """A condition, async or not, or a tool itself ends the run after the calls of a turn are answered."""

    @tool
    async def submit(context: ToolContext) -> str:
        context.stop()
        return "taken"

    async def enough(run: Any) -> bool:
        return len(run.turns) == 2

    script = Script(*[answer(called("weather", '{"city": "x"}')) for _ in range(5)])
    result = await script.run([weather], stop_when=enough)
    assert (result.reason, len(script.asked)) == ("stopped", 2)
    assert_valid(result.messages)

    script = Script(answer(called("submit")))
    result = await script.run([submit], stop_when=lambda run: False)
    assert (result.reason, contents(result.messages)) == ("stopped", ["taken"])


async def test_run_tools_forced_choice_holds_for_the_first_turn() -> None:
    """`required` in every turn would never let the model answer."""
    script = Script(answer(called("weather", '{"city": "x"}')), answer(content="ok"))
    await script.run([weather], tool_choice="required", reasoning_effort="low")
    assert [asked["tool_choice"] for asked in script.asked] == ["required", "auto"]
    assert script.asked[1]["reasoning_effort"] == "low"


async def test_run_tools_web_search_echoes_arguments() -> None:
    """`$web_search` wants its arguments back unchanged; its definition alone will do."""
    arguments = '{"search_result":{"search_id":"a"},"usage":{"total_tokens":13046}}'
    call = {**called("$web_search", arguments), "type": "builtin_function"}
    for given in (web_search(), {"type": "builtin_function", "function": {"name": "$web_search"}}):
        script = Script(answer(call), answer(content="ok"))
        result = await script.run([given])
        assert contents(result.messages) == [arguments]
        assert script.asked[0]["tools"] == [{"type": "builtin_function", "function": {"name": "$web_search"}}]
        assert script.asked[1]["messages"][1]["tool_calls"][0]["type"] == "builtin_function"


async def test_run_tools_dynamic_tools() -> None:
    """A tool may offer more tools: they are declared in a system message, as K3 wants it, and served."""

    @tool
    async def unlock(context: ToolContext) -> str:
        context.add_tools(weather)
        return "unlocked"

    script = Script(
        answer(called("unlock")), answer(called("weather", '{"city": "x"}')), answer(content="ok")
    )
    result = await script.run([unlock])
    assert script.asked[1]["messages"][-1] == {"role": "system", "tools": [weather.definition]}
    assert script.asked[1]["tools"] == [unlock.definition]
    assert contents(result.messages) == ["unlocked", '{"city":"x","temp":21}']

    script = Script(answer(called("weather", '{"city": "x"}')), answer(content="ok"))
    result = await script.run([], messages=[{"role": "system", "tools": [weather]}, QUESTION])
    assert contents(result.messages) == ['{"city":"x","temp":21}']


async def test_run_tools_ids_missing_or_twice_are_mended() -> None:
    """Relays send calls without ids, or two of one id, which Kimi refuses: each gets one, in message and answer alike."""
    script = Script(
        answer(*[called("weather", '{"city": "x"}', i) for i in ("", "weather:0", "weather:0")]),
        answer(content="ok"),
    )
    await script.run([weather])
    ids = [call["id"] for call in script.asked[1]["messages"][1]["tool_calls"]]
    assert ids == ["weather:0", "weather:0#2", "weather:0#3"]


@pytest.mark.parametrize(
    ("arguments", "echoed"),
    [
        ("", {}),
        ("  ", {}),
        ('{"city":"a\nb"}', {"not_json": '{"city":"a\nb"}'}),
        ('{"path":"C:\\dir"}', {"not_json": '{"path":"C:\\dir"}'}),
        ('{"city":"Rom', {"not_json": '{"city":"Rom'}),
        ("[1]", {"not_json": "[1]"}),
        ("null", {"not_json": "null"}),
    ],
)
async def test_run_tools_echoes_sound_arguments(arguments: str, echoed: Any) -> None:
    """Arguments that a host would refuse go back as an object, the model is told of its mistake, and the run goes on."""
    call = {"id": "weather:0", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    script = Script(answer(call, finish="tool_calls"), answer(content="done"))

    result = await script.run([weather])

    message, told = script.asked[1]["messages"][1:3]
    assert "done" == result.text
    assert echoed == json.loads(message["tool_calls"][0]["function"]["arguments"])
    assert "rror" in told["content"] or not arguments.strip()


def test_whole_calls_changes_nothing_that_is_right() -> None:
    """A message in order is sent back as the very object that came."""
    message = ChatCompletionMessage.model_validate(answer(called("weather"))["choices"][0]["message"])
    same, calls = whole_calls(message)
    assert same is message
    assert calls[0] is message.tool_calls[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("tools", "error", "word"),
    [
        ([weather, weather], ConfigurationError, "two tools are called 'weather'"),
        ([{"type": "function", "function": {"name": "f"}}], ConfigurationError, "tool_from"),
        ("weather", TypeError, "list"),
        ([3], TypeError, "no tool"),
    ],
)
def test_run_tools_refuses_wrong_tools_before_anything_is_sent(
    tools: Any, error: type[Exception], word: str
) -> None:
    """A list that cannot work is refused at the call."""
    with pytest.raises(error, match=word):
        Script().run(tools)
    with pytest.raises(ConfigurationError, match="max_turns"):
        Script().run([weather], max_turns=0)


async def test_run_tools_takes_plain_functions_and_lists() -> None:
    """Functions become tools; a list inside the list is taken for its members."""

    def double(number: int) -> int:
        """Doubles."""
        return 2 * number

    script = Script(answer(called("double", '{"number": 4}')), answer(content="ok"))
    result = await script.run([double, [weather]])
    assert contents(result.messages) == ["8"]
    assert [t["function"]["name"] for t in script.asked[0]["tools"]] == ["double", "weather"]


class Forecast(msgspec.Struct):
    city: str
    temp: int


async def test_run_tools_last_answer_as_a_value() -> None:
    """With a type as response_format the last answer is read; a wrong one is an OutputError with a valid history."""
    script = Script(answer(called("weather", '{"city": "x"}')), answer(content='{"city": "x", "temp": 21}'))
    result = await script.run([weather], response_format=Forecast)
    assert result.parsed == Forecast("x", 21)
    assert script.asked[0]["response_format"]["json_schema"]["name"] == "Forecast"

    run = Script(answer(content='{"city": 1}')).run([weather], response_format=Forecast)
    with pytest.raises(OutputError):
        await run
    assert_valid(run.messages)


async def test_run_tools_streams_every_turn(kimi_simulator: KimiSimulator) -> None:
    """With stream=True the events of each answer are among those of the run, and the calls are whole."""
    kimi_simulator.say(
        Turn(reasoning="Look it up.", tool_calls=(ToolCall("weather:0", "weather", '{"city": "Beijing"}'),)),
        Turn(content="It is 21 degrees."),
    )
    async with AsyncKimi(api_key=kimi_simulator.api_key, base_url=kimi_simulator.base_url) as client:
        run = client.chat.completions.run_tools(
            model="kimi-k3", messages=[QUESTION], tools=[weather], stream=True
        )
        kinds: list[str] = []
        text = ""
        async with run:
            async for event in run:
                if not kinds or kinds[-1] != event.type:
                    kinds.append(event.type)
                if event.type == "content.delta":
                    text += event.delta
    assert text == "It is 21 degrees."
    assert run.result.text == text
    assert kinds.index("reasoning.delta") < kinds.index("tool.started") < kinds.index("content.delta")
    sent = kimi_simulator.requests[-1].json()["messages"]
    assert sent[1]["reasoning_content"] == "Look it up."
    assert sent[2] == {
        "role": "tool",
        "tool_call_id": "weather:0",
        "name": "weather",
        "content": '{"city":"Beijing","temp":21}',
    }


async def test_run_tools_formula_tools_are_just_tools(kimi_simulator: KimiSimulator) -> None:
    """An official tool is fetched, called on Kimi's side, and its encrypted output handed on unread."""
    kimi_simulator.say(
        Turn(tool_calls=(ToolCall("web_search:0", "web_search", '{"query": "kimi"}'),)),
        Turn(content="Found."),
    )
    async with AsyncKimi(api_key=kimi_simulator.api_key, base_url=kimi_simulator.base_url) as client:
        search = await client.formulas.tools("moonshot/web-search:latest")
        result = await client.chat.completions.run_tools(
            model="kimi-k3", messages=[QUESTION], tools=[*search, weather]
        )
    assert result.text == "Found."
    (content,) = contents(result.messages)
    assert content.startswith("----MOONSHOT ENCRYPTED BEGIN----")


def test_run_tools_is_lazy() -> None:
    """Nothing is sent before the run is awaited or iterated; an event loop is not even needed to make it."""
    script = Script()
    assert script.run([weather]).messages == [QUESTION]
    assert script.asked == []
