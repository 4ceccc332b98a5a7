"""The base of all messages, and the one conversion between messages and core values.

``Message.of(value)`` takes a core value (field by field, by name); ``to_core(message, Class)`` gives it back. A message names
its counterpart with ``class X(Message, core=Class)``.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from shadow.core.errors import Broken, Rejected

LARGE_BODY_BYTES = 32 * 1024 * 1024
"""For requests that carry many paths, arguments or whole texts."""

T = TypeVar("T")
M = TypeVar("M", bound="Message")

_getters: dict[type, tuple[str, ...]] = {}


class Message(BaseModel):
    """A frozen value on the wire; what a newer peer adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True, allow_inf_nan=False, defer_build=True)

    core: ClassVar[type | None] = None
    body_limit_bytes: ClassVar[int] = 1024 * 1024
    """How large it may be as the body of a request."""

    def __init_subclass__(cls, *, core: type | None = None, body_limit_bytes: int | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.core = core
        if body_limit_bytes is not None:
            cls.body_limit_bytes = body_limit_bytes

    @classmethod
    def of(cls, value: object) -> Self:
        return cls.model_validate(value)

    def json_bytes(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self)


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return _convert(value)
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in cast("tuple[object, ...]", value))
    return value


def _convert(message: Message) -> object:
    kind = message.core
    if kind is None:
        raise TypeError(f"{type(message).__name__} has no counterpart in core")
    names = _getters.get(kind)
    if names is None:
        names = _getters[kind] = tuple(field.name for field in fields(kind))
    values = message.__dict__
    build = cast("Callable[..., object]", kind)
    return build(**{name: _plain(values[name]) for name in names})


def to_core(message: Message, kind: type[T]) -> T:
    """The core value that ``message`` carries; ``kind`` is its counterpart."""
    value = _convert(message)
    if not isinstance(value, kind):
        raise TypeError(f"{type(message).__name__} carries {type(value).__name__}, not {kind.__name__}")
    return value


def _faults(error: ValidationError) -> str:
    """Where and what, without the values: they may be somebody's secrets."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [f"{'.'.join(str(part) for part in fault['loc']) or 'body'}: {fault['msg']}" for fault in faults[:5]]
    return "; ".join(shown) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")


def parse_request(kind: type[M], body: bytes) -> M:
    """Raises: Rejected: with what is wrong and where."""
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise Rejected(f"The request cannot be understood: {_faults(error)}.") from error


def parse_query(kind: type[M], values: Mapping[str, str]) -> M:
    """Raises: Rejected: with what is wrong and where."""
    try:
        return kind.model_validate_strings(values)
    except ValidationError as error:
        raise Rejected(f"The query cannot be understood: {_faults(error)}.") from error


def parse_answer(kind: type[M], body: bytes) -> M:
    """Raises: Broken: the peer answered something else."""
    try:
        # Not model_validate_json: for each field that is missing, its error copies all that was sent.
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Broken(f"The answer is not a {kind.__name__}: it is not JSON.") from error
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise Broken(f"The answer is not a {kind.__name__}: {_faults(error)}.") from error


def outgoing(kind: type[M], value: object) -> M:
    """The message for what a caller wants to send. Raises: Rejected: where it cannot be sent."""
    try:
        return kind.of(value)
    except ValidationError as error:
        raise Rejected(f"This cannot be sent: {_faults(error)}.") from error
