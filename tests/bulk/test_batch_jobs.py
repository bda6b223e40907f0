"""
`client.batches`, and whole jobs through it. All waiting is in virtual time.
"""

# ruff: noqa: ASYNC240 - tests may touch small local files
import asyncio
import json
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kimi_async.bulk.batch_jobs import BatchHandle, BatchNotFinishedError, BatchProgress, BatchResults
from kimi_async.bulk.lines import InvalidLinesError
from kimi_async.bulk.map import MapStoppedError
from kimi_async.bulk.results import UnansweredError
from kimi_async.client import AsyncKimi
from kimi_async.errors import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    ConfigurationError,
    KimiError,
)
from kimi_async.middleware.chain import Handler
from kimi_async.testing.simulator.replies import error_reply
from kimi_async.testing.simulator.server import KimiSimulator
from kimi_async.testing.simulator.storage import BatchPace
from kimi_async.transport.exchange import Request, Response

MODEL = "kimi-k2.6"


pytestmark = pytest.mark.virtual_clock


@pytest.fixture
async def simulator() -> AsyncIterator[KimiSimulator]:
    async with KimiSimulator(words=(1, 3)) as running:
        # As slow as a quick real one: minutes.
        running.storage.pace = BatchPace(30, 600, 30, 20)
        yield running


@pytest.fixture
async def client(simulator: KimiSimulator) -> AsyncIterator[AsyncKimi]:
    async with AsyncKimi(base_url=simulator.base_url, api_key=simulator.api_key) as opened:
        yield opened


def requests(count: int) -> list[dict[str, Any]]:
    return [
        {
            "custom_id": f"r{n}",
            "body": {"model": MODEL, "messages": [{"role": "user", "content": f"question {n}"}]},
        }
        for n in range(count)
    ]


def chats(simulator: KimiSimulator) -> int:
    return simulator.stats.by_path["POST /v1/chat/completions"]


async def test_batch_life_by_its_own_calls(simulator: KimiSimulator, client: AsyncKimi):
    """
    Create, look, list, cancel: as the API has them.
    """
    line = json.dumps({**requests(1)[0], "method": "POST", "url": "/v1/chat/completions"}).encode()
    file = await client.files.create(file=("in.jsonl", line), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="12h", metadata={"a": "b"}
    )
    listed = [each.id async for each in client.batches.list()]
    cancelled = await client.batches.cancel(batch.id)
    await asyncio.sleep(60)
    ended = await client.batches.retrieve(batch.id)

    assert ("validating", {"a": "b"}, False) == (batch.status, batch.metadata, batch.ended)
    assert [batch.id] == listed
    assert ["cancelling", "cancelled", True] == [cancelled.status, ended.status, ended.ended]
    with pytest.raises(BadRequestError, match="cannot be cancelled"):
        await client.batches.cancel(batch.id)
    with pytest.raises(BadRequestError, match="completion_window"):
        await client.batches.create(input_file_id=file.id, completion_window="8d")


async def test_run_joins_in_input_order(simulator: KimiSimulator, client: AsyncKimi):
    """
    Requests go in, results come out in the same order, however the server shuffled them; by `for` and `async for` alike.
    """
    steps: list[BatchProgress] = []
    async with await client.batches.run(requests(200), on_progress=steps.append) as results:
        found = [result async for result in results]

        assert [f"r{n}" for n in range(200)] == [result.custom_id for result in found]
        assert list(range(200)) == [result.index for result in found]
        assert all(result.ok and result.text and result.source == "batch" for result in found)
        assert [r.text for r in found] == [r.text for r in results]
        assert (200, 0, 0, 200) == (results.ok, results.failed, results.unanswered, len(results))
        assert found[7].text == (results.get("r7") or found[0]).text
    assert {"created": 1, "waiting": 0} == steps[2].statuses
    assert ({"completed": 1}, 200, None) == (steps[-1].statuses, steps[-1].completed, steps[-1].next_poll)
    assert 0 == chats(simulator)


async def test_run_waits_longer_and_longer(simulator: KimiSimulator, client: AsyncKimi):
    """
    Looking at a batch backs off while nothing changes, up to the longest interval, and is quick again after a change.
    """
    steps: list[BatchProgress] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    results = await client.batches.run(requests(2), on_progress=steps.append)
    results.close()
    pauses = [step.next_poll for step in steps if step.step == "waiting"]

    assert [5.0, 7.5, 11.25, 16.875, 5.0, 7.5] == [round(p or 0, 3) for p in pauses[:6]]
    assert 60.0 == max(pause or 0 for pause in pauses)
    assert 660 <= loop.time() - began < 740
    assert simulator.storage.calls["batch"] < 30


async def test_run_splits_by_size_and_by_count(simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path):
    """
    More than fits one file becomes several batches, and still one list of results.
    """
    results = await client.batches.run(requests(50), max_lines=20, max_bytes=2000, directory=tmp_path)

    assert len(results.batches) > 3
    assert [f"r{n}" for n in range(50)] == [result.custom_id for result in results]
    assert all(file.size <= 2000 for file in simulator.storage.files.values() if file.purpose == "batch")
    assert 50 == results.write(tmp_path / "joined.jsonl")
    joined = [json.loads(line)["custom_id"] for line in (tmp_path / "joined.jsonl").read_bytes().splitlines()]
    assert [f"r{n}" for n in range(50)] == joined
    results.close()


async def test_run_names_every_failure_and_every_unanswered_request(
    simulator: KimiSimulator, client: AsyncKimi
):
    """
    A refused request has the server's error, a lost or expired one an `UnansweredError` that says how the batch ended.
    """
    simulator.storage.faults.fail_line = lambda name: error_reply("content_filter") if name == "r3" else None
    simulator.storage.faults.lose_line = lambda name: name == "r5"
    simulator.storage.faults.expire_after = 8
    async with await client.batches.run(requests(10)) as results:
        failures = {result.custom_id: result.error for result in results.failures()}

        assert (6, 1, 3) == (results.ok, results.failed, results.unanswered)
        assert ["r3", "r5", "r8", "r9"] == list(failures)
        assert isinstance(failures["r3"], BadRequestError)
        assert "high risk" in str(failures["r3"])
        assert isinstance(failures["r8"], UnansweredError)
        assert "'r8' was not answered: batch" in str(failures["r8"])
        assert "ended as 'expired'" in str(failures["r8"])
        with pytest.raises(ExceptionGroup, match="4 of 10 requests have no answer"):
            results.raise_for_failures()


async def test_run_auto_sends_only_the_rest_live(simulator: KimiSimulator, client: AsyncKimi):
    """
    What expired, got lost or failed for a passing reason is sent live; what was refused for good is not; answers stay.
    """
    faults = simulator.storage.faults
    faults.fail_line = lambda name: error_reply({"r1": "content_filter", "r2": "overloaded"}.get(name, "rpm"))
    faults.fail_line = lambda name: (
        error_reply("content_filter" if name == "r1" else "overloaded") if name in ("r1", "r2") else None
    )
    faults.expire_after = 7
    async with await client.batches.run(requests(10), via="auto") as results:
        sources = {result.custom_id: result.source for result in results if result.ok}

        assert ["r1"] == [result.custom_id for result in results.failures()]
        assert ["r2", "r7", "r8", "r9"] == sorted(
            name for name, source in sources.items() if source == "live"
        )
    assert 4 == chats(simulator)


async def test_run_auto_without_batches_for_the_model(simulator: KimiSimulator, client: AsyncKimi):
    """
    A model that has no batches is answered live, all of it.
    """
    items = [f"question {n}" for n in range(5)]
    async with await client.batches.run(items, model="kimi-k3", via="auto") as results:
        assert ["failed"] == [batch.status for batch in results.batches]
        assert ["live"] * 5 == [result.source for result in results]
    with pytest.raises(ExceptionGroup, match="5 of 5") as caught:
        (await client.batches.run(items, model="kimi-k3")).raise_for_failures()
    assert "does not support batch" in str(caught.value.exceptions[0])


async def test_run_auto_waits_for_the_batches_that_were_taken(simulator: KimiSimulator):
    """
    Where the host takes one batch and refuses the next, only the requests of the second are sent live: nothing is paid for twice.
    """
    created = 0

    async def full(request: Request, send: Handler) -> Response:
        nonlocal created
        created += request.url.endswith("/batches")
        if request.url.endswith("/batches") and created == 2:
            refusal = b'{"error": {"message": "too many batches", "type": "invalid_request_error"}}'
            return Response(400, {}, request=request, body=refusal)
        return await send(request)

    options = {"middleware": [full]}
    async with (
        AsyncKimi(base_url=simulator.base_url, api_key=simulator.api_key, **options) as client,
        await client.batches.run(requests(6), via="auto", max_lines=2, delete=True) as results,
    ):
        found = [(result.custom_id, result.ok, result.source) for result in results]

    expected = [(f"r{n}", True, "batch" if n < 2 else "live") for n in range(6)]
    assert (expected, 4) == (found, chats(simulator))
    assert {} == simulator.storage.files


async def test_run_live_needs_no_batch(simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path):
    """
    The same requests, the same results, through live calls; what is in the journal is not asked again.
    """
    for _ in range(2):
        async with await client.batches.run(
            requests(6), via="live", directory=tmp_path, state=tmp_path / "s", live={"concurrency": 2}
        ) as results:
            assert [f"r{n}" for n in range(6)] == [result.custom_id for result in results if result.ok]
    assert 6 == chats(simulator)
    assert 0 == simulator.storage.calls["create_batch"]


async def test_submit_reports_every_bad_request_before_sending(simulator: KimiSimulator, client: AsyncKimi):
    """
    Duplicates, streams, mixed models and what is no request at all are named by number; nothing reaches the server.
    """
    bad = requests(8)
    bad[2]["custom_id"] = "r0"
    bad[3]["body"]["stream"] = True
    bad[4]["body"]["model"] = "other"
    bad[5] = {"nothing": 1}
    bad[6]["body"]["messages"] = []
    with pytest.raises(InvalidLinesError) as caught:
        await client.batches.submit(bad)

    assert [3, 4, 5, 6, 7] == [problem.line for problem in caught.value.problems]
    assert "custom_id 'r0' is also on line 1" in str(caught.value)
    assert 0 == simulator.stats.requests
    with pytest.raises(ConfigurationError, match="no requests"):
        await client.batches.submit([])


async def test_submit_file_goes_up_as_it_is(simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path):
    """
    A good file is uploaded without a copy; one that an editor spoilt is refused by line, or mended if asked.
    """
    path = tmp_path / "in.jsonl"
    lines = [json.dumps({**r, "method": "POST", "url": "/v1/chat/completions"}).encode() for r in requests(3)]
    path.write_bytes(b"\n".join(lines))
    handle = await client.batches.submit(path, directory=tmp_path / "work")
    spoilt = tmp_path / "crlf.jsonl"
    spoilt.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")

    assert (str(path), 3) == (handle.parts[0].path, handle.lines)
    assert path.read_bytes() == next(iter(simulator.storage.files.values())).data
    with pytest.raises(InvalidLinesError, match=r"4 bad lines.*\n  line 1: begins with a byte order mark"):
        await client.batches.submit(spoilt)
    mended = await client.batches.submit(spoilt, repair=True, directory=tmp_path / "work")
    assert b"\n".join(lines) + b"\n" == Path(str(mended.parts[0].path)).read_bytes()


async def test_submit_adds_model_and_defaults(simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path):
    """
    Strings, lists, tuples and lines become requests; what they lack is filled in, what they have stays.
    """
    items = [
        "just text",
        [{"role": "user", "content": "a list"}],
        ("named", {"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 5}),
        json.dumps({"custom_id": "line", "body": {"messages": [{"role": "user", "content": "y"}]}}).encode(),
    ]
    handle = await client.batches.submit(
        iter(items), model=MODEL, defaults={"max_completion_tokens": 9}, directory=tmp_path
    )
    lines = [json.loads(line) for line in Path(str(handle.parts[0].path)).read_bytes().splitlines()]

    assert ["request-1", "request-2", "named", "line"] == [line["custom_id"] for line in lines]
    assert [9, 9, 5, 9] == [line["body"]["max_completion_tokens"] for line in lines]
    assert [MODEL] * 4 == [line["body"]["model"] for line in lines]


async def test_handle_is_plain_data(client: AsyncKimi, tmp_path: Path):
    """
    A handle prints, pickles, saves and loads; it holds no key.
    """
    handle = await client.batches.submit(requests(2), directory=tmp_path)
    handle.save(tmp_path / "h.json")

    assert handle == pickle.loads(pickle.dumps(handle)) == BatchHandle.load(tmp_path / "h.json")
    assert handle.batch_ids[0] in repr(handle)
    assert client.api_key not in repr(handle) + (tmp_path / "h.json").read_text()
    (tmp_path / "h.json").write_text("nonsense")
    with pytest.raises(ConfigurationError, match="not the state of a batch job"):
        BatchHandle.load(tmp_path / "h.json")


async def test_job_goes_on_from_another_machine(simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path):
    """
    A batch id is enough: requests and results are fetched from the account, and joined in the order of the requests.
    """
    handle = await client.batches.submit(requests(30), directory=tmp_path / "here")
    async with AsyncKimi(base_url=simulator.base_url, api_key=simulator.api_key) as elsewhere:
        [batch] = await elsewhere.batches.wait(handle.batch_ids[0])
        async with await elsewhere.batches.results(batch.id, directory=tmp_path / "there") as results:
            assert [f"r{n}" for n in range(30)] == [result.custom_id for result in results if result.ok]


async def test_wait_gives_up_and_can_be_taken_up_again(client: AsyncKimi):
    """
    A wait with a bound ends with the handle in hand; the batch goes on.
    """
    handle = await client.batches.submit(requests(2))
    with pytest.raises(BatchNotFinishedError, match="within 100 s: in_progress") as caught:
        await client.batches.wait(handle, timeout=100)

    assert ["completed"] == [batch.status for batch in await client.batches.wait(caught.value.handle)]


async def test_wait_outlasts_an_outage(simulator: KimiSimulator, client: AsyncKimi):
    """
    Looks that fail for a passing reason, longer than the client retries, do not end a wait of hours; a wrong key does.
    """
    handle = await client.batches.submit(requests(2))
    simulator.storage.faults.polls.extend([error_reply("unavailable")] * 12)
    assert ["completed"] == [batch.status for batch in await client.batches.wait(handle)]

    simulator.storage.faults.polls.append(error_reply("invalid_authentication"))
    with pytest.raises(APIStatusError):
        await client.batches.wait(handle)


async def test_submit_lost_reply_makes_no_second_batch(simulator: KimiSimulator, client: AsyncKimi):
    """
    A batch whose creation succeeded but whose reply was lost is found, not paid for twice.
    """
    simulator.storage.faults.lose_create = 1
    simulator.storage.faults.create.append(error_reply("unavailable"))
    handle = await client.batches.submit(requests(3))

    assert list(simulator.storage.batches) == list(handle.batch_ids)


@pytest.mark.parametrize("crash_after", range(1, 7))
async def test_submit_killed_anywhere_goes_on(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path, crash_after: int
):
    """
    Whichever request was the last before the process died, the same state file finishes the job with one batch a part.
    """
    state = tmp_path / "job.json"
    left = crash_after

    async def dies(request: Any, send: Any) -> Any:
        nonlocal left
        response = await send(request)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt  # after the server has done it
        return response

    mortal = AsyncKimi(base_url=simulator.base_url, api_key=simulator.api_key, middleware=[dies])
    try:
        await mortal.batches.submit(requests(9), max_lines=3, state=state, directory=tmp_path)
    except KeyboardInterrupt:
        pass
    finally:
        await mortal.close()
    handle = await client.batches.submit(requests(9), max_lines=3, state=state)

    assert 3 == len(simulator.storage.batches) == len(handle.batch_ids)
    assert set(simulator.storage.batches) == set(handle.batch_ids)
    assert 3 == len(simulator.storage.files)
    assert handle == BatchHandle.load(state)


async def test_submit_state_of_other_requests_is_refused(client: AsyncKimi, tmp_path: Path):
    """
    A state file belongs to its requests.
    """
    await client.batches.submit(requests(3), state=tmp_path / "s")
    with pytest.raises(ConfigurationError, match="belongs to a job with other requests"):
        await client.batches.submit(requests(4), state=tmp_path / "s")


async def test_submit_state_of_other_requests_leaves_the_jobs_files(client: AsyncKimi, tmp_path: Path):
    """
    Requests that turn out to be others do not replace those that the job was made of: on the account they may be gone.
    """
    with await client.batches.run(requests(3), state=tmp_path / "s", directory=tmp_path / "d", delete=True):
        pass
    before = {path: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    others = [{**each, "custom_id": f"q{number}"} for number, each in enumerate(requests(3))]
    for wrong in (others, [*others, *others]):
        with pytest.raises(KimiError):
            await client.batches.submit(wrong, state=tmp_path / "s", directory=tmp_path / "d")

    assert before == {path: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    with await client.batches.run(requests(3), state=tmp_path / "s", directory=tmp_path / "d") as results:
        assert [True] * 3 == [result.ok for result in results]
    assert before == {path: path.read_bytes() for path in (tmp_path / "d").iterdir()}


async def test_run_state_finished_job_is_only_read_again(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    Running a finished job again creates and downloads nothing.
    """
    for _ in range(2):
        results = await client.batches.run(requests(4), state=tmp_path / "s", directory=tmp_path / "d")
        assert 4 == results.ok
        results.close()

    assert (1, 1, 1) == tuple(simulator.storage.calls[name] for name in ("create_batch", "upload", "content"))


async def test_cancel_job_keeps_what_was_answered(client: AsyncKimi):
    """
    Cancelling ends every batch of the job; answers until then are there, the rest is named.
    """
    handle = await client.batches.submit(requests(100), max_lines=50)
    await asyncio.sleep(330)
    await client.batches.cancel_job(handle)
    batches = await client.batches.wait(handle)
    async with await client.batches.results(handle) as results:
        assert ["cancelled"] * 2 == [batch.status for batch in batches]
        assert 20 < results.ok < 80
        assert 100 == results.ok + results.unanswered
        assert all("'cancelled'" in str(result.error) for result in results.failures())
    assert ["cancelled"] * 2 == [batch.status for batch in await client.batches.cancel_job(handle)]


async def test_results_never_overwrite_what_was_paid_for(client: AsyncKimi, tmp_path: Path):
    """
    A file that holds something else is left as it is; writing the same results once more does no harm.
    """
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"paid for\n")
    with await client.batches.run(requests(2)) as results:
        with pytest.raises(
            ConfigurationError, match="exists already and holds 9 bytes; it was left as it is"
        ):
            results.write(path)
        assert b"paid for\n" == path.read_bytes()
        other = tmp_path / "other.jsonl"
        assert [2, 2] == [results.write(other), results.write(other)]
        assert 2 == results.write(path, overwrite=True)

    assert {path, other} == set(tmp_path.iterdir())


async def test_results_callers_directory_is_never_removed(
    client: AsyncKimi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """
    What is removed is what was made for the job; a directory of the caller's is not, wherever it lies.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious").write_bytes(b"x")
    handle = await client.batches.submit(requests(2), directory=mine)
    await client.batches.wait(handle)
    with await client.batches.results(handle) as results:
        assert 2 == results.ok
    with await client.batches.run(requests(2), directory=mine) as results:
        assert 2 == results.ok

    assert b"x" == (mine / "precious").read_bytes()
    assert [mine] == list(tmp_path.iterdir())


@pytest.mark.parametrize("when", ["uploading", "waiting"])
async def test_run_cancelled_or_failed_leaves_no_prompts_behind(
    client: AsyncKimi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
):
    """
    A job's own directory is private, and goes when the job ends without results and no state needs it.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    modes: list[int] = []

    def stop(progress: BatchProgress) -> None:
        if progress.step == when:
            modes.extend(entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await client.batches.run(requests(3), on_progress=stop)

    assert [0o700] == modes
    assert [] == list(tmp_path.iterdir())


async def test_run_cancelled_anywhere_leaves_nothing_behind(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """
    However a run is cancelled, no directory and no open file is left.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = 0
    for turns in range(0, 120, 3):
        task = asyncio.ensure_future(client.batches.run(requests(3)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(done, BatchResults):
            done.close()
        else:
            ended += isinstance(done, asyncio.CancelledError)
        assert [] == list(tmp_path.iterdir()), turns

    assert ended > 10


async def test_submit_refused_leaves_nothing_in_the_callers_directory(client: AsyncKimi, tmp_path: Path):
    """
    Files of a job that was never sent are of no use to anybody.
    """
    (tmp_path / "mine").touch()
    bad = [*requests(50), requests(1)[0]]
    with pytest.raises(InvalidLinesError, match="custom_id"):
        await client.batches.submit(bad, directory=tmp_path, max_lines=10)

    assert [tmp_path / "mine"] == list(tmp_path.iterdir())


async def test_submit_refused_leaves_no_directory_that_it_made(client: AsyncKimi, tmp_path: Path):
    """
    A caller's directory that was not there before, and holds nothing when nothing is sent, is gone again; one that was is not.
    """
    (tmp_path / "mine").mkdir()
    for name in ("mine", "made"):
        with pytest.raises(InvalidLinesError):
            await client.batches.submit([{"custom_id": "a"}], directory=tmp_path / name)

    assert ["mine"] == sorted(path.name for path in tmp_path.iterdir())


async def test_submit_lines_without_method_and_url(
    simulator: KimiSimulator, client: AsyncKimi, tmp_path: Path
):
    """
    A file that `client.map` takes will do for a batch, too: what every line must hold is filled in.
    """
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in requests(3)))
    with await client.batches.run(path) as results:
        assert 3 == results.ok


@pytest.mark.parametrize("name", ["job.json", "in.jsonl"])
async def test_submit_pipe_is_refused_by_name(client: AsyncKimi, tmp_path: Path, name: str):
    """
    Neither the requests nor the state are read from what may never end.
    """
    os.mkfifo(tmp_path / name)
    given = tmp_path / name if name == "in.jsonl" else requests(1)
    with pytest.raises(ConfigurationError, match=f"{name} is a named pipe; it must be a plain file"):
        await client.batches.submit(given, state=tmp_path / "job.json")


async def test_results_deleted_from_the_account(simulator: KimiSimulator, client: AsyncKimi):
    """
    With delete=True the job leaves no file on the account, and the results can still be read.
    """
    async with await client.batches.run(requests(5), delete=True) as results:
        assert 5 == len([result for result in results if result.ok])
    assert {} == simulator.storage.files


async def test_results_directory_that_others_use_by_now_stays(client: AsyncKimi, tmp_path: Path):
    """
    Where results cannot be had, nothing is removed from a directory of the caller's, not even from one that was made for them.
    """
    handle = await client.batches.submit(requests(2), directory=tmp_path / "in")
    place = tmp_path / "new"
    task = asyncio.ensure_future(client.batches.results(handle, directory=place))
    while not place.exists():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    (place / "precious").write_bytes(b"x")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert b"x" == (place / "precious").read_bytes()


def refusing(method: str, after: int, failure: type[BaseException]) -> Any:
    """A middleware that lets so many requests of a method pass, and raises at the next."""
    seen = 0

    async def middleware(request: Request, send: Handler) -> Response:
        nonlocal seen
        seen += request.method == method
        if request.method == method and seen == after + 1:
            raise failure if failure is not APIConnectionError else APIConnectionError(request=request)
        return await send(request)

    return middleware


async def test_results_are_kept_where_the_account_cannot_be_cleared(
    simulator: KimiSimulator, caplog: pytest.LogCaptureFixture
):
    """
    A file that cannot be deleted is told in the log; the others are deleted, and the results are handed out.
    """
    options = {"max_retries": 0, "middleware": [refusing("DELETE", 0, APIConnectionError)]}
    async with (
        AsyncKimi(base_url=simulator.base_url, api_key=simulator.api_key, **options) as client,
        await client.batches.run(requests(2), delete=True) as results,
    ):
        assert [True, True] == [result.ok for result in results]

    [left] = simulator.storage.files
    assert f"the file {left} of a batch stays on the account" in caplog.text


async def test_results_are_kept_where_deletion_is_cancelled(
    simulator: KimiSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """
    Once some of it may be gone from the account, what is here is not removed, and the error says where it is.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = {"middleware": [refusing("DELETE", 1, asyncio.CancelledError)]}
    async with AsyncKimi(base_url=simulator.base_url, api_key=simulator.api_key, **options) as client:
        with pytest.raises(asyncio.CancelledError) as caught:
            await client.batches.run(requests(2), delete=True)

    [kept] = tmp_path.iterdir()
    assert [f"the results are in {kept}"] == caught.value.__notes__
    assert 2 == len(list(kept.iterdir()))


async def test_run_deletes_nothing_before_the_rest_was_sent_live(simulator: KimiSimulator):
    """
    Where the live rest fails the batch's answers are still on the account, and the error says how to come to them.
    """
    simulator.storage.faults.expire_after = 4

    async def broken(request: Request, send: Handler) -> Response:
        if request.url.endswith("/chat/completions"):
            raise ZeroDivisionError
        return await send(request)

    options = {"middleware": [broken]}
    async with AsyncKimi(base_url=simulator.base_url, api_key=simulator.api_key, **options) as client:
        with pytest.raises(MapStoppedError) as caught:
            await client.batches.run(
                requests(8), via="auto", delete=True, live={"stop_on": (ZeroDivisionError,)}
            )
        [batch] = [each.id async for each in client.batches.list()]

        assert [
            f"batches were made all the same: client.batches.attach(['{batch}'])"
        ] == caught.value.__notes__
        assert any(file.purpose == "batch_output" for file in simulator.storage.files.values())


@pytest.mark.parametrize("step", ["uploading", "waiting"])
async def test_run_is_not_lost_to_who_watches(client: AsyncKimi, caplog: pytest.LogCaptureFixture, step: str):
    """
    What on_progress raises is logged, once, and a batch that is paid for goes on.
    """

    def watch(progress: BatchProgress) -> None:
        if progress.step == step:
            raise ZeroDivisionError

    with await client.batches.run(requests(2), on_progress=watch) as results:
        assert [True, True] == [result.ok for result in results]

    assert 1 == caplog.text.count("on_progress raised")


async def test_submit_broken_off_names_the_batches_that_were_made(client: AsyncKimi):
    """
    They go on, and are paid for.
    """
    options = {"max_retries": 0, "middleware": [refusing("POST", 3, APIConnectionError)]}
    async with AsyncKimi(**options, base_url=client.base_url, api_key="sk-simulator") as broken:
        with pytest.raises(APIConnectionError) as caught:
            await broken.batches.submit(requests(2), max_lines=1)
    [batch] = [each.id async for each in client.batches.list()]

    assert [f"batches were made all the same: client.batches.attach(['{batch}'])"] == caught.value.__notes__


async def test_run_temporary_files_are_removed(
    client: AsyncKimi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """
    Without a directory of the caller's, closing the results leaves nothing on disk.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    results = await client.batches.run(requests(5))
    assert 5 == len(list(results))
    assert [] != list(tmp_path.iterdir())
    results.close()

    assert [] == list(tmp_path.iterdir())


LEFT_OPEN = """
import asyncio, os, sys
from kimi_async import AsyncKimi
from kimi_async.testing import KimiSimulator
from kimi_async.testing.simulator.storage import BatchPace

REQUESTS = [{"custom_id": "a", "body": {"model": "kimi-k2.6", "messages": [{"role": "user", "content": "hi"}]}}]

async def main():
    async with KimiSimulator() as sim, AsyncKimi(base_url=sim.base_url, api_key=sim.api_key) as client:
        sim.storage.pace = BatchPace(0, 0, 0, 0)
        return [await client.batches.run(REQUESTS, poll_interval=0.001) for _ in range(2)]

left, kept = asyncio.run(main())
kept.keep_files = True
if hasattr(os, "fork") and not os.fork():
    sys.exit()
if hasattr(os, "fork"):
    os.wait()
print([result.ok for result in left], kept.keep())
"""


def test_results_left_open_leave_no_prompts_behind(tmp_path: Path):
    """
    What nobody closed goes at the end of the program, and not at that of a child; what is to be kept stays.
    """
    env = {**os.environ, "TMPDIR": str(tmp_path), "TEMP": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN], env=env, capture_output=True, text=True, timeout=60, check=False
    )

    assert [done.stdout.strip()] == [f"[True] {path}" for path in tmp_path.glob("kimi-batch-*")], done.stderr


def test_results_repr_and_errors_pickle():
    """
    Results print their counts; the error of an unanswered request pickles.
    """
    error = UnansweredError("m", custom_id="a", status="expired")
    copy = pickle.loads(pickle.dumps(error))

    assert ("m", "a", "expired", True) == (str(copy), copy.custom_id, copy.status, copy.retryable)
    assert isinstance(copy, KimiError)
    results = BatchResults(BatchHandle("j"), inputs=[], outputs=[], batches=[])
    assert "<BatchResults 0 ok, 0 failed, 0 unanswered>" == repr(results)
