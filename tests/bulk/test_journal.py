import errno
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kimi_async.bulk import journal as journal_module
from kimi_async.bulk import output_files
from kimi_async.bulk.id_table import IdTable
from kimi_async.bulk.journal import (
    Journal,
    JournalError,
    JournalLockedError,
    JournalWriteError,
)
from kimi_async.bulk.lines import InvalidLinesError, read_ids, read_lines
from kimi_async.bulk.output_files import ResultFiles
from kimi_async.bulk.output_lines import RunInfo, answer_line, failure_line, fingerprint
from kimi_async.bulk.request_files import LineChecker, Shards, check_lines
from kimi_async.resources.disk import Replacement


def request(custom_id: str = "a", **changes: object) -> bytes:
    line = {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "kimi-k2.6", "messages": [{"role": "user", "content": "hi"}]},
    }
    line.update(changes)
    return json.dumps({k: v for k, v in line.items() if v is not None}).encode()


def answer(custom_id: str, text: str = "hello") -> bytes:
    return answer_line(custom_id, json.dumps({"text": text}).encode(), run=RunInfo(fingerprint="f" * 32))


def failure(custom_id: str, *, retryable: bool) -> bytes:
    return failure_line(custom_id, code="x", message="no", run=RunInfo(retryable=retryable))


def ids_in(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()]


# Lines of a request file


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
def test_read_lines_every_block_size(block: int, end: bytes):
    """
    Where the file is cut by reading changes neither lines nor offsets.
    """
    text = "one\n\n\u2028two\u0085\r\n".encode() + b"x" * 20 + b"\nlast"
    expected = [(0, b"one"), (4, b""), (5, "\u2028two\u0085\r".encode()), (15, None), (36, b"last")]

    assert expected == list(read_lines(io.BytesIO(text + end), max_line=10, block=block))


@pytest.mark.parametrize("block", [1, 4, 64])
def test_read_lines_overlong_last_line(block: int):
    """
    A line too long is reported once, even at the end of a file without a line feed.
    """
    assert [(0, b"a"), (2, None)] == list(read_lines(io.BytesIO(b"a\n" + b"x" * 50), max_line=5, block=block))


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        (b"{nope", "json", "is not JSON"),
        (b"[1]", "json", "is a JSON array, not an object"),
        (b"null", "json", "is a JSON null"),
        (request("a\0b").replace(b"\\u0000", b"\0"), "nul", "NUL byte at column"),
        (b'{"custom_id": "\xff"}', "utf8", "not UTF-8 at column 16"),
        (request(custom_id="first"), "duplicate", "'first' is also on line 1"),
        (request(url="/v1/embeddings"), "url", "'/v1/embeddings'; it must be"),
        (request(url=None), "url", "url is missing"),
        (request(method="GET"), "method", "'GET'; it must be 'POST'"),
        (request(body=None), "body", "has no body"),
        (b'{"custom_id": "a", "messages": [1]}', "body", "messages and what else is asked belong into it"),
        (request(body="x"), "body", "body is not an object"),
        (request(custom_id=""), "custom_id", "custom_id is empty"),
        (request(custom_id=None), "custom_id", "has no custom_id"),  # type: ignore[arg-type]
        (request(custom_id=7), "custom_id", "custom_id is a number, not a string"),  # type: ignore[arg-type]
        (request(body={"messages": [1]}), "model", "body has no model"),
        (request(body={"model": "other", "messages": [1]}), "mixed_models", "a batch file has one model"),
        (request(body={"model": "kimi-k2.6"}), "messages", "body has no messages"),
        (
            request(body={"model": "kimi-k2.6", "messages": []}),
            "messages",
            "must be a list that is not empty",
        ),
        (request(body={"model": "kimi-k2.6", "messages": "hi"}), "messages", "must be a list"),
        (request(body={"model": "kimi-k2.6", "messages": [1], "stream": True}), "stream", "cannot stream"),
        (request(body={"model": 5, "messages": [1]}), "body", "is not a request: Expected `str`"),
        (request() + b"\r", "crlf", "CR LF"),
        (b"", "blank", "is blank"),
        (b"[" * 100_000, "json", "nested too deeply"),
    ],
)
def test_check_lines_bad_line_is_named(line: bytes, kind: str, said: str):
    """
    Each kind of bad line is reported once, by its number and with what is wrong.
    """
    text = request("first") + b"\n" + line + b"\n" + request("last") + b"\n"

    found = check_lines(io.BytesIO(text))

    assert [(2, kind)] == [(problem.line, problem.kind) for problem in found.problems]
    assert said in str(found.problems[0])


def test_check_lines_bom_and_ten_megabytes():
    """
    A byte order mark and a line of ten megabytes are reported by number, and the latter is never kept.
    """
    big = request(
        "big", body={"model": "kimi-k2.6", "messages": [{"role": "user", "content": "x" * 10_000_000}]}
    )
    found = check_lines(io.BytesIO(b"\xef\xbb\xbf" + request("a") + b"\n" + big + b"\n" + request("b")))

    assert [(1, "bom"), (2, "too_long")] == [(problem.line, problem.kind) for problem in found.problems]
    assert 3 == found.lines


def test_check_lines_blank_lines_at_the_end_are_no_problem():
    """
    Editors and shells leave them; they carry nothing.
    """
    assert check_lines(io.BytesIO(request() + b"\n\n \n")).ok


def test_check_lines_repair_reads_past_what_editors_do():
    """
    With repair a mark, CR LF and blank lines are read past, and `feed` gives the clean line.
    """
    checker = LineChecker(repair=True)

    assert [request("a"), None, request("b")] == [
        checker.feed(b"\xef\xbb\xbf" + request("a") + b"\r"),
        checker.feed(b"\r"),
        checker.feed(request("b") + b"\r"),
    ]
    assert checker.finish().ok
    assert checker.finish().repaired


def test_check_lines_live_allows_what_only_batches_forbid():
    """
    A live run may mix models, stream, and leave url, method and (with a default) the model out.
    """
    lines = [
        request("a", url=None, method=None),
        request("b", body={"messages": [1], "stream": True}),
        request("c", body={"model": "kimi-k3", "messages": [1]}),
    ]

    assert check_lines(io.BytesIO(b"\n".join(lines)), batch=False, model="kimi-k2.6").ok


def test_check_lines_many_problems_are_counted_not_kept(tmp_path: Path):
    """
    A file in the wrong format does not fill memory with complaints; the error tells how many there are.
    """
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"nope\n" * 1000)
    found = check_lines(path, keep=5)

    assert (5, 1000, {"json": 1000}) == (len(found.problems), found.count, dict(found.kinds))
    with pytest.raises(
        InvalidLinesError, match=r"1,000 bad lines in .*in\.jsonl; nothing was sent\n  line 1: is not"
    ):
        found.raise_if_bad()


def test_shards_split_by_size_and_count(tmp_path: Path):
    """
    Files stay within both limits, keep the order, and lose nothing.
    """
    lines = [request(f"r{i}", body={"pad": "x" * (i * 7 % 50)}) for i in range(100)]
    shards = Shards(tmp_path, max_bytes=1000, max_lines=8)
    for line in lines:
        shards.add(line)
    done = shards.close()

    assert b"\n".join(lines) + b"\n" == b"".join(Path(shard.path).read_bytes() for shard in done)
    assert all(shard.size <= 1000 and shard.lines <= 8 for shard in done)
    assert all(shard.size == os.stat(shard.path).st_size for shard in done)
    assert 100 == sum(shard.lines for shard in done)
    with pytest.raises(ValueError, match="does not fit"):
        shards.add(b"x" * 1000)


def test_id_table_agrees_with_dict():
    """
    Through growth and replacement the table answers as a dict would.
    """
    dice = random.Random(5)
    table, model = IdTable(), dict[str, int]()
    for _ in range(20_000):
        key, value = f"id-{dice.randrange(8000)}", dice.randrange(2**64)
        assert model.get(key) == table.put(key, value)
        model[key] = value

    assert model == {key: table.get(key) for key in model}
    assert len(model) == len(table)
    assert table.get("absent") is None
    assert next(iter(model.values())) == table.add(next(iter(model)), 1)


def test_fingerprint_order_of_keys_does_not_matter():
    """
    The same request written another way is the same; another value is not.
    """
    assert fingerprint({"a": 1, "b": [{"c": 2, "d": 3}]}) == fingerprint(b'{"b":[{"d":3,"c":2}], "a":1}')
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


# The journal


def test_answer_line_is_a_batch_output_line():
    """
    Any reader of the Batch API's files reads ours; line feeds between tokens do not break the line.
    """
    line = answer_line(
        "ä\n", b'{\n "x": "a\\nb"\n}', request_id="r", run=RunInfo(fingerprint="f", attempts=2)
    )

    assert b"\n" not in line
    assert {
        "id": "ä\n",
        "custom_id": "ä\n",
        "response": {"status_code": 200, "request_id": "r", "body": {"x": "a\nb"}},
        "error": None,
        "kimi_async": {"fingerprint": "f", "attempts": 2},
    } == json.loads(line)


def test_journal_written_lines_are_there_after_reopening(tmp_path: Path):
    """
    What was appended is found by id, in this run and the next.
    """
    path = tmp_path / "deep" / "out.jsonl"
    with Journal.open(path) as journal:
        journal.append([("a", answer("a")), ("b", failure("b", retryable=False))])
        journal.append([("ü", answer("ü", "x" * 10_000))])
        journal.sync()
        assert answer("ü", "x" * 10_000) == journal.read(journal.find("ü") or -1)
    with Journal.open(path) as journal:
        assert (3, 2, 1, False) == (len(journal), journal.ok, journal.failed, bool(journal.mended))
        assert answer("a") == journal.read(journal.find("a") if journal.find("a") is not None else -1)  # type: ignore[arg-type]
        assert "c" not in journal


def test_journal_torn_at_every_byte_is_mended(tmp_path: Path):
    """
    Wherever a write was cut, the whole lines stay, the cut one goes, and the next append is a line of its own.
    """
    path = tmp_path / "out.jsonl"
    whole, last = answer("a") + b"\n", answer("b", "ü😀")
    for cut in range(len(last) + 2):
        path.write_bytes(whole + (last + b"\n")[:cut])
        with Journal.open(path) as journal:
            assert ("b" in journal) is (cut >= len(last)), cut
            journal.append([("c", answer("c"))])
        expected = ["a", "b", "c"] if cut >= len(last) else ["a", "c"]
        assert expected == ids_in(path), cut


def test_journal_zeros_after_power_failure_are_mended(tmp_path: Path):
    """
    Some file systems leave NUL bytes where data had not reached the disk: they are no line.
    """
    path = tmp_path / "out.jsonl"
    path.write_bytes(answer("a") + b"\n" + b"\0" * 5000)
    with Journal.open(path) as journal:
        assert (1, 5000) == (len(journal), journal.mended.torn)

    assert answer("a") + b"\n" == path.read_bytes()


def test_journal_damage_in_the_middle_is_set_aside(tmp_path: Path):
    """
    A line that is not JSON is moved to a file of its own, so that every reader can read the rest; nothing is lost.
    """
    path = tmp_path / "out.jsonl"
    path.write_bytes(answer("a") + b"\n\0\0{half\n" + answer("b") + b"\n")
    with Journal.open(path) as journal:
        assert (2, 1) == (len(journal), journal.mended.damaged)
        journal.append([("c", answer("c"))])

    assert ["a", "b", "c"] == ids_in(path)
    assert b"\0\0{half\n" == (tmp_path / "out.jsonl.damaged").read_bytes()


@pytest.mark.parametrize(
    ("redo", "left"),
    [("none", ["ok", "later", "never"]), ("transient", ["ok", "never"]), ("failed", ["ok"])],
)
def test_journal_redo_takes_failures_out(tmp_path: Path, redo: str, left: list[str]):
    """
    Failures to be sent again leave the file, so that no id ever has two lines.
    """
    path = tmp_path / "out.jsonl"
    lines = [answer("ok"), failure("later", retryable=True), failure("never", retryable=False)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    with Journal.open(path, redo=redo) as journal:  # type: ignore[arg-type]
        assert len(left) == len(journal)
        journal.append([("new", answer("new"))])
        assert answer("new") == journal.read(journal.find("new") or -1)

    assert [*left, "new"] == ids_in(path)
    assert [path.name] == [entry.name for entry in tmp_path.iterdir()]


def test_journal_unfinished_copy_is_removed(tmp_path: Path):
    """
    A process killed while it made a copy leaves no litter behind for good; what has another name is the user's.
    """
    path = tmp_path / "out.jsonl"
    path.write_bytes(answer("a") + b"\n")
    (tmp_path / ".out.jsonl.0123456789abcdef.kimi-copy").write_bytes(b"half a co")
    names = [
        "out.jsonl.damaged",
        "out.jsonl.4711.tmp",
        "out.jsonl.notes.tmp",
        ".out.jsonl.mine.kimi-copy",
        ".other.jsonl.0123456789abcdef.kimi-copy",
    ]
    others = {tmp_path / name for name in names}
    for other in others:
        other.touch()
    with Journal.open(path) as journal:
        assert 1 == len(journal)

    assert {path, *others} == set(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="needs modes")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_journal_redone_keeps_its_protection(tmp_path: Path, mode: int):
    """
    A copy without the failures may be read by whom the journal could be read, and belongs to the same owner.
    """
    path = tmp_path / "out.jsonl"
    path.write_bytes(answer("a") + b"\n" + failure("b", retryable=True) + b"\nnot json\n")
    path.chmod(mode)
    owner = 12345 if os.getuid() == 0 else os.getuid()
    os.chown(path, owner, -1)
    with Journal.open(path) as journal:
        assert (1, 1) == (journal.mended.redo, journal.mended.damaged)

    found = path.stat()
    assert (mode, owner) == (found.st_mode & 0o777, found.st_uid)
    damaged = tmp_path / "out.jsonl.damaged"
    assert 0 == damaged.stat().st_mode & 0o777 & ~mode


@pytest.mark.parametrize("name", ["长" * 82 + ".jsonl", "n" * 250])
def test_journal_of_the_longest_name_is_redone(tmp_path: Path, name: str):
    """
    The copy has a name that a file system takes, however long that of the journal is, and a left one is removed.
    """
    path = tmp_path / name
    path.write_bytes(answer("a") + b"\n" + failure("b", retryable=True) + b"\n")
    with Replacement(path, mark="copy").file:
        pass  # a killed process leaves it
    with Journal.open(path) as journal:
        assert 1 == journal.mended.redo

    assert ["a"] == ids_in(path)
    assert [path] == list(tmp_path.iterdir())


def test_journal_damage_that_cannot_be_set_aside(tmp_path: Path):
    """
    What is damaged is not thrown away: the journal stays as it is, and the error is its own.
    """
    path = tmp_path / ("n" * 250)
    content = b"not json\n" + answer("a") + b"\n"
    path.write_bytes(content)
    with pytest.raises(JournalWriteError, match="it was left as it was"):
        Journal.open(path)

    assert content == path.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_journal_behind_a_link_is_the_file_itself(tmp_path: Path):
    """
    Of a journal behind a symbolic link the file is mended and locked, and the link stays a link.
    """
    (tmp_path / "deep").mkdir()
    path, link = tmp_path / "deep" / "out.jsonl", tmp_path / "link.jsonl"
    path.write_bytes(answer("a") + b"\n" + failure("b", retryable=True) + b"\n")
    link.symlink_to(path)
    with Journal.open(link) as journal:
        journal.append([("c", answer("c"))])
        with pytest.raises(JournalLockedError):
            Journal.open(path)

    assert link.is_symlink()
    assert ["a", "c"] == ids_in(path)
    assert ["link.jsonl"] == [entry.name for entry in tmp_path.iterdir() if entry.name != "deep"]


@pytest.mark.skipif(os.name == "nt", reason="needs modes and symbolic links")
def test_journal_arranged_loses_neither_lines_nor_protection(tmp_path: Path):
    """
    Lines come in the order asked for, those of other ids after them; link, mode and neighbours stay, and it can be written on.
    """
    path, link, beside = tmp_path / "out.jsonl", tmp_path / "link.jsonl", tmp_path / "out.jsonl.sorted"
    path.write_bytes(b"".join(answer(name) + b"\n" for name in "xcabz"))
    path.chmod(0o600)
    link.symlink_to(path)
    beside.write_bytes(b"mine")
    with Journal.open(link) as journal:
        journal.arrange(["a", "b", "missing", "c", "a"])
        journal.append([("d", answer("d"))])
        assert answer("z") == journal.read(journal.find("z") or -1)

    assert list("abcxzd") == ids_in(path)
    assert (0o600, True, b"mine") == (path.stat().st_mode & 0o777, link.is_symlink(), beside.read_bytes())
    assert 3 == len(list(tmp_path.iterdir()))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_journal_special_file_is_refused_by_name(tmp_path: Path):
    """
    Opening a pipe would wait for its other end for ever, and a device is no place for results.
    """
    os.mkfifo(tmp_path / "pipe")
    for path, kind in [
        (tmp_path / "pipe", "a named pipe"),
        (Path("/dev/null"), "a device"),
        (tmp_path, "a directory"),
    ]:
        with pytest.raises(JournalError, match=f"{path.name} is {kind}; it must be a plain file"):
            Journal.open(path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, ""])
def test_journal_impossible_name_is_the_journals_error(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    """
    Whatever is wrong with a name, the error says that it is the journal's.
    """
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JournalError):
        Journal.open(name)


def test_journal_answer_is_not_lost_to_a_later_failure(tmp_path: Path):
    """
    Of an answer and a later failure for one request the answer stands; unless the request was changed in between.
    """
    path = tmp_path / "out.jsonl"
    late = failure("a", retryable=False)
    path.write_bytes(answer("a") + b"\n" + late + b"\n")
    with Journal.open(path) as journal:
        assert (1, 0, 1) == (journal.ok, journal.failed, journal.mended.replaced)
    with ResultFiles([path]) as results:
        assert (1, 0) == (results.ok, results.failed)

    before = answer_line("a", b"{}", run=RunInfo("1" * 32))
    after = failure_line("a", code="x", message="y", run=RunInfo("2" * 32))
    path.write_bytes(before + b"\n" + after + b"\n")
    with ResultFiles([path]) as results:
        assert (0, 1) == (results.ok, results.failed)
    with Journal.open(path, redo="none") as journal:
        assert (0, 1) == (journal.ok, journal.failed)


def test_journal_earlier_line_of_an_id_is_left_out(tmp_path: Path):
    """
    Of two lines for one id the later stands.
    """
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"\n".join([answer("a", "old"), answer("b"), answer("a", "new")]) + b"\n")
    with Journal.open(path) as journal:
        assert 1 == journal.mended.replaced

    assert [answer("b"), answer("a", "new")] == path.read_bytes().splitlines()


@pytest.mark.parametrize("content", [request("a") + b"\n", b"name,age\n1,2\n", b'{"a": 1}\n', b'{"a": 1}'])
def test_journal_refuses_a_file_that_is_something_else(tmp_path: Path, content: bytes):
    """
    Naming the input (or any other file) as the journal must not cost the file a byte.
    """
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="is not a journal"):
        Journal.open(path)

    assert content == path.read_bytes()


def test_journal_second_process_is_refused(tmp_path: Path):
    """
    Two runs on one journal would send everything twice; the second is told so, until the first ends however it ends.
    """
    path = tmp_path / "out.jsonl"
    script = (
        "import sys; from kimi_async.bulk.journal import *\n"
        f"try: Journal.open({str(path)!r})\n"
        "except JournalLockedError as e: sys.exit(7)\n"
    )
    with Journal.open(path) as journal:
        with pytest.raises(JournalLockedError, match="in use by another run"):
            Journal.open(path)
        assert 7 == subprocess.run([sys.executable, "-c", script], check=False).returncode
        # A copy that replaces the file is locked before it has the name.
        journal.append([("a", failure("a", retryable=True))])
    with Journal.open(path) as journal:
        assert 1 == journal.mended.redo
        with pytest.raises(JournalLockedError):
            Journal.open(path)

    assert 0 == subprocess.run([sys.executable, "-c", script], check=False).returncode


def test_journal_full_disk_takes_the_append_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    A write that fails half-way leaves the file as it was, says why and how to go on, and hands back what is not saved.
    """
    path = tmp_path / "out.jsonl"
    journal = Journal.open(path)
    journal.append([("a", answer("a"))])
    real = os.write

    def full(fd: int, data: memoryview) -> int:
        if len(data) < 60:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: len(data) // 2])

    monkeypatch.setattr(journal_module.os, "write", full)
    with pytest.raises(
        JournalWriteError, match=r"the disk is full; what was in it before .1 results. is safe"
    ) as caught:
        journal.append([("b", answer("b")), ("c", answer("c"))])
    with pytest.raises(JournalWriteError, match="the disk is full"):
        journal.append([("d", answer("d"))])
    monkeypatch.undo()
    journal.close()

    assert (errno.ENOSPC, (answer("b"), answer("c"))) == (caught.value.errno, caught.value.unsaved)
    assert answer("a") + b"\n" == path.read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_journal_copy_fails_original_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    If there is no room for the copy without the failures, the journal is untouched and nothing is left behind.
    """
    path = tmp_path / "out.jsonl"
    content = answer("a") + b"\n" + failure("b", retryable=True) + b"\n"
    path.write_bytes(content)
    full = os.open("/dev/full", os.O_WRONLY)
    real = os.write
    monkeypatch.setattr(journal_module.os, "write", lambda fd, data: real(full, data))  # type: ignore[misc]
    with pytest.raises(JournalWriteError, match="left as it was"):
        Journal.open(path)
    monkeypatch.undo()
    os.close(full)

    assert content == path.read_bytes()
    assert [path.name] == [entry.name for entry in tmp_path.iterdir()]
    with Journal.open(path) as journal:
        assert 1 == journal.mended.redo


# Joining


@pytest.mark.parametrize("dict_up_to", [0, 150, 1_000_000])
def test_result_files_join_in_input_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dict_up_to: int):
    """
    Results in any order, over several files, come back in the order of the requests; what was not answered is None.
    """
    monkeypatch.setattr(output_files, "_DICT_UP_TO", dict_up_to)
    dice = random.Random(1)
    ids = [f"r{i}" for i in range(300)]
    shuffled = ids[:-1]
    dice.shuffle(shuffled)
    (tmp_path / "in.jsonl").write_bytes(
        b"\xef\xbb\xbf" + b"\r\n".join(request(name) for name in ids) + b"\n\n"
    )
    (tmp_path / "1").write_bytes(b"".join(answer(name, name) + b"\n" for name in shuffled[:100]))
    (tmp_path / "2").write_bytes(b"\n".join(answer(name, name) for name in shuffled[100:]))
    (tmp_path / "empty").write_bytes(b"")
    with ResultFiles([tmp_path / "1", tmp_path / "empty", tmp_path / "2"]) as results:
        joined = list(results.join(read_ids(tmp_path / "in.jsonl")))

    assert ids == [name for name, _ in joined]
    assert [json.dumps({"text": name}).encode() for name in ids[:-1]] == [
        got.body for _, got in joined[:-1] if got
    ]
    assert joined[-1][1] is None


def test_result_files_answer_wins_over_failure(tmp_path: Path):
    """
    The rest of a batch, sent live, may answer what the batch could not: in whatever order the files are given.
    """
    (tmp_path / "batch").write_bytes(failure("a", retryable=True) + b"\n" + answer("b", "1") + b"\n{torn")
    (tmp_path / "live").write_bytes(answer("a") + b"\n" + failure("b", retryable=True) + b"\n")
    for order in (["batch", "live"], ["live", "batch"]):
        with ResultFiles([tmp_path / name for name in order]) as results:
            assert (2, 0) == (results.ok, results.failed)
            a, b = results.get("a"), results.get("b")
            assert a is not None
            assert a.ok
            assert b is not None
            assert b.ok
            assert [3] == [problem.line for problem in results.problems]


def test_answer_servers_lines_are_read(tmp_path: Path):
    """
    Lines as the server writes them: an answer, an HTTP failure, an expiry; and which may be sent again.
    """
    path = tmp_path / "out"
    path.write_bytes(
        b'{"id":"1","custom_id":"1","response":{"status_code":200,"request_id":"","body":{"id":"x"}},"error":null}\n'
        b'{"id":"2","custom_id":"2","response":{"status_code":400,"body":{"error":{"message":"m"}}},"error":null}\n'
        b'{"custom_id":"3","response":null,"error":{"code":"batch_expired","message":"m"},"new":1}\n'
        b'{"custom_id":"4","response":{"status_code":429,"body":null},"error":null}\n'
    )
    with ResultFiles([path]) as results:
        found = [results.get(str(i)) for i in (1, 2, 3, 4)]

    assert [(True, False), (False, False), (False, True), (False, True)] == [
        (each.ok, each.transient) for each in found if each
    ]
