"""
What the simulator says, byte for byte, and in which order: error bodies, headers, chunks, steps.

Everything here is a value. A reply is an `Answer` (status, headers, a body or a stream of payloads, a pace);
`script` turns it into steps (`Head`, `Send`, `Pause`, `End`, `Cut`), which `faults` may rewrite and which
the socket server and `MemoryTransport` carry out.

Bodies and header names follow the official API documentation (platform.kimi.ai/docs/api/errors and /chat) and
captures of the official host that users have published; what is only believed is marked so where it stands.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from ...sse import encode_event
from .chat_model import Generated

__all__ = [
    "ACCOUNT",
    "ERRORS",
    "Account",
    "Answer",
    "Cut",
    "End",
    "Head",
    "Pace",
    "Pause",
    "Raw",
    "Refusal",
    "Send",
    "Step",
    "chunks",
    "completion",
    "error_reply",
    "headers_for",
    "json_bytes",
    "paced",
    "script",
    "usage_of",
]

_encoder = msgspec.json.Encoder()


def json_bytes(value: object) -> bytes:
    """Compact JSON, keys in the order given."""
    return _encoder.encode(value)


# --- steps ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """
    Status line and headers.

    `framing` says how the body is delimited: "chunked", "length" (`length` bytes are promised, whatever is
    sent), or "close" (by the end of the connection). `trickle` spreads the bytes over so many seconds.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    framing: str = "chunked"
    length: int = 0
    trickle: float = 0.0


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes of the body, written at once (one chunk, if chunked). `events` counts the events they end."""

    data: bytes
    events: int = 0


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes written below HTTP, as they are. A transport without sockets cannot do this."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """
    Nothing happens for `seconds`; `math.inf` waits until the client goes away.

    With `tempo` it is a beat of the pace: a server that is late shortens it.
    """

    seconds: float
    tempo: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The body ends as HTTP wants it; with `close_after` the idle connection is closed that many seconds later."""

    close_after: float | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends here: `how` is "fin" or "rst"."""

    how: str = "fin"


Step = Head | Send | Raw | Pause | End | Cut


# --- errors ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """The ids that Kimi writes into error messages and headers; a client must not let them into its logs."""

    organization: str = "org-5a3d9e3c1f2b4a6d8e7f90123456789a"
    key_id: str = "ak-f3k2m9x7q1w8z5v4t6b0"
    user: str = "cq3simulator0user0id"
    project: str = "proj-7f1e2d3c4b5a69788796a5b4c3d2e1f0"
    group: str = "enterprise-unlimited"  # with limits: "enterprise-tier-N"; clients read the tier from it

    @property
    def name(self) -> str:
        return f"{self.organization}<{self.key_id}>"


ACCOUNT = Account()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error reply: what Kimi answers instead of a completion. `body` overrides the JSON form."""

    status: int
    type: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = "application/json; charset=utf-8"
    kind: str = ""  # for counters; the type if empty

    def payload(self) -> bytes:
        if self.body is not None:
            return self.body
        return json_bytes({"error": {"message": self.message, "type": self.type}})


_RETRY = (("Retry-After", "1"), ("X-Retry-After", "1"), ("Msh-Cooldown-Seconds", "1"))
_WHO = "Your account {account} "
_HTML = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_CLOUDFLARE = (
    "<!DOCTYPE html>\n<html><head><title>api.moonshot.ai | {0}</title></head>"
    "<body><h1>Error {0}</h1><p>cloudflare</p></body></html>\n"
)


def _json(status: int, type_: str, message: str, *, retry: bool = False) -> Refusal:
    return Refusal(status, type_, message, _RETRY if retry else ())


def _html(status: int, title: str, template: str = _HTML) -> Refusal:
    return Refusal(status, "", title, (), template.format(title).encode(), "text/html", f"html_{status}")


ERRORS: Mapping[str, Refusal] = {
    # 400
    "invalid_request": _json(400, "invalid_request_error", "Invalid request: malformed"),
    "context_length": _json(
        400, "invalid_request_error", "Invalid request: Your request exceeded model token limit: 262144"
    ),
    "input_too_long": _json(400, "invalid_request_error", "Input token length too long"),
    "content_filter": _json(
        400, "content_filter", "The request was rejected because it was considered high risk"
    ),
    # 401, 403, 404, 413
    "incorrect_api_key": _json(401, "incorrect_api_key_error", "Incorrect API key provided"),
    "invalid_authentication": _json(401, "invalid_authentication_error", "Invalid Authentication"),
    "permission_denied": _json(
        403, "permission_denied_error", "Your IP is not allowed to access this organization"
    ),
    "access_terminated": _json(
        403,
        "access_terminated_error",
        "Kimi For Coding is currently only available for Coding Agents such as Kimi CLI, Claude Code, "
        "Roo Code, Kilo Code, etc.",
    ),
    "quota_403": _json(
        403,
        "exceeded_current_quota_error",
        _WHO + "is not active, organization <{organization}> exceeded current quota, "
        "please check your plan and billing details",
    ),
    "not_found": _json(404, "resource_not_found_error", "Not found the model kimi-k2.5 or Permission denied"),
    "too_large": _json(413, "invalid_request_error", "Request exceeds the maximum size"),
    # 408 and 409 were never captured; the official client retries them, so they exist.
    "timeout_408": _json(408, "server_error", "Request timeout"),
    "conflict": _json(409, "server_error", "Conflict"),
    # 429, all its meanings
    "concurrency": _json(
        429,
        "rate_limit_reached_error",
        _WHO + "request reached organization max concurrency: {limit}, please try again after 1 seconds",
        retry=True,
    ),
    "rpm": _json(
        429,
        "rate_limit_reached_error",
        _WHO + "request reached organization max RPM: {limit}, please try again after 1 seconds",
        retry=True,
    ),
    "rpm_hidden": _json(
        429,
        "rate_limit_reached_error",
        "Organization Rate limit exceeded, please try again after 1 seconds",
        retry=True,
    ),
    "tpm": _json(
        429,
        "rate_limit_reached_error",
        _WHO + "request reached organization TPM rate limit, current: {current}, limit: {limit}",
        retry=True,
    ),
    "tpd": _json(
        429,
        "rate_limit_reached_error",
        _WHO + "request reached organization TPD rate limit, current: {current}, limit: {limit}",
        retry=True,
    ),
    # Captured live without any Retry-After.
    "overloaded": _json(
        429, "engine_overloaded_error", "The engine is currently overloaded, please try again later"
    ),
    "quota": _json(
        429,
        "exceeded_current_quota_error",
        "You exceeded your current token quota: <{organization}> 0, please check your account balance",
    ),
    "suspended": _json(
        429,
        "exceeded_current_quota_error",
        _WHO + "is suspended due to insufficient balance, please recharge your account "
        "or check your plan and billing details",
    ),
    # 5xx; the body of a 503 was never captured.
    "server_error": _json(500, "server_error", "Internal server error"),
    "unexpected_output": _json(500, "unexpected_output", "The model output could not be parsed"),
    "unavailable": _json(503, "server_unavailable", "The server is temporarily unavailable"),
    "bad_gateway": _html(502, "502 Bad Gateway"),
    "gateway_timeout": _html(504, "504 Gateway Time-out"),
    "cloudflare_520": _html(520, "520: Web server is returning an unknown error", _CLOUDFLARE),
    "cloudflare_524": _html(524, "524: A timeout occurred", _CLOUDFLARE),
    "overloaded_529": Refusal(529, "", "", (), b"", "text/plain", "empty_529"),
}
"""Every kind of refusal by name, with its true body and headers; `{…}` in messages is filled in by `error_reply`."""


def error_reply(kind: str, *, account: Account = ACCOUNT, limit: int = 3, current: int = 0) -> Refusal:
    """The refusal called `kind`, its placeholders filled; KeyError lists what there is."""
    try:
        refusal = ERRORS[kind]
    except KeyError:
        raise KeyError(f"no error reply is called {kind!r}; there are: {', '.join(ERRORS)}") from None
    message = refusal.message.format(
        account=account.name, organization=account.organization, limit=limit, current=current
    )
    return Refusal(
        refusal.status,
        refusal.type,
        message,
        refusal.headers,
        refusal.body,
        refusal.content_type,
        refusal.kind or kind,
    )


# --- headers --------------------------------------------------------------------------------------------


def headers_for(
    ordinal: int, *, seed: int = 0, account: Account | None = ACCOUNT, content_type: str
) -> list[tuple[str, str]]:
    """
    The headers of every reply, in the order of the captures. `account` None leaves out the account ids (401s).

    The ids are a function of `seed` and `ordinal`, so a run can be repeated; `Msh-Request-Id` is shaped
    as a version-1 UUID and `X-Msh-Trace-Id` has 32 hex digits. The edge sets a cookie that no client needs.
    """
    digest = hashlib.blake2b(f"{seed}:{ordinal}".encode(), digest_size=32).hexdigest()
    request_id = f"{digest[:8]}-{digest[8:12]}-11f1-9{digest[13:16]}-{digest[16:28]}"
    headers = [
        ("Content-Type", content_type),
        ("Server-Timing", 'cfCacheStatus;desc="DYNAMIC"'),
        ("Msh-Request-Id", request_id),
        ("Msh-Trace-Mode", "on"),
    ]
    if account is not None:
        headers.append(("Msh-Uid", account.user))
        headers.append(("Msh-Gid", account.group))
        headers.append(("Msh-Org-Id", account.organization))
        headers.append(("Msh-Project-Id", account.project))
    headers += [
        ("Vary", "Origin"),
        ("X-Msh-Trace-Id", digest[32:]),
        ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
        ("cf-cache-status", "DYNAMIC"),
        ("Server", "cloudflare"),
        ("CF-RAY", f"{digest[40:56]}-PRG"),
        ("Set-Cookie", f"__cf_bm={digest[:43]}; path=/; HttpOnly; SameSite=None"),
    ]
    return headers


# --- bodies ---------------------------------------------------------------------------------------------


def usage_of(generated: Generated, prompt_tokens: int, cached_tokens: int = 0) -> dict[str, object]:
    """
    `usage` with Kimi's keys in Kimi's order.

    The cached count stands in two places, and in neither (not 0) without a hit; `completion_tokens_details`
    appears whenever there was reasoning.
    """
    completion_tokens = generated.completion_tokens
    usage: dict[str, object] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    if cached_tokens:
        usage["cached_tokens"] = cached_tokens
    if generated.reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": len(generated.reasoning)}
    if cached_tokens:
        usage["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    return usage


def completion(
    generated: Generated, *, id: str, created: int, model: str, usage: Mapping[str, object]
) -> dict[str, object]:
    """The body of a reply that was not streamed."""
    message: dict[str, object] = {"role": "assistant", "content": "".join(generated.content)}
    if generated.reasoning:
        message["reasoning_content"] = "".join(generated.reasoning)
    if generated.tool_calls:
        message["tool_calls"] = [call.wire() for call in generated.tool_calls]
    choice = {"index": 0, "message": message, "finish_reason": generated.finish_reason}
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": usage,
    }


def chunks(
    generated: Generated,
    *,
    id: str,
    created: int,
    model: str,
    usage: Mapping[str, object],
    include_usage: bool = False,
    tokens_per_chunk: int = 1,
) -> Iterator[bytes]:
    """
    The payloads of a stream, `[DONE]` included.

    Role chunk, reasoning, content, tool calls (head with an empty `arguments`, then fragments), finish chunk
    with `usage` inside its choice, and with `include_usage` a last chunk with `choices: []`.
    """
    head = json_bytes({"id": id, "object": "chat.completion.chunk", "created": created, "model": model})[:-1]
    before = head + b',"choices":[{"index":0,"delta":'
    print_ = f"fpv0_{hashlib.blake2b(model.encode(), digest_size=4).hexdigest()}".encode()
    tail = b'],"system_fingerprint":"' + print_ + b'"}'
    after = b',"finish_reason":null}' + tail
    encode = _encoder.encode

    yield before + b'{"role":"assistant","content":""}' + after
    for key, tokens in ((b"reasoning_content", generated.reasoning), (b"content", generated.content)):
        opening = before + b'{"' + key + b'":'
        for text in _grouped(tokens, tokens_per_chunk):
            yield opening + encode(text) + b"}" + after
    for index, call in enumerate(generated.tool_calls):
        first = {
            "index": index,
            "id": call.id,
            "type": call.type,
            "function": {"name": call.name, "arguments": ""},
        }
        yield before + b'{"tool_calls":[' + encode(first) + b"]}" + after
        for text in _fragments(call.arguments):
            fragment = {"index": index, "function": {"arguments": text}}
            yield before + b'{"tool_calls":[' + encode(fragment) + b"]}" + after
    finish = b'{},"finish_reason":' + encode(generated.finish_reason)
    yield before + finish + b',"usage":' + encode(usage) + b"}" + tail
    if include_usage:
        yield head + b',"choices":[],"usage":' + encode(usage) + b"}"
    yield b"[DONE]"


def _grouped(tokens: tuple[str, ...], size: int) -> Iterable[str]:
    if size <= 1:
        return tokens
    return ("".join(tokens[at : at + size]) for at in range(0, len(tokens), size))


def _fragments(arguments: str, size: int = 9) -> Iterator[str]:
    """Arguments come in fragments that respect nothing: not keys, not values, not escapes."""
    for at in range(0, len(arguments), size):
        yield arguments[at : at + size]


# --- pace and script ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pace:
    """
    How quickly the simulator speaks; all zero (the default) is as fast as it can.

    `headers` seconds pass before the status line, then `first_token` seconds before the first chunk with text,
    then `tokens_per_second` per stream (0 = no limit). `tokens_per_chunk` and `events_per_write` shape the stream.
    A reply that is not streamed sends its headers when the whole text would have been generated.
    """

    headers: float = 0.0
    first_token: float = 0.0
    tokens_per_second: float = 0.0
    tokens_per_chunk: int = 1
    events_per_write: int = 1

    def whole(self, tokens: int) -> float:
        """Seconds a reply of `tokens` takes that is not streamed."""
        speaking = tokens / self.tokens_per_second if self.tokens_per_second > 0 else 0.0
        return self.headers + self.first_token + speaking


@dataclass(slots=True)
class Answer:
    """
    A decided reply: either `body`, or `payloads` (one per event of a stream).

    `delay` is the wait before the headers. `closing` runs once when the reply has ended, however it ends.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    payloads: Iterable[bytes] | None = None
    delay: float = 0.0
    pace: Pace = field(default_factory=Pace)
    closing: Callable[[], None] | None = None
    refused: str = ""


def paced(events: Iterable[bytes], pace: Pace) -> Iterator[Step]:
    """Events as writes and pauses. The second event waits for the first token; the rest keep the tempo."""
    size = max(1, pace.events_per_write)
    gap = size * pace.tokens_per_chunk / pace.tokens_per_second if pace.tokens_per_second > 0 else 0.0
    source = iter(events)
    first = next(source, None)
    if first is None:
        return
    if pace.first_token > 0 or gap > 0:
        # The role chunk comes at once; it is the text that takes its time.
        yield Send(first, 1)
        if pace.first_token > 0:
            yield Pause(pace.first_token)
    else:
        source = itertools.chain((first,), source)
    waiting = False
    while group := list(itertools.islice(source, size)):
        if waiting and gap > 0:
            yield Pause(gap, tempo=True)
        waiting = True
        yield Send(b"".join(group) if len(group) > 1 else group[0], len(group))


def script(answer: Answer) -> Iterator[Step]:
    """The steps of an answer that nothing disturbs."""
    if answer.delay > 0:
        yield Pause(answer.delay)
    if answer.payloads is None:
        yield Head(answer.status, tuple(answer.headers), "length", len(answer.body))
        if answer.body:
            yield Send(answer.body)
    else:
        yield Head(answer.status, tuple(answer.headers))
        yield from paced(map(encode_event, answer.payloads), answer.pace)
    yield End()
