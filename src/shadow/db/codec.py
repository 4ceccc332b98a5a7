"""Events and checkouts as JSON and back: the one place that knows how rows hold them."""

import json
from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from shadow.core.errors import Broken
from shadow.core.events import TaskEvent
from shadow.core.json_text import to_json
from shadow.core.repositories import Checkout
from shadow.wire.events import TASK_EVENT

_CHECKOUT: TypeAdapter[Checkout] = TypeAdapter(Checkout)


def encode_event(event: TaskEvent) -> str:
    return to_json(event)


def decode_event(kind: str, body: str) -> TaskEvent:
    """Raises: Broken: it was written by a newer version, or is damaged."""
    try:
        return TASK_EVENT.validate_python(json.loads(body))
    except (ValidationError, ValueError) as error:
        raise Broken(
            f"An event of kind {kind!r} cannot be read.", mend="Use the version of Shadow that wrote it."
        ) from error


def encode_checkout(checkout: Checkout | None) -> str | None:
    return None if checkout is None else json.dumps(asdict(checkout), ensure_ascii=True)


def decode_checkout(text: str | None) -> Checkout | None:
    return None if text is None else _CHECKOUT.validate_python(json.loads(text))
