"""
Whether refusals without a reason follow load: told from outcomes alone.
"""

from __future__ import annotations

import random

import pytest

from kimi_async.middleware.rate_limit.evidence import Evidence
from kimi_async.middleware.rate_limit.law import Law
from kimi_async.middleware.rate_limit.limits import RateLimits
from kimi_async.middleware.rate_limit.ticket import Ticket


def ticket(slots: int, minute: int = 0) -> Ticket:
    made = Ticket(1, 0.0, 0)
    made.inflight, made.before = slots, minute
    return made


def test_evidence_refusals_above_a_load_are_a_limit_of_slots():
    """
    Ten got through under less, and all seven under ten or more were refused: ten is the limit.
    """
    evidence = Evidence()
    for slots in range(10):
        evidence.saw(ticket(slots, slots), True, 1.0)
    for slots in (11, 10, 12, 13, 14, 15):
        evidence.saw(ticket(slots, slots), False, 1.1)
    assert ("open", 0) == evidence.weigh(ticket(15, 15), 1.1)
    evidence.saw(ticket(16, 16), False, 1.1)

    assert ("slots", 10) == evidence.weigh(ticket(16, 16), 1.1)


@pytest.mark.parametrize(("got_through", "needed"), [(0, 12), (5, 8), (20, 6), (100, 4)])
def test_evidence_little_that_got_through_asks_for_more_that_was_refused(got_through: int, needed: int):
    """
    How often a host refuses by accident is learnt from those who got through; of a new one nobody knows.
    """
    evidence = Evidence()
    for _ in range(got_through):
        evidence.saw(ticket(1, 1), True, 1.0)
    found: list[str] = []
    while "slots" not in found:
        evidence.saw(ticket(8, 8), False, 1.1)
        found.append(evidence.weigh(ticket(8, 8), 1.1)[0])

    assert needed == len(found)


def test_evidence_majority_refused_is_no_limit_where_half_are_refused_below():
    """
    Sixty of a hundred above a load, and half of those below: half of all are refused by accident.
    """
    evidence = Evidence()
    for number in range(160):
        evidence.saw(ticket(4, number), number % 2 == 0, 1.0)
    for number in range(100):
        evidence.saw(ticket(9, 160 + number), number % 5 in (0, 3), 1.1)

    assert evidence.weigh(ticket(9, 260), 1.1)[0] in ("open", "late")


def test_evidence_refusals_late_in_the_minute_are_a_limit_of_the_minute():
    """
    Under as many slots others got through, and nobody after 300 in the minute.
    """
    evidence = Evidence()
    for minute in range(200, 300):
        evidence.saw(ticket(20, minute), True, 1.0)
    for minute in (300, 301, 302, 303):
        evidence.saw(ticket(20, minute), False, 1.2)

    assert ("minute", 300) == evidence.weigh(ticket(20, 303), 1.2)


def test_evidence_one_refusal_is_never_a_limit():
    """
    In the first minute each request has more before it than any other had: one refusal proves nothing.
    """
    evidence = Evidence()
    for minute in range(200):
        evidence.saw(ticket(20, minute), True, 1.0)
    evidence.saw(ticket(20, 200), False, 1.1)

    assert ("late", 0) == evidence.weigh(ticket(20, 200), 1.1)


def test_evidence_others_under_as_much_load_got_through():
    """
    A refusal under a load with which others get through is a stray one.
    """
    evidence = Evidence()
    for _ in range(50):
        evidence.saw(ticket(20, 500), True, 1.0)
    evidence.saw(ticket(20, 500), False, 1.1)

    assert ("stray", 0) == evidence.weigh(ticket(20, 500), 1.1)


def test_evidence_waits_for_those_under_way():
    """
    Refusals arrive before answers: as long as more are under way above than were refused, nothing is said.
    """
    evidence = Evidence()
    for slots in range(20):
        evidence.saw(ticket(slots, slots), True, 1.0)
    for slots in (20, 21, 22):
        evidence.saw(ticket(slots, slots), False, 1.1)
    pending = [(slots, slots, False) for slots in range(23, 43)]

    assert "open" == evidence.weigh(ticket(22, 22), 1.1, pending)[0]
    assert "stray" == evidence.weigh(ticket(22, 22), 1.1, [(*one[:2], True) for one in pending])[0]


@pytest.mark.parametrize("share", [0.002, 0.05, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_law_random_refusals_leave_no_limit_behind(share: float, seed: int):
    """
    A thousand calls under a steady load, a share of them refused by chance: whatever was guessed in between, the load fits again.
    """
    dice = random.Random(seed)
    law = Law(RateLimits(concurrency=32), dice.random)
    now, held_back = 0.0, 0
    for _ in range(1_000):
        now += 0.02
        if law.delay(0, now) > 0:
            held_back += 1
            continue
        sent = law.send(0, now)
        if dice.random() < share:
            law.refused(sent, None, None, None, None, now + 0.002)
        else:
            law.admitted(sent, now + 0.015)
        law.done(sent, now + 0.015)

    assert held_back < 200
    assert 32 == law.concurrency.limit


def test_law_stray_wish_for_silence_holds_for_that_request_alone():
    """
    While others get through, `Retry-After: 1` of a refusal without a reason is for the refused request.
    """
    law = Law(RateLimits(concurrency=8), lambda: 0.0)
    for number in range(20):
        sent = law.send(0, number * 0.1)
        law.admitted(sent, number * 0.1 + 0.05)
        law.done(sent, number * 0.1 + 0.05)
    sent = law.send(0, 2.0)

    assert 1.0 == law.refused(sent, None, None, None, 1.0, 2.01)
    law.done(sent, 2.01)
    assert 0.0 == law.delay(0, 2.02)


def test_law_first_wish_for_silence_holds_for_everybody():
    """
    A server that has admitted nobody is believed.
    """
    law = Law(RateLimits(concurrency=8), lambda: 0.0)
    sent = law.send(0, 0.0)

    assert 0.0 == law.refused(sent, None, None, None, 1.0, 0.01)
    law.done(sent, 0.01)
    assert 1.0 == pytest.approx(law.delay(0, 0.01))


def test_law_configured_slots_are_not_undercut_by_guesses():
    """
    Who gave a number knows better than refusals that name none.
    """
    law = Law(RateLimits(concurrency=8, rpm=10_000), lambda: 0.0)
    for round_ in range(20):
        sent = [law.send(0, round_ * 1.0) for _ in range(8) if law.delay(0, round_ * 1.0) == 0.0]
        for one in sent:
            law.refused(one, None, None, None, None, round_ + 0.01)
            law.done(one, round_ + 0.01)

    assert (8, 10_000) == (law.concurrency.limit, law.requests.cap)


def test_law_overloads_that_overtake_answers_are_no_outage_yet():
    """
    The first news of a crowd is bad news only: as long as more are under way than were refused, the service does not count as down.
    """
    law = Law(RateLimits(concurrency=32), lambda: 0.5)
    crowd = [law.send(0, 0.0) for _ in range(32)]
    for one in crowd[:6]:
        law.overloaded(one, None, 0.002)
        law.done(one, 0.002)

    assert not law.outage.active

    for one in crowd[6:]:
        law.overloaded(one, None, 0.004)
        law.done(one, 0.004)

    assert law.outage.active
