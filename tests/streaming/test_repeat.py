"""
An answer that nobody has seen anything of is asked for again where it breaks off.
"""

import json
from typing import Any

import pytest

from kimi_async import AsyncKimi, BadRequestError, IncompleteStreamError
from kimi_async.streaming.resume import Repeater
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request

QUESTION = [{"role": "user", "content": "Count."}]
DONE = b"data: [DONE]\n\n"


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def event(delta: Any, finish: Any = None) -> bytes:
    return data({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


FIN = event({}, "stop")
CUT = event({"role": "assistant", "content": "One"}) + event({"content": " two"})
WHOLE = event({"role": "assistant", "content": "Two"}) + event({"content": " ones"}) + FIN + DONE
WRONG = CUT + data({"error": {"message": "Invalid request", "type": "invalid_request_error", "code": 400}})


class Host:
    """
    Gives these bodies in turn.
    """

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = list(bodies)
        self.requests: list[Any] = []
        self.transport = MemoryTransport(self)

    async def __call__(self, request: Request) -> Reply:
        self.requests.append(request.json())
        return Reply(headers={"content-type": "text/event-stream"}, body=self.bodies.pop(0))

    def stream(self, **options: Any) -> Any:
        client = AsyncKimi(api_key="sk-test", transport=self.transport, **options)
        return client.chat.completions.stream(model="kimi-k3", messages=QUESTION)


async def test_final_completion_is_repeated_unseen() -> None:
    """
    Two drops cost nothing but their requests; the result tells of them.
    """
    host = Host(CUT, CUT, WHOLE)
    async with host.stream() as stream:
        completion = await stream.get_final_completion()

    assert "Two ones" == completion.choices[0].message.content
    assert [1, 2] == [each.number for each in completion.attempts]
    assert 1 == len({str(each) for each in host.requests})
    assert "Two ones" == stream.current_completion_snapshot.choices[0].message.content
    assert 0 == host.transport.open


async def test_final_text_gives_up_after_max_retries() -> None:
    """
    It ends as a plain stream does, with the attempts before.
    """
    host = Host(CUT, CUT, WHOLE)
    with pytest.raises(IncompleteStreamError) as caught:
        async with host.stream(max_retries=1) as stream:
            await stream.get_final_text()

    assert "One two" == caught.value.partial.choices[0].message.content
    assert 1 == len(caught.value.attempts)


async def test_what_was_seen_is_not_repeated() -> None:
    """
    Once an event was handed out, a drop is an error: the answer must not change under the reader's eyes.
    """
    host = Host(CUT, WHOLE)
    async with host.stream() as stream:
        await anext(stream)
        with pytest.raises(IncompleteStreamError):
            await stream.get_final_completion()

    assert 1 == len(host.requests)


async def test_what_repetition_cannot_mend_is_not_repeated() -> None:
    """
    A refusal in the stream that will come again is raised at once.
    """
    host = Host(WRONG, WHOLE)
    async with host.stream() as stream:
        with pytest.raises(BadRequestError):
            await stream.get_final_completion()

    assert 1 == len(host.requests)


async def test_repeater_tells_that_it_begins_anew() -> None:
    """
    Who reads the chunks of a stream that may be repeated is told where they begin again.
    """
    host = Host(CUT, WHOLE)
    client = AsyncKimi(api_key="sk-test", transport=host.transport)

    async def again() -> Any:
        return await client.chat.completions.create(model="kimi-k3", messages=QUESTION, stream=True)

    said: list[str] = []
    stream = await again()
    stream.repeat_with(Repeater(again, 1, said.clear))
    async for chunk in stream:
        said.append(chunk.choices[0].delta.content or "")

    assert "Two ones" == "".join(said) == stream.snapshot().choices[0].message.content


async def test_snapshots_are_never_ahead() -> None:
    """
    However many chunks came in one packet, an event shows the answer as far as it has been told.
    """
    host = Host(
        event({"role": "assistant", "content": ""})
        + b"".join(event({"content": letter}) for letter in "abc")
        + event({"tool_calls": [{"index": 0, "id": "f:0", "function": {"name": "f", "arguments": "{}"}}]})
        + event({}, "tool_calls")
        + DONE
    )
    seen: list[tuple[str, bool, Any]] = []
    async with host.stream() as stream:
        async for each in stream:
            if each.type == "content.delta":
                choice = stream.current_completion_snapshot.choices[0]
                seen.append((each.snapshot, bool(choice.message.tool_calls), choice.message.content))

    assert [("a", False, "a"), ("ab", False, "ab"), ("abc", False, "abc")] == seen
