"""
Bulk work on Ray: what needs no Ray, and what needs a real one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kimi_async.errors import ConfigurationError
from kimi_async.integrations.ray import Journal, LedgerActor, Outcome, fingerprint
from kimi_async.testing import KimiSimulator


def test_journal_is_read_by_all_and_written_by_one_each(tmp_path: Path):
    """Each writer has a file of its own, and sees what the others wrote since it looked last."""
    one, two = Journal(str(tmp_path)), Journal(str(tmp_path))
    one.write("a", "1", Outcome(text="answer", attempts=1))
    assert two.known("a", "1") is None

    two.read()

    assert "answer" == getattr(two.known("a", "1"), "text", None)
    assert two.known("a", "another question") is None
    two.write("b", "2", Outcome(text="other"))
    assert 2 == len(list(tmp_path.glob("*.jsonl")))


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_journal_line_cut_by_a_crash_is_none(tmp_path: Path, cut: int):
    """A line without its end was not answered, whatever it says; those before it were."""
    first = Journal(str(tmp_path))
    first.write("a", "1", Outcome(text="whole"))
    first.write("b", "2", Outcome(text="cut"))
    path = next(tmp_path.glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-cut])

    again = Journal(str(tmp_path))

    assert "whole" == getattr(again.known("a", "1"), "text", None)
    assert again.known("b", "2") is None


@pytest.mark.parametrize(
    "junk", [b"[]\n", b"{}\n", b"\xff\xfe\n", b'{"id": 1, "fingerprint": 2, "outcome": {"x": 1}}\n']
)
def test_journal_junk_is_passed_over(tmp_path: Path, junk: bytes):
    """A file that somebody else put there costs nobody a run."""
    (tmp_path / "x.jsonl").write_bytes(junk)

    assert Journal(str(tmp_path)).known("a", "1") is None


def test_fingerprint_is_of_what_is_asked():
    """The order of fields means nothing; another question is another."""
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_ledger_actor_answers_in_bytes():
    """What runs in the actor is the arithmetic, and needs no Ray."""
    import msgspec

    from kimi_async.middleware.rate_limit.shared import Answer, Sync

    actor = LedgerActor()
    said = msgspec.msgpack.encode(Sync(member="m", seq=1, seed=9, want=[(5, 0)]))
    answer = msgspec.msgpack.decode(actor.sync(said), type=Answer)

    assert ("ok", 9, [0]) == (answer.state, answer.epoch, answer.grants)


# --- with a real Ray ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=3, object_store_memory=120 << 20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def simulator() -> Iterator[KimiSimulator]:
    with KimiSimulator().in_thread() as running:
        yield running


def client(simulator: KimiSimulator) -> dict[str, Any]:
    return {"api_key": simulator.api_key, "base_url": simulator.base_url}


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_map_dataset_keeps_columns_and_puts_failures_into_their_rows(cluster: Any, simulator: KimiSimulator):
    """Every row comes out once with all it had; one that cannot be asked has an error, and the others an answer."""
    from kimi_async.integrations.ray import map_dataset

    rows = [
        {"n": n, "text": f"Q{n}", "talk": json.dumps([{"role": "user", "content": f"Q{n}"}])}
        for n in range(40)
    ]
    rows[7]["talk"] = "no JSON"
    out = map_dataset(
        cluster.data.from_items(rows),
        model="kimi-k3",
        messages="talk",
        limits="tier5",
        quota="columns",
        timings=True,
        client=client(simulator),
    ).take_all()

    assert list(range(40)) == sorted(row["n"] for row in out)
    failed = [row for row in out if row["error"] is not None]
    assert [7] == [row["n"] for row in failed]
    assert "JSONDecodeError" in failed[0]["error"]
    for row in out:
        assert f"Q{row['n']}" == row["text"]
        if row["error"] is None:
            assert row["kimi_text"]
            assert row["usage"]["total_tokens"] > 0
            assert row["ended"] >= row["began"] > 0


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_map_dataset_with_a_journal_sends_nothing_twice(
    cluster: Any, simulator: KimiSimulator, tmp_path: Path
):
    """A second run over the same rows asks only what is new."""
    from kimi_async.integrations.ray import map_dataset

    def run(count: int) -> list[dict[str, Any]]:
        return map_dataset(
            cluster.data.from_items([{"id": f"r{n}", "question": f"Q{n}"} for n in range(count)]),
            model="kimi-k3",
            prompt="question",
            id="id",
            limits="tier5",
            quota="journal",
            journal=tmp_path / "journal",
            client=client(simulator),
        ).take_all()

    before = simulator.stats.requests
    first = run(10)
    sent = simulator.stats.requests - before
    again = run(15)

    assert (10, 15) == (sent, simulator.stats.requests - before)
    texts = {row["id"]: row["text"] for row in again}
    assert {row["id"]: row["text"] for row in first}.items() <= texts.items()


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_ray_ledger_actor_killed_is_told_what_was_sent(cluster: Any):
    """The actor is started again by Ray, hears of the last minute, and goes on."""
    from kimi_async.integrations.ray import NAMESPACE
    from kimi_async.middleware.rate_limit.shared import Ask, SharedQuota

    async def main() -> int:
        quota = SharedQuota("ray", "killed", limits="tier5")
        engine = quota.engine()
        for _ in range(3):
            (grant,) = await engine.lease([Ask()])
            engine.release([grant.lease], sent=True)
        epoch = engine._epoch
        cluster.kill(cluster.get_actor("kimi-limits-killed", namespace=NAMESPACE), no_restart=False)
        for _ in range(600):
            if engine._epoch != epoch and engine.view().used[1] == 3:
                break
            engine.poke()
            await asyncio.sleep(0.05)
        used = engine.view().used[1]
        await quota.aclose()
        return used

    assert 3 == asyncio.run(main())


@pytest.mark.ray
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({}, "exactly one"),
        ({"prompt": "a", "messages": "b"}, "exactly one"),
        ({"prompt": "a", "journal": "x"}, "id"),
        ({"prompt": "a", "on_error": "ignore"}, "on_error"),
        ({"prompt": "a", "actors": 0}, "actors"),
    ],
)
def test_map_dataset_bad_arguments_are_refused_at_once(arguments: dict[str, Any], word: str):
    """What would fail on every worker fails here, in words."""
    pytest.importorskip("ray")
    from kimi_async.integrations.ray import map_dataset

    with pytest.raises(ConfigurationError, match=word):
        map_dataset(None, model="kimi-k3", **arguments)
