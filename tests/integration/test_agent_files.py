"""The agent's tools for files, directories and searches, on a real executor."""

import asyncio
import os
import resource
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from shadow.agent.tools import directories, files, search
from shadow.core.commands import CommandSpec, shell
from tests.support.benches import KINDS, ToolBench, open_bench

pytestmark = pytest.mark.anyio


@pytest.fixture(params=KINDS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[ToolBench]:
    async with open_bench(request.param, tmp_path) as opened:
        yield opened


async def in_workspace(bench: ToolBench, line: str) -> None:
    assert (await bench.executor.run(CommandSpec(argv=shell(line)))).exit_code == 0


# read_file


async def test_lines_have_their_numbers(bench: ToolBench) -> None:
    await bench.write("a.txt", "one\n\ntwo")
    assert await bench.text("read_file", path="a.txt") == "a.txt, lines 1 to 3 of 3:\n1\tone\n2\t\n3\ttwo"


async def test_pages_together_are_the_file(bench: ToolBench) -> None:
    await bench.write("a.txt", "".join(f"line {n}\n" for n in range(1, 5001)))
    first, seen = 1, list[str]()
    while True:
        answer = await bench.text("read_file", path="a.txt", first_line=first)
        lines = [line for line in answer.splitlines()[1:] if not line.startswith("[")]
        seen += lines
        if "go on with first_line=" not in answer:
            break
        assert len(lines) == files.MAX_LINES
        first = int(answer.rpartition("first_line=")[2].rstrip(".]"))
    assert seen == [f"{n}\tline {n}" for n in range(1, 5001)]


async def test_a_page_stops_at_its_bytes_and_no_line_is_missed(bench: ToolBench) -> None:
    await bench.write("wide.txt", "".join(f"{n:04}" + "x" * 1500 + "\n" for n in range(1, 101)))
    first, seen = 1, list[str]()
    while first:
        answer = await bench.text("read_file", path="wide.txt", first_line=first)
        assert len(answer) < 1.2 * files.MAX_PAGE_BYTES
        seen += [line for line in answer.splitlines()[1:] if not line.startswith("[")]
        first = int(answer.rpartition("first_line=")[2].rstrip(".]")) if "go on with" in answer else 0
    assert seen == [f"{n}\t{n:04}" + "x" * 1500 for n in range(1, 101)]


async def test_a_huge_line_is_cut_and_the_next_can_be_read(bench: ToolBench) -> None:
    await in_workspace(bench, "(head -c 256000000 /dev/zero | tr '\\0' x; echo; echo behind) > huge.txt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = await bench.text("read_file", path="huge.txt")
    assert len(answer) < 2 * files.MAX_LINE_CHARS
    assert "[Lines cut after 2000 characters: 1." in answer
    assert "go on with first_line=2" in answer
    assert "2\tbehind" in await bench.text("read_file", path="huge.txt", first_line=2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


async def test_binary_empty_and_missing_files_are_told_as_such(bench: ToolBench) -> None:
    await bench.write("b.bin", b"\x7fELF\0\0\1")
    await bench.write("empty", b"")
    await bench.write("a.txt", "one\n")
    assert "b.bin is binary: 7 bytes, beginning with 7f 45 4c 46 00 00 01" in await bench.error(
        "read_file", path="b.bin"
    )
    assert await bench.text("read_file", path="empty") == "empty is empty."
    assert "a.txt has only 1 lines" in await bench.error("read_file", path="a.txt", first_line=2)
    assert "not there" in await bench.error("read_file", path="nowhere")
    assert "List it" in await bench.error("read_file", path=".")


async def test_what_is_not_text_cannot_reach_the_model_as_it_is(bench: ToolBench) -> None:
    await bench.write("odd.txt", b"caf\xe9 \x1b[31mred\x07\r\nsecond\r\n")
    answer = await bench.text("read_file", path="odd.txt")
    assert "1\tcaf� ␛[31mred␇\n2\tsecond" in answer
    assert "CRLF line ends" in answer
    assert "not UTF-8" in answer


async def test_pipes_and_links_that_lead_out_are_refused_at_once(bench: ToolBench) -> None:
    await in_workspace(bench, "mkfifo pipe; ln -s /etc/passwd out; ln -s out2 out2; ln -s ../.. up")
    for path in ("pipe", "out", "out2", "up/etc/passwd", "../x", "/etc/passwd"):
        await bench.error("read_file", path=path)
        await bench.error("search_replace", path=path, old="root", new="x")
    for path in ("out", "up/tmp/x", "../x", "/etc/shadow-test"):
        await bench.error("edit_file", path=path, content="x")


async def test_reads_go_in_parallel(bench: ToolBench) -> None:
    for number in range(20):
        await bench.write(f"{number}.txt", f"this is {number}\n")
    calls = (bench.text("read_file", path=f"{number}.txt") for number in range(20))
    for number, answer in enumerate(await asyncio.gather(*calls)):
        assert f"1\tthis is {number}" in answer
    assert all(tool.changes is (tool.name not in READING) for tool in bench.toolbox._tools.values())  # noqa: SLF001


READING = {"read_file", "list_dir", "grep_search", "file_search", "read_command"}


# edit_file, delete_file


async def test_edit_file_creates_and_replaces(bench: ToolBench) -> None:
    assert await bench.text("edit_file", path="new/a.txt", content="é\n") == "Wrote new/a.txt: 1 lines, 3 bytes."
    assert await bench.text("edit_file", path="new/a.txt", content="") == "Wrote new/a.txt: 0 lines, 0 bytes."
    assert await bench.read("new/a.txt") == b""
    assert "half a character" in await bench.error("edit_file", path="a", content="\ud83d")


async def test_a_name_that_is_not_utf8_can_be_used_as_it_is_shown(bench: ToolBench) -> None:
    await bench.write(os.fsdecode(b"caf\xe9.txt"), "x\n")
    assert await bench.text("list_dir") == '"caf\\udce9.txt"  2 bytes'
    assert "1\tx" in await bench.text("read_file", path="caf\udce9.txt")
    await bench.text("delete_file", path="caf\udce9.txt")
    assert await bench.text("list_dir") == ". has no entries."


async def test_delete_file_removes_files_and_no_full_directories(bench: ToolBench) -> None:
    await bench.write("d/a.txt", "x")
    await bench.error("delete_file", path="d")
    assert await bench.text("delete_file", path="d/a.txt") == "Deleted d/a.txt."
    await bench.text("delete_file", path="d")
    await bench.error("delete_file", path="d")


async def test_a_repeated_call_is_answered_with_the_first_result_and_does_nothing(bench: ToolBench) -> None:
    await bench.write("a.txt", "one\n")
    first = await bench("search_replace", call_id="again", path="a.txt", old="one", new="one one")
    assert await bench("search_replace", call_id="again", path="a.txt", old="one", new="one one") == first
    assert await bench.read("a.txt") == b"one one\n"
    gone = await bench("delete_file", call_id="gone", path="a.txt")
    assert await bench("delete_file", call_id="gone", path="a.txt") == gone
    assert not gone.is_error
    written = await bench("edit_file", call_id="write", path="a.txt", content="new")
    await bench.write("a.txt", "later")
    assert await bench("edit_file", call_id="write", path="a.txt", content="new") == written
    assert await bench.read("a.txt") == b"later"


# search_replace


async def test_search_replace_is_literal(bench: ToolBench) -> None:
    await bench.write("a.txt", "x\na.*b $& \\1\nrest\n")
    answer = await bench.text("search_replace", path="a.txt", old="a.*b $&", new="\\1 $& $1\n`")
    assert answer == "Replaced line 2 of a.txt; now lines 2 to 3."
    assert await bench.read("a.txt") == b"x\n\\1 $& $1\n` \\1\nrest\n"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("", "x", ("is empty", "into `old`", "edit_file")),
        ("two", "two", ("are the same", "into `new`")),
        ("o", "x", ("occurs 3 times", "on lines 1, 2, 4", "more of the lines around")),
        ("nothing", "x", ("not in 'a.txt'", "Its first line is nowhere")),
        ("two\nfour", "x", ("not in 'a.txt'", "Its first line stands on line 2")),
    ],
)
async def test_each_refusal_says_how_to_mend_the_call(
    bench: ToolBench, old: str, new: str, told: tuple[str, ...]
) -> None:
    await bench.write("a.txt", "one\n\ttwo\nthree\nfour\n")
    answer = await bench.error("search_replace", path="a.txt", old=old, new=new)
    assert answer.startswith("Nothing was changed.")
    for part in told:
        assert part in answer
    assert await bench.read("a.txt") == b"one\n\ttwo\nthree\nfour\n"


async def test_line_ends_are_named_where_they_are_the_reason(bench: ToolBench) -> None:
    await bench.write("dos.txt", "one\r\ntwo\r\n")
    assert "write them as \\r\\n" in await bench.error("search_replace", path="dos.txt", old="one\ntwo", new="x")
    await bench.text("search_replace", path="dos.txt", old="one\r\ntwo", new="x")


# list_dir


async def test_a_listing_pages_to_its_end(bench: ToolBench) -> None:
    names = [f"f{number:04}" for number in range(directories.MAX_ENTRIES + 7)]
    await in_workspace(bench, f"mkdir d; cd d; touch {' '.join(names)}")
    first = await bench.text("list_dir", path="d")
    *lines, more = first.splitlines()
    assert len(lines) == directories.MAX_ENTRIES
    assert more == f"[There is more: go on with after=d/{names[directories.MAX_ENTRIES - 1]}.]"
    second = await bench.text("list_dir", path="d", after=f"d/{names[directories.MAX_ENTRIES - 1]}")
    assert [line.split()[0] for line in (*lines, *second.splitlines())] == [f"d/{name}" for name in names]


async def test_long_names_do_not_make_a_long_answer(bench: ToolBench) -> None:
    await in_workspace(bench, "for i in $(seq 400); do touch $(printf '%04d' $i)$(printf 'x%.0s' $(seq 240)); done")
    answer = await bench.text("list_dir")
    assert len(answer) < 1.1 * directories.MAX_CHARS
    last = answer.splitlines()[-2].split()[0]
    assert answer.endswith(f"[There is more: go on with after={last}.]")
    assert len((await bench.text("file_search", query="")).encode()) < 1.1 * search.MAX_TEXT_BYTES


async def test_kinds_of_entries_are_told_apart(bench: ToolBench) -> None:
    await in_workspace(bench, "mkdir d; ln -s nowhere l; mkfifo p; printf abc > f; printf x > $'a\\nb'")
    assert (await bench.text("list_dir")).splitlines() == [
        '"a\\nb"  1 bytes',
        "d/",
        "f  3 bytes",
        "l -> nowhere",
        "p  (a pipe, a socket or a device)",
    ]
    assert "1\tx" in await bench.text("read_file", path="a\nb")


# grep_search, file_search


async def test_matches_stand_under_their_files(bench: ToolBench) -> None:
    await bench.write("a.py", "import os\nos.x\n")
    await bench.write("b/c.py", "y\nos.x\nz\n")
    await bench.write("b/c.txt", "os.x\n")
    answer = await bench.text("grep_search", pattern=r"^os\.", globs=["*.py"], context=1)
    assert answer == "a.py\n1- import os\n2: os.x\nb/c.py\n1- y\n2: os.x\n3- z"
    assert await bench.text("grep_search", pattern="OS.X", literal=True, path="b/c.txt") == "No line matches."
    assert "1: os.x" in await bench.text("grep_search", pattern="OS.X", ignore_case=True, path="b/c.txt")


async def test_a_bad_pattern_is_refused_with_its_reason(bench: ToolBench) -> None:
    assert "Correct the pattern" in await bench.error("grep_search", pattern="(")
    assert "line by line" in await bench.error("grep_search", pattern="a\nb")


async def test_answers_of_searches_are_bounded(bench: ToolBench) -> None:
    await bench.write("many.txt", "match\n" * 1000)
    await bench.write("wide.txt", ("match" + "é" * 10_000 + "\n") * 300)
    answer = await bench.text("grep_search", pattern="match", path="many.txt")
    assert answer.count(": match") == search.MAX_MATCHES
    assert f"[Stopped after {search.MAX_MATCHES} matches; there may be more: narrow" in answer
    answer = await bench.text("grep_search", pattern="match", path="wide.txt")
    assert len(answer.encode()) < 1.2 * search.MAX_TEXT_BYTES
    assert " … [cut]" in answer
    assert f"[Stopped after {search.MAX_TEXT_BYTES} bytes" in answer


async def test_ignored_files_are_searched_on_request(bench: ToolBench) -> None:
    await bench.write(".gitignore", "built/\n")
    await bench.write("built/x.txt", "needle\n")
    assert await bench.text("grep_search", pattern="needle") == "No line matches."
    assert "built/x.txt" in await bench.text("grep_search", pattern="needle", include_ignored=True)
    assert "None of 1 paths" in await bench.text("file_search", query="x.txt")


async def test_files_are_found_by_their_names(bench: ToolBench) -> None:
    await in_workspace(bench, "mkdir -p src/deep; touch src/deep/router.py src/other.py; touch n{1..300}.txt")
    assert (await bench.text("file_search", query="rout")).splitlines()[0] == "src/deep/router.py"
    answer = await bench.text("file_search", query="n")
    assert len(answer.splitlines()) == search.MAX_FILES + 1
    assert answer.endswith("[There are more: give more of the name, or a path.]")
