"""Files that are kept after a workspace is gone, in a directory for each task."""

import os
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from stat import S_ISREG
from typing import BinaryIO

from shadow.core.artifacts import Artifact
from shadow.core.errors import Denied, LimitExceeded, NotFound
from shadow.core.ids import ID_PATTERN, is_id


class ArtifactStore:
    """Names are those of files: no separators. What is there is whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, task_id: str, name: str, content: bytes) -> None:
        """In place of what had that name. Raises: LimitExceeded, Denied."""
        path = self._path(task_id, name)
        new = path.with_name(f".{name}.{os.getpid()}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            kind = Denied if isinstance(error, PermissionError) else LimitExceeded
            raise kind(
                f"The artifact {name} cannot be kept: {error.strerror}.", mend="Make room on its disk."
            ) from error

    def get(self, task_id: str, name: str) -> bytes:
        """Raises: NotFound."""
        try:
            return self._path(task_id, name).read_bytes()
        except OSError as error:
            raise _none(name) from error

    def list(self, task_id: str) -> "list[Artifact]":
        """Sorted by name; none where there is no such task. Raises: Denied."""
        if not is_id(task_id):
            return []
        try:
            with os.scandir(self._directory / task_id) as entries:
                found = [_artifact(one.name, one.stat(follow_symlinks=False)) for one in entries if _is_name(one.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise Denied(f"The artifacts of {task_id} cannot be read: {error.strerror}.") from error
        return sorted((one for one in found if one is not None), key=lambda one: one.name)

    def open(self, task_id: str, name: str) -> tuple[BinaryIO, Artifact]:
        """To be read, and closed. What is put in its place meanwhile does not mix in. Raises: NotFound."""
        try:
            file = open(os.open(self._path(task_id, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")  # noqa: SIM115
        except OSError as error:
            raise _none(name) from error
        artifact = _artifact(name, os.fstat(file.fileno()))
        if artifact is None:
            file.close()
            raise _none(name)
        return file, artifact

    def size_of(self, task_id: str) -> int:
        """Bytes of all that is kept for the task."""
        if not is_id(task_id):
            return 0
        try:
            with os.scandir(self._directory / task_id) as found:
                return sum(entry.stat(follow_symlinks=False).st_size for entry in found)
        except FileNotFoundError:  # there are none, or they are being deleted
            return 0

    def delete_all(self, task_id: str) -> None:
        """Nothing happens where there are none."""
        if is_id(task_id):
            rmtree(self._directory / task_id, ignore_errors=True)

    def _path(self, task_id: str, name: str) -> Path:
        if not is_id(task_id) or not _is_name(name):
            raise _none(name)
        return self._directory / task_id / name


def _is_name(name: str) -> bool:
    return ID_PATTERN.fullmatch(name.replace(".", "-")) is not None and not name.startswith(".")


def _artifact(name: str, found: os.stat_result) -> Artifact | None:
    """``None``: it is no file."""
    if not S_ISREG(found.st_mode):
        return None
    version = f"{found.st_ino:x}.{found.st_size:x}.{found.st_mtime_ns:x}"
    return Artifact(name=name, size_bytes=found.st_size, made_at=found.st_mtime, version=version)


def _none(name: str) -> NotFound:
    return NotFound(f"There is no artifact {name!r} of that task.")
