"""
Every example is run as a person would run it, against the simulator.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from kimi_async.testing import KimiSimulator, Pace

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, env: dict[str, str], cwd: Path, *arguments: str, quiet: bool = True) -> str:
    """
    Runs one example and returns what it printed. A complaint on standard error fails the test; where notes are
    expected there (`quiet=False`), a warning does.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
        timeout=60,
    )

    assert 0 == done.returncode, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert not (quiet and done.stderr), done.stderr
    return done.stdout


def test_example_first_stream_prints_reasoning_and_answer(
    neighbourhood: dict[str, str], tmp_path: Path
) -> None:
    """The question on the command line is answered."""
    text = example("first_stream.py", neighbourhood, tmp_path, "Why", "do", "rivers", "bend?")

    assert len(text.split()) > 20


def test_example_from_openai_answers_twice(neighbourhood: dict[str, str], tmp_path: Path) -> None:
    """A whole answer, then a streamed one."""
    lines = [line for line in example("from_openai.py", neighbourhood, tmp_path).splitlines() if line]

    assert len(lines) >= 2


def test_example_pipeline_goes_on_where_it_was(neighbourhood: dict[str, str], tmp_path: Path) -> None:
    """A second run with a larger input sends only what is missing, and nothing is answered twice."""
    example("pipeline.py", neighbourhood, tmp_path, "out.jsonl", "20", quiet=False)
    first = (tmp_path / "out.jsonl").read_text("utf-8")
    text = example("pipeline.py", neighbourhood, tmp_path, "out.jsonl", "30", quiet=False)
    # Not splitlines(): an answer may hold U+2028, and that is no end of a line.
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().split(b"\n") if line]

    assert "answers are in out.jsonl; 0 failed" in text
    assert (tmp_path / "out.jsonl").read_text("utf-8").startswith(first)
    assert {f"question-{number}" for number in range(30)} == {line["custom_id"] for line in lines}
    assert 30 == len(lines)


def test_example_tool_loop_calls_and_answers(neighbourhood: dict[str, str], tmp_path: Path) -> None:
    """The model calls the function, is told its result, and answers."""
    called, told, *answer = example("tool_loop.py", neighbourhood, tmp_path).splitlines()
    arguments = json.loads(called.removeprefix("calls multiply(").removesuffix(")"))

    assert f"is told {arguments['a'] * arguments['b']}" == told
    assert answer


def test_example_leaked_tools_mends_and_repairs(neighbourhood: dict[str, str], tmp_path: Path) -> None:
    """
    Calls in the text are an error or calls, as was asked; arguments that are almost JSON are repaired and told.
    """
    leaked, mended, repaired = example("leaked_tools.py", neighbourhood, tmp_path).splitlines()

    assert leaked.startswith("as it came: <|open|>tools<|sep|>")
    assert 'mended: population({"city":"Istanbul"}) is 15700000' == mended
    assert """repaired: {'city':'Istanbul'} to {"city":"Istanbul"}, which is 15700000""" == repaired


def test_example_long_conversation_is_mended_and_fits(neighbourhood: dict[str, str], tmp_path: Path) -> None:
    """What is wrong is told, what was done is told, and the host takes what is left."""
    *wrong, mended, sends, answer = example("long_conversation.py", neighbourhood, tmp_path).splitlines()

    assert 2 == len(wrong)
    assert "answered 'add:0'" in mended
    assert re.match(r"sends \d+ messages of 83, [\d,]+ tokens of 15,904", sends)
    assert answer


def test_example_failover_goes_over_and_back(neighbourhood: dict[str, str], tmp_path: Path) -> None:
    """The second question is answered by the second host, the third by the first again."""
    lines = example("failover.py", neighbourhood, tmp_path).splitlines()

    assert ["the first host", "the second host (before it: quota)", "the first host"] == [
        line.partition("? ")[2] for line in lines
    ]


def test_example_structured_prints_a_recipe(neighbourhood: dict[str, str], tmp_path: Path) -> None:
    """The answer is an object of the type that was asked for."""
    title, *ingredients = example("structured.py", neighbourhood, tmp_path).splitlines()

    assert title
    assert all(re.fullmatch(r"  [\d.e+-]+ (g|ml|piece) .*", line) for line in ingredients)


def test_example_file_qa_reads_the_documents(
    neighbour: KimiSimulator, neighbourhood: dict[str, str], tmp_path: Path
) -> None:
    """The text of every document stands before the question, and nothing is left on the account."""
    for name in ("one.txt", "two.md"):
        (tmp_path / name).write_text(f"This is {name}.", "utf-8")
    text = example(
        "file_qa.py", neighbourhood, tmp_path, "What do they say?", "one.txt", "two.md", quiet=False
    )
    sent = [
        request.json()["messages"] for request in neighbour.requests if b"What do they say?" in request.body
    ]

    assert "What do they say?" in text
    assert ["This is one.txt." in sent[-1][0]["content"], "This is two.md." in sent[-1][1]["content"]] == [
        True,
        True,
    ]


def test_example_batch_answers_every_request(neighbourhood: dict[str, str], tmp_path: Path) -> None:
    """Four requests, four answers, in order."""
    text = example("batch.py", neighbourhood, tmp_path)

    assert ["Ghent", "Lviv", "Oaxaca", "Kyoto"] == re.findall(r"^city-(\w+): You said", text, re.M)


def test_example_vision_sends_the_picture(
    neighbour: KimiSimulator, neighbourhood: dict[str, str], tmp_path: Path
) -> None:
    """A small picture travels inside the message."""
    assert example("vision.py", neighbourhood, tmp_path)
    sent = [request for request in neighbour.requests if b"What is on it?" in request.body]

    assert b"data:image/png;base64," in sent[-1].body


def test_example_testing_your_code_passes(tmp_path: Path) -> None:
    """The tests that the example shows pass under pytest, with the plugin that the package installs."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            str(EXAMPLES / "testing_your_code.py"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )

    assert 0 == done.returncode, done.stdout
    assert " passed" in done.stdout


def test_example_service_stops_when_the_browser_leaves(neighbourhood: dict[str, str], tmp_path: Path) -> None:
    """The relay answers; and when its client goes away in the middle, so does its request to Kimi."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Slower than the service, as a model is: a stream that never pauses leaves anyio no moment to cancel in.
    with KimiSimulator(pace=Pace(tokens_per_second=1000)).in_thread() as kimi:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "service.py")],
            cwd=tmp_path,
            env={**neighbourhood, "KIMI_BASE_URL": kimi.base_url, "PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            wait_until(lambda: answers(port), "the service to listen")
            body = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
            asked = urllib.request.Request(
                f"http://127.0.0.1:{port}/chat", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=20) as reply:
                *lines, done = [line for line in reply.read().splitlines() if line]
            deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines]
            assert len("".join(delta.get("content") or "" for delta in deltas).split()) > 10
            assert b"data: [DONE]" == done
            assert 0 == kimi.stats.clients_gone
            kimi.say("word " * 100_000)
            with socket.create_connection(("127.0.0.1", port)) as browser:
                head = f"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
                browser.sendall(head.encode() + b"\r\n\r\n" + body)
                assert browser.recv(100)
            wait_until(lambda: kimi.stats.clients_gone == 1, "Kimi to see its client go")
        finally:
            process.terminate()
            process.communicate(timeout=20)


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def wait_until(done: Any, what: str) -> None:
    """Another process gives no sign but what it does, so it is looked at again and again."""
    for _ in range(3000):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


def test_examples_are_all_run_and_listed() -> None:
    """
    No example is without a test here and a line in examples/README.md; each is less than a screen and says what it shows.
    """
    tests = Path(__file__).read_text("utf-8")
    page = (EXAMPLES / "README.md").read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text("utf-8")
        assert f'"{path.name}"' in tests, f"{path.name} is not run"
        assert f"({path.name})" in page, f"{path.name} is not listed"
        assert text.startswith('"""\n'), f"{path.name} does not say what it shows"
        assert len(text.splitlines()) <= 80, f"{path.name} is more than a screen"
