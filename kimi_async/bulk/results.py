"""
What became of one request among many, whoever answered it: a live call, a journal, a batch.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, cast

import msgspec

from .. import codec
from ..errors import APIStatusError, KimiError
from ..schema.answers import parse_completion, response_format_of
from ..types.completions import ChatCompletion, CompletionUsage
from .output_lines import Answer, RunInfo, answer_line, failure_line

__all__ = [
    "RequestFailedError",
    "Result",
    "Source",
    "UnansweredError",
    "line_of_answer",
    "line_of_failure",
    "settler",
]

Source: TypeAlias = Literal["live", "journal", "batch"]


class RequestFailedError(KimiError):
    """A request failed without an HTTP reply, as told by a result file."""

    def __init__(self, message: str, *, code: str, retryable: bool) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        """``batch_expired`` and the like; in our own journals the name of the exception."""
        self.retryable = retryable


class UnansweredError(KimiError):
    """A request of a batch is in none of its result files."""

    retryable = True

    def __init__(self, message: str, *, custom_id: str, status: str) -> None:
        super().__init__(message)
        self.message = message
        self.custom_id = custom_id
        self.status = status
        """The status in which the batch ended."""


class Result:
    """
    One request's outcome. Exactly one of ``completion`` and ``error`` is not None.

    What comes from a file is decoded when it is first looked at.
    """

    __slots__ = (
        "_answer",
        "_completion",
        "_error",
        "_format",
        "_parsed",
        "_settle",
        "attempts",
        "custom_id",
        "elapsed",
        "index",
        "source",
    )

    def __init__(
        self,
        custom_id: str,
        index: int,
        *,
        completion: ChatCompletion | None = None,
        error: Exception | None = None,
        answer: Answer | None = None,
        attempts: int = 1,
        elapsed: float = 0.0,
        source: Source = "live",
        parsed: object = None,
        response_format: object = None,
        settle: Callable[[ChatCompletion], ChatCompletion] | None = None,
    ) -> None:
        self.custom_id: str = custom_id
        self.index: int = index
        """Position in the input, from 0."""
        self._completion = completion
        self._error = error
        self._answer = answer
        self._format = response_format
        self._parsed = parsed
        self._settle = settle
        self.attempts: int = attempts
        """Times the request was sent, retries included; 0 if it never was."""
        self.elapsed: float = elapsed
        """Seconds from taking it up to its end, waiting included."""
        self.source: Source = source

    @classmethod
    def of(
        cls,
        answer: Answer,
        index: int,
        source: Source,
        *,
        response_format: object = None,
        settle: Callable[[ChatCompletion], ChatCompletion] | None = None,
    ) -> "Result":
        """A result from its line. `settle` is given the completion, for what is to be mended in it."""
        run = answer.kimi_async
        return cls(
            answer.custom_id,
            index,
            answer=answer,
            attempts=run.attempts if run is not None else 1,
            elapsed=run.elapsed if run is not None else 0.0,
            source=source,
            response_format=response_format,
            settle=settle,
        )

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        if self._answer is not None:
            return self._answer.ok
        return self._error is None

    @property
    def completion(self) -> ChatCompletion | None:
        self._decode()
        return self._completion

    @property
    def parsed(self) -> Any:
        """The object made of the answer, where ``response_format`` is a type; else None."""
        self._decode()
        return self._parsed

    @property
    def error(self) -> Exception | None:
        """A `KimiError`, save where the request itself was impossible (TypeError, ValueError)."""
        self._decode()
        return self._error

    def unwrap(self) -> ChatCompletion:
        """The completion; raises the error if there is none."""
        self._decode()
        if self._completion is None:
            assert self._error is not None
            raise self._error
        return self._completion

    @property
    def text(self) -> str | None:
        """The content of the first choice; None if there is none, or no answer."""
        completion = self.completion
        if completion is None or not completion.choices:
            return None
        content = completion.choices[0].message.content
        return content if isinstance(content, str) else None

    @property
    def usage(self) -> CompletionUsage | None:
        completion = self.completion
        return None if completion is None else completion.usage

    def _decode(self) -> None:
        answer = self._answer
        if answer is None:
            return
        self._answer = None
        try:
            body = answer.body
            if answer.ok and body is not None:
                completion = codec.decode_reply(body, ChatCompletion)
                if self._settle is not None:
                    completion = self._settle(completion)
                reader = response_format_of(self._format)
                if reader is not None:
                    completion = parse_completion(completion, reader)
                    self._parsed = completion.parsed
                self._completion = completion
            else:
                self._error = error_of(answer)
        except KimiError as exc:
            self._error = exc

    def __repr__(self) -> str:
        state = "ok" if self.ok else f"failed: {self.error!r}"
        return f"<Result {self.index} {self.custom_id!r} {state}>"


def settler(
    leaked: str | None, tools: Any, messages: Any
) -> Callable[[ChatCompletion], ChatCompletion] | None:
    """What does to a completion what `leaked_tools=` asks for; None where there is nothing to do."""
    if leaked == "off" or (leaked is None and not tools):
        return None
    from ..tools.leaks import settled

    return lambda completion: settled(completion, leaked, tools, messages or ())


def error_of(answer: Answer) -> Exception:
    """The exception for a line that holds no answer."""
    status, body = answer.status_code, answer.body
    if status is not None and not 200 <= status < 300 and body is not None:
        return codec.error_from(status, {}, body)
    said: object = answer.error
    if isinstance(said, dict):
        fields = cast("dict[str, object]", said)
        code, message = str(fields.get("code") or ""), str(fields.get("message") or "")
    else:
        code, message = "", "" if said is None else str(said)
    if status is not None and not 200 <= status < 300:
        return codec.error_from(
            status, {}, msgspec.json.encode({"error": {"message": message, "type": code or None}})
        )
    return RequestFailedError(
        message or code or "the request failed; the file does not say why",
        code=code,
        retryable=answer.transient,
    )


def line_of_answer(
    custom_id: str, completion: ChatCompletion, body: bytes | None, *, request_id: str | None, run: RunInfo
) -> bytes:
    """The output line for a completion; ``body`` is the reply as it came, where there is one."""
    # A lone surrogate (half an emoji, cut by the server) was mended while decoding; in a file it would make the line
    # unreadable for strict parsers, ours included.
    if body is None or b"\\ud" in body or b"\\uD" in body:
        body = codec.encode(completion.to_dict())
    return answer_line(custom_id, body, request_id=request_id, run=run)


def line_of_failure(custom_id: str, error: Exception, *, run: RunInfo) -> bytes:
    """The output line for a request that failed."""
    if isinstance(error, APIStatusError):
        body = error.body
        shown: Any = (
            cast("Any", body) if isinstance(body, dict) else {"message": error.message, "type": error.type}
        )
        return failure_line(
            custom_id,
            code=error.type or type(error).__name__,
            message=error.message,
            status_code=error.status_code,
            body={"error": shown},
            request_id=error.request_id,
            run=run,
        )
    # An answer that was cut or is not of the type was paid for: it stays with its error.
    completion = getattr(error, "completion", None)
    whole = completion.to_dict() if isinstance(completion, ChatCompletion) else None
    return failure_line(
        custom_id,
        code=type(error).__name__,
        message=str(error),
        status_code=None if whole is None else 200,
        body=whole,
        run=run,
    )
