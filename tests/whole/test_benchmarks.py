"""
The benchmarks' own arithmetic: shapes, the server, the goals, the table and the picture.
"""

import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip(
    "benchmarks", reason="the benchmarks are not beside the tests (an installed wheel is being tested)"
)

from benchmarks import __main__ as program
from benchmarks import goals, measure, pythons, relay, report, shapes
from benchmarks.clients import CLIENTS
from benchmarks.clients.base import Peer
from benchmarks.goals import Goal
from benchmarks.picture import picture
from benchmarks.scale import line
from benchmarks.server import listen
from benchmarks.shapes import Shape
from benchmarks.workloads import WORKLOADS, Bench, Mismatch, _Meter, _together

STREAMS = [
    Shape("text", events=300),
    Shape("reasoning", events=300, per_write=64),
    Shape("tools", events=301, per_write=7),
    Shape("stamped", events=40),
]


def deltas(shape: Shape) -> list[dict[str, Any]]:
    """What a reader with nothing but `json` sees."""
    found = []
    for event in b"".join(shapes.events(shape)).split(b"\n\n"):
        if event and event != b"data: [DONE]":
            assert event.startswith(b"data: ")
            found.append(json.loads(event[6:])["choices"][0])
    return found


# --- shapes ---


@pytest.mark.parametrize("shape", STREAMS, ids=lambda shape: shape.kind)
def test_shape_rendered_twice_is_the_same(shape: Shape) -> None:
    """A seed gives the same bytes every time, or two rounds would measure different work."""
    assert shapes.writes(shape) == shapes.writes(shape)


def test_shape_other_seed_other_text() -> None:
    """The seed reaches the text: no client can win by remembering the published one."""
    assert shapes.text_of(Shape("text", events=50)) != shapes.text_of(Shape("text", events=50, seed=1))


@pytest.mark.parametrize(
    "shape",
    [
        *STREAMS,
        Shape("text"),
        Shape("reply", size=100_000),
        Shape("text", events=5, per_write=2, rate=50, together=300, late_ms=5, size=7, seed=9),
    ],
    ids=lambda shape: shape.name,
)
def test_shape_name_reads_back(shape: Shape) -> None:
    """A name in a URL stands for exactly one shape, every knob included."""
    assert shape == Shape.parse(shape.name)
    assert re.fullmatch(r"[a-z0-9.]+", shape.name)


@pytest.mark.parametrize("name", ["", "video", "text.q5", "text.n", "text.n-5", "text.n5.n", "../text"])
def test_shape_unknown_name_is_an_error(name: str) -> None:
    """A misspelt shape is refused, not served as something else."""
    with pytest.raises(ValueError, match="no such"):
        Shape.parse(name)


@pytest.mark.parametrize("shape", STREAMS, ids=lambda shape: shape.kind)
def test_shape_has_as_many_deltas_as_it_says(shape: Shape) -> None:
    """CPU per delta divides by the number of deltas: role, finish and `[DONE]` come on top of it."""
    choices = deltas(shape)

    assert shape.events == len(choices) - 2
    assert {"role": "assistant", "content": ""} == choices[0]["delta"]
    assert [None] * (shape.events + 1) == [choice["finish_reason"] for choice in choices[:-1]]
    assert choices[-1]["finish_reason"] in ("stop", "tool_calls")
    assert "usage" in choices[-1]


def test_shape_text_visits_the_slow_string_paths() -> None:
    """Some tokens are Chinese and some need an escape: a client that is only quick on ASCII would show."""
    texts = [choice["delta"].get("content", "") for choice in deltas(Shape("text", events=2_000))]

    assert 0.05 < sum(not text.isascii() for text in texts) / len(texts) < 0.2
    assert 0.005 < sum(any(c in text for c in '\n"\\\t') for text in texts) / len(texts) < 0.06


def test_shape_text_events_are_of_kimis_size() -> None:
    """
    An event of a real K3 stream is 200 to 250 bytes long; smaller ones would flatter whoever is slow on bytes.
    """
    events = shapes.events(Shape("text", events=1_000))[1:-2]

    assert 200 < sum(map(len, events)) / len(events) < 250


@pytest.mark.parametrize("kind", ["text", "reasoning"])
def test_shape_text_is_what_its_deltas_join_to(kind: shapes.Kind) -> None:
    """The text that clients are checked against is the text that is sent."""
    shape = Shape(kind, events=300)
    key = "content" if kind == "text" else "reasoning_content"

    assert shapes.text_of(shape) == "".join(choice["delta"].get(key, "") for choice in deltas(shape))


def test_shape_reasoning_is_in_its_own_field() -> None:
    """
    All deltas but the last carry reasoning, and none both: that field is the path this shape is named for.
    """
    keys = Counter(key for choice in deltas(Shape("reasoning", events=100))[1:-1] for key in choice["delta"])

    assert {"reasoning_content": 99, "content": 1} == keys


def test_shape_tools_fragments_join_to_json() -> None:
    """Two parallel calls, fragments told apart only by index, whose joined arguments are JSON objects."""
    shape = Shape("tools", events=301)
    joined = ["", ""]
    for choice in deltas(shape)[1:-1]:
        for call in choice["delta"]["tool_calls"]:
            joined[call["index"]] += call["function"].get("arguments", "")

    assert joined == shapes.arguments_of(shape)
    assert [["q"], ["q"]] == [list(json.loads(text)) for text in joined]


@pytest.mark.parametrize("per_write", [1, 7, 64, 1024])
def test_shape_writes_hold_so_many_events(per_write: int) -> None:
    """
    A write is one chunk of the transfer coding with `per_write` events; the role comes alone, and nothing is lost.
    """
    shape = Shape("text", events=200, per_write=per_write)
    bodies = []
    for write in shapes.writes(shape):
        size, _, rest = write.partition(b"\r\n")
        assert int(size, 16) == len(rest) - 2
        assert rest.endswith(b"\r\n")
        bodies.append(rest[:-2])
    counts = [body.count(b"\n\n") for body in bodies]

    assert b"".join(shapes.events(shape)) == b"".join(bodies)
    assert 1 == counts[0]
    assert all(per_write == count for count in counts[1:-1])
    assert per_write >= counts[-1]


def test_shape_stamp_has_a_fixed_width() -> None:
    """The server writes the time over the stamp in a rendered event, so that no length may change."""
    assert len(shapes.stamp(0)) == len(shapes.stamp(2**63))


@pytest.mark.parametrize("size", [1, 40, 100_000])
def test_reply_content_has_the_size_asked_for(size: int) -> None:
    """The content of a `reply` has `size` characters."""
    assert size == len(
        json.loads(shapes.reply(Shape("reply", size=size)))["choices"][0]["message"]["content"]
    )


# --- server and clients ---

HERE = [
    name
    for name in ("raw", "floor", "aiohttp-json", "kimi-async", "openai")
    if CLIENTS[name].missing() is None
]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    listener = await listen()
    yield listener.sockets[0].getsockname()[1]
    listener.close()


async def opened(name: str, port: int, shape: Shape) -> Peer:
    client = CLIENTS[name](f"http://127.0.0.1:{port}/{shape.name}")
    await client.open()
    return client


@pytest.mark.parametrize("name", HERE)
async def test_client_delivers_what_the_server_sent(name: str, port: int) -> None:
    """
    Every client, driven as in the benchmark, ends with the text, the reasoning and the arguments that were sent.
    """
    text = Shape("text", events=130, per_write=64)
    reasoning = Shape("reasoning", events=70)
    tools = Shape("tools", events=70, per_write=16)
    for shape, expected in (
        (text, len(shapes.text_of(text))),
        (reasoning, len(shapes.text_of(reasoning))),
        (tools, shapes.arguments_of(tools)),
    ):
        client = await opened(name, port, shape)
        try:
            assert expected == await getattr(client, shape.kind)()
        finally:
            await client.close()


@pytest.mark.parametrize("name", HERE)
async def test_client_helper_gives_the_whole_text(name: str, port: int) -> None:
    """What the helper accumulates is the text, to the character."""
    shape = Shape("text", events=130, per_write=64)
    client = await opened(name, port, shape)
    try:
        assert shapes.text_of(shape) == await client.helper()
    finally:
        await client.close()


@pytest.mark.parametrize("name", HERE)
async def test_client_call_reads_the_whole_answer(name: str, port: int) -> None:
    """Answers larger than one read of the socket come whole, and prompts larger than one write are taken."""
    client = await opened(name, port, Shape("reply", size=300_000))
    try:
        assert 300_000 == await client.call([{"role": "user", "content": "moon " * 100_000}])
    finally:
        await client.close()


@pytest.mark.parametrize("name", HERE)
async def test_server_paces_streams_together_and_stamps_them(name: str, port: int) -> None:
    """
    No event comes before every stream is there; each carries the moment it was written, never a later one.
    """
    shape = Shape("stamped", events=4, rate=400, together=3)
    client = await opened(name, port, shape)
    meter = _Meter(3, 4, stamped=True)
    try:
        assert 0 == await _together(client, meter, 3, 20)
    finally:
        await client.close()

    assert 0 == meter.left
    assert [4, 4, 4] == [len(arrivals) for arrivals in meter.arrivals]
    for arrivals in meter.arrivals:
        assert sorted(arrivals) == arrivals
        assert all(0 < sent <= seen for sent, seen in arrivals)


@pytest.mark.parametrize("chunked", [False, True])
async def test_server_reads_any_request_body(port: int, chunked: bool) -> None:
    """
    An upload of known or unknown length is read to its end before it is answered, and the connection is kept.
    """
    aiohttp = pytest.importorskip("aiohttp")

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"0\r\n\r\n" * 1_000

    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            data: Any = blocks() if chunked else b"x" * 200_000
            async with session.post(f"http://127.0.0.1:{port}/upload/v1/files", data=data) as response:
                assert "file" == (await response.json())["object"]
        async with session.get(f"http://127.0.0.1:{port}/_stats") as response:
            assert 1 == (await response.json())["accepted"]


async def test_server_unknown_shape_is_not_found(port: int) -> None:
    """A URL that names no shape is a 404 with an error body, so that a typing error is not measured."""
    aiohttp = pytest.importorskip("aiohttp")
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/nothing/v1/chat/completions", data=b"{}") as response,
    ):
        assert 404 == response.status


async def test_workload_client_that_loses_text_has_no_figure() -> None:
    """A client that drops a character is an error in the table, whatever its speed."""

    class Lossy(CLIENTS["raw"]):  # type: ignore[misc,name-defined]
        async def text(self) -> int:
            return await super().text() - 1

    listener = await listen()
    bench = Bench(listener.sockets[0].getsockname()[1], True, dict, lambda name: None)
    try:
        with pytest.raises(Mismatch):
            await WORKLOADS["burst64"].drive(Lossy, bench, WORKLOADS["burst64"])  # type: ignore[misc]
    finally:
        listener.close()


@pytest.mark.parametrize(("name", "figure"), [("final", "cpu_us"), ("fair", "worst_ms")])
async def test_workload_measures_what_it_says(name: str, figure: str) -> None:
    """Each stream's text is compared with what was sent, and the workload's own figure comes out."""
    listener = await listen()
    bench = Bench(listener.sockets[0].getsockname()[1], True, dict, lambda shape: None)
    workload = replace(
        WORKLOADS[name], size=100, quick_size=0, streams=2, rate=2_000 if name == "final" else 0
    )
    try:
        found = await workload.drive(CLIENTS["kimi-async"], bench, workload)  # type: ignore[misc]
    finally:
        listener.close()

    assert 0 < found[figure]
    assert figure == workload.metric


# --- goals ---


def result(workload: str, client: str, number: int, **figures: float) -> dict[str, Any]:
    return {"workload": workload, "client": client, "round": number, **figures}


def judged(goal: Goal, *results: dict[str, Any]) -> goals.Verdict:
    (verdict,) = goals.check(results, [goal])
    return verdict


def test_goal_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """Rounds are compared each with itself: a slow minute that hits both sides changes nothing."""
    goal = Goal("x", "burst64", "cpu_us", 1.25, ("floor",))
    results = []
    for number, (ours, floor) in enumerate([(1.2, 1.0), (12.0, 10.0), (3.0, 1.0)]):
        results += [
            result("burst64", "kimi-async", number, cpu_us=ours),
            result("burst64", "floor", number, cpu_us=floor),
        ]
    verdict = judged(goal, *results)

    assert verdict.value == pytest.approx(1.2)
    assert verdict.met


def test_goal_just_above_its_bound_is_missed() -> None:
    """The bound itself is still good; the least more is not."""
    goal = Goal("x", "many9000", "kb_each", 24)

    assert judged(goal, result("many9000", "kimi-async", 0, kb_each=24)).met
    assert not judged(goal, result("many9000", "kimi-async", 0, kb_each=24.01)).met


def test_goal_against_several_takes_the_quickest() -> None:
    """
    "Every generated SDK" means the one nearest to us.
    """
    goal = Goal("x", "small", "cpu_us", 0.2, ("openai", "groq", "litellm"))
    verdict = judged(
        goal,
        result("small", "kimi-async", 0, cpu_us=100),
        result("small", "openai", 0, cpu_us=1_000),
        result("small", "groq", 0, cpu_us=400),
    )

    assert verdict.value == pytest.approx(0.25)
    assert not verdict.met


def test_goal_against_another_workload() -> None:
    """The helper is compared with plain iteration, which is another workload of the same client."""
    goal = Goal("x", "helper", "cpu_us", 1.5, ("kimi-async",), "burst64")
    verdict = judged(
        goal, result("helper", "kimi-async", 0, cpu_us=1.4), result("burst64", "kimi-async", 0, cpu_us=1.0)
    )

    assert verdict.value == pytest.approx(1.4)
    assert verdict.met


def test_goal_without_figures_is_neither_met_nor_missed() -> None:
    """
    A workload that failed, or an opponent that is not installed, is said to be missing; it never counts as met.
    """
    goal = Goal("x", "burst64", "cpu_us", 1.25, ("floor",))
    alone = judged(goal, result("burst64", "kimi-async", 0, cpu_us=1.0))
    failed = judged(goal, result("burst64", "kimi-async", 0) | {"error": "TimeoutError"})

    assert (None, False) == (alone.value, alone.met)
    assert "floor" in alone.why
    assert (None, False) == (failed.value, failed.met)
    assert "kimi-async" in failed.why


def test_goals_name_what_exists() -> None:
    """
    Every goal can be judged: its workloads and clients exist, and its figure is one that the workload gives.
    """
    for goal in goals.GOALS:
        assert goal.workload in WORKLOADS
        assert (goal.against_workload or goal.workload) in WORKLOADS
        assert {goal.ours, *goal.against} <= CLIENTS.keys()
        assert goal.metric in ("cpu_us", "cpu_ms", WORKLOADS[goal.workload].metric)


@pytest.mark.parametrize(("ours", "status"), [(1.2, 0), (1.3, 1)])
def test_program_check_exit_status_tells(
    ours: float, status: int, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` exits with 1 when a goal is missed and with 0 when all that were judged are met."""
    file = tmp_path / "results.json"
    file.write_text(
        json.dumps(
            {
                "machine": report.machine(),
                "rounds": 1,
                "versions": {},
                "results": [
                    result("burst64", "kimi-async", 0, cpu_us=ours),
                    result("burst64", "floor", 0, cpu_us=1.0),
                ],
            }
        )
    )

    assert status == program.main(["--from", str(file), "--check"])
    said = capsys.readouterr().out
    assert ("MISS" if status else "ok") in said


def test_program_list_says_what_is_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is not installed is listed with the reason that it will be skipped."""
    monkeypatch.setattr(CLIENTS["groq"], "distribution", "no-such-distribution")

    assert 0 == program.main(["--list"])
    said = capsys.readouterr().out
    assert "no-such-distribution is not installed" in said
    assert all(name in said for name in [*WORKLOADS, *CLIENTS])


# --- figures ---


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1), (0.001, 1)])
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    """The p99 of 100 values is the 99th: a value that was measured, not one between two."""
    assert expected == measure.percentile(list(range(100, 0, -1)), share)


def test_percentile_of_nothing_is_an_error() -> None:
    """A latency of no tokens is not zero."""
    with pytest.raises(ValueError, match="no values"):
        measure.percentile([], 0.5)


@pytest.mark.parametrize(
    ("value", "metric", "expected"),
    [
        (1234.5, "cpu_us", "1,234 µs"),
        (12.34, "kb_each", "12.3 KiB"),
        (1.234, "gap_p99_ms", "1.23 ms"),
        (20, "connections", "20"),
    ],
)
def test_figure_has_three_digits_and_its_unit(value: float, metric: str, expected: str) -> None:
    """No more digits than the spread allows."""
    assert expected == report.figure(value, metric)


SUMMARY = report.summary(
    [
        result("burst64", "kimi-async", 0, cpu_us=1.0),
        result("burst64", "kimi-async", 1, cpu_us=3.0),
        result("burst64", "kimi-async", 2, cpu_us=2.0),
        result("burst64", "openai", 0, cpu_us=80.0),
        result("paced300", "kimi-async", 0, gap_p99_ms=-0.5),
        result("paced300", "openai", 0, gap_p99_ms=600.0),
    ]
)


def test_summary_keeps_median_and_spread() -> None:
    """The rounds come down to their median, with the lowest and the highest beside it."""
    assert {"median": 2.0, "low": 1.0, "high": 3.0} == SUMMARY["burst64"]["kimi-async"]["cpu_us"]


def test_markdown_explains_its_gaps() -> None:
    """
    A cell without a figure has a note that says why, also where a client or a workload has no figure at all.
    """
    text = report.markdown(
        SUMMARY, {("burst64", "floor"): "TimeoutError: late", ("small", "openai"): "not offered"}, {}
    )
    rows = [line for line in text.splitlines() if line.startswith("|")]

    assert 1 == len({row.count("|") for row in rows})
    assert "2.00 µs" in text
    assert "80.0 µs" in text
    assert "[1] floor, burst64: TimeoutError: late" in text
    assert "[2] openai, small: not offered" in text


def test_picture_is_readable_in_both_themes() -> None:
    """
    The picture is well-formed, has a bar for every figure, longer for more, and colours for a dark page.
    """
    drawn = picture(SUMMARY)
    root = ElementTree.fromstring(drawn)
    bars = [float(each.attrib["width"]) for each in root.iter("{http://www.w3.org/2000/svg}rect")]

    assert 4 == len(bars)
    assert bars[0] < bars[1]
    assert bars[2] < bars[3]
    assert min(bars) > 0
    assert "prefers-color-scheme: dark" in drawn
    assert {"openai", "kimi-async"} <= {each.text for each in root.iter("{http://www.w3.org/2000/svg}text")}


# --- growth ---


def test_line_goes_through_exact_points() -> None:
    """Points on a line give that line, with nothing left over."""
    fit = line([(10, 25.0), (100, 205.0), (1_000, 2_005.0)])

    assert fit.a == pytest.approx(5.0)
    assert fit.b == pytest.approx(2.0)
    assert fit.residual == pytest.approx(0.0, abs=1e-12)


def test_line_residual_is_the_worst_point_as_a_share() -> None:
    """A point off the line shows in the residual: growth that is not linear cannot hide in the fit."""
    assert line([(0, 0.0), (1, 1.0), (2, 4.0)]).residual > 0.05


def test_line_of_one_point_is_an_error() -> None:
    """One point has no slope to extrapolate from."""
    with pytest.raises(ValueError, match="at least two"):
        line([(1, 1.0)])


# --- the whole program ---


def test_program_measures_and_writes_everything(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One command: server and worker in processes of their own, results as JSON, a table and a picture."""
    files = {kind: tmp_path / f"results.{kind}" for kind in ("json", "markdown", "svg")}
    arguments = [part for kind, file in files.items() for part in (f"--{kind}", str(file))]

    assert 0 == program.main(["--quick", "-r", "1", "-c", "raw", "-w", "burst64", *arguments])
    found = json.loads(files["json"].read_text())
    (only,) = found["results"]
    assert ("burst64", "raw", 0) == (only["workload"], only["client"], only["round"])
    assert 0 < only["cpu_us"] < 1_000
    assert 0 < only["server_busy"]
    assert {"processor", "cores", "system", "python", "when", "command", "load"} == found["machine"].keys()
    assert "msgspec" in found["versions"]["raw"]
    assert "| burst64 (CPU per delta) |" in files["markdown"].read_text()
    assert "<svg" in files["svg"].read_text()
    assert "The server's core was at most" in capsys.readouterr().out


def test_program_imports_are_measured_in_a_bare_interpreter(capsys: pytest.CaptureFixture[str]) -> None:
    """
    An import is timed where nothing else is loaded; goals that lack an opponent are said not to be judged.
    """
    assert 0 == program.main(["--quick", "-r", "1", "-c", "raw", "-w", "import", "--check"])
    said = capsys.readouterr().out
    assert re.search(r"\| import \(CPU per process\) \| [\d.]+ ms \|", said)
    assert "not judged" in said


def test_commands_that_the_texts_name_are_there() -> None:
    """
    Whoever pastes `python -m benchmarks.relay` from a page finds a program.
    """
    root = Path(program.__file__).parents[1]
    texts = [*root.glob("*.md"), *root.glob("benchmarks/**/*.md"), *root.glob("docs/**/*.md")]
    named = {
        name
        for text in texts
        for name in re.findall(r"python -m (benchmarks[.a-z_]*)", text.read_text("utf-8"))
    }

    assert "benchmarks.relay" in named
    assert [] == [name for name in named if importlib.util.find_spec(name.rstrip(".")) is None]


# --- each Python ---


def test_table_has_two_rows_for_each_python_and_marks_what_misses() -> None:
    """The median of the rounds' ratios, `!` where it is above the goal, a dash where nothing was measured."""
    results = [
        result("small", client, number, cpu_us=figure)
        for client, figures in {
            "kimi-async": (1.1, 2.0, 1.3),
            "floor": (1.0, 1.0, 1.0),
            "kimi-async-uvloop": (1.1,) * 3,
            "floor-uvloop": (1.0,) * 3,
        }.items()
        for number, figure in enumerate(figures)
    ]
    results.append(result("many", "kimi-async", 0, kb_each=16.25))
    head, _, plain, uvloop = pythons.table({"3.13": results}).splitlines()
    titles = [cell.strip().partition(" ")[0] for cell in head.split("|")[1:-1]]
    rows = [
        dict(zip(titles, (cell.strip() for cell in row.split("|")[1:-1]), strict=True))
        for row in (plain, uvloop)
    ]

    assert ["3.13", "3.13, uvloop"] == [row["Python"] for row in rows]
    assert ["1.30 !", "1.10"] == [row["small"] for row in rows]
    assert ["16.2", "–"] == [row["KiB"] for row in rows]
    assert "–" == rows[0]["burst64"]


def test_interpreters_find_at_least_this_one() -> None:
    """What runs the benchmarks is measured, wherever it is installed."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert sys.executable == pythons.interpreters()[version]


# --- the relay ---


def test_relay_ratios_are_taken_within_a_round() -> None:
    """
    A round in which everything was slow says as much as another; and what has no counterpart is compared across frameworks.
    """
    found = {
        ("copied", "starlette"): [10.0, 30.0, 20.0],
        ("ours", "starlette"): [12.0, 36.0, 30.0],
        ("openai", "starlette"): [100.0, 300.0, 240.0],
        ("copied", "aiohttp"): [5.0, 10.0, 5.0],
        ("ours", "aiohttp"): [5.0, 10.0, 8.0],
    }

    assert [1.0, 1.2, 10.0, 1.0, 1.0] == list(relay.ratios(found, "copied").values())
    assert 0.12 == relay.ratios(found, "openai")["ours", "starlette"]
    assert "1.20 × copied, 1/8.3 of openai" in relay.report(found)[1]


def test_relay_program_measures_each_service(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Each service hands on to the byte what the model wrote, or the program ends with a complaint.
    """
    relay.main(["--streams", "2", "--seconds", "0.2", "--rounds", "1", "--on", "aiohttp"])
    _, *lines = capsys.readouterr().out.splitlines()

    assert [["aiohttp", who] for who in ("copied", "ours", "gathered")] == [
        line.split()[:2] for line in lines
    ]
