"""
What every object on the wire has in common.

A reply is forgiving: unknown fields pass, late fields are optional. A field that the server left out reads as None, but is not
the same as null: `model_dump(exclude_unset=True)`, encoding, and sending an object back keep the three apart — absent, null and
`""`. (A reply whose empty `reasoning_content` does not come back is a 400 on the next turn.)
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, Literal, Self, TypeVar, cast

import msgspec
from msgspec import UNSET

__all__ = [
    "NOT_GIVEN",
    "BaseModel",
    "NotGiven",
    "Omit",
    "Reply",
    "absent",
    "is_given",
    "not_given",
    "omit",
    "wire",
]


class _Sentinel(type):
    """
    Takes openai's own `NOT_GIVEN`, `not_given` and `omit` for ours, as frameworks pass them on, without importing openai.
    """

    def __instancecheck__(cls, value: object) -> bool:
        kind = type(value)
        if kind is cls:  # pyright: ignore[reportUnnecessaryComparison]
            return True
        return kind.__name__ == cls.__name__ and kind.__module__.partition(".")[0] == "openai"


class NotGiven(metaclass=_Sentinel):
    """
    The default of a parameter that was not passed; the same as leaving it out. `NOT_GIVEN` and `not_given` are its instances.
    """

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"


class Omit(metaclass=_Sentinel):
    """As a parameter: leave it out. As a header value: remove the header that would be sent by default."""

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "omit"


NOT_GIVEN: Final = NotGiven()
not_given: Final = NOT_GIVEN
omit: Final = Omit()


_PLAIN = frozenset({str, int, float, bool, list, dict, tuple, type(None)})


def is_given(value: object) -> bool:
    """Whether this was passed at all."""
    if type(value) in _PLAIN:  # 0.4 µs less than to ask whose sentinel it is
        return True
    return not isinstance(value, (NotGiven, Omit)) and value is not UNSET


def absent() -> Any:
    """The default of a field that a server may leave out. The attribute then reads as None (see `wire`)."""
    return UNSET


M = TypeVar("M", bound="BaseModel")


def wire(cls: type[M]) -> type[M]:
    """
    Makes the fields of a struct that default to `absent()` read as None where the server left them out.

    The slot keeps UNSET, so that encoding still omits the field. Costs 10 ns an access over a bare slot.
    """
    for name, default in zip(
        reversed(cls.__struct_fields__), reversed(cls.__struct_defaults__), strict=False
    ):
        if default is UNSET and name in cls.__dict__:
            slot = cls.__dict__[name]
            if not isinstance(slot, property):
                setattr(cls, name, property(_reader(slot.__get__), slot.__set__))
    return cls


def _reader(get: Callable[[object], object]) -> Callable[[object], object]:
    def read(self: Any) -> Any:
        value = get(self)
        return None if value is UNSET else value

    return read


def held(model: object) -> dict[str, Any]:
    """
    What a `Reply` keeps beside its fields. (`dict=True` gives a struct a real dict, which type checkers take for a class's.)
    """
    return model.__dict__


class BaseModel(msgspec.Struct, kw_only=True):
    """An object of the wire, with the methods that users of pydantic models look for."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Names and values, so that `dict(model)` is one level of `model_dump()`, as with pydantic."""
        for name in self.__struct_fields__:
            yield name, getattr(self, name)
        yield from (getattr(self, "model_extra", None) or {}).items()

    def model_dump(
        self,
        *,
        mode: str = "python",
        exclude_unset: bool = False,
        exclude_none: bool = False,
        exclude_defaults: bool = False,
        by_alias: bool | None = None,
        **_: object,
    ) -> dict[str, Any]:
        """
        The object as plain dicts and lists, unknown fields included.

        `exclude_unset` leaves out what the server left out; `exclude_none` also leaves out null. Other arguments of pydantic
        are accepted and have no effect: values are JSON already, and field names are the wire's.
        """
        return cast("dict[str, object]", _dump(self, exclude_unset or exclude_defaults, exclude_none))

    def model_dump_json(
        self,
        *,
        indent: int | None = None,
        exclude_unset: bool = False,
        exclude_none: bool = False,
        **_: object,
    ) -> str:
        data = msgspec.json.encode(self.model_dump(exclude_unset=exclude_unset, exclude_none=exclude_none))
        return (msgspec.json.format(data, indent=indent) if indent else data).decode()

    def to_dict(
        self,
        *,
        mode: str = "python",
        exclude_unset: bool = True,
        exclude_none: bool = False,
        **_: object,
    ) -> dict[str, Any]:
        """What the server sent, as plain dicts and lists."""
        return self.model_dump(exclude_unset=exclude_unset, exclude_none=exclude_none)

    def to_json(
        self, *, indent: int | None = 2, exclude_unset: bool = True, exclude_none: bool = False, **_: object
    ) -> str:
        return self.model_dump_json(indent=indent, exclude_unset=exclude_unset, exclude_none=exclude_none)

    def model_copy(self, *, update: Mapping[str, object] | None = None, deep: bool = False) -> Self:
        """A copy, shallow unless `deep`, with the fields in `update` set."""
        if deep:
            other = _restore(
                type(self), {k: _clone(v) for k, v in _fields(self)}, dict(self.model_extra or {})
            )
        else:
            other = _restore(type(self), dict(_fields(self)), dict(self.model_extra or {}))
        for name, value in (update or {}).items():
            setattr(other, name, value)
        return other

    @property
    def model_fields_set(self) -> set[str]:
        """Names of the fields that were sent or set. On chunks, those that differ from their default."""
        return {name for name, _ in _sent(self)}

    @property
    def model_extra(self) -> dict[str, Any] | None:
        """Unknown fields by name; None where the type does not keep them (chunks do not, for speed)."""
        return None

    @classmethod
    def model_validate(cls, obj: object, **_: object) -> Self:
        """:raises msgspec.ValidationError: with the path of what does not fit."""
        if isinstance(obj, cls):
            return obj
        self = msgspec.convert(obj, cls)
        if isinstance(self, Reply):
            bind(self, obj)
        return self

    @classmethod
    def model_validate_json(cls, data: str | bytes, **_: object) -> Self:
        raw = data.encode() if isinstance(data, str) else bytes(data)
        self = msgspec.json.decode(raw, type=cls)
        if isinstance(self, Reply):
            bind(self, raw)
        return self

    @classmethod
    def construct(cls, _fields_set: set[str] | None = None, **values: object) -> Self:
        """An object with these values, unchecked."""
        known = {name: value for name, value in values.items() if name in cls.__struct_fields__}
        return _restore(cls, known, {name: value for name, value in values.items() if name not in known})

    model_construct: ClassVar[Any] = construct

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        """
        Lets pydantic, and FastAPI as a `-> ChatCompletion`, take such objects: as they are, or made of a dict; written as they
        came. Plain dicts are what pydantic-core's own functions would make here.
        """
        return {
            "type": "function-plain",
            "function": {"type": "no-info", "function": cls.model_validate},
            "serialization": {"type": "function-plain", "function": _written},
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, Any]:
        described = {"description": inspect.cleandoc(cls.__doc__)} if cls.__doc__ else {}
        return {"type": "object", "title": cls.__name__, **described}

    def __copy__(self) -> Self:
        # msgspec's own copies the fields, and forgets the unknown ones that are kept beside them.
        return self.model_copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), dict(_fields(self)), dict(self.model_extra or {}))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in _fields(self))
        extra = self.model_extra
        if extra:
            inside += "".join(f", {name}={value!r}" for name, value in extra.items())
        return f"{type(self).__name__}({inside})"


class Reply(BaseModel, dict=True):
    """
    A part of a reply that is not a stream. Unknown fields stay readable, as attributes and in `model_extra`.

    They are looked up in the raw JSON when first asked for, so that a reply without any costs nothing.
    """

    __children__: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that hold such objects, or lists of them."""

    @property
    def model_extra(self) -> dict[str, Any] | None:
        beside = held(self)
        extra = beside.get("_extra")
        if extra is None:
            known = type(self).__struct_fields__
            data = _origin(*beside.get("_source", (None, ())))
            if "_source" in beside:
                beside["_sent"] = frozenset(data)
            extra = {name: value for name, value in data.items() if name not in known}
            beside["_extra"] = extra
            beside.pop("_source", None)
        return cast("dict[str, object]", extra)

    @property
    def _request_id(self) -> str | None:
        """The request id of the reply's headers (on the outermost object alone)."""
        return cast("str | None", held(self).get("_rid"))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            extra = self.model_extra
            if extra and name in extra:
                return extra[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def bind(reply: Reply, source: object, path: tuple[str | int, ...] = ()) -> None:
    """Tells an object, and those inside it, where what they were made from is: in `source` (JSON, or decoded), down `path`."""
    held(reply)["_source"] = (source, path)
    for name in type(reply).__children__:
        child = getattr(reply, name)
        if child is None:
            continue
        if isinstance(child, Reply):
            bind(child, source, (*path, name))
        elif isinstance(child, list):
            for i, item in enumerate(cast("list[object]", child)):
                if isinstance(item, Reply):
                    bind(item, source, (*path, name, i))


def _origin(source: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
    """The decoded object at `path`; an empty one if there is none."""
    try:
        value = msgspec.json.decode(source) if isinstance(source, bytes) else source
        for step in path:
            value = value[step]
    except (msgspec.MsgspecError, UnicodeError, RecursionError, LookupError, TypeError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _fields(model: BaseModel) -> list[tuple[str, object]]:
    """Name and value of every field that was sent or set; a field at its default counts as neither."""
    cls = type(model)
    found: list[tuple[str, object]] = []
    defaults = cls.__struct_defaults__
    offset = len(cls.__struct_fields__) - len(defaults)
    values = msgspec.structs.astuple(model)
    for i, (name, value) in enumerate(zip(cls.__struct_fields__, values, strict=True)):
        if value is UNSET:
            continue
        if i >= offset and value is None and defaults[i - offset] is None:
            continue
        found.append((name, value))
    return found


def _written(model: BaseModel) -> dict[str, object]:
    return model.model_dump(exclude_unset=True)


def _sent(model: BaseModel) -> list[tuple[str, object]]:
    """Name and value of every field that was sent, or set since: of a reply's, those that its JSON has, and those that differ."""
    pairs = _fields(model)
    if not isinstance(model, Reply):
        return pairs
    if "_source" in held(model):
        _ = model.model_extra  # takes note of what was sent
    sent = held(model).get("_sent")
    if sent is None:
        return pairs
    cls = type(model)
    defaults = dict(zip(reversed(cls.__struct_fields__), reversed(cls.__struct_defaults__), strict=False))
    return [(name, value) for name, value in pairs if name in sent or value != _default(defaults.get(name))]


def _default(default: object) -> object:
    factory = getattr(default, "factory", None)
    return default if factory is None else factory()


def _restore(cls: type[M], values: Mapping[str, object], extra: Mapping[str, object]) -> M:
    model = cls(**values)
    if isinstance(model, Reply):
        held(model)["_extra"] = extra
    return model


def _clone(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_copy(deep=True)
    if isinstance(value, list):
        return [_clone(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: _clone(item) for key, item in cast("dict[str, object]", value).items()}
    return value


def _dump(value: object, exclude_unset: bool, exclude_none: bool) -> object:
    if isinstance(value, BaseModel):
        if exclude_unset:
            pairs = _sent(value)
        else:
            pairs = [(name, getattr(value, name)) for name in type(value).__struct_fields__]
        dumped = {
            name: _dump(item, exclude_unset, exclude_none)
            for name, item in pairs
            if not (exclude_none and item is None)
        }
        extra = value.model_extra
        if extra:
            dumped.update({k: v for k, v in extra.items() if not (exclude_none and v is None)})
        return dumped
    if isinstance(value, list):
        return [_dump(item, exclude_unset, exclude_none) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {k: _dump(v, exclude_unset, exclude_none) for k, v in cast("dict[str, object]", value).items()}
    return None if value is UNSET else value
