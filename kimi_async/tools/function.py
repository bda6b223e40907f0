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
import re
import typing
from collections.abc import Callable, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, ParamSpec, TypeVar, cast, overload

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import ConfigurationError, KimiError
from ..schema import SchemaError, decoder_for, json_schema, mfjs_tool

__all__ = [
    "EchoTool",
    "FunctionTool",
    "Tool",
    "ToolArgumentsError",
    "ToolContext",
    "ToolError",
    "parse_docstring",
    "result_text",
    "tool",
    "tool_from",
    "web_search",
]

P = ParamSpec("P")
R = TypeVar("R")

# platform.kimi.ai/docs/api/chat, 2026-08. A name that begins with a digit is a 400 (MoonshotAI/kimi-cli issue 2531).
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,255}")


class ToolError(KimiError):
    """
    Raise it in a tool to answer the model with this text in place of a result.
    """


class ToolArgumentsError(ToolError):
    """
    The model's arguments do not fit the tool; the reason names the field, and is what the model is told.
    """


@dataclass(slots=True)
class ToolContext:
    """
    What a tool can know of the call it serves. A parameter of this type is filled in, and not shown to the model.

    :ivar call_id: the model's id of the call, `get_weather:0`. Not unique between turns.
    :ivar name: the name the model called.
    :ivar turn: the turn that asked for it, counted from 1.
    :ivar messages: the conversation up to and with the message that asked. To look at, not to change.
    """

    call_id: str = ""
    name: str = ""
    turn: int = 0
    messages: Sequence[Any] = ()
    added: list[Any] = field(default_factory=list[Any])
    stopped: bool = False

    def add_tools(self, *tools: Any) -> None:
        """
        Offers more tools from the next turn on, by a system message as K3 takes it (platform.kimi.ai, "Dynamic tools").
        """
        self.added.extend(tools)

    def stop(self) -> None:
        """
        Ends the run once the calls of this turn are answered; the model is not asked again.
        """
        self.stopped = True


class Tool:
    """
    What the model may call.

    :ivar name: as the model calls it.
    :ivar definition: the entry for `tools` on the wire.
    :ivar concurrent: False to run the calls of a turn one after another, in the model's order, when this tool is among them.
    :ivar timeout: seconds one call may take; None for no limit of its own.
    """

    name: str
    definition: dict[str, Any]
    concurrent: bool = True
    timeout: float | None = None

    async def run(self, arguments: str, context: ToolContext) -> str:
        """
        Serves one call. `arguments` is the model's text, unchecked; the result is the content of the tool message.

        :raises ToolError: to tell the model what went wrong.
        """
        raise NotImplementedError

    def model_dump(self, **_: object) -> dict[str, Any]:
        """
        The definition: how a tool is written into a request.
        """
        return self.definition

    def __getitem__(self, key: str) -> Any:
        """
        `tool["function"]["name"]`: a tool can be looked into like its definition.
        """
        return self.definition[key]

    def keys(self) -> KeysView[str]:
        return self.definition.keys()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class EchoTool(Tool):
    """
    A tool that the server runs: its arguments go back as they came (platform.kimi.ai, "Web search").
    """

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.definition: dict[str, Any] = {"type": "builtin_function", "function": {"name": name}}

    async def run(self, arguments: str, context: ToolContext) -> str:
        return arguments


def web_search() -> EchoTool:
    """
    Kimi's built-in `$web_search`. On K2.6 thinking must be off; on K3 use `client.formulas.tools("moonshot/web-search:latest")`.
    """
    return EchoTool("$web_search")


class FunctionTool(Tool, Generic[P, R]):
    """
    A function as a tool. Calling it calls the function; made by `tool`.
    """

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
        _check_name(self.name)
        self._shape = _Shape(function, self.name)
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
        function = cast("Callable[..., Any]", self.function)
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
    definition: Mapping[str, Any],
    handler: Callable[..., Any],
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
        handler: Callable[..., Any],
        *,
        concurrent: bool,
        timeout: float | None,
        thread: bool,
    ) -> None:
        self.name: str = definition["function"]["name"]
        _check_name(self.name)
        self.definition: dict[str, Any] = definition
        self.concurrent: bool = concurrent
        self.timeout: float | None = timeout
        self._handler = handler
        self._thread = thread and not _is_async(handler)

    async def run(self, arguments: str, context: ToolContext) -> str:
        try:
            given = msgspec.json.decode(arguments.strip() or "{}", type=dict[str, Any])
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


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a tool: Kimi takes letters, digits, _ and -, beginning with a letter or _, "
            "at most 256; pass name="
        )


def _definition(name: str, description: str, parameters: dict[str, Any], strict: bool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name}
    if description:
        function["description"] = description
    function["parameters"] = parameters
    function["strict"] = strict
    return {"type": "function", "function": function}


def _is_async(function: Callable[..., Any]) -> bool:
    inner = function
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func  # pyright: ignore[reportFunctionMemberAccess, reportUnknownMemberType]
    call: Any = getattr(inner, "__call__", None)  # noqa: B004  # an object's own method, not whether it is callable
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)


class _Shape:
    """
    What a signature asks for: its schema, and how arguments become a call.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.is_async = _is_async(function)
        self.description, told = parse_docstring(inspect.getdoc(function))
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"the tool {name!r} has no readable signature: {error}") from error
        hints = _hints(function, name)
        self._context: str | None = None
        self._positional: list[str] = []
        fields: list[tuple[str, Any, Any] | tuple[str, Any]] = []
        for parameter in signature.parameters.values():
            annotation = hints.get(parameter.name, Any)
            if annotation is ToolContext:
                self._context = parameter.name
                if parameter.kind is parameter.POSITIONAL_ONLY:
                    self._positional.append(parameter.name)
                continue
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ConfigurationError(
                    f"the tool {name!r} takes {parameter}: a model can only fill named parameters"
                )
            if parameter.kind is parameter.POSITIONAL_ONLY:
                self._positional.append(parameter.name)
            fields.append(_field(parameter, annotation, told.get(parameter.name)))
        try:
            self._struct = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
            self.parameters = json_schema(self._struct)
            self._decode = decoder_for(self._struct)
        except (SchemaError, TypeError, ValueError) as error:
            reason = error.reason if isinstance(error, SchemaError) else str(error)
            pointer = error.pointer if isinstance(error, SchemaError) else ""
            raise SchemaError(pointer, f"the parameters of the tool {name!r}: {reason}") from error
        self.parameters.pop("title", None)

    def read(self, arguments: str, context: ToolContext) -> tuple[list[Any], dict[str, Any]]:
        """
        The positional and named arguments of a call.

        :raises ToolArgumentsError: they do not fit.
        """
        try:
            given = self._decode(arguments.strip() or "{}")  # models write "" for a call without arguments
        except RecursionError:
            raise ToolArgumentsError("the arguments are nested too deeply") from None
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ToolArgumentsError(f"the arguments do not fit: {error}") from error
        names = cast("tuple[str, ...]", given.__struct_fields__)
        kwargs = {name: value for name in names if (value := getattr(given, name)) is not UNSET}
        if self._context is not None:
            kwargs[self._context] = context
        args: list[Any] = []
        for name in self._positional:
            if name not in kwargs:
                break
            args.append(kwargs.pop(name))
        return args, kwargs


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    inner: Any = function
    while hasattr(inner, "func"):
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = type(inner).__call__
    plain = inspect.unwrap(getattr(inner, "__func__", inner))
    local: dict[str, Any] = {}
    try:
        local = dict(inspect.getclosurevars(plain).nonlocals)
    except (TypeError, ValueError):
        pass
    try:
        return typing.get_type_hints(plain, localns=local or None, include_extras=True)
    except NameError:
        pass
    # Annotations that are text, of types defined in the function that is decorating: its frame still has them.
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    around = {} if frame is None else frame.f_locals
    try:
        return typing.get_type_hints(plain, localns={**around, **local}, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"an annotation of the tool {name!r} cannot be resolved: {error}; a type that is imported under TYPE_CHECKING "
            "alone is not there when the schema is made"
        ) from error


def _field(
    parameter: inspect.Parameter, annotation: Any, told: str | None
) -> tuple[str, Any, Any] | tuple[str, Any]:
    meta: dict[str, Any] = {}
    if told and not _described(annotation):
        meta["description"] = told
    if parameter.default is parameter.empty:
        return (parameter.name, Annotated[annotation, msgspec.Meta(**meta)] if meta else annotation)
    if parameter.default is None and annotation is not Any:
        annotation = annotation | None if not isinstance(annotation, str) else annotation
    else:
        try:
            meta["extra_json_schema"] = {"default": msgspec.to_builtins(parameter.default)}
        except (TypeError, ValueError):
            pass  # a default that is no JSON is Python's affair alone
    # Absent stays absent, so that the function's own default applies, whatever it is.
    optional: Any = typing.Union[annotation, UnsetType]  # noqa: UP007  # not every annotation knows |
    return (parameter.name, Annotated[optional, msgspec.Meta(**meta)] if meta else optional, UNSET)


def _described(annotation: Any) -> bool:
    return any(getattr(each, "description", None) for each in getattr(annotation, "__metadata__", ()))


def result_text(value: Any) -> str:
    """
    A result as the content of a tool message: text as it is, anything else as JSON, and what JSON cannot hold as `str()`.
    """
    if isinstance(value, str):
        return value
    if hasattr(value, "model_dump_json"):
        return str(value.model_dump_json())
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    return str(value)


# --- docstrings -------------------------------------------------------------------------------------------------------

_PARAMETERS = re.compile(
    r"(args|arguments|parameters|params|keyword args|keyword arguments|other parameters):?", re.I
)
_SECTION = re.compile(
    r"(returns?|yields?|raises?|examples?|notes?|see also|warnings?|warns|attributes|references|todo):?", re.I
)
_SPHINX = re.compile(r":(?:param|parameter|arg|argument|key|keyword)\s+(?:[^:]*?\s)?\*{0,2}(\w+)\s*:\s*(.*)")
_GOOGLE = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")


def parse_docstring(doc: str | None) -> tuple[str, dict[str, str]]:
    """
    The text above the sections of a docstring, and what it says of each parameter, in Google, NumPy or Sphinx style.

    Lines are joined by blanks. A docstring in no known style is text as a whole.
    """
    lines = inspect.cleandoc(doc).splitlines() if doc else []
    text: list[str] = []
    told: dict[str, list[str]] = {}
    current: str | None = None
    section = ""  # "", "google", "numpy", "sphinx", "other"
    margin = -1  # of the entries of a Google section; its first one says
    at = 0
    while at < len(lines):
        line = lines[at]
        bare = line.strip()
        indent = len(line) - len(line.lstrip())
        underlined = at + 1 < len(lines) and len(bare) > 2 and re.fullmatch(r"\s*-{3,}\s*", lines[at + 1])
        if underlined:
            section = "numpy" if _PARAMETERS.fullmatch(bare) else "other"
            current = None
            at += 2
            continue
        if indent == 0 and bare.endswith(":") and (_PARAMETERS.fullmatch(bare) or _SECTION.fullmatch(bare)):
            section = "google" if _PARAMETERS.fullmatch(bare) else "other"
            current, margin = None, -1
        elif found := _SPHINX.fullmatch(bare):
            section, current = "sphinx", str(found[1])
            told[current] = [str(found[2])]
        elif bare.startswith(":") and re.match(r":\w+[^:]*:", bare):  # :returns:, :raises X:
            section, current = "other", None
        elif section == "google":
            if indent == 0 and bare:
                section, current = "other", None
            elif bare:
                if margin < 0:
                    margin = indent
                entry = _GOOGLE.fullmatch(bare) if indent <= margin else None
                if entry:
                    current = str(entry[1])
                    told[current] = [str(entry[2])]
                elif current is not None:
                    told[current].append(bare)
        elif section == "numpy":
            if indent == 0 and bare:
                names = [n.strip().lstrip("*") for n in bare.partition(":")[0].split(",")]
                current = names[0]
                for each in names:
                    told[each] = told[current] if current in told and each != current else []
            elif bare and current is not None:
                told[current].append(bare)
        elif section == "sphinx":
            if bare and current is not None:
                told[current].append(bare)
            elif not bare:
                current = None
        elif section == "":
            text.append(line)
        at += 1
    described = {
        name: joined for name, said in told.items() if (joined := " ".join(s for s in said if s).strip())
    }
    return "\n".join(text).strip(), described
