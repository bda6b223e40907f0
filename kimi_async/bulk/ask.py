"""
One request of a run: its body, its exchange, and what the reply means.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import codec
from ..errors import ConfigurationError, NotFoundError
from ..resources.caller import Caller
from ..resources.chat import explain_missing_model
from ..resources.chat_body import accept_with_reply, chat_body
from ..schema.answers import parse_completion, response_format_of
from ..transport.exchange import Response
from ..types.chat import ChatCompletion
from .options import MapOptions
from .requests import Item

__all__ = ["Answered", "Asker"]


@dataclass(slots=True)
class Answered:
    """
    A reply and what it means.
    """

    completion: ChatCompletion
    body: bytes | None
    """The reply as it came; None for a streamed one."""
    request_id: str | None
    attempts: int
    parsed: Any = None


class Asker:
    """
    Sends requests as `create` would: with the host's names, and with an explanation where it has no such model.
    """

    def __init__(self, client: Caller, options: MapOptions, on_chunk: Callable[[str, Any], object]) -> None:
        self._client = client
        self._options = options
        self._on_chunk = on_chunk
        row = client.provider
        self._as_it_is = row is None or row.request_reasoning == codec.REASONING

    async def ask(self, item: Item) -> Answered:
        body, streamed, reader = self._body(item)
        try:
            answered = await self._exchange(item, body, streamed)
        except NotFoundError as exc:
            await explain_missing_model(self._client, str(item.fields.get("model")), exc)
            raise
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
        body = chat_body(
            "map",
            messages,
            model,
            {} if item.wire else fields,
            streamed,
            extra,
            self._client.provider,
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
        stream = await client.open_stream("POST", "chat/completions", body)
        async with stream:
            async for chunk in stream:
                self._on_chunk(item.custom_id, chunk)
        folded = stream.snapshot()
        assert folded is not None
        return Answered(folded, None, stream.response.request_id, _attempts(stream.response))


def _attempts(response: Response) -> int:
    return len(response.request.history) + 1
