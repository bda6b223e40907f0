"""
The ledger of one machine: a file among processes, with everything that may happen to a file.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kimi_async.errors import ConfigurationError
from kimi_async.middleware.rate_limit.limits import RateLimits
from kimi_async.middleware.rate_limit.shared import (
    Ask,
    HostLedger,
    LedgerUnavailable,
    SharedEngine,
    SharedQuota,
    Sync,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="flock")

HOLDER = """
import asyncio, sys
from kimi_async.middleware.rate_limit.limits import RateLimits
from kimi_async.middleware.rate_limit.shared import Ask, HostLedger, SharedEngine

async def main():
    engine = SharedEngine(HostLedger("acme", folder=sys.argv[1]), RateLimits(concurrency=2))
    for _ in range(2):
        await engine.lease([Ask()])
    print("held", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ledgers"
    path.mkdir(mode=0o700)
    return path


def look(ledger: HostLedger) -> list[str]:
    return [peer.member for peer in asyncio.run(ledger.sync(Sync(member="x", leave=2))).peers]


def test_host_slots_of_a_killed_process_are_back_at_once(folder: Path):
    """kill -9, and what it had under way is free as soon as somebody asks, long before its time to live is over."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert b"held\n" == holder.stdout.readline()

    async def main() -> float:
        engine = SharedEngine(HostLedger("acme", folder=folder), RateLimits(concurrency=2))
        assert [] == await engine.lease([Ask()], wait=False)
        holder.kill()
        began = time.monotonic()
        await engine.lease([Ask()])
        took = time.monotonic() - began
        await engine.aclose()
        return took

    try:
        # Far below the three seconds for which a silent member is believed to live, however busy the machine.
        assert asyncio.run(main()) < 2.5
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_host_two_ledgers_of_a_name_are_one_and_of_two_names_two(folder: Path):
    """The name of the quota is what is shared."""

    async def main() -> list[int]:
        members = [
            SharedEngine(HostLedger(name, folder=folder), RateLimits(concurrency=1))
            for name in ("a", "a", "b")
        ]
        got = [len(await member.lease([Ask()], wait=False)) for member in members]
        for member in members:
            await member.aclose()
        return got

    assert [1, 0, 1] == asyncio.run(main())


@pytest.mark.parametrize("junk", [b"", b"abc", b"\0" * 5000, os.urandom(300)])
def test_host_file_of_junk_begins_anew(folder: Path, junk: bytes):
    """What a crash left half written is no state, and no error."""
    (folder / "acme.quota").write_bytes(junk)
    ledger = HostLedger("acme", folder=folder)

    answer = asyncio.run(ledger.sync(Sync(member="m", seq=1, seed=7, want=[(0, 0)])))

    assert ("ok", 7, [0]) == (answer.state, answer.epoch, answer.grants)
    assert ["m"] == look(ledger)
    asyncio.run(ledger.aclose())


def test_host_file_deleted_is_left_for_the_new_one(folder: Path):
    """Who holds on to a deleted file would be alone with it."""
    ledger = HostLedger("acme", folder=folder)
    asyncio.run(ledger.sync(Sync(member="m", seq=1, seed=7)))
    ledger.path.unlink()

    assert [] == look(ledger)
    assert ledger.path.exists()
    asyncio.run(ledger.aclose())


def test_host_file_is_the_user_s_alone(folder: Path):
    """Nobody else reads who is working, or writes what is believed."""
    ledger = HostLedger("acme", folder=folder / "made")
    asyncio.run(ledger.sync(Sync(member="m", seq=1, seed=7)))

    assert (0o700, 0o600) == (
        (folder / "made").stat().st_mode & 0o777,
        ledger.path.stat().st_mode & 0o777,
    )
    asyncio.run(ledger.aclose())


def test_host_link_is_not_followed(folder: Path, tmp_path: Path):
    """A link planted where the file should be leads nowhere."""
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    (folder / "acme.quota").symlink_to(target)

    with pytest.raises(LedgerUnavailable):
        asyncio.run(HostLedger("acme", folder=folder).sync(Sync(member="m", seq=1)))
    assert b"precious" == target.read_bytes()


@pytest.mark.parametrize("how", ["others may write", "a link"])
def test_host_folder_that_others_can_change_is_refused(tmp_path: Path, how: str):
    """A folder in which others may put files is no place for a ledger."""
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    folder = real
    if how == "a link":
        folder = tmp_path / "link"
        folder.symlink_to(real)
    else:
        real.chmod(0o777)

    with pytest.raises(ConfigurationError, match="mode 0700"):
        asyncio.run(HostLedger("acme", folder=folder).sync(Sync(member="m", seq=1)))


def test_host_lock_held_by_a_stopped_process_is_an_outage(folder: Path):
    """A process that was stopped while it wrote holds up nobody's loop: the ledger counts as away."""
    import fcntl

    ledger = HostLedger("acme", folder=folder)
    asyncio.run(ledger.sync(Sync(member="m", seq=1, seed=7)))
    with ledger.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        async def main() -> bool:
            waiting = asyncio.ensure_future(ledger.sync(Sync(member="m", seq=2)))
            await asyncio.sleep(0)
            ran = not waiting.done()
            with pytest.raises(LedgerUnavailable):
                await waiting
            return ran

        assert asyncio.run(main())
    asyncio.run(ledger.aclose())


def test_host_place_is_named_by_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """`KIMI_SHARED_DIR` says where; the address is just `host`."""
    monkeypatch.setenv("KIMI_SHARED_DIR", str(folder))

    async def main() -> None:
        quota = SharedQuota("host", "acme", limits="tier5")
        await quota.engine().lease([Ask()])
        await quota.aclose()

    asyncio.run(main())
    assert (folder / "acme.quota").exists()
