"""Checks of grep and of the fuzzy file search."""

from shadow.core.errors import NotFound, PathRefused, Rejected
from shadow.core.search import GrepQuery
from shadow.testing.contract import CheckSkipped, expect, expect_equal, refused
from shadow.testing.site import Site


def _query(site: Site, pattern: str, **options: object) -> GrepQuery:
    return GrepQuery(pattern=pattern, **{"path": site.directory, **options})  # type: ignore[arg-type]


async def _found(site: Site, pattern: str, **options: object) -> list[str]:
    """The names of files with a match, sorted."""
    result = await site.executor.grep(_query(site, pattern, **options))
    return sorted({line.path.removeprefix(f"{site.directory}/") for line in result.lines if line.is_match})


async def _needles(site: Site, *names: str) -> None:
    """Files that hold a needle."""
    for name in names:
        await site.executor.write_file(site.path(name), b"needle\n")


async def check_matching_lines_are_found(site: Site) -> None:
    """Each matching line comes with its path, its number and its text without the line end."""
    await site.bash("mkdir sub; printf 'one\\ntwo needle\\nneedle\\n' > a; printf 'a needle' > sub/b; echo other > c")
    result = await site.executor.grep(_query(site, "needle"))
    found = sorted((line.path, line.number, line.text, line.is_match) for line in result.lines)
    wanted = [(site.path("a"), 2, b"two needle", True), (site.path("a"), 3, b"needle", True)]
    expect_equal(found, [*wanted, (site.path("sub/b"), 1, b"a needle", True)], "the lines")
    expect_equal((result.truncated, result.errors), (None, ()), "what the answer tells")


async def check_no_match_is_no_error(site: Site) -> None:
    """Where nothing matches, and where there is nothing, the answer is empty."""
    result = await site.executor.grep(_query(site, "needle"))
    expect_equal((result.lines, result.truncated), ((), None), "the answer for an empty directory")
    await site.bash("echo hay > stack; : > empty")
    result = await site.executor.grep(_query(site, "needle"))
    expect_equal((result.lines, result.truncated, result.errors), ((), None, ()), "the answer without a match")


async def check_patterns_are_regular_expressions(site: Site) -> None:
    """A pattern is a regular expression, with anchors, classes, alternatives and Unicode."""
    await site.bash("echo foo123 > a; echo bar > b; echo ' foo' > c; echo Grüße > d")
    expect_equal(await _found(site, r"^fo+\d{3}$"), ["a"], "anchors and classes")
    expect_equal(await _found(site, r"\b(bar|foo)\b"), ["b", "c"], "alternatives")
    expect_equal(await _found(site, r"^Gr\wße$"), ["d"], "Unicode")


async def check_literal_patterns_are_literal(site: Site) -> None:
    """With ``literal`` nothing in the pattern is special."""
    await site.bash("echo 'a.b(c)*[$' > a; echo 'aXb(c)*[$' > b")
    expect_equal(await _found(site, "a.b(c)*[$", literal=True), ["a"], "the files")


async def check_case_counts_unless_ignored(site: Site) -> None:
    """Upper and lower case differ, unless they are ignored."""
    await site.bash("echo Needle > a; echo needle > b; echo ÄRGER > c")
    expect_equal(await _found(site, "needle"), ["b"], "with case")
    expect_equal(await _found(site, "NEEDLE", ignore_case=True), ["a", "b"], "without case")
    expect_equal(await _found(site, "ärger", ignore_case=True), ["c"], "without case, beyond ASCII")


async def check_patterns_are_no_options(site: Site) -> None:
    """A pattern or a glob that begins with a dash is no option."""
    await site.bash("echo 'x --files -e y' > a; echo x > b")
    expect_equal(await _found(site, "--files"), ["a"], "the files with --files")
    expect_equal(await _found(site, "-e"), ["a"], "the files with -e")
    expect_equal(await _found(site, "x", globs=("--hidden",)), [], "the files that are called --hidden")


async def check_globs_choose_files(site: Site) -> None:
    """Globs choose files; a leading ``!`` leaves out; a slash ties them to the path."""
    await _needles(site, "a.py", "b.txt", "sub/c.py", "sub/d.txt")
    expect_equal(await _found(site, "needle", globs=("*.py",)), ["a.py", "sub/c.py"], "with *.py")
    expect_equal(await _found(site, "needle", globs=("!*.py",)), ["b.txt", "sub/d.txt"], "without *.py")
    expect_equal(await _found(site, "needle", globs=("*.py", "!sub/**")), ["a.py"], "with *.py, without sub")
    expect_equal(await _found(site, "needle", globs=("/sub/*.txt",)), ["sub/d.txt"], "with /sub/*.txt")


async def check_one_file_is_searched(site: Site) -> None:
    """The path may be a file."""
    await site.bash("echo needle > a; echo needle > b")
    expect_equal(
        (await site.executor.grep(_query(site, "needle", path=site.path("b")))).lines[0].path, site.path("b"), "path"
    )


async def check_context_surrounds_matches(site: Site) -> None:
    """Context shows the lines around a match, marked as such, each line once."""
    await site.bash("seq 1 20 > n")
    lines = (await site.executor.grep(_query(site, "^(10|12)$", context=2))).lines
    shown = [(line.number, line.text, line.is_match) for line in lines]
    wanted = [(number, b"%d" % number, number in {10, 12}) for number in range(8, 15)]
    expect_equal(shown, wanted, "the lines")


async def check_matches_are_bounded(site: Site) -> None:
    """At most ``max_matches`` matches come, over all files, and the answer says that there are more."""
    await site.bash("seq 1 100 > f1; seq 1 100 > f2; seq 1 100 > f3")
    result = await site.executor.grep(_query(site, "^[0-9]+$", max_matches=7))
    expect_equal((len(result.lines), result.truncated), (7, "matches"), "matches and mark")
    exact = await site.executor.grep(_query(site, "^100$", max_matches=3))
    expect_equal((len(exact.lines), exact.truncated), (3, None), "as many matches as the limit, all there are")


async def check_bytes_are_bounded(site: Site) -> None:
    """The text of an answer has at most ``max_bytes``, and the answer says that there is more."""
    await site.executor.write_file(site.path("f"), b"".join(b"needle %0200d\n" % i for i in range(1, 201)))
    result = await site.executor.grep(_query(site, "needle", max_bytes=5000))
    size = sum(len(line.text) for line in result.lines)
    expect(0 < size <= 5000, f"The text has {size} bytes for a limit of 5000.")
    expect_equal(result.truncated, "bytes", "the mark")


async def check_long_lines_are_cut(site: Site) -> None:
    """A line longer than ``max_line_bytes`` is cut, and says so."""
    await site.executor.write_file(site.path("f"), b"needle" + b"x" * 300_000 + b"\nneedle\n")
    lines = (await site.executor.grep(_query(site, "needle", max_line_bytes=100))).lines
    expect_equal([(line.number, line.cut) for line in lines], [(1, True), (2, False)], "the lines")
    expect(
        len(lines[0].text) <= 100 and lines[0].text.startswith(b"needle"), f"The cut line is {lines[0].text[:200]!r}."
    )


async def check_bad_patterns_are_rejected(site: Site) -> None:
    """A pattern or a glob that is not one is Rejected, not an empty answer."""
    await site.bash("echo x > a")
    for pattern in ("(", "[a", "a{2,1}", "\\p{Nonsense}"):
        with refused(Rejected, what=f"the pattern {pattern!r}"):
            await site.executor.grep(_query(site, pattern))
    with refused(Rejected, what="the glob '{a'"):
        await site.executor.grep(_query(site, "x", globs=("{a",)))


async def check_searching_nowhere_is_not_found(site: Site) -> None:
    """A search in a directory that is not there is NotFound; out of the workspace PathRefused."""
    with refused(NotFound, what="grep in a missing directory"):
        await site.executor.grep(_query(site, "x", path=site.path("nowhere")))
    with refused(NotFound, what="search_files in a missing directory"):
        await site.executor.search_files("x", path=site.path("nowhere"))
    with refused(PathRefused, what="grep in /etc"):
        await site.executor.grep(_query(site, "root", path="/etc"))


async def check_content_that_is_no_utf8_is_found(site: Site) -> None:
    """Lines and names that are no UTF-8 come back with their bytes."""
    await site.executor.write_file(site.path("n\udcff"), b"caf\xe9 needle \xff\n")
    lines = (await site.executor.grep(_query(site, "needle"))).lines
    expect_equal(
        [(line.path, line.text) for line in lines], [(site.path("n\udcff"), b"caf\xe9 needle \xff")], "the line"
    )


async def check_ignored_files_are_left_out(site: Site) -> None:
    """What .gitignore leaves out is not searched, unless asked for."""
    await site.bash("mkdir .git; echo 'build/\n*.log' > .gitignore")
    await _needles(site, "a", "x.log", "sub/y.log", "build/z")
    expect_equal(await _found(site, "needle"), ["a"], "without ignored files")
    everything = await _found(site, "needle", include_ignored=True)
    expect_equal(everything, ["a", "build/z", "sub/y.log", "x.log"], "with ignored files")


async def check_hidden_files_are_searched(site: Site) -> None:
    """Hidden files are searched, the .git directory never."""
    await _needles(site, ".env", ".github/ci", ".git/config")
    expect_equal(await _found(site, "needle"), [".env", ".github/ci"], "the files")
    expect_equal(await _found(site, "needle", include_ignored=True), [".env", ".github/ci"], "with ignored files")


async def check_search_follows_no_symlinks(site: Site) -> None:
    """Symlinks are not followed by searches."""
    await site.bash(
        "mkdir real; echo needle > real/file; ln -s real way; ln -s real/file link; ln -s /etc etc; ln -s . self"
    )
    expect_equal(await _found(site, "needle"), ["real/file"], "the files")
    expect_equal(await _found(site, "root"), [], "what is found outside")


async def check_unreadable_files_are_told(site: Site) -> None:
    """A file that cannot be read is told, and the others are searched."""
    await site.bash("echo needle > a; echo needle > b; chmod 0 b")
    if await site.bash("cat b 2>/dev/null; true"):
        raise CheckSkipped("commands run as a user who may read everything here")
    result = await site.executor.grep(_query(site, "needle"))
    expect_equal([line.path for line in result.lines], [site.path("a")], "the files")
    expect(result.errors, "The file that could not be read is not told.")


async def _ranked(site: Site, query: str, limit: int = 50) -> list[str]:
    result = await site.executor.search_files(query, path=site.directory, limit=limit)
    scores = [match.score for match in result.matches]
    expect_equal(scores, sorted(scores, reverse=True), "the scores, best first")
    return [match.path.removeprefix(f"{site.directory}/") for match in result.matches]


async def check_files_are_found_by_their_characters(site: Site) -> None:
    """A path that holds the characters of the query in order matches; another does not."""
    await site.bash(
        "mkdir -p src/engine tests; touch src/engine/leases.py src/engine/steps.py tests/test_leases.py README.md"
    )
    expect("src/engine/leases.py" in await _ranked(site, "senlea"), "'senlea' does not find src/engine/leases.py.")
    expect_equal(await _ranked(site, "READ"), ["README.md"], "the matches of READ")
    expect_equal(await _ranked(site, "qqzz"), [], "the matches of qqzz")


async def check_better_matches_come_first(site: Site) -> None:
    """A name that is the query comes before names that hold it, and those before scattered characters."""
    await site.bash("mkdir -p m/a/i n; touch m/a/i/n.py main.py n/my_main.py xmain.pyc")
    expect_equal((await _ranked(site, "main.py"))[0], "main.py", "the best match")
    ranked = await _ranked(site, "main")
    expect(ranked.index("n/my_main.py") < ranked.index("m/a/i/n.py"), f"Scattered characters come first: {ranked}.")


async def check_an_empty_query_matches_every_path(site: Site) -> None:
    """An empty query matches every path."""
    await site.bash("mkdir sub; touch a b sub/c")
    expect({"a", "b", "sub/c"} <= set(await _ranked(site, "")), "An empty query leaves files out.")


async def check_file_matches_are_bounded(site: Site) -> None:
    """At most ``limit`` paths come, and the answer says that there are more."""
    await site.bash(f"touch {' '.join(f'file{i}' for i in range(1, 31))}")
    result = await site.executor.search_files("file", path=site.directory, limit=5)
    expect_equal((len(result.matches), result.truncated), (5, True), "matches and mark")
    result = await site.executor.search_files("file", path=site.directory, limit=100)
    expect_equal((len(result.matches), result.truncated), (30, False), "matches and mark with room for all")
    expect(result.searched >= 30, f"{result.searched} paths were looked at.")
