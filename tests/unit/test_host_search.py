"""Search by content and by name: right, bounded, and ended in time; ripgrep is the real one."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import Denied, NotADirectory, NotAFile, NotFound, PathRefused, Rejected, Unsupported
from shadow.core.search import GrepQuery, GrepResult
from shadow.execution.host.ripgrep import find_ripgrep
from shadow.execution.host.ripgrep_json import FoundLine, RecordReader, Summary
from shadow.execution.host.search import HostSearch
from tests.support.descriptors import open_descriptors

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def search(root: Path) -> Iterator[HostSearch]:
    before = descriptors_of_searches(root)
    yield HostSearch(root, shown_root="/workspace")
    assert descriptors_of_searches(root) == before


def descriptors_of_searches(root: Path) -> list[str]:
    wanted = (str(root), "pipe:", "/memfd:")
    return sorted(target for target in open_descriptors().elements() if target.startswith(wanted))


def write(root: Path, path: str, content: str | bytes = "hit\n") -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content.encode() if isinstance(content, str) else content)


def where(result: GrepResult) -> list[tuple[str, int]]:
    return [(line.path, line.number) for line in result.lines if line.is_match]


async def test_lines_that_match_come_in_order_with_path_and_number(search: HostSearch, root: Path) -> None:
    write(root, "b/two.txt", "no\nhit\n")
    write(root, "a.txt", "hit\r\nno\nahit")
    write(root, ".hidden", "hit\n")
    result = await search.grep(GrepQuery(pattern="hit"))
    assert where(result) == [(".hidden", 1), ("a.txt", 1), ("a.txt", 3), ("b/two.txt", 2)]
    assert [line.text for line in result.lines] == [b"hit", b"hit", b"ahit", b"hit"]
    assert (result.truncated, result.errors) == (None, ())


async def test_no_match_is_no_error(search: HostSearch, root: Path) -> None:
    assert await search.grep(GrepQuery(pattern="x")) == GrepResult(lines=(), truncated=None)
    write(root, "f", "")
    assert await search.grep(GrepQuery(pattern="x")) == GrepResult(lines=(), truncated=None)


async def test_patterns_are_regular_literal_or_blind_to_case(search: HostSearch, root: Path) -> None:
    write(root, "f", "a.c\nabc\nABC\n-x\n")
    assert where(await search.grep(GrepQuery(pattern="^a.c$"))) == [("f", 1), ("f", 2)]
    assert where(await search.grep(GrepQuery(pattern="a.c", literal=True))) == [("f", 1)]
    assert where(await search.grep(GrepQuery(pattern="abc", ignore_case=True))) == [("f", 2), ("f", 3)]
    assert where(await search.grep(GrepQuery(pattern="-x"))) == [("f", 4)]


async def test_context_lines_are_told_from_matches(search: HostSearch, root: Path) -> None:
    write(root, "f", "1\n2\nhit\n4\n5\n")
    lines = (await search.grep(GrepQuery(pattern="hit", context=1))).lines
    assert [(line.number, line.is_match) for line in lines] == [(2, False), (3, True), (4, False)]


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ((), ["a.py", "keep.log", "s/b.py", "s/c.txt", "s/t/d.py"]),
        (("*.py",), ["a.py", "s/b.py", "s/t/d.py"]),
        (("*.py", "*.txt"), ["a.py", "s/b.py", "s/c.txt", "s/t/d.py"]),
        (("*.{py,txt}", "!b.py"), ["a.py", "s/c.txt", "s/t/d.py"]),
        (("!s/t",), ["a.py", "keep.log", "s/b.py", "s/c.txt"]),
        (("s/*.py",), ["s/b.py"]),
        (("s/**/*.py", "a.py"), ["a.py", "s/b.py", "s/t/d.py"]),
        (("{a,s/b}.py",), ["a.py", "keep.log", "s/b.py"]),  # a known limit: see selection_arguments
        (("s/**",), ["keep.log", "s/b.py", "s/c.txt", "s/t/d.py"]),  # here too
        (("*.log",), ["keep.log"]),
        (("*.nothing",), []),
    ],
)
async def test_globs_choose_files_and_never_bring_ignored_ones_back(
    search: HostSearch, root: Path, globs: tuple[str, ...], expected: list[str]
) -> None:
    write(root, ".gitignore", "*.log\n!keep.log\n/built/\n")
    for path in ("a.py", "s/b.py", "s/c.txt", "s/t/d.py", "no.log", "keep.log", "built/e.py", ".git/f.py"):
        write(root, path)
    found = [path for path, _ in where(await search.grep(GrepQuery(pattern="hit", globs=globs)))]
    assert found == expected


async def test_ignored_files_are_searched_when_asked_for_and_git_never(search: HostSearch, root: Path) -> None:
    write(root, ".gitignore", "*.log\n")
    write(root, "a.log")
    write(root, "sub/.git/config")
    write(root, ".git/config")
    for globs in ((), ("*.log",), ("sub/**", "a.log")):
        query = GrepQuery(pattern="hit", include_ignored=True, globs=globs)
        assert where(await search.grep(query)) == [("a.log", 1)]


async def test_a_directory_or_a_file_can_be_searched_alone(search: HostSearch, root: Path) -> None:
    write(root, ".gitignore", "*.log\n")
    write(root, "d/x.log")
    write(root, "d/f")
    write(root, "f")
    (root / "link").symlink_to("d")
    for path in ("d", "link", "/workspace/d/"):
        assert where(await search.grep(GrepQuery(pattern="hit", path=path))) == [("d/f", 1)]
    assert where(await search.grep(GrepQuery(pattern="hit", path="d/x.log"))) == [("d/x.log", 1)]
    assert where(await search.grep(GrepQuery(pattern="hit", path="d", globs=("/f",)))) == [("d/f", 1)]


async def test_links_are_not_followed_out_of_the_workspace(search: HostSearch, root: Path) -> None:
    write(root, "in/f")
    (root / "in/out").symlink_to("/etc")
    (root / "in/passwd").symlink_to("/etc/passwd")
    assert where(await search.grep(GrepQuery(pattern="hit|root"))) == [("in/f", 1)]
    for path in ("in/out", "in/passwd", "..", "/etc"):
        with pytest.raises(PathRefused):
            await search.grep(GrepQuery(pattern="root", path=path))
        with pytest.raises(PathRefused):
            await search.search_files("passwd", path=path)


async def test_names_and_lines_that_are_not_utf8(search: HostSearch, root: Path) -> None:
    write(root, "\udcff/ü\nx", b"\xfehit\xff\n")
    result = await search.grep(GrepQuery(pattern="hit"))
    assert [(line.path, line.text) for line in result.lines] == [("\udcff/ü\nx", b"\xfehit\xff")]
    assert [match.path for match in (await search.search_files("x")).matches] == ["\udcff/ü\nx"]
    result = await search.grep(GrepQuery(pattern="hit", path="\udcff/ü\nx"))
    assert [line.path for line in result.lines] == ["\udcff/ü\nx"]


@pytest.mark.parametrize(
    "query",
    [
        GrepQuery(pattern="a("),
        GrepQuery(pattern="a\nb"),
        GrepQuery(pattern="a\0b", literal=True),
        GrepQuery(pattern="\ud800"),
        GrepQuery(pattern="x" * 100_000),
        GrepQuery(pattern="x", globs=("{a",)),
        GrepQuery(pattern="x", globs=("!{a",)),
        GrepQuery(pattern="x", globs=("s/{a",)),
        GrepQuery(pattern="x", globs=("",)),
        GrepQuery(pattern="x", globs=("a\nb",)),
        GrepQuery(pattern="x", context=-1),
        GrepQuery(pattern="x", max_matches=0),
        GrepQuery(pattern="x", max_bytes=0),
        GrepQuery(pattern="x", max_line_bytes=0),
        GrepQuery(pattern="x", timeout_s=0),
        GrepQuery(pattern="x", timeout_s=float("nan")),
    ],
)
async def test_bad_queries_are_rejected(search: HostSearch, root: Path, query: GrepQuery) -> None:
    write(root, "s/f", "x\n")
    with pytest.raises(Rejected):
        await search.grep(query)


async def test_ripgrep_says_what_is_wrong_with_a_pattern(search: HostSearch) -> None:
    with pytest.raises(Rejected, match="unclosed group"):
        await search.grep(GrepQuery(pattern="a("))
    with pytest.raises(Rejected, match="unclosed alternate"):
        await search.grep(GrepQuery(pattern="a", globs=("s/{a",)))


async def test_a_bad_gitignore_is_an_error_beside_the_matches(search: HostSearch, root: Path) -> None:
    write(root, ".gitignore", "{a\n")
    write(root, "f")
    result = await search.grep(GrepQuery(pattern="hit"))
    assert where(result) == [("f", 1)]
    assert any(".gitignore" in error for error in result.errors)


async def test_what_cannot_be_searched_is_refused(search: HostSearch, root: Path) -> None:
    os.mkfifo(root / "pipe")
    write(root, "f")
    async with asyncio.timeout(20):
        with pytest.raises(NotAFile):
            await search.grep(GrepQuery(pattern="x", path="pipe"))
        with pytest.raises(NotFound):
            await search.grep(GrepQuery(pattern="x", path="missing"))
        with pytest.raises(NotADirectory):
            await search.search_files("x", path="f")
        assert where(await search.grep(GrepQuery(pattern="hit"))) == [("f", 1)]  # past the pipe


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
async def test_files_that_cannot_be_read_are_errors_beside_the_matches(search: HostSearch, root: Path) -> None:
    write(root, "f")
    write(root, "closed")
    (root / "closed").chmod(0)
    result = await search.grep(GrepQuery(pattern="hit"))
    assert where(result) == [("f", 1)]
    assert any("closed" in error for error in result.errors)
    assert (await search.grep(GrepQuery(pattern="nothing"))).errors


async def test_matches_bytes_and_lines_are_bounded(search: HostSearch, root: Path) -> None:
    for number in range(20):
        write(root, f"f{number}", "hit and more\n" * 50)
    result = await search.grep(GrepQuery(pattern="hit", max_matches=30))
    assert (len(result.lines), result.truncated) == (30, "matches")
    result = await search.grep(GrepQuery(pattern="hit", max_matches=1000))
    assert (len(result.lines), result.truncated) == (1000, None)
    result = await search.grep(GrepQuery(pattern="hit", max_bytes=100))
    assert (len(result.lines), result.truncated) == (8, "bytes")
    result = await search.grep(GrepQuery(pattern="hit", path="f1", max_line_bytes=3))
    assert {(line.text, line.cut) for line in result.lines} == {(b"hit", True)}


@pytest.mark.parametrize("unit", [b"a", "ü".encode(), b"\xff", b"\\", b'"},"line_number":9,'])
async def test_a_line_of_many_megabytes_is_cut(search: HostSearch, root: Path, unit: bytes) -> None:
    write(root, "f", b"first\n" + unit * (3_000_000 // len(unit)) + b"\nlast\n")
    result = await search.grep(GrepQuery(pattern="(?-u:.)", max_line_bytes=1000))
    assert [(line.number, line.cut) for line in result.lines] == [(1, False), (2, True), (3, False)]
    assert result.lines[1].text == (unit * 1000)[:1000]
    assert result.lines[2].text == b"last"


async def test_time_is_bounded_and_what_was_found_is_given(root: Path) -> None:
    rg = fake_ripgrep(
        root, f"print({json.dumps(json.dumps(match_record('f', 'hit', 1)))}, flush=True); time.sleep(600)"
    )
    async with asyncio.timeout(60):
        result = await HostSearch(root / "files", binary=rg).grep(GrepQuery(pattern="x", timeout_s=2.0))
    assert where(result) == [("f", 1)]
    assert result.truncated == "time"
    await ended(root)


async def test_a_cancelled_search_ends_ripgrep(root: Path) -> None:
    rg = fake_ripgrep(root, "time.sleep(600)")
    search = HostSearch(root / "files", binary=rg)
    for call in (search.grep(GrepQuery(pattern="x")), search.search_files("x")):
        task = asyncio.ensure_future(call)
        async with asyncio.timeout(60):
            while not (root / "pid").exists():
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await ended(root)


async def test_a_flood_on_stderr_does_not_hang_the_search(root: Path) -> None:
    rg = fake_ripgrep(
        root, 'sys.stderr.write(\'rg: x\\n\' * 1000000); print(\'{"type":"summary","data":{}}\'); sys.exit(2)'
    )
    async with asyncio.timeout(60):
        result = await HostSearch(root / "files", binary=rg).grep(GrepQuery(pattern="x"))
    assert len(result.errors) == 100


async def test_a_directory_that_vanishes_during_the_search_is_not_there(root: Path) -> None:
    rg = fake_ripgrep(root, f"os.rmdir({str(root / 'files/d')!r}); os.execv({str(find_ripgrep())!r}, sys.argv)")
    search = HostSearch(root / "files", binary=rg)
    for call in (search.grep(GrepQuery(pattern="x", path="d")), search.search_files("x", path="d")):
        (root / "files/d").mkdir()
        with pytest.raises(NotFound):
            await call


async def test_nothing_of_our_environment_reaches_ripgrep(root: Path) -> None:
    os.environ["SHADOW_TEST_SECRET"] = "1"
    try:
        rg = fake_ripgrep(root, "sys.stderr.write('rg: ' + str('SHADOW_TEST_SECRET' in os.environ)); sys.exit(2)")
        with pytest.raises(Rejected, match="False"):
            await HostSearch(root / "files", binary=rg).grep(GrepQuery(pattern="x"))
    finally:
        del os.environ["SHADOW_TEST_SECRET"]


async def test_a_missing_or_unusable_ripgrep_is_told(root: Path) -> None:
    query = GrepQuery(pattern="x")
    with pytest.raises(Unsupported) as caught:
        await HostSearch(root, binary=root / "missing").grep(query)
    assert caught.value.mend
    (root / "plain").touch()
    with pytest.raises(Denied):
        await HostSearch(root, binary=root / "plain").grep(query)


def test_the_ripgrep_next_to_python_is_found() -> None:
    found = find_ripgrep()
    assert found is not None
    assert os.access(found, os.X_OK)


# Search by name


async def test_files_are_found_by_name_hidden_ones_too_ignored_ones_not(search: HostSearch, root: Path) -> None:
    for path in ("src/main.py", ".hidden/main.py", "built/main.py", ".git/main", "other.txt"):
        write(root, path)
    write(root, ".gitignore", "built/\n")
    result = await search.search_files("main")
    assert [match.path for match in result.matches] == ["src/main.py", ".hidden/main.py"]
    assert (result.searched, result.truncated) == (4, False)
    everything = await search.search_files("", limit=2)
    assert [match.path for match in everything.matches] == [".gitignore", ".hidden/main.py"]
    assert everything.truncated
    assert [match.path for match in (await search.search_files("m", path="src")).matches] == ["src/main.py"]
    for limit in (0, 1_000_000):
        with pytest.raises(Rejected):
            await search.search_files("x", limit=limit)


async def test_a_search_by_name_in_nothing_finds_nothing(search: HostSearch) -> None:
    result = await search.search_files("x")
    assert (result.matches, result.searched, result.truncated) == ((), 0, False)


# The stream of records


def match_record(path: str, text: str, number: int) -> dict[str, object]:
    return {
        "type": "match",
        "data": {
            "path": {"text": path},
            "lines": {"text": text + "\n"},
            "line_number": number,
            "absolute_offset": 0,
            "submatches": [{"match": {"text": text[:1]}, "start": 0, "end": 1}] * min(len(text), 50),
        },
    }


@given(
    lines=st.lists(
        st.tuples(st.text('ab\\"ü𝄞}\x01', max_size=60), st.integers(1, 10**9), st.booleans()), min_size=1, max_size=5
    ),
    size=st.integers(100, 700),
)
def test_records_are_read_whole_however_the_stream_is_cut(lines: list[tuple[str, int, bool]], size: int) -> None:
    stream = b""
    for text, number, ascii_only in lines:
        record = json.dumps(match_record("p\n", text, number), ensure_ascii=ascii_only, separators=(",", ":"))
        stream += record.encode() + b"\n"
    stream += b'{"data":{},"type":"summary"}\n'
    reader = RecordReader(max_record_bytes=300)
    found = [record for at in range(0, len(stream), size) for record in reader.feed(stream[at : at + size])]
    assert isinstance(found.pop(), Summary)
    assert len(found) == len(lines)
    for (text, number, _), line in zip(lines, found, strict=True):
        assert isinstance(line, FoundLine)
        assert (line.path, line.number, line.is_match) == (b"p\n", number, True)
        assert text.encode().startswith(line.text) if line.cut else text.encode() == line.text


# A ripgrep that does what a test needs


def fake_ripgrep(root: Path, does: str) -> Path:
    (root / "files").mkdir()
    script = root / "rg"
    script.write_text(
        f"#!{sys.executable} -IS\nimport os, sys, time\n"
        f"open({str(root / 'pid.new')!r}, 'w').write(str(os.getpid()))\n"
        f"os.rename({str(root / 'pid.new')!r}, {str(root / 'pid')!r})\n{does}\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


async def ended(root: Path) -> None:
    """The fake of this test has been killed and reaped."""
    pid = int((root / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
    (root / "pid").unlink()
