"""
`client.formulas`: Kimi's official tools, run on Kimi's side.

    search = await client.formulas.tools("moonshot/web-search:latest")
    run = await client.chat.completions.run_tools(model="kimi-k3", messages=[...], tools=[*search, mine])
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Unpack, cast

from .. import codec
from ..config import hide
from ..errors import ConfigurationError
from ..tools import Tool, ToolContext
from ..types.formulas import Fiber, FormulaTools
from ._base import Resource
from .caller import CallOptions

__all__ = ["AsyncFormulas", "FormulaTool"]

# `owner/name:tag`; goes into the path as it is, slash and colon included.
_URI = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)?")


class FormulaTool(Tool):
    """A function of a formula, ready for `tools`: the model's call is run by Kimi, and its result handed on unread."""

    def __init__(
        self,
        uri: str,
        definition: Mapping[str, object],
        call: Callable[[str, str, str], Awaitable[Fiber]],
        *,
        timeout: float | None = None,
    ) -> None:
        self.uri: str = uri
        self.definition: dict[str, Any] = dict(definition)
        self.name: str = str(cast("Mapping[str, object]", definition.get("function") or {}).get("name", ""))
        self.timeout: float | None = timeout
        self._call = call

    async def run(self, arguments: str, context: ToolContext) -> str:
        return (await self._call(self.uri, self.name, arguments)).content


class AsyncFormulas(Resource["RawFormulas", "StreamingFormulas"]):
    async def tools(
        self,
        uri: str,
        *,
        call_timeout: float | None = None,
        **call: Unpack[CallOptions],
    ) -> list[FormulaTool]:
        """
        The tools of a formula, such as `moonshot/web-search:latest`. Each has its `.definition` for the wire.

        :param call_timeout: seconds one call of them may take.
        """
        hide(call)
        found = await self._client.request(
            "GET",
            f"formulas/{_checked(uri)}/tools",
            FormulaTools,
            **call,
        )
        return [FormulaTool(uri, definition, self._run, timeout=call_timeout) for definition in found.tools]

    async def call(
        self,
        uri: str,
        name: str,
        arguments: str | Mapping[str, object],
        **call: Unpack[CallOptions],
    ) -> Fiber:
        """
        Runs one function of a formula; `.content` is what the model is told.

        :param arguments: the model's text as it came, or a mapping.
        """
        hide(call)
        text = arguments if isinstance(arguments, str) else codec.encode(arguments).decode()
        return await self._client.request(
            "POST",
            f"formulas/{_checked(uri)}/fibers",
            Fiber,
            body={"name": name, "arguments": text},
            **call,
        )

    async def _run(self, uri: str, name: str, arguments: str) -> Fiber:
        return await self.call(uri, name, arguments)


def _checked(uri: str) -> str:
    if not isinstance(uri, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"uri must be a string, not {type(uri).__name__}")
    if not _URI.fullmatch(uri) or ".." in uri:
        raise ConfigurationError(
            f"{uri!r} is not the URI of a formula; they look like moonshot/web-search:latest"
        )
    return uri


if TYPE_CHECKING:
    from .raw_replies import WithRawResponse, WithStreamingResponse, raw, streaming

    class RawFormulas(WithRawResponse):
        tools: Final = raw(AsyncFormulas.tools)
        call: Final = raw(AsyncFormulas.call)

    class StreamingFormulas(WithStreamingResponse):
        tools: Final = streaming(AsyncFormulas.tools)
        call: Final = streaming(AsyncFormulas.call)
