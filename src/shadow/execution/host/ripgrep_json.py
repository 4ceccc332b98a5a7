"""ripgrep's ``--json`` stream cut into records with bounded memory, however long a line or its list of matches is. Pure."""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_RECORD_BYTES = 512 * 1024

_LINE_TEXT = b'"lines":{"text":"'
_LINE_BYTES = b'"lines":{"bytes":"'
_NUMBER = b'"},"line_number":'  # cannot stand within a JSON string, where quotes are escaped
_TAIL_BYTES = 64


@dataclass(frozen=True, slots=True)
class FoundLine:
    path: bytes
    number: int
    text: bytes
    """Without the line end; only its beginning where ``cut``."""
    is_match: bool
    cut: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """The last record: the search ran to its end."""


class RecordReader:
    """Takes the stream as it comes, gives what it says."""

    def __init__(self, *, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._max = max_record_bytes
        self._buffer = bytearray()
        self._head: bytes | None = None  # of an overlong record
        self._number: int | None = None  # of its line, once that was seen

    def feed(self, chunk: bytes) -> Iterator[FoundLine | Summary]:
        self._buffer += chunk
        begin = 0
        while (end := self._buffer.find(b"\n", begin)) >= 0:
            record = bytes(self._buffer[begin:end])
            begin = end + 1
            if self._head is None:
                yield from _parse(record)
            else:
                self._look_for_number(record)
                yield from self._finish_overlong()
        del self._buffer[:begin]
        if self._head is None and len(self._buffer) > self._max:
            self._head = bytes(self._buffer)
            self._look_for_number(self._head)
            del self._buffer[:-_TAIL_BYTES]
        elif self._head is not None:
            self._look_for_number(self._buffer)
            del self._buffer[:-_TAIL_BYTES]

    def _look_for_number(self, data: bytes | bytearray) -> None:
        if self._number is None:
            at = data.find(_NUMBER)
            digits = data[at + len(_NUMBER) :].split(b",", 1) if at >= 0 else []
            if len(digits) == 2:  # otherwise the number may go on in the next chunk
                self._number = int(digits[0])

    def _finish_overlong(self) -> Iterator[FoundLine]:
        head, number = self._head, self._number
        self._head = self._number = None
        if head is None or number is None:
            return
        for marker, decode in ((_LINE_TEXT, _text_prefix), (_LINE_BYTES, _bytes_prefix)):
            before, found, rest = head.partition(marker)
            if not found:
                continue
            text, whole, _ = rest.partition(_NUMBER)
            opened = json.loads(before + b'"lines":{}}}')
            line = decode(text)
            yield FoundLine(
                path=_plain(opened["data"]["path"]),
                number=number,
                text=_without_end(line) if whole else line,
                is_match=opened["type"] == "match",
                cut=not whole,
            )
            return


def _parse(record: bytes) -> Iterator[FoundLine | Summary]:
    value: dict[str, Any] = json.loads(record)
    kind = value["type"]
    if kind == "summary":
        yield Summary()
    elif kind in ("match", "context"):
        data = value["data"]
        yield FoundLine(
            path=_plain(data["path"]),
            number=data["line_number"],
            text=_without_end(_plain(data["lines"])),
            is_match=kind == "match",
            cut=False,
        )


def _plain(value: dict[str, str]) -> bytes:
    return value["text"].encode() if "text" in value else base64.b64decode(value["bytes"])


def _without_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _text_prefix(escaped: bytes) -> bytes:
    """The beginning of a JSON string that was cut anywhere."""
    for cut in range(16):  # an escape or a character at the end may be incomplete, a pair of \\u escapes at most
        try:
            return json.loads(b'"' + escaped[: len(escaped) - cut] + b'"').encode()
        except (json.JSONDecodeError, UnicodeError):
            continue
    return b""


def _bytes_prefix(encoded: bytes) -> bytes:
    try:
        return base64.b64decode(encoded[: len(encoded) // 4 * 4])
    except binascii.Error:
        return b""
