"""Checks of git: what differs, in any repository, without changing anything."""

from shadow.core.errors import (
    AlreadyExists,
    NotARepository,
    NotFound,
    PathRefused,
    Rejected,
    UnbornHead,
)
from shadow.core.git import ChangeKind, GitHead
from shadow.testing.contract import each_refused, expect, expect_equal, refused
from shadow.testing.site import Site

NAMES = (
    "plain.txt", "with space", "-leading", "--", "HEAD", "main", "new\nline", "tab\there", "quo\"te'", "back`tick", "$&",
    "(paren)", ":(glob)**", ":!x", "*", "[a]", "é", "e\u0301", "😀", "back\\slash", "latin\udce9", "#hash", " leading", "a=b",
)  # fmt: skip


async def make_repository(site: Site, name: str = "repo", *, commit: bool = True) -> str:
    """A repository with one committed file ``tracked`` of three lines; its path in the workspace."""
    more = "printf '1\\n2\\n3\\n' > tracked; git add tracked; git commit -qm first" if commit else "true"
    await site.bash(
        f"set -e; mkdir -p '{name}'; cd '{name}'; git init -q; git symbolic-ref HEAD refs/heads/main;"
        f" git config user.name Setup; git config user.email setup@example.org; {more}"
    )
    return site.path(name)


async def write_in(site: Site, repository: str, name: str, content: bytes) -> str:
    path = f"{repository}/{name}"
    await site.executor.write_file(path, content)
    return path


async def check_a_clean_repository_has_no_changes(site: Site) -> None:
    """A clean work tree has an empty status, diff and list of changes."""
    repository = await make_repository(site)
    status = await site.executor.git_status(repository)
    expect_equal((status.root, status.head.branch, status.entries), (repository, "main", ()), "the status")
    expect_equal((status.in_progress, status.upstream, status.truncated), (None, None, False), "the rest of it")
    diff = await site.executor.git_diff(repository)
    expect_equal((diff.content, diff.base, diff.truncated), (b"", status.head.commit, False), "the diff")
    expect_equal((await site.executor.git_file_changes(repository)).changes, (), "the changes")


async def check_status_tells_index_and_work_tree_apart(site: Site) -> None:
    """Status tells what is staged, what is not, what was renamed and what is untracked."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; printf 'long enough to be found\\nagain\\n' > old; echo x > gone; git add .; git commit -qm more;"
        " git mv old new; echo staged >> tracked; git add tracked; echo more >> tracked; rm gone; mkdir d; echo u > d/u;"
        " echo ignored > .gitignore; echo i > ignored"
    )
    status = await site.executor.git_status(repository)
    found = {
        entry.path.removeprefix(repository + "/"): (
            entry.old_path and entry.old_path.removeprefix(repository + "/"),
            entry.index,
            entry.work_tree,
        )
        for entry in status.entries
    }
    wanted = {
        "new": ("old", ChangeKind.RENAMED, None),
        "tracked": (None, ChangeKind.MODIFIED, ChangeKind.MODIFIED),
        "gone": (None, None, ChangeKind.DELETED),
        "d/u": (None, None, ChangeKind.UNTRACKED),
        ".gitignore": (None, None, ChangeKind.UNTRACKED),
    }
    expect_equal(found, wanted, "the entries")
    few = await site.executor.git_status(repository, limit=2)
    expect_equal((len(few.entries), few.truncated), (2, True), "a status of two entries")


async def check_file_changes_count_lines(site: Site) -> None:
    """File changes have kind, counts and whether a file is binary; untracked files are included, ignored ones not."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; seq 50 > moves; printf '\\0\\1' > bin; echo x > gone; git add .; git commit -qm more; git mv moves moved;"
        " echo tail >> moved; printf '\\0\\2' > bin; rm gone; printf '1\\nzwei\\n3\\n' > tracked; printf 'a\\nb' > fresh;"
        " echo no > .gitignore; echo i > no; ln -s x link"
    )
    changes = await site.executor.git_file_changes(repository)
    found = [(c.path.removeprefix(repository + "/"), c.kind, c.added, c.removed, c.binary) for c in changes.changes]
    wanted = [
        (".gitignore", ChangeKind.ADDED, 1, 0, False),
        ("bin", ChangeKind.MODIFIED, None, None, True),
        ("fresh", ChangeKind.ADDED, 2, 0, False),
        ("gone", ChangeKind.DELETED, 0, 1, False),
        ("link", ChangeKind.ADDED, 1, 0, False),
        ("moved", ChangeKind.RENAMED, 1, 0, False),
        ("tracked", ChangeKind.MODIFIED, 1, 1, False),
    ]
    expect_equal(found, wanted, "the changes")
    old = next(change.old_path for change in changes.changes if change.kind is ChangeKind.RENAMED)
    expect_equal(old, f"{repository}/moves", "where the renamed file was")
    few = await site.executor.git_file_changes(repository, limit=3)
    expect_equal((len(few.changes), few.truncated), (3, True), "three changes")


async def check_asking_changes_nothing(site: Site) -> None:
    """Status, diffs, changes, log and branches leave the index, the refs and the work tree as they were."""
    repository = await make_repository(site)
    await site.bash("cd repo; echo s > staged; git add staged; echo u > untracked; echo m >> tracked; touch tracked")
    state = (
        "cd repo; cat .git/index .git/HEAD | sha256sum; find . -type f | sort | xargs -d '\\n' stat -c '%n %i %y %s'"
    )
    before = await site.bash(state)
    await site.executor.git_status(repository)
    await site.executor.git_diff(repository)
    await site.executor.git_diff(repository, base=None)
    await site.executor.git_file_changes(repository)
    await site.executor.git_log(repository)
    await site.executor.git_branches(repository)
    expect_equal(await site.bash(state), before, "the files of the repository")


async def check_a_diff_can_be_applied(site: Site) -> None:
    """A diff against HEAD, applied to a clean checkout, gives the same files: untracked, binary and odd names too."""
    repository = await make_repository(site)
    await site.bash("cd repo; seq 20 > moves; git add .; git commit -qm more; git mv moves moved; rm tracked")
    for index, name in enumerate(NAMES):
        await write_in(site, repository, name, b"\0bin" + bytes([index]) if index % 3 else b"text\r\nno end")
    diff = await site.executor.git_diff(repository)
    expect(not diff.truncated, "A small diff was cut.")
    await site.executor.write_file(site.path("patch"), diff.content)
    await site.bash("git clone -q repo copy; cd copy; git apply --whitespace=nowarn ../patch; rm -rf .git")
    await site.bash("diff -r --exclude=.git repo copy")


async def check_a_diff_against_the_index_leaves_out_what_is_staged(site: Site) -> None:
    """With ``base=None`` staged changes are left out, later ones and untracked files are shown."""
    repository = await make_repository(site)
    await site.bash("cd repo; echo staged >> tracked; git add tracked; echo later >> tracked; echo u > untracked")
    diff = await site.executor.git_diff(repository, base=None)
    expect(b"+later" in diff.content and b"+u" in diff.content, f"Something is missing: {diff.content!r}.")
    expect(b"+staged" not in diff.content, "What is staged is shown.")
    expect_equal(diff.base, None, "the base")


async def check_a_diff_against_a_base_shows_commits_and_changes(site: Site) -> None:
    """Against a base, commits since then and the work tree count together; with merge_base not what the base did since."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; git checkout -qb work; echo w > committed; git add .; git commit -qm work; git checkout -q main;"
        " echo m > on-main; git add .; git commit -qm main; git checkout -q work; echo u > untracked"
    )
    first = (await site.bash("cd repo; git rev-parse work~1")).decode().strip()
    exact = await site.executor.git_file_changes(repository, base="main")
    names = [(c.path.removeprefix(repository + "/"), c.kind) for c in exact.changes]
    added, deleted = ChangeKind.ADDED, ChangeKind.DELETED
    expect_equal(names, [("committed", added), ("on-main", deleted), ("untracked", added)], "changes against main")
    forked = await site.executor.git_file_changes(repository, base="main", merge_base=True)
    names = [(c.path.removeprefix(repository + "/"), c.kind) for c in forked.changes]
    expect_equal((names, forked.base), ([("committed", added), ("untracked", added)], first), "changes since the fork")
    diff = await site.executor.git_diff(repository, base="main", merge_base=True)
    expect(b"on-main" not in diff.content and b"+w" in diff.content, f"Another diff: {diff.content!r}.")


async def check_a_diff_is_bounded_and_says_so(site: Site) -> None:
    """A diff stops exactly at its limit of bytes and says that it was cut."""
    repository = await make_repository(site)
    await site.bash("cd repo; seq 300000 > big")
    whole = await site.executor.git_diff(repository, limit_bytes=16 * 1024 * 1024)
    expect(not whole.truncated and len(whole.content) > 2_000_000, "The whole diff is not whole.")
    for limit in (1, 1000, 1_000_000, len(whole.content) - 1):
        part = await site.executor.git_diff(repository, limit_bytes=limit)
        expect_equal(part.content, whole.content[:limit], f"the diff cut at {limit}")
        expect(part.truncated, f"A diff cut at {limit} does not say so.")
    same = await site.executor.git_diff(repository, limit_bytes=len(whole.content))
    expect_equal(same.truncated, False, "whether a diff of exactly the limit was cut")


async def check_a_diff_of_chosen_paths_takes_them_literally(site: Site) -> None:
    """``paths`` choose files and directories by name, never by pattern."""
    repository = await make_repository(site)
    for name in NAMES:
        await write_in(site, repository, name, b"x\n")
    for name in NAMES:
        diff = await site.executor.git_diff(repository, paths=[f"{repository}/{name}"])
        expect_equal(diff.content.count(b"diff --git "), 1, f"files in the diff of {name!a}")
    everything = await site.executor.git_diff(repository, paths=[repository])
    expect_equal(everything.content.count(b"diff --git "), len(NAMES), "files in the diff of the whole repository")


async def check_an_empty_repository_works(site: Site) -> None:
    """Before the first commit: status, diff, changes and branches work, log says unborn, a commit is the first one."""
    repository = await make_repository(site, commit=False)
    await write_in(site, repository, "a", b"1\n")
    expect_equal((await site.executor.git_status(repository)).head, GitHead(branch="main", commit=None), "HEAD")
    expect(b"+1" in (await site.executor.git_diff(repository)).content, "The diff lacks the file.")
    changes = await site.executor.git_file_changes(repository)
    expect_equal([(c.kind, c.added) for c in changes.changes], [(ChangeKind.ADDED, 1)], "the changes")
    expect_equal((await site.executor.git_branches(repository)).branches, (), "the branches")
    with refused(UnbornHead, what="the log of an unborn branch"):
        await site.executor.git_log(repository)
    with refused(UnbornHead, what="a branch at an unborn HEAD"):
        await site.executor.git_create_branch("other", repository)
    with refused(AlreadyExists, what="the unborn branch itself"):
        await site.executor.git_create_branch("main", repository, checkout=True)
    moved = await site.executor.git_create_branch("other", repository, checkout=True)
    expect_equal(moved, GitHead(branch="other", commit=None), "HEAD on another unborn branch")
    head = await site.executor.git_commit("first", repository)
    expect_equal(head, (await site.executor.git_status(repository)).head, "HEAD after the first commit")
    (commit,) = (await site.executor.git_log(repository)).commits
    expect_equal((commit.id, commit.parents), (head.commit, ()), "the first commit")


async def check_a_subdirectory_names_its_repository(site: Site) -> None:
    """Any directory of a work tree names the repository, the nearest one; paths are the workspace's either way."""
    outer = await make_repository(site)
    await site.bash("cd repo; mkdir -p 'deep/ (x)/sub'; echo x > 'deep/ (x)/f'; ln -s deep link")
    for where in (outer, f"{outer}/deep/ (x)/sub", f"{outer}/link/ (x)"):
        status = await site.executor.git_status(where)
        expect_equal((status.root, next(e.path for e in status.entries)), (outer, f"{outer}/deep/ (x)/f"), where)
    inner = await make_repository(site, "repo/inner")
    await write_in(site, inner, "tracked", b"changed")
    changes = (await site.executor.git_file_changes(inner)).changes
    expect_equal([change.path for change in changes], [f"{inner}/tracked"], "the changes of the inner one")


async def check_what_is_no_repository_is_said(site: Site) -> None:
    """Where there is no work tree every call says so; where there is no directory it says that."""
    await site.bash("mkdir plain fake fake/.git; git init -q --bare bare; echo 'gitdir: nowhere' > plain/x")
    executor = site.executor
    for name in ("plain", "fake", "bare"):
        where = site.path(name)
        await each_refused(
            {
                "status": executor.git_status(where),
                "diff": executor.git_diff(where),
                "changes": executor.git_file_changes(where),
                "log": executor.git_log(where),
                "branches": executor.git_branches(where),
                "create": executor.git_create_branch("x", where),
                "checkout": executor.git_checkout("main", where),
                "commit": executor.git_commit("x", where),
            },
            NotARepository,
            what=f"in {name}",
        )
    with refused(NotFound, what="a directory that is not there"):
        await executor.git_status(site.path("missing"))
    with refused(PathRefused, what="a directory outside"):
        await executor.git_status("/")


async def check_a_worktree_and_a_submodule_are_repositories(site: Site) -> None:
    """A linked work tree and a submodule, whose ``.git`` is a file, work like any other."""
    await make_repository(site)
    await make_repository(site, "lib")
    await site.bash(
        "cd repo; git worktree add -q ../tree -b tree; git -c protocol.file.allow=always submodule --quiet add ../lib sub;"
        " git -C sub config user.name x; git -C sub config user.email x@example.org; git commit -qm sub"
    )
    for name in ("tree", "repo/sub"):
        where = site.path(name)
        await write_in(site, where, "tracked", b"changed in " + name.encode())
        expect_equal(len((await site.executor.git_file_changes(where)).changes), 1, f"the changes in {name}")
        await site.executor.git_commit("inside", where)
        expect_equal((await site.executor.git_status(where)).entries, (), f"the status of {name} after a commit")
    changed = (await site.executor.git_file_changes(site.path("repo"))).changes
    expect_equal([change.path for change in changed], [site.path("repo/sub")], "the changes around the submodule")


async def check_git_leaves_no_commands_behind(site: Site) -> None:
    """Git operations do not show among the workspace's commands."""
    repository = await make_repository(site)
    before = [command.id for command in await site.executor.list_commands()]
    await site.executor.git_status(repository)
    await site.executor.git_diff(repository)
    expect_equal([command.id for command in await site.executor.list_commands()], before, "the commands")


async def check_bounds_of_git_are_rejected(site: Site) -> None:
    """Limits and times out of their bounds are Rejected."""
    repository = await make_repository(site)
    executor = site.executor
    await each_refused(
        {
            "no entries": executor.git_status(repository, limit=0),
            "too many": executor.git_file_changes(repository, limit=10**9),
            "no bytes": executor.git_diff(repository, limit_bytes=0),
            "too many bytes": executor.git_diff(repository, limit_bytes=10**12),
            "negative lines": executor.git_diff(repository, context_lines=-1),
            "a negative skip": executor.git_log(repository, skip=-1),
            "no time": executor.git_branches(repository, timeout_s=0),
            "a time that is none": executor.git_status(repository, timeout_s=float("nan")),
        },
        Rejected,
        what="was accepted",
    )


NEEDS = {function: ("git",) for name, function in list(globals().items()) if name.startswith("check_")}
