"""Checks of git's history and branches: any legal name, refusals that move nothing, what is in progress."""

from shadow.core.errors import (
    AlreadyExists,
    Conflict,
    GitInProgress,
    LocalChanges,
    Rejected,
    RevisionNotFound,
)
from shadow.core.git import ChangeKind, GitHead, GitProgress
from shadow.testing.contract import each_refused, expect_equal, refused
from shadow.testing.git import make_repository, write_in
from shadow.testing.site import Site

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
    await write_in(site, repository, "tracked", b"detached")
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


NEEDS = {function: ("git",) for name, function in list(globals().items()) if name.startswith("check_")}
