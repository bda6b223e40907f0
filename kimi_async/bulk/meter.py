"""
How far a run is: what was counted, how fast it goes, and when it has had enough.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import KimiError
from ..types.completions import CompletionUsage

__all__ = ["MapProgress", "MapStoppedError", "Meter"]


class MapStoppedError(KimiError):
    """A run ended before its input did. Everything finished until then was handed out before this was raised."""

    def __init__(self, reason: str, *, progress: "MapProgress") -> None:
        super().__init__(f"{reason}; {progress.done:,} requests were finished")
        self.reason = reason
        self.progress = progress


@dataclass(frozen=True, slots=True)
class MapProgress:
    """How far a run is."""

    done: int
    """Finished in this run: answered or failed."""
    ok: int
    failed: int
    skipped: int
    """Already in the journal."""
    in_flight: int
    total: int | None
    """Items in the input, where that is known."""
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    """Where a price is known."""
    elapsed: float
    """Seconds since the start."""
    rate: float
    """Requests a second, lately."""
    token_rate: float
    """Tokens a second, in and out, lately."""
    eta: float | None
    """Seconds left at this rate."""
    errors: Mapping[str, int]
    """Failures by the name of their class."""
    concurrency: int
    """Requests that may be under way at once."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Meter:
    """Counts results. Pure: it is told the time."""

    def __init__(
        self,
        *,
        token_budget: int | None = None,
        cost_budget: float | None = None,
        max_error_rate: float | None = None,
        error_window: int = 100,
        priced: bool = False,
    ) -> None:
        self._token_budget = token_budget
        self._cost_budget = cost_budget
        self._max_error_rate = max_error_rate
        self._priced = priced
        self.started: float = 0.0
        self.done: int = 0
        self.skipped: int = 0
        self._ok = self._failed = 0
        self._prompt_tokens = self._completion_tokens = 0
        self._cost = 0.0
        self._errors: Counter[str] = Counter()
        self._recent: deque[bool] = deque(maxlen=error_window)
        self._recent_failed = 0
        # One mark an interval; the oldest of 21 is what "lately" begins with.
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=21)

    @property
    def tokens(self) -> int:
        return self._prompt_tokens + self._completion_tokens

    def answered(self, usage: CompletionUsage | None, cost: float = 0.0) -> str | None:
        """Counts an answer; gives the reason to stop, if it is one."""
        self.done += 1
        self._ok += 1
        self._cost += cost
        reason = self._judged(False)
        if usage is not None:
            self._prompt_tokens += usage.prompt_tokens
            self._completion_tokens += usage.completion_tokens
            if self._token_budget is not None and self.tokens >= self._token_budget:
                return f"the budget of {self._token_budget:,} tokens is spent"
        if self._cost_budget is not None and self._cost >= self._cost_budget:
            return f"the budget of {self._cost_budget:g} is spent"
        return reason

    def failed(self, error: BaseException | None) -> str | None:
        """Counts a failure; gives the reason to stop, if it is one."""
        self.done += 1
        self._failed += 1
        self._errors[type(error).__name__] += 1
        return self._judged(True)

    def _judged(self, failed: bool) -> str | None:
        if self._max_error_rate is None:
            return None
        recent = self._recent
        if len(recent) == recent.maxlen:
            self._recent_failed -= recent[0]
        recent.append(failed)
        self._recent_failed += failed
        if len(recent) < (recent.maxlen or 0) or self._recent_failed <= self._max_error_rate * len(recent):
            return None
        return (
            f"{self._recent_failed} of the last {len(recent)} requests failed, "
            f"most of them with {self._errors.most_common(1)[0][0]}"
        )

    def mark(self, now: float) -> None:
        """Remembers how far it was at this time: speeds are taken from the marks."""
        self._marks.append((now, self.done, self.tokens))

    @property
    def marked_before(self) -> float:
        """The time of the oldest mark."""
        return self._marks[0][0] if self._marks else self.started

    def progress(
        self, now: float, *, in_flight: int = 0, total: int | None = None, concurrency: int = 0
    ) -> MapProgress:
        since, done, tokens = self._marks[0] if self._marks else (self.started, 0, 0)
        seconds = now - since
        rate = (self.done - done) / seconds if seconds > 0 else 0.0
        left = None if total is None else total - self.done - self.skipped
        return MapProgress(
            done=self.done,
            ok=self._ok,
            failed=self._failed,
            skipped=self.skipped,
            in_flight=in_flight,
            total=total,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cost=self._cost if self._priced else None,
            elapsed=now - self.started,
            rate=rate,
            token_rate=(self.tokens - tokens) / seconds if seconds > 0 else 0.0,
            eta=left / rate if left is not None and rate > 0 else None,
            errors=dict(self._errors),
            concurrency=concurrency,
        )
