"""Recordings in the format asciicast v2: https://docs.asciinema.org/manual/asciicast/v2/. No I/O, no clock."""

import codecs
import json
from collections.abc import Mapping, Sequence

from shadow.core.terminals import TerminalSize


class Asciicast:
    """Each call returns lines to append to the file. Times are seconds since the start of the recording."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_s = 0.0

    def header(
        self, size: TerminalSize, *, started_at: float, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> bytes:
        """``started_at`` is in seconds since 1970."""
        command = " ".join(argv).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        fields = {
            "version": 2,
            "width": size.columns,
            "height": size.rows,
            "timestamp": int(started_at),
            "command": command,
            "env": dict(env or {}),
        }
        return _line(fields)

    def output(self, at_s: float, data: bytes) -> bytes:
        """A character whose bytes come in pieces is told with its last one."""
        text = self._decoder.decode(data)
        return self._event(at_s, "o", text) if text else b""

    def resize(self, at_s: float, size: TerminalSize) -> bytes:
        return self._event(at_s, "r", f"{size.columns}x{size.rows}")

    def marker(self, at_s: float, label: str) -> bytes:
        return self._event(at_s, "m", label)

    def finish(self) -> bytes:
        """What is left of a character that never came to its end."""
        text = self._decoder.decode(b"", final=True)
        return self._event(self._at_s, "o", text) if text else b""

    def _event(self, at_s: float, code: str, text: str) -> bytes:
        self._at_s = max(self._at_s, at_s)
        return _line([round(self._at_s, 6), code, text])


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": ")).encode() + b"\n"
