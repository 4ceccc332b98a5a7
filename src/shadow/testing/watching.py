"""Checks of watching: every change is told or its miss is, and nothing that nobody wants to hear."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shadow.core.errors import NotADirectory, NotFound, PathRefused
from shadow.core.git import GitPerson
from shadow.core.watching import ChangeKind, ChangesMissed, FileChange, FileChanges, Watching
from shadow.execution.interface import WatchEvent
from shadow.testing.contract import (
    DEADLINE_S,
    CheckSkipped,
    ContractViolation,
    closed_after,
    expect,
    expect_equal,
    refused,
)
from shadow.testing.site import Site

CREATED, MODIFIED, DELETED, RENAMED = ChangeKind.CREATED, ChangeKind.MODIFIED, ChangeKind.DELETED, ChangeKind.RENAMED
Told = tuple[ChangeKind, str]


@dataclass(slots=True)
class Watcher:
    """What one watch has told so far; paths without the check's own directory."""

    site: Site
    events: AsyncIterator[WatchEvent]
    changes: list[FileChange] = field(default_factory=list[FileChange])
    missed: list[str] = field(default_factory=list[str])

    async def next(self) -> WatchEvent | None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                event = await anext(self.events, None)
        except TimeoutError:
            raise ContractViolation(f"Nothing more was told in time; so far: {self.told()[-20:]}.") from None
        if isinstance(event, FileChanges):
            self.changes += event.changes
        elif isinstance(event, ChangesMissed):
            self.missed.append(event.reason)
        return event

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            expect(await self.next() is not None, f"The watch ended; so far: {self.told()[-20:]}.")

    async def until_told(self, kind: ChangeKind, name: str) -> None:
        await self.until(lambda: (kind, name) in self.told())

    async def told_up_to_now(self) -> list[Told]:
        """All that was told, up to a change that is made now."""
        name = f"mark{len(self.changes)}-{len(self.missed)}"
        await self.site.bash(f": > {name}")
        await self.until_told(CREATED, name)
        return [(kind, path) for kind, path in self.told() if not path.startswith("mark")]

    def told(self) -> list[Told]:
        return [(change.kind, self._short(change.path)) for change in self.changes]

    def sources(self) -> dict[str, str]:
        """Of what was renamed: where it is, and where it was."""
        return {
            self._short(change.path): self._short(change.source) for change in self.changes if change.source is not None
        }

    def _short(self, path: str) -> str:
        return path.removeprefix(f"{self.site.directory}/")


@asynccontextmanager
async def watching(site: Site, path: str | None = None) -> AsyncGenerator[Watcher]:
    async with closed_after(site.executor.watch(site.directory if path is None else path)) as events:
        watcher = Watcher(site, events)
        expect_equal(await watcher.next(), Watching(), "the first event")
        yield watcher


async def check_changes_of_files_are_told(site: Site) -> None:
    """Creating, writing, changing the mode of and deleting a file are told, with paths from the root."""
    await site.bash("mkdir sub; printf old > sub/file; printf old > mode; printf old > gone")
    async with watching(site) as watcher:
        await site.bash(": > new; printf more >> sub/file; chmod 0700 mode; rm gone")
        await watcher.told_up_to_now()
        expect_equal(
            set(watcher.told()) - {(MODIFIED, "new")} - {t for t in watcher.told() if t[1].startswith("mark")},
            {(CREATED, "new"), (MODIFIED, "sub/file"), (MODIFIED, "mode"), (DELETED, "gone")},
            "what was told",
        )
        expect(
            all(change.path.startswith(f"{site.directory}/") for change in watcher.changes),
            "A path is not from the root.",
        )
        expect(not any(change.is_directory for change in watcher.changes), "A file is called a directory.")


async def check_writes_of_the_executor_are_told_as_what_they_are(site: Site) -> None:
    """A new file by write_file is created, an old one modified; what else that needs is not told."""
    await site.executor.write_file(site.path("old"), b"1")
    async with watching(site) as watcher:
        await site.executor.write_file(site.path("new"), b"x")
        await site.executor.write_file(site.path("old"), b"2")
        told = await watcher.told_up_to_now()
        expect_equal(
            [t for t in told if t != (MODIFIED, "new")], [(CREATED, "new"), (MODIFIED, "old")], "what was told"
        )


async def check_renames_are_told_with_both_names(site: Site) -> None:
    """A rename within what is watched is one change; a move in or out of it is a creation or a deletion."""
    await site.bash("mkdir in out; printf 1 > in/a; printf 2 > out/coming; printf 3 > in/going; mkdir in/sub")
    async with watching(site, site.path("in")) as watcher:
        await site.bash("mv in/a in/sub/b; mv out/coming in/came; mv in/going out/gone; : > in/done")
        await watcher.until_told(CREATED, "in/done")
        told = [t for t in watcher.told() if t[1] != "in/done"]
        expect_equal(told, [(RENAMED, "in/sub/b"), (CREATED, "in/came"), (DELETED, "in/going")], "what was told")
        expect_equal(watcher.sources(), {"in/sub/b": "in/a"}, "where it was")


async def check_renamed_directories_are_followed(site: Site) -> None:
    """A directory's rename is one change; later changes in it are told under its new name."""
    await site.bash("mkdir -p old/deep/er; : > old/deep/er/file")
    async with watching(site) as watcher:
        await site.bash("mv old new")
        await watcher.until_told(RENAMED, "new")
        expect_equal(watcher.sources(), {"new": "old"}, "where it was")
        expect(watcher.changes[-1].is_directory, "It is not called a directory.")
        await site.bash("printf x > new/deep/er/file; mkdir old; : > old/other")
        await watcher.until_told(CREATED, "old/other")
        told = await watcher.told_up_to_now()
        expect((MODIFIED, "new/deep/er/file") in told, f"The change in it was not told: {told}.")
        expect((CREATED, "new/deep") not in told, "What was in it before is told as new.")


async def check_what_is_made_in_new_directories_is_told(site: Site) -> None:
    """What is made in a directory that was made just before is told, at any depth and speed."""
    async with watching(site) as watcher:
        await site.bash("for i in {1..20}; do mkdir -p d$i/a/b/c; : > d$i/a/b/c/file; done")
        for number in range(1, 21):
            await watcher.until_told(CREATED, f"d{number}/a/b/c/file")
        told = watcher.told()
        expect((CREATED, "d20/a/b") in told, f"A directory between was not told: {told[-10:]}.")
        await site.bash("printf x >> d7/a/b/c/file; rm -r d8")
        await watcher.until_told(MODIFIED, "d7/a/b/c/file")
        await watcher.until_told(DELETED, "d8")


async def check_ignored_files_are_not_told(site: Site) -> None:
    """What .gitignore files name is left out, nested and negated rules as in git, and so is .git itself."""
    await site.bash(
        "mkdir -p .git sub/build logs; printf '*.log\\nbuild/\\n!keep.log\\n/top\\n' > .gitignore; "
        "printf '!sub.log\\nown\\n' > sub/.gitignore"
    )
    async with watching(site) as watcher:
        await site.bash(
            ": > a.log; : > keep.log; : > sub/sub.log; : > sub/own; : > own; : > top; : > sub/top; : > logs/x.log; "
            ": > .git/index; mkdir build; : > build/out; : > sub/build/out; mkdir -p new/build; : > new/build/out"
        )
        told = await watcher.told_up_to_now()
        wanted = {"keep.log", "sub/sub.log", "own", "sub/top", "new"}
        expect_equal({path for _, path in told}, wanted, "whose changes were told")


async def check_changed_rules_hold_from_then_on(site: Site) -> None:
    """A change of a .gitignore is told as missed changes, and its new rules hold after that."""
    await site.bash("mkdir -p out lib; printf 'out\\n' > .gitignore")
    async with watching(site) as watcher:
        await site.bash("printf 'lib\\n' > .gitignore")
        await watcher.until(lambda: watcher.missed)
        await site.bash(": > lib/unheard; : > out/heard")
        await watcher.until_told(CREATED, "out/heard")
        expect((CREATED, "lib/unheard") not in await watcher.told_up_to_now(), "An ignored file was told.")


async def check_too_many_changes_are_told_as_missed(site: Site) -> None:
    """A flood of changes is told as missed, also to who does not read meanwhile; then it goes on as before."""
    # Made before, since a slow disk makes them one by one as fast as they can be told; their modes it changes at once.
    await site.bash("mkdir flood; cd flood; for i in {1..20000}; do : > f$i; done")

    async def goes_on(watcher: Watcher) -> bool:
        missed, file = len(watcher.missed), f"after/all/file{len(watcher.missed)}"
        await site.bash(f"mkdir -p after/all; : > {file}")
        await watcher.until(lambda: (CREATED, file) in watcher.told() or len(watcher.missed) > missed)
        return (CREATED, file) in watcher.told()

    async with watching(site) as watcher:
        await site.bash("chmod -R u+x flood")
        await watcher.until(lambda: watcher.missed)
        while not await goes_on(watcher):
            pass  # the end of the flood was told as missed too, and what was made just then with it
        await site.bash("printf x > flood/f1")
        await watcher.until_told(MODIFIED, "flood/f1")


async def check_git_operations_are_told_as_missed(site: Site) -> None:
    """While a git operation of the executor works nothing is told; one ChangesMissed follows, then all goes on."""
    if not site.executor.capabilities.git:
        raise CheckSkipped("the implementation does not claim git")
    agent = GitPerson(name="Agent", email="agent@example.org")
    await site.bash("git init -q -b main; printf 1 > file; mkdir sub; : > sub/f")
    await site.executor.git_commit("first", site.directory, author=agent)
    await site.executor.git_create_branch("other", site.directory, checkout=True)
    await site.bash("printf 2 > file; git rm -rq sub; mkdir new; : > new/f")
    await site.executor.git_commit("second", site.directory, author=agent)
    async with watching(site) as watcher:
        await site.executor.git_checkout("main", site.directory)
        await watcher.until(lambda: watcher.missed)
        await site.bash(": > sub/after")
        await watcher.until_told(CREATED, "sub/after")
        expect_equal(len(watcher.missed), 1, "how often missed changes were told")
        expect((MODIFIED, "file") not in watcher.told(), "What git changed was told one by one.")


async def check_looking_at_git_disturbs_nobody(site: Site) -> None:
    """Git operations that change nothing are neither told nor told as missed."""
    if not site.executor.capabilities.git:
        raise CheckSkipped("the implementation does not claim git")
    await site.bash("git init -q; printf 1 > file")
    async with watching(site) as watcher:
        await site.executor.git_status(site.directory)
        await site.executor.git_diff(site.directory, base=None)
        expect_equal(await watcher.told_up_to_now(), [], "what was told")
        expect_equal(watcher.missed, [], "what was missed")


async def check_several_watch_at_once(site: Site) -> None:
    """Each of several watchers is told everything below its own directory, and one that leaves disturbs no other."""
    await site.bash("mkdir one two")
    async with watching(site) as all_, watching(site, site.path("one")) as one:
        async with watching(site, site.path("two")):
            await site.bash(": > one/a; : > two/b")
        await site.bash(": > one/c")
        await all_.until_told(CREATED, "one/c")
        await one.until_told(CREATED, "one/c")
        expect((CREATED, "two/b") in all_.told(), "The watcher of all missed something.")
        expect((CREATED, "two/b") not in one.told(), "A watcher was told of what is not below its directory.")


async def check_a_watch_ends_with_its_directory(site: Site) -> None:
    """A watch ends where its directory is deleted, moved, or a directory above it is."""
    for end in ("rm -r a", "mv a/b a/x; rm -r a", "mv a x; rm -r x"):
        await site.bash("mkdir -p a/b/c; : > a/b/c/file")
        async with watching(site, site.path("a/b")) as watcher:
            await site.bash(end)
            while await watcher.next() is not None:
                pass


async def check_watches_need_a_directory(site: Site) -> None:
    """Watching what is missing is NotFound, a file NotADirectory, and what lies outside the workspace PathRefused."""
    await site.bash("touch file; ln -s /etc out")
    for path, error in (
        (site.path("missing"), NotFound),
        (site.path("file"), NotADirectory),
        ("..", PathRefused),
        ("/etc", PathRefused),
        (site.path("out"), PathRefused),
    ):
        with refused(error, what=f"watching {path}"):
            await anext(site.executor.watch(path))


async def check_symlinks_are_not_watched_through(site: Site) -> None:
    """A symlink is told as itself; changes behind it are not, unless they are below what is watched anyway."""
    await site.bash("mkdir in out; ln -s ../out in/there")
    async with watching(site, site.path("in")) as watcher:
        await site.bash(": > out/unheard; ln -s ../out in/new; : > out/unheard2; : > in/done")
        await watcher.until_told(CREATED, "in/done")
        expect_equal(
            [t for t in watcher.told() if t[0] is CREATED], [(CREATED, "in/new"), (CREATED, "in/done")], "what was told"
        )
        expect(not any(change.is_directory for change in watcher.changes), "A symlink is called a directory.")


async def check_every_name_is_told_as_it_is(site: Site) -> None:
    """Names with line ends, quotes and bytes that are not UTF-8 are told as they are."""
    names = ["line\nend", 'quo"te', "data: x", "é", "caf\udce9"]
    probe = await site.run(site.spec("bash", "-c", "touch $'\\xff' 2>/dev/null && rm $'\\xff'"))
    if probe.exit_code != 0:
        names.pop()
    async with watching(site) as watcher:
        for name in names:
            await site.executor.write_file(site.path(name), b"")
        for name in names:
            await watcher.until_told(CREATED, name)


NEEDS = {function: ("watching",) for name, function in list(globals().items()) if name.startswith("check_")}
