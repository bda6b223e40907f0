"""`kimi-async files …`, against one simulator on loopback."""

import json
from pathlib import Path

from kimi_async.testing.simulator.server import KimiSimulator
from support.command_line import Cli


def test_files_upload_list_get_rm(cli: Cli, simulator: KimiSimulator):
    """Files go up, are listed, read and deleted; a bad one is told and does not stop the others."""
    for name in ("a.txt", "b.txt"):
        Path(name).write_text(f"text of {name}")
    status, out, notes = cli("files", "upload", "*.txt", "missing.txt", "--json")
    uploaded = json.loads(out)
    ids = [each["file"]["id"] for each in uploaded[:2]]

    assert 1 == status
    assert "missing.txt" in notes
    assert "already there" in cli("files", "upload", "a.txt")[1]
    assert set(ids) <= {each["id"] for each in json.loads(cli("files", "list", "--json")[1])}
    assert "text of a.txt" in json.loads(cli("files", "get", ids[0])[1])["content"]
    assert 0 == cli("files", "get", ids[1], "-o", "got.txt")[0]
    assert "text of b.txt" in Path("got.txt").read_text()
    assert 1 == cli("files", "get", ids[0], "-o", "got.txt")[0]
    assert "text of b.txt" in Path("got.txt").read_text()
    assert 0 == cli("files", "get", ids[0], "-o", "got.txt", "--overwrite")[0]
    assert "text of a.txt" in Path("got.txt").read_text()
    assert 0 == cli("files", "rm", ids[0])[0]
    assert 0 == cli("files", "rm", "--all", "file-extract", "--yes")[0]
    assert not [file for file in simulator.storage.files.values() if file.purpose == "file-extract"]
    assert 2 == cli("files", "rm")[0]
