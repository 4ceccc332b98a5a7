"""Ignore rules: what git says is ignored is what we say is, whatever the pattern. git itself is the judge."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadow.execution.host.ignoring import decide, parse_patterns
from shadow.execution.host.paths import WorkspacePaths
from shadow.execution.host.threads import Stop
from shadow.execution.host.watched_directory import Directory
from shadow.execution.host.watched_tree import WatchedTree

TOKENS = [
    b"a", b"b", b"ab", b"*", b"*",
    b"**", b"***", b"/", b"/", b"?", b"[ab]", b"[!a]", b"[^a]", b"[", b"]", b"\\", b" ", b"!", b"#",
    b".", b"-", b"[a-b]", b"[b-a]", b"[[:alpha:]]", b"[![:space:]]", b"[]-a]", b"**/", b"/**", b"/**/", b"\\/", b"\r", b"[[:x:]]",
    b"[a\\]b]", b"[[:alpha]", b"[:", b"\xe9", b"{a}", b"\t", b"\0", b"\xef\xbb\xbf",
]  # fmt: skip
NAMES = [
    b"a", b"b", b"ab", b"ba", b".a", b"a b", b"a ", b"[", b"]", b"\\", b"-", b"!a", b"#a", b"aab", b"\r", b"a]", b":", b"b\\a",
    b"\xe9", b"{a}", b"a\nb",
]  # fmt: skip
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(b"/".join)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", root], check=True)
    return root


def ignored_by_git(root: Path, paths: Iterable[bytes]) -> set[bytes]:
    """Directories are taken for such where they are; what is not there is a file."""
    asked = b"".join(b"./" + path + b"\0" for path in paths)
    argv = ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z", "--stdin"]
    ended = subprocess.run(argv, cwd=root, input=asked, capture_output=True, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    return {path.removeprefix(b"./") for path in ended.stdout.split(b"\0")} - {b""}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.lists(st.sampled_from(TOKENS), max_size=7).map(b"".join), max_size=4),
    paths=st.lists(PATHS, min_size=1, max_size=30),
)
def test_one_file_is_read_as_git_reads_it(repository: Path, lines: list[bytes], paths: list[bytes]) -> None:
    content = b"\n".join(lines)
    (repository / ".gitignore").write_bytes(content)
    patterns = parse_patterns(content)

    def ignored(path: bytes) -> bool:
        names = path.split(b"/")
        ways = [b"/".join(names[:count]) for count in range(1, len(names) + 1)]
        return any(decide(patterns, way, is_directory=way != path) for way in ways)

    assert {path for path in paths if ignored(path)} == ignored_by_git(repository, paths)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (b"a*" * 60 + b"b", b"a" * 255),
        (b"*a" * 60 + b"b", b"a" * 255),
        (b"[a]*" * 40 + b"b/x", b"a" * 255 + b"/x"),
        (b"/" + b"**/a*a*/" * 20 + b"z", b"/".join([b"a" * 40] * 90)),
        (b"**/" * 500 + b"z", b"a/" * 2000 + b"y"),
        (b"**/*a" * 40 + b"z", b"/".join([b"a" * 40] * 90)),
    ],
)
def test_hostile_patterns_end_soon(pattern: bytes, path: bytes) -> None:
    """Where each star is tried again for each other one, these take longer than the world is old."""
    assert decide(parse_patterns(pattern), path, is_directory=False) is None


def walk(root: Path) -> Iterator[tuple[bytes, bool]]:
    for parent, directories, files in os.walk(os.fsencode(root)):
        for name in (*directories, *files):
            path = os.path.relpath(os.path.join(parent, name), os.fsencode(root))
            if b".git" not in path.split(b"/"):
                yield path, name in directories


def watched(tree: WatchedTree, top: Directory, root: Path) -> set[bytes]:
    """Every path below ``top`` that would be told."""
    found = set[bytes]()
    for directory in top.all():
        here = os.path.join(os.fsencode(root), os.fsencode(directory.path()))
        for entry in os.scandir(here):
            if entry.name != b".git" and not directory.ignores(entry.name, is_directory=entry.is_dir()):
                found.add(os.path.relpath(os.path.join(here, entry.name), os.fsencode(root)))
    return found


RULES = st.lists(
    st.sampled_from(
        ["a", "/a", "a/", "!a", "!/a", "*.x", "!b.x", "a/b", "**/b", "a/**", "/*", "!/c", "c/*", "b/", "!b/"]
    ),
    max_size=4,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=st.dictionaries(st.sampled_from(["", "a", "b", "a/b", "c", "a/c"]), RULES), excluded=RULES)
def test_nested_rules_hold_as_in_git(
    tmp_path_factory: pytest.TempPathFactory, rules: dict[str, list[str]], excluded: list[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    subprocess.run(["git", "init", "-q", root], check=True)
    for directory in ("a/b/c", "a/c", "b/a/b", "c/b"):
        (root / directory).mkdir(parents=True)
    for directory in ("", "a", "a/b", "a/b/c", "a/c", "b", "b/a", "b/a/b", "c", "c/b"):
        for name in ("f.x", "b.x", "d"):
            (root / directory / name).touch()
    for directory, lines in rules.items():
        (root / directory / ".gitignore").write_text("\n".join(lines))
    (root / ".git/info/exclude").write_text("\n".join(excluded))
    tree = WatchedTree(WorkspacePaths(root), ".")
    try:
        tree.open(Stop())
        paths = [path for path, _ in walk(root)]
        assert watched(tree, tree.base, root) == set(paths) - ignored_by_git(root, paths)
    finally:
        tree.close()


def test_rules_above_the_watched_directory_hold_and_those_of_another_repository_do_not(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.x\n/sub/only\n")
    for directory in ("sub/in", "sub/inner/.git/info"):
        (tmp_path / directory).mkdir(parents=True)
    for name in ("in/f.x", "in/f", "only", "inner/f.x", "inner/f.y", "inner/f"):
        (tmp_path / "sub" / name).touch()
    (tmp_path / "sub/inner/.git/info/exclude").write_text("*.y\n")
    tree = WatchedTree(WorkspacePaths(tmp_path), "sub")
    try:
        tree.open(Stop())
        told = watched(tree, tree.base, tmp_path)
        assert told == {b"sub/in", b"sub/in/f", b"sub/inner", b"sub/inner/f", b"sub/inner/f.x"}
    finally:
        tree.close()


def test_a_file_of_rules_is_not_read_through_a_link_nor_where_it_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("f\n")
    for name in ("link", "pipe", "directory", "large"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").touch()
    (tmp_path / "link/.gitignore").symlink_to("../rules")
    os.mkfifo(tmp_path / "pipe/.gitignore")
    (tmp_path / "directory/.gitignore").mkdir()
    (tmp_path / "large/.gitignore").write_text("f\n" * 1_000_000)
    tree = WatchedTree(WorkspacePaths(tmp_path), ".")
    try:
        tree.open(Stop())
        assert {b"link/f", b"pipe/f", b"directory/f", b"large/f"} <= watched(tree, tree.base, tmp_path)
    finally:
        tree.close()
