"""
A signature as a schema, and the arguments that a model wrote as those of a call.
"""

import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any, cast

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import ConfigurationError
from ..schema import SchemaError, decoder_for, json_schema
from .base import ToolArgumentsError, ToolContext
from .docstrings import parse_docstring

__all__ = ["Signature", "is_async"]


def is_async(function: Callable[..., object]) -> bool:
    inner = function
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func  # pyright: ignore[reportFunctionMemberAccess, reportUnknownMemberType]
    call: object = getattr(inner, "__call__", None)  # noqa: B004  # an object's own method, not whether it is callable
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)


class Signature:
    """What a signature asks for: its schema, and how arguments become a call."""

    def __init__(self, function: Callable[..., object], name: str) -> None:
        self.is_async: bool = is_async(function)
        description, told = parse_docstring(inspect.getdoc(function))
        self.description: str = description
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"the tool {name!r} has no readable signature: {error}") from error
        hints = _hints(function, name)
        self._context: str | None = None
        self._positional: list[str] = []
        fields: list[tuple[str, object, object] | tuple[str, object]] = []
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
            self.parameters: dict[str, Any] = json_schema(self._struct)
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
        args: list[object] = []
        for name in self._positional:
            if name not in kwargs:
                break
            args.append(kwargs.pop(name))
        return args, kwargs


def _hints(function: Callable[..., object], name: str) -> dict[str, object]:
    inner: Any = function
    while hasattr(inner, "func"):
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = type(inner).__call__
    plain = inspect.unwrap(getattr(inner, "__func__", inner))
    local: dict[str, object] = {}
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
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(f"{__package__}."):
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
) -> tuple[str, object, object] | tuple[str, object]:
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
    optional: object = typing.Union[annotation, UnsetType]  # noqa: UP007  # not every annotation knows |
    return (parameter.name, Annotated[optional, msgspec.Meta(**meta)] if meta else optional, UNSET)


def _described(annotation: object) -> bool:
    return any(getattr(each, "description", None) for each in getattr(annotation, "__metadata__", ()))
