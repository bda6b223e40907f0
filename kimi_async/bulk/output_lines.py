"""
Output lines: what became of one request, as the Batch API writes it and a run of ours does.

    {"id": "request-1", "custom_id": "request-1",
     "response": {"status_code": 200, "request_id": "…", "body": {…}}, "error": null,
     "kimi_async": {"fingerprint": "…", "attempts": 1, "elapsed": 0.512}}

``kimi_async`` is ours; the server's lines do not have it.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

__all__ = [
    "MAX_OUTPUT_LINE",
    "Answer",
    "RunInfo",
    "Verdict",
    "answer_line",
    "decode_answer",
    "decode_verdict",
    "failure_line",
    "fingerprint",
    "supersedes",
]

# Output lines hold whole answers with their reasoning: far longer than any
# request, but a gigabyte without a line feed is not a line.
MAX_OUTPUT_LINE: Final = 256 * 1024 * 1024


class RunInfo(Struct, gc=False, omit_defaults=True):
    """What we add to an output line."""

    fingerprint: str = ""
    """Of the request's body; see `fingerprint`."""
    attempts: int = 1
    elapsed: float = 0.0
    """Seconds from taking the request up to its end, waiting included."""
    retryable: bool = False
    """For a failure: whether sending the request again can help."""


_NOTHING = Raw(b"null")


class _Response(Struct, gc=False):
    status_code: int | None = None
    request_id: str | None = None
    body: Raw = _NOTHING


# Lines without a status_code were answered: the error file is where others are.
_GOOD = frozenset([None, *range(200, 300)])


class Answer(Struct, gc=False):
    """One output line."""

    custom_id: str
    response: _Response | None = None
    error: object = None
    """Null, or what went wrong: ``{"code"?, "message"}``."""
    kimi_async: RunInfo | None = None

    @property
    def status_code(self) -> int | None:
        """The reply's HTTP status; None where there was no reply."""
        response = self.response
        if response is None:
            return None
        return 200 if response.status_code is None else response.status_code

    @property
    def body(self) -> bytes | None:
        """The reply's body as JSON."""
        response = self.response
        if response is None:
            return None
        raw = bytes(response.body)
        return None if raw == b"null" else raw

    @property
    def ok(self) -> bool:
        """Whether it holds an answer: a reply with status 2xx (or none told), and no error."""
        response = self.response
        return response is not None and self.error is None and response.status_code in _GOOD

    @property
    def transient(self) -> bool:
        """Whether it holds a failure that sending again may mend."""
        if self.kimi_async is not None:
            return self.kimi_async.retryable and not self.ok
        if self.ok:
            return False
        status = self.status_code
        return status is None or status in (408, 409, 429) or status >= 500


def supersedes(later: Answer, earlier: Answer) -> bool:
    """
    Which of two lines for one id stands: an answer rather than a failure, else the later one.

    Unless they say that the request was changed in between: then the later line is all there is about the new one.
    """
    if later.ok or not earlier.ok:
        return True
    before, after = earlier.kimi_async, later.kimi_async
    return (
        before is not None
        and after is not None
        and bool(before.fingerprint)
        and bool(after.fingerprint)
        and before.fingerprint != after.fingerprint
    )


class _Status(Struct, gc=False):
    status_code: int | None = 200


class Verdict(Struct, gc=False):
    """As little of an output line as tells whose it is and whether it is an answer."""

    custom_id: str
    response: _Status | None = None
    error: object = None

    @property
    def ok(self) -> bool:
        """See `Answer.ok`."""
        response = self.response
        return response is not None and self.error is None and response.status_code in _GOOD


decode_verdict: Callable[[bytes | str], Verdict] = msgspec.json.Decoder(Verdict).decode
decode_answer: Callable[[bytes | str], Answer] = msgspec.json.Decoder(Answer).decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def fingerprint(body: object, *, enc_hook: Callable[[object], object] | None = None) -> str:
    """
    32 hexadecimal digits that differ when the request differs, whatever the order of its keys.

    ``body`` is anything msgspec can encode, or JSON bytes.
    """
    if isinstance(body, bytes | Raw):
        body = msgspec.json.decode(body)
    if enc_hook is None:
        data = _encode_sorted(body)
    else:
        data = msgspec.json.encode(body, order="sorted", enc_hook=enc_hook)
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def answer_line(
    custom_id: str, body: bytes, *, request_id: str | None = None, status_code: int = 200, run: RunInfo
) -> bytes:
    """The output line for a reply, without line feed. ``body`` must be JSON; it is put in as it came."""
    if b"\n" in body:
        # In JSON a bare line feed can only stand between tokens, so this changes no value.
        body = body.replace(b"\n", b" ")
    name = _encode(custom_id)
    return (
        b'{"id":%b,"custom_id":%b,"response":{"status_code":%d,"request_id":%b,"body":%b},"error":null,"kimi_async":%b}'
        % (
            name,
            name,
            status_code,
            _encode(request_id or ""),
            body,
            _encode(run),
        )
    )


def failure_line(
    custom_id: str,
    *,
    code: str,
    message: str,
    status_code: int | None = None,
    body: Any = None,
    request_id: str | None = None,
    run: RunInfo,
) -> bytes:
    """The output line for a request that failed. Without a ``status_code`` there was no reply, and ``response`` is null."""
    response: dict[str, object] | None = None
    if status_code is not None:
        response = {"status_code": status_code, "request_id": request_id or "", "body": body}
    line: dict[str, Any] = {
        "id": custom_id,
        "custom_id": custom_id,
        "response": response,
        "error": {"code": code, "message": message},
        "kimi_async": run,
    }
    try:
        return _encode(line)
    except (TypeError, ValueError, RecursionError):
        # A message may quote what no JSON can hold, such as half an emoji. It must not cost the run.
        if response is not None:
            response["body"] = None
        line["error"] = {"code": _clean(code), "message": _clean(message)}
        return _encode(line)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
