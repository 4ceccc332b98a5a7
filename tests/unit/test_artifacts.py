"""Artifacts: whole files below the task's own directory, whatever they are called."""

import os
from pathlib import Path

import pytest

from shadow.core.errors import LimitExceeded, NotFound
from shadow.storage.artifacts import ArtifactStore

NAMES = ("", ".", "..", "../x", "a/b", ".hidden", "x" * 100, "A", "ü", "a\0b")


def test_what_was_put_is_got_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    store.put("task_a", "work.patch", b"one")
    store.put("task_a", "work.patch", b"two")
    assert store.get("task_a", "work.patch") == b"two"
    (path,) = (tmp_path / "artifacts/task_a").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(NotFound):
        store.get("task_b", "work.patch")
    store.delete_all("task_a")
    store.delete_all("task_a")
    with pytest.raises(NotFound):
        store.get("task_a", "work.patch")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    (tmp_path / "x").write_text("not yours")
    for task_id, artifact in (("task_a", name), (name, "work.patch")):
        with pytest.raises(NotFound):
            store.put(task_id, artifact, b"x")
        with pytest.raises(NotFound):
            store.get(task_id, artifact)
    store.delete_all(name)
    assert (tmp_path / "x").read_text() == "not yours"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.put("task_a", "work.patch", b"one")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            import resource
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
            store.put("task_a", "work.patch", b"x" * 100)
        except LimitExceeded:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert store.get("task_a", "work.patch") == b"one"
    assert [path.name for path in (tmp_path / "task_a").iterdir()] == ["work.patch"]
