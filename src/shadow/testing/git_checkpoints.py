"""Checks of checkpoints: the whole work tree goes down and comes back, the user's git is not touched, nothing hostile runs."""

from dataclasses import replace

from shadow.core.errors import AlreadyExists, Conflict, GitFailed, Rejected, RevisionNotFound, StaleEpoch
from shadow.core.git import ChangeKind, GitHead
from shadow.testing.contract import each_refused, expect, expect_equal, refused
from shadow.testing.git import NAMES, make_repository, write_in
from shadow.testing.git_safety import HOOKS
from shadow.testing.site import Site

# Everything of git's that a checkpoint must leave alone.
_USERS_GIT = (
    "cd repo; sha256sum .git/index .git/HEAD; cat .git/MERGE_HEAD 2>/dev/null; git stash list; git reflog --all;"
    " git for-each-ref refs/heads refs/tags refs/stash; find .git -name '*.lock'"
)
_FILES = "cd repo; find . -path ./.git -prune -o \\( -type f -printf '%P %m ' -exec sha256sum {} + -o -printf '%P %y %l\\n' \\)"


async def _listing(site: Site) -> list[bytes]:
    """Every file but git's, with mode and content, and every link and directory."""
    return sorted((await site.bash(_FILES)).splitlines())


async def check_a_checkpoint_brings_everything_back(site: Site) -> None:
    """Changed, new, deleted and staged files come back as they were, with HEAD, branch and index; later ones are gone."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; mkdir d; echo 1 > d/a; echo x > gone; ln -s tracked link; echo '*.log' > .gitignore; git add .;"
        " git commit -qm more; rm gone; echo 2 > d/a; chmod +x tracked; echo s > staged; git add staged; echo u > new;"
        " ln -sf d link; echo before > kept.log"
    )
    head = (await site.executor.git_status(repository)).head
    before = await _listing(site)
    checkpoint = await site.executor.git_checkpoint("one", repository=repository)
    expect_equal((checkpoint.name, checkpoint.branch, checkpoint.head), ("one", "main", head.commit), "the checkpoint")
    await site.bash(
        "cd repo; git checkout -qb other; git add -A; git commit -qm later; rm -r d; echo file > d; rm link; mkdir link;"
        " echo l > link/l; chmod -x tracked; echo 3 > new; mkdir -p deep/er; echo n > deep/er/n; git branch -D main -q"
    )
    expect_equal(await site.executor.git_restore(checkpoint, repository=repository), head, "where HEAD is")
    expect_equal(await _listing(site), before, "the files")
    status = await site.executor.git_status(repository)
    found = {(entry.path.removeprefix(f"{repository}/"), entry.index, entry.work_tree) for entry in status.entries}
    wanted = {
        ("d/a", None, ChangeKind.MODIFIED),
        ("gone", None, ChangeKind.DELETED),
        ("link", None, ChangeKind.MODIFIED),
        ("tracked", None, ChangeKind.MODIFIED),
        ("staged", None, ChangeKind.UNTRACKED),
        ("new", None, ChangeKind.UNTRACKED),
    }
    expect_equal((status.head, found), (head, wanted), "the status, where all is uncommitted")
    committed = await site.executor.git_commit("the work", repository)
    expect_equal(committed.branch, "main", "the branch of a later commit")
    log = await site.executor.git_log(repository)
    expect_equal([commit.message for commit in log.commits], ["the work\n", "more\n", "first\n"], "the history")


async def check_a_checkpoint_leaves_the_users_git_alone(site: Site) -> None:
    """Index, HEAD, branches, stash and reflogs are the same after a checkpoint, in the middle of a merge in conflict too."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; echo ours > tracked; git commit -qam ours; git checkout -qb side HEAD~1; echo theirs > tracked;"
        " git commit -qam theirs; git stash list; echo s > tracked; git stash -q; git checkout -q main;"
        " git merge -q side >/dev/null || true; echo staged > staged; git add staged; echo more >> staged"
    )
    before, files = await site.bash(_USERS_GIT), await _listing(site)
    first = await site.executor.git_checkpoint("a", repository=repository)
    second = await site.executor.git_checkpoint("b", repository=repository)
    expect_equal((await site.bash(_USERS_GIT), await _listing(site)), (before, files), "the user's git, and the files")
    trees = (await site.bash(f"cd repo; git rev-parse {first.commit}: {second.commit}:")).split()
    expect_equal(trees[0], trees[1], "the tree of two checkpoints of the same")
    shown = await site.bash(f"cd repo; git show {first.commit}:tracked; git show {first.commit}:staged")
    expect(b"<<<<<<<" in shown and shown.endswith(b"staged\nmore\n"), f"The checkpoint holds {shown!r}.")
    await site.bash("cd repo; git checkout -q -f side; git branch -q -D main")
    await site.executor.git_restore(first, repository=repository)
    expect_equal(await _listing(site), files, "the files, in conflict as they were")
    expect_equal((await site.executor.git_status(repository)).in_progress, None, "the merge, which has ended")


async def check_operations_in_progress_are_ended(site: Site) -> None:
    """A merge, rebase, cherry-pick, revert or bisect in progress is ended, and HEAD is on its branch again."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; for n in one two three; do echo $n > tracked; git commit -qam $n; done;"
        " git checkout -qb side HEAD~2; echo other > tracked; git commit -qam other; git checkout -q main"
    )
    checkpoint = await site.executor.git_checkpoint("one", repository=repository)
    head = GitHead(branch="main", commit=checkpoint.head)
    for line in (
        "git merge side",
        "git rebase side",
        "git cherry-pick side",
        "git revert --no-edit HEAD~1",
        "git bisect start HEAD HEAD~3",
        "git checkout --detach HEAD~1",
    ):
        await site.bash(f"cd repo; {line} >/dev/null 2>&1 || true; echo junk > junk")
        expect_equal(await site.executor.git_restore(checkpoint, repository=repository), head, f"HEAD after {line}")
        status = await site.executor.git_status(repository)
        expect_equal((status.head, status.in_progress, status.entries), (head, None, ()), f"the status after {line}")
    left = await site.bash(
        "cd repo; git bisect log 2>/dev/null; git for-each-ref refs/bisect; ls -d .git/rebase* 2>/dev/null; true"
    )
    expect_equal(left, b"", "what is left of the operations")


async def check_unborn_and_detached_heads_come_back(site: Site) -> None:
    """A checkpoint before the first commit, and one of a detached HEAD, bring back just that."""
    repository = await make_repository(site, commit=False)
    await write_in(site, repository, "a", b"1")
    unborn = await site.executor.git_checkpoint("unborn", repository=repository)
    expect_equal((unborn.branch, unborn.head), ("main", None), "the checkpoint of an unborn branch")
    await site.executor.git_commit("first", repository)
    first = (await site.executor.git_status(repository)).head.commit
    await site.bash("cd repo; git checkout -q --detach; echo 2 > a")
    detached = await site.executor.git_checkpoint("detached", repository=repository)
    expect_equal((detached.branch, detached.head), (None, first), "the checkpoint of a detached HEAD")
    for checkpoint, content in ((unborn, b"1"), (detached, b"2\n"), (unborn, b"1")):
        wanted = GitHead(branch=checkpoint.branch, commit=checkpoint.head)
        expect_equal(await site.executor.git_restore(checkpoint, repository=repository), wanted, "HEAD")
        expect_equal((await site.executor.read_file(f"{repository}/a")).content, content, "the file")
    expect_equal((await site.executor.git_branches(repository)).branches, (), "the branches before the first commit")
    await site.executor.git_commit("first again", repository)


async def check_ignored_files_stay(site: Site) -> None:
    """What the checkpoint's own rules ignore stays as it is; what only later rules ignore is gone; what is tracked counts."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; printf '*.log\\nbuild/\\n' > .gitignore; mkdir build; echo t > build/tracked; git add -f .; git commit -qm i;"
        " echo 1 > a.log; echo 1 > build/out"
    )
    checkpoint = await site.executor.git_checkpoint("one", repository=repository)
    names = await site.bash(f"cd repo; git ls-tree -r --name-only {checkpoint.commit}")
    expect_equal(names, b".gitignore\nbuild/tracked\ntracked\n", "what the checkpoint holds")
    await site.bash(
        "cd repo; echo 2 > a.log; echo 2 > build/out; echo 2 > build/tracked; printf '*.log\\nnode/\\n' > .gitignore;"
        " mkdir node; echo n > node/n; echo x > b.log"
    )
    await site.executor.git_checkpoint("two", repository=repository)
    await site.executor.git_restore(checkpoint, repository=repository)
    found = await site.bash("cd repo; cat a.log build/out build/tracked; ls -A")
    expect_equal(found, b"2\n2\nt\n.git\n.gitignore\na.log\nb.log\nbuild\ntracked\n", "the files")
    await site.bash("cd repo; rm build/tracked")
    await site.executor.git_checkpoint("three", repository=repository)
    await site.bash("cd repo; echo again > build/tracked")
    back = await site.executor.git_checkpoint("back", repository=repository)
    expect_equal(
        await site.bash(f"cd repo; git show {back.commit}:build/tracked"), b"again\n", "what was away, and is back"
    )
    await site.bash("cd repo; echo u > later; echo later >> .git/info/exclude")
    last = await site.executor.git_checkpoint("four", repository=repository)
    names = await site.bash(f"cd repo; git ls-tree -r --name-only {last.commit}; git show {last.commit}:build/tracked")
    expect_equal(names, b".gitignore\nbuild/tracked\ntracked\nagain\n", "what the last checkpoint holds")


async def check_rules_that_come_later_count(site: Site) -> None:
    """A file that a rule names by now is in no further checkpoint, also where the one before had it."""
    repository = await make_repository(site)
    await write_in(site, repository, "big.o", b"o")
    await site.executor.git_checkpoint("with", repository=repository)
    await write_in(site, repository, ".gitignore", b"*.o\n")
    without = await site.executor.git_checkpoint("without", repository=repository)
    names = await site.bash(f"cd repo; git ls-tree -r --name-only {without.commit}")
    expect_equal(names, b".gitignore\ntracked\n", "what the checkpoint holds")


async def check_any_file_name_comes_back(site: Site) -> None:
    """Files of any legal name are put down and come back."""
    repository = await make_repository(site)
    for name in (*NAMES, "git~1", "d/-x/\n"):
        await write_in(site, repository, name, name.encode("utf-8", "surrogateescape"))
    before = await _listing(site)
    checkpoint = await site.executor.git_checkpoint("names", repository=repository)
    await site.bash(
        'cd repo; find . -path ./.git -prune -o -type f -exec sh -c \'echo x > "$1"; rm -f "$1"\' sh {} \\;'
    )
    await site.executor.git_restore(checkpoint, repository=repository)
    expect_equal(await _listing(site), before, "the files")


async def check_what_lies_in_the_way_gives_way(site: Site) -> None:
    """Directories in place of files, files and links in place of directories, and directories without permissions give way."""
    repository = await make_repository(site)
    await site.bash(
        "mkdir outside; echo o > outside/a; cd repo; mkdir d e; echo a > d/a; echo b > e/b; echo f > f; echo g > g"
    )
    before = await _listing(site)
    checkpoint = await site.executor.git_checkpoint("one", repository=repository)
    await site.bash(
        "cd repo; rm f; mkdir -p f/f; echo x > f/f/f; mv d moved; ln -s moved d; rm -r e; ln -s ../outside e; rm g;"
        " mkfifo g; mkdir shut; echo s > shut/s; chmod 0 shut; mkdir closed; echo c > closed/c; chmod 555 closed"
    )
    await site.executor.git_restore(checkpoint, repository=repository)
    expect_equal(await _listing(site), before, "the files")
    expect_equal(await site.bash("ls outside; cat outside/a"), b"a\no\n", "what a link led to")


async def check_repositories_within_are_let_be(site: Site) -> None:
    """The insides of repositories within are never touched, also of one without a commit, which git cannot add."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; git init -q born; cd born; git config user.name N; git config user.email n@n; echo b > b; git add b;"
        " git commit -qm b; cd ..; git init -q unborn; echo u > unborn/u; echo n > new"
    )
    checkpoint = await site.executor.git_checkpoint("one", repository=repository)
    names = await site.bash(f"cd repo; git ls-tree -r --name-only {checkpoint.commit}")
    expect(b"new\n" in names and b"unborn" not in names, f"The checkpoint holds {names!r}.")
    await site.bash(
        "cd repo; rm new; echo 2 > born/b; echo 2 > unborn/u; git init -q later; echo l > later/l; rm -rf tracked"
    )
    await site.executor.git_restore(checkpoint, repository=repository)
    found = await site.bash("cd repo; cat born/b unborn/u later/l new tracked")
    expect_equal(found, b"2\n2\nl\nn\n1\n2\n3\n", "the files")


async def check_locks_of_a_killed_git_are_no_obstacle(site: Site) -> None:
    """Empty locks that a killed git left hinder neither a checkpoint nor the way back, and are gone then."""
    repository = await make_repository(site)
    await site.bash("cd repo; echo 1 > new; touch .git/index.lock .git/HEAD.lock .git/refs/heads/main.lock")
    checkpoint = await site.executor.git_checkpoint("one", repository=repository)
    await write_in(site, repository, "new", b"2")
    await site.executor.git_restore(checkpoint, repository=repository)
    expect_equal(await site.bash("cd repo; cat new; find .git -name '*.lock'"), b"1\n", "the file, and the locks")
    await site.executor.git_commit("after", repository)


async def check_impossible_restores_change_nothing(site: Site) -> None:
    """An unknown checkpoint, one that is not whole, a branch that is in use or cannot be made is refused, before any change."""
    repository = await make_repository(site)
    await write_in(site, repository, "new", b"1")
    good = await site.executor.git_checkpoint("one", repository=repository)
    await site.bash(
        "cd repo; echo lost > lost; git branch used; git worktree add -q ../elsewhere used; git branch a/b; git checkout -q a/b"
    )
    broken = await site.executor.git_checkpoint("two", repository=repository)
    await site.bash(
        f"cd repo; o=$(git rev-parse {broken.commit}:lost); rm -f .git/objects/${{o:0:2}}/${{o:2}}; echo 2 > new"
    )
    tree = (await site.bash("cd repo; git rev-parse HEAD:")).decode().strip()
    before = await site.bash(_USERS_GIT), await _listing(site)
    restore = site.executor.git_restore
    for error, name, checkpoint in (
        (RevisionNotFound, "no such commit", replace(good, commit="0" * 39 + "1")),
        (RevisionNotFound, "no such head", replace(good, head="0" * 39 + "1")),
        (RevisionNotFound, "a tree for a commit", replace(good, commit=tree)),
        (RevisionNotFound, "an object is gone", broken),
        (Conflict, "the branch is used", replace(good, branch="used")),
        (AlreadyExists, "the branch cannot be", replace(good, branch="a")),
        (AlreadyExists, "nor that one", replace(good, branch="a/b/c")),
        (Rejected, "a name for a commit", replace(good, commit="main")),
        (Rejected, "an odd name", replace(good, name="../x")),
        (Rejected, "an odd branch", replace(good, branch="-x")),
        (Rejected, "nowhere", replace(good, branch=None, head=None)),
    ):
        await each_refused({name: restore(checkpoint, repository=repository)}, error, what="was restored")
    expect_equal((await site.bash(_USERS_GIT), await _listing(site)), before, "git and the files after the refusals")
    for name in ("", "a/b", "..", "x.lock", "-x", "A", "a" * 65, "a\n"):
        with refused(Rejected, what=f"a checkpoint {name!r}"):
            await site.executor.git_checkpoint(name, repository=repository)


async def check_nothing_of_a_repository_is_run(site: Site) -> None:
    """Hooks, fsmonitor, editors and drivers that the repository names run neither for a checkpoint nor on the way back."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; printf '#!/bin/sh\\ntouch %s/canary\\n' \"$PWD/..\" > ../trap; chmod +x ../trap;"
        f" for hook in {HOOKS}; do cp ../trap .git/hooks/$hook; done; t=$PWD/../trap; git config core.fsmonitor $t;"
        " git config core.hooksPath $PWD/.git/hooks; git config core.sshCommand $t; git config core.editor $t;"
        " git config gpg.program $t; git config commit.gpgSign true; git config merge.evil.driver $t; git config core.pager $t;"
        " git config diff.external $t; git config diff.evil.textconv $t; git config hook.evil.command $t;"
        " git config hook.evil.event reference-transaction; printf '* diff=evil merge=evil\\n' > .gitattributes;"
        ' printf "[core]\\n\\tfsmonitor = $t\\n" > more; git config include.path $PWD/more; git config core.worktree /'
    )
    checkpoint = await site.executor.git_checkpoint("one", repository=repository)
    await write_in(site, repository, "tracked", b"x")
    await site.executor.git_checkpoint("two", repository=repository)
    await site.executor.git_restore(checkpoint, repository=repository)
    await site.executor.git_drop_checkpoints(["one"], repository=repository)
    expect_equal(await site.bash("ls canary 2>/dev/null; cat repo/tracked"), b"1\n2\n3\n", "what was run, and the file")


async def check_settings_leave_nothing_out(site: Site) -> None:
    """Settings that make git blind to modes, links or changes do not make a checkpoint blind."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; git config core.fileMode false; git config core.symlinks false; git config core.checkStat minimal;"
        " git config core.trustctime false; git config core.ignoreCase true; echo A > A; echo a > a; ln -s a l; chmod +x tracked"
    )
    before = await _listing(site)
    checkpoint = await site.executor.git_checkpoint("one", repository=repository)
    await site.bash("cd repo; rm A a l; chmod -x tracked; echo l > l")
    await site.executor.git_restore(checkpoint, repository=repository)
    expect_equal(await _listing(site), before, "the files")


async def check_content_filters_run_for_checkpoints(site: Site) -> None:
    """Content filters run, as for a commit; where one that is required fails, there is no checkpoint."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; echo '*.up filter=up' > .gitattributes; git config filter.up.clean 'tr a-z A-Z';"
        " git config filter.up.smudge 'tr A-Z a-z'; git config filter.up.required true; echo shout > a.up"
    )
    checkpoint = await site.executor.git_checkpoint("one", repository=repository)
    expect_equal(
        await site.bash(f"cd repo; git cat-file blob {checkpoint.commit}:a.up"), b"SHOUT\n", "what was put down"
    )
    await write_in(site, repository, "a.up", b"other\n")
    await site.executor.git_restore(checkpoint, repository=repository)
    expect_equal(await site.bash("cat repo/a.up"), b"shout\n", "what came back")
    await site.bash("cd repo; git config filter.up.clean 'exit 3'; echo again > a.up")
    with refused(GitFailed, what="a checkpoint whose filter fails"):
        await site.executor.git_checkpoint("two", repository=repository)


async def check_checkpoints_are_made_once_and_dropped(site: Site) -> None:
    """A repeated operation is answered as the first was; a name may be used again, and be dropped twice."""
    repository = await make_repository(site)
    operation = site.operation()
    await write_in(site, repository, "new", b"1")
    first = await site.executor.git_checkpoint("one", repository=repository, operation=operation)
    await write_in(site, repository, "new", b"2")
    again = await site.executor.git_checkpoint("one", repository=repository, operation=operation)
    expect_equal(again, first, "the second answer")
    other = await site.executor.git_checkpoint("one", repository=repository)
    expect(other.commit != first.commit, "Another checkpoint of the same name is the first one.")
    operation = site.operation()
    await site.executor.git_restore(first, repository=repository, operation=operation)
    await write_in(site, repository, "new", b"3")
    await site.executor.git_restore(first, repository=repository, operation=operation)
    expect_equal(await site.bash("cat repo/new"), b"3", "the file, which was not restored twice")
    with refused(StaleEpoch, what="a restore of an older epoch"):
        old = site.operation(epoch=site.executor.epoch - 1)
        await site.executor.git_restore(first, repository=repository, operation=old)
    for _ in range(2):
        await site.executor.git_drop_checkpoints(["one", "never"], repository=repository)
        expect_equal(await site.bash("cd repo; git for-each-ref refs/shadow"), b"", "the hidden refs")
    await site.executor.git_drop_checkpoints([], repository=repository)
    await each_refused(
        {
            "an odd name": site.executor.git_drop_checkpoints(["*"], repository=repository),
            "too many": site.executor.git_drop_checkpoints(["x"] * 1001, repository=repository),
        },
        Rejected,
        what="was dropped",
    )


NEEDS = {function: ("git",) for name, function in list(globals().items()) if name.startswith("check_")}
