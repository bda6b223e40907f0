"""
Every gateway in its own words: a whole reply, a stream, an error and an error inside a stream, in the shapes that each has been
seen to send (sources beside its row in `kimi_async.providers`; values shortened).
"""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from kimi_async import (
    APIStatusError,
    AsyncKimi,
    AuthenticationError,
    ConfigurationError,
    EngineOverloadedError,
    InternalServerError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
)
from kimi_async.providers.hosts import PROVIDERS
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True)
class Shapes:
    """What one gateway sends."""

    whole: dict[str, Any]
    stream: list[str]
    errors: list[tuple[int, str, type[Exception]]]
    mid_stream: str
    mid_stream_error: type[Exception]
    reasoning: str | None = "Let me think."
    usage: tuple[int, int] = (12, 34)
    ends_with_done: bool = True
    request_id: tuple[str, str] = field(default=("x-request-id", "req-1"))


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more.pop("choice", {})}
    return json.dumps(
        {
            "id": "c-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [choice],
            **more,
        }
    )


def official(model: str = "kimi-k3") -> Shapes:
    usage = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46, "cached_tokens": 12}
    message = {"role": "assistant", "content": "Hello!", "reasoning_content": "Let me think."}
    return Shapes(
        whole={
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        },
        stream=[
            chunk({"role": "assistant", "content": ""}),
            chunk({"reasoning_content": "Let me "}),
            chunk({"reasoning_content": "think."}),
            chunk({"content": "Hel"}),
            chunk({"content": "lo!"}),
            chunk({}, "stop", choice={"usage": usage}),
        ],
        errors=[
            (
                401,
                '{"error":{"message":"Incorrect API key provided","type":"incorrect_api_key_error"}}',
                AuthenticationError,
            ),
            (
                429,
                '{"error":{"message":"The engine is currently overloaded, please try again later","type":"engine_overloaded_error"}}',
                EngineOverloadedError,
            ),
            (
                403,
                '{"error":{"message":"Your account org-0123456789abcdef<ak-0123456789> is not active, organization <org-0123456789abcdef> exceeded current quota, '
                'please check your plan and billing details","type":"exceeded_current_quota_error"}}',
                QuotaExceededError,
            ),
            (504, "<html><body><h1>504 Gateway Time-out</h1></body></html>", InternalServerError),
        ],
        mid_stream='{"error":{"message":"The engine is currently overloaded, please try again later","type":"engine_overloaded_error"}}',
        mid_stream_error=EngineOverloadedError,
        request_id=("msh-request-id", "e1c6b6b8"),
    )


ROUTER_USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 34,
    "total_tokens": 46,
    "cost": 0.001371,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 30, "image_tokens": 0, "audio_tokens": 0},
}
DETAILS = [{"type": "reasoning.text", "text": "Let me think.", "format": "unknown", "index": 0}]

GATEWAYS: dict[str, Shapes] = {
    "moonshot": official(),
    "moonshot-cn": official(),
    "kimi-code": official("kimi-for-coding"),
    "api365": official("kimi-k2.5"),
    "acedata": Shapes(
        whole={
            "id": "msg_2D4Btbg1",
            "object": "chat.completion",
            "created": 1784466588,
            "model": "kimi-k3",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "logprobs": None, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46},
        },
        stream=[
            chunk({"content": "", "role": "assistant"}, usage=None),
            chunk({"reasoning_content": "Let me think."}, usage=None),
            chunk({"content": "Hello!"}, usage=None),
            chunk({}, "stop", usage=None),
            json.dumps(
                {
                    "id": "msg_1",
                    "object": "chat.completion.chunk",
                    "choices": [],
                    "usage": {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46},
                }
            ),
        ],
        errors=[
            (500, '{"success":false,"error":{"code":"api_error","message":"fetch failed"},"trace_id":"2cf86e86"}', InternalServerError),
            (401, '{"success":false,"error":{"code":"invalid_token","message":"bad"},"trace_id":"t"}', AuthenticationError),
            (400, '{"success":false,"error":{"code":"token_mismatched","message":"bad"},"trace_id":"t"}', AuthenticationError),
            (429, '{"success":false,"error":{"code":"too_many_requests","message":"slow"},"trace_id":"t"}', RateLimitError),
        ],
        mid_stream='{"success":false,"error":{"code":"api_error","message":"fetch failed"},"trace_id":"2cf86e86"}',
        mid_stream_error=InternalServerError,
    ),
    "aimlapi": Shapes(
        whole={
            "id": "gen-1",
            "object": "chat.completion",
            "created": 1,
            "model": "moonshot/kimi-k2-6",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "Hello!",
                        "refusal": None,
                        "reasoning": "Let me think.",
                        "reasoning_details": DETAILS,
                    },
                    "logprobs": None,
                    "finish_reason": "stop",
                    "native_finish_reason": "stop",
                }
            ],
            "usage": ROUTER_USAGE,
            "meta": {"usage": {"credits_used": 1892, "usd_spent": 0.000946}},
        },
        stream=[
            chunk({"role": "assistant", "content": "", "reasoning": "Let me think.", "reasoning_details": DETAILS}),
            chunk({"role": "assistant", "content": "Hello!"}),
            chunk({"role": "assistant", "content": ""}, "stop", usage=ROUTER_USAGE),
        ],
        errors=[
            (429, '{"message":"Too Many Requests","path":"/v1/chat/completions","requestId":"798b860e","statusCode":429}', RateLimitError),
            (403, '{"message":"You\'ve run out of credits. Please top up","path":"/v1/x","requestId":"r","statusCode":403}', QuotaExceededError),
            (504, '{"message":"Generation timeout","path":"/v1/x","requestId":"r","statusCode":"504"}', InternalServerError),
        ],
        mid_stream='{"message":"Bad Gateway","path":"/v1/chat/completions","requestId":"r","statusCode":502}',
        mid_stream_error=InternalServerError,
    ),
    "openrouter": Shapes(
        whole={
            "id": "gen-1",
            "provider": "Moonshot AI",
            "model": "moonshotai/kimi-k3",
            "object": "chat.completion",
            "created": 1,
            "choices": [
                {
                    "logprobs": None,
                    "finish_reason": "stop",
                    "native_finish_reason": "stop",
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "Hello!",
                        "refusal": None,
                        "reasoning": "Let me think.",
                        "reasoning_details": DETAILS,
                    },
                }
            ],
            "usage": ROUTER_USAGE,
        },
        stream=[
            ": OPENROUTER PROCESSING",
            chunk({"role": "assistant", "content": "", "reasoning": "Let me think.", "reasoning_details": DETAILS}, provider="Moonshot AI"),
            chunk({"role": "assistant", "content": "Hello!"}, choice={"native_finish_reason": None, "logprobs": None}),
            chunk({"role": "assistant", "content": ""}, "stop", usage=ROUTER_USAGE),
        ],
        errors=[
            (402, '{"error":{"code":402,"message":"Insufficient credits"}}', QuotaExceededError),
            (429, '{"error":{"code":429,"message":"Rate limit exceeded","metadata":{"error_type":"rate_limit_exceeded"}}}', RateLimitError),
            (502, '{"error":{"code":502,"message":"Provider returned error","metadata":{"error_type":"provider_unavailable"}}}', InternalServerError),
        ],
        mid_stream=json.dumps(
            {
                "id": "gen-abc",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "moonshotai/kimi-k3",
                "provider": "Moonshot AI",
                "error": {"code": 502, "message": "Provider disconnected", "metadata": {"error_type": "provider_unavailable"}},
                "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
            }
        ),
        mid_stream_error=InternalServerError,
        request_id=("x-generation-id", "gen-1"),
    ),
    "vllm": Shapes(
        whole={
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "moonshotai/Kimi-K3",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "Hello!",
                        "refusal": None,
                        "annotations": None,
                        "audio": None,
                        "function_call": None,
                        "tool_calls": [],
                        "reasoning": "Let me think.",
                        "reasoning_content": None,
                    },
                    "logprobs": None,
                    "finish_reason": "stop",
                    "stop_reason": None,
                    "token_ids": None,
                }
            ],
            "service_tier": None,
            "system_fingerprint": None,
            "usage": {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46, "prompt_tokens_details": None},
            "prompt_logprobs": None,
            "kv_transfer_params": None,
        },
        stream=[
            chunk({"role": "assistant", "content": "", "reasoning_content": None}, choice={"logprobs": None, "token_ids": None}),
            chunk({"reasoning": "Let me think.", "reasoning_content": None}, choice={"logprobs": None}),
            chunk({"content": "Hello!", "reasoning_content": None}, choice={"logprobs": None}),
            chunk({"content": "", "reasoning_content": None}, "stop", choice={"stop_reason": 163586}),
            json.dumps(
                {"id": "c", "choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}}
            ),
        ],
        errors=[
            (401, '{"error":"Unauthorized"}', AuthenticationError),
            (404, '{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":null,"code":404}}', NotFoundError),
            (400, '{"object":"error","message":"This model\'s maximum context length is 8 tokens","type":"BadRequestError","param":null,"code":400}', APIStatusError),
        ],
        mid_stream='{"error":{"message":"EngineCore died","type":"InternalServerError","param":null,"code":500}}',
        mid_stream_error=InternalServerError,
    ),
    "sglang": Shapes(
        whole={
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "moonshotai/Kimi-K3",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hello!", "reasoning_content": "Let me think.", "tool_calls": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                    "matched_stop": 163586,
                }
            ],
            "usage": {"prompt_tokens": 12, "total_tokens": 46, "completion_tokens": 34, "prompt_tokens_details": None},
        },
        stream=[
            chunk({"role": "assistant", "content": "", "reasoning_content": None, "tool_calls": None}, usage=None),
            chunk({"role": None, "content": None, "reasoning_content": "Let me think.", "tool_calls": None}, usage=None),
            chunk({"role": None, "content": "Hello!", "reasoning_content": None, "tool_calls": None}, usage=None),
            chunk({"role": None, "content": None, "reasoning_content": None, "tool_calls": None}, "stop", usage=None),
            json.dumps(
                {"id": "1", "choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}}
            ),
        ],
        errors=[
            (400, '{"object":"error","message":"bad","type":"BadRequest","param":null,"code":400}', APIStatusError),
            (422, '{"detail":[{"loc":["body","messages"],"msg":"field required","type":"value_error.missing"}]}', APIStatusError),
        ],
        mid_stream='{"object":"error","message":"scheduler crashed","type":"internal_server_error","code":500}',
        mid_stream_error=InternalServerError,
    ),
}  # fmt: skip


def events(lines: list[str]) -> bytes:
    return "".join(f"{line}\n\n" if line.startswith(":") else f"data: {line}\n\n" for line in lines).encode()


def client(name: str, reply: Reply, sent: list[Request] | None = None) -> AsyncKimi:
    async def handler(request: Request) -> Reply:
        if sent is not None:
            sent.append(request)
        return reply

    return AsyncKimi(provider=name, api_key="sk-test", max_retries=0, transport=MemoryTransport(handler))


def test_gateways_complete() -> None:
    """Every row of the table of providers is held to its shapes here."""
    assert set(PROVIDERS) == set(GATEWAYS)


@pytest.mark.parametrize("name", GATEWAYS)
async def test_gateway_whole(name: str) -> None:
    """Text, reasoning, usage and request id are found under whatever names they have."""
    shapes = GATEWAYS[name]
    header, value = shapes.request_id
    reply = Reply(headers={header: value, "content-type": "application/json"}, body=json.dumps(shapes.whole))

    completion = await client(name, reply).chat.completions.create(model="m", messages=MESSAGES)

    message = completion.choices[0].message
    assert "Hello!" == message.content
    if name != "acedata":
        assert "Let me think." == message.reasoning_content
    assert completion.usage is not None
    assert shapes.usage == (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    assert value == completion._request_id


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("name", GATEWAYS)
async def test_gateway_stream(name: str, status: int) -> None:
    """A stream gives the same, from chunks of whatever shape; any 2xx is success."""
    shapes = GATEWAYS[name]
    reply = Reply(status, {"content-type": "text/event-stream"}, events([*shapes.stream, "[DONE]"]))

    async with client(name, reply).chat.completions.stream(model="m", messages=MESSAGES) as stream:
        reasoning = "".join([event.delta async for event in stream if event.type == "reasoning.delta"])
        completion = await stream.get_final_completion()

    message = completion.choices[0].message
    assert ("Hello!", "Let me think.", "Let me think.") == (
        message.content,
        message.reasoning_content,
        reasoning,
    )
    assert "stop" == completion.choices[0].finish_reason
    assert completion.usage is not None
    assert shapes.usage == (completion.usage.prompt_tokens, completion.usage.completion_tokens)


@pytest.mark.parametrize(
    ("name", "status", "body", "expected"),
    [(name, *error) for name, shapes in GATEWAYS.items() for error in shapes.errors],
)
async def test_gateway_error(name: str, status: int, body: str, expected: type[Exception]) -> None:
    """Money, limits, keys and outages are told apart in every gateway's words."""
    with pytest.raises(expected) as caught:
        await client(name, Reply(status, {}, body)).chat.completions.create(model="m", messages=MESSAGES)

    assert isinstance(caught.value, APIStatusError)
    assert status == caught.value.status_code
    assert "org-0123" not in str(caught.value)


@pytest.mark.parametrize("name", GATEWAYS)
async def test_gateway_error_in_stream(name: str) -> None:
    """An error inside a stream has the class that it would have outside, and brings what had arrived."""
    shapes = GATEWAYS[name]
    cut = [
        line for line in shapes.stream if 'finish_reason": "stop"' not in line and '"choices": []' not in line
    ]
    reply = Reply(200, {"content-type": "text/event-stream"}, events([*cut, shapes.mid_stream, "[DONE]"]))
    got: list[str] = []

    with pytest.raises(shapes.mid_stream_error) as caught:
        async for each in await client(name, reply).chat.completions.create(
            model="m", messages=MESSAGES, stream=True
        ):
            got.append(each.choices[0].delta.content or "")

    assert "Hello!" == "".join(got)
    assert isinstance(caught.value, APIStatusError)
    assert "Hello!" == caught.value.partial.choices[0].message.content


async def test_gateway_choice_is_error_under_200() -> None:
    """OpenRouter reports a provider's failure as the choice of a good reply."""
    body = json.dumps(
        {
            "id": "gen-1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": ""},
                    "finish_reason": "error",
                    "error": {"code": 502, "message": "Provider returned error"},
                }
            ],
        }
    )

    with pytest.raises(InternalServerError, match="Provider returned error"):
        await client("openrouter", Reply(body=body)).chat.completions.create(model="m", messages=MESSAGES)


@pytest.mark.parametrize("name", ["vllm", "openrouter", "moonshot"])
async def test_gateway_reasoning_goes_back(name: str) -> None:
    """
    Earlier reasoning goes back under the names that the server reads, byte for byte, from dicts and from reply objects.
    """
    whole = Reply(body=json.dumps(GATEWAYS[name].whole))
    sent: list[Request] = []
    kimi = client(name, whole, sent)
    answer = (await kimi.chat.completions.create(model="m", messages=MESSAGES)).choices[0].message
    mine = {"role": "assistant", "content": "x", "reasoning_content": ""}

    await kimi.chat.completions.create(model="m", messages=[*MESSAGES, answer, mine])

    first, second = sent[1].json()["messages"][1:]
    for field_name in PROVIDERS[name].request_reasoning:
        assert "Let me think." == first[field_name]
        assert "" == second[field_name]
    if name == "openrouter":
        assert DETAILS == first["reasoning_details"]


@pytest.mark.parametrize(
    ("name", "call"), [("acedata", "models"), ("openrouter", "balance"), ("vllm", "tokenizers")]
)
async def test_gateway_missing_endpoint(name: str, call: str) -> None:
    """
    An endpoint that a gateway does not have is a clear error before anything is sent, not a 404 after it.
    """
    sent: list[Request] = []
    kimi = client(name, Reply(404), sent)

    with pytest.raises(ConfigurationError, match=PROVIDERS[name].title):
        if call == "models":
            await kimi.models.list()
        elif call == "balance":
            await kimi.users.me.balance()
        else:
            await kimi.tokenizers.estimate_token_count(model="m", messages=MESSAGES)

    assert [] == sent


async def test_gateway_foreign_model_id() -> None:
    """A model id in another gateway's form says whose it is, and which ids exist here."""

    async def handler(request: Request) -> Reply:
        if request.path.endswith("/models"):
            return Reply(body='{"object":"list","data":[{"id":"kimi-k3"},{"id":"kimi-k2.6"}]}')
        return Reply(
            404,
            body='{"error":{"message":"Not found the model moonshotai/kimi-k2.6 or Permission denied","type":"resource_not_found_error"}}',
        )

    kimi = AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler))

    with pytest.raises(NotFoundError) as caught:
        await kimi.chat.completions.create(model="moonshotai/kimi-k2.6", messages=MESSAGES)

    assert "OpenRouter" in str(caught.value)
    assert "kimi-k3, kimi-k2.6" in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "known", "found"),
    [
        ("kimi-k2.6", ["kimi-k3", "kimi-k2.6"], "kimi-k2.6"),
        ("kimi-k2.6", ["moonshotai/kimi-k3", "moonshotai/kimi-k2.6"], "moonshotai/kimi-k2.6"),
        ("moonshotai/kimi-k2.6", ["kimi-k3", "kimi-k2.6"], "kimi-k2.6"),
        ("kimi-k2.6", ["moonshot/kimi-k2-6", "other/model"], "moonshot/kimi-k2-6"),
        ("kimi-k3", ["moonshotai/Kimi-K3"], "moonshotai/Kimi-K3"),
    ],
)
async def test_models_resolve(wanted: str, known: list[str], found: str) -> None:
    """A model is found by any gateway's name for it, in the list that the host gives."""
    body = json.dumps({"object": "list", "data": [{"id": each} for each in known]})

    assert found == (await client("moonshot", Reply(body=body)).models.resolve(wanted)).id


async def test_models_resolve_unknown() -> None:
    """A name that fits nothing is refused with the ids there are."""
    body = '{"object":"list","data":[{"id":"kimi-k3"}]}'

    with pytest.raises(ConfigurationError, match="kimi-k3"):
        await client("moonshot", Reply(body=body)).models.resolve("kimi-k9")


def test_provider_base_url_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """`base_url` beside `provider` moves the address and keeps the rest."""
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-0123456789abcdef")

    kimi = AsyncKimi(provider="openrouter", base_url="http://localhost:9/relay")

    assert ("http://localhost:9/relay/", "sk-or-0123456789abcdef") == (kimi.base_url, kimi.api_key)
    assert kimi.provider is PROVIDERS["openrouter"]


def test_provider_without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of one's own needs no key, and then none is sent."""
    for name in ("MOONSHOT_API_KEY", "KIMI_API_KEY", "VLLM_API_KEY", "VLLM_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    kimi = AsyncKimi(provider="vllm")

    assert "http://localhost:8000/v1/" == kimi.base_url
    assert "Authorization" not in kimi.default_headers
