"""
`kimi-async map`, against one simulator on loopback.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kimi_async.bulk.map import MapOptions, MapParams
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


def test_map_refuses_to_overwrite_and_resumes(cli: Cli, simulator: KimiSimulator):
    """
    An output that exists is only touched with --resume, and then only what is missing is sent.
    """
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
    assert 1 == cli("map", "in.jsonl", "-o", "in.jsonl")[0]


def test_map_bad_lines_one_a_line(cli: Cli, simulator: KimiSimulator):
    """
    Every bad line is named on a line of its own, and nothing is sent.
    """
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
    ],
)
def test_map_wrong_arguments_are_explained(cli: Cli, arguments: list[str], said: str):
    """
    What is wrong is said in one line; nothing is written.
    """
    Path("a.csv").write_text("text\nhello\n")
    Path("a.jsonl").write_text('{"text": 1}\n{\n')
    status, _, notes = cli("map", *arguments)

    assert status != 0
    assert said in notes
    assert {"a.csv", "a.jsonl"} == set(os.listdir())


def test_map_failures_make_the_status(cli: Cli, simulator: KimiSimulator):
    """
    Requests that failed are counted by their error, and the command says so with its status.
    """
    Path("in.jsonl").write_text(requests(3))
    simulator.say(error_reply("content_filter"))
    status, _, notes = cli("map", "in.jsonl", "-c", "1")

    assert 1 == status
    assert "ContentFilterError" in notes


def test_map_interrupted_says_how_to_go_on(tmp_path: Path):
    """
    Ctrl-C finishes what is under way, keeps it, and prints the command that goes on.
    """
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


def test_map_params_are_the_options():
    """
    What type checkers are told is what `client.map` takes.
    """
    assert set(MapOptions.__slots__) == set(MapParams.__annotations__)
