"""
What servers that are "compatible" send, and what it is read as: the answer, or the error that it is, never a silent loss.

Each row was reported of a host that serves Kimi, or stands beside one that was.
"""

import json
from typing import Any

import pytest

from kimi_async import (
    APIResponseValidationError,
    APIStatusError,
    AsyncKimi,
    ConfigurationError,
    IncompleteStreamError,
    RateLimitReachedError,
    ResumePolicy,
)
from kimi_async.providers.advice import KimiWarning
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request

QUESTION = [{"role": "user", "content": "Greet."}]
HOST = "http://127.0.0.1:9/v1"


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def event(delta: Any, finish: Any = None, **more: Any) -> bytes:
    return data({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


HI = event({"role": "assistant", "content": "Hello"})
FIN = event({}, "stop")
DONE = b"data: [DONE]\n\n"


class Host:
    """
    Answers every request with the next of its bodies, and the last of them from then on.
    """

    def __init__(self, *bodies: bytes, kind: str = "text/event-stream", **options: Any) -> None:
        self.bodies = list(bodies)
        self.kind = kind
        self.requests: list[Any] = []
        options.setdefault("base_url", HOST)
        if options.get("provider") is not None:
            del options["base_url"]
        self.client = AsyncKimi(api_key="sk-test", transport=MemoryTransport(self), advice=False, **options)

    async def __call__(self, request: Request) -> Reply:
        self.requests.append(request.json())
        body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
        return Reply(headers={"content-type": self.kind}, body=body)

    async def stream(self, **options: Any) -> Any:
        return await self.client.chat.completions.create(
            model="kimi-k3", messages=QUESTION, stream=True, **options
        )

    async def final(self, **options: Any) -> Any:
        async with self.client.chat.completions.stream(
            model="kimi-k3", messages=QUESTION, **options
        ) as stream:
            return await stream.get_final_completion()

    async def whole(self) -> Any:
        return await self.client.chat.completions.create(model="kimi-k3", messages=QUESTION)


def text(completion: Any) -> str:
    return completion.choices[0].message.content or ""


# --- errors that do not look like errors ---------------------------------------------------------------------------------

TPM = {"code": 429, "message": "TPM limit reached", "data": None}
PRETTY = json.dumps({"error": {"message": "rate limit reached", "code": 429}}, indent=2).encode() + b"\n\n"


@pytest.mark.parametrize(
    "told",
    [
        data(TPM),
        b"event: error\n" + data(TPM),
        b"event: error\n" + data({"code": 429, "message": "slow down, TPM limit reached", "choices": []}),
        b"event: error\ndata: TPM limit reached: 429 rate limit\n\n",
        data({"choices": [], "x_groq": {"error": {"code": 429, "message": "TPM limit reached"}}}),
        data({"choices": [], "x_groq": {"error": "rate limit reached"}}),
        b'{"error":{"message":"TPM limit reached","code":429}}\n\n',
        b'{"error":{"message":"TPM limit reached","code":429}}\n',
        PRETTY,
        data({"error_code": 429, "error_msg": "TPM limit reached"}),
        data({"base_resp": {"status_code": 429, "status_msg": "TPM limit reached"}}),
        data({"type": "error", "message": "rate limit reached", "code": 429}),
        data({"errors": [{"message": "TPM limit reached", "code": 429}]}),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["at once", "byte by byte"])
async def test_error_in_stream_is_raised(told: bytes, whole: bool) -> None:
    """
    An error in any envelope raises what it means, with what had arrived before it.
    """
    body = HI + told + DONE

    async def pieces() -> Any:
        for at in range(len(body)):
            yield body[at : at + 1]

    async def serve(_: Request) -> Reply:
        return Reply(headers={"content-type": "text/event-stream"}, body=body if whole else pieces())

    client = AsyncKimi(api_key="sk-test", base_url=HOST, transport=MemoryTransport(serve), max_retries=0)
    stream = await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)

    with pytest.raises(APIStatusError) as caught:
        async for _ in stream:
            pass

    assert "Hello" == text(caught.value.partial)
    assert "limit" in caught.value.message


async def test_error_code_decides_class() -> None:
    """
    A flat error's number is the status that the reply could no longer have.
    """
    host = Host(HI + data(TPM) + DONE, max_retries=0)

    with pytest.raises(RateLimitReachedError, match="TPM limit reached"):
        await host.final()


@pytest.mark.parametrize(
    "told",
    [
        data(TPM),
        b"event: error\n" + data(TPM),
        b'{"error":{"message":"TPM limit reached","code":429}}\n\n' + DONE,
        PRETTY.replace(b"rate limit", b"TPM limit") + DONE,
    ],
)
async def test_error_as_first_event_keeps_its_message(told: bytes) -> None:
    """
    Before anything else it is the same error, in the server's words.
    """
    host = Host(told, max_retries=0)

    with pytest.raises(RateLimitReachedError, match="TPM limit reached"):
        await host.stream()


@pytest.mark.parametrize(
    "harmless",
    [
        data({"type": "ping"}),
        data({"code": 0, "message": "success", "data": None}),
        data({"message": "processing"}),
        event({"content": ""}, error=""),
        event({"content": ""}, error={}),
        event({"content": ""}, error=False),
        b"event: ping\ndata: {}\n\n",
        b"retry: 100\n\n",
        b": comment\n\n",
    ],
)
async def test_harmless_event_is_no_error(harmless: bytes) -> None:
    """
    Pings, greetings and empty errors do not end an answer.
    """
    assert "Hello" == text(await Host(HI + harmless + FIN + DONE).final())


# --- ends ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["moonshot", "moonshot-cn", "openrouter", "vllm"])
async def test_done_without_finish_reason_is_incomplete_where_one_is_always_sent(provider: str) -> None:
    """
    A host that always says `finish_reason` was cut where it says `[DONE]` without.
    """
    host = Host(HI + DONE, provider=provider, max_retries=0)

    with pytest.raises(IncompleteStreamError) as caught:
        await host.final()

    assert "Hello" == text(caught.value.partial)


async def test_done_without_finish_reason_warns_elsewhere() -> None:
    """
    Elsewhere the answer is handed out, its end unknown, with a warning.
    """
    with pytest.warns(KimiWarning, match="finish_reason"):
        completion = await Host(HI + DONE).final()

    assert ("Hello", None) == (text(completion), completion.choices[0].finish_reason)


async def test_half_a_tool_call_is_never_whole() -> None:
    """
    A call whose arguments end in the middle is incomplete on every host.
    """
    call = {"index": 0, "id": "f:0", "function": {"name": "f", "arguments": '{"a'}}

    with pytest.raises(IncompleteStreamError, match="tool call"):
        await Host(event({"tool_calls": [call]}) + DONE, max_retries=0).final()


@pytest.mark.parametrize(
    "body",
    [
        HI + FIN[:-1] + DONE,
        HI[:-1] + FIN[:-1] + DONE[:-1],
        HI + FIN + b"data: [DONE]\ndata: [DONE]\n\n",
        HI + FIN + b'data: "[DONE]"\n\n',
        HI + FIN + b"data: <nil>\n\n",
        HI + FIN + b"data: <nil>\n\n" + DONE,
        HI + FIN,
        HI.replace(b"\n\n", b"\r\n\r\n") + FIN.replace(b"\n\n", b"\r\n\r\n") + DONE,
    ],
    ids=["one LF", "no blank line", "twice", "quoted", "nil", "nil, done", "no done", "CRLF"],
)
async def test_end_in_every_form(body: bytes) -> None:
    """
    However the goodbye is written, the answer before it is whole.
    """
    assert "Hello" == text(await Host(body).final())


# --- other shapes -----------------------------------------------------------------------------------------------------------

MESSAGE = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": None}]
}
COMPLETION = {"id": "c", "choices": [{"text": "Hello", "index": 0, "finish_reason": None}]}
LINES = b"".join(each.removeprefix(b"data: ").strip() + b"\n" for each in (HI, FIN))


@pytest.mark.parametrize(
    "body",
    [
        data(MESSAGE) + FIN + DONE,
        data({**COMPLETION, "object": "text_completion"}) + FIN + DONE,
        data({"choices": [{"text": "Hello", "index": 0, "finish_reason": "stop"}]}) + DONE,
        data({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}) + DONE,
        LINES,
        LINES + DONE,
        event({"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}) + FIN + DONE,
        event({"content": "Hello"}, created="2026-09-01T10:00:00Z") + FIN + DONE,
        event({"content": "Hello"}, usage=[]) + FIN + DONE,
        event({"content": "Hello"}, False) + FIN + DONE,
        event({"content": "Hello", "tool_calls": {}}) + FIN + DONE,
        event([]) + HI + FIN + DONE,
        HI.replace(b'"c"', b"17") + FIN + DONE,
        HI
        + event({}, "stop", usage={"prompt_tokens": 9.0, "completion_tokens": 10.0, "total_tokens": 19.0})
        + DONE,
        HI + event({}, "stop", system_fingerprint={"a": 1}, service_tier=[2]) + DONE,
    ],
)
async def test_streamed_answer_in_foreign_shape(body: bytes) -> None:
    """
    The text is found wherever it stands, and one unimportant field never costs it.
    """
    assert "Hello" == text(await Host(body).final())


WHOLE: dict[str, Any] = {
    "id": "c",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
}


@pytest.mark.parametrize(
    "body",
    [
        HI + FIN + DONE,
        b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + HI + FIN + DONE,
        LINES,
        json.dumps({**WHOLE, "id": 17}).encode(),
        json.dumps({**WHOLE, "created": "2026-09-01T10:00:00Z"}).encode(),
        json.dumps({**WHOLE, "usage": []}).encode(),
        json.dumps({**WHOLE, "error": ""}).encode(),
        json.dumps({**WHOLE, "error": {}}).encode(),
        json.dumps({**WHOLE, "error": False}).encode(),
        json.dumps({"choices": [{"message": {"content": [{"type": "text", "text": "Hello"}]}}]}).encode(),
        json.dumps({"choices": [{"delta": {"content": "Hello"}, "finish_reason": "stop"}]}).encode(),
        json.dumps({"choices": [{"text": "Hello", "finish_reason": "stop"}]}).encode(),
    ],
)
async def test_whole_answer_in_foreign_shape(body: bytes) -> None:
    """
    A plain call understands a stream, and the same leniencies as one; and is sent once.
    """
    host = Host(body, kind="application/json")

    assert "Hello" == text(await host.whole())
    assert 1 == len(host.requests)


async def test_arguments_as_object() -> None:
    """
    Arguments that came as an object are the text of it.
    """
    call = {"index": 0, "id": 7, "function": {"name": "f", "arguments": {"a": 1}}}
    streamed = await Host(event({"tool_calls": [call]}) + event({}, "tool_calls") + DONE).final()
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    whole = await Host(body, kind="application/json").whole()

    for completion in (streamed, whole):
        found = completion.choices[0].message.tool_calls[0]
        assert ("7", {"a": 1}) == (found.id, json.loads(found.function.arguments))


@pytest.mark.parametrize("body", [b'{"object":"list","data":[]}', b"[1]", b'{"choices":7}', b'{"a":1}'])
async def test_wrong_shape_is_not_asked_for_again(body: bytes) -> None:
    """
    JSON of another shape under status 200 is what the server means: it is asked, and paid, once.
    """
    host = Host(body, kind="application/json", max_retries=2)

    with pytest.raises(APIResponseValidationError):
        await host.whole()
    with pytest.raises(APIResponseValidationError):
        await host.stream()

    assert 2 == len(host.requests)


# --- usage ------------------------------------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 19}


@pytest.mark.parametrize(
    "end",
    [
        event({}, "stop", usage=USAGE),
        event({}, "stop", x_groq={"id": "r", "usage": USAGE}),
        event(
            {}, "stop", **{"amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 10}}
        ),
        event({}, "stop", usage={"input_tokens": 9, "output_tokens": 10}),
        event({"content": ""}, "stop", usage={"input_tokens": 9, "output_tokens": 10}),
        event({}, "stop") + data({"choices": [], "usage": {"input_tokens": 9, "output_tokens": 10}}),
        data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}),
    ],
)
async def test_usage_under_every_name(end: bytes) -> None:
    """
    Tokens are counted wherever the host says them.
    """
    completion = await Host(HI + end + DONE).final()

    assert (9, 10, 19) == (
        completion.usage.prompt_tokens,
        completion.usage.completion_tokens,
        completion.usage.total_tokens,
    )


async def test_usage_cached_tokens_under_other_name() -> None:
    """
    DeepSeek's name for cached tokens is understood, streamed and whole.
    """
    usage = {**USAGE, "prompt_cache_hit_tokens": 4}
    streamed = await Host(HI + event({}, "stop", usage=usage) + DONE).final()
    whole = await Host(json.dumps({**WHOLE, "usage": usage}).encode(), kind="application/json").whole()

    assert 4 == streamed.usage.cached_tokens == whole.usage.cached_tokens


async def test_usage_cost_is_what_the_host_charged() -> None:
    """
    OpenRouter's `cost` is the number it sent, streamed and whole.
    """
    usage = {**USAGE, "cost": 0.0125}
    streamed = await Host(HI + event({}, "stop") + data({"choices": [], "usage": usage}) + DONE).final()
    whole = await Host(json.dumps({**WHOLE, "usage": usage}).encode(), kind="application/json").whole()

    assert 0.0125 == streamed.usage.cost == whole.usage.cost
    assert 0.0125 == whole.usage.model_dump()["cost"]


async def test_usage_in_every_chunk_is_the_latest() -> None:
    """
    Where every chunk counts up, the last number holds, also in what had arrived of a stream that broke off.
    """
    parts = [
        event({"content": "x"}, usage={"prompt_tokens": 1, "completion_tokens": n}) for n in range(1, 501)
    ]
    whole = await Host(b"".join(parts) + FIN + DONE).final()
    with pytest.raises(IncompleteStreamError) as caught:
        await Host(b"".join(parts), max_retries=0).final()

    assert 500 == whole.usage.completion_tokens
    assert 500 == caught.value.partial.usage.completion_tokens


@pytest.mark.parametrize("provider", ["vllm", "sglang"])
async def test_helper_asks_for_usage_where_it_must_be_asked(provider: str) -> None:
    """
    `stream()` has its usage also where the server says it only when asked; who says something else is obeyed.
    """
    host = Host(HI + FIN + data({"choices": [], "usage": USAGE}) + DONE, provider=provider)

    assert 19 == (await host.final()).usage.total_tokens
    await host.final(stream_options={"include_usage": False})

    assert [{"include_usage": True}, {"include_usage": False}] == [
        each["stream_options"] for each in host.requests
    ]


# --- resume --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["openrouter", "vllm", "sglang", "aimlapi"])
async def test_resume_refused_where_partial_is_not_known(provider: str) -> None:
    """
    A host that would begin anew is not asked to go on: the reason is told when `resume=` is given.
    """
    host = Host(HI, provider=provider)

    with pytest.raises(ConfigurationError, match="partial"):
        await host.stream(resume=ResumePolicy())

    assert [] == host.requests


async def test_resume_of_answer_begun_anew() -> None:
    """
    An unknown host that begins the answer anew gives it once.
    """
    cut = event({"role": "assistant", "content": "Hello"}) + event({"content": " wor"})
    anew = cut + event({"content": "ld"}) + FIN + DONE
    stream = await Host(cut, anew).stream(resume=ResumePolicy())

    said = "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])

    assert "Hello world" == said == text(stream.snapshot())


async def test_resume_of_answer_that_goes_on() -> None:
    """
    A continuation that begins as the answer did, and goes elsewhere, is handed out as it came.
    """
    cut = event({"role": "assistant", "content": "la la la "}) + event({"content": "la "})
    rest = event({"content": "la la "}) + event({"content": "fin"}) + FIN + DONE
    stream = await Host(cut, rest).stream(resume=ResumePolicy())

    said = "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])

    assert "la la la la la la fin" == said == text(stream.snapshot())
