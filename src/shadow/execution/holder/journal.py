"""What must survive the holder: operations and their results, commands and their endings, the epoch.

One JSON object a line, appended before (a start) or right after (an ending) the thing happens, written again compactly
when it has grown. A torn last line, as a kill leaves it, is ignored. Nothing is synced: the journal covers killed
processes, not a host that loses power.
"""

import errno
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from shadow.core.errors import Conflict, LimitExceeded, StaleEpoch

MAX_OPERATIONS = 10_000
REWRITE_BYTES = 8 * 1024 * 1024

Record = dict[str, Any]
"""A JSON object."""


@dataclass(slots=True)
class Known:
    """An operation: the kind of its call, and its result once it has one."""

    what: str
    result: Record | None = None


class Journal:
    """Keeps the newest ``MAX_OPERATIONS`` operations, the commands that are not forgotten, and the epoch."""

    def __init__(self, path: str, *, epoch: int) -> None:
        self._path = path
        self.epoch = epoch
        self.operations: OrderedDict[str, Known] = OrderedDict()
        self.commands: dict[str, Record] = {}
        for record in _read(path):
            self._apply(record)
        self.epoch = max(self.epoch, epoch)
        self._fd = -1
        self._size = 0
        self._rewrite_at = REWRITE_BYTES
        self.rewrite()

    def check_epoch(self, epoch: int) -> None:
        """Adopt a newer epoch. Raises: StaleEpoch."""
        if epoch < self.epoch:
            raise StaleEpoch(
                f"The call carries epoch {epoch}, the workspace is at {self.epoch}: somebody has taken over.",
                mend="Attach again.",
                details={"epoch": self.epoch},
            )
        if epoch > self.epoch:
            self._append({"kind": "epoch", "epoch": epoch})

    def begin(self, operation_id: str, *, what: str) -> Record | None:
        """The first result where the operation has one, else ``None``: it is under way from now on.

        ``what`` names the kind of the call, so that an id that is used for two calls is noticed.

        Raises: Conflict where it is under way already. An operation that failed can begin again.
        """
        known = self.operations.get(operation_id)
        if known is not None:
            if known.what != what:
                raise Conflict(f"Operation {operation_id} is a {known.what!r} already; it cannot be a {what!r} too.")
            if known.result is None:
                raise Conflict(
                    f"Operation {operation_id} is under way or its outcome was never recorded.",
                    mend="Look at what it should have changed before you repeat it under a new id.",
                    details={"operation": operation_id},
                )
            return known.result
        self._append({"kind": "begin", "operation": operation_id, "what": what})
        return None

    def finish(self, operation_id: str, result: Record | None) -> None:
        """Record the result; ``None`` says that nothing was done, so that a repeat may try again."""
        self._append({"kind": "finish", "operation": operation_id, "result": result})

    def command(self, command_id: str, record: Record | None) -> None:
        """Record how a command stands; ``None`` forgets it."""
        self._append({"kind": "command", "id": command_id, "record": record})

    def rewrite(self) -> None:
        """Write what still matters to a fresh file, as a whole or not at all."""
        lines: list[Mapping[str, Any]] = [{"kind": "epoch", "epoch": self.epoch}]
        for operation_id, known in self.operations.items():
            lines.append({"kind": "begin", "operation": operation_id, "what": known.what})
            if known.result is not None:
                lines.append({"kind": "finish", "operation": operation_id, "result": known.result})
        lines.extend({"kind": "command", "id": name, "record": record} for name, record in self.commands.items())
        data = b"".join(_line(line) for line in lines)
        temporary = f"{self._path}.new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_whole(fd, data)
            os.rename(temporary, self._path)
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = fd, len(data)

    def _append(self, record: Record) -> None:
        line = _line(record)
        try:
            _write_whole(self._fd, line)
        except OSError as error:
            # A half-written line would swallow the next one.
            os.ftruncate(self._fd, self._size)
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise LimitExceeded(
                    "The disk that holds the workspace is full.", mend="Delete something, then repeat the call."
                ) from error
            raise
        self._size += len(line)
        self._apply(record)
        if self._size > self._rewrite_at:
            # Where the disk is too full for a fresh file the old one goes on; the next growth tries again.
            with suppress(OSError):
                self.rewrite()
            self._rewrite_at = self._size + REWRITE_BYTES

    def _apply(self, record: Record) -> None:
        match record:
            case {"kind": "epoch", "epoch": int(epoch)}:
                self.epoch = max(self.epoch, epoch)
            case {"kind": "begin", "operation": str(name), "what": str(what)}:
                self.operations[name] = Known(what)
                while len(self.operations) > MAX_OPERATIONS:
                    self.operations.popitem(last=False)
            case {"kind": "finish", "operation": str(name), "result": None}:
                self.operations.pop(name, None)
            case {"kind": "finish", "operation": str(name), "result": result}:
                if name in self.operations:
                    self.operations[name].result = result
            case {"kind": "command", "id": str(name), "record": None}:
                self.commands.pop(name, None)
            case {"kind": "command", "id": str(name), "record": values}:
                self.commands[name] = values
            case _:
                pass  # from a newer version


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"


def _write_whole(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read(path: str) -> Iterator[Record]:
    try:
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                record: Record = json.loads(line)
                yield record
    except FileNotFoundError:
        return
