"""Checkpoints in real repositories: against a model under random work, and killed at each step of the way back."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from shadow.core.errors import NothingToCommit, ShadowError
from shadow.core.git import GitCheckpoint, GitHead, GitPerson
from shadow.core.ids import Operation, OperationId
from shadow.execution.host.executor import HostExecutor, open_host

pytestmark = pytest.mark.anyio

AGENT = GitPerson(name="Agent", email="agent@example.org")
File = tuple[str, bytes]
"""``-`` a file, ``x`` one that may be run, ``l`` a link; and its bytes."""


def git(directory: Path, *arguments: str) -> bytes:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True, env=environment).stdout


def base_env(root: Path, *more: Path) -> dict[str, str]:
    return {"PATH": ":".join([*map(str, more), os.environ["PATH"]]), "HOME": str(root), "LANG": "C.UTF-8"}


def repository(directory: Path) -> Path:
    root = directory / "files"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Setup")
    git(root, "config", "user.email", "setup@example.org")
    return root


def files_below(root: Path) -> dict[bytes, File]:
    found: dict[bytes, File] = {}
    for directory, directories, names in os.walk(os.fsencode(root)):
        directories[:] = [name for name in directories if name != b".git"]
        for name in [*names, *(name for name in directories if os.path.islink(os.path.join(directory, name)))]:
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, os.fsencode(root))
            if os.path.islink(path):
                found[relative] = ("l", os.readlink(path))
            else:
                content = Path(os.fsdecode(path)).read_bytes()
                found[relative] = ("x" if os.stat(path).st_mode & 0o100 else "-", content)
    return found


# The model

PATHS = tuple(
    map(os.fsencode, ("a", "d", "d/a", "d/e", "d/e/f", "-x", "new\nline", "latin\udce9", "x.log", "d/y.log", "z.tmp"))
)
RULES = (b"*.log\n", b"*.log\n*.tmp\n", b"")


@dataclass
class Snapshot:
    checkpoint: GitCheckpoint
    files: Mapping[bytes, File]


@dataclass
class Model:
    files: dict[bytes, File] = field(default_factory=dict[bytes, File])
    tracked: set[bytes] = field(default_factory=set[bytes])
    head: GitHead = field(default_factory=lambda: GitHead(branch="main", commit=None))
    trees: dict[str | None, frozenset[bytes]] = field(default_factory=lambda: {None: frozenset[bytes]()})
    snapshots: list[Snapshot] = field(default_factory=list[Snapshot])

    def put(self, path: bytes, file: File) -> None:
        """Whatever is in its way goes."""
        self.files = {other: kept for other, kept in self.files.items() if not _in_the_way(other, path)}
        self.files[path] = file

    def whole(self) -> dict[bytes, File]:
        return {
            path: file for path, file in self.files.items() if path in self.tracked or not ignored(path, self.files)
        }

    def restore(self, snapshot: Snapshot) -> None:
        stays = {path: file for path, file in self.files.items() if ignored(path, snapshot.files)}
        self.files = stays
        for path, file in snapshot.files.items():
            self.put(path, file)
        checkpoint = snapshot.checkpoint
        self.head = GitHead(branch=checkpoint.branch, commit=checkpoint.head)
        self.tracked = set(self.trees[checkpoint.head])


def _in_the_way(other: bytes, path: bytes) -> bool:
    return other == path or other.startswith(path + b"/") or path.startswith(other + b"/")


def ignored(path: bytes, files: Mapping[bytes, File]) -> bool:
    kind, rules = files.get(b".gitignore", ("-", b""))
    return kind != "l" and any(path.endswith(rule[1:]) for rule in rules.split() if rule)


def lay_down(root: Path, path: bytes, file: File) -> None:
    place = os.path.join(os.fsencode(root), path)
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        above = os.path.join(os.fsencode(root), *parts[:count])
        if os.path.lexists(above) and (os.path.islink(above) or not os.path.isdir(above)):
            os.unlink(above)
    remove(root, path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    kind, content = file
    if kind == "l":
        os.symlink(content, place)
    else:
        Path(os.fsdecode(place)).write_bytes(content)
        os.chmod(place, 0o755 if kind == "x" else 0o644)


def remove(root: Path, path: bytes) -> None:
    place = os.path.join(os.fsencode(root), path)
    if os.path.islink(place) or os.path.isfile(place):
        os.unlink(place)
    elif os.path.isdir(place):
        shutil.rmtree(place)


contents = st.one_of(
    st.tuples(st.sampled_from("-x"), st.sampled_from([b"", b"1\n", b"2\n", b"\0\r\n"])),
    st.tuples(st.just("l"), st.sampled_from([b"a", b"d", b"/nonexistent", b".."])),
)
steps = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(PATHS), contents),
    st.tuples(st.just("write"), st.sampled_from(PATHS), contents),
    st.tuples(st.just("write"), st.just(b".gitignore"), st.tuples(st.just("-"), st.sampled_from(RULES))),
    st.tuples(st.just("delete"), st.sampled_from(PATHS)),
    st.tuples(st.sampled_from(["commit", "stage", "force", "branch", "detach", "checkpoint", "checkpoint"])),
    st.tuples(st.just("restore"), st.integers(0, 9)),
    st.tuples(st.just("restore"), st.integers(0, 9)),
)


async def _play(executor: HostExecutor, root: Path, model: Model, number: int, step: tuple[object, ...]) -> None:
    match step:
        case ("write", bytes() as path, (str() as kind, bytes() as content)):
            lay_down(root, path, (kind, content))
            model.put(path, (kind, content))
        case ("delete", bytes() as path):
            remove(root, path)
            model.files = {p: f for p, f in model.files.items() if p != path and not p.startswith(path + b"/")}
        case ("stage",):
            git(root, "add", "-A")
            model.tracked = set(model.whole())
        case ("force",):
            git(root, "add", "-A", "-f")
            model.tracked = set(model.files)
        case ("commit",):
            try:
                model.head = await executor.git_commit(str(number), author=AGENT)
            except NothingToCommit:
                event("nothing to commit")
            model.tracked = set(model.whole())
            model.trees[model.head.commit] = frozenset(model.tracked)
        case ("branch",) if model.head.commit is not None:
            model.head = await executor.git_create_branch(f"b{number}", checkout=True)
        case ("detach",) if model.head.commit is not None:
            git(root, "checkout", "-q", "--detach")
            model.head = GitHead(branch=None, commit=model.head.commit)
        case ("checkpoint",):
            before = hashlib.sha256(_index(root)).digest()
            made = await executor.git_checkpoint(f"c{number}")
            assert hashlib.sha256(_index(root)).digest() == before
            assert GitHead(branch=made.branch, commit=made.head) == model.head
            listed = git(root, "ls-tree", "-rz", "--name-only", made.commit).split(b"\0")[:-1]
            assert sorted(listed) == sorted(model.whole())
            model.snapshots.append(Snapshot(checkpoint=made, files=model.whole()))
        case ("restore", int() as which) if model.snapshots:
            snapshot = model.snapshots[which % len(model.snapshots)]
            model.restore(snapshot)
            assert await executor.git_restore(snapshot.checkpoint) == model.head
            event("restored")
            listed = git(root, "ls-files", "-z").split(b"\0")[:-1]
            assert sorted(listed) == sorted(model.tracked)
        case _:
            return
    assert files_below(root) == model.files


def _index(root: Path) -> bytes:
    path = root / ".git/index"
    return path.read_bytes() if path.exists() else b""


@given(script=st.lists(steps, min_size=4, max_size=14))
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_any_work_comes_back_as_the_model_says(script: list[tuple[object, ...]]) -> None:
    async def play() -> None:
        directory = Path(tempfile.mkdtemp())
        try:
            root = repository(directory)
            async with open_host(root, directory / "state", base_env=base_env(root)) as executor:
                model = Model()
                for number, step in enumerate(script):
                    await _play(executor, root, model, number, step)
        finally:
            shutil.rmtree(directory)

    asyncio.run(play())


# Killed on the way

KILLER = """#!/bin/sh
# At the run that was chosen, everything dies: the holder above our subreaper, with all that it started.
n=$(($(cat {place}/count) + 1)); echo $n > {place}/count
if [ $n = "$(cat {place}/at)" ]; then
    set -- $(cat /proc/$PPID/stat) "$@"; holder=$4; shift 52
    [ {late} = 0 ] || {{ {git} "$@"; kill -9 $holder; exit 1; }}
    kill -9 $holder
fi
exec {git} "$@"
"""


async def _work(executor: HostExecutor, root: Path) -> tuple[GitCheckpoint, dict[bytes, File]]:
    """A checkpoint, and a work tree that is far from it, in the middle of a merge."""
    (root / "d").mkdir()
    (root / "d/a").write_text("1")
    (root / ".gitignore").write_text("*.log\n")
    (root / "x.log").write_text("log")
    await executor.git_commit("first", author=AGENT)
    (root / "d/a").write_text("2")
    (root / "new").symlink_to("d")
    checkpoint, files = await executor.git_checkpoint("one"), files_below(root)
    git(root, "checkout", "-qb", "side")
    await executor.git_commit("side", author=AGENT)
    git(root, "checkout", "-q", "main")
    shutil.rmtree(root / "d")
    (root / "d").write_text("a file")
    await executor.git_commit("main", author=AGENT)
    subprocess.run(["git", "merge", "-q", "side"], cwd=root, capture_output=True, check=False)
    (root / "later").write_text("later")
    return checkpoint, files


@pytest.mark.parametrize(
    ("late", "same_operation"),
    [
        pytest.param(0, True, id="before, same operation"),
        pytest.param(1, True, id="after, same operation", marks=pytest.mark.slow),
        pytest.param(0, False, id="before, another", marks=pytest.mark.slow),
        pytest.param(1, False, id="after, another", marks=pytest.mark.slow),
    ],
)
async def test_a_way_back_that_was_killed_anywhere_is_repeated_and_ends_right(
    tmp_path: Path, late: int, same_operation: bool
) -> None:
    bin_, real = tmp_path / "bin", shutil.which("git")
    bin_.mkdir()
    (bin_ / "git").write_text(KILLER.format(place=tmp_path, git=real, late=late))
    (bin_ / "git").chmod(0o755)
    (tmp_path / "at").write_text("0")
    (tmp_path / "count").write_text("0")
    killed = 0
    for at in range(1, 100):
        directory = tmp_path / str(at)
        directory.mkdir()
        root, state = repository(directory), directory / "state"
        operation = Operation(id=OperationId("op_restore"), epoch=1)
        async with open_host(root, state, base_env=base_env(root)) as executor:
            checkpoint, files = await _work(executor, root)
        (tmp_path / "at").write_text(str(at))
        (tmp_path / "count").write_text("0")
        died = False
        async with open_host(root, state, base_env=base_env(root, bin_)) as executor:
            try:
                await executor.git_restore(checkpoint, operation=operation)
            except ShadowError:
                died = True
        (tmp_path / "at").write_text("0")
        async with open_host(root, state, base_env=base_env(root)) as executor:
            again = operation if same_operation else None
            assert await executor.git_restore(checkpoint, operation=again) == GitHead(
                branch="main", commit=checkpoint.head
            )
            assert files_below(root) == files
            status = await executor.git_status()
            assert (status.in_progress, sorted(entry.path for entry in status.entries)) == (None, ["d/a", "new"])
        assert list((root / ".git").rglob("*.lock")) == []
        killed += died
        if not died:
            break
    assert killed >= 8
