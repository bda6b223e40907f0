"""
What goes on, in which order, and when a host that failed is trusted again: arithmetic, without a loop or a clock.
"""

from __future__ import annotations

from typing import Any

import pytest

from kimi_async.errors import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    CircuitOpenError,
    RateLimitWaitError,
    RedirectRefusedError,
    ResponseTooLargeError,
)
from kimi_async.middleware.failover.needs import lacks, needs_of, translated
from kimi_async.middleware.failover.policy import (
    Health,
    Rotation,
    asking_again_soon,
    cause_of,
    goes_on,
    order,
)
from kimi_async.middleware.retry.policy import RetryPolicy
from kimi_async.providers import PROVIDERS


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (APIConnectionError(), True),
        (APITimeoutError(), True),
        (RateLimitWaitError("later"), True),
        (CircuitOpenError("shut", cause="quota"), True),
        (RedirectRefusedError(), False),
        (ResponseTooLargeError(), False),
        (ValueError("yours"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_goes_on_where_another_host_can_do_better(error: Exception, expected: bool):
    """
    A dead host and a limit of ours go on; what would be the same everywhere does not.
    """
    assert expected == goes_on(cause_of(error))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *(
            (kind, True)
            for kind in (
                "overloaded",
                "unavailable",
                "gateway",
                "server",
                "quota",
                "tpd",
                "auth",
                "permission",
            )
        ),
        *(
            (kind, False)
            for kind in (
                "bad_request",
                "content_filter",
                "context_length",
                "not_found",
                "unprocessable",
                "too_large",
            )
        ),
    ],
)
def test_goes_on_by_the_kind_of_refusal(kind: str, expected: bool):
    """
    Capacity and accounts differ from host to host; wrong requests and moderation do not.
    """
    error = BadRequestError("x", response=None)
    error.kind = kind

    assert expected == goes_on(cause_of(error))


def test_health_after_a_failure_one_request_asks_again():
    """
    A host that failed is left alone for a while that grows, then asked by one request, and trusted when that succeeds.
    """
    health = Health()
    assert health.well(0.0)

    health.failed(0.0)
    assert [False, True] == [health.well(0.9), health.well(1.0)]

    health.asked(1.0)
    assert not health.well(1.0)  # somebody is finding out

    health.failed(1.1)
    assert [False, True] == [health.well(3.0), health.well(3.2)]

    health.asked(3.2)
    health.worked()
    assert health.well(3.2)


def test_health_pause_is_bounded():
    """
    However often it failed, a host is asked again within five seconds: one that is well again is preferred soon.
    """
    health = Health()
    for _ in range(1_000):
        health.failed(0.0)

    assert health.well(5.0)


def test_health_question_that_was_given_up_says_nothing():
    """
    A cancelled probe leaves the place to the next one.
    """
    health = Health()
    health.failed(0.0)
    health.asked(1.0)
    health.left()

    assert health.well(1.0)


def test_rotation_is_in_proportion_and_evenly_spread():
    """
    Weights 3, 2 and 1 give three, two and one of six turns, and nobody twice in a row without need.
    """
    rotation = Rotation([3, 2, 1])

    assert [0, 1, 0, 2, 1, 0] * 2 == [rotation.next() for _ in range(12)]


def test_order_puts_the_ill_last():
    """
    In each order, hosts that failed just now are a last resort and still tried.
    """
    ill = Health(failures=1, until=9.0)
    three = [Health(), ill, Health()]

    assert [0, 2, 1] == order("in_order", three, 0.0)
    assert [2, 0, 1] == order("weight", three, 0.0, first=1)
    assert [2, 0, 1] == order("free", three, 0.0, waits=[3.0, 0.0, 1.0])


def test_asking_again_soon_keeps_the_rest_of_a_policy():
    """
    Breakers ask every second; what the caller chose stays.
    """
    policy = asking_again_soon(RetryPolicy(max_retries=7, quota_cooldown=0.5))

    assert (7, 0.5, 1.0) == (policy.max_retries, policy.quota_cooldown, policy.overload_cooldown)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, set()),
        ({"messages": [{"role": "assistant", "content": "so", "partial": True}]}, {"partial"}),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ms://f1"}}]}]}, {"ms://"}),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "https://x.y/z.png"}]}]}, {"links"}),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]}, set()),
        ({"messages": [], "tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]}, {"$web_search"}),
        ({"messages": "nonsense", "tools": {"a": 1}}, set()),
        ({"messages": [None, 3, {"content": [None, "x"]}], "tools": [None]}, set()),
    ],
)  # fmt: skip
def test_needs_of_a_body(body: dict[str, Any], expected: set[str]):
    """
    What not every host has is seen in the body, whatever its shape.
    """
    assert expected == needs_of(body)


@pytest.mark.parametrize(
    ("provider", "needs", "expected"),
    [
        ("moonshot", {"partial", "$web_search"}, None),
        ("openrouter", set[str](), None),
        ("openrouter", {"partial"}, "partial mode"),
        ("vllm", {"$web_search"}, r"\$web_search"),
        ("moonshot-cn", {"ms://"}, "belong to the key"),
        ("moonshot", {"links"}, "does not fetch"),
        ("openrouter", {"links"}, None),
    ],
)
def test_lacks_says_what_a_host_cannot_take(provider: str, needs: set[str], expected: str | None):
    """
    A host that cannot take a request is known before it is asked, and in which words.
    """
    import re

    told = lacks(PROVIDERS[provider], needs, own_files=False)

    assert (expected is None) == (told is None)
    if expected is not None and told is not None:
        assert re.search(expected, told)


@pytest.mark.parametrize(
    ("model", "listed", "expected"),
    [
        ("kimi-k2.6", ("moonshotai/kimi-k2.6", "moonshotai/kimi-k3"), "moonshotai/kimi-k2.6"),
        ("kimi-k2.6", ("moonshot/kimi-k2-6",), "moonshot/kimi-k2-6"),
        ("kimi-k2.6", ("moonshotai/Kimi-K2.6",), "moonshotai/Kimi-K2.6"),
        ("moonshotai/kimi-k3", ("kimi-k3", "kimi-k2.6"), "kimi-k3"),
        ("moonshotai/Kimi-K3", ("moonshotai/kimi-k3:free", "moonshotai/kimi-k3"), "moonshotai/kimi-k3"),
        ("kimi-k3", ("kimi-k3",), "kimi-k3"),
        ("kimi-k3", ("moonshotai/kimi-k2.6",), None),
        ("kimi-k3", (), None),
        ("something-else", ("something-else",), "something-else"),
        ("something-else", ("moonshotai/kimi-k3",), None),
    ],
)
def test_translated_is_an_id_that_the_host_lists(model: str, listed: tuple[str, ...], expected: str | None):
    """
    The same model under the host's own id, or nothing: an id is never made up.
    """
    assert expected == translated(model, listed)


def test_translated_where_nobody_can_be_asked():
    """
    Without a list, an id is what the caller named or the host's row does, and nothing else.
    """
    row = PROVIDERS["acedata"]

    assert "mine" == translated("kimi-k3", None, names={"kimi-k3": "mine"}, row=row)
    assert row.example_model == translated("moonshotai/kimi-k3", None, row=row)
    assert None is translated("kimi-k2.6", None, row=row)
    assert "kimi-k2.6" == translated("kimi-k2.6", None, row=PROVIDERS["moonshot"])
    assert None is translated("kimi-k2.6", None)
