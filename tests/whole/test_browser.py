"""
The chat page of examples/service.py in a real browser: headless Chromium, driven by selenium, against the simulator.

Marked `browser`, and so deselected by default: it needs Chromium and its driver on PATH (Debian's `chromium` and
`chromium-driver`) and the package's extra `[browser]`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kimi_async.testing import KimiSimulator, Pace, SimulatorStats, Turn
from kimi_async.testing.faults import Drop, ErrorEvent, Stall
from kimi_async.testing.simulator.replies import error_reply

pytestmark = pytest.mark.browser

SERVICE = Path(__file__).parents[2] / "examples" / "service.py"
PATIENCE = 20.0
"""Seconds after which a thing that was waited for has not happened: a bound, and no measure."""


@pytest.fixture
def kimi() -> Iterator[KimiSimulator]:
    # As a model writes: a stream that never pauses leaves nobody a moment to notice that it is not wanted any more.
    with KimiSimulator(pace=Pace(tokens_per_second=200)).in_thread() as running:
        yield running


@pytest.fixture
def service(kimi: KimiSimulator, tmp_path: Path) -> Iterator[str]:
    """The example, as a person starts it; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(SERVICE)],
        cwd=tmp_path,
        env={**os.environ, "KIMI_BASE_URL": kimi.base_url, "KIMI_API_KEY": kimi.api_key, "PORT": str(port)},
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if b"Uvicorn running on" in line:
                break
        else:
            raise AssertionError("the service did not start")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    driver = shutil.which("chromedriver")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert driver, "chromedriver is not on PATH (Debian: chromium-driver)"
    assert browser, "chromium is not on PATH"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-proxy-server",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
        # Chromium's sandbox does not start for root, as in a container.
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ):
        options.add_argument(argument)
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """With one empty tab, whatever a test before left open."""
    chromium.switch_to.new_window("tab")
    kept = chromium.current_window_handle
    for handle in chromium.window_handles:
        if handle != kept:
            chromium.switch_to.window(handle)
            chromium.close()
    chromium.switch_to.window(kept)
    yield chromium
    chromium.get("about:blank")


def until(browser: Any, condition: Callable[[Any], Any], what: str) -> Any:
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, PATIENCE, poll_frequency=0.02).until(
        condition, f"waited in vain for {what}"
    )


def seen_by(kimi: KimiSimulator, reached: Callable[[SimulatorStats], bool]) -> None:
    """Waits until the simulator has seen it."""

    async def wait() -> None:
        async with asyncio.timeout(PATIENCE):
            await kimi.until(reached)

    asyncio.run(wait())


def ask(browser: Any, question: str) -> None:
    browser.find_element("id", "question").send_keys(question)
    browser.find_element("id", "send").click()


def answers(browser: Any) -> list[dict[str, Any]]:
    """What is on the page, turn by turn, as the script of a page reads it."""
    return browser.execute_script("""
        return [...document.querySelectorAll(".assistant")].map((box) => ({
            reasoning: box.querySelector("details span").textContent,
            folded: !box.querySelector("details").open,
            content: box.querySelector(":scope > span").textContent,
            error: box.querySelector(".error")?.textContent ?? null,
        }));
    """)


def finished(browser: Any) -> bool:
    return bool(browser.execute_script("return !document.getElementById('send').disabled"))


def test_page_shows_what_the_model_wrote(browser: Any, service: str, kimi: KimiSimulator) -> None:
    """
    Text and folded reasoning are the simulator's to the letter, mark-up included as text; and they go back in the next turn.
    """
    wrote = Turn(
        "<b>Ufer</b> & 雪 \N{SNOWMAN}\u2028 ends\n\n  here </script>",
        reasoning="First\nthis, \u0130 then that.",
    )
    kimi.say(wrote, "Again.")
    browser.get(service)
    ask(browser, "Why?")
    until(browser, finished, "the answer's end")
    [shown] = answers(browser)
    ask(browser, "Once more")
    until(browser, lambda b: len(answers(b)) == 2 and finished(b), "the second answer")
    sent = kimi.requests[-1].json()["messages"]

    assert {"content": wrote.content, "reasoning": wrote.reasoning, "folded": True, "error": None} == shown
    assert "Again." == answers(browser)[1]["content"]
    assert ["user", "assistant", "user"] == [message["role"] for message in sent]
    assert (wrote.content, wrote.reasoning) == (sent[1]["content"], sent[1]["reasoning_content"])


def test_page_shows_text_before_more_is_written(browser: Any, service: str, kimi: KimiSimulator) -> None:
    """
    The first words are on the page while the model has written no more than them: nothing on the way collects or guesses.
    """
    kimi.say(Turn("First words, and then a long silence."))
    kimi.faults = [Stall(after_events=4)]
    browser.get(service)
    ask(browser, "Why?")
    [shown] = until(browser, lambda b: [each for each in answers(b) if each["content"]], "the first words")

    until(browser, lambda _: kimi.requests[-1].events == 4, "the silence")

    assert "First words, and then a long silence.".startswith(shown["content"].strip())
    assert not kimi.requests[-1].finished
    assert not finished(browser)


def test_stop_button_stops_the_model(browser: Any, service: str, kimi: KimiSimulator) -> None:
    """
    Stop ends the request to Kimi in the middle; what was written stays to be read, and the next question is answered.
    """
    kimi.say("word " * 100_000, "Next.")
    browser.get(service)
    ask(browser, "Long?")
    until(browser, lambda b: [each for each in answers(b) if each["content"]], "the first words")
    browser.find_element("id", "stop").click()
    seen_by(kimi, lambda stats: stats.clients_gone == 1 and stats.in_flight == 0)
    until(browser, finished, "the button")
    ask(browser, "Short?")
    until(browser, lambda b: len(answers(b)) == 2 and finished(b), "the next answer")
    stopped, after = answers(browser)

    assert "Stopped." == stopped["error"]
    assert stopped["content"].startswith("word word")
    assert "Next." == after["content"]
    assert ["Short?"] == [message["content"] for message in kimi.requests[-1].json()["messages"]]


def test_closing_the_tab_stops_the_model(browser: Any, service: str, kimi: KimiSimulator) -> None:
    """Nobody pays for an answer that nobody waits for."""
    first = browser.current_window_handle
    kimi.say("word " * 100_000)
    browser.switch_to.new_window("tab")
    browser.get(service)
    ask(browser, "Long?")
    until(browser, lambda b: [each for each in answers(b) if each["content"]], "the first words")
    browser.close()
    browser.switch_to.window(first)

    seen_by(kimi, lambda stats: stats.clients_gone == 1 and stats.in_flight == 0)


def test_tabs_do_not_wait_for_each_other(browser: Any, service: str, kimi: KimiSimulator) -> None:
    """
    While one tab's answer hangs, another asks the same question and is answered; each has its own conversation.
    """
    kimi.faults = [Stall(after_events=4)]
    browser.get(service)
    ask(browser, "Same?")
    until(
        browser,
        lambda b: [each for each in answers(b) if each["content"] or each["reasoning"]],
        "the first tab",
    )
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(service)
    ask(browser, "Same?")
    until(browser, lambda b: len(answers(b)) == 1 and finished(b), "the second tab's answer")
    [other] = answers(browser)
    browser.close()
    browser.switch_to.window(first)

    assert other["content"]
    assert other["error"] is None
    assert not finished(browser)
    assert 1 == len(answers(browser))


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        ([], "Failed: The request was rejected"),
        ([ErrorEvent("overloaded", after_events=6)], "Failed: "),
        ([Drop(after_events=6)], "Failed: "),
    ],
    ids=["refused", "error-inside", "cut"],
)
def test_page_shows_errors(
    browser: Any, service: str, kimi: KimiSimulator, trouble: list[Any], expected: str
) -> None:
    """
    A refusal, an error inside the stream and a stream cut short are told where the answer would be; what had come stays, and the
    page goes on.
    """
    if not trouble:
        kimi.say(error_reply("content_filter"))
    kimi.faults = trouble
    browser.get(service)
    ask(browser, "Why?")
    until(browser, lambda b: [each for each in answers(b) if each["error"]], "the error")
    until(browser, finished, "the button")
    [shown] = answers(browser)
    ask(browser, "And now?")
    until(browser, lambda b: len(answers(b)) == 2 and finished(b), "the next answer")

    assert shown["error"].startswith(expected)
    assert bool(trouble) == bool(shown["content"] or shown["reasoning"])
    assert answers(browser)[1]["content"]
    assert answers(browser)[1]["error"] is None
