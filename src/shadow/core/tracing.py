"""The port to traces: what took how long, within what, and how it ended. Traces nothing unless somebody wires a tracer in.

A trace leaves the host. Facts are therefore named here, one by one, and are ids, names from the code and numbers: never what a
user, a model or a program said, never a path, an argument or a header.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import TypedDict, Unpack


class Traced(StrEnum):
    REQUEST = "request"
    """Of HTTP, to the server. Its name is the method; the route's is told when it is known."""
    JOB = "job"
    STEP = "step"
    MODEL_REQUEST = "model request"
    """Its name is the model's: ``provider:name``."""
    TOOL_CALL = "tool call"


class Facts(TypedDict, total=False):
    route: str
    """The template."""
    status: int | None
    """Of HTTP; ``None``: nobody was there to be told."""
    request_id: str
    user_id: str | None
    task_id: str | None
    job_id: str
    attempt: int
    """From 1."""
    outcome: str
    model: str
    """As the provider named what answered."""
    finish: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int


class Span:
    """Something that takes time."""

    trace_id: str | None = None
    """32 hexadecimal digits; ``None``: it is not traced."""

    def tell(self, **facts: Unpack[Facts]) -> None:
        """``None`` says nothing."""

    def fail(self, code: str) -> None:
        """It ends badly: by an error's code, or a word of the same kind."""


class Tracer(ABC):
    @abstractmethod
    def span(
        self, what: Traced, name: str, *, parent: bytes | None = None, **facts: Unpack[Facts]
    ) -> AbstractContextManager[Span]:
        """For the length of a block; within the span whose block this is in, also across tasks that were begun there.

        What leaves the block as an exception fails it, by its code or its type, without its text. ``parent``: of somebody
        else's, as the header ``traceparent`` of W3C Trace Context has it; what is none counts as nothing. Never raises or waits.
        """


class Untraced(Tracer):
    def span(
        self, what: Traced, name: str, *, parent: bytes | None = None, **facts: Unpack[Facts]
    ) -> AbstractContextManager[Span]:
        return nullcontext(_NOTHING)


_NOTHING = Span()
UNTRACED = Untraced()
