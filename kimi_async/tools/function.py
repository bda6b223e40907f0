"""
Python functions as tools: `@tool` makes of a signature and a docstring what Kimi wants to know, and of its calls, calls.

    @tool
    async def weather(city: str, days: int = 1) -> Forecast:
        \"""
        The weather of a city.

        Args:
            city: Its name in English.
            days: How many days ahead, up to 5.
        \"""

    await client.chat.completions.run_tools(model="kimi-k3", messages=[...], tools=[weather])

Anything with a `name`, a `definition` and `async run(arguments, context)` is a tool: see `Tool`. A tool may stand in the
`tools` of a plain `create` too; it is sent as its definition.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

import msgspec

from ..schema import mfjs_tool
from .base import Tool, ToolArgumentsError, ToolContext, check_name, result_text
from .signature import Signature, is_async

__all__ = ["FunctionTool", "tool", "tool_from"]

P = ParamSpec("P")
R = TypeVar("R")


class FunctionTool(Tool, Generic[P, R]):
    """A function as a tool. Calling it calls the function; made by `tool`."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool = True,
        concurrent: bool = True,
        timeout: float | None = None,
        thread: bool = True,
    ) -> None:
        self.function: Callable[P, R] = function
        self.name: str = name or str(getattr(function, "__name__", type(function).__name__))
        self.concurrent: bool = concurrent
        self.timeout: float | None = timeout
        self.thread: bool = thread
        self._options: dict[str, Any] = {
            "name": self.name,
            "description": description,
            "strict": strict,
            "concurrent": concurrent,
            "timeout": timeout,
            "thread": thread,
        }
        self.__doc__ = inspect.getdoc(function)
        self.__name__: str = self.name
        self.__wrapped__: Callable[P, R] = function
        check_name(self.name)
        self._shape = Signature(function, self.name)
        text = self._shape.description if description is None else description
        self.definition: dict[str, Any] = _definition(self.name, text, self._shape.parameters, strict)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> "FunctionTool[..., R]":
        if instance is None:
            return self
        bound = cast("Callable[..., R]", getattr(self.function, "__get__")(instance, owner))  # noqa: B009  # a bare callable need not have it
        return FunctionTool(bound, **self._options)

    async def run(self, arguments: str, context: ToolContext) -> str:
        args, kwargs = self._shape.read(arguments, context)
        function = cast("Callable[..., object]", self.function)
        if self._shape.is_async or not self.thread:
            result = function(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
        else:
            from functools import partial

            from anyio import to_thread

            # A thread cannot be cancelled; a run that is does not wait for it.
            result = await to_thread.run_sync(partial(function, *args, **kwargs), abandon_on_cancel=True)
            if inspect.isawaitable(result):
                result = await result
        return result_text(result)


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = ...,
    description: str | None = ...,
    strict: bool = ...,
    concurrent: bool = ...,
    timeout: float | None = ...,
    thread: bool = ...,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool = True,
    concurrent: bool = True,
    timeout: float | None = None,
    thread: bool = True,
) -> FunctionTool[P, R] | Callable[[Callable[P, R]], FunctionTool[P, R]]:
    """
    Makes a tool of a function, async or not. With or without arguments: `@tool`, `@tool(timeout=5)`.

    Parameters become the schema by their annotations (everything `schema.json_schema` takes), optional where they have a
    default; what is said of them in the docstring (Google, NumPy or Sphinx style), or by `Annotated[..., Meta(description=)]`,
    becomes their description. The model's arguments are validated before the function is called. A parameter annotated
    `ToolContext` is filled in and not shown to the model.

    A result that is not a string is sent as JSON. An exception is sent as its text: raise `ToolError` to choose the words.

    :param name: the function's name by default; at most 64 of `[a-zA-Z0-9_-]`, not beginning with a digit, is safe everywhere.
    :param description: the docstring's text above its sections by default.
    :param strict: whether the server should hold the model to the schema; Kimi's default.
    :param concurrent: see `Tool`.
    :param timeout: seconds one call may take.
    :param thread: whether a function that is not async runs in a worker thread. Without, it blocks the event loop.

    :raises SchemaError: a parameter has a type or a name that cannot be expressed.
    :raises ConfigurationError: a name that the server refuses, or parameters that a model cannot fill.
    """

    def decorate(function: Callable[P, R]) -> FunctionTool[P, R]:
        if isinstance(function, FunctionTool):
            function = cast("FunctionTool[P, R]", function).function
        return FunctionTool(
            function,
            name=name,
            description=description,
            strict=strict,
            concurrent=concurrent,
            timeout=timeout,
            thread=thread,
        )

    return decorate if function is None else decorate(function)


def tool_from(
    definition: Mapping[str, object],
    handler: Callable[..., object],
    *,
    concurrent: bool = True,
    timeout: float | None = None,
    thread: bool = True,
) -> Tool:
    """
    A tool from a definition that exists already (an MCP server's, an OpenAPI document's) and a function that serves it.

    The schema is translated to Moonshot's flavour; the model's arguments are passed to `handler` by name, unvalidated.

    :param definition: see `schema.mfjs_tool`.
    """
    made = mfjs_tool({**definition, "type": "function"})
    return _Served(made, handler, concurrent=concurrent, timeout=timeout, thread=thread)


class _Served(Tool):
    def __init__(
        self,
        definition: dict[str, Any],
        handler: Callable[..., object],
        *,
        concurrent: bool,
        timeout: float | None,
        thread: bool,
    ) -> None:
        self.name: str = definition["function"]["name"]
        check_name(self.name)
        self.definition: dict[str, object] = definition
        self.concurrent: bool = concurrent
        self.timeout: float | None = timeout
        self._handler = handler
        self._thread = thread and not is_async(handler)

    async def run(self, arguments: str, context: ToolContext) -> str:
        try:
            given = msgspec.json.decode(arguments.strip() or "{}", type=dict[str, object])
        except (ValueError, RecursionError) as error:
            raise ToolArgumentsError(f"the arguments are not a JSON object: {error}") from error
        if self._thread:
            from functools import partial

            from anyio import to_thread

            result = await to_thread.run_sync(partial(self._handler, **given), abandon_on_cancel=True)
        else:
            result = self._handler(**given)
        if inspect.isawaitable(result):
            result = await result
        return result_text(result)


def _definition(
    name: str, description: str, parameters: Mapping[str, object], strict: bool
) -> dict[str, object]:
    function: dict[str, object] = {"name": name}
    if description:
        function["description"] = description
    function["parameters"] = parameters
    function["strict"] = strict
    return {"type": "function", "function": function}
