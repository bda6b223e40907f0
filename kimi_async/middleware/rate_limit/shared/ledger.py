"""
The arithmetic of a quota that several processes share: a state, a message, a time; an answer, and the state changed.

No clock, no loop, no dice. Times are milliseconds of the ledger's own clock, which only ever runs forward and never faster than its
members' clocks do. `kimi_async/integrations/redis.lua` is the same in Lua, line by line: change both, and
`tests/integrations/test_redis.py` will say whether they still agree.

* Slots are one number a member, and a member that was silent for `TTL` has none.
* Requests and tokens of the last minute are counted in buckets of `BUCKET`, each leaving as if all of it had come at its end.
* What goes is paced a little quicker than the limit after a burst of a tenth of a minute. Unpaced, 300 requests go in three seconds,
  and collide with themselves 60 s later: the connections of the first took longer to open than those of the second
  (6 refusals in 665; paced none).
* Whoever waits has a place. Others take only what those before them leave.
"""

import copy
import math

from msgspec import Struct, field

from .message import Answer, Item, Peer, Sync

__all__ = ["State", "sync"]

SPAN = 60_000
BUCKET = 100
LOOK = 250
"""A grant may be for a moment so far ahead: whoever is next need not ask in the very millisecond."""
TTL = 3_000
"""Members say something every second."""
GRACE = 3_000
"""Silence of a ledger that has forgotten what its members remember: longer than the longest pause between two attempts to reach it."""
GAP = 1_500
"""Members that were not heard for so long, none of them, were cut off…"""
RETURN = 1_500
"""… and all of them have so long to say what they did meanwhile."""
BURST = 6_000
PACE = 1.2
FIRST_PACE = 1.04
"""… in the first minute of a ledger, whose members may remember less than was sent: those who died took theirs with them."""
MARGIN = 300
MARGIN_MOST = 2_000
CALM = 120_000
"""After so long without a refusal the margin shrinks again."""
SLACK = 150
"""A message may have been so long on its way before the ledger doubts its own clock."""
STRANGER = 1_500
"""How far the clock may run on the word of somebody it does not know, while it knows others…"""
SILENCE = 90_000
"""… unless it was so long that whoever it knew is gone, and the minute with them."""
STARVED = 70
BEAT = 1_000
LATE = 400
"""Whoever was to ask again and has not keeps its place for so long."""
PROBES = 4_000
"""The longest pause between two probes of a server without capacity, unless it asks for a longer one."""
REGROW = 120_000
DAY = 86_400_000
DAY_BUCKET = 900_000
FAIR_EVERY = 8
SLOW_START = 8.0
TRY_SOON = 20_000
TRY_LATE = 960_000


class Member(Struct, array_like=True):
    name: str = ""
    seen: int = 0
    mono: int = 0
    held: int = 0
    seq: int = 0
    since: int = 0
    priority: int = 0
    tokens: int = 0
    wants: int = 0
    due: int = 0
    born: int = 0
    conf: tuple[int, int, int, int] = (0, 0, 0, 0)
    last: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Buckets and tokens of what the last answer granted, to be taken back if that did not arrive."""


class State(Struct, array_like=True):
    """A quota. Everything that is known of it."""

    epoch: int = 0
    clock: int = 0
    raw: int = 0
    born: int = 0
    grace: int = 0
    gate: int = 0
    margin: int = MARGIN
    margin_at: int = 0
    over: int = 0
    """How often in a row the server had no capacity."""
    tat: float = 0.0
    """When what was sent would have been sent at the limit's pace."""
    tokens_tat: float = 0.0
    turn: int = 0
    soft: float = 0.0
    """Slots of which use is made, while fewer than there may be; 0: all."""
    steady: int = 0
    """1: `soft` rises by one a round, after a refusal; 0: it doubles, at the start."""
    told: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Limits as the server told them, or as they were counted."""
    how: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    share: int = 0
    """Requests a minute that were ours when others were found to use the quota; 0: none were."""
    share_at: int = 0
    trying: int = 0
    """When one more request a minute than believed possible was let go; 0: not."""
    try_at: int = 0
    step: int = 1
    pause: int = TRY_SOON
    count: int = 0
    tokens: int = 0
    window: list[list[int]] = field(default_factory=list[list[int]])
    """[bucket, requests, tokens], in order."""
    day: list[list[int]] = field(default_factory=list[list[int]])
    day_tokens: int = 0
    members: dict[str, Member] = field(default_factory=dict[str, Member])


def sync(state: State, message: Sync, raw: int) -> Answer:
    """One message at the time `raw` of the ledger's host, in ms."""
    if message.leave == 2:
        state = copy.deepcopy(state)  # whoever only looks leaves no trace
    if state.epoch == 0:
        if message.leave:
            return _answer(state, message, "bye")
        state.epoch = message.seed
        state.clock = state.raw = state.born = raw
        state.tat = state.tokens_tat = float(raw + BURST)  # nobody knows what went before: no burst
        state.try_at = raw + TRY_SOON
        if message.epoch:
            state.grace = raw + GRACE
    me = state.members.get(message.member)
    _tick(state, me, message, raw)
    now = state.clock
    for name in [name for name, other in state.members.items() if other is not me and now - other.seen > TTL]:
        del state.members[name]
    _expire(state, now)
    if message.leave == 2:
        answer = _answer(state, message, "bye")
        answer.peers = [
            Peer(name, p.name, p.held, p.wants, max(0, now - p.seen)) for name, p in state.members.items()
        ]
        return answer
    if message.epoch not in (0, state.epoch):
        if message.leave:
            return _answer(state, message, "bye")
        if now - state.born < SPAN:
            state.grace = max(state.grace, now + GRACE)
        return _answer(state, message, "register")
    if me is None:
        me = Member(born=now)
        if not message.leave:
            state.members[message.member] = me
    elif message.seq <= me.seq:
        return _answer(state, message, "late")
    if me.last and message.seen != me.seq:
        for bucket, tokens in me.last:  # that answer never arrived, or too late to be used
            _add(state, bucket, -1, -tokens, now)
            _unpace(state, 1)
    me.last = []
    before, me.seq = me.seq, message.seq
    me.seen, me.mono, me.held = now, message.mono, message.held
    me.name, me.conf = message.name, message.conf
    for item in message.items:
        if item[0] > before:
            _apply(state, item, now)
    if message.leave:
        state.members.pop(message.member, None)
        return _answer(state, message, "bye")
    _try(state, now)
    grants, again, reason, wait = _grant(state, message, me, now)
    me.due = now + again
    answer = _answer(state, message, "ok")
    answer.grants, answer.again, answer.reason, answer.wait = grants, again, reason, wait
    return answer


def _tick(state: State, me: Member | None, message: Sync, raw: int) -> None:
    """
    The clock goes on, by no more than the member's own clock did. A host's clock that is set back stops ours for a moment, and one
    set forward is not believed: to be slow costs a little, to be fast costs refusals.
    """
    step = max(0, raw - state.raw)
    state.raw = raw
    cut_off = GAP < step < SILENCE and len(state.members) > (0 if me is None else 1)
    if me is not None:
        if message.mono >= me.mono:
            step = min(step, max(0, me.seen + message.mono - me.mono + SLACK - state.clock))
        else:
            step = min(step, STRANGER)
    elif state.members and step < SILENCE:
        step = min(step, STRANGER)
    state.clock += step
    if cut_off:
        state.grace = max(state.grace, state.clock + RETURN)


# --- the minute and the day --------------------------------------------------------------------------------------------


def _expire(state: State, now: int) -> None:
    if state.margin > MARGIN and now - state.margin_at > CALM:
        state.margin, state.margin_at = max(MARGIN, state.margin * 3 // 4), now
    window, gone = state.window, 0
    while gone < len(window) and window[gone][0] + BUCKET + SPAN + state.margin <= now:
        state.count -= window[gone][1]
        state.tokens -= window[gone][2]
        gone += 1
    del window[:gone]
    day, gone = state.day, 0
    while gone < len(day) and day[gone][0] + DAY_BUCKET + DAY <= now:
        state.day_tokens -= day[gone][1]
        gone += 1
    del day[:gone]


def _add(state: State, at: int, count: int, tokens: int, now: int) -> None:
    """Counts `count` requests and `tokens` as of `at`; negative numbers take back."""
    bucket = at // BUCKET * BUCKET
    if bucket + BUCKET + SPAN + state.margin > now:
        window = state.window
        index = len(window)
        while index > 0 and window[index - 1][0] > bucket:
            index -= 1
        if index > 0 and window[index - 1][0] == bucket:
            window[index - 1][1] += count
            window[index - 1][2] += tokens
        else:
            window.insert(index, [bucket, count, tokens])
        state.count += count
        state.tokens += tokens
    if tokens != 0:
        bucket = at // DAY_BUCKET * DAY_BUCKET
        day = state.day
        if day and day[-1][0] >= bucket:
            day[-1][1] += tokens
        else:
            day.append([bucket, tokens])
        state.day_tokens += tokens


def _unpace(state: State, count: int) -> None:
    """So many did not go after all: others may in their place."""
    limit = _limit(state, 1)
    if limit > 0:
        state.tat -= count * SPAN / (limit * PACE)


def _room_at(state: State, which: int, excess: int, now: int) -> int:
    """When `excess` more (requests: 1, tokens: 2) than now will have left the minute."""
    if excess <= 0:
        return now
    for entry in state.window:
        excess -= entry[which]
        if excess <= 0:
            return entry[0] + BUCKET + SPAN + state.margin
    return now + SPAN


# --- limits ------------------------------------------------------------------------------------------------------------


def _limit(state: State, which: int) -> int:
    """The least that a member was given by its user or the server told; 0 if nobody knows."""
    limit = state.told[which]
    for member in state.members.values():
        given = member.conf[which]
        if given > 0 and (limit == 0 or given < limit):
            limit = given
    return limit


def _rpm(state: State, now: int) -> int:
    """Requests a minute of which use is made; 0: no limit is known."""
    limit = _limit(state, 1)
    if limit == 0:
        return 0
    if state.share > 0:
        grown = state.share + (limit - state.share) * (now - state.share_at) // REGROW
        if grown < limit:
            return max(1, grown)
        state.share = 0
    if state.trying > 0:
        return limit + state.step
    return limit


def _slots(state: State) -> int:
    """Slots of which use is made; 0: no limit is known and none was met."""
    limit = _limit(state, 0)
    if limit == 0 and state.soft == 0.0 and state.steady == 0:
        state.soft = SLOW_START
    if state.soft > 0.0:
        if limit > 0 and state.soft >= limit:
            state.soft = 0.0
            return limit
        return max(1, math.floor(state.soft))
    return limit


def _held(state: State) -> int:
    return sum(member.held for member in state.members.values())


def _try(state: State, now: int) -> None:
    """
    A limit that only the server told, or that was counted, may have been raised: once in a while one request more is let go, for all
    members together. If nothing is refused for a minute, it was right.
    """
    told = state.told[1]
    if told == 0 or _limit(state, 1) < told or state.over > 0:
        state.trying = 0
        return
    if state.trying > 0:
        if now - state.trying > SPAN + 5_000:
            state.told[1] = told + state.step
            state.how[1] = 3
            state.step *= 2
            state.trying = 0
            state.pause = TRY_SOON
            state.try_at = now + TRY_SOON
    elif now >= state.try_at and state.count >= told and state.share == 0:
        state.trying = now


def _apply(state: State, item: Item, now: int) -> None:
    _, kind, age, first, second, hint = item
    if kind == "sent":
        _add(state, now - age, first, second, now)
        if first < 0:
            _unpace(state, -first)
        return
    if kind == "good":
        state.over = 0
        if state.soft > 0.0:
            state.soft += first / state.soft if state.steady == 1 else first
            state.soft = min(state.soft, 100_000.0)
        return
    if kind == "over":
        state.over = min(state.over + 1, 2)
        state.soft = max(1.0, float(_held(state)))
        state.steady = 0
        state.gate = max(state.gate, now - age + max(hint, PROBES // 4 * 2**state.over))
        return
    if kind == "slots":
        _slots_refused(state, first)
        if first == 0 or hint > 2_000:
            state.gate = max(state.gate, now - age + hint)
        return
    if kind == "rpm" or (kind == "some" and state.count >= 0.9 * _limit(state, 1) > 0):
        _rpm_refused(state, first, now)
    elif kind == "tpm":
        if first > 0:
            state.told[2], state.how[2] = first, 2
        elif _limit(state, 2) == 0:
            state.told[2], state.how[2] = max(1, state.tokens), 3
        limit = _limit(state, 2)
        if state.tokens >= 0.9 * limit:
            _stretch(state, now)
        state.tokens_tat = max(state.tokens_tat, float(now + BURST))
    elif kind == "tpd":
        if first > 0:
            state.told[3], state.how[3] = first, 2
    else:
        _slots_refused(state, 0)
    state.gate = max(state.gate, now - age + hint)


def _stretch(state: State, now: int) -> None:
    """Near the limit and refused: what the server counts lasts longer than we thought."""
    if now - state.margin_at > 1_000:
        state.margin, state.margin_at = min(MARGIN_MOST, state.margin * 3 // 2), now


def _slots_refused(state: State, limit: int) -> None:
    held = _held(state)
    if limit > 0:
        state.told[0], state.how[0] = limit, 2
    known = _limit(state, 0)
    if known == 0 or limit == 0 or held < 0.9 * known:
        # Fewer than there should be, or nobody says how many: what was held, less one, and from there one a round.
        state.soft = float(max(1, held - 1))
        state.steady = 1


def _rpm_refused(state: State, limit: int, now: int) -> None:
    known = _limit(state, 1)
    if limit > 0:
        state.told[1], state.how[1] = limit, 2
    elif known == 0:
        state.told[1], state.how[1] = max(1, state.count - 1), 3
    if state.trying > 0:
        state.trying = 0
        state.step = 1
        state.pause = min(TRY_LATE, state.pause * 2)
    state.try_at = now + state.pause
    known = _limit(state, 1)
    if state.count >= 0.9 * known:
        _stretch(state, now)
    else:
        # Others than our members use it too: what we had is ours, and more by and by.
        state.share, state.share_at = max(1, state.count * 9 // 10), now
    state.tat = max(state.tat, float(now + BURST))


# --- who may go --------------------------------------------------------------------------------------------------------


def _grant(state: State, message: Sync, me: Member, now: int) -> tuple[list[int], int, str, int]:
    """In how many ms each of the first may go; when to ask again, what the next waits for, and for how long at least."""
    wants = message.want
    grants: list[int] = []
    if not wants:
        me.since = me.wants = me.tokens = me.priority = 0
        return grants, BEAT, "", 0
    if me.since == 0:
        me.since = now
    me.wants = max(message.waiting, len(wants))
    me.tokens, me.priority = wants[0]
    if now < state.grace:
        return grants, min(BEAT, state.grace - now), "learning", state.grace - now
    if now < state.gate:
        reason = "overloaded" if state.over > 0 and state.gate - now <= PROBES else "gate"
        return grants, max(STARVED, min(BEAT, state.gate - now)), reason, state.gate - now

    # Every eighth goes to whoever has waited longest, whatever the priorities.
    by_age = state.turn % FAIR_EVERY == FAIR_EVERY - 1
    ahead = ahead_tokens = 0
    lining = 1
    for name, other in state.members.items():
        if other is not me and other.wants > 0 and now <= other.due + LATE:
            lining += 1
            older = other.since < me.since or (other.since == me.since and name < message.member)
            if older if by_age or other.priority == me.priority else other.priority > me.priority:
                ahead += 1
                ahead_tokens += other.tokens

    rpm, tpm, tpd, slots = _rpm(state, now), _limit(state, 2), _limit(state, 3), _slots(state)
    held = _held(state)
    most = len(wants)
    if lining > 1 and slots > 0:
        most = min(most, max(1, (slots - held) // lining))
    if state.over > 0:
        most = 1
    pace = FIRST_PACE if now - state.born < SPAN + 5_000 else PACE
    interval = SPAN / (rpm * pace) if rpm > 0 else 0.0
    again, reason, wait = BEAT, "", 0
    for tokens, _ in wants[:most]:
        if slots > 0 and held + ahead >= slots:
            reason = "concurrency" if held >= slots else "turn"
            # Slots that are all its own come back with its own replies, of which it will tell.
            again = 100 if held > me.held or state.soft > 0.0 else BEAT
            break
        at = float(now)
        if rpm > 0:
            at = max(at, state.tat - BURST + ahead * interval)
            at = max(at, float(_room_at(state, 1, state.count + 1 + ahead - rpm, now)))
            if at > now:
                reason = "rpm"
        if tpm > 0 and tokens > 0:
            soonest = max(
                state.tokens_tat - BURST,
                float(_room_at(state, 2, state.tokens + tokens + ahead_tokens - tpm, now)),
            )
            if soonest > at:
                at, reason = soonest, "tpm"
        if tpd > 0 and tokens > 0 and state.day_tokens + tokens > tpd:
            at, reason = float((state.day[0][0] if state.day else now) + DAY_BUCKET + DAY), "tpd"
        delay = math.ceil(at - now)
        if delay > LOOK:
            wait = delay
            again = max(STARVED, min(BEAT if lining == 1 else LOOK, delay - LOOK + 10))
            break
        reason = ""
        bucket = math.floor(at) // BUCKET * BUCKET
        _add(state, bucket, 1, tokens, now)
        me.last.append((bucket, tokens))
        grants.append(max(0, delay))
        held += 1
        me.held += 1
        if rpm > 0:
            state.tat = max(state.tat, float(now)) + interval
        if tpm > 0:
            state.tokens_tat = max(state.tokens_tat, float(now)) + tokens * SPAN / (tpm * pace)
        if lining > 1:
            state.turn += 1
    else:
        if most < len(wants):
            reason, again = ("overloaded" if state.over > 0 else "turn"), STARVED
    if state.over > 0 and grants:
        # A probe: nobody else before it was answered, or had time to be.
        state.gate = max(state.gate, now + 2_000)
    if len(grants) == len(wants):
        if me.wants == len(wants):
            me.since = me.wants = me.tokens = me.priority = 0
        else:
            me.since, again, reason = now, 0, "turn"
    elif grants:
        me.since = now
        me.tokens, me.priority = wants[len(grants)]
    return grants, again, reason, wait


def _answer(state: State, message: Sync, what: str) -> Answer:
    now = state.clock
    sources: list[int] = []
    limits: list[int] = []
    for which in range(4):
        limit = _limit(state, which)
        limits.append(limit)
        sources.append(0 if limit == 0 else state.how[which] if limit == state.told[which] else 1)
    me = state.members.get(message.member)
    rank = waiting = lining = 0
    for name, other in state.members.items():
        waiting += other.wants
        if other.wants > 0:
            lining += 1
        if me is not None and (other.born < me.born or (other.born == me.born and name < message.member)):
            rank += 1
    return Answer(
        state=what,  # type: ignore[arg-type]
        epoch=state.epoch,
        grants=[],
        again=BEAT,
        reason="",
        wait=0,
        limits=limits,
        sources=sources,
        allowed=[_slots(state), _rpm(state, now)],
        used=[_held(state), state.count, state.tokens, state.day_tokens],
        waiting=waiting,
        members=len(state.members),
        rank=rank,
        lining=lining,
        gate=max(0, state.gate - now, state.grace - now),
        overloaded=state.over,
    )
