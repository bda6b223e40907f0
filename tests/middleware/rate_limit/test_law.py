"""
The arithmetic of limits, without a loop: what may be sent when, and what a refusal teaches.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_async.middleware.rate_limit.law import Law
from kimi_async.middleware.rate_limit.limits import TIERS, RateLimits, tier_of
from kimi_async.middleware.rate_limit.rate import Rate
from kimi_async.middleware.rate_limit.ticket import Ticket
from kimi_async.middleware.rate_limit.window import INF, Window


def law(dice: float = 0.5, **limits: int | bool) -> Law:
    return Law(RateLimits(**limits), lambda: dice)  # type: ignore[arg-type]


def drive(
    subject: Law, rpm: int, *, seconds: float, start: float = 0.0, rtt: float = 0.03, takes: float = 2.0
) -> tuple[int, int]:
    """
    Sends whenever the law allows, to a server with a sliding window that counts refusals and names its number. The
    number admitted and refused.
    """
    server: deque[float] = deque()
    events: list[tuple[float, int, str, Ticket]] = []
    now, admitted, refused, number = start, 0, 0, 0
    while now < start + seconds:
        while events and events[0][0] <= now:
            at, _, what, ticket = heapq.heappop(events)
            if what == "refused":
                subject.refused(ticket, "rpm", rpm, None, 1.0, at)
                subject.done(ticket, at)
            elif what == "admitted":
                subject.admitted(ticket, at)
                number += 1
                heapq.heappush(events, (at + takes, number, "done", ticket))
            else:
                subject.done(ticket, at)
        wait = subject.delay(0, now)
        if wait <= 0:
            ticket = subject.send(0, now)
            while server and server[0] <= now - 60:
                server.popleft()
            good = len(server) < rpm
            server.append(now)
            admitted, refused = admitted + good, refused + (not good)
            number += 1
            heapq.heappush(events, (now + rtt, number, "admitted" if good else "refused", ticket))
            continue
        now = min(now + max(wait, 1e-4), events[0][0] if events else INF)
    return admitted, refused


# --- limits -------------------------------------------------------------------------------------------------------------


def test_of_tier_names_in_any_spelling():
    """
    A tier may be written as people write it; None means that everything is learnt.
    """
    assert TIERS["tier1"] == RateLimits.of("Tier 1") == RateLimits.of("tier-1") == RateLimits.of("tier1")
    assert RateLimits() == RateLimits.of(None)
    assert RateLimits(rpm=3) == RateLimits.of({"rpm": 3})


@pytest.mark.parametrize("value", ["tier9", "gold", ""])
def test_of_unknown_tier_is_refused_with_the_list(value: str):
    """
    A misspelt tier is an error that names the tiers there are.
    """
    with pytest.raises(ValueError, match="tier0, tier1"):
        RateLimits.of(value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_limits_must_be_whole_and_positive(value: object):
    """
    A limit of zero would wait for ever, and half a request cannot be sent.
    """
    with pytest.raises(ValueError, match=r"RateLimits\.rpm"):
        RateLimits(rpm=value)  # type: ignore[arg-type]


def test_tier_of_reads_the_group_header():
    """
    `Msh-Gid: enterprise-tier-5` names the tier; other words name nothing.
    """
    assert TIERS["tier5"] == tier_of("enterprise-tier-5")
    assert [None] * 5 == [tier_of(text) for text in (None, "", "enterprise", "tier-x-tier-77", "x" * 5000)]


# --- the window ---------------------------------------------------------------------------------------------------------


def test_window_forgets_after_its_span_to_the_event():
    """
    What was sent at t is inside until t + span, and not at t + span.
    """
    window = Window(60.0)
    window.add(2, 0.0)
    window.add(1, 10.0)

    assert [3, 3, 1, 1, 0] == [window.expire(at) for at in (0.0, 59.999, 60.0, 69.999, 70.0)]


def test_window_when_says_when_there_is_room():
    """
    Room for n comes when the n oldest have left, and never if there are not as many.
    """
    window = Window(60.0)
    for at in range(5):
        window.add(1, float(at))

    assert [60.0, 62.0, 64.0, INF] == [window.when(room) for room in (1, 3, 5, 6)]
    assert -INF == window.when(0)


def test_window_take_gives_back_once_and_only_what_is_inside():
    """
    A refund finds its entry, and after the entry has left there is nothing to give back.
    """
    window = Window(60.0)
    early, late = window.add(100, 0.0), window.add(50, 30.0)
    window.take(early, 100)
    assert 50 == window.total

    window.expire(61.0)
    window.take(early, 100)
    assert 50 == window.total
    window.expire(95.0)
    window.take(late, 50)
    assert 0 == window.total


def test_window_memory_is_bounded_by_its_span():
    """
    A million requests in a minute are kept as some twelve thousand entries, and none is lost.
    """
    window = Window(60.0)
    for number in range(200_000):
        window.add(1, number * 1e-4)

    assert 200_000 == window.total
    assert len(window._entries) <= 20 / window.grain + 1


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(1, 9)), max_size=60))
def test_window_total_is_never_less_than_the_truth(steps: list[tuple[float, int]]):
    """
    Joining neighbours errs on the safe side: nothing leaves before its time.
    """
    window, now, sent = Window(10.0), 0.0, []
    for gap, amount in steps:
        now += gap
        window.add(amount, now)
        sent.append((now, amount))
        true = sum(amount for at, amount in sent if at > now - 10.0)
        assert window.expire(now) >= true


# --- what a request may not do ------------------------------------------------------------------------------------------


def test_delay_configured_rpm_is_never_exceeded_and_fully_used():
    """
    With the number known, ten minutes bring exactly ten minutes' worth, and no refusal.
    """
    assert (3000, 0) == drive(law(rpm=300, concurrency=1000), 300, seconds=600)


def test_delay_concurrency_configured_blocks_until_one_ends():
    """
    When every slot is taken there is no time at which a slot opens: that depends on the others.
    """
    subject = law(concurrency=2)
    first = subject.send(0, 0.0)
    subject.send(0, 0.0)

    assert INF == subject.delay(0, 0.0)
    assert "concurrency" == subject.reason
    subject.done(first, 1.0)
    assert 0.0 == subject.delay(0, 1.0)


def test_delay_tokens_reserved_on_sending_and_refunded_on_refusal():
    """
    A refused request costs no tokens, though it costs a request.
    """
    subject = law(tpm=100, rpm=10)
    ticket = subject.send(80, 0.0)
    assert "tpm" == (subject.delay(30, 1.0) and subject.reason)

    subject.refused(ticket, "rpm", None, None, None, 1.0)
    subject.done(ticket, 1.0)

    assert subject.tokens is not None
    assert 0 == subject.tokens.window.total
    assert 1 == subject.requests.window.total


def test_delay_far_from_zero_never_asks_for_less_than_the_clock_can_count():
    """
    A wait too small to move the clock would be asked for again for ever.
    """
    subject, now = law(rpm=3), 1e15
    for _ in range(3):
        subject.send(0, now)
    wait = subject.delay(0, now)

    assert now + wait > now
    assert 0.0 == subject.delay(0, math.nextafter(now + wait, INF) + 1)


def test_too_costly_only_for_limits_that_someone_has_told():
    """
    A request above a configured limit can never be sent; above a guess, it may.
    """
    assert ("tpm", 100.0) == law(tpm=100).too_costly(101)
    assert law(tpm=100).too_costly(100) is None
    assert law().too_costly(10**9) is None


# --- learning -----------------------------------------------------------------------------------------------------------


def test_slow_start_doubles_with_each_round_of_admissions():
    """
    From four slots to 4,096 in ten rounds, though every stream stays open, and a round is sent within half a second.
    """
    subject, now, sizes = law(), 0.0, []
    for _ in range(11):
        tickets: list[Ticket] = []
        until = now + 0.49
        while now < until:
            wait = subject.delay(0, now)
            if wait > 0:
                now = min(until, now + wait)
            else:
                tickets.append(subject.send(0, now))
        sizes.append(len(subject.inflight))
        for ticket in tickets:
            subject.admitted(ticket, now)

    assert [4 * 2**n for n in range(11)] == sizes


def test_slow_start_quick_admissions_are_not_held_up():
    """
    Where admissions come back in a millisecond, 9,000 streams are under way in a tenth of a second.
    """
    subject, now = law(), 0.0
    pending: deque[Ticket] = deque()
    while len(subject.inflight) < 9_000:
        while pending and pending[0].sent + 0.001 <= now:
            subject.admitted(pending.popleft(), now)
        wait = subject.delay(0, now)
        if wait > 0:
            now = min(now + wait, pending[0].sent + 0.001) if pending else now + wait
        else:
            pending.append(subject.send(0, now))

    assert now < 0.1


def test_slow_start_overshoot_is_a_fraction_of_the_limit():
    """
    A round is sent in pieces, so that the first refusals, 30 ms later, stop the rest of it.
    """
    for cap in (10, 37, 70, 100, 250):
        subject, now, refused = law(), 0.0, 0
        events: list[tuple[float, int, str, Ticket]] = []
        while now < 8.0:
            while events and events[0][0] <= now:
                at, _, what, ticket = heapq.heappop(events)
                if what == "refused":
                    subject.refused(ticket, "concurrency", cap, None, 1.0, at)
                    subject.done(ticket, at)
                else:
                    subject.admitted(ticket, at)
            wait = subject.delay(0, now)
            if wait > 0:
                now = min(now + wait, events[0][0] if events else now + 1.0)
                continue
            good = sum(1 for t in subject.inflight.values() if t.tokens == 0) < cap
            ticket = subject.send(0, now)
            refused += not good
            heapq.heappush(
                events, (now + (0.8 if good else 0.03), ticket.seq, "ok" if good else "refused", ticket)
            )
        assert refused <= max(4, cap / 6)


def test_slow_start_takes_silence_for_an_admission():
    """
    Where headers come only with the answer, half a second without a refusal lets twice as many go.
    """
    subject = law()
    for _ in range(4):
        subject.send(0, 0.0)

    assert subject.SILENCE == subject.delay(0, 0.0)
    assert 0.0 == subject.delay(0, subject.SILENCE)
    assert 8.0 == subject.concurrency.limit


def test_slow_start_does_not_grow_where_nobody_waits():
    """
    Two requests at a time prove nothing about a third.
    """
    subject, now = law(), 0.0
    for _ in range(100):
        tickets = []
        for _ in range(2):
            assert 0.0 == subject.delay(0, now)
            tickets.append(subject.send(0, now))
        for ticket in tickets:
            subject.admitted(ticket, now + 1)
            subject.done(ticket, now + 1)
        now += 1

    assert RateLimits().start == subject.concurrency.limit


def test_refused_concurrency_number_is_believed_at_once():
    """
    `max concurrency: 10`, when ten were under way, is the limit, and nothing is ever sent beyond it until it is tested.
    """
    subject = law(hold=False)
    tickets = [subject.send(0, 0.0) for _ in range(16)]
    for ticket in tickets[10:]:
        subject.refused(ticket, "concurrency", 10, None, 1.0, 0.05)
        subject.done(ticket, 0.05)

    assert (10.0, 10.0, "told") == (
        subject.concurrency.limit,
        subject.concurrency.cap,
        subject.concurrency.source,
    )


def test_refused_concurrency_without_number_is_counted():
    """
    Sixteen sent, six refused: what is left is the limit, to the slot.
    """
    subject = law(hold=False)
    tickets = [subject.send(0, 0.0) for _ in range(16)]
    for ticket in tickets[10:]:
        subject.refused(ticket, "concurrency", None, None, 1.0, 0.05)
        subject.done(ticket, 0.05)

    assert (10.0, "seen") == (subject.concurrency.limit, subject.concurrency.source)


def test_refused_rpm_without_number_is_counted():
    """
    What went through in the minute before the first refusal is the limit.
    """
    subject = law(hold=False)
    tickets = [subject.send(0, number * 0.01) for number in range(120)]
    for ticket in tickets[100:]:
        subject.refused(ticket, "rpm", None, None, 1.0, ticket.sent + 0.2)
        subject.done(ticket, ticket.sent + 0.2)

    assert (100.0, "seen") == (subject.requests.cap, subject.requests.source)


def test_refused_tpm_number_and_count_seed_the_minute():
    """
    Tokens are not counted before a limit on them is known; the refusal says what the minute holds, and it is believed.
    """
    subject = law(hold=False)
    for number in range(10):
        subject.send(0, number * 1.0)
    refused = subject.send(0, 10.0)
    assert not subject.counts_tokens

    subject.refused(refused, "tpm", 1_000, 1_100, 1.0, 10.05)
    subject.done(refused, 10.05)

    assert subject.tokens is not None
    assert (1_000.0, "told") == (subject.tokens.cap, subject.tokens.source)
    assert 0.9 * 1_100 <= subject.tokens.window.total <= 1_100


def test_refused_estimates_are_scaled_to_the_servers_count():
    """
    Where the server counts a tenth more than we estimate, the next estimates are larger.
    """
    subject = law(tpm=1_000, hold=False)
    for number in range(9):
        subject.send(100, number * 0.1)
    ticket = subject.send(100, 1.0)
    subject.refused(ticket, "tpm", 1_000, 1_100, 1.0, 1.05)

    assert 1.0 < subject.scale <= 1.1


def test_tier_header_is_believed_only_where_nobody_knows_better():
    """
    The tier seeds what is unknown; what the caller configured stays.
    """
    subject = law(rpm=7)
    subject.tier(TIERS["tier1"])

    assert (15.0, "tier") == (subject.concurrency.limit, subject.concurrency.source)
    assert (7.0, "config") == (subject.requests.cap, subject.requests.source)
    assert subject.tokens is not None
    assert 2_000_000.0 == subject.tokens.cap


# --- cutting ------------------------------------------------------------------------------------------------------------


def test_refused_generation_in_flight_is_one_cut():
    """
    Of fifty refused together each knows the same thing: they shrink us once.
    """
    subject = law(hold=False)
    subject.concurrency.learn(100, "told")
    tickets = [subject.send(0, 0.0) for _ in range(50)]
    for ticket in tickets:
        subject.refused(ticket, "concurrency", 100, None, 1.0, 0.05)
        subject.done(ticket, 0.05)

    # 0.9 of the least that was held: the first refusal's cut, and no other.
    assert 1.0 <= subject.concurrency.limit
    again = subject.concurrency.limit
    late = Ticket(10_000, 0.01, 0)
    subject.concurrency.refused(late, 100, 1, 1.0)
    assert again == subject.concurrency.limit


def test_refused_stray_does_not_collapse_the_limit():
    """
    One refusal at half the known limit costs a little, and admissions bring it back.
    """
    subject = law(hold=False)
    subject.concurrency.learn(100, "told")
    tickets = [subject.send(0, 0.0) for _ in range(50)]
    subject.refused(tickets[-1], "concurrency", 100, None, 1.0, 0.05)
    subject.done(tickets[-1], 0.05)

    assert subject.concurrency.limit >= 40


def test_refused_long_hint_gates_but_never_stops_learning():
    """
    A hint of 89 s with refusals every 2 s holds sending back, and every later generation still teaches: one clock
    for both froze a limit for a whole run (github.com/UKGovernmentBEIS/inspect_ai/issues/5137).
    """
    subject = law(hold=False)
    first = [subject.send(0, 0.0) for _ in range(20)]
    subject.refused(first[-1], "concurrency", None, None, 89.0, 0.1)
    learnt = subject.concurrency.limit
    assert subject.gate >= 89.0

    second = [subject.send(0, 2.0) for _ in range(5)]  # as a probe of another loop might
    for ticket in [*first[:-1], *second[:-1]]:
        subject.done(ticket, 3.0)
    subject.refused(second[-1], "concurrency", None, None, 89.0, 4.0)

    assert subject.concurrency.limit < learnt


def test_refused_gate_holds_everybody_for_the_hint():
    """
    One refusal with a hint of five seconds silences all, and dice stretch it by at most a quarter.
    """
    for dice, longest in ((0.0, 5.0), (1.0, 6.25)):
        subject = law(dice, rpm=100)
        subject.refused(subject.send(0, 0.0), "rpm", 100, None, 5.0, 0.0)
        assert longest == pytest.approx(subject.delay(0, 0.0))
        assert "gate" == subject.reason


def test_refused_then_released_one_by_one():
    """
    When the gate opens, what waited goes at the limit's pace, not together.
    """
    subject = law(rpm=600)
    for ticket in [subject.send(0, 0.0) for _ in range(5)]:
        subject.refused(ticket, "rpm", 600, None, 2.0, 0.05)
        subject.done(ticket, 0.05)
    now, times = 0.05, []
    while len(times) < 60:
        wait = subject.delay(0, now)
        if wait > 0:
            now += max(wait, 1e-3)
        else:
            subject.send(0, now)
            times.append(now)

    assert times[0] >= 2.0
    together = max(sum(1 for other in times if at <= other < at + 0.05) for at in times)
    assert together <= 3
    assert times[-1] - times[0] >= 4.0


def test_outage_success_of_an_old_request_does_not_end_it():
    """
    An answer that had been admitted before the trouble says nothing about now.
    """
    subject = law(hold=False)
    old = subject.send(0, 0.0)
    for failed in [subject.send(0, 10.0) for _ in range(12)]:
        subject.overloaded(failed, None, 18.0)
        subject.done(failed, 18.0)
    subject.admitted(old, 19.0)

    assert subject.outage.active
    assert subject.delay(0, 19.0) > 0
    assert "overloaded" == subject.reason


def test_outage_sends_probes_only_and_ends_with_the_first_admitted():
    """
    A minute of overload costs some twenty probes; the first that is admitted lets slow start begin.
    """
    subject = law(concurrency=100)
    failed = subject.send(0, 0.0)
    subject.overloaded(failed, None, 8.0)
    subject.done(failed, 8.0)
    now, probes = 8.0, []
    while now < 60.0:
        wait = subject.delay(0, now)
        due = probes[0].sent + 8.0 if probes else INF
        if wait > 0:
            now = min(now + max(wait, 1e-3), due)
        else:
            probes.append(subject.send(0, now))
        if now >= due:
            subject.overloaded(probes[0], None, now)
            subject.done(probes.pop(0), now)
    assert 10 <= subject.outage.probes <= 25
    assert subject.outage.active

    subject.admitted(probes[-1], now)
    assert not subject.outage.active
    assert 0.0 == subject.delay(0, now)


def test_outage_needs_most_calls_to_fail():
    """
    A replica of many that is full fails a share of the calls: they are repeated, and nobody is held back.
    """
    subject = law(concurrency=100)
    for number in range(200):
        ticket = subject.send(0, number * 0.05)
        if number % 3:
            subject.admitted(ticket, number * 0.05 + 0.02)
        else:
            subject.overloaded(ticket, None, number * 0.05 + 0.02)
        subject.done(ticket, number * 0.05 + 0.02)

        assert not subject.outage.active


@pytest.mark.parametrize(("share", "down"), [(0.2, False), (0.5, False), (0.9, True), (1.0, True)])
def test_outage_rows_that_accidents_explain_are_not_one(share: float, down: bool):
    """
    With half of all calls overloaded four in a row come every few calls, and twenty never; with nine in ten the service is down.
    """
    for seed in range(5):
        dice, subject = random.Random(seed), law(concurrency=100)
        for number in range(1_000):
            now = number * 0.01
            if subject.delay(0, now) > 0:
                break
            ticket = subject.send(0, now)
            if dice.random() < share:
                subject.overloaded(ticket, None, now + 0.002)
            else:
                subject.admitted(ticket, now + 0.005)
            subject.done(ticket, now + 0.005)

        assert down == subject.outage.active


def test_outage_stray_overload_amid_admissions_is_not_one():
    """
    Where later requests were admitted, a single overload closes nothing.
    """
    subject = law(concurrency=100)
    failed, fine = subject.send(0, 0.0), subject.send(0, 1.0)
    subject.admitted(fine, 2.0)
    subject.overloaded(failed, None, 8.0)

    assert not subject.outage.active


# --- canaries -----------------------------------------------------------------------------------------------------------


def full(subject: Law, rpm: int) -> float:
    """
    A minute used up, with the number told.
    """
    tickets = [subject.send(0, number * 0.01) for number in range(rpm + 1)]
    for ticket in tickets[:-1]:
        subject.admitted(ticket, ticket.sent)
        subject.done(ticket, ticket.sent)
    subject.refused(tickets[-1], "rpm", rpm, None, 1.0, tickets[-1].sent)
    subject.done(tickets[-1], tickets[-1].sent)
    return tickets[-1].sent


def canary(subject: Law, now: float) -> tuple[Ticket, float]:
    """
    The next request beyond the limit, and when it goes.
    """
    for _ in range(100_000):
        wait = subject.delay(0, now)
        if wait > 0:
            now += max(wait, 1e-3)
            continue
        ticket = subject.send(0, now)
        if ticket.canary is not None:
            return ticket, now
        subject.admitted(ticket, now)
        subject.done(ticket, now)
    raise AssertionError("no canary was sent")


def test_canary_that_dies_of_another_cause_is_cleared():
    """
    Cancelled, failed or refused for another limit: the next canary is sent in its time all the same.
    """
    for end in ("done", "overloaded", "concurrency"):
        subject = law(hold=False)
        subject.budget.left = 5.0
        ticket, now = canary(subject, full(subject, 100))
        if end == "overloaded":
            subject.overloaded(ticket, None, now)
            subject.outage.active = False
        elif end == "concurrency":
            subject.refused(ticket, "concurrency", 50, None, None, now)
        subject.done(ticket, now)

        assert subject.requests.canary is None
        assert canary(subject, now + 1.0)[0] is not ticket


def test_canary_admitted_twice_opens_the_limit_until_the_next_number():
    """
    From 100 to 1,000: two canaries, a factor of four at each step after, and the new number as soon as it is told.
    """
    subject = law(hold=False)
    subject.budget.left = 5.0
    now = full(subject, 100)
    subject.concurrency.learn(500, "told")
    admitted, _ = drive(subject, 1000, seconds=300, start=now + 1)

    assert 1000.0 == subject.requests.cap
    assert admitted >= 3000


def test_canary_never_goes_beyond_what_the_caller_configured():
    """
    Configured limits are not tested, unless that is asked for.
    """
    subject = law(rpm=100, concurrency=1000)
    assert (1000, 0) == drive(subject, 10_000, seconds=600)

    curious = law(rpm=100, concurrency=1000, adaptive=True)
    assert drive(curious, 10_000, seconds=600)[0] > 2_000


def test_canary_costs_at_most_a_hundredth_of_a_small_quota():
    """
    With three requests a minute, half an hour has at most two refusals, the one that taught the number included.
    """
    admitted, refused = drive(law(concurrency=2), 3, seconds=1800)

    assert refused <= 2
    assert admitted >= 0.95 * 90


def test_canary_finds_a_limit_that_was_raised_again():
    """
    A number once told is not believed for ever.
    """
    subject = law()
    drive(subject, 200, seconds=120)
    assert 200.0 == subject.requests.cap
    drive(subject, 1000, seconds=120, start=120.0)

    assert 1000.0 == subject.requests.cap


# --- sharing ------------------------------------------------------------------------------------------------------------


def test_share_refused_below_the_limit_gives_way_towards_half():
    """
    Whoever fills the window and is refused gives a part of what is beyond half; whoever has little hardly gives.
    """
    rich, poor = law(hold=False), law(hold=False)
    for subject, share in ((rich, 280.0), (poor, 60.0)):
        subject.requests.learn(300, "told")
        subject.requests.share = share
        subject.requests.paced_until = INF
        subject.requests.grown_at = 100.0
        subject.requests.contended = 5
        ticket = subject.send(0, 100.0)
        subject.refused(ticket, "rpm", 300, None, 1.0, 100.05)

    assert 200 <= rich.requests.share <= 260
    assert 54 <= poor.requests.share <= 60


def test_share_grows_back_when_the_others_have_left():
    """
    Half the limit, and nobody objects: within two minutes all of it is ours.
    """
    rate = law().requests
    rate.learn(300, "told")
    rate.share, rate.grown_at, rate.cut_at, rate.contended = 150.0, 0.0, 0.0, 9
    for second in range(120):
        rate.allowed(float(second))

    assert INF == rate.share


# --- the clock ----------------------------------------------------------------------------------------------------------


def test_clock_jumping_back_is_taken_as_another_clock():
    """
    A second loop may start at zero: what is inside the window stays inside for its minute, no longer and no shorter.
    """
    subject = law(rpm=2)
    subject.send(0, 1000.0)
    subject.send(0, 1000.0)

    wait = subject.delay(0, 0.0)
    assert 59.0 <= wait <= 61.0
    assert 0.0 == subject.delay(0, wait + 0.01)


def test_alive_counts_admissions_and_those_under_way_for_long():
    """
    Somebody who is served for longer than a refusal takes has been admitted; a fresh request proves nothing.
    """
    subject = law()
    assert not subject.alive(90.0, 0.0)
    ticket = subject.send(0, 0.0)
    assert not subject.alive(90.0, 1.0)
    assert subject.alive(90.0, 3.0)

    subject.admitted(ticket, 3.0)
    subject.done(ticket, 3.0)
    assert subject.alive(90.0, 92.0)
    assert not subject.alive(90.0, 94.0)


def test_unsent_gives_everything_back():
    """
    A turn that was not used costs neither slot nor request nor tokens.
    """
    subject = law(concurrency=1, rpm=1, tpm=10)
    ticket = subject.send(10, 0.0)
    assert subject.delay(10, 0.0) > 0
    subject.unsent(ticket, 0.0)

    assert 0.0 == subject.delay(10, 0.0)


@given(st.lists(st.integers(0, 5), max_size=80), st.integers(1, 6))
def test_law_any_order_of_events_leaves_nothing_behind(steps: list[int], cap: int):
    """
    Whatever happens to requests, in any order and twice, the books are empty once all are done, and no slot is lost.
    """
    subject, now = law(concurrency=cap), 0.0
    open_tickets: list[Ticket] = []
    for step in steps:
        now += 0.5
        if step <= 1 and subject.delay(0, now) == 0.0:
            open_tickets.append(subject.send(0, now))
            assert len(subject.inflight) <= cap
        elif open_tickets:
            ticket = open_tickets.pop(0)
            if step == 2:
                subject.admitted(ticket, now)
            elif step == 3:
                subject.refused(ticket, None, None, None, None, now)
            elif step == 4:
                subject.overloaded(ticket, None, now)
            subject.done(ticket, now)
            subject.done(ticket, now)
    for ticket in open_tickets:
        subject.done(ticket, now)

    assert {} == subject.inflight
    assert 0 == subject.pending
    assert [] == subject.concurrency.canaries
    assert subject.requests.canary is None
    now += 1000.0
    for _ in range(200):
        wait = subject.delay(0, now)
        if wait == 0.0:
            break
        now += min(wait, 60.0)
    assert 0.0 == subject.delay(0, now)


def test_rate_name_is_the_wires_word():
    """
    The reasons given to callers are the wire's: rpm, tpm, tpd.
    """
    subject = law(rpm=1, tpm=1, tpd=1)
    rates = [rate for rate in (subject.requests, subject.tokens, subject.day) if isinstance(rate, Rate)]

    assert ["rpm", "tpm", "tpd"] == [rate.name for rate in rates]
