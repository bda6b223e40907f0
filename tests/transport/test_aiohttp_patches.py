"""
What is mended in aiohttp is taken where it fits, and left where it does not.
"""

from typing import Any

import aiohttp
import pytest
from aiohttp.http import StreamWriter

from kimi_async.transport import aiohttp_patches
from kimi_async.transport.aiohttp_patches import OneWriteRequest, request_class


def test_one_write_fits_installed_aiohttp() -> None:
    """
    With the aiohttp that is installed a small request goes out in one write.
    """
    assert OneWriteRequest is request_class()


def test_one_write_left_out_where_reply_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A release whose replies are made of other things keeps its own way of sending.
    """
    monkeypatch.setattr(aiohttp_patches, "_PARAMETERS", ["self", "something_else"])

    assert aiohttp.ClientRequest is request_class()


def test_one_write_left_out_where_writer_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A release whose writer lacks a method that we call keeps its own way of sending.
    """
    monkeypatch.delattr(StreamWriter, "set_eof")

    assert aiohttp.ClientRequest is request_class()


def test_connection_closes_without_private_body() -> None:
    """
    A release whose connection names its body otherwise is closed all the same.
    """

    class Other(aiohttp_patches.Connection):
        def __getattribute__(self, name: str) -> Any:
            if name == "_payload":
                raise AttributeError(name)
            return super().__getattribute__(name)

    other = object.__new__(Other)

    other._tell_reader()  # pyright: ignore[reportPrivateUsage]
