"""
One request of a run: its body, its exchange, and what the reply means.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import codec
from ..errors import ConfigurationError, NotFoundError
from ..resources.caller import Caller
from ..resources.chat_body import accept_with_reply, chat_body
from ..resources.models import explain_missing_model
from ..schema.answers import parse_completion, response_format_of
from ..streaming.resume import Repeater, ResumePolicy, Resumer, check_resume
from ..streaming.stream import AsyncStream
from ..transport.exchange import Response
from ..types.completions import ChatCompletion, ChatCompletionChunk
from .options import MapOptions
from .requests import Item
from .results import settler

__all__ = ["AnswerBegunAnew", "Answered", "Asker"]


@dataclass(slots=True)
class Answered:
    """A reply and what it means."""

    completion: ChatCompletion
    body: bytes | None
    """The reply as it came; None for a streamed one."""
    request_id: str | None
    attempts: int
    parsed: object = None


class AnswerBegunAnew(ChatCompletionChunk):
    """
    Given to ``on_chunk`` between the chunks of two attempts: forget those before, the answer comes once more. It has no choices.
    """

    attempt: int = 2
    cause: Any = None
    """The `Attempt` that broke off before."""


class Asker:
    """Sends requests as `create` would: with the host's names, and with an explanation where it has no such model."""

    def __init__(self, client: Caller, options: MapOptions, on_chunk: Callable[[str, Any], object]) -> None:
        self._client = client
        self._options = options
        self._on_chunk = on_chunk
        if ResumePolicy.of(options.resume) is not None:
            check_resume(client.provider)
        row = client.provider
        self._as_it_is = row is None or row.request_reasoning == codec.REASONING

    async def ask(self, item: Item) -> Answered:
        body, streamed, reader = self._body(item)
        try:
            answered = await self._exchange(item, body, streamed)
        except NotFoundError as exc:
            await explain_missing_model(self._client, str(item.fields.get("model")), exc)
            raise
        fields = item.fields
        settle = settler(self._options.leaked_tools, fields.get("tools"), fields.get("messages"))
        if settle is not None and (found := settle(answered.completion)) is not answered.completion:
            answered.completion, answered.body = found, None
        if reader is not None:
            answered.completion = parse_completion(answered.completion, reader, item.fields.get("tools"))
            answered.parsed = answered.completion.parsed
        return answered

    def _body(self, item: Item) -> tuple[bytes, bool, Any]:
        """The encoded request, whether its answer is streamed, and what reads the answer."""
        options = self._options
        fields = item.fields
        streamed = options.stream or fields.get("stream") is True
        if item.raw is not None and self._as_it_is and options.response_format is None and not options.stream:
            # As the Batch API would take it: the line's own bytes.
            return item.raw, streamed, None
        fields = dict(fields)
        model = fields.pop("model", None)
        if not model:
            raise ConfigurationError(f"requests[{item.index}] names no model; pass model=")
        messages = fields.pop("messages", ())
        fields.pop("stream", None)
        wanted = (
            options.response_format if options.response_format is not None else fields.get("response_format")
        )
        reader = response_format_of(wanted)
        if wanted is not None:
            fields["response_format"] = wanted if reader is None else reader.wire
        # A line of a file is the wire's own words: what is not known here is sent on.
        extra = fields if item.wire else fields.pop("extra_body", None)
        row = self._client.provider
        if streamed and row is not None and row.asks_for_usage:
            # Budgets need it.
            fields.setdefault("stream_options", {"include_usage": True})
        body = chat_body(
            "map",
            messages,
            model,
            {} if item.wire else fields,
            streamed,
            extra,
            row,
            advise=self._client.gives_advice,
        )
        return body, streamed, reader

    async def _exchange(self, item: Item, body: bytes, streamed: bool) -> Answered:
        client = self._client
        if not streamed:
            completion, response = await client.call(
                "POST", "chat/completions", body, accept=accept_with_reply
            )
            return Answered(completion, response.content, response.request_id, _attempts(response))
        return await self._streamed(item, body)

    async def _streamed(self, item: Item, body: bytes) -> Answered:
        """
        A streamed answer, put together. Nobody has seen it before it is whole, so where it breaks off it is asked for again:
        by partial mode where ``resume`` says so, else from the beginning.
        """
        client, policy = self._client, ResumePolicy.of(self._options.resume)
        resumers: list[Resumer] = []

        async def reopen(body: bytes) -> AsyncStream[ChatCompletionChunk]:
            stream: AsyncStream[ChatCompletionChunk] = await client.open_stream(
                "POST", "chat/completions", body, usage_follows=b'"include_usage":true' in body
            )
            return stream

        async def begin() -> AsyncStream[ChatCompletionChunk]:
            stream = await reopen(body)
            if policy is not None:
                known = client.provider is not None
                resumers.append(Resumer(body=body, policy=policy, reopen=reopen, known=known))
                stream.mend_with(resumers[-1])
            return stream

        def begun_anew() -> None:
            failed = repeater.attempts[-1]
            self._on_chunk(item.custom_id, AnswerBegunAnew(attempt=failed.number + 1, cause=failed))

        repeater = Repeater(begin, client.max_retries, begun_anew)
        stream = await begin()
        stream.repeat_with(repeater)
        if self._options.on_chunk is None:
            stream.gather()  # only the end is wanted
            stream.drop_chunks()
        async with stream:
            async for chunk in stream:
                self._on_chunk(item.custom_id, chunk)
        folded = stream.snapshot()
        assert folded is not None
        again = len(repeater.attempts) + sum(len(each.resumptions) for each in resumers)
        return Answered(folded, None, stream.response.request_id, _attempts(stream.response) + again)


def _attempts(response: Response) -> int:
    return len(response.request.history) + 1
