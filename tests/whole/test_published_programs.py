"""
Programs as people publish them for the Kimi API with `AsyncOpenAI`: the recipes of the documentation, in the habits of those
who follow them. Each runs with both clients against a simulator of its own, and must print the same.

What differs between two runs of one client (ids, times) is not printed.
"""

import asyncio
import base64
import io
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

import kimi_async
from kimi_async.testing import KimiSimulator
from kimi_async.testing.simulator.chat_model import ToolCall, Turn

Print = Callable[..., None]
Program = Callable[[Any, Print, Path], Awaitable[None]]
PROGRAMS: list[Program] = []


def program(function: Program) -> Program:
    PROGRAMS.append(function)
    return function


def make_client(sdk: Any) -> Any:
    """The import, changed: what the programs call `AsyncOpenAI`."""
    cls = sdk.AsyncOpenAI if sdk is openai else sdk.AsyncKimi
    return cls(api_key=os.environ["MOONSHOT_API_KEY"], base_url=os.environ["MOONSHOT_BASE_URL"])


SYSTEM = {"role": "system", "content": "You are Kimi. Answer in plain words."}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Search the web for what you do not know.",
            "parameters": {
                "type": "object",
                "required": ["query"],
                "properties": {"query": {"type": "string", "description": "what to look for"}},
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "crawl",
            "description": "Read the page at a URL.",
            "parameters": {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}},
        },
    },
]


@program
async def hello(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    completion = await client.chat.completions.create(
        model="kimi-k2.6",
        messages=[SYSTEM, {"role": "user", "content": "Hello, what is 1 + 1?"}],
        max_tokens=300,
    )
    print(completion.choices[0].message.content)
    print(completion.usage.model_dump()["total_tokens"] == completion.usage.total_tokens)
    print(json.loads(completion.model_dump_json())["choices"][0]["message"]["role"])
    print(dict(completion)["model"], completion.to_dict()["object"])
    await client.close()


@program
async def many_turns(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    history: list[Any] = [SYSTEM]

    async def chat(query: str) -> str:
        history.append({"role": "user", "content": query})
        completion = await client.chat.completions.create(model="kimi-k3", messages=history)
        result = completion.choices[0].message.content
        history.append({"role": "assistant", "content": result})
        return result

    print(await chat("How fast does the earth turn?"))
    print(await chat("And the moon?"))
    # Others send the message itself back, or what it dumps to.
    completion = await client.chat.completions.create(model="kimi-k3", messages=history)
    history.append(completion.choices[0].message)
    history.append({"role": "user", "content": "And the sun?"})
    completion = await client.chat.completions.create(model="kimi-k3", messages=history[-20:])
    history.append(completion.choices[0].message.model_dump(exclude_none=True))
    history.append({"role": "user", "content": "Thanks."})
    print(
        (await client.chat.completions.create(model="kimi-k3", messages=history)).choices[0].message.content
    )
    await client.close()


@program
async def tool_calls_until_done(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    tool_map: dict[str, Callable[[dict[str, Any]], Any]] = {
        "search": lambda arguments: [{"title": "Rivers", "url": "https://example.org/rivers"}],
        "crawl": lambda arguments: {"content": "Rivers bend."},
    }
    messages: list[Any] = [SYSTEM, {"role": "user", "content": "Call search and tell me about rivers."}]
    finish_reason = None
    rounds = 0
    while (finish_reason is None or finish_reason == "tool_calls") and rounds < 5:
        rounds += 1
        completion = await client.chat.completions.create(model="kimi-k3", messages=messages, tools=TOOLS)
        choice = completion.choices[0]
        finish_reason = choice.finish_reason
        if finish_reason == "tool_calls":
            messages.append(choice.message)
            for tool_call in choice.message.tool_calls:
                name = tool_call.function.name
                arguments = json.loads(tool_call.function.arguments)
                result = tool_map[name](arguments)
                print(tool_call.type, name, sorted(arguments))
                messages.append(
                    {
                        "role": "tool",
                        "tool_call_id": tool_call.id,
                        "name": name,
                        "content": json.dumps(result),
                    }
                )
    print(finish_reason, choice.message.content)
    await client.close()


@program
async def tool_calls_in_a_stream(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    calls: list[dict[str, Any]] = []
    text = ""
    stream = await client.chat.completions.create(
        model="kimi-k3",
        messages=[{"role": "user", "content": "Call search and crawl."}],
        tools=TOOLS,
        tool_choice="auto",
        stream=True,
    )
    async for chunk in stream:
        choice = chunk.choices[0]
        if choice.finish_reason:
            print("finish", choice.finish_reason)
        if choice.delta.content:
            text += choice.delta.content
        if choice.delta.tool_calls:
            for tool_call in choice.delta.tool_calls:
                index = tool_call.index
                while len(calls) <= index:
                    calls.append({"id": None, "type": None, "function": {"name": "", "arguments": ""}})
                if tool_call.id:
                    calls[index]["id"] = tool_call.id
                if tool_call.type:
                    calls[index]["type"] = tool_call.type
                if tool_call.function:
                    if tool_call.function.name:
                        calls[index]["function"]["name"] = tool_call.function.name
                    if tool_call.function.arguments:
                        calls[index]["function"]["arguments"] += tool_call.function.arguments
    print(text, calls)
    await client.close()


@program
async def web_search(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    tools: list[Any] = [{"type": "builtin_function", "function": {"name": "$web_search"}}]
    messages: list[Any] = [
        SYSTEM,
        {"role": "user", "content": "Search the web: what is context caching at Moonshot?"},
    ]
    finish_reason = None
    rounds = 0
    while (finish_reason is None or finish_reason == "tool_calls") and rounds < 4:
        rounds += 1
        completion = await client.chat.completions.create(
            model="kimi-k2.6",
            messages=messages,
            max_tokens=2048,
            tools=tools,
            extra_body={"thinking": {"type": "disabled"}},
        )
        choice = completion.choices[0]
        finish_reason = choice.finish_reason
        if finish_reason == "tool_calls":
            messages.append(choice.message)
            for tool_call in choice.message.tool_calls:
                arguments = json.loads(tool_call.function.arguments)
                tokens = arguments.get("usage", {}).get("total_tokens", 0)
                print(tool_call.function.name, tokens > 0)
                messages.append(
                    {
                        "role": "tool",
                        "tool_call_id": tool_call.id,
                        "name": tool_call.function.name,
                        "content": json.dumps(arguments),
                    }
                )
    print(choice.message.content)
    await client.close()


@program
async def partial_mode(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    prefix = "{\n  "
    completion = await client.chat.completions.create(
        model="kimi-k2.6",
        messages=[
            {"role": "system", "content": "Take size, colour and price from the text. Answer in JSON."},
            {"role": "user", "content": "A brown case of 30 cm for 99 dollars."},
            {"role": "assistant", "content": prefix, "partial": True},
        ],
        extra_body={"thinking": {"type": "disabled"}},
    )
    print(prefix + completion.choices[0].message.content)
    completion = await client.chat.completions.create(
        model="kimi-k3",
        messages=[
            {"role": "system", "content": "You play a doctor."},
            {"role": "user", "content": "What do you think of rain?"},
            {"role": "assistant", "name": "Kal'tsit", "content": "", "partial": True},
        ],
    )
    print(completion.choices[0].message.content)
    await client.close()


@program
async def answer_in_json(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    completion = await client.chat.completions.create(
        model="kimi-k3",
        messages=[
            {"role": "system", "content": 'Answer in JSON: {"text": "...", "image": "...", "url": "..."}'},
            {"role": "user", "content": "Introduce yourself."},
        ],
        response_format={"type": "json_object"},
    )
    print(sorted(json.loads(completion.choices[0].message.content)))
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "year": {"type": "integer"}},
        "required": ["name", "year"],
        "additionalProperties": False,
    }
    completion = await client.chat.completions.create(
        model="kimi-k3",
        messages=[{"role": "user", "content": "A company."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "company", "strict": True, "schema": schema},
        },
    )
    print(sorted(json.loads(completion.choices[0].message.content)))
    await client.close()


@program
async def thinking_aloud(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    stream = await client.chat.completions.create(
        model="kimi-k3",
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=1024 * 32,
    )
    thinking = False
    out: list[str] = []
    async for chunk in stream:
        if chunk.usage:
            print(
                "tokens",
                chunk.usage.total_tokens == chunk.usage.prompt_tokens + chunk.usage.completion_tokens,
            )
        if chunk.choices:
            choice = chunk.choices[0]
            if choice.delta and hasattr(choice.delta, "reasoning_content"):  # noqa: SIM102
                if (thought := getattr(choice.delta, "reasoning_content")) is not None:  # noqa: B009
                    if not thinking:
                        thinking = True
                        out.append("<think>")
                    out.append(thought)
            if choice.delta and choice.delta.content:
                if thinking:
                    thinking = False
                    out.append("</think>")
                out.append(choice.delta.content)
    print("".join(out))
    completion = await client.chat.completions.create(
        model="kimi-k3", messages=[{"role": "user", "content": "Why is the sky blue?"}]
    )
    message = completion.choices[0].message
    if hasattr(message, "reasoning_content"):
        print(getattr(message, "reasoning_content"))  # noqa: B009
    await client.close()


@program
async def questions_about_files(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    paths = [tmp / "rivers.txt", tmp / "hills.md"]
    paths[0].write_text("Rivers bend.", "utf-8")
    paths[1].write_text("# Hills\nHills stay.", "utf-8")
    messages: list[Any] = []
    for path in paths:
        file_object = await client.files.create(file=path, purpose="file-extract")
        print(file_object.filename, file_object.bytes, file_object.purpose, file_object.status)
        content = (await client.files.content(file_id=file_object.id)).text
        messages.append({"role": "system", "content": content})
    completion = await client.chat.completions.create(
        model="kimi-k2.6", messages=[*messages, SYSTEM, {"role": "user", "content": "What bends?"}]
    )
    print(completion.choices[0].message.content)
    file_list = await client.files.list()
    for each in file_list.data:
        print(each.filename, (await client.files.delete(file_id=each.id)).deleted)
    print([each.filename async for each in client.files.list()])
    await client.close()


@program
async def a_picture(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    (tmp / "kimi.png").write_bytes(
        base64.b64decode(
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
        )
    )
    with open(tmp / "kimi.png", "rb") as f:  # noqa: ASYNC230
        data = f.read()
    url = f"data:image/{os.path.splitext('kimi.png')[1][1:]};base64,{base64.b64encode(data).decode()}"
    for image in (url, None):
        if image is None:
            with open(tmp / "kimi.png", "rb") as f:  # noqa: ASYNC230
                uploaded = await client.files.create(file=f, purpose="image")
            image = f"ms://{uploaded.id}"
        completion = await client.chat.completions.create(
            model="kimi-k2.6",
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": image}},
                        {"type": "text", "text": "What is in the picture?"},
                    ],
                }
            ],
        )
        print(completion.choices[0].finish_reason, bool(completion.choices[0].message.content))
    await client.close()


@program
async def tokens_and_balance(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    body = {"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Hello, what is 1 + 1?"}]}
    counted = await client.post("/tokenizers/estimate-token-count", body=body, cast_to=object)
    print(counted["data"]["total_tokens"])
    balance = await client.get("/users/me/balance", cast_to=object)
    print(sorted(balance["data"]), balance["status"])
    models = await client.models.list()
    print([model.id for model in models.data])
    await client.close()


@program
async def a_batch(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    lines = [
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "kimi-k2.6", "messages": [{"role": "user", "content": f"Say {number}."}]},
        }
        for number in range(3)
    ]
    path = tmp / "requests.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    with open(path, "rb") as file:  # noqa: ASYNC230
        file_object = await client.files.create(file=file, purpose="batch")
    batch = await client.batches.create(
        input_file_id=file_object.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"kind": "nightly"},
    )
    print(batch.endpoint, batch.completion_window, batch.metadata)
    for _ in range(600):
        batch = await client.batches.retrieve(batch.id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            break
        await asyncio.sleep(0.05)
    counts = batch.request_counts
    print(batch.status, counts.total, counts.completed, counts.failed)
    content = await client.files.content(batch.output_file_id)
    rows = [json.loads(line) for line in content.text.strip().split("\n")]
    for row in sorted(rows, key=lambda row: row["custom_id"]):
        print(row["custom_id"], row["response"]["body"]["choices"][0]["message"]["content"])
    content.write_to_file(tmp / "out.jsonl")
    print((tmp / "out.jsonl").read_bytes() == content.content == content.read())
    page = await client.batches.list(limit=10)
    print(len(page.data), page.data[0].status)
    await client.close()


@program
async def many_at_once(sdk: Any, print: Print, tmp: Path) -> None:
    semaphore = asyncio.Semaphore(3)
    async with make_client(sdk) as client:

        async def ask(number: int) -> str:
            async with semaphore:
                try:
                    completion = await client.with_options(timeout=20, max_retries=5).chat.completions.create(
                        model="kimi-k3" if number != 4 else "no-such-model",
                        messages=[{"role": "user", "content": f"Number {number}?"}],
                    )
                except sdk.RateLimitError as e:
                    return f"limited {e.status_code}"
                except sdk.APIStatusError as e:
                    return f"{type(e).__name__} {e.status_code} {e.response.status_code} {e.body['type']}"
                except sdk.APIConnectionError:
                    return "lost"
                return completion.choices[0].message.content

        for each in await asyncio.gather(*(ask(number) for number in range(8)), return_exceptions=True):
            print(each)


@program
async def a_formula(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    uri = "moonshot/web-search:latest"
    tools = (await client.get(f"/formulas/{uri}/tools", cast_to=object))["tools"]
    print([tool["function"]["name"] for tool in tools])
    fiber = await client.post(
        f"/formulas/{uri}/fibers",
        body={"name": "web_search", "arguments": json.dumps({"query": "rivers"})},
        cast_to=object,
    )
    print(fiber["status"], fiber["object"], sorted(fiber["context"]))
    await client.close()


@program
async def raw_and_buffers(sdk: Any, print: Print, tmp: Path) -> None:
    client = make_client(sdk)
    raw = await client.chat.completions.with_raw_response.create(
        model="kimi-k3", messages=[{"role": "user", "content": "Hi."}]
    )
    completion = raw.parse()
    print(raw.status_code, raw.headers.get("content-type"), completion.choices[0].message.content)
    uploaded = await client.files.create(
        file=("note.txt", io.BytesIO(b"Rivers bend."), "text/plain"), purpose="file-extract"
    )
    got = await client.files.retrieve(uploaded.id)
    print(got.filename, got.bytes)
    await client.close()


@pytest.mark.parametrize("story", PROGRAMS, ids=lambda each: each.__name__)
async def test_published_program(story: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With only the import changed it prints the same."""
    printed: list[list[tuple[Any, ...]]] = []
    for sdk in (openai, kimi_async):
        lines: list[tuple[Any, ...]] = []

        def write(*values: Any, lines: list[tuple[Any, ...]] = lines) -> None:
            lines.append(values)

        home = tmp_path / sdk.__name__
        home.mkdir()
        async with KimiSimulator() as simulator:
            monkeypatch.setenv("MOONSHOT_BASE_URL", simulator.base_url)
            monkeypatch.setenv("MOONSHOT_API_KEY", simulator.api_key)
            if story is web_search:
                arguments = {"search_result": {"search_id": "1"}, "usage": {"total_tokens": 1_000}}
                simulator.say(
                    Turn(tool_calls=(ToolCall("$web_search:0", "$web_search", json.dumps(arguments)),))
                )
            await story(sdk, write, home)
        printed.append(lines)

    assert printed[0]
    assert printed[0] == printed[1]
