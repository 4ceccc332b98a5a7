"""Checks of listing directories: complete, sorted, in pages, following nothing."""

from shadow.core.errors import NotADirectory
from shadow.core.files import FileKind, FileStat
from shadow.testing.contract import CheckSkipped, expect, expect_equal, refused
from shadow.testing.site import Site


async def _names(site: Site, *, recursive: bool = False, limit: int = 10_000, path: str | None = None) -> list[str]:
    """The names below the check's directory, read page by page."""
    return [entry.path.removeprefix(f"{site.directory}/") for entry in await _entries(site, recursive, limit, path)]


async def _entries(site: Site, recursive: bool = False, limit: int = 10_000, path: str | None = None) -> list[FileStat]:
    entries: list[FileStat] = []
    after = None
    while True:
        page = await site.executor.list_directory(path or site.directory, recursive=recursive, after=after, limit=limit)
        expect(len(page.entries) <= limit, f"{len(page.entries)} entries came for a limit of {limit}.")
        entries.extend(page.entries)
        if page.next_after is None:
            return entries
        expect(page.entries, "A page that is not the last one is empty.")
        after = page.next_after


async def check_a_listing_is_complete(site: Site) -> None:
    """A listing holds every entry of every kind, hidden ones too, with what stat tells."""
    await site.bash("mkdir sub .git; touch .hidden file sub/below; ln -s sub way; ln -s nowhere dangling; mkfifo pipe")
    entries = {entry.path.removeprefix(f"{site.directory}/"): entry for entry in await _entries(site)}
    wanted = {
        ".git": FileKind.DIRECTORY,
        ".hidden": FileKind.FILE,
        "dangling": FileKind.SYMLINK,
        "file": FileKind.FILE,
        "pipe": FileKind.OTHER,
        "sub": FileKind.DIRECTORY,
        "way": FileKind.SYMLINK,
    }
    expect_equal({name: entry.kind for name, entry in entries.items()}, wanted, "the kinds")
    expect_equal((entries["way"].target, entries["dangling"].target), ("sub", "nowhere"), "the targets")


async def check_a_recursive_listing_is_complete(site: Site) -> None:
    """A recursive listing holds the whole tree, directories too, and enters no symlink."""
    await site.bash("mkdir -p a/b/c empty; touch a/1 a/b/2 a/b/c/.3; ln -s .. a/up; ln -s /etc etc")
    wanted = ["a", "a/1", "a/b", "a/b/2", "a/b/c", "a/b/c/.3", "a/up", "empty", "etc"]
    expect_equal(await _names(site, recursive=True), wanted, "the tree")


async def check_ignored_files_are_listed(site: Site) -> None:
    """What .gitignore and its kin leave out is listed all the same."""
    await site.bash("mkdir .git node_modules; echo '*' > .gitignore; echo '*' > .ignore; touch ignored node_modules/x")
    wanted = [".git", ".gitignore", ".ignore", "ignored", "node_modules", "node_modules/x"]
    expect_equal(await _names(site, recursive=True), wanted, "the tree")


async def check_a_listing_is_sorted(site: Site) -> None:
    """Entries are sorted by the code points of each name, directory by directory."""
    await site.bash("mkdir -p a Z é; touch a/x a-b a.b 'a b' Z/1 Z/10 Z/2 é/x ./~ ab; touch a/_ 'a!'")
    names = await _names(site, recursive=True)
    expect_equal(names, sorted(names, key=lambda name: name.split("/")), "the order")
    expect_equal(len(names), 15, "how many entries there are")


async def check_pages_join_to_the_whole(site: Site) -> None:
    """Pages of any size join to the whole listing, without holes and without repeats."""
    await site.bash("mkdir -p a/b c; touch a/1 a/2 a/3 a/4 a/5 a/6 a/7 a/8 a/9 a/b/1 a/b/2 a/b/3 a/b/4 a/b/5")
    await site.bash("touch a-1 a-2 a-3 c/x d")
    for recursive in (False, True):
        whole = await _names(site, recursive=recursive)
        for limit in (1, 2, 3, 7):
            expect_equal(await _names(site, recursive=recursive, limit=limit), whole, f"pages of {limit}")


async def check_a_page_continues_after_a_deleted_entry(site: Site) -> None:
    """A listing goes on where it stopped, though the entry where it stopped is gone."""
    await site.bash("touch a b c d e f")
    page = await site.executor.list_directory(site.directory, limit=3)
    await site.bash("rm c")
    rest = await site.executor.list_directory(site.directory, after=page.next_after)
    expect_equal([entry.path for entry in rest.entries], [site.path(name) for name in "def"], "the next page")


async def check_large_directories_are_listed(site: Site) -> None:
    """Nothing is left out of a directory of thousands of files."""
    await site.bash(f"touch {' '.join(f'file-{i}' for i in range(1000, 4000))}")
    expect_equal(await _names(site, limit=1000), [f"file-{i}" for i in range(1000, 4000)], "the names")


async def check_an_empty_directory_lists_nothing(site: Site) -> None:
    """An empty directory has no entries, and that is no error."""
    page = await site.executor.list_directory(site.directory)
    expect_equal((page.entries, page.next_after), ((), None), "the listing")


async def check_only_directories_are_listed(site: Site) -> None:
    """A file is no directory; a symlink to a directory inside leads to its entries."""
    await site.bash("mkdir real; touch file real/x; ln -s real way")
    with refused(NotADirectory, what="listing a file"):
        await site.executor.list_directory(site.path("file"))
    expect_equal(len(await _entries(site, path=site.path("way"))), 1, "how many entries the linked directory has")


async def check_strange_names_are_listed(site: Site) -> None:
    """Names with any byte are listed, and each path that is listed can be read."""
    names = ("\udcff\udcfe", "new\nline", "tab\t", " ", "*", "'", '"', "\\", "\u00fc", "u\u0308", "%2e", "日本")
    await site.run(site.spec("touch", *(f"{name}." for name in names)))
    entries = await _entries(site)
    expect_equal(len(entries), 12, "how many names there are")
    expect(
        any(entry.path.endswith("/\udcff\udcfe.") for entry in entries),
        "A name that is no UTF-8 is not listed as it is.",
    )
    for entry in entries:
        expect_equal((await site.executor.stat(entry.path)).kind, FileKind.FILE, f"the kind of {entry.path!r}")


async def check_a_directory_that_cannot_be_read_is_told(site: Site) -> None:
    """A directory that cannot be read is an entry with its error, and the rest is listed."""
    await site.bash("mkdir -p closed open; touch closed/x open/y; chmod 0 closed")
    try:
        if await site.bash("ls closed 2>/dev/null; true"):
            raise CheckSkipped("commands run as a user who may read everything here")
        entries = {entry.path: entry for entry in await _entries(site, recursive=True)}
        expect_equal(sorted(entries), [site.path(name) for name in ("closed", "open", "open/y")], "the entries")
        expect(entries[site.path("closed")].error, "The entry of a directory that cannot be read tells no error.")
    finally:
        await site.bash("chmod 700 closed")
