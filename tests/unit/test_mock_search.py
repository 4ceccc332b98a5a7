"""The mock's searches find what ripgrep finds, in the same trees with the same questions."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadow.core.errors import Rejected, ShadowError
from shadow.core.search import GrepQuery
from shadow.execution.host.search import HostSearch
from shadow.execution.mock.files import MockFiles
from shadow.execution.mock.searching import grep, search_files
from shadow.execution.mock.tree import Tree

NAMES = st.sampled_from(["a.py", "b.txt", "c", ".hidden", "log", "ä", "sub", "build"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
LINES = st.sampled_from([b"needle", b"Needle x", b"", b"other\r", b"caf\xe9 needle", "Ärger 12".encode(), b"a.b(c)"])
CONTENTS = st.lists(LINES, max_size=5).map(b"\n".join)
IGNORED = st.lists(st.sampled_from(["build/", "*.txt", "!b.txt", "/c", "sub/log", "**/a.py", "# no", ""]), max_size=4)
GLOBS = st.sampled_from(
    [(), ("*.py",), ("!*.py",), ("*.{py,txt}",), ("/sub/*",), ("sub/**",), ("c", "!sub/**"), ("[ab].*",)]
)
PATTERNS = st.sampled_from(["needle", "^needle$", "[Nn]eedle", r"\d+", r"\w+ger", "(other|x)$", "", "e{2}", r"a\.b\("])
QUERIES = st.builds(
    GrepQuery,
    pattern=PATTERNS,
    path=st.sampled_from([".", "sub"]),
    ignore_case=st.booleans(),
    literal=st.booleans(),
    globs=GLOBS,
    include_ignored=st.booleans(),
    context=st.integers(0, 2),
)


def in_memory(files: dict[str, bytes]) -> MockFiles:
    mock = MockFiles(Tree(limit_bytes=10**6, limit_entries=1000, now=0.0), clock=lambda: 0.0, limit_bytes=10**6)
    mock.make_directory("sub", create_parents=True)
    for path, content in files.items():
        try:
            mock.write(path, content)
        except ShadowError:  # a file is in the way of its parent
            continue
    return mock


def laid_down(mock: MockFiles, root: Path) -> None:
    for entry in mock.list_directory(".", recursive=True, after=None, limit=1000).entries:
        path = root / entry.path
        if entry.kind == "directory":
            path.mkdir()
        else:
            path.write_bytes(mock.open(entry.path)[0])


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(PATHS, CONTENTS, max_size=8), IGNORED, IGNORED, QUERIES)
def test_the_mock_finds_what_ripgrep_finds(
    files: dict[str, bytes], ignored: list[str], below: list[str], query: GrepQuery
) -> None:
    rules = {".gitignore": "\n".join(ignored).encode(), "sub/.gitignore": "\n".join(below).encode()}
    mock = in_memory(files | rules)
    with tempfile.TemporaryDirectory() as directory:
        laid_down(mock, Path(directory))
        host = HostSearch(Path(directory))
        assert grep(mock.tree, query, clock=lambda: 0.0) == asyncio.run(host.grep(query))
        names = search_files(mock.tree, "e", path=query.path, limit=50)
        assert names == asyncio.run(host.search_files("e", path=query.path, limit=50))


@pytest.mark.parametrize(
    "pattern",
    [r"(?=x)", r"(?!x)", r"(?<=x)y", r"(x)\1", r"\p{L}", r"[[:alpha:]]", "(", "[a", "a{2,1}", r"(?P=n)", "(?>x)"],
)
def test_what_the_two_would_read_differently_is_rejected(pattern: str) -> None:
    with pytest.raises(Rejected):
        grep(in_memory({"a": b"x"}).tree, GrepQuery(pattern=pattern), clock=lambda: 0.0)


@pytest.mark.parametrize("glob", ["{a", "a}", "[a", "{a,{b}", "{" * 20 + "a,b" + "}" * 20 + "," * 2 + "{a,b}" * 12])
def test_globs_that_are_none_or_too_many_are_rejected(glob: str) -> None:
    with pytest.raises(Rejected):
        grep(in_memory({"a": b"x"}).tree, GrepQuery(pattern="x", globs=(glob,)), clock=lambda: 0.0)


def test_a_search_ends_when_its_time_is_over() -> None:
    ticks = iter(range(100))
    files = {f"f{n}": b"needle" for n in range(10)}
    result = grep(in_memory(files).tree, GrepQuery(pattern="needle", timeout_s=3.0), clock=lambda: float(next(ticks)))
    assert result.truncated == "time"
    assert 0 < len(result.lines) < 10
