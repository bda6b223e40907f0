"""
Chunks to a completion: folding a stream, O(1) a chunk.

Text is kept as a list of fragments and joined when asked for. Tool calls are put together as Moonshot's own client does, and
for servers that get it wrong: by `index`; where there is none, a fragment with an id or a name begins a call and one without
continues the last; ids and names are taken once, since relays repeat them in every fragment.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import msgspec
from msgspec import UNSET

from ..types.completions import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionMessageToolCall,
    Choice,
    ChoiceDeltaToolCall,
    ChunkChoice,
    CompletionUsage,
    Function,
    withhold_usage,
)

__all__ = ["Accumulator", "CallFold", "ChoiceFold", "logprobs_of"]


def logprobs_of(choice: ChunkChoice) -> dict[str, list[object]]:
    """
    The log probabilities that a chunk brings, by what they are of: `content`, `refusal`. What has another shape is left
    out: it is not worth an answer.
    """
    given: object = choice.logprobs
    held = cast("dict[str, object]", given) if isinstance(given, dict) else {}
    found: dict[str, list[object]] = {}
    for name, tokens in held.items():
        if tokens and isinstance(tokens, list):
            found[name] = tokens
    return found


def _whole_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return True


class CallFold:
    """One tool call as far as it has arrived."""

    __slots__ = ("arguments", "id", "index", "name", "type")

    def __init__(self, index: int) -> None:
        self.index: int = index
        self.id: str = ""
        self.name: str = ""
        self.type: str = "function"
        self.arguments: list[str] = []

    def add(self, fragment: ChoiceDeltaToolCall) -> None:
        if fragment.id and not self.id:
            self.id = fragment.id
        if fragment.type:
            self.type = fragment.type
        function = fragment.function
        if function is not None:
            if function.name and not self.name:
                self.name = function.name
            if function.arguments:
                self.arguments.append(function.arguments)

    @property
    def text(self) -> str:
        """The arguments so far."""
        if len(self.arguments) > 1:
            self.arguments[:] = ["".join(self.arguments)]
        return self.arguments[0] if self.arguments else ""

    def finished(self) -> ChatCompletionMessageToolCall:
        # A call needs an id to be answered. Kimi's own look like this; it is unique within the turn, as they are.
        return ChatCompletionMessageToolCall(
            id=self.id or f"{self.name or 'call'}:{self.index}",
            type=self.type,
            function=Function(name=self.name, arguments=self.text),
        )


class ChoiceFold:
    """One choice as far as it has arrived."""

    __slots__ = (
        "calls",
        "content",
        "details",
        "finish_reason",
        "index",
        "logprobs",
        "reasoning",
        "refusal",
        "role",
        "seen_content",
        "seen_reasoning",
    )

    def __init__(self, index: int) -> None:
        self.index: int = index
        self.role: str = "assistant"
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.details: list[object] = []
        self.logprobs: dict[str, list[object]] = {}
        self.calls: list[CallFold] = []
        self.finish_reason: str | None = None
        self.seen_content: bool = False
        self.seen_reasoning: bool = False

    def add(self, choice: ChunkChoice) -> None:
        delta = choice.delta
        if choice.finish_reason:  # some relays write "" until there is one
            self.finish_reason = choice.finish_reason
        if delta.reasoning is not None and delta.reasoning_content is None:
            delta.reasoning_content = delta.reasoning
        if delta.role:
            self.role = delta.role
        if (text := delta.content) is not None:
            self.seen_content = True
            if text:
                self.content.append(text)
        if (text := delta.reasoning_content) is not None:
            self.seen_reasoning = True
            if text:
                self.reasoning.append(text)
        if delta.refusal:
            self.refusal.append(delta.refusal)
        if delta.reasoning_details:
            self.details += delta.reasoning_details
        if delta.tool_calls:
            for fragment in delta.tool_calls:
                self.call_for(fragment).add(fragment)
        if choice.logprobs:
            for name, tokens in logprobs_of(choice).items():
                self.logprobs.setdefault(name, []).extend(tokens)

    def call_for(self, fragment: ChoiceDeltaToolCall) -> CallFold:
        """The call that a fragment belongs to; a new one if it begins one."""
        index = fragment.index
        name = fragment.function.name if fragment.function is not None else None
        if index is None:  # pyright: ignore[reportUnnecessaryComparison] (relays leave it out)
            if self.calls:
                last = self.calls[-1]
                begins = bool(fragment.id or name) and bool(last.id or last.name)
                if not begins or (fragment.id and fragment.id == last.id):
                    return last  # also a name that comes after the first arguments
            index = max((call.index for call in self.calls), default=-1) + 1
        else:
            # The newest first: parallel calls mostly come one after another.
            for call in reversed(self.calls):
                if call.index == index:
                    if not (fragment.id and name and call.id and call.id != fragment.id):
                        return call
                    break  # the same index, another id and a name: a server that numbers every call 0
        call = CallFold(index)
        self.calls.append(call)
        return call

    def compact(self) -> None:
        """
        Joins the fragments so far. Keeps a long stream at the size of its text (a fragment costs 60 bytes beside its own).
        """
        for fragments in (self.content, self.reasoning):
            if len(fragments) > 1:
                fragments[:] = ["".join(fragments)]

    def finished(self) -> Choice:
        self.compact()
        message = ChatCompletionMessage(
            role=self.role,
            content="".join(self.content) if self.seen_content or not self.calls else None,
        )
        if self.seen_reasoning:
            message.reasoning_content = "".join(self.reasoning)
        if self.refusal:
            message.refusal = "".join(self.refusal)
        if self.details:
            message.reasoning_details = list(self.details)
        if self.calls:
            message.tool_calls = [call.finished() for call in self.calls]
        choice = Choice(index=self.index, message=message, finish_reason=self.finish_reason)
        if self.logprobs:
            choice.logprobs = {name: list(tokens) for name, tokens in self.logprobs.items()}
        return choice


def holds_little(choice: ChunkChoice) -> bool:
    """Whether a chunk's choice ends without more, or has a delta without anything: what it says may stand elsewhere."""
    delta = choice.delta
    return choice.finish_reason is not None or not (
        delta.content is not None
        or delta.role is not None
        or delta.tool_calls is not None
        or delta.reasoning_content is not None
        or delta.reasoning is not None
        or delta.refusal is not None
    )


# Fragments after which they are joined. Joining n fragments k at a time copies the text n / k times over: at this size a
# stream of 131,072 tokens is copied 32 times at memcpy speed, 3 ms in all.
COMPACT = 4096


class Accumulator:
    """
    Folds the chunks of one stream. `completion()` gives what has arrived so far, at any time. `usage_follows`: a chunk of its own
    will have the usage, so that it is not shown at the chunk with the `finish_reason` as well.
    """

    __slots__ = (
        "_budget",
        "_content",
        "_reasoning",
        "_unfinished",
        "_usage_follows",
        "ahead",
        "choices",
        "chunks",
        "finished",
        "first",
        "usage",
        "wary",
    )

    def __init__(self, *, usage_follows: bool = False) -> None:
        self._usage_follows = usage_follows
        self.ahead: int = 0
        """Characters of the first choice's text that are folded, and are not told of yet: `completion` leaves them out."""
        self.wary: bool = False
        """Whether to stop also before chunks that hold less than they might: an end, a usage, a delta without anything."""
        self.choices: dict[int, ChoiceFold] = {}
        self.chunks: int = 0
        """Chunks folded."""
        self.finished: bool = False
        """Whether every choice seen has its `finish_reason`."""
        self.usage: CompletionUsage | None = None
        """The last usage seen, from whichever place."""
        self.first: ChatCompletionChunk | None = None
        """Ids and names of the stream, from the first chunk that had them."""
        self._budget = COMPACT
        self._unfinished: ChoiceFold | None = None
        """The first choice, until its `finish_reason`."""
        self._content: Callable[[str], None] | None = None
        """Where its text goes, once some has been seen."""
        self._reasoning: Callable[[str], None] | None = None

    def add(self, chunk: ChatCompletionChunk) -> bool:
        """
        `extend` for a single chunk: whether it was folded. One event a packet is what a live model sends; without the loop and
        its bookkeeping that costs half.
        """
        choices = chunk.choices
        beside: object = chunk._usage_beside  # pyright: ignore[reportPrivateUsage]
        if len(choices) == 1 and beside is None and self._quick(choices[0]):
            self.chunks += 1
            self._budget -= 1
            return self._budget > 0 or self._counted(0)
        return self._add(chunk) and self._counted(1)

    def extend(self, chunks: Iterable[ChatCompletionChunk]) -> int:
        """
        Folds chunks, and says how many. A delta whose gateway says `reasoning` gets the same text as `reasoning_content`.

        Stops before a chunk that is or may be an error: one with `error` or `finish_reason` "error", or with neither choices
        nor usage. The caller looks at it, and goes on after it if it is harmless.
        """
        count = -1
        stopped = False
        content = self._content
        for count, chunk in enumerate(chunks):  # noqa: B007
            choices = chunk.choices
            beside: object = chunk._usage_beside  # pyright: ignore[reportPrivateUsage]
            if len(choices) == 1 and beside is None:
                choice = choices[0]
                delta = choice.delta
                # The chunk that comes a thousand times, here without a call: one choice, one piece of text after others.
                if (
                    content is not None
                    and delta.content
                    and choice.finish_reason is None
                    and choice.index == 0
                    and delta.reasoning_content is None
                    and delta.tool_calls is None
                    and delta.reasoning is None
                    and choice.logprobs is None
                    and choice.usage is None
                    and delta.refusal is None
                ):
                    content(delta.content)
                    continue
                if self._quick(choice):
                    continue
            if not self._add(chunk):
                stopped = True
                break
            content = self._content
        if not stopped:
            count += 1
        self._counted(count)
        return count

    def text_run(self, chunks: Sequence[ChatCompletionChunk], start: int) -> int:
        """Folds the chunks from `start` on that hold a piece of text after others and nothing else; says how many."""
        content = self._content
        if content is None:
            return 0
        at = start
        for at in range(start, len(chunks)):
            choices = chunks[at].choices
            beside: object = chunks[at]._usage_beside  # pyright: ignore[reportPrivateUsage]
            if len(choices) != 1 or beside is not None:
                break
            choice = choices[0]
            delta = choice.delta
            if not (
                delta.content
                and choice.finish_reason is None
                and choice.index == 0
                and delta.reasoning_content is None
                and delta.tool_calls is None
                and delta.reasoning is None
                and choice.logprobs is None
                and choice.usage is None
                and delta.refusal is None
            ):
                break
            content(delta.content)
        else:
            at = len(chunks)
        self._counted(at - start)
        return at - start

    def is_plain(self, chunk: ChatCompletionChunk, field: str) -> bool:
        """
        Whether a chunk says a piece of the first choice's text (`content`) or reasoning (`reasoning_content`), after others, and
        nothing else.
        """
        if len(chunk.choices) != 1 or chunk.error is not None or chunk.usage is not None:
            return False
        choice = chunk.choices[0]
        delta = choice.delta
        return (
            (self._content if field == "content" else self._reasoning) is not None
            and bool(getattr(delta, field))
            and (delta.content is None or delta.reasoning_content is None)
            and delta.tool_calls is None
            and delta.reasoning is None
            and delta.reasoning_details is None
            and delta.refusal is None
            and choice.index == 0
            and choice.finish_reason is None
            and choice.logprobs is None
        )

    def add_texts(self, field: str, texts: Sequence[str]) -> bool:
        """Folds pieces of the first choice's text or reasoning, one a chunk, if some came before and it goes on; whether it did."""
        fold = self._content if field == "content" else self._reasoning
        if fold is None:
            return False
        fold("".join(texts))
        return self._counted(len(texts))

    def text(self, kind: str = "content") -> str:
        """The first choice's `content`, `reasoning` or `refusal` as far as it has been told of."""
        choice = self.choices.get(0)
        if choice is None:
            return ""
        whole = "".join(getattr(choice, kind))
        return whole[: len(whole) - self.ahead] if self.ahead and kind == "content" else whole

    def _quick(self, choice: ChunkChoice) -> bool:
        """
        Folds the choice of a chunk that has no other, if it is a fragment of text, reasoning or calls in the middle of an answer.
        """
        delta = choice.delta
        if (
            choice.finish_reason is not None
            or choice.index != 0
            or delta.reasoning is not None
            or choice.logprobs is not None
            or choice.usage is not None
            or delta.refusal is not None
            or delta.reasoning_details is not None
        ):
            return False
        text, thought, calls = delta.content, delta.reasoning_content, delta.tool_calls
        if calls is not None:
            fold = self._unfinished
            if fold is None or text is not None or thought is not None:
                return False
            for fragment in calls:
                fold.call_for(fragment).add(fragment)
        elif thought is None:
            if self._content is None or not text:
                return False
            self._content(text)
        elif self._reasoning is None or text is not None:
            return False
        else:
            self._reasoning(thought)
        return True

    def _counted(self, count: int) -> bool:
        self.chunks += count
        self._budget -= count
        if self._budget < 0:
            self._budget = COMPACT
            for each in self.choices.values():
                each.compact()
        return True

    def settle(self, chunk: ChatCompletionChunk) -> None:
        """Folds a chunk that `extend` or `add` stopped before, once it has been looked at."""
        if chunk.choices or chunk.usage is not None:
            self._fold(chunk)
            self._counted(1)

    def _add(self, chunk: ChatCompletionChunk) -> bool:
        usage = chunk.usage
        if chunk.error is not None or not (chunk.choices or usage is not None):
            return False
        if self.wary and usage is not None:
            return False
        for choice in chunk.choices:
            if choice.finish_reason == "error" or (self.wary and holds_little(choice)):
                return False
        self._fold(chunk)
        return True

    def _fold(self, chunk: ChatCompletionChunk) -> None:
        usage = chunk.usage
        first = self.first
        if first is None:
            self.first = first = ChatCompletionChunk(
                id=chunk.id, created=chunk.created, model=chunk.model, object="chat.completion"
            )
        else:
            first.id = first.id or chunk.id
            first.created = first.created or chunk.created
            first.model = first.model or chunk.model
        if not first.system_fingerprint:
            first.system_fingerprint = chunk.system_fingerprint
        if not first.service_tier:
            first.service_tier = chunk.service_tier
        for choice in chunk.choices:
            fold = self.choices.get(choice.index)
            if fold is None:
                self.choices[choice.index] = fold = ChoiceFold(choice.index)
                self.finished = False  # the choices before it may have ended already
            fold.add(choice)
            if choice.finish_reason:
                self.finished = all(each.finish_reason is not None for each in self.choices.values())
        if usage is not None:
            self.usage = usage
            if self._usage_follows and chunk.choices:
                withhold_usage(chunk)
        main = self.choices.get(0)
        if main is not None and main.finish_reason is not None:
            main = None
        self._unfinished = main
        self._content = main.content.append if main is not None and main.seen_content else None
        self._reasoning = main.reasoning.append if main is not None and main.seen_reasoning else None

    @property
    def says_something(self) -> bool:
        """Whether a first token has come: of text, reasoning or a call."""
        return any(fold.content or fold.reasoning or fold.calls for fold in self.choices.values())

    @property
    def in_a_call(self) -> bool:
        """Whether a tool call was being written when it stopped: one whose arguments are no whole JSON."""
        return any(
            fold.finish_reason is None and any(not _whole_json(call.text) for call in fold.calls)
            for fold in self.choices.values()
        )

    def completion(self) -> ChatCompletion | None:
        """What has arrived so far, or None before the first chunk. A choice without its end has `finish_reason` None."""
        first = self.first
        if first is None:
            return None
        choices = [self.choices[index].finished() for index in sorted(self.choices)]
        if self.ahead:
            choices[0].message.content = self.text()
        return ChatCompletion(
            id=first.id,
            created=first.created,
            model=first.model,
            choices=choices,
            usage=UNSET if self.usage is None else self.usage,  # type: ignore[arg-type]
            system_fingerprint=first.system_fingerprint or UNSET,  # type: ignore[arg-type]
            service_tier=first.service_tier or UNSET,  # type: ignore[arg-type]
        )
