"""A log on disk, against a model that remembers every byte: any interleaving of writes, readers, restarts and torn ends."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shadow.core.commands import Channel, Gap, Output
from shadow.core.terminals import TerminalSize
from shadow.execution.holder.log_files import LogReader, LogWriter
from shadow.terminal.timeline import RecordKind, sizes

LIMIT = 256
SIZE = TerminalSize(columns=80, rows=24)


class LogFilesMachine(RuleBasedStateMachine):
    """One writer, which may be killed; readers that come, read on from where they were, and go."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="shadow-test-log-"))
        self.log = str(self.directory / "log")
        self.writer = LogWriter(self.log, limit_bytes=LIMIT, size=SIZE)
        self.written = b""
        self.now = 0.0
        self.resized: dict[int, TerminalSize] = {0: SIZE}
        self.readers: dict[int, int] = {}
        """Where each stands."""

    def teardown(self) -> None:
        self.writer.close()
        shutil.rmtree(self.directory)

    @property
    def end(self) -> int:
        return self.writer.layout.end

    @rule(data=st.binary(min_size=1, max_size=2 * LIMIT), wait=st.floats(0, 0.05))
    @precondition(lambda self: self.writer is not None)
    def write(self, data: bytes, wait: float) -> None:
        self.now += wait
        self.writer.append(Channel.STDOUT, data, at_s=self.now)
        self.written += data

    @rule(columns=st.integers(1, 500))
    def resize(self, columns: int) -> None:
        size = TerminalSize(columns=columns, rows=24)
        self.writer.resize(size, at_s=self.now)
        self.resized[self.end] = size

    @rule()
    def idle(self) -> None:
        """The writer lets go of its files, and opens them again with the next byte."""
        self.writer.close()

    @rule(reader=st.integers(0, 3), limit=st.integers(1, 3 * LIMIT))
    def read(self, reader: int, limit: int) -> None:
        at = self.readers.get(reader, 0)
        log = LogReader(self.log)
        try:
            for piece in log.read(after=at, end=self.end, limit_bytes=limit):
                if isinstance(piece, Output):
                    assert piece.offset == at
                    assert piece.data == self.written[at : piece.end]
                else:
                    assert piece.start == at
                    assert piece.end <= self.writer.layout.start
                at = piece.end
        finally:
            log.close()
        self.readers[reader] = at

    @rule(reader=st.integers(0, 3))
    def drop_reader(self, reader: int) -> None:
        self.readers.pop(reader, None)

    @rule(torn=st.binary(max_size=5))
    def kill(self, torn: bytes) -> None:
        """The holder dies, perhaps in the middle of a write: what is on disk is all that the next one knows."""
        end = self.end
        self.writer.close()
        log = LogReader(self.log)
        segments = log.segments()
        log.close()
        assert (segments[-1].end if segments else 0) == end
        if segments and torn:
            with (self.directory / "log" / f"{segments[-1].start:016x}.times").open("ab") as file:
                file.write(torn)
        self.check_everything()

    @invariant()
    def bounded(self) -> None:
        assert self.writer.layout.kept_bytes <= LIMIT
        files = list((self.directory / "log").glob("*.log"))
        assert sum(file.stat().st_size for file in files) <= LIMIT

    def check_everything(self) -> None:
        log = LogReader(self.log)
        try:
            at, pieces = 0, list[Output | Gap]()
            while at < self.end:
                for piece in log.read(after=at, end=self.end, limit_bytes=64):
                    pieces.append(piece)
                    at = piece.end
            kept = b"".join(piece.data for piece in pieces if isinstance(piece, Output))
            assert self.written.endswith(kept)
            assert len(kept) == self.writer.layout.kept_bytes
            times = [record.at_s for record in log.timeline() if record.kind is RecordKind.ARRIVED]
            assert times == sorted(times)
        finally:
            log.close()

    @rule()
    def sizes_are_right(self) -> None:
        """The size at each offset that is kept is the one that was set last before it."""
        start = self.writer.layout.start
        log = LogReader(self.log)
        told = {change.offset: change.size for change in sizes(log.timeline(), after=start)}
        log.close()
        if not self.writer.layout.segments:
            return
        current = None
        for offset in range(start, self.end):
            current = told.get(offset, current)
            wanted = next(size for at, size in sorted(self.resized.items(), reverse=True) if at <= offset)
            assert current == wanted

    @initialize()
    def begin(self) -> None:
        assert self.end == 0


LogFilesMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLogFiles = LogFilesMachine.TestCase


def test_a_segment_that_cannot_be_deleted_does_not_stop_the_writer(tmp_path: Path) -> None:
    """Code in the workspace may do anything to the directory; whoever writes is the workspace's first process."""
    writer = LogWriter(str(tmp_path), limit_bytes=LIMIT)
    writer.append(Channel.STDOUT, b"a", at_s=0)
    (log,) = tmp_path.glob("*.log")
    log.unlink()
    log.mkdir()
    writer.append(Channel.STDOUT, bytes(3 * LIMIT), at_s=0)
    writer.remove()
    assert writer.layout.end == 3 * LIMIT + 1


def test_a_reader_goes_on_when_another_file_took_the_name(tmp_path: Path) -> None:
    writer, reader = LogWriter(str(tmp_path), limit_bytes=LIMIT), LogReader(str(tmp_path))
    writer.append(Channel.STDOUT, b"0123456789", at_s=0)
    writer.close()
    assert [piece.end for piece in reader.read(after=0, end=10, limit_bytes=5)] == [5]
    (log,) = tmp_path.glob("*.log")
    shutil.copy(log, tmp_path / "copy")
    os.truncate(log, 5)
    (tmp_path / "copy").rename(log)
    assert list(reader.read(after=5, end=10, limit_bytes=5)) == []  # ends early, once
    assert [piece.end for piece in reader.read(after=5, end=10, limit_bytes=5)] == [10]
    reader.close()
