"""
A reply to a streamed call that is no event stream: an error in JSON, a completion from a server that ignores `stream`, or a page.
"""

from ..codec.json import is_json
from ..errors import APIConnectionError, APIResponseValidationError
from ..transport.deadlines import Deadline
from ..transport.exchange import Response
from ..types.completions import (
    ChatCompletion,
    ChatCompletionChunk,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
    ChunkChoice,
)

__all__ = ["NotAStream", "as_chunk", "rest_of", "unfit"]


class NotAStream(Exception):
    """The body begins like JSON or HTML. Caught where it was read; never leaves this folder."""

    def __init__(self, head: bytes) -> None:
        self.head = head


async def rest_of(response: Response, head: bytes) -> tuple[bytes, bool]:
    """The whole body, of which `head` has been read, as far as it comes; and whether its end was waited for in vain."""
    timeout = response.request.timeout
    seconds = min((each for each in (timeout.read, timeout.first_token) if each is not None), default=None)
    parts, size = [head], len(head)
    late = False
    try:
        with Deadline(seconds):
            while size < response.max_body and (data := await response.readany()):
                parts.append(data)
                size += len(data)
    except TimeoutError:
        late = True
    except APIConnectionError:
        pass
    return b"".join(parts), late


def unfit(body: bytes, response: Response) -> APIResponseValidationError:
    """The error for a body that is none of these."""
    kind = response.headers.get("content-type", "no content type")
    return APIResponseValidationError(
        response,
        body[:4096].decode("utf-8", "replace"),
        message=f"the reply is not an event stream ({kind}); .body holds its first 4,096 bytes",
        whole=is_json(body),
    )


def as_chunk(completion: ChatCompletion) -> ChatCompletionChunk:
    """A whole completion as the one chunk of a stream."""
    return ChatCompletionChunk(
        id=completion.id,
        created=completion.created,
        model=completion.model,
        usage=completion.usage,
        choices=[
            ChunkChoice(
                index=choice.index,
                finish_reason=choice.finish_reason or "stop",
                delta=ChoiceDelta(
                    role=choice.message.role,
                    content=choice.message.content,
                    reasoning_content=choice.message.reasoning_content,
                    tool_calls=[
                        ChoiceDeltaToolCall(
                            index=i,
                            id=call.id,
                            type=call.type,
                            function=ChoiceDeltaToolCallFunction(
                                name=call.function.name, arguments=call.function.arguments
                            ),
                        )
                        for i, call in enumerate(choice.message.tool_calls or ())
                    ]
                    or None,
                ),
            )
            for choice in completion.choices
        ],
    )
