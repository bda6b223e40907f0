"""
Waits and limits as servers write them, and as they should not.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from kimi_async.codec.waits import LONGEST, LimitTold, limit_told, retry_after

# Wed, 21 Oct 2015 07:28:00 GMT, the date of RFC 9110's examples.
EXAMPLE = 1_445_412_480.0
DATES = [
    "Wed, 21 Oct 2015 07:28:00 GMT",  # IMF-fixdate
    "Wednesday, 21-Oct-15 07:28:00 GMT",  # RFC 850
    "Wed Oct 21 07:28:00 2015",  # asctime
]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Retry-After", "1", 1.0),
        ("Retry-After", " 20 ", 20.0),
        ("Retry-After", "0", 0.0),
        ("Retry-After", "0.25", 0.25),
        ("Retry-After", ".5", 0.5),
        ("Retry-After", "86400", 86_400.0),
        ("retry-after-ms", "250", 0.25),
        ("retry-after-ms", "1500.5", 1.5005),
        ("X-Retry-After", "3", 3.0),
        ("Msh-Cooldown-Seconds", "7", 7.0),
    ],
)
def test_retry_after_header(name: str, value: str, expected: float) -> None:
    """
    Each header is understood, whatever its case.
    """
    assert expected == retry_after(CIMultiDict({name: value}))


@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms", "x-retry-after", "msh-cooldown-seconds"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "-0.5",
        "+1",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "Infinity",
        "1e3",
        "1e999",
        "0x10",
        "1_000",
        "１",
        "٣",
        "1,2",
        "1 2",
        "1.2.3",
        "soon",
        "null",
        "None",
        "[object Object]",
        "9" * 12,
        "9" * 5_000,
        "0." + "0" * 5_000,
        "Wed, 99 Oct 2015 07:28:00 GMT",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "Wed, 21 Oct 2015 07:28:00 " + "x" * 5_000,
        "\x00",
        "1\n2",
    ],
)
def test_retry_after_garbage(name: str, value: str) -> None:
    """
    A value that cannot be believed is passed over as if the header were absent.
    """
    assert retry_after({name: value}, now=EXAMPLE) is None


@pytest.mark.parametrize("date", DATES)
def test_retry_after_date(date: str) -> None:
    """
    All three spellings of an HTTP date count from now.
    """
    assert 30.0 == retry_after({"retry-after": date}, now=EXAMPLE - 30)


@pytest.mark.parametrize("date", DATES)
@pytest.mark.parametrize("late", [0.0, 0.001, 30.0, 1e9])
def test_retry_after_date_in_the_past(date: str, late: float) -> None:
    """
    A date that has passed says nothing.
    """
    assert retry_after({"retry-after": date}, now=EXAMPLE + late) is None


def test_retry_after_date_beyond_belief() -> None:
    """
    A date next year is a mistake, not a wish.
    """
    assert retry_after({"retry-after": DATES[0]}, now=EXAMPLE - LONGEST - 1) is None


@pytest.mark.parametrize("wrong", [-7_200.0, 7_200.0, 86_400.0 * 400])
def test_retry_after_date_with_our_clock_wrong(wrong: float) -> None:
    """
    Where our clock and the server's Date disagree by hours, the server's date counts from the server's Date.
    """
    headers = {"retry-after": DATES[0], "date": "Wed, 21 Oct 2015 07:27:50 GMT"}

    assert 10.0 == retry_after(headers, now=EXAMPLE - 10 + wrong)
    assert 10.0 == retry_after(headers)


def test_retry_after_date_with_clocks_alike() -> None:
    """
    Where the clocks agree, ours is the finer one: Date counts whole seconds.
    """
    headers = {"retry-after": DATES[0], "date": "Wed, 21 Oct 2015 07:27:50 GMT"}

    assert 9.5 == retry_after(headers, now=EXAMPLE - 9.5)


def test_retry_after_date_without_any_clock() -> None:
    """
    A date means nothing to one who does not know the time.
    """
    assert retry_after({"retry-after": DATES[0]}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("request reached organization max RPM: 3, please try again after 1 seconds", 1.0),
        ("Organization Rate limit exceeded, please try again after 1 seconds", 1.0),
        ("please try again after 0.5 second", 0.5),
        ("Please try again in 20s.", 20.0),
        ("Please try again in 6ms.", 0.006),
        ("Please try again in 1m30.5s. Visit our site", 90.5),
        ("Please try again in 2 minutes", 120.0),
        ("Please try again in 1 hour.", 3_600.0),
        ("Please retry after 30 seconds.", 30.0),
        ("Please wait for 3 seconds", 3.0),
        ("try again after 5", 5.0),
        ("try again after 1 seconds, no, try again after 9 seconds", 9.0),
    ],
)
def test_retry_after_in_text(text: str, expected: float) -> None:
    """
    The text's own wish is a hint, in Kimi's wording and in those of its gateways.
    """
    assert expected == retry_after(None, text)


@pytest.mark.parametrize(
    "text",
    [
        "The engine is currently overloaded, please try again later",
        "try again after -3 seconds",
        "try again after NaN seconds",
        "try again after inf seconds",
        "try again after 1e9 seconds",
        "try again after 1.2.3 seconds",
        f"try again after {'9' * 5_000} seconds",
        f"try again after 0.{'9' * 5_000} seconds",
        "try again after ３ seconds",
        "try again after 99999999 seconds",
        "try again after 3 weeks",
        "Please wait a moment and try again.",
        "I tried in 5 minutes",
        "x" * 10_000 + "try again after 1 seconds",
        "try again after" + " " * 100_000,
    ],
)
def test_retry_after_in_text_garbage(text: str) -> None:
    """
    A text without a believable number of seconds is no hint.
    """
    assert retry_after(None, text) is None


@pytest.mark.parametrize(
    ("headers", "text", "expected"),
    [
        ({"retry-after": "1", "x-retry-after": "1", "msh-cooldown-seconds": "1"}, "", 1.0),
        # Milliseconds refine Retry-After, which knows whole seconds only.
        ({"retry-after": "1", "retry-after-ms": "250"}, "", 0.25),
        ({"retry-after": "1", "retry-after-ms": "nan"}, "", 1.0),
        ({"retry-after": "1", "msh-cooldown-seconds": "5"}, "", 5.0),
        ({"retry-after": "1"}, "please try again after 20 seconds", 20.0),
        ({"retry-after": "20"}, "please try again after 1 seconds", 20.0),
        ({"retry-after": "-1", "x-retry-after": "2"}, "", 2.0),
        ({"retry-after": "9" * 5_000}, "please try again after 4 seconds", 4.0),
    ],
)
def test_retry_after_several_hints(headers: dict[str, str], text: str, expected: float) -> None:
    """
    The longest believable hint is obeyed.
    """
    assert expected == retry_after(headers, text)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-retry-after", "msh-cooldown-seconds", "date"]),
        st.text(max_size=40) | st.floats().map(str) | st.sampled_from(DATES),
    ),
    st.text(max_size=60),
    st.none() | st.floats(0, 4e9),
)
def test_retry_after_anything(headers: dict[str, str], text: str, now: float | None) -> None:
    """
    Whatever is sent, the answer is None or a finite, reasonable number of seconds.
    """
    hint = retry_after(headers, text, now)

    assert hint is None or 0.0 <= hint <= LONGEST


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Your account org-1<ak-2> request reached organization max concurrency: 10, please try again after 1 seconds",
            LimitTold("concurrency", 10, None, "organization"),
        ),
        ("request reached organization max RPM: 3, please", LimitTold("rpm", 3, None, "organization")),
        ("request reached max request: 3, please try again", LimitTold("rpm", 3)),
        ("Your account reached max request", LimitTold("rpm")),
        ("request reached TPM rate limit, current:1410, limit:100", LimitTold("tpm", 100, 1410)),
        (
            "reached project TPM rate limit, current: 1410, limit: 100",
            LimitTold("tpm", 100, 1410, "project"),
        ),
        (
            "request reached organization TPD rate limit, current: 1505241, limit: 1500000",
            LimitTold("tpd", 1_500_000, 1_505_241, "organization"),
        ),
        ("reached organization RPM rate limit", LimitTold("rpm", None, None, "organization")),
        ("max concurrency: 1,000", LimitTold("concurrency", 1_000)),
        ("You've reached your concurrent request limit", LimitTold("concurrency")),
        (
            "Rate limit reached on tokens per min (TPM): Limit 40,000, Used 39000, Requested 2000.",
            LimitTold("tpm", 40_000, 39_000),
        ),
        ("Rate limit reached on requests per day (RPD): Limit 200, Used 200", LimitTold("rpd", 200, 200)),
        # Numbers that nobody could work with are left out; the dimension stays.
        ("max RPM: 0", LimitTold("rpm")),
        ("max RPM: -3", LimitTold("rpm")),
        (f"max concurrency: {'9' * 5_000}", LimitTold("concurrency")),
        ("max concurrency: many", LimitTold("concurrency")),
    ],
)
def test_limit_told(text: str, expected: LimitTold) -> None:
    """
    Dimension, limit, the server's count and whose limit it is come out of the text.
    """
    assert expected == limit_told(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The engine is currently overloaded, please try again later",
        "Organization Rate limit exceeded, please try again after 1 seconds",
        "max_completion_tokens is too large",
        "You exceeded your current token quota",
        "total message size 9 exceeds limit 2097152",
        "x" * 10_000 + " max RPM: 3",
    ],
)
def test_limit_told_nothing(text: str) -> None:
    """
    A text that names no limit tells none.
    """
    assert limit_told(text) is None


@pytest.mark.parametrize(
    ("dimension", "expected"), [("tpd", True), ("rpd", True), ("tpm", False), ("rpm", False)]
)
def test_limit_told_per_day(dimension: str, expected: bool) -> None:
    """
    Only a day's limit makes waiting a minute useless.
    """
    assert expected is LimitTold(dimension).per_day  # type: ignore[arg-type]
