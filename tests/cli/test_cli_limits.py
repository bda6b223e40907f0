"""`kimi-async limits`: who shares a quota, for people and for programs; and a run that shares one."""

import asyncio
import json
from pathlib import Path

import pytest

from kimi_async.middleware.rate_limit.shared import Ask, SharedQuota
from support.command_line import Cli, requests, rows


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIMI_SHARED_DIR", str(tmp_path / "ledgers"))


def busy(quota: str) -> None:
    """Somebody who uses the quota, and has not left it."""

    async def main() -> None:
        engine = SharedQuota("host", quota, limits="tier5").engine()
        for _ in range(3):
            await engine.lease([Ask(1_000)])

    asyncio.run(main())


def test_limits_shows_what_is_used_and_who_is_there(cli: Cli):
    """The limits, their use and the members, as JSON."""
    busy("acme")

    status, out, notes = cli("limits", "--shared", "host", "--quota", "acme", "--json")

    assert (0, "") == (status, notes)
    seen = json.loads(out)
    assert {"limit": 300, "source": "given", "used": 3} == seen["limits"]["rpm"]
    assert 3_000 == seen["limits"]["tpm"]["used"]
    assert [3] == [member["under_way"] for member in seen["members"]]


def test_limits_for_people_is_a_table(cli: Cli):
    """The same in words."""
    busy("acme")

    status, out, notes = cli("limits", "--shared", "host", "--quota", "acme")

    assert 0 == status
    assert "3 of 300 (given)" in notes
    assert "under way" in out


def test_limits_without_a_place_says_what_to_write(cli: Cli):
    """There is no quota to look at without a place."""
    status, _, notes = cli("limits", "--quota", "acme")

    assert 2 == status
    assert "redis://" in notes


def test_map_shares_the_quota_and_leaves_it(cli: Cli):
    """`map --shared` is a member while it runs, and none after it."""
    Path("in.jsonl").write_text(requests(5))

    status, _, notes = cli(
        "map", "in.jsonl", "-o", "out.jsonl", "--tier", "tier5", "--shared", "host", "--quota", "acme"
    )
    assert (0, 5) == (status, len(rows("out.jsonl"))), notes

    seen = json.loads(cli("limits", "--shared", "host", "--quota", "acme", "--json")[1])
    assert (5, []) == (seen["limits"]["rpm"]["used"], seen["members"])
