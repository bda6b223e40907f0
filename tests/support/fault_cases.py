"""
What servers, proxies and networks do to a chat, byte by byte, and what a client should make of it.

Data for `test_faults_on_sockets.py`, and for `compare_faults.py`, which shows the same to another client.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from kimi_async import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ContextLengthExceededError,
    IncompleteStreamError,
    InternalServerError,
    KimiError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitReachedError,
    RequestTooLargeError,
    StreamStalledError,
    UnprocessableEntityError,
)
from kimi_async.errors import RedirectRefusedError, ResponseTooLargeError
from support.raw_server import (
    COMPLETION,
    DONE,
    END,
    FINISH,
    HELLO,
    ROLE,
    USAGE,
    WHOLE,
    Conversation,
    chunk,
    chunked,
    event,
    head,
    reply,
    text,
)

Answer = Callable[[Conversation], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    name: str
    answer: Answer
    """Plays once a request has been read."""
    error: type[KimiError] | None = None
    """None: the call succeeds."""
    content: str | None = None
    """Of the answer, or of the error's `partial`; None: there is no partial."""
    chunks: int | None = None
    """Decoded before the error; None: not looked at."""
    sent: int = 1
    """Requests that a client with `max_retries=1` sends."""
    stream: bool = True
    phase: str | None = None
    told: str = ""
    """Found in the error's message."""
    options: dict[str, Any] = field(default_factory=dict)
    """For the client."""

    def __str__(self) -> str:
        return self.name


def says(*data: bytes) -> Answer:
    """Sends this and waits for the next request."""

    async def answer(conversation: Conversation) -> None:
        await conversation.send(*data)

    return answer


def says_and_ends(*data: bytes) -> Answer:
    """Sends this and closes with a FIN."""

    async def answer(conversation: Conversation) -> None:
        await conversation.send(*data)
        conversation.writer.close()

    return answer


def says_and_resets(*data: bytes) -> Answer:
    async def answer(conversation: Conversation) -> None:
        await conversation.send(*data)
        # The client must have read it: a RST may overtake what the kernel still holds.
        await asyncio.sleep(0.02)
        conversation.reset()

    return answer


def says_and_hangs(*data: bytes) -> Answer:
    async def answer(conversation: Conversation) -> None:
        await conversation.send(*data)
        await conversation.gone()

    return answer


def repeats(first: bytes, again: bytes, every: float) -> Answer:
    """Sends `first`, then `again` for ever."""

    async def answer(conversation: Conversation) -> None:
        await conversation.send(first)
        gone = asyncio.ensure_future(conversation.gone())
        try:
            while not (await asyncio.wait([gone], timeout=every))[0]:
                await conversation.send(again)
        finally:
            gone.cancel()
            await asyncio.wait([gone])

    return answer


def packets(*data: bytes, every: float = 0.001) -> Answer:
    """Each in a packet of its own."""

    async def answer(conversation: Conversation) -> None:
        for each in data:
            await conversation.send(each)
            await asyncio.sleep(every)

    return answer


def streams(*events: bytes) -> Answer:
    """These events as a whole, well-framed stream."""
    return says(head(), chunked(b"".join(events)), END)


def says_once(first: Answer, then: Answer) -> Answer:
    count = 0

    async def answer(conversation: Conversation) -> None:
        nonlocal count
        count += 1
        await (first if count == 1 else then)(conversation)

    return answer


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def packed_open(data: bytes) -> bytes:
    """Compressed and flushed, but not ended."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)


GZIP = "Content-Encoding: gzip"
HTML = b"<html><head><title>504 Gateway Time-out</title></head><body>nginx</body></html>"
SERVER_ERROR = {"error": {"message": "boom", "type": "server_error"}}
OPENROUTER_ERROR = chunk(
    {"content": ""},
    "error",
    error={
        "code": 502,
        "message": "Provider disconnected",
        "metadata": {"error_type": "provider_unavailable"},
    },
)
DEEP = b'{"choices":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def with_choices(*choices: dict[str, Any], **more: Any) -> bytes:
    return event({**chunk(), "choices": list(choices), **more})


BROKEN = [
    # --- the body ends, breaks or turns to nonsense
    Case("truncated between events", says(head(), chunked(HELLO), END), IncompleteStreamError, "Hello", 3),
    Case("truncated before the first event", says(head(), END), IncompleteStreamError, None, 0, sent=2),
    Case("truncated inside an event", says(head(), chunked(HELLO + text("!")[:-9]), END), IncompleteStreamError, "Hello", 3),
    Case("FIN without the terminator", says_and_ends(head(), chunked(HELLO)), IncompleteStreamError, "Hello", 3),
    Case("FIN inside a chunk of the framing", says_and_ends(head(), chunked(HELLO), b"ff\r\ndata"), IncompleteStreamError, "Hello", 3),
    Case("RST in the body", says_and_resets(head(), chunked(HELLO)), IncompleteStreamError, "Hello", 3),
    Case("RST before the first event", says_and_resets(head()), IncompleteStreamError, None, 0, sent=2),
    Case("bad chunk size after good events", says_and_ends(head(), chunked(HELLO), b"zz\r\n"), IncompleteStreamError, "Hello", 3),
    Case("bad chunk size in a later packet", packets(head(), chunked(HELLO), b"zz\r\n", every=0.01), IncompleteStreamError, "Hello", 3, told="chunk size"),
    Case("bad chunk size first", says_and_ends(head(), b"zz\r\n"), IncompleteStreamError, None, 0, sent=2),
    Case("close-delimited and cut", says_and_ends(head(framing="close"), HELLO), IncompleteStreamError, "Hello", 3),
    Case("Content-Length and cut", says_and_ends(head(framing="9999"), HELLO), IncompleteStreamError, "Hello", 3),
    Case("gzip and cut", says(head(200, GZIP), chunked(packed(HELLO * 50)[:-40]), END), IncompleteStreamError),
    Case("gzip of garbage", says(head(200, GZIP), chunked(b"this is not gzip at all"), END), IncompleteStreamError, None, 0, sent=2),
    Case("gzip and then garbage", packets(head(200, GZIP), chunked(packed_open(HELLO)), chunked(b"garbage"), END, every=0.02), IncompleteStreamError, "Hello", 3),
    Case("an event that is not JSON", streams(HELLO, event(b"oops"), FINISH, DONE), IncompleteStreamError, "Hello", 3, told="oops"),
    Case("an event that is half JSON", streams(HELLO, event(b'{"choices": [{"delta"'), DONE), IncompleteStreamError, "Hello", 3),
    Case("an event that is a string", streams(HELLO, event(b'"hello"'), DONE), IncompleteStreamError, "Hello", 3),
    Case("an event that is a list", streams(HELLO, event(b"[1, 2]"), DONE), IncompleteStreamError, "Hello", 3),
    Case("choices of a wrong type", streams(HELLO, event({"choices": "none"}), DONE), IncompleteStreamError, "Hello", 3),
    Case("nested too deeply", streams(HELLO, event(DEEP), DONE), IncompleteStreamError, "Hello", 3, told="deep"),
    Case("a giant event", streams(HELLO, text("x" * 20_000), DONE), IncompleteStreamError, "Hello", 3, told="max_event_size", options={"max_event_size": 10_000}),
    Case("a giant event without end", repeats(head() + chunked(HELLO + b"data: "), chunked(b"x" * 5_000), 0.001), IncompleteStreamError, "Hello", 3, told="max_event_size", options={"max_event_size": 10_000}),
    Case("an empty body", says(head(framing="0")), IncompleteStreamError, None, 0, sent=2),
    Case("204", says(b"HTTP/1.1 204 No Content\r\n\r\n"), IncompleteStreamError, None, 0, sent=2),
    Case("finish_reason empty, and cut", streams(event(chunk({"content": "Hel"}, "")), event(chunk({"content": "lo"}, ""))), IncompleteStreamError, "Hello", 2),
    Case("a second choice cut", streams(HELLO, FINISH, with_choices({"index": 1, "delta": {"role": "assistant"}, "finish_reason": None})), IncompleteStreamError, "Hello", 5),
    # --- silence
    Case("silence after the headers", says_and_hangs(head()), StreamStalledError, None, 0, sent=2, phase="first_token"),
    Case("silence in the middle", says_and_hangs(head(), chunked(HELLO)), StreamStalledError, "Hello", 3, phase="idle"),
    Case("silence inside an event", says_and_hangs(head(), chunked(HELLO + b"data: {")), StreamStalledError, "Hello", 3, phase="idle"),
    Case("comments for ever", repeats(head() + chunked(HELLO), chunked(b": still here\n\n"), 0.01), StreamStalledError, "Hello", 3, phase="idle"),
    Case("comments for ever, first", repeats(head(), chunked(b": PROCESSING\n\n"), 0.01), StreamStalledError, None, 0, sent=2, phase="first_token"),
    Case("blank lines for ever", repeats(head() + chunked(HELLO), chunked(b"\n\n\n"), 0.01), StreamStalledError, "Hello", 3, phase="idle"),
    Case("pings for ever", repeats(head() + chunked(HELLO), chunked(b"event: ping\ndata:\n\n"), 0.01), StreamStalledError, "Hello", 3, phase="idle"),
    Case("one byte at a time", repeats(head() + chunked(HELLO), chunked(b"d"), 0.01), StreamStalledError, "Hello", 3, phase="idle"),
    Case("JSON that stalls in place of a stream", says_and_hangs(head(200, kind="application/json"), chunked(b'{"id"')), StreamStalledError, None, 0, sent=2, phase="first_token"),
    Case("a flood that never ends within total", repeats(head() + chunked(HELLO), chunked(text(".")), 0.01), StreamStalledError, phase="total", options={"timeout": {"total": 0.2}}),
    # --- before the headers
    Case("no reply", says_and_hangs(), APITimeoutError, sent=2, phase="headers"),
    Case("headers that trickle", repeats(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"y", 0.01), APITimeoutError, sent=2, phase="headers"),
    Case("FIN in place of a reply", says_and_ends(), APIConnectionError, sent=2, phase="headers"),
    Case("RST in place of a reply", says_and_resets(), APIConnectionError, sent=2, phase="headers"),
    Case("FIN inside the headers", says_and_ends(b"HTTP/1.1 200 OK\r\nContent-"), APIConnectionError, sent=2, phase="headers"),
    Case("a status line that is none", says_and_ends(b"HTTP/1.1 abc\r\n\r\n"), APIConnectionError, sent=2, phase="headers"),
    Case("another protocol", says_and_ends(b"SSH-2.0-OpenSSH_9.6\r\n"), APIConnectionError, sent=2, phase="headers"),
    Case("a header without end", says_and_ends(b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 40_000 + b"\r\n\r\n"), APIConnectionError, sent=2, phase="headers"),
    Case("headers without end", repeats(b"HTTP/1.1 200 OK\r\n", b"X-Many: yes\r\n" * 500, 0.001), APIConnectionError, sent=2, phase="headers"),
    # --- errors in the stream
    Case("an error event first", streams(event(SERVER_ERROR)), InternalServerError, None, 0, sent=2, told="boom"),
    Case("an error event first that is final", streams(event({"error": {"message": "Invalid", "type": "invalid_authentication_error"}})), AuthenticationError, None, 0),
    Case("an error event in the middle", streams(HELLO, event(SERVER_ERROR)), InternalServerError, "Hello", 3, told="boom"),
    Case("an error event and then [DONE]", streams(HELLO, event(SERVER_ERROR), DONE), InternalServerError, "Hello", 3),
    Case("an error event after the finish", streams(HELLO, FINISH, event(SERVER_ERROR), DONE), InternalServerError, "Hello", 4),
    Case("an error event in a packet of its own", packets(head(), chunked(HELLO), chunked(event(SERVER_ERROR)), END), InternalServerError, "Hello", 3),
    Case("an error event of type event: error", streams(HELLO, b"event: error\n" + event(SERVER_ERROR)), InternalServerError, "Hello", 3),
    Case("an error that is a string", streams(HELLO, event({"error": "Unauthorized"})), KimiError, "Hello", 3, told="Unauthorized"),
    Case("an error in vLLM's old form", streams(HELLO, event({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400})), BadRequestError, "Hello", 3),
    Case("an error in vLLM's new form", streams(HELLO, event({"error": {"message": "no", "type": "BadRequestError", "code": 400}}), DONE), BadRequestError, "Hello", 3),
    Case("an error in AceData's form", streams(HELLO, event({"success": False, "error": {"code": "api_error", "message": "fetch failed"}, "trace_id": "t-1"})), InternalServerError, "Hello", 3, told="fetch failed"),
    Case("an error in OpenRouter's form", streams(HELLO, event(OPENROUTER_ERROR)), InternalServerError, "Hello", 3, told="Provider disconnected"),
    Case("an error in FastAPI's form", streams(HELLO, event({"detail": "gone wrong"})), KimiError, "Hello", 3, told="gone wrong"),
    Case("an error with half a character", streams(HELLO, event(b'{"error": {"message": "\\ud83c", "type": "server_error"}}')), InternalServerError, "Hello", 3),
    Case("finish_reason error", streams(HELLO, event(chunk(finish="error"))), InternalServerError, "Hello", 3, told="finish_reason"),
    Case("a rate limit in the middle", streams(HELLO, event({"error": {"message": "request reached organization max RPM: 3, please try again after 1 seconds", "type": "rate_limit_reached_error"}})), RateLimitReachedError, "Hello", 3),
    Case("an error in JSON with status 200", says(reply(SERVER_ERROR)), InternalServerError, None, 0, sent=2, told="boom"),
    Case("an error in JSON after a byte order mark", says(reply(b"\xef\xbb\xbf" + json.dumps(SERVER_ERROR).encode())), InternalServerError, None, 0, sent=2),
    Case("an error in JSON after a blank line", packets(head(kind="application/json"), chunked(b"\n"), chunked(json.dumps(SERVER_ERROR).encode()), END), InternalServerError, None, 0, sent=2, told="boom"),
    Case("JSON that is nothing known", says(reply(b'{"choices": 5}')), APIResponseValidationError, None, 0),
    Case("a web page with status 200", says(reply(HTML, kind="text/html")), APIResponseValidationError, None, 0, sent=2, told="text/html"),
    # --- refusals
    Case("504 in HTML", says(reply(HTML, 504, kind="text/html")), InternalServerError, sent=2, told="504"),
    Case("520 in HTML", says(reply(b"<!DOCTYPE html><title>520</title>", 520, kind="text/html")), InternalServerError, sent=2),
    Case("502 without a body", says(reply(b"", 502)), InternalServerError, sent=2, told="Bad Gateway"),
    Case("500 with half a body", says_and_ends(head(500, kind="application/json", framing="500"), b'{"error": {"message": "bo'), InternalServerError, sent=2),
    Case("500 and RST", says_and_resets(head(500, kind="application/json"), chunked(b'{"error":')), InternalServerError, sent=2),
    Case("500 whose body never ends", says_and_hangs(head(500, kind="application/json"), chunked(b'{"error":')), InternalServerError, sent=2),
    Case("500 whose body trickles", repeats(head(500, kind="text/plain"), chunked(b"x"), 0.01), InternalServerError, sent=2),
    Case("500 whose body is endless", repeats(head(500, kind="text/plain"), chunked(b"x" * 4096), 0.0001), InternalServerError, sent=2, options={"max_error_size": 20_000}),
    Case("500 in broken gzip", says(head(500, GZIP), chunked(b"not gzip"), END), InternalServerError, sent=2),
    Case("401 that is a string", says(reply({"error": "Unauthorized"}, 401)), AuthenticationError, told="Unauthorized"),
    Case("400 in vLLM's form", says(reply({"object": "error", "message": "This model's maximum context length is 8192 tokens", "type": "BadRequestError", "code": 400}, 400)), ContextLengthExceededError),
    Case("403 in NestJS's form", says(reply({"message": "You've run out of credits", "path": "/v1/chat/completions", "requestId": "r", "statusCode": "403"}, 403)), QuotaExceededError),
    Case("403", says(reply({"error": {"message": "The API you are accessing is not open", "type": "permission_denied_error"}}, 403)), PermissionDeniedError),
    Case("404", says(reply({"error": {"message": "Not found the model kimi-k9 or Permission denied", "type": "resource_not_found_error"}}, 404)), NotFoundError),
    Case("422 in FastAPI's form", says(reply({"detail": [{"loc": ["body"], "msg": "field required"}]}, 422)), UnprocessableEntityError, told="field required"),
    Case("413", says(reply({"error": {"message": "Request exceeds the maximum size", "type": "invalid_request_error"}}, 413)), RequestTooLargeError),
    Case("redirected to another origin", says(reply(b"", 307, "Location: http://127.0.0.1:9/v1/chat/completions")), RedirectRefusedError, told="127.0.0.1:9"),
    Case("redirected to another host by a 302", says(reply(b"", 302, "Location: https://example.com/")), RedirectRefusedError),
    Case("redirected to no address", says(reply(b"", 307, "Location: http://[oops")), RedirectRefusedError, told="cannot be read"),
    Case("redirected for ever", says(reply(b"", 307, "Location: /v1/chat/completions")), RedirectRefusedError, sent=4),
    Case("304", says(b"HTTP/1.1 304 Not Modified\r\n\r\n"), KimiError),
]  # fmt: skip

ONE = chunk()["choices"][0]

TOLERATED = [
    Case("whole", streams(WHOLE), None, "Hello", 4),
    Case("[DONE] without finish_reason", streams(HELLO, DONE), None, "Hello", 3),
    Case("finish_reason without [DONE]", streams(HELLO, FINISH), None, "Hello", 4),
    Case("finish_reason, then RST", says_and_resets(head(), chunked(HELLO + FINISH)), None, "Hello", 4),
    Case("finish_reason, then silence", says_and_hangs(head(), chunked(HELLO + FINISH)), None, "Hello", 4),
    Case("finish_reason, then comments for ever", repeats(head() + chunked(HELLO + FINISH), chunked(b": hi\n\n"), 0.01), None, "Hello", 4),
    Case("[DONE], then silence", says_and_hangs(head(), chunked(WHOLE)), None, "Hello", 4),
    Case("[DONE], then RST", says_and_resets(head(), chunked(WHOLE)), None, "Hello", 4),
    Case("[DONE], then garbage for ever", repeats(head() + chunked(WHOLE), chunked(b"x" * 1000), 0.001), None, "Hello", 4),
    Case("[DONE], then more events", streams(WHOLE, text("!"), DONE), None, "Hello", 4),
    Case("[DONE] with blanks", streams(HELLO, FINISH, b"data:  [DONE] \n\n"), None, "Hello", 4),
    Case("close-delimited and whole", says_and_ends(head(framing="close"), WHOLE), None, "Hello", 4),
    Case("gzip and whole", says(head(200, GZIP), chunked(packed(WHOLE)), END), None, "Hello", 4),
    Case("one byte a packet", packets(head(), *(chunked(WHOLE[i : i + 7]) for i in range(0, len(WHOLE), 7)), END, every=0.0), None, "Hello", 4),
    Case("CRLF", streams(WHOLE.replace(b"\n", b"\r\n")), None, "Hello", 4),
    Case("CR", streams(WHOLE.replace(b"\n", b"\r")), None, "Hello", 4),
    Case("no blank after the colon", streams(WHOLE.replace(b"data: ", b"data:")), None, "Hello", 4),
    Case("a byte order mark", streams(b"\xef\xbb\xbf", WHOLE), None, "Hello", 4),
    Case("the last blank line missing", streams(WHOLE[:-2]), None, "Hello", 4),
    Case("comments between", streams(b": OPENROUTER PROCESSING\n\n", HELLO, b": x\n\n", FINISH, DONE), None, "Hello", 4),
    Case("event: ping", streams(b"event: ping\ndata:\n\n", HELLO, b'event: ping\ndata: {"type": "ping"}\n\n', FINISH, DONE), None, "Hello"),
    Case("data: null", streams(event(b"null"), HELLO, event(b"null"), FINISH, DONE), None, "Hello"),
    Case("two objects in one event", streams(ROLE, event(text("Hel")[6:-2] + text("lo")[6:-2]), FINISH, DONE), None, "Hello", 4),
    Case("an error that is null", streams(ROLE, event(chunk({"content": "Hello"}, error=None)), FINISH, DONE), None, "Hello", 3),
    Case("a wrong content type", says(head(kind="application/json"), chunked(WHOLE), END), None, "Hello", 4),
    Case("no content type", says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(WHOLE), END), None, "Hello", 4),
    Case("201", says(head(201), chunked(WHOLE), END), None, "Hello", 4),
    Case("100 and 103 before it", says(b"HTTP/1.1 100 Continue\r\n\r\n", head(), chunked(WHOLE), END), None, "Hello", 4),
    Case("a completion in place of a stream", says(reply(COMPLETION)), None, "Hello", 1),
    Case("a completion with nulls in place of a stream", says(reply({**COMPLETION, "created": None, "usage": None})), None, "Hello", 1),
    Case("half characters", streams(ROLE, event(b'{"choices":[{"delta":{"content":"\\ud83c"}}]}'), event(b'{"choices":[{"delta":{"content":"\\udf75"}}]}'), FINISH, DONE), None, "🍵"),
    Case("half a character alone", streams(ROLE, event(b'{"choices":[{"delta":{"content":"a\\ud83c"}}]}'), text("b"), FINISH, DONE), None, "a\ufffdb"),
    Case("half a character last", streams(ROLE, event(b'{"choices":[{"delta":{"content":"a\\ud83c"}}]}'), FINISH, DONE), None, "a\ufffd"),
    Case("half a character elsewhere", streams(event(b'{"id":"\\ud83c","model":"\\udf75","choices":[{"delta":{"content":"Hello"},"finish_reason":"stop"}]}'), DONE), None, "Hello"),
    Case("invalid UTF-8", streams(ROLE, event(b'{"choices":[{"delta":{"content":"a\xffb"}}]}'), FINISH, DONE), None, "a\ufffdb"),
    Case("U+2028, U+2029 and U+0085 in the text", streams(ROLE, text("a\u2028b\u2029c\u0085d"), FINISH, DONE), None, "a\u2028b\u2029c\u0085d"),
    Case("a NUL in the text", streams(ROLE, text("a\x00b"), FINISH, DONE), None, "a\x00b"),
    Case("numbers as text", streams(ROLE, event(chunk({"content": "Hello"}, created="1762748041")), FINISH, DONE), None, "Hello"),
    Case("whole numbers as floats", streams(ROLE, event(b'{"created":1762748041.0,"choices":[{"index":0.0,"delta":{"content":"Hello"}}]}'), FINISH, DONE), None, "Hello"),
    Case("a time with a fraction", streams(ROLE, event(b'{"created":1762748041.123,"choices":[{"delta":{"content":"Hello"}}]}'), FINISH, DONE), None, "Hello"),
    Case("a huge number", streams(ROLE, event(b'{"created":' + b"9" * 30 + b',"choices":[{"delta":{"content":"Hello"}}]}'), FINISH, DONE), None, "Hello"),
    Case("a number of 5,000 digits in an unknown field", streams(ROLE, event(b'{"x":' + b"9" * 5000 + b',"choices":[{"delta":{"content":"Hello"}}]}'), FINISH, DONE), None, "Hello"),
    Case("NaN", streams(ROLE, event(b'{"x":NaN,"choices":[{"delta":{"content":"Hello"}}]}'), FINISH, DONE), None, "Hello"),
    Case("nulls everywhere", streams(ROLE, with_choices({"index": 0, "delta": {"content": "Hello", "tool_calls": None, "role": None}, "finish_reason": None, "logprobs": None}, usage=None, system_fingerprint=None), FINISH, DONE), None, "Hello"),
    Case("choices null", streams(ROLE, event({**chunk(), "choices": None}), text("Hello"), FINISH, DONE), None, "Hello"),
    Case("delta null", streams(ROLE, text("Hello"), with_choices({"index": 0, "delta": None, "finish_reason": "stop"}), DONE), None, "Hello"),
    Case("cut inside [DONE]", streams(HELLO, FINISH, DONE[:-6]), None, "Hello", 4),
    Case("finish_reason empty until the end", streams(event(chunk({"content": "Hel"}, "")), event(chunk({"content": "lo"}, "")), FINISH, DONE), None, "Hello", 3),
    Case("no role", streams(text("Hel"), text("lo"), FINISH, DONE), None, "Hello", 3),
    Case("the role in every chunk", streams(*(event(chunk({"role": "assistant", "content": part})) for part in ("Hel", "lo")), FINISH, DONE), None, "Hello", 3),
    Case("finish_reason twice", streams(HELLO, FINISH, FINISH, DONE), None, "Hello", 5),
    Case("usage with choices: []", streams(HELLO, FINISH, event({**chunk(usage=USAGE), "choices": []}), DONE), None, "Hello", 5),
    Case("usage in the choice", streams(HELLO, with_choices({**ONE, "finish_reason": "stop", "usage": USAGE}), DONE), None, "Hello", 4),
    Case("usage beside the last choice", streams(HELLO, event(chunk(finish="stop", usage=USAGE)), DONE), None, "Hello", 4),
    Case("redirected within the origin", says_once(says(reply(b"", 307, "Location: /v1/elsewhere")), streams(WHOLE)), None, "Hello", 4, sent=2),
    Case("FIN in place of a reply, then well", says_once(says_and_ends(), streams(WHOLE)), None, "Hello", 4, sent=2),
    Case("an error event first, then well", says_once(streams(event(SERVER_ERROR)), streams(WHOLE)), None, "Hello", 4, sent=2),
    Case("502, then well", says_once(says(reply(HTML, 502)), streams(WHOLE)), None, "Hello", 4, sent=2),
]  # fmt: skip


def whole(name: str, answer: Answer, error: type[KimiError] | None, sent: int = 1, **more: Any) -> Case:
    return Case(name, answer, error, sent=sent, stream=False, **more)


JSON = json.dumps(COMPLETION).encode()

NOT_STREAMED = [
    whole("a completion", says(reply(COMPLETION)), None, content="Hello"),
    whole("a completion as 201", says(reply(COMPLETION, 201)), None, content="Hello"),
    whole("a completion in gzip", says(head(200, GZIP, kind="application/json"), chunked(packed(JSON)), END), None, content="Hello"),
    whole("a completion after a byte order mark", says(reply(b"\xef\xbb\xbf" + JSON)), None, content="Hello"),
    whole("a completion with numbers as text", says(reply({**COMPLETION, "created": "1762748041"})), None, content="Hello"),
    whole("a completion with a fraction of a second", says(reply({**COMPLETION, "created": 1762748041.5})), None, content="Hello"),
    whole("a completion with nulls", says(reply({**COMPLETION, "usage": None, "created": None, "error": None, "system_fingerprint": None})), None, content="Hello"),
    whole("a completion with half a character", says(reply(JSON.replace(b"Hello", b"a\\ud83c"))), None, content="a\ufffd"),
    whole("a completion with invalid UTF-8", says(reply(JSON.replace(b"Hello", b"a\xff"))), None, content="a\ufffd"),
    whole("a completion that trickles in time", packets(head(kind="application/json"), *(chunked(JSON[i : i + 50]) for i in range(0, len(JSON), 50)), END), None, content="Hello"),
    whole("an empty body", says(reply(b"")), APIResponseValidationError, 2, told="empty"),
    whole("half of it, by Content-Length", says_and_ends(head(kind="application/json", framing="999"), JSON[:80]), APIConnectionError, 2, phase="body"),
    whole("half of it, close-delimited", says_and_ends(head(kind="application/json", framing="close"), JSON[:80]), APIResponseValidationError, 2),
    whole("half of it, then RST", says_and_resets(head(kind="application/json", framing="999"), JSON[:80]), APIConnectionError, 2, phase="body"),
    whole("half of it, then silence", says_and_hangs(head(kind="application/json", framing="999"), JSON[:80]), APITimeoutError, 2, phase="body"),
    whole("a byte every 10 ms", repeats(head(kind="application/json", framing="99999"), b" ", 0.01), APITimeoutError, 2, phase="body"),
    whole("a byte every 10 ms, past total", repeats(head(kind="application/json", framing="99999"), b" ", 0.01), APITimeoutError, 2, phase="total", options={"timeout": {"total": 0.15, "read": 60.0}}),
    whole("no reply", says_and_hangs(), APITimeoutError, 2, phase="headers"),
    whole("plain text", says(reply(b"ok", kind="text/plain")), APIResponseValidationError, 2, told="not JSON"),
    whole("a web page", says(reply(HTML, kind="text/html")), APIResponseValidationError, 2, told="HTML"),
    whole("a list", says(reply(b"[1, 2]")), APIResponseValidationError, 1),
    whole("a string", says(reply(b'"hello"')), APIResponseValidationError, 1),
    whole("null", says(reply(b"null")), APIResponseValidationError, 1),
    whole("an empty object", says(reply(b"{}")), APIResponseValidationError, 2, told="no choices"),
    whole("no choices", says(reply({**COMPLETION, "choices": []})), APIResponseValidationError, 2, told="no choices"),
    whole("choices of a wrong type", says(reply({**COMPLETION, "choices": 5})), APIResponseValidationError, 1),
    whole("nested too deeply", says(reply(DEEP)), APIResponseValidationError, 2),
    whole("an event stream", says(head(), chunked(WHOLE), END), None, content="Hello"),
    whole("an error with status 200", says(reply(SERVER_ERROR)), InternalServerError, 2, told="boom"),
    whole("an error in the choice", says(reply({**COMPLETION, "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "Provider disconnected"}}]})), InternalServerError, 2, told="Provider disconnected"),
    whole("an error in FastAPI's form with status 200", says(reply({"detail": "gone wrong"})), KimiError, 2, told="gone wrong"),
    whole("broken gzip", says(head(200, GZIP, kind="application/json"), chunked(b"not gzip"), END), APIConnectionError, 2, phase="body"),
    whole("cut gzip", says(head(200, GZIP, kind="application/json"), chunked(packed(JSON)[:-30]), END), KimiError, 2),
    whole("too large", says(reply(b" " * 5000)), ResponseTooLargeError, phase="body", options={"max_response_size": 1000}),
    whole("500 without a body", says(reply(b"", 500)), InternalServerError, 2),
    whole("500 whose body never ends", says_and_hangs(head(500, kind="application/json"), chunked(b'{"error":')), InternalServerError, 2),
    whole("redirected to another origin", says(reply(b"", 308, "Location: //example.com/v1/chat/completions")), RedirectRefusedError),
]  # fmt: skip

CASES = BROKEN + TOLERATED + NOT_STREAMED
