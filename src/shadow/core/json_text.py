"""Values of ``core`` as JSON, on one line: dataclasses as objects with their fields in order. Pure."""

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, cast


def to_json(value: object) -> str:
    """As ``json.dumps(asdict(value))``, in a third of its time. Halves of characters, as in names that are not UTF-8, come as
    escapes, which JSON can carry.
    """
    return _ENCODER.encode(value)


def _plain(value: Any) -> Mapping[str, Any]:
    """Raises: TypeError: it is none of ours."""
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return {name: getattr(value, name) for name in _names(cast("type[Any]", type(value)))}


@cache
def _names(of: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(of))


_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=_plain)
