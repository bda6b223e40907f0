"""
`kimi-async batch …`, against one simulator on loopback.
"""

import json
from pathlib import Path

from kimi_async.testing.simulator.server import KimiSimulator
from support.command_line import Cli, requests, rows


def test_batch_run_in_order(cli: Cli, simulator: KimiSimulator):
    """
    A whole job in one command; running it again asks for nothing new.
    """
    Path("in.jsonl").write_text(requests(20))
    status, _, notes = cli("batch", "run", "in.jsonl", "--poll", "0.1")
    created = simulator.storage.calls["create_batch"]
    again, _, _ = cli("batch", "run", "in.jsonl", "--poll", "0.1", "-q")

    assert (0, 0) == (status, again)
    assert [f"r{n}" for n in range(20)] == [row["custom_id"] for row in rows("in.out.jsonl")]
    assert created == simulator.storage.calls["create_batch"]
    assert "answered" in notes


def test_batch_submit_status_wait_cancel(cli: Cli, simulator: KimiSimulator):
    """
    The steps one by one, by state file and by id.
    """
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
