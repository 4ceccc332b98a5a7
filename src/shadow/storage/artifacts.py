"""Files that are kept after a workspace is gone, in a directory for each task."""

import os
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

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
            raise NotFound(f"The task {task_id} has no artifact {name}.") from error

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
        if not is_id(task_id) or not ID_PATTERN.fullmatch(name.replace(".", "-")) or name.startswith("."):
            raise NotFound(f"There is no artifact {name!r} of {task_id!r}.")
        return self._directory / task_id / name
