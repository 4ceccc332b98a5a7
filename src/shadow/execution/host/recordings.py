"""What a command or terminal has shown so far, as a recording: its byte log, played along its timeline."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from shadow.core.commands import Gap
from shadow.core.terminals import TerminalSize
from shadow.execution.holder.log_files import LogReader
from shadow.terminal.recording import Asciicast
from shadow.terminal.timeline import Record, RecordKind

PIECE_BYTES = 64 * 1024


def record(described: Mapping[str, Any], directory: str) -> Iterator[bytes]:
    """Pieces of an asciicast; ``described`` is what the holder says of the command or terminal."""
    end: int = described["output_end"]
    with closing(LogReader(directory)) as log:
        records = list(log.timeline())
        cast = Asciicast()
        yield cast.header(_first_size(records), started_at=described["started_at"], argv=described["argv"])
        is_terminal = any(record.columns for record in records)
        offset = 0
        shown = _first_size(records)
        for index, record in enumerate(records):
            stop = records[index + 1].offset if index + 1 < len(records) else end
            size = TerminalSize(columns=record.columns, rows=record.rows)
            if record.kind is RecordKind.SIZED and record.columns and size != shown:
                shown = size
                yield cast.resize(record.at_s, size)
            while offset < min(stop, end):
                for piece in log.read(after=offset, end=min(stop, end), limit_bytes=PIECE_BYTES):
                    offset = piece.end
                    if isinstance(piece, Gap):
                        yield cast.marker(record.at_s, f"{piece.end - piece.start} bytes are no longer kept")
                    else:
                        # A terminal would have begun a new line with each line feed: where there was none, we do.
                        data = piece.data if is_terminal else piece.data.replace(b"\n", b"\r\n")
                        yield cast.output(record.at_s, data)
        yield cast.finish()


def _first_size(records: list[Record]) -> TerminalSize:
    """What is not a terminal is played on one of the usual size."""
    for record in records:
        if record.kind is RecordKind.SIZED and record.columns:
            return TerminalSize(columns=record.columns, rows=record.rows)
    return TerminalSize()
