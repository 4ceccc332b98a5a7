"""git's machine-readable output: read as it is, and refused where it is something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.git import ChangeKind
from shadow.execution.host.git_parsing import GitOutputError, Prefix, StatusReader, branches, commits, file_changes

HERE = Prefix(".")
ID = b"0123456789abcdef0123456789abcdef01234567"
names = st.binary(min_size=1, max_size=20).map(lambda raw: raw.replace(b"\0", b"."))


def commit(message: bytes, *, at: bytes = b"5") -> bytes:
    return b"\0".join((ID, ID + b" " + ID, b"n", b"e", at, b"c", b"ce", b"7", message)) + b"\0\0"


@given(st.lists(names, unique=True, max_size=5), st.sampled_from([".", "a b"]))
def test_paths_of_any_bytes_are_read(paths: list[bytes], root: str) -> None:
    output = b"# branch.oid x\0" + b"".join(b"? " + path + b"\0" for path in paths)
    before = b"" if root == "." else root.encode() + b"/"
    read = StatusReader(output, Prefix(root), limit=100)
    assert [entry.path.encode("utf-8", "surrogateescape") for entry in read.entries] == [
        before + path for path in paths
    ]


def test_renames_and_conflicts_of_a_status() -> None:
    renamed = b"2 R. N... 100644 100644 100644 " + ID + b" " + ID + b" R100 new name\0old\nname\0"
    unmerged = b"u UU N... 100644 100644 100644 100644 " + b" ".join([ID] * 3) + b" both of us\0"
    read = StatusReader(b"# branch.upstream o/m\0# branch.ab +2 -3\0" + renamed + unmerged, HERE, limit=10)
    assert (read.upstream, read.ahead, read.behind, read.more) == ("o/m", 2, 3, False)
    first, second = read.entries
    assert (first.path, first.old_path, first.index, first.work_tree) == (
        "new name",
        "old\nname",
        ChangeKind.RENAMED,
        None,
    )
    assert (second.path, second.index, second.work_tree) == ("both of us", ChangeKind.UNMERGED, ChangeKind.UNMERGED)


def test_what_a_cut_left_of_a_status_is_dropped() -> None:
    output = b"? one\0" + b"2 R. N... 1 1 1 a b R1 new\0old\0"
    ends = (4, 6, 20, len(output) - 1, len(output))
    assert [len(StatusReader(output[:end], HERE, limit=9).entries) for end in ends] == [0, 1, 1, 1, 2]


def test_counts_belong_to_their_files() -> None:
    raw = b":100644 100644 1 2 M\0:100644\0:100644 000000 1 0 D\0x\0:100644 100644 1 2 R090\0a\0b\0"
    changes = file_changes(raw + b"1\t2\t:100644\0" + b"-\t-\tx\0" + b"3\t4\t\0a\0b\0", HERE)
    found = [(c.path, c.old_path, c.kind, c.added, c.removed, c.binary) for c in changes]
    assert found == [
        (":100644", None, ChangeKind.MODIFIED, 1, 2, False),
        ("b", "a", ChangeKind.RENAMED, 3, 4, False),
        ("x", None, ChangeKind.DELETED, None, None, True),
    ]


@given(st.lists(st.binary(max_size=50).map(lambda raw: raw.replace(b"\0", b" ")), max_size=4))
def test_messages_of_any_bytes_are_read(messages: list[bytes]) -> None:
    found = commits(b"".join(map(commit, messages)))
    assert [one.message.encode("utf-8", "surrogateescape") for one in found] == messages


@pytest.mark.parametrize(
    ("at", "wanted"), [(b"-5", -5), (b"", 0), (b"soon", 0), (b"9" * 19, 2**63 - 1), (b"9" * 40, 0)]
)
def test_times_that_are_none(at: bytes, wanted: int) -> None:
    assert commits(commit(b"m", at=at))[0].authored_at == wanted


def test_what_a_cut_left_of_a_commit_is_dropped() -> None:
    output = commit(b"one") + commit(b"two")
    for end in range(len(commit(b"one")), len(output) - 2):
        assert [one.message for one in commits(output[:end])] == ["one"]


def test_symbolic_refs_are_no_branches() -> None:
    output = b"refs/heads/a\0" + ID + b"\0refs/remotes/o/a\0\nrefs/remotes/o/HEAD\0" + ID + b"\0\0refs/remotes/o/a\n"
    (branch,) = branches(output)
    assert (branch.name, branch.remote, branch.upstream) == ("a", False, "refs/remotes/o/a")


@pytest.mark.parametrize("output", [b"x y\0", b"1 M.\0", b"1 ZZ N... 1 1 1 a b path\0"])
def test_an_unknown_status_is_refused(output: bytes) -> None:
    with pytest.raises(GitOutputError):
        StatusReader(output, HERE, limit=10)


@pytest.mark.parametrize(
    "output", [b"hello\0", b":100644 100644 1 2 M\0", b":100644 100644 1 2 Q\0p\0", b"1\t2\t\0a\0"]
)
def test_unknown_changes_are_refused(output: bytes) -> None:
    with pytest.raises(GitOutputError):
        file_changes(output, HERE)
