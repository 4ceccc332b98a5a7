"""Types of single values on the wire: text and bytes that need not be UTF-8, offsets.

In JSON a name that is UTF-8 is a plain string, any other is ``{"b64": "…"}``; in Python both are a ``str`` whose stray bytes
are carried by ``surrogateescape``.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, cast

from pydantic import FailFast, Field, PlainSerializer, PlainValidator, WithJsonSchema

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")


def _from_base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("base64 text was expected")  # noqa: TRY004 - Pydantic collects ValueErrors only
    try:
        return b64decode(value, validate=True)
    except (Base64Error, ValueError) as error:
        raise ValueError("this is not base64") from error


def _tagged_bytes(value: object) -> bytes:
    if isinstance(value, dict) and "b64" in value:
        return _from_base64(cast("dict[str, object]", value)["b64"])
    raise ValueError('a string or {"b64": …} was expected')


def _os_text(value: object) -> str:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            value.encode("utf-8", "surrogateescape")  # a UnicodeEncodeError is a ValueError: no bytes could mean this
        return value
    return _tagged_bytes(value).decode("utf-8", "surrogateescape")


def _os_text_json(value: str) -> object:
    if _SURROGATE.search(value):
        return {"b64": b64encode(value.encode("utf-8", "surrogateescape")).decode()}
    return value


def _text_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else _tagged_bytes(value)


def _text_bytes_json(value: bytes) -> object:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": b64encode(value).decode()}


def _blob(value: object) -> bytes:
    return value if isinstance(value, bytes) else _from_base64(value)


def _blob_json(value: bytes) -> str:
    return b64encode(value).decode()


def _environment(value: object) -> Mapping[str, str]:
    if isinstance(value, Mapping):
        pairs = list(cast("Mapping[object, object]", value).items())
    elif isinstance(value, list) and all(isinstance(p, list) and len(cast("list[Any]", p)) == 2 for p in value):  # pyright: ignore[reportUnknownVariableType]
        pairs = [(name, content) for name, content in cast("list[tuple[object, object]]", value)]
    else:
        raise ValueError("an object, or a list of [name, value], was expected")
    return MappingProxyType({_os_text(name): _os_text(content) for name, content in pairs})


def _environment_json(value: Mapping[str, str]) -> object:
    if any(_SURROGATE.search(name) for name in value):
        return [[_os_text_json(name), _os_text_json(content)] for name, content in value.items()]
    return {name: _os_text_json(content) for name, content in value.items()}


_BASE64 = {"type": "string", "contentEncoding": "base64"}
_TAGGED = {"type": "object", "properties": {"b64": _BASE64}, "required": ["b64"]}
_TEXT_OR_TAGGED = {"anyOf": [{"type": "string"}, _TAGGED]}

FsPath = Annotated[
    str,
    PlainValidator(_os_text),
    PlainSerializer(_os_text_json, when_used="json"),
    WithJsonSchema(_TEXT_OR_TAGGED),
]
"""A path."""

OsText = FsPath
"""Any other text that the operating system sees as bytes: an argument, what to look for."""

QueryText = Annotated[str, PlainValidator(_os_text), WithJsonSchema({"type": "string"})]
"""Such text as a query string carries it, in percent-encoded bytes."""

TextBytes = Annotated[
    bytes,
    PlainValidator(_text_bytes),
    PlainSerializer(_text_bytes_json, when_used="json"),
    WithJsonSchema(_TEXT_OR_TAGGED),
]
"""Bytes that most often are UTF-8: then a plain string in JSON."""

Blob = Annotated[bytes, PlainValidator(_blob), PlainSerializer(_blob_json, when_used="json"), WithJsonSchema(_BASE64)]
"""Bytes of any kind: always base64 in JSON."""

Environment = Annotated[
    Mapping[str, str],
    PlainValidator(_environment),
    PlainSerializer(_environment_json, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object", "additionalProperties": _TEXT_OR_TAGGED},
                {
                    "type": "array",
                    "items": {"type": "array", "items": _TEXT_OR_TAGGED, "minItems": 2, "maxItems": 2},
                },
            ]
        }
    ),
]
"""An object in JSON; a list of ``[name, value]`` where a name is not UTF-8."""

Offset = Annotated[int, Field(ge=0, lt=2**63)]
"""A position in bytes, or a size."""

WaitSeconds = Annotated[float, Field(ge=0)]
"""How long a request may wait."""

Items = Annotated[tuple[T, ...], FailFast()]
"""Any number of items, read up to the first that is none: a fault told for each of ten million would fill the memory."""
