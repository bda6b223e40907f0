"""
Python types as MFJS, and replies back to values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from ..errors import KimiError
from .rules import Loss, RootError, SchemaError
from .translate import translate
from .unions import Choice, opened

__all__ = [
    "ROOT_KEY",
    "OutputError",
    "ResponseFormat",
    "decoder_for",
    "json_schema",
    "response_format_for",
]

T = TypeVar("T")

ROOT_KEY: Final = "value"
"""The property under which `json_schema` puts a type that is not an object: MFJS wants an object at the root."""


class OutputError(KimiError, ValueError):
    """
    An answer that is not a value of the type asked for.

    `text` is the answer, `reason` the validator's sentence with the path (`Expected `int`, got `str` - at `$.age``).
    `truncated` is true when the text is the beginning of a JSON document: then the answer was cut (see
    `finish_reason`), and to ask again with the same budget will not help. `completion` is the whole completion, where the
    answer came as one.
    """

    retryable = False

    def __init__(self, reason: str, text: str, *, truncated: bool = False) -> None:
        self.reason: str = reason
        self.text: str = text
        self.truncated: bool = truncated
        self.completion: Any = None
        what = "cut short" if truncated else "not of the type asked for"
        super().__init__(f"the answer is {what}: {reason}" if text.strip() else reason)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_output_error, (self.reason, self.text, self.truncated, self.completion))


def _output_error(reason: str, text: str, truncated: bool, completion: object) -> OutputError:
    error = OutputError(reason, text, truncated=truncated)
    error.completion = completion
    return error


def _is_model(tp: object) -> bool:
    """A pydantic model class, by its two methods: pydantic is not imported, and not needed."""
    return isinstance(tp, type) and hasattr(tp, "model_json_schema") and hasattr(tp, "model_validate_json")


def _is_adapter(tp: object) -> bool:
    """A `pydantic.TypeAdapter`, or what looks like one."""
    return not isinstance(tp, type) and hasattr(tp, "json_schema") and hasattr(tp, "validate_json")


def _model_inside(tp: Any) -> dict[str, object]:
    """msgspec asks here for the schema of a type it does not know. An `$id` keeps its `#/$defs` apart from ours."""
    if _is_model(tp):
        schema = cast("dict[str, object]", tp.model_json_schema())
        return {**schema, "$id": f"python:{tp.__module__}.{tp.__qualname__}"}
    if isinstance(tp, type) and issubclass(tp, Choice):
        return tp.schema(_raw_schema)
    raise NotImplementedError


def _enter_model(tp: type, value: object) -> object:
    if _is_model(tp):
        return cast("Any", tp).model_validate(value)
    if issubclass(tp, Choice):
        return tp.choose(value, _converted, _raw_schema)
    raise NotImplementedError(f"values of {tp!r} cannot be read from JSON")


def _converted(value: object, tp: object) -> object:
    return msgspec.convert(value, tp, dec_hook=_enter_model)


def _raw_schema(tp: Any) -> dict[str, object]:
    if _is_model(tp):
        return cast("dict[str, object]", tp.model_json_schema())
    if _is_adapter(tp):
        return cast("dict[str, object]", tp.json_schema())
    if isinstance(tp, type) and issubclass(tp, Choice):
        return tp.schema(_raw_schema)
    try:
        return msgspec.json.schema(tp, schema_hook=_model_inside)
    except (TypeError, NotImplementedError, NameError) as error:
        raise SchemaError("", f"{_type_name(tp)} has no JSON schema: {error}") from error


def _type_name(tp: Any) -> str:
    return str(getattr(tp, "__name__", None) or tp)


def _describe_type(tp: object, report: list[Loss] | None) -> tuple[dict[str, object], bool]:
    """The MFJS of a type, and whether it had to be put under `ROOT_KEY`."""
    raw = _raw_schema(tp)
    try:
        return translate(raw, report, describe=True, exact_root=True), False
    except RootError:
        pass
    inner = {k: v for k, v in raw.items() if k not in ("$defs", "definitions")}
    wrapped: dict[str, object] = {
        "type": "object",
        "properties": {ROOT_KEY: inner},
        "required": [ROOT_KEY],
        "additionalProperties": False,
    }
    for key in ("$defs", "definitions"):
        if key in raw:
            wrapped[key] = raw[key]
    return translate(wrapped, report, describe=True, exact_root=False), True


def json_schema(tp: object, *, report: list[Loss] | None = None) -> dict[str, Any]:
    """
    The MFJS of a Python type, ready for `parameters` or `response_format`.

    Takes what msgspec takes (Structs, dataclasses, TypedDicts, NamedTuples, attrs classes, enums, unions, containers,
    JSON scalars, `Annotated[..., msgspec.Meta(...)]`), pydantic models and `TypeAdapter`s, also inside containers. A
    type that is not an object, a list say, becomes an object with the one required property `ROOT_KEY`;
    `response_format_for` takes it out again. `format` and `pattern` go into the description.

    Raises:
        SchemaError: The type has no JSON schema (a class with a field that is an untagged union of two classes: give
            them `tag=True`), or none that MFJS can express.

    """
    return _describe_type(opened(tp), report)[0]


def decoder_for(tp: Any) -> Callable[[bytes | str], Any]:
    """A function that reads JSON text as a value of the type: pydantic's own validator, or msgspec's."""
    if _is_model(tp):
        return cast("Callable[[bytes | str], object]", tp.model_validate_json)
    if _is_adapter(tp):
        return cast("Callable[[bytes | str], object]", tp.validate_json)
    tp = opened(tp)
    try:
        decoder = msgspec.json.Decoder(tp, dec_hook=_enter_model)
    except TypeError as error:
        raise SchemaError("", f"{_type_name(tp)} cannot be read from JSON: {error}") from error
    return decoder.decode


class ResponseFormat(Generic[T]):
    """
    What to send as `response_format`, and how to read the answer to it. Made by `response_format_for`.

    `wire` is the object to send, `schema` the MFJS inside it, `losses` the constraints the server will not enforce
    (the decoder still does), `wrapped` tells that the value travels under `ROOT_KEY`.
    """

    __slots__ = ("_decode", "losses", "name", "schema", "type", "wire", "wrapped")

    def __init__(self, tp: type[T] | object, name: str | None = None, *, strict: bool = True) -> None:
        losses: list[Loss] = []
        self.type: Any = tp
        self.schema: dict[str, Any]
        self.wrapped: bool
        self.schema, self.wrapped = _describe_type(opened(tp), losses)
        self.losses: tuple[Loss, ...] = tuple(losses)
        self.name: str = _wire_name(name or _type_name(tp))
        self.wire: dict[str, Any] = {
            "type": "json_schema",
            "json_schema": {"name": self.name, "strict": strict, "schema": self.schema},
        }
        self._decode: Callable[[bytes | str], T] = decoder_for(tp)

    def __repr__(self) -> str:
        return f"<ResponseFormat {self.name} of {_type_name(self.type)}>"

    def decode(self, text: str) -> T:
        """
        The answer as a value.

        A Markdown fence round the JSON is taken off: servers that know only `json_object` let models write one.

        Raises:
            OutputError: It is not such a value. `truncated` tells an answer that was cut from one that is wrong.

        """
        body: str | bytes = _unfenced(text)
        if not body:
            raise OutputError("the answer is empty", text)
        try:
            if self.wrapped:
                body = _unwrapped(body)
            return self._decode(body)
        except RecursionError:
            raise OutputError("nested too deeply", text) from None
        except (ValueError, TypeError, NotImplementedError) as error:
            # ValueError covers msgspec's errors, pydantic's, and UnicodeEncodeError for a lone surrogate.
            raise OutputError(_reason(error), text, truncated=_cut_short(body)) from error


def response_format_for(
    tp: type[T] | object, name: str | None = None, strict: bool = True
) -> ResponseFormat[T]:
    """
    The `response_format` that asks for values of a type.

    `name` is sent with the schema (default: the type's name, made to fit `[A-Za-z0-9_-]{1,64}`). `strict=False` asks
    for JSON without the guarantee that it fits the schema, as some gateways only offer.

    Raises:
        SchemaError: See `json_schema`.

    """
    return ResponseFormat(tp, name, strict=strict)


def _wire_name(name: str) -> str:
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name).strip("_")[:64]
    return clean if clean and not clean[0].isdigit() else f"T_{clean}"[:64]


def _unfenced(text: str) -> str:
    body = text.strip()
    if not body.startswith("```"):
        return body
    body = body.partition("\n")[2] if "\n" in body else body.removeprefix("```json").removeprefix("```")
    return body.rstrip().removesuffix("```").rstrip()


def _unwrapped(body: str | bytes) -> bytes:
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    if ROOT_KEY not in fields:
        raise msgspec.ValidationError(f"Object missing required field `{ROOT_KEY}`")
    return bytes(fields[ROOT_KEY])


def _cut_short(body: str | bytes) -> bool:
    """Whether a text that is no JSON would be the beginning of one: everything before its end is in order."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    if not text:
        return True
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        # The standard decoder blames the character where it stopped; for an unterminated string it blames its start.
        return error.pos >= len(text.rstrip()) or error.msg.startswith(("Unterminated string", "Invalid \\"))
    except RecursionError:
        return False
    return False


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
