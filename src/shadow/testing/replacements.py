"""Checks of search_replace: literal, exact, refused where it is not clear."""

from shadow.core.errors import EmptySearch, IdenticalReplacement, LimitExceeded, TextNotFound, TextNotUnique
from shadow.testing.contract import expect_equal, refused
from shadow.testing.site import Site

BOM = b"\xef\xbb\xbf"


async def _replaced(site: Site, content: bytes, old: str, new: str) -> bytes:
    path = site.path("text")
    await site.executor.write_file(path, content)
    replacement = await site.executor.search_replace(path, old=old, new=new)
    after = (await site.executor.read_file(path)).content
    expect_equal(replacement.size_bytes, len(after), "the size returned")
    return after


async def check_one_occurrence_is_replaced(site: Site) -> None:
    """The one occurrence is replaced, and where it began is told."""
    path = site.path("text")
    await site.executor.write_file(path, b"one\ntwo\nthree\n")
    replacement = await site.executor.search_replace(path, old="two\nth", new="2\n3")
    expect_equal((replacement.path, replacement.line, replacement.size_bytes), (path, 2, 11), "what was returned")
    expect_equal((await site.executor.read_file(path)).content, b"one\n2\n3ree\n", "the file")


async def check_new_text_is_literal(site: Site) -> None:
    """What other tools expand in a replacement is written as it is."""
    for new in ("$&", "$1", "${1}", "\\1", "\\g<0>", "\\n", "$$", "$`", "%s", "&", "{0}"):
        expect_equal(await _replaced(site, b"a X b", "X", new), b"a " + new.encode() + b" b", f"replaced by {new!r}")


async def check_old_text_is_literal(site: Site) -> None:
    """What is special in patterns is searched for as it is."""
    for old in (".*", "[a]", "(x)", "^a$", "a|b", "\\d", "\\", "$", "?+", "a\tb"):
        after = await _replaced(site, b"axb 1 -" + old.encode() + b"- 2", old, "NEW")
        expect_equal(after, b"axb 1 -NEW- 2", f"{old!r} replaced")


async def check_everything_else_stays(site: Site) -> None:
    """CRLF, a byte order mark, bytes that are no UTF-8, NUL and a missing final line end stay as they are."""
    content = BOM + b"a\r\nX\r\n\xff\xfe \0 caf\xe9\r\n\n\rlast"
    expect_equal(await _replaced(site, content, "X", "Y"), content.replace(b"X", b"Y"), "the file")


async def check_line_ends_are_not_translated(site: Site) -> None:
    """LF in the text does not match CRLF in the file, and CRLF in the text matches and is written."""
    with refused(TextNotFound, what="LF searched for in a file with CRLF"):
        await _replaced(site, b"a\r\nb\r\n", "a\nb", "x")
    expect_equal(await _replaced(site, b"a\r\nb\r\n", "a\r\nb", "x\r\ny\n"), b"x\r\ny\n\r\n", "the file")


async def check_text_may_be_deleted(site: Site) -> None:
    """Replaced by nothing, the text is gone; the whole content may go."""
    expect_equal(await _replaced(site, b"keep drop keep", " drop", ""), b"keep keep", "a part")
    expect_equal(await _replaced(site, b"all", "all", ""), b"", "all of it")


async def check_unicode_is_exact(site: Site) -> None:
    """Characters are compared by their bytes: no normal form, no case, no width is taken for another."""
    composed, decomposed = "é", "e\u0301"
    after = await _replaced(site, f"{decomposed} {composed} 😀".encode(), composed, "ÿ")
    expect_equal(after, f"{decomposed} ÿ 😀".encode(), "the file")


async def check_an_empty_search_is_refused(site: Site) -> None:
    """An empty search is refused, in an empty file too."""
    for content in (b"text", b""):
        with refused(EmptySearch, what="an empty search"):
            await _replaced(site, content, "", "x")


async def check_an_identical_replacement_is_refused(site: Site) -> None:
    """Replacing a text by itself is refused."""
    with refused(IdenticalReplacement, what="an identical replacement"):
        await _replaced(site, b"same", "same", "same")


async def check_missing_text_is_refused(site: Site) -> None:
    """Text that is not there is refused, in an empty file too; case and space count."""
    for content in (b"Some Text", b""):
        with refused(TextNotFound, what="missing text"):
            await _replaced(site, content, "some text", "x")


async def check_ambiguous_text_is_refused_with_its_lines(site: Site) -> None:
    """Text that is there more than once is refused, with the line where each occurrence starts."""
    with refused(TextNotUnique, what="text on three lines") as refusal:
        await _replaced(site, b"x\na x\n\nb\nx x\n", "x", "y")
    expect_equal(refusal.error.details.get("lines"), [1, 2, 5, 5], "the lines")
    with refused(TextNotUnique, what="text over two lines") as refusal:
        await _replaced(site, b"a\nb\n-\na\nb\n", "a\nb", "y")
    expect_equal(refusal.error.details.get("lines"), [1, 4], "the lines of a text over two lines")


async def check_overlapping_occurrences_count(site: Site) -> None:
    """Occurrences that overlap are two."""
    with refused(TextNotUnique, what="overlapping text") as refusal:
        await _replaced(site, b"-\naaa\n", "aa", "b")
    expect_equal(refusal.error.details.get("lines"), [2, 2], "the lines")


async def check_a_refusal_changes_nothing(site: Site) -> None:
    """A refused replacement leaves content, time and inode as they were."""
    await site.bash("printf 'a a' > text; touch -d @1000000000 text")
    before = await site.bash("stat -c '%i %Y %s' text")
    for old, new in (("", "x"), ("a", "a"), ("b", "c"), ("a", "b")):
        with refused(EmptySearch, IdenticalReplacement, TextNotFound, TextNotUnique, what=f"{old!r} by {new!r}"):
            await site.executor.search_replace(site.path("text"), old=old, new=new)
    expect_equal(await site.bash("stat -c '%i %Y %s' text"), before, "inode, time and size")


async def check_replacing_keeps_the_mode(site: Site) -> None:
    """A replacement keeps the file's mode, its executable bit too."""
    await site.bash("printf 'echo old' > script; chmod 0751 script")
    await site.executor.search_replace(site.path("script"), old="old", new="new")
    expect_equal(await site.bash("stat -c %a script; cat script"), b"751\necho new", "mode and content")


async def check_replacing_follows_a_symlink(site: Site) -> None:
    """A replacement through a symlink changes what it leads to."""
    await site.bash("printf old > file; ln -s file link")
    await site.executor.search_replace(site.path("link"), old="old", new="new")
    expect_equal(await site.bash("readlink link; cat file"), b"file\nnew", "link and file")


async def check_too_large_files_are_refused(site: Site) -> None:
    """A file above 64 MiB is refused, and not read into memory first."""
    await site.bash("truncate -s 67108865 large")
    with refused(LimitExceeded, what="a replacement in a file above 64 MiB"):
        await site.executor.search_replace(site.path("large"), old="a", new="b")
