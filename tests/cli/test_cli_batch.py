"""`kimi-async batch …`, against one simulator on loopback."""

import json
import os
import re
from pathlib import Path

import pytest

from kimi_async.cli.batch import is_window
from kimi_async.testing.simulator.server import KimiSimulator
from support.command_line import Cli, requests, rows


def test_batch_run_in_order(cli: Cli, simulator: KimiSimulator):
    """A whole job in one command; running it again asks for nothing new."""
    Path("in.jsonl").write_text(requests(20))
    status, _, notes = cli("batch", "run", "in.jsonl", "--poll", "0.1")
    created = simulator.storage.calls["create_batch"]
    again, _, _ = cli("batch", "run", "in.jsonl", "--poll", "0.1", "-q")

    assert (0, 0) == (status, again)
    assert [f"r{n}" for n in range(20)] == [row["custom_id"] for row in rows("in.out.jsonl")]
    assert created == simulator.storage.calls["create_batch"]
    assert "answered" in notes


def test_batch_submit_status_wait_cancel(cli: Cli, simulator: KimiSimulator):
    """The steps one by one, by state file and by id."""
    Path("in.jsonl").write_text(requests(3))
    _, submitted, _ = cli("batch", "submit", "in.jsonl")
    id_ = submitted.strip()
    _, status, _ = cli("batch", "status", id_, "in.batch.json", "--json")
    waited, _, _ = cli("batch", "wait", "in.batch.json", "-o", "w.jsonl", "--poll", "0.1", "-q")
    _, listed, _ = cli("batch", "status")
    cancelled, table, _ = cli("batch", "cancel", id_)

    assert [id_, id_] == [each["id"] for each in json.loads(status)]
    assert (0, 3) == (waited, len(rows("w.jsonl")))
    assert f"{id_}\tcompleted\t3\t0\t3" in listed
    assert 0 == cancelled
    assert "completed" in table


@pytest.mark.parametrize("command", [["batch", "run"], ["batch", "submit"]], ids=["run", "submit"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["in.jsonl", "--window", "2h"], r"--window '2h': a batch may take 12h to 7d"),
        (["in.jsonl", "--window", "soon"], r"--window 'soon'"),
        (["k3.jsonl"], r"kimi-k3 has no batches\. These can: .*kimi-k2\.6.*kimi-async map"),
        (["in.csv", "-p", "{text}"], r"--model which model the batch is for\. These can: .*kimi-k2\.6"),
        (["in.csv", "-p", "{text}", "-m", "kimi-k3"], r"kimi-k3 has no batches"),
        (["in.csv", "-p", "{text}", "--set", "model=kimi-k3"], r"kimi-k3 has no batches"),
        (["in.jsonl", "--state", "no/folder/job.json"], r"there is no folder no/folder"),
    ],
)
def test_batch_wrong_arguments_are_told_before_anything_is_sent(
    cli: Cli, simulator: KimiSimulator, command: list[str], arguments: list[str], expected: str
):
    """What a batch cannot do is one line, once, before the upload; nothing is made beside the input."""
    Path("in.jsonl").write_text(requests(2))
    Path("k3.jsonl").write_text(requests(2).replace("kimi-k2.6", "kimi-k3"))
    Path("in.csv").write_text("text\nhello\n")
    before = simulator.stats.requests
    status, out, notes = cli(*command, *arguments)

    assert status in (1, 2)
    assert "" == out
    assert re.fullmatch(rf"kimi-async: [^\n]*{expected}[^\n]*\n", notes), notes
    assert before == simulator.stats.requests
    assert {"in.jsonl", "k3.jsonl", "in.csv"} == set(os.listdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12h", True), ("24h", True), ("7d", True), ("168h", True),
        ("11h", False), ("8d", False), ("169h", False), ("", False), ("24", False), ("-24h", False), ("24h ", False),
    ],
)  # fmt: skip
def test_window_is_half_a_day_to_a_week(text: str, expected: bool):
    """The Batch API takes 12h to 7d."""
    assert expected == is_window(text)


def test_batch_says_what_it_makes_beside_the_input(cli: Cli):
    """
    The state file and the folder of a job are announced, and are the only things made beside the output.
    """
    Path("in.jsonl").write_text(requests(2))
    _, _, notes = cli("batch", "run", "in.jsonl", "--poll", "0.1")

    assert "remembered in in.batch.json; its files are in in.batch/" in notes
    assert {"in.jsonl", "in.batch.json", "in.batch", "in.out.jsonl"} == set(os.listdir())


def test_batch_restart_makes_a_new_job(cli: Cli, simulator: KimiSimulator):
    """
    --restart forgets the job that is remembered; without it, changed requests are refused with the option to use.
    """
    Path("in.jsonl").write_text(requests(2))
    cli("batch", "submit", "in.jsonl")
    created = simulator.storage.calls["create_batch"]
    Path("in.jsonl").write_text(requests(3))
    refused, _, notes = cli("batch", "submit", "in.jsonl")
    anew, _, _ = cli("batch", "submit", "in.jsonl", "--restart")

    assert (1, 0) == (refused, anew)
    assert "--restart" in notes
    assert 1 == simulator.storage.calls["create_batch"] - created


def test_batch_that_failed_as_a_whole_is_forgotten(cli: Cli, simulator: KimiSimulator):
    """A job that was refused as a whole does not stand in the way of the mended input."""
    Path("in.jsonl").write_text(requests(2).replace("kimi-k2.6", "kimi-unknown"))
    status, _, notes = cli("batch", "run", "in.jsonl", "--poll", "0.1")
    Path("in.jsonl").write_text(requests(2))
    again, _, _ = cli("batch", "run", "in.jsonl", "--poll", "0.1", "-q")

    assert (1, 0) == (status, again)
    assert "The job is forgotten" in notes


def test_batch_does_not_replace_results(cli: Cli, simulator: KimiSimulator):
    """
    What `map` wrote and was paid for is not replaced by a batch, which is told before anything is sent; --overwrite means it.
    """
    Path("in.jsonl").write_text(requests(2))
    cli("map", "in.jsonl", "-o", "out.jsonl", "-q")
    before = (Path("out.jsonl").read_bytes(), simulator.stats.requests)
    refused, _, notes = cli("batch", "run", "in.jsonl", "-o", "out.jsonl", "--poll", "0.1")
    after = (Path("out.jsonl").read_bytes(), simulator.stats.requests)
    meant, _, _ = cli("batch", "run", "in.jsonl", "-o", "out.jsonl", "--poll", "0.1", "--overwrite", "-q")

    assert (1, 0) == (refused, meant)
    assert before == after
    assert re.search(r"out\.jsonl exists already.*another --output, or --overwrite", notes)


def test_batch_wait_deletes_nothing_before_the_results_are_written(cli: Cli, simulator: KimiSimulator):
    """
    Where the output is refused the account still has everything; once it is written, nothing.
    """
    Path("in.jsonl").write_text(requests(2))
    Path("out.jsonl").write_text("paid for\n")
    simulator.storage.files.clear()
    _, submitted, _ = cli("batch", "submit", "in.jsonl")
    wait = ["batch", "wait", submitted.strip(), "--delete", "--poll", "0.1", "-q"]
    refused, _, _ = cli(*wait, "-o", "out.jsonl")
    kept = len(simulator.storage.files)
    written, _, _ = cli(*wait, "-o", "other.jsonl")

    assert (1, 2, 0, 0) == (refused, kept, written, len(simulator.storage.files))
    assert 2 == len(rows("other.jsonl"))


def test_batch_takes_lines_without_method_and_url(cli: Cli):
    """The lines that `map` takes, `batch` takes."""
    line = '{"custom_id": "a", "body": {"model": "kimi-k2.6", "messages": [{"role": "user", "content": "hi"}]}}\n'
    Path("in.jsonl").write_text(line)

    assert 0 == cli("batch", "run", "in.jsonl", "--poll", "0.1", "-q")[0]
    assert ["a"] == [row["custom_id"] for row in rows("in.out.jsonl")]
