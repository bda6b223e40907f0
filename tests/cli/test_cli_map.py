"""`kimi-async map`, against one simulator on loopback."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kimi_async.bulk.journal import Mended
from kimi_async.cli.map import AlikeFailures, mended_words
from kimi_async.middleware.events import CallFailed, ResponseFinished
from kimi_async.testing import FaultPlan
from kimi_async.testing.faults import Error, SlowHeaders
from kimi_async.testing.simulator.replies import Pace, error_reply
from kimi_async.testing.simulator.server import KimiSimulator
from support.command_line import Cli, requests, rows


def test_map_csv_with_a_template(cli: Cli, simulator: KimiSimulator):
    """
    Each row fills the template; ids come from a column; the summary tells what it cost; the order can be that of the input.
    """
    Path("in.csv").write_text("﻿key,text\n" + "".join(f"k{n},word {n}\n" for n in range(12)), encoding="utf-8")
    status, out, notes = cli(
        "map", "in.csv", "-p", "Say {text}!", "-s", "Be brief.", "--id", "key", "-m", "kimi-k3",
        "--set", "max_completion_tokens=50", "--price", "1,2", "--in-order",
    )  # fmt: skip
    sent = [json.loads(request.body) for request in simulator.requests][-12:]

    assert (0, "") == (status, out)
    assert [f"k{n}" for n in range(12)] == [row["custom_id"] for row in rows("in.out.jsonl")]
    assert {f"Say word {n}!" for n in range(12)} == {body["messages"][1]["content"] for body in sent}
    assert {("Be brief.", 50)} == {
        (body["messages"][0]["content"], body["max_completion_tokens"]) for body in sent
    }
    assert all(word in notes for word in ("answered", "12", "cost", "tokens out", "in.out.jsonl"))


def test_map_in_order_keeps_what_the_input_no_longer_asks(cli: Cli):
    """Answers of requests that are not in the input any more were paid for: they come last."""
    Path("in.jsonl").write_text(requests(5))
    assert 0 == cli("map", "in.jsonl", "-o", "out.jsonl", "-q")[0]
    Path("in.jsonl").write_text(requests(2))
    Path("out.jsonl.sorted").write_text("mine")
    assert 0 == cli("map", "in.jsonl", "-o", "out.jsonl", "--resume", "--in-order", "-q")[0]

    found = [row["custom_id"] for row in rows("out.jsonl")]
    assert (["r0", "r1"], {"r2", "r3", "r4"}) == (found[:2], set(found[2:]))
    assert "mine" == Path("out.jsonl.sorted").read_text()


def test_map_refuses_to_overwrite_and_resumes(cli: Cli, simulator: KimiSimulator):
    """An output that exists is only touched with --resume, and then only what is missing is sent."""
    Path("in.jsonl").write_text(requests(5))
    assert 0 == cli("map", "in.jsonl", "-o", "out.jsonl", "-q")[0]
    Path("in.jsonl").write_text(requests(8))
    before = simulator.stats.by_path["POST /v1/chat/completions"]
    status, _, notes = cli("map", "in.jsonl", "-o", "out.jsonl")

    assert 1 == status
    assert "add --resume" in notes
    status, _, notes = cli("map", "in.jsonl", "-o", "out.jsonl", "--resume")
    assert 0 == status
    assert 3 == simulator.stats.by_path["POST /v1/chat/completions"] - before
    assert {f"r{n}" for n in range(8)} == {row["custom_id"] for row in rows("out.jsonl")}
    assert 2 == cli("map", "in.jsonl", "-o", "in.jsonl")[0]


def test_map_bad_lines_one_a_line(cli: Cli, simulator: KimiSimulator):
    """Every bad line is named on a line of its own, and nothing is sent."""
    before = simulator.stats.requests
    Path("in.jsonl").write_text(requests(2) + "{\n" + requests(1))
    status, _, notes = cli("map", "in.jsonl")

    told = [line.strip() for line in notes.splitlines()]

    assert 1 == status
    assert told[1].startswith("line 3: is not JSON")
    assert "line 4: custom_id 'r0' is also on line 1" == told[2]
    assert before == simulator.stats.requests


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.csv"], "needs --prompt"),
        (["a.csv", "-p", "{nope}"], "there is no column 'nope' in a.csv; there are: text"),
        (["a.csv", "-p", "{}"], "must name a column"),
        (["a.csv", "-p", "{text}", "--set", "x"], "NAME=VALUE"),
        (["a.csv", "-p", "{text}", "--price", "much"], "--price wants"),
        (["a.csv", "-p", "{text}", "--budget", "1"], "--budget needs --price"),
        (["a.jsonl", "-p", "{text}"], "line 2: not JSON"),
        (["none.csv"], "does not exist"),
        (["a.csv", "-p", "{text"], "--prompt: "),
        (["a.csv", "-p", "@none.txt"], "--prompt @none.txt: No such file"),
        (
            ["a.csv", "-p", "{text}", "-o", "no/folder/out.jsonl"],
            "there is no folder no/folder; make it first",
        ),
        (
            ["a.csv", "-p", "{text}", "--set", "max_token=5"],
            "--set max_token: requests have no such field; did you mean max_tokens?",
        ),
        (["a.csv", "-p", "{text}", "--set", 'thinking={"type"'], "--set thinking: '{\"type\"' is not JSON"),
        (
            ["a.csv", "-p", "{text}", "--set", "max_completion_tokens=many"],
            "--set: max_completion_tokens must be an int",
        ),
        (["a.csv", "-p", "{text}", "--tier", "tier9"], "tier5"),
        (["a.csv", "-p", "{text}", "--retry-failed"], "--retry-failed goes with --resume"),
        (["latin.csv", "-p", "{text}"], "latin.csv is not UTF-8 (byte 0xe9 at"),
    ],
)
def test_map_wrong_arguments_are_explained(cli: Cli, arguments: list[str], said: str):
    """What is wrong is said in one line; nothing is written."""
    Path("a.csv").write_text("text\nhello\n")
    Path("a.jsonl").write_text('{"text": 1}\n{\n')
    Path("latin.csv").write_bytes("text\ncaf\xe9\n".encode("latin-1"))
    status, _, notes = cli("map", *arguments)

    assert status != 0
    assert said in notes
    assert "Error" not in notes
    assert {"a.csv", "a.jsonl", "latin.csv"} == set(os.listdir())


def test_map_failures_make_the_status(cli: Cli, simulator: KimiSimulator):
    """Requests that failed are counted by their error, and the command says so with its status."""
    Path("in.jsonl").write_text(requests(3))
    simulator.say(error_reply("content_filter"))
    status, _, notes = cli("map", "in.jsonl", "-c", "1")

    assert 1 == status
    assert "ContentFilterError" in notes


def test_map_failures_show_what_each_class_said(cli: Cli, simulator: KimiSimulator):
    """The summary has a message for each class of failure, and --json the same for a program."""
    Path("in.jsonl").write_text(requests(3))
    simulator.say(error_reply("content_filter"), error_reply("invalid_request"))
    status, out, notes = cli("map", "in.jsonl", "-c", "1", "--json")
    told = json.loads(out)

    assert 1 == status
    assert re.search(r"1 × ContentFilterError: .*high risk", notes)
    assert re.search(r"1 × BadRequestError: .*400", notes)
    assert (1, 2) == (told["answered"], told["failed"])
    assert {"ContentFilterError", "BadRequestError"} == {each["class"] for each in told["errors"]}


def test_map_stops_when_the_first_fail_alike(cli: Cli, simulator: KimiSimulator):
    """
    A model that is not there fails every request: a few are enough to know, one line says it, and no output is left behind
    that would have the mended command refused.
    """
    Path("in.csv").write_text("text\n" + "word\n" * 400)
    before = simulator.stats.by_path["POST /v1/chat/completions"]
    status, _, notes = cli("map", "in.csv", "-p", "{text}", "-m", "kimi-k99")

    assert 1 == status
    assert 1 == notes.count(
        "Stopped: the first requests all failed alike, and none was answered: there is no model 'kimi-k99'"
    )
    assert "kimi-k99" in notes
    assert simulator.stats.by_path["POST /v1/chat/completions"] - before < 200
    assert ["in.csv"] == os.listdir()
    assert 0 == cli("map", "in.csv", "-p", "{text}", "-q")[0]


def test_map_that_answered_nothing_removes_no_link(cli: Cli):
    """An output that was there, empty or as a link, is the caller's: it is emptied and stays."""
    Path("in.csv").write_text("text\n" + "word\n" * 40)
    Path("out.jsonl").symlink_to("elsewhere.jsonl")
    Path("elsewhere.jsonl").touch(0o600)
    assert 1 == cli("map", "in.csv", "-p", "{text}", "-m", "kimi-k99", "-o", "out.jsonl", "-q")[0]

    assert Path("out.jsonl").is_symlink()
    assert b"" == Path("elsewhere.jsonl").read_bytes()


def test_map_of_two_names_the_models_that_there_are(cli: Cli):
    """
    Too few requests to stop for: their one failure is told as a stop would tell it, and stays in the output.
    """
    Path("in.csv").write_text("text\nword\nword\n")
    status, _, notes = cli("map", "in.csv", "-p", "{text}", "-m", "kimi-k99", "-o", "out.jsonl")

    assert 1 == status
    assert re.search(
        r"2 × NotFoundError: there is no model 'kimi-k99' for this key.* There are: kimi-",
        " ".join(notes.split()),
    )
    assert 2 == len(Path("out.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (["not_found"] * 5, 1),
        (["not_found"] * 4, 0),
        (["not_found"] * 50, 1),
        (["", *["not_found"] * 9], 0),
        (["not_found", "server_error", *["not_found"] * 9], 0),
        (["content_filter"] * 9, 0),
        ([f"requests[{n}] names no model" for n in range(5)], 1),
    ],
)
def test_alike_failures_are_refusals_of_the_command(events: list[str], expected: int):
    """
    Five refusals of one kind from the start, and no answer, are a mistake of the command; what is refused for its own sake,
    or after an answer, is one of the request's.
    """
    stops: list[str] = []
    alike = AlikeFailures(lambda: stops.append("stop"))
    for cause in events:
        if cause == "":
            alike(
                ResponseFinished(
                    call=1, method="POST", url="u", status=200, request_id=None, attempts=1, headers_after=0.1,
                    elapsed=0.2, bytes_received=3, usage=None,
                )
            )  # fmt: skip
        elif cause.startswith("requests["):
            alike.failed("ConfigurationError", cause)
        else:
            alike(
                CallFailed(
                    call=1, method="POST", url="u", cause=cause, reason="told", attempts=1, elapsed=0.1
                )
            )

    assert ["stop"] * expected == stops


def test_map_default_model_is_that_of_chat(cli: Cli, simulator: KimiSimulator):
    """Requests that name no model go to kimi-k3, without method and url, from any table."""
    Path("in.jsonl").write_text(
        '{"custom_id": "a", "body": {"messages": [{"role": "user", "content": "hi"}]}}\n'
    )
    status, _, _ = cli("map", "in.jsonl")

    assert 0 == status
    assert "kimi-k3" == json.loads(simulator.requests[-1].body)["model"]


def test_map_on_changed_decides(cli: Cli, simulator: KimiSimulator):
    """
    With --resume, a request that was changed since is told, sent again, or left answered, as --on-changed says.
    """
    Path("in.jsonl").write_text(requests(2))
    cli("map", "in.jsonl", "-o", "out.jsonl", "-q")
    Path("in.jsonl").write_text(requests(2).replace("question 1", "another question"))
    refused, _, notes = cli("map", "in.jsonl", "-o", "out.jsonl", "--resume")
    before = simulator.stats.by_path["POST /v1/chat/completions"]
    kept, _, _ = cli("map", "in.jsonl", "-o", "out.jsonl", "--resume", "--on-changed", "keep")
    after_keep = simulator.stats.by_path["POST /v1/chat/completions"]
    sent, _, _ = cli("map", "in.jsonl", "-o", "out.jsonl", "--resume", "--on-changed", "resend")

    assert (1, 0, 0) == (refused, kept, sent)
    assert "--on-changed resend or keep" in notes
    assert before == after_keep
    assert 1 == simulator.stats.by_path["POST /v1/chat/completions"] - after_keep
    assert 2 == len(rows("out.jsonl"))


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.jsonl"])
def test_map_reads_what_windows_writes(cli: Cli, simulator: KimiSimulator, name: str):
    """Tables in UTF-16 with CR LF, as spreadsheets save them, are read as they are."""
    text = {
        "in.csv": "text\r\ncaf\xe9\r\n",
        "in.tsv": "text\r\ncaf\xe9\r\n",
        "in.jsonl": '{"text": "caf\xe9"}\r\n',
    }
    Path(name).write_bytes(text[name].encode("utf-16"))
    status, _, notes = cli("map", name, "-p", "Say {text}")

    assert 0 == status, notes
    assert "Say caf\xe9" == json.loads(simulator.requests[-1].body)["messages"][0]["content"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (requests(2).replace("\n", "\r\n").encode(), "Add --repair"),
        (b"\xef\xbb\xbf" + requests(2).encode(), "Add --repair"),
        (requests(2).encode("utf-16"), "is UTF-16: add --repair"),
    ],
    ids=["crlf", "bom", "utf-16"],
)
@pytest.mark.parametrize("command", [["map"], ["batch", "run"]], ids=["map", "batch"])
def test_request_lines_of_windows_name_the_option_that_reads_them(
    cli: Cli, command: list[str], data: bytes, said: str
):
    """
    Request lines are what is paid for, so they are not read past silently; the refusal says which option does.
    """
    Path("in.jsonl").write_bytes(data)
    status, _, notes = cli(*command, "in.jsonl")

    assert 1 == status
    assert said in notes
    assert 0 == cli(*command, "in.jsonl", "--repair", "-q")[0]
    assert {"r0", "r1"} == {row["custom_id"] for row in rows("in.out.jsonl")}


def test_mended_words_say_what_was_done():
    """What was put right in a journal is told in words."""
    assert "" == mended_words(None)
    assert "" == mended_words(Mended())
    assert (
        "a last line cut short (37 B) was taken away; 2 unreadable lines moved to a file beside it (.damaged); "
        "1 line dropped that a later one replaces; 3 failures taken out, to be sent again"
    ) == mended_words(Mended(torn=37, damaged=2, replaced=1, redo=3))


def test_map_interrupted_twice_gives_up_and_says_how_to_go_on(tmp_path: Path):
    """
    A second Ctrl-C does not wait for what is under way: the status of an interrupt, the table, the command that goes on, and
    no traceback.
    """
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(requests(40))
    with KimiSimulator(words=(2, 5)).in_thread() as slow:
        slow.faults = FaultPlan([None, None, None, *[SlowHeaders(3600.0)] * 40])
        process = subprocess.Popen(
            [sys.executable, "-m", "kimi_async", "map", str(source), "-o", str(target), "-c", "4"],
            env={
                **os.environ,
                "KIMI_API_KEY": slow.api_key,
                "KIMI_BASE_URL": slow.base_url,
                "COLUMNS": "300",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        deadline = time.monotonic() + 30
        while slow.stats.by_path["POST /v1/chat/completions"] < 7 and time.monotonic() < deadline:
            time.sleep(0.02)  # another process: what it asks for is all there is to wait for
        process.send_signal(signal.SIGINT)
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, notes = process.communicate(timeout=20)

    assert "Ctrl-C again gives it up" in first
    assert 130 == process.returncode, notes
    assert "Traceback" not in notes
    assert re.search(r"answered +3", notes)
    assert re.search(rf"Go on with: kimi-async map .* -o {target} -c 4 --resume", notes)
    assert 3 == len(rows(str(target)))


def test_map_interrupted_while_it_is_finished_tells_what_came_of_it(
    cli: Cli, simulator: KimiSimulator, monkeypatch: pytest.MonkeyPatch
):
    """One Ctrl-C too many, when all is over but for the words: the table, the command that goes on, and the status."""

    async def interrupted(*_: object) -> str:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)
        return ""

    monkeypatch.setattr("kimi_async.cli.map._told", interrupted)
    Path("in.jsonl").write_text(requests(3))
    simulator.faults = FaultPlan([None, Error(kind="content_filter")])
    status, _, notes = cli("map", "in.jsonl")

    assert 130 == status
    assert re.search(r"answered +2", notes)
    assert "Go on with: kimi-async" in notes


def test_map_interrupted_says_how_to_go_on(tmp_path: Path):
    """Ctrl-C finishes what is under way, keeps it, and prints the command that goes on."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(requests(400))
    with KimiSimulator(words=(2, 5), pace=Pace(headers=0.05)).in_thread() as slow:
        process = subprocess.Popen(
            [sys.executable, "-m", "kimi_async.cli", "map", str(source), "-o", str(target), "-c", "4"],
            env={
                **os.environ,
                "KIMI_API_KEY": slow.api_key,
                "KIMI_BASE_URL": slow.base_url,
                "COLUMNS": "300",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 20
        while (not target.exists() or target.stat().st_size < 2000) and time.monotonic() < deadline:
            time.sleep(0.02)  # another process: its file is all there is to wait for
        process.send_signal(signal.SIGINT)
        _, notes = process.communicate(timeout=20)
        asked = slow.stats.by_path["POST /v1/chat/completions"]

    assert 130 == process.returncode, notes
    assert "--resume" in notes
    assert f"-o {target}" in notes
    assert 0 < asked == len(rows(str(target))) < 400


@pytest.mark.parametrize("command", [["map"], ["batch", "run", "-m", "kimi-k2.6"]], ids=["map", "batch"])
def test_input_that_holds_nothing_is_refused(cli: Cli, command: list[str]):
    """An empty file and a pipe are told at once: neither is waited for, and no output is made."""
    Path("empty.jsonl").touch()
    os.mkfifo("pipe.jsonl")
    empty, _, said_of_empty = cli(*command, "empty.jsonl")
    pipe, _, said_of_pipe = cli(*command, "pipe.jsonl")

    assert (1, 2) == (empty, pipe)
    assert "empty.jsonl holds no requests" in said_of_empty
    assert "pipe.jsonl is no plain file" in said_of_pipe
    assert {"empty.jsonl", "pipe.jsonl"} == set(os.listdir())
