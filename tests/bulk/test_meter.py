"""
What a run counts, how fast it says it goes, and when it has had enough.
"""

import pytest

from kimi_async.bulk.meter import Meter
from kimi_async.types.chat import CompletionUsage


def usage(prompt: int, completion: int) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def test_meter_counts_add_up():
    """
    Answers, failures and what was skipped are counted once each; what is left is told from the total.
    """
    meter = Meter(priced=True)
    meter.started = 100.0
    meter.mark(100.0)
    meter.answered(usage(10, 5), 0.5)
    meter.answered(None)
    meter.failed(TimeoutError())
    meter.skipped += 2
    found = meter.progress(102.0, in_flight=1, total=10, concurrency=4)

    assert (3, 2, 1, 2) == (found.done, found.ok, found.failed, found.skipped)
    assert (10, 5, 15, 0.5) == (found.prompt_tokens, found.completion_tokens, found.tokens, found.cost)
    assert (2.0, 1.5, 7.5) == (found.elapsed, found.rate, found.token_rate)
    assert pytest.approx(5 / 1.5) == found.eta
    assert {"TimeoutError": 1} == found.errors


def test_meter_rate_is_that_of_lately():
    """
    A slow beginning is forgotten: the rate looks back on the last marks alone.
    """
    meter = Meter()
    for second in range(100):
        meter.mark(float(second))
        if second >= 50:
            for _ in range(10):
                meter.answered(None)

    assert pytest.approx(10, rel=0.06) == meter.progress(100.0).rate


def test_meter_without_marks_has_no_rate():
    """
    Before anything was measured nothing is claimed.
    """
    found = Meter().progress(0.0, total=5)

    assert (0.0, None) == (found.rate, found.eta)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"token_budget": 30}, "the budget of 30 tokens is spent"),
        ({"cost_budget": 2.0}, "the budget of 2 is spent"),
    ],
)
def test_meter_budget_is_spent_when_it_is_reached(options: dict[str, float], reason: str):
    """
    Reaching the budget is the reason to stop, not exceeding it.
    """
    meter = Meter(**options)  # type: ignore[arg-type]

    assert [None, reason] == [meter.answered(usage(10, 5), 1.0) for _ in range(2)]


def test_meter_error_rate_looks_at_a_full_window():
    """
    The share of failures counts once the window is full, and old ones leave it.
    """
    meter = Meter(max_error_rate=0.5, error_window=4)
    told = [
        meter.failed(ValueError()) if each == "x" else meter.answered(None) for each in "xx..xx" + "....xxx"
    ]

    assert [12] == [n for n, each in enumerate(told) if each]
    assert "3 of the last 4 requests failed, most of them with ValueError" == told[-1]
