"""
What a refusal says about waiting and about limits.

Pure: headers, text and the time go in, a number or a small struct comes out. A hint that cannot be
believed is no hint at all, because a malformed header must never fail a call that could be repeated.

Wire facts: `Retry-After`, `X-Retry-After` and `Msh-Cooldown-Seconds` (each `1`) were captured on 429
`rate_limit_reached_error` from api.moonshot.ai in September 2026 (probes/raw/kimi.jsonl of
github.com/leandromineti/ai-assisted-coding); `engine_overloaded_error` carries none of them.
`retry-after-ms` is Azure's and OpenAI's. The texts are those of platform.kimi.ai/docs/api/errors and of
public bug reports, named below.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

__all__ = ["LimitTold", "limit_told", "retry_after"]

# A hint longer than this is a mistake (a Unix time in seconds, an overflow), not a wish. A month covers the
# longest honest one: a plan whose quota returns at the next billing cycle.
LONGEST = 32 * 86_400.0

# A text is searched only this far: messages are a few hundred characters, a hostile one has no end.
SEARCHED = 4_096

# Two clocks that agree this well are the same clock: the Date header counts whole seconds and is already as
# old as the transfer. Beyond it ours is wrong, and the server's own Date is the better zero.
SAME_CLOCK = 5.0

# Only ASCII digits, only this many: float() would take "nan", "1e999", "１" and 5,000 digits.
_SECONDS = r"\s*(\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})\s*\Z"

# "please try again after 1 seconds" (Kimi); "Please try again in 20s", "in 6ms", "in 1m30s" (OpenAI);
# "Please retry after 30 seconds" (Azure). A number without a unit counts seconds, one
# with an unknown unit (weeks) counts nothing.
_AGAIN = (
    r"\b(?:try\s+again|retry(?:\s+your\s+request)?|wait)\s+(?:after|in|for)\s+"
    r"(?:(\d{1,9})\s*m(?:in(?:ute)?s?)?\s*(?=\d))?"
    r"(\d{1,12}(?:\.\d{1,12})?)(?!\.?\d)"
    r"(?:\s*(ms|milliseconds?|h(?:ours?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)(?![a-z0-9_])"
    r"|(?=\s*(?:[^\w\s]|\Z)))"
)

_NUMBER = r"(\d{1,3}(?:,\d{3})+|\d{1,15})(?![\d])"

# "request reached organization max concurrency: 10", "max RPM: 3", "reached max request: 3"
# (github.com/harry0703/MoneyPrinterTurbo/issues/339); the number may be missing ("reached max request").
_MAX = (
    r"\bmax(?:imum)?\s+(concurren\w*|rpm|requests?|tpm|tpd|rpd|qps)\b(?:\s*(?:limit)?\s*[:=]?\s*"
    + _NUMBER
    + ")?"
)

# "reached organization TPD rate limit, current: 1505241, limit: 1500000"
# (github.com/MoonshotAI/kimi-cli/issues/2318), "reached project TPM rate limit, current: 1410, limit: 100"
# (github.com/LLM-Red-Team/kimi-cc/issues/41).
_RATE = r"\b(rpm|tpm|tpd|rpd|concurrency|requests?)\s+(?:rate\s+)?limit\b"
_CURRENT = r"\bcurrent\s*[:=]?\s*" + _NUMBER
_LIMIT = r"\blimit\s*[:=]?\s*" + _NUMBER

# OpenAI's sentence, which gateways repeat: "on tokens per min (TPM): Limit 40000, Used 39000".
_PER = r"\b(requests|tokens)\s+per\s+(min(?:ute)?|day)\b"
_USED = r"\bused\s*[:=]?\s*" + _NUMBER

# Kimi Code: "You've reached your concurrent request limit".
_CONCURRENT = r"\bconcurrent\s+requests?(?:\s+limit)?\b"

_SCOPE = r"\b(organization|project|account|user)\s+(?:max\b|\w+\s+rate\s+limit|rate\s+limit)"

Dimension = Literal["concurrency", "rpm", "tpm", "rpd", "tpd", "qps"]


class LimitTold(NamedTuple):
    """
    The limit a refusal names.

    `limit` and `current` are requests, tokens or requests in flight, as `dimension` says, and None where the
    text gives no number (or gives zero, which nobody could live by). `current` is the server's own count at
    the time, the refused request included. `scope` is the word before it: organization, project, account.
    """

    dimension: Dimension
    limit: int | None = None
    current: int | None = None
    scope: str | None = None

    @property
    def per_day(self) -> bool:
        """Whether waiting a minute is of no use."""
        return self.dimension in ("tpd", "rpd")


def retry_after(
    headers: Mapping[str, str] | None, message: str = "", now: float | None = None
) -> float | None:
    """
    Seconds the server asks us to wait, or None if it does not say.

    Every form counts: `retry-after-ms` (it refines `Retry-After`, which has whole seconds only),
    `Retry-After` as seconds, decimal seconds or an HTTP date (RFC 9110 §10.2.3), `X-Retry-After`,
    `Msh-Cooldown-Seconds`, and the text ("please try again after 1 seconds"). Where several speak, the
    longest is obeyed: coming back early costs a request of the quota, and often the header is a constant of
    the edge while the text is true.

    Zero is an answer. Negative numbers, NaN, infinities, endless digits, more than a month, and dates in the
    past are not: they are passed over as if they were absent. `now` is the wall clock as a Unix time; a date
    counts from it, or from the reply's own `Date` where the two clocks disagree. Without either, it is
    not read.
    `headers` must be case-insensitive, or have lower-case names.
    """
    longest = _in_text(message) if message else None
    if headers:
        told = _number(headers.get("retry-after-ms"), 0.001)
        if told is None:
            told = _delay(headers, "retry-after", now)
        for hint in (
            told,
            _delay(headers, "x-retry-after", now),
            _number(headers.get("msh-cooldown-seconds")),
        ):
            if hint is not None and (longest is None or hint > longest):
                longest = hint
    return longest


def limit_told(message: str) -> LimitTold | None:
    """
    The limit named in the text of a 429, or None if it names none.

    >>> limit_told("request reached organization max RPM: 3, please try again after 1 seconds")
    LimitTold(dimension='rpm', limit=3, current=None, scope='organization')
    >>> limit_told("reached project TPM rate limit, current: 1410, limit: 100")
    LimitTold(dimension='tpm', limit=100, current=1410, scope='project')
    """
    # Lower case once, and plain words before patterns: case-blind searches through the same text took ten times as long.
    text = message[:SEARCHED].lower()
    if "max" not in text and "limit" not in text and " per " not in text:
        return None
    scoped = re.search(_SCOPE, text)
    scope = scoped[1] if scoped else None
    if found := re.search(_MAX, text):
        current = _first(_CURRENT, text) if "current" in text else None
        return LimitTold(_dimension(found[1]), _count(found[2]), current, scope)
    if re.search(_CONCURRENT, text):
        return LimitTold("concurrency", _first(_LIMIT, text), _first(_CURRENT, text), scope)
    if found := re.search(_RATE, text):
        rest = text[found.end() :]
        # The limit stands after the words "rate limit" themselves, so it is looked for behind them.
        limit = _first(_LIMIT, rest) or _first(r"\A\s*[:=(]\s*" + _NUMBER, rest)
        return LimitTold(_dimension(found[1]), limit, _first(_CURRENT, rest), scope)
    if found := re.search(_PER, text):
        rest = text[found.end() :]
        dimension: Dimension = (
            ("tpd" if found[1] == "tokens" else "rpd")
            if found[2] == "day"
            else ("tpm" if found[1] == "tokens" else "rpm")
        )
        return LimitTold(
            dimension, _first(_LIMIT, rest), _first(_USED, rest) or _first(_CURRENT, rest), scope
        )
    return None


def _dimension(word: str) -> Dimension:
    if word.startswith("concurren"):
        return "concurrency"
    if word.startswith("request"):
        return "rpm"  # Kimi's older wording of the same limit.
    return cast(Dimension, word)  # the alternations admit nothing else


def _count(digits: str | None) -> int | None:
    return int(digits.replace(",", "")) or None if digits else None


def _first(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return _count(found[1]) if found else None


def _believed(seconds: float) -> float | None:
    return seconds if 0.0 <= seconds <= LONGEST else None


def _number(value: str | None, unit: float = 1.0) -> float | None:
    if value is None or len(value) > 40:
        return None
    found = re.match(_SECONDS, value, re.ASCII)
    return _believed(float(found[1]) * unit) if found else None


def _delay(headers: Mapping[str, str], name: str, now: float | None) -> float | None:
    value = headers.get(name)
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return seconds
    date = _date(value)
    if date is None:
        return None
    sent = _date(headers.get("date"))
    if now is None or (sent is not None and abs(sent - now) > SAME_CLOCK):
        now = sent
    if now is None or date <= now:
        return None
    return _believed(date - now)


def _date(value: str | None) -> float | None:
    """The Unix time of an HTTP date in any of its three spellings."""
    # email is imported for the rare reply that needs it: it costs 8 ms.
    if value is None or len(value) > 64 or not any(mark.isalpha() for mark in value):
        return None
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:  # asctime() names no zone; RFC 9110 §5.6.7 says it is GMT
            date = date.replace(tzinfo=UTC)
        return date.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _in_text(message: str) -> float | None:
    longest = None
    text = message[:SEARCHED].lower()
    if "try" not in text and "wait" not in text:
        return None
    for found in re.finditer(_AGAIN, text, re.ASCII):
        unit = found[3] or "s"
        scale = (
            0.001
            if unit.startswith(("ms", "mill"))
            else 3600.0
            if unit[0] == "h"
            else 60.0
            if unit[0] == "m"
            else 1.0
        )
        hint = _believed(int(found[1] or 0) * 60.0 + float(found[2]) * scale)
        if hint is not None and (longest is None or hint > longest):
            longest = hint
    return longest
