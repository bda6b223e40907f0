"""
Errors that are openai's as well, for code that catches those.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import openai
import pytest

import kimi_async
from kimi_async import AsyncKimi, ConfigurationError, EngineOverloadedError, KimiError
from kimi_async.integrations.compat import raise_openai_errors
from kimi_async.testing import MemoryTransport, Reply
from kimi_async.transport.exchange import Request

QUESTION: list[Any] = [{"role": "user", "content": "Hello?"}]


@pytest.fixture
def both() -> Iterator[None]:
    raise_openai_errors()
    yield
    raise_openai_errors(on=False)


async def refused(status: int, body: bytes = b'{"error":{"message":"no","type":"t"}}') -> KimiError:
    async def handler(request: Request) -> Reply:
        return Reply(status, {"Msh-Request-Id": "r-1"}, body)

    async with AsyncKimi(api_key="sk-test", transport=MemoryTransport(handler), max_retries=0) as client:
        with pytest.raises(KimiError) as caught:
            await client.chat.completions.create(model="kimi-k3", messages=QUESTION)
    return caught.value


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (422, "UnprocessableEntityError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
    ],
)
@pytest.mark.usefixtures("both")
async def test_error_is_openai_s_too(status: int, name: str):
    """
    Caught by either name, with our text and attributes.
    """
    error: Any = await refused(status)

    assert isinstance(error, getattr(kimi_async, name))
    assert isinstance(error, getattr(openai, name))
    assert isinstance(error, openai.APIStatusError)
    assert (status, "r-1", "t") == (error.status_code, error.request_id, error.type)
    assert "no" in str(error)
    assert "no" == error.response.json()["error"]["message"]


@pytest.mark.usefixtures("both")
async def test_error_of_our_own_kind_is_openai_s_nearest():
    """
    What openai has no word for is what its parent is; what is not of the wire is an OpenAIError.
    """
    busy = await refused(429, b'{"error":{"message":"overloaded","type":"engine_overloaded_error"}}')

    assert isinstance(busy, EngineOverloadedError)
    assert isinstance(busy, openai.RateLimitError)
    with pytest.raises(openai.OpenAIError) as caught:
        AsyncKimi(api_key="")
    assert isinstance(caught.value, ConfigurationError)
    assert isinstance(caught.value, ValueError)


async def test_error_survives_pickling_with_and_without_the_switch():
    """
    What crosses a process border is ours; it is openai's again where that was asked for.
    """
    raise_openai_errors()
    try:
        error: Any = await refused(429)
        again, copied = pickle.loads(pickle.dumps(error)), copy.deepcopy(error)
        data = pickle.dumps(error)
    finally:
        raise_openai_errors(on=False)
    plain = pickle.loads(data)

    for each in (again, copied):
        assert isinstance(each, openai.RateLimitError)
        assert vars(error).keys() == vars(each).keys()
    assert type(plain) is kimi_async.RateLimitReachedError
    assert (str(error), error.args) == (str(plain), plain.args)


async def test_error_is_ours_alone_unless_asked():
    """
    Nobody who did not ask gets another library's classes.
    """
    assert not isinstance(await refused(429), openai.OpenAIError)
