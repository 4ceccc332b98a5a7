"""What a stand-in for a model provider is told to answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Say:
    text: str


@dataclass(frozen=True)
class Think:
    """Reasoning. ``redacted`` is what Anthropic sends instead of a text."""

    text: str
    redacted: str | None = None


@dataclass(frozen=True)
class Call:
    """A tool call. ``arguments`` as a text goes out as it is, JSON or not."""

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict[str, Any])
    id: str | None = None
    """``None``: a new one."""


Part = Say | Think | Call


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """``input`` counts the cached ones too, as ours does."""

    input: int = 100
    output: int = 20
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True, kw_only=True)
class Cut:
    """End the stream after so many events: by a reset, by closing, or by an orderly end of HTTP without the end event."""

    after_events: int
    how: Literal["reset", "close", "end"] = "close"


@dataclass(frozen=True, kw_only=True)
class Fail:
    """An error of the provider's: as a whole answer, or (in ``Answer.fails``) as an event in a stream that had begun."""

    status: int = 500
    type: str = "api_error"
    message: str = "something went wrong"
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Raw:
    """Bytes of the test's choice as the body."""

    body: bytes
    status: int = 200
    content_type: str = "text/event-stream"
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Answer:
    """``Answer([Think("hm"), Say("hello"), Call("read_file", {"path": "a"})])``."""

    parts: Sequence[Part]
    tokens: Tokens | None = Tokens()
    """``None``: none are reported."""
    finish: Literal["auto", "length", "refused"] = "auto"
    piece: int = 7
    """Characters to a delta."""
    one_byte_chunks: bool = False
    """Each byte is sent by itself."""
    pause_s: float = 0.0
    """Between events."""
    stall_after_events: int | None = None
    """Then nothing more until the client leaves."""
    cut: Cut | None = None
    fails: Fail | None = None
    """An error event after the parts, instead of the end."""


Reply = Answer | Fail | Raw


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]
