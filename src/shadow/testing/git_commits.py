"""Checks of git's commits: any file, any message, exactly what was chosen, once."""

from shadow.core.errors import (
    NotFound,
    NothingToCommit,
    Rejected,
    StaleEpoch,
)
from shadow.core.git import GitPerson
from shadow.testing.contract import each_refused, expect_equal, refused
from shadow.testing.git import NAMES, make_repository, write_in
from shadow.testing.site import Site

AGENT = GitPerson(name="Ägent (Ünit) $& `x`", email="agent+1@example.org")
USER = GitPerson(name='O\'Neil "Q" 😀', email="user@example.org")
MESSAGES = (
    "plain", "fix(parser): `x` $& \"quotes\" 'and' é 😀", "# only\n# comments", "two\n\n\n\nparagraphs   \n\n", "-F /etc/passwd",
    "\n\nleading lines", "crlf\r\n\r\nbody\r\n", "--amend", "%H %n %x00", "-----BEGIN", "a\n---\ndiff --git a/b b/b\n",
)  # fmt: skip


async def check_any_file_name_is_committed(site: Site) -> None:
    """Files of any legal name are committed, listed and looked at under that name."""
    repository = await make_repository(site)
    for name in NAMES:
        await write_in(site, repository, name, name.encode("utf-8", "surrogateescape"))
    status = await site.executor.git_status(repository)
    wanted = sorted(f"{repository}/{name}" for name in NAMES)
    expect_equal(sorted(entry.path for entry in status.entries), wanted, "the status")
    changes = await site.executor.git_file_changes(repository)
    expect_equal(sorted(change.path for change in changes.changes), wanted, "the changes")
    await site.executor.git_commit("all", repository)
    listed = await site.bash("cd repo; git ls-tree -rz --name-only HEAD")
    names = sorted([*(name.encode("utf-8", "surrogateescape") for name in NAMES), b"tracked"])
    expect_equal(sorted(listed.split(b"\0")[:-1]), names, "what was committed")


async def check_any_message_is_kept(site: Site) -> None:
    """A message is kept byte by byte: comment lines, blank lines, CRLF, options, quotes; only a last line end is added."""
    repository = await make_repository(site)
    for index, message in enumerate(MESSAGES):
        await write_in(site, repository, "tracked", str(index).encode())
        head = await site.executor.git_commit(message, repository)
        wanted = message if message.endswith("\n") else message + "\n"
        raw = await site.bash("cd repo; git cat-file commit HEAD")
        expect_equal(raw.partition(b"\n\n")[2], wanted.encode(), f"the message {message!r} in the repository")
        (commit,) = (await site.executor.git_log(repository, limit=1)).commits
        expect_equal((commit.id, commit.message), (head.commit, wanted), f"the message {message!r} in the log")


async def check_authors_and_co_authors_are_written_down(site: Site) -> None:
    """The author is author and committer; co-authors are trailers, added to trailers that are there."""
    repository = await make_repository(site)
    trailer = f"Co-authored-by: {USER.name} <{USER.email}>\n"
    for index, (message, wanted) in enumerate(
        (("subject", f"subject\n\n{trailer}"), ("s\n\nFixes: #1\n", f"s\n\nFixes: #1\n{trailer}"))
    ):
        await write_in(site, repository, "tracked", str(index).encode())
        await site.executor.git_commit(message, repository, author=AGENT, co_authors=[USER])
        (commit,) = (await site.executor.git_log(repository, limit=1)).commits
        expect_equal((commit.author, commit.committer, commit.message), (AGENT, AGENT, wanted), "the commit")
    await write_in(site, repository, "tracked", b"own")
    await site.executor.git_commit("by the repository's own identity", repository)
    (commit,) = (await site.executor.git_log(repository, limit=1)).commits
    expect_equal(commit.author, GitPerson(name="Setup", email="setup@example.org"), "the author by the settings")
    await site.bash("cd repo; git config --unset user.name; echo z > tracked")
    with refused(Rejected, what="a commit by nobody"):
        await site.executor.git_commit("nobody", repository)


async def check_impossible_commits_are_rejected(site: Site) -> None:
    """An empty message, NUL, half characters and impossible people are Rejected, and nothing is committed."""
    repository = await make_repository(site)
    await write_in(site, repository, "tracked", b"x")
    commit = site.executor.git_commit
    await each_refused(
        {
            "an empty message": commit("", repository),
            "a blank message": commit(" \n\t\n", repository),
            "a message with NUL": commit("a\0b", repository),
            "half a character": commit("a\ud800", repository),
            "no path": commit("a", repository, paths=[]),
            "a name with a line end": commit("a", repository, author=GitPerson(name="a\nb", email="a@b")),
            "a name of nothing": commit("a", repository, author=GitPerson(name=" .,", email="a@b")),
            "an address with an end": commit("a", repository, co_authors=[GitPerson(name="a", email="a>b")]),
        },
        Rejected,
        what="was committed",
    )
    expect_equal(len((await site.executor.git_log(repository)).commits), 1, "the commits")


async def check_nothing_to_commit_is_said(site: Site) -> None:
    """A commit without changes is refused, in an empty repository too; ignored files are no changes."""
    repository = await make_repository(site)
    await site.bash("cd repo; echo ignored > .git/info/exclude; echo x > ignored; touch tracked")
    with refused(NothingToCommit, what="a commit without changes"):
        await site.executor.git_commit("nothing", repository)
    empty = await make_repository(site, "empty", commit=False)
    with refused(NothingToCommit, what="a first commit without files"):
        await site.executor.git_commit("nothing", empty)


async def check_chosen_paths_alone_are_committed(site: Site) -> None:
    """With paths exactly these are committed as they are in the work tree; what else is staged stays staged."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; mkdir d; echo 1 > d/a; echo 1 > gone; git add .; git commit -qm more; rm gone; echo s > staged;"
        " git add staged; echo 2 > d/a; echo n > d/new; echo t >> tracked; echo g > ':(glob)**'"
    )
    names = ("d", "gone", ":(glob)**")
    await site.executor.git_commit("chosen", repository, paths=[f"{repository}/{name}" for name in names])
    listed = await site.bash("cd repo; git show --format= --name-status -z HEAD")
    expect_equal(listed, b"A\0:(glob)**\0M\0d/a\0A\0d/new\0D\0gone\0", "what was committed")
    state = await site.bash("cd repo; git status --porcelain")
    expect_equal(state, b"A  staged\n M tracked\n", "what is left")


async def check_bad_paths_are_refused(site: Site) -> None:
    """Paths that are not there, ignored, outside the repository or no paths are refused, and nothing is committed."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; echo ignored > .gitignore; echo i > ignored; mkdir real; echo r > real/r; ln -s real link"
    )
    await each_refused(
        {"missing": site.executor.git_commit("m", repository, paths=[f"{repository}/no"])}, NotFound, what=""
    )
    await each_refused(
        {
            name: site.executor.git_commit("m", repository, paths=[f"{repository}/{name}"])
            for name in ("ignored", "../repo/tracked", "../other", "link/r")
        }
        | {"absolute": site.executor.git_commit("m", repository, paths=["/etc/passwd"])}
        | {"diff": site.executor.git_diff(repository, paths=[site.path("other")])},
        Rejected,
        what="was taken",
    )
    expect_equal(len((await site.executor.git_log(repository)).commits), 1, "the commits")


async def check_line_ends_are_committed_as_they_are(site: Site) -> None:
    """CRLF is committed as it is, also where core.safecrlf warns of it; .gitattributes are obeyed."""
    repository = await make_repository(site)
    await site.bash("cd repo; git config core.safecrlf true; printf '*.txt text\\n' > .gitattributes")
    await write_in(site, repository, "raw", b"a\r\nb\nc\r\n")
    await write_in(site, repository, "norm.txt", b"a\r\nb\r\n")
    await site.executor.git_commit("ends", repository)
    expect_equal(await site.bash("cd repo; git cat-file blob HEAD:raw"), b"a\r\nb\nc\r\n", "the file as it is")
    expect_equal(await site.bash("cd repo; git cat-file blob HEAD:norm.txt"), b"a\nb\n", "the file that is text")


async def check_git_operations_happen_once(site: Site) -> None:
    """A repeated commit, branch or checkout of the same operation does nothing and is answered as the first was."""
    repository = await make_repository(site)
    await write_in(site, repository, "tracked", b"once")
    executor, operation = site.executor, site.operation()
    first = await executor.git_commit("once", repository, operation=operation)
    await write_in(site, repository, "tracked", b"twice")
    expect_equal(await executor.git_commit("once", repository, operation=operation), first, "the second answer")
    expect_equal(len((await executor.git_log(repository)).commits), 2, "the commits")
    operation = site.operation()
    made = await executor.git_create_branch("b", repository, operation=operation)
    expect_equal(await executor.git_create_branch("b", repository, operation=operation), made, "the branch, again")
    operation = site.operation()
    there = await executor.git_checkout("b", repository, operation=operation)
    await executor.git_checkout("main", repository)
    expect_equal(await executor.git_checkout("b", repository, operation=operation), there, "the checkout, again")
    expect_equal((await executor.git_status(repository)).head.branch, "main", "the branch, which stayed")


async def check_git_respects_epochs(site: Site) -> None:
    """Of an older epoch nothing is committed, and reading still works."""
    repository = await make_repository(site)
    await write_in(site, repository, "tracked", b"x")
    with refused(StaleEpoch, what="a commit of an older epoch"):
        await site.executor.git_commit("x", repository, operation=site.operation(epoch=site.executor.epoch - 1))
    expect_equal(len((await site.executor.git_log(repository)).commits), 1, "the commits")


NEEDS = {function: ("git",) for name, function in list(globals().items()) if name.startswith("check_")}
