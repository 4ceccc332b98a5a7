"""Entries of a task's log as JSON, and back."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from shadow.core.errors import Broken
from shadow.core.events import Recorded, TaskEvent
from shadow.core.json_text import to_json

TASK_EVENT: TypeAdapter[Any] = TypeAdapter(Annotated[TaskEvent, Field(discriminator="kind")])
"""Of rows too: the one that there is."""


def encode_recorded(recorded: Recorded) -> bytes:
    """On one line; names and output that are not UTF-8 come as surrogates, which JSON carries as escapes."""
    return to_json(recorded).encode()


def encode_page(found: Sequence[Recorded], *, last: int) -> bytes:
    """An ``EventListMessage``."""
    return b'{"events":[%s],"last":%d}' % (b",".join(map(encode_recorded, found)), last)


def decode_recorded(value: Any) -> Recorded:
    """Raises: Broken: a newer server wrote it, or it is none."""
    try:
        return Recorded(seq=int(value["seq"]), at=float(value["at"]), event=TASK_EVENT.validate_python(value["event"]))
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        raise Broken("The server sent an event that cannot be read.", mend="Use a client of its version.") from error
