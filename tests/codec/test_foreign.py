"""
Which events are worth a second look.
"""

import pytest

from kimi_async.codec.foreign import is_suspect


@pytest.mark.parametrize(
    "event",
    [
        b'{"error":"no"}',
        b'"error"',
        b'{"choices":[],"usageMetadata":{"promptTokenCount":5}}',
        b'{"choices":[{"message":{}}]}',
        memoryview(b'{"object": "error"}'),
    ],
)
def test_event_with_a_word_of_others_is_suspect(event: bytes | memoryview) -> None:
    """
    A key or a value that other shapes have, wherever it stands.
    """
    assert is_suspect(event)


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"error",
        b'{"content":"error:"}',
        b'{"content":"an \\"error\\" is told of"}',
        b'{"errors_seen":1,"finish_reason":"stop"}',
    ],
)
def test_event_without_one_is_not(event: bytes) -> None:
    """
    Nor where the word is part of a text.
    """
    assert not is_suspect(event)
