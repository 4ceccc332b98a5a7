"""Checks of git: what differs, what was committed, branches; any legal name and message."""

from shadow.core.errors import (
    AlreadyExists,
    Conflict,
    GitInProgress,
    LocalChanges,
    NotARepository,
    NotFound,
    NothingToCommit,
    PathRefused,
    Rejected,
    RevisionNotFound,
    StaleEpoch,
    UnbornHead,
)
from shadow.core.git import ChangeKind, GitHead, GitPerson, GitProgress
from shadow.testing.contract import each_refused, expect, expect_equal, refused
from shadow.testing.site import Site

AGENT = GitPerson(name="Ägent (Ünit) $& `x`", email="agent+1@example.org")
USER = GitPerson(name='O\'Neil "Q" 😀', email="user@example.org")
NAMES = (
    "plain.txt", "with space", "-leading", "--", "HEAD", "main", "new\nline", "tab\there", "quo\"te'", "back`tick", "$&",
    "(paren)", ":(glob)**", ":!x", "*", "[a]", "é", "e\u0301", "😀", "back\\slash", "latin\udce9", "#hash", " leading", "a=b",
)  # fmt: skip
BRANCHES = (
    "fix(parser)",
    "käse/brot",
    "a'b",
    'a"b',
    "a`b",
    "$&",
    "😀",
    "#12",
    "a;b",
    "latin\udce9",
    "(detached)",
    "refs/x",
)
MESSAGES = (
    "plain", "fix(parser): `x` $& \"quotes\" 'and' é 😀", "# only\n# comments", "two\n\n\n\nparagraphs   \n\n", "-F /etc/passwd",
    "\n\nleading lines", "crlf\r\n\r\nbody\r\n", "--amend", "%H %n %x00", "-----BEGIN", "a\n---\ndiff --git a/b b/b\n",
)  # fmt: skip


async def make_repository(site: Site, name: str = "repo", *, commit: bool = True) -> str:
    """A repository with one committed file ``tracked`` of three lines; its path in the workspace."""
    more = "printf '1\\n2\\n3\\n' > tracked; git add tracked; git commit -qm first" if commit else "true"
    await site.bash(
        f"set -e; mkdir -p '{name}'; cd '{name}'; git init -q; git symbolic-ref HEAD refs/heads/main;"
        f" git config user.name Setup; git config user.email setup@example.org; {more}"
    )
    return site.path(name)


async def _write(site: Site, repository: str, name: str, content: bytes) -> str:
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
        await _write(site, repository, name, b"\0bin" + bytes([index]) if index % 3 else b"text\r\nno end")
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
        await _write(site, repository, name, b"x\n")
    for name in NAMES:
        diff = await site.executor.git_diff(repository, paths=[f"{repository}/{name}"])
        expect_equal(diff.content.count(b"diff --git "), 1, f"files in the diff of {name!a}")
    everything = await site.executor.git_diff(repository, paths=[repository])
    expect_equal(everything.content.count(b"diff --git "), len(NAMES), "files in the diff of the whole repository")


async def check_any_file_name_is_committed(site: Site) -> None:
    """Files of any legal name are committed, listed and looked at under that name."""
    repository = await make_repository(site)
    for name in NAMES:
        await _write(site, repository, name, name.encode("utf-8", "surrogateescape"))
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
        await _write(site, repository, "tracked", str(index).encode())
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
        await _write(site, repository, "tracked", str(index).encode())
        await site.executor.git_commit(message, repository, author=AGENT, co_authors=[USER])
        (commit,) = (await site.executor.git_log(repository, limit=1)).commits
        expect_equal((commit.author, commit.committer, commit.message), (AGENT, AGENT, wanted), "the commit")
    await _write(site, repository, "tracked", b"own")
    await site.executor.git_commit("by the repository's own identity", repository)
    (commit,) = (await site.executor.git_log(repository, limit=1)).commits
    expect_equal(commit.author, GitPerson(name="Setup", email="setup@example.org"), "the author by the settings")
    await site.bash("cd repo; git config --unset user.name; echo z > tracked")
    with refused(Rejected, what="a commit by nobody"):
        await site.executor.git_commit("nobody", repository)


async def check_impossible_commits_are_rejected(site: Site) -> None:
    """An empty message, NUL, half characters and impossible people are Rejected, and nothing is committed."""
    repository = await make_repository(site)
    await _write(site, repository, "tracked", b"x")
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


async def check_an_empty_repository_works(site: Site) -> None:
    """Before the first commit: status, diff, changes and branches work, log says unborn, a commit is the first one."""
    repository = await make_repository(site, commit=False)
    await _write(site, repository, "a", b"1\n")
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
    await _write(site, inner, "tracked", b"changed")
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


async def check_log_pages_through_history(site: Site) -> None:
    """The log goes newest first, by pages, from any revision, without what another one reaches; merges have two parents."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; for i in 1 2 3; do echo $i > tracked; git commit -qam $i; done; git checkout -qb side HEAD~1; echo s > s;"
        " git add s; git commit -qm side; git checkout -q main; git merge -q --no-ff -m merged side"
    )
    everything = (await site.executor.git_log(repository)).commits
    expect_equal(len(everything), 6, "the commits")
    expect_equal((everything[0].message, len(everything[0].parents)), ("merged\n", 2), "the merge")
    first = await site.executor.git_log(repository, limit=4)
    rest = await site.executor.git_log(repository, limit=4, skip=4)
    expect_equal((first.commits + rest.commits, first.truncated, rest.truncated), (everything, True, False), "pages")
    some = await site.executor.git_log(repository, revision="side", exclude="side~1")
    expect_equal([commit.message for commit in some.commits], ["side\n"], "one side's own commits")
    by_id = await site.executor.git_log(repository, revision=everything[0].id, limit=1)
    expect_equal(by_id.commits, everything[:1], "the log from an id")


async def check_bad_revisions_are_not_found(site: Site) -> None:
    """What names no commit is RevisionNotFound: options, files, blobs, NUL and ranges too."""
    repository = await make_repository(site)
    await site.bash("cd repo; echo x > nofile; git tag -a -m t blob $(git hash-object -w nofile)")
    revisions = (
        "",
        "no",
        "-n1",
        "--all",
        "tracked",
        "HEAD:tracked",
        "blob",
        "a\0b",
        "main..main",
        "^main",
        "HEAD~99",
        "\ud800x",
    )
    for revision in revisions:
        await each_refused(
            {
                "log": site.executor.git_log(repository, revision=revision),
                "diff": site.executor.git_diff(repository, base=revision),
                "changes": site.executor.git_file_changes(repository, base=revision),
                "checkout": site.executor.git_checkout(revision, repository),
                "create": site.executor.git_create_branch("fresh", repository, start=revision),
            },
            RevisionNotFound,
            Rejected,
            what=f"of {revision!a}",
        )
    with refused(RevisionNotFound, what="a revision that is not there"):
        await site.executor.git_log(repository, revision="no-such")


async def check_branches_of_any_name(site: Site) -> None:
    """Branches of any legal name are made, listed, gone to and left."""
    repository = await make_repository(site)
    head = (await site.executor.git_status(repository)).head
    for name in BRANCHES:
        made = await site.executor.git_create_branch(name, repository)
        expect_equal(made, GitHead(branch=name, commit=head.commit), f"the branch {name!a}")
        expect_equal((await site.executor.git_status(repository)).head, head, "HEAD, which stayed")
        expect_equal(await site.executor.git_checkout(name, repository), made, f"HEAD on {name!a}")
        expect_equal((await site.executor.git_status(repository)).head, made, f"HEAD on {name!a}, asked again")
        await site.executor.git_checkout("main", repository)
    listed = await site.executor.git_branches(repository)
    expect_equal({branch.name for branch in listed.branches}, {*BRANCHES, "main"}, "the branches")
    expect_equal((listed.head, listed.truncated), (head, False), "HEAD and whether that is all")
    few = await site.executor.git_branches(repository, limit=2)
    expect_equal((len(few.branches), few.truncated), (2, True), "two branches")


async def check_remote_branches_are_told_apart(site: Site) -> None:
    """Remote-tracking branches are listed as such, upstreams named, and ahead and behind counted."""
    await make_repository(site)
    await site.bash(
        "git clone -q repo clone; cd repo; echo r >> tracked; git commit -qam r; cd ../clone; git fetch -q;"
        " git config user.name x; git config user.email x@example.org; echo c > c; git add c; git commit -qm c"
    )
    clone = site.path("clone")
    listed = await site.executor.git_branches(clone)
    found = [(branch.name, branch.remote, branch.upstream) for branch in listed.branches]
    expect_equal(found, [("main", False, "refs/remotes/origin/main"), ("origin/main", True, None)], "the branches")
    status = await site.executor.git_status(clone)
    expect_equal((status.upstream, status.ahead, status.behind), ("origin/main", 1, 1), "the upstream")


async def check_impossible_branches_are_rejected(site: Site) -> None:
    """Names that git does not allow are Rejected; names that are taken, or in the way of others, exist already."""
    repository = await make_repository(site)
    names = ("", "-x", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock",
             "a.", "@", "a@{b", "a\nb", "a\0b", "HEAD", "\ud800", "x" * 300)  # fmt: skip
    await each_refused(
        {f"{name!a}": site.executor.git_create_branch(name, repository) for name in names}, Rejected, what="was made"
    )
    await site.executor.git_create_branch("dir/leaf", repository)
    await each_refused(
        {
            f"{name} {checkout}": site.executor.git_create_branch(name, repository, checkout=checkout)
            for name in ("main", "dir/leaf", "dir", "dir/leaf/more")
            for checkout in (False, True)
        },
        AlreadyExists,
        what="was made",
    )
    expect_equal((await site.executor.git_status(repository)).head.branch, "main", "the branch in the end")


async def check_checkout_keeps_or_refuses_local_changes(site: Site) -> None:
    """Changes that do not matter to a checkout are kept; with others, untracked ones too, it is refused and nothing moves."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; echo o > other; git add .; git commit -qm more; git checkout -qb side; echo side > tracked; echo n > new;"
        " git add .; git commit -qm side; git checkout -q main; echo kept > other"
    )
    await site.executor.git_checkout("side", repository)
    expect_equal(await site.bash("cd repo; cat other"), b"kept\n", "the change that was kept")
    await site.executor.git_checkout("main", repository)
    await site.bash("cd repo; echo mine > tracked")
    with refused(LocalChanges, what="a checkout over changes") as refusal:
        await site.executor.git_checkout("side", repository)
    expect_equal(refusal.error.details.get("paths"), ["tracked"], "the paths")
    with refused(LocalChanges, what="a branch made over changes"):
        await site.executor.git_create_branch("fresh", repository, start="side", checkout=True)
    await site.bash("cd repo; git checkout -q tracked; echo mine > new")
    with refused(LocalChanges, what="a checkout over an untracked file"):
        await site.executor.git_checkout("side", repository)
    state = await site.bash("cd repo; git symbolic-ref HEAD; git branch --list fresh; cat new other")
    expect_equal(state, b"refs/heads/main\nmine\nkept\n", "the repository after all that")


async def check_a_detached_head_is_told(site: Site) -> None:
    """A commit is gone to detached, is told as such, and takes commits; a branch is found again from there."""
    repository = await make_repository(site)
    await site.bash("cd repo; echo 2 > tracked; git commit -qam 2; git tag v1 HEAD~1")
    head = await site.executor.git_checkout("v1", repository)
    first = (await site.bash("cd repo; git rev-parse v1")).decode().strip()
    expect_equal(head, GitHead(branch=None, commit=first), "HEAD at a tag")
    expect_equal((await site.executor.git_status(repository)).head, head, "HEAD in the status")
    await _write(site, repository, "tracked", b"detached")
    made = await site.executor.git_commit("detached", repository)
    expect_equal((made.branch, (await site.executor.git_status(repository)).head), (None, made), "HEAD after a commit")
    back = await site.executor.git_checkout("main", repository)
    expect_equal(back.branch, "main", "the branch")


async def check_merges_and_rebases_in_progress_are_respected(site: Site) -> None:
    """In the middle of a merge or rebase status says so, and commit and checkout are refused."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; git checkout -qb side; echo side > tracked; git commit -qam side; git checkout -q main;"
        " echo main > tracked; git commit -qam main"
    )
    for line, what in (("git merge side", GitProgress.MERGE), ("git rebase side", GitProgress.REBASE),
                       ("git cherry-pick side", GitProgress.CHERRY_PICK)):  # fmt: skip
        await site.bash(f"cd repo; {line} >/dev/null 2>&1 || true")
        status = await site.executor.git_status(repository)
        expect_equal(status.in_progress, what, f"what is in progress after {line}")
        kinds = [(entry.index, entry.work_tree) for entry in status.entries]
        expect_equal(kinds, [(ChangeKind.UNMERGED, ChangeKind.UNMERGED)], f"the entries after {line}")
        await site.executor.git_diff(repository)
        await site.executor.git_file_changes(repository)
        await each_refused(
            {
                "commit": site.executor.git_commit("x", repository),
                "checkout": site.executor.git_checkout("side", repository),
            },
            GitInProgress,
            what=f"after {line}",
        )
        await site.bash(f"cd repo; {' '.join(line.split()[:2])} --abort")
    await site.bash(
        "cd repo; git checkout -q side; echo w > tracked; git stash -q; git checkout -q main; git stash pop || true"
    )
    with refused(Conflict, what="a commit of files in conflict"):
        await site.executor.git_commit("x", repository)


async def check_line_ends_are_committed_as_they_are(site: Site) -> None:
    """CRLF is committed as it is, also where core.safecrlf warns of it; .gitattributes are obeyed."""
    repository = await make_repository(site)
    await site.bash("cd repo; git config core.safecrlf true; printf '*.txt text\\n' > .gitattributes")
    await _write(site, repository, "raw", b"a\r\nb\nc\r\n")
    await _write(site, repository, "norm.txt", b"a\r\nb\r\n")
    await site.executor.git_commit("ends", repository)
    expect_equal(await site.bash("cd repo; git cat-file blob HEAD:raw"), b"a\r\nb\nc\r\n", "the file as it is")
    expect_equal(await site.bash("cd repo; git cat-file blob HEAD:norm.txt"), b"a\nb\n", "the file that is text")


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
        await _write(site, where, "tracked", b"changed in " + name.encode())
        expect_equal(len((await site.executor.git_file_changes(where)).changes), 1, f"the changes in {name}")
        await site.executor.git_commit("inside", where)
        expect_equal((await site.executor.git_status(where)).entries, (), f"the status of {name} after a commit")
    changed = (await site.executor.git_file_changes(site.path("repo"))).changes
    expect_equal([change.path for change in changed], [site.path("repo/sub")], "the changes around the submodule")


async def check_git_operations_happen_once(site: Site) -> None:
    """A repeated commit, branch or checkout of the same operation does nothing and is answered as the first was."""
    repository = await make_repository(site)
    await _write(site, repository, "tracked", b"once")
    executor, operation = site.executor, site.operation()
    first = await executor.git_commit("once", repository, operation=operation)
    await _write(site, repository, "tracked", b"twice")
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
    await _write(site, repository, "tracked", b"x")
    with refused(StaleEpoch, what="a commit of an older epoch"):
        await site.executor.git_commit("x", repository, operation=site.operation(epoch=site.executor.epoch - 1))
    expect_equal(len((await site.executor.git_log(repository)).commits), 1, "the commits")


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
