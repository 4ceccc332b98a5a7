"""Checks of git in a hostile repository: nothing that its settings name is run, nothing leads elsewhere, nothing hangs."""

from shadow.core.errors import GitFailed, LimitExceeded, NotARepository, PathRefused, ShadowError
from shadow.core.git import GitPerson
from shadow.testing.contract import expect, expect_equal, refused
from shadow.testing.git import make_repository
from shadow.testing.site import Site

AGENT = GitPerson(name="Agent", email="agent@example.org")

HOOKS = (
    "applypatch-msg pre-applypatch post-applypatch pre-commit pre-merge-commit prepare-commit-msg commit-msg post-commit"
    " pre-rebase post-checkout post-merge pre-push reference-transaction pre-auto-gc post-rewrite post-index-change"
    " fsmonitor-watchman"
)
_PROGRAMS = f"""
set -e
canaries=$PWD/canaries
mkdir canaries
cd repo
trap_() {{ printf '#!/bin/sh\\ntouch "%s/%s"\\n' "$canaries" "$1" > "$canaries.$1"; chmod +x "$canaries.$1"; }}
trap_ hook; trap_ hookspath; mkdir ../hooks
for hook in {HOOKS}; do cp "$canaries.hook" ".git/hooks/$hook"; cp "$canaries.hookspath" "../hooks/$hook"; done
for name in fsmonitor pager editor external driver textconv gpg ssh credential askpass alias template helper
do trap_ $name; done
printf '*.x diff=evil\\n* merge=evil\\n' > .gitattributes
echo x > a.x; git add .; git -c core.hooksPath=/dev/null commit -qm attributes
echo y > a.x; echo u > untracked.x; echo z >> tracked
"""
_SETTINGS = """
git config core.hooksPath "$PWD/../hooks"
git config core.fsmonitor "$canaries.fsmonitor"
git config core.pager "$canaries.pager"; git config pager.status true; git config pager.diff true; git config pager.log true
git config core.editor "$canaries.editor"; git config sequence.editor "$canaries.editor"
git config diff.external "$canaries.external"
git config diff.evil.command "$canaries.driver"; git config diff.evil.textconv "$canaries.textconv"
git config merge.evil.driver "$canaries.driver"
git config commit.gpgSign true; git config tag.gpgSign true; git config log.showSignature true
git config gpg.program "$canaries.gpg"; git config gpg.format openpgp
git config core.sshCommand "$canaries.ssh"; git config core.askPass "$canaries.askpass"
git config credential.helper "$canaries.credential"
git config alias.status "!$canaries.alias"; git config alias.commit "!$canaries.alias"
git config hook.evil=1.command "$canaries.hook"; git config hook.evil=1.event pre-commit
git config --add hook.evil=1.event post-index-change; git config --add hook.evil=1.event reference-transaction
git config trailer.co-authored-by.command "$canaries.helper"
"""
_DISPLAY = """
git config color.ui always; git config color.status always; git config color.diff always; git config core.quotePath true
git config diff.noprefix true; git config diff.mnemonicPrefix true; git config diff.context 0; git config diff.relative true
git config diff.wsErrorHighlight all; git config diff.colorMoved zebra; git config diff.renames false
git config diff.orderFile /dev/zero; git config diff.ignoreSubmodules all; git config diff.wordRegex .
git config diff.statNameWidth 1; git config diff.algorithm patience; git config diff.srcPrefix x/
git config status.short true; git config status.showStash true; git config status.relativePaths false
git config status.showUntrackedFiles no; git config status.branch true; git config status.renames false
git config log.date relative; git config log.decorate full; git config format.pretty oneline; git config log.follow true
git config log.abbrevCommit true; git config format.notes true; git config log.mailmap true; git config core.abbrev 4
git config i18n.commitEncoding ISO-8859-1; git config i18n.logOutputEncoding UTF-16
git config commit.cleanup strip; git config commit.template /dev/zero; git config commit.verbose true
git config commit.status true; git config core.commentChar f; git config core.safecrlf true; git config advice.addIgnoredFile true
git config core.splitIndex true; git config core.untrackedCache true; git config core.excludesFile "$PWD/tracked"
git config checkout.defaultRemote x; git config checkout.guess true; git config submodule.recurse true
"""


async def _everything(site: Site, repository: str, *, round_: str = "") -> None:
    """Every operation, each with something to do."""
    executor = site.executor
    await executor.git_status(repository)
    await executor.git_diff(repository)
    await executor.git_diff(repository, base=None)
    await executor.git_file_changes(repository)
    await executor.git_log(repository)
    await executor.git_branches(repository)
    await executor.git_create_branch(f"one{round_}", repository)
    await executor.git_create_branch(f"two{round_}", repository, checkout=True)
    await executor.write_file(f"{repository}/tracked", b"changed" + round_.encode())
    await executor.git_commit("é # all", repository, author=AGENT, co_authors=[AGENT])
    await executor.write_file(f"{repository}/chosen{round_}", b"c")
    await executor.git_commit("chosen", repository, author=AGENT, paths=[f"{repository}/chosen{round_}"])
    await executor.git_checkout("main", repository)
    await executor.git_checkout("HEAD~1", repository)
    await executor.git_checkout("main", repository)


async def check_no_program_of_the_repository_is_run(site: Site) -> None:
    """Hooks, fsmonitor, pager, editor, external diff, textconv, gpg, ssh, credential helpers and aliases are never started."""
    repository = await make_repository(site)
    await site.bash(_PROGRAMS + _SETTINGS)
    plain = await site.bash(
        "cd repo; git status >/dev/null 2>&1; git diff HEAD >/dev/null 2>&1; git -c diff.external= diff HEAD >/dev/null 2>&1;"
        " git commit --allow-empty -m x >/dev/null 2>&1; git diff --no-ext-diff >/dev/null 2>&1;"
        " ls ../canaries; rm -f ../canaries/* .git/*.lock"
    )
    for name in (b"hookspath", b"fsmonitor", b"external", b"driver", b"textconv", b"gpg"):
        expect(name in plain.split(), f"The trap {name!r} does not work: a plain git left only {plain.split()}.")
    await _everything(site, repository)
    await site.bash("cd repo; git config --unset core.hooksPath")
    await _everything(site, repository, round_="2")
    expect_equal(await site.bash("ls canaries"), b"", "the programs that were run")


async def check_display_settings_change_nothing(site: Site) -> None:
    """Colours, prefixes, encodings, orders, templates and status settings of the repository do not change any answer."""
    plain, odd = await make_repository(site, "plain"), await make_repository(site, "odd")
    names = ("é 😀", "new\nline", "moved")
    for name in ("plain", "odd"):
        await site.bash(
            f"cd {name}; seq 30 > moves; git add .; git commit -qm moves; git mv moves moved; echo x >> tracked"
        )
        await site.executor.write_file(f"{site.path(name)}/{names[0]}", b"a \nb\n")
        await site.executor.write_file(f"{site.path(name)}/{names[1]}", b"\0")
    await site.bash("cd odd;" + _DISPLAY)
    diff = (await site.executor.git_diff(plain)).content
    expect_equal((await site.executor.git_diff(odd)).content, diff, "the diff")
    wanted = [
        (c.path.removeprefix(plain), c.kind, c.added, c.removed)
        for c in (await site.executor.git_file_changes(plain)).changes
    ]
    found = [
        (c.path.removeprefix(odd), c.kind, c.added, c.removed)
        for c in (await site.executor.git_file_changes(odd)).changes
    ]
    expect_equal(found, wanted, "the changes")
    entries = [(e.path.removeprefix(plain), e.index) for e in (await site.executor.git_status(plain)).entries]
    expect_equal(
        [(e.path.removeprefix(odd), e.index) for e in (await site.executor.git_status(odd)).entries], entries, "status"
    )
    message = "fé\nfoo\n# x\n"
    await site.executor.git_commit(message, odd, author=AGENT)
    (commit,) = (await site.executor.git_log(odd, limit=1)).commits
    expect_equal((commit.message, commit.author), (message, AGENT), "the commit")
    raw = await site.bash("cd odd; git cat-file commit HEAD")
    expect(b"encoding" not in raw and message.encode() in raw, f"The commit is written otherwise: {raw!r}.")


async def check_a_work_tree_cannot_be_moved_elsewhere(site: Site) -> None:
    """``core.worktree`` and ``core.bare`` do not lead git to another directory."""
    repository = await make_repository(site)
    await site.bash(
        "mkdir elsewhere; echo secret > elsewhere/secret; cd repo; git config core.worktree ../../elsewhere"
    )
    status = await site.executor.git_status(repository)
    expect_equal((status.root, status.entries), (repository, ()), "the status")
    await site.executor.write_file(f"{repository}/mine", b"m")
    await site.executor.git_commit("mine", repository, author=AGENT)
    listed = await site.bash("git --git-dir=repo/.git ls-tree --name-only HEAD; ls elsewhere")
    expect_equal(listed, b"mine\ntracked\nsecret\n", "what was committed, and what is elsewhere")
    await site.bash("cd repo; git config --unset core.worktree; git config core.bare true")
    expect_equal((await site.executor.git_status(repository)).entries, (), "the status of what says to be bare")


async def check_a_git_directory_outside_is_refused(site: Site) -> None:
    """A ``.git`` that is a file, a link or a ``commondir`` leading out of the workspace is refused."""
    await site.bash(
        'out=$(mktemp -d); git init -q $out/r; mkdir file link common; echo "gitdir: $out/r/.git" > file/.git;'
        " ln -s $out/r/.git link/.git; git init -q common; echo $out/r/.git > common/.git/commondir; echo $out > out"
    )
    try:
        for name in ("file", "link", "common"):
            with refused(PathRefused, NotARepository, what=f"a git directory outside by {name}"):
                await site.executor.git_status(site.path(name))
            with refused(PathRefused, NotARepository, what=f"a commit outside by {name}"):
                await site.executor.git_commit("x", site.path(name), author=AGENT)
        expect_equal(await site.bash("find $(cat out)/r/.git/refs -type f"), b"", "the refs outside")
    finally:
        await site.bash("rm -rf $(cat out)")


async def check_a_partial_clone_fetches_nothing(site: Site) -> None:
    """Where objects are missing, no remote of the repository's choice is asked for them."""
    repository = await make_repository(site)
    await site.bash(
        "touch canary.trap; cd repo; echo two > tracked; git commit -qam two; blob=$(git rev-parse HEAD~1:tracked);"
        " rm -f .git/objects/${blob:0:2}/${blob:2}; git config core.repositoryFormatVersion 1;"
        " git config extensions.partialClone origin; git config remote.origin.promisor true;"
        " git config protocol.ext.allow always; git config protocol.allow always;"
        " git config remote.origin.url \"ext::sh -c 'touch $PWD/../canary'\""
    )
    with refused(GitFailed, what="a diff that lacks an object"):
        await site.executor.git_diff(repository, base="HEAD~1")
    await site.bash(
        'cd repo; git config remote.origin.url $PWD/../repo; git config remote.origin.uploadpack "touch $PWD/../canary; false"'
    )
    with refused(GitFailed, what="a diff that lacks an object, with a local remote"):
        await site.executor.git_diff(repository, base="HEAD~1")
    expect_equal(await site.bash("ls canary 2>/dev/null || true"), b"", "what the remote's program left")


async def check_settings_of_the_user_do_not_count(site: Site) -> None:
    """The user's own git configuration, ignore rules and hooks change nothing."""
    repository = await make_repository(site)
    await site.bash(
        "printf '[alias]\\nx=y\\n[core]\\nhooksPath=%s\\nexcludesFile=%s\\n[user]\\nname=Global\\nemail=g@g\\n[commit]\\n"
        "gpgSign=true\\n[gpg]\\nprogram=%s\\n' $PWD/hooks $PWD/ignore $PWD/gpg > gitconfig; mkdir hooks;"
        " printf '#!/bin/sh\\ntouch '$PWD'/canary\\nexit 1\\n' | tee hooks/pre-commit > gpg; chmod +x hooks/pre-commit gpg;"
        " echo '*' > ignore; cd repo; git config include.path $PWD/../gitconfig; git config --unset user.name; echo x > new"
    )
    expect_equal(len((await site.executor.git_status(repository)).entries), 1, "the entries of the status")
    await site.executor.git_commit("x", repository, author=AGENT)
    expect_equal(await site.bash("ls canary 2>/dev/null || true"), b"", "the programs that were run")


async def check_replaced_objects_are_not_believed(site: Site) -> None:
    """``refs/replace`` and grafts do not change what a diff or the log says."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; echo evil >> tracked; git commit -qam evil;"
        " git replace $(git rev-parse HEAD:tracked) $(git rev-parse HEAD~1:tracked)"
    )
    diff = await site.executor.git_diff(repository, base="HEAD~1")
    expect(b"+evil" in diff.content, "The change is hidden.")


async def check_alternates_and_insteadof_do_no_harm(site: Site) -> None:
    """Odd alternates and rewritten addresses neither run nor break anything."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; printf '/dev/zero\\n/proc/1/fd\\n../../nowhere\\n' > .git/objects/info/alternates;"
        ' git config core.alternateRefsCommand "touch $PWD/../canary"; git config url.ext::.insteadOf https://;'
        ' git config remote.origin.url https://example.org/; git config core.gitProxy "touch $PWD/../canary"'
    )
    await _everything_but_back(site, repository)
    expect_equal(await site.bash("ls canary 2>/dev/null || true"), b"", "the programs that were run")


async def _everything_but_back(site: Site, repository: str) -> None:
    await site.executor.write_file(f"{repository}/tracked", b"first change")
    await site.executor.git_commit("one more", repository, author=AGENT)
    await _everything(site, repository)


async def check_filters_run_and_may_fail(site: Site) -> None:
    """Content filters are run, since the content depends on them; one that fails is an error, and nothing is committed."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; echo '*.up filter=up' > .gitattributes; git config filter.up.clean 'tr a-z A-Z';"
        " git config filter.up.required true; echo shout > a.up"
    )
    await site.executor.git_commit("filtered", repository, author=AGENT)
    expect_equal(await site.bash("cd repo; git cat-file blob HEAD:a.up"), b"SHOUT\n", "the committed content")
    await site.bash("cd repo; git config filter.up.clean 'echo no >&2; exit 3'; echo again > a.up")
    with refused(GitFailed, what="a commit whose filter fails"):
        await site.executor.git_commit("fails", repository, author=AGENT)
    expect_equal(len((await site.executor.git_log(repository)).commits), 2, "the commits")


async def check_a_hung_filter_is_ended_with_its_tree(site: Site) -> None:
    """A filter that hangs is ended in time with all that it started, sessions of their own too, and no lock stays."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; echo '*.up filter=up' > .gitattributes; echo x > a.up;"
        " git config filter.up.clean \"setsid sleep 987 & echo \\$! > $PWD/../pid; trap '' TERM; sleep 988\""
    )
    for name, call in (
        ("commit", site.executor.git_commit("x", repository, author=AGENT, timeout_s=1.5)),
        (
            "chosen",
            site.executor.git_commit("x", repository, author=AGENT, paths=[f"{repository}/a.up"], timeout_s=1.5),
        ),
        ("diff", site.executor.git_diff(repository, timeout_s=1.5)),
    ):
        with refused(LimitExceeded, what=f"a {name} whose filter hangs") as refusal:
            await call
        expect_equal(refusal.error.details.get("limit"), "time", "the limit")
        await site.gone(await site.pid_in("pid"))
    left = await site.bash("ls repo/.git/*.lock 2>/dev/null; git -C repo rev-list --count HEAD")
    expect_equal(left, b"1\n", "locks and commits")
    await site.bash("cd repo; git config filter.up.clean cat")
    await site.executor.git_commit("now", repository, author=AGENT)


async def check_files_that_block_do_not_hang(site: Site) -> None:
    """Pipes in place of git's own files are met within the time that was given."""
    for name in (".git/HEAD", ".git/config", ".git/index", ".gitignore", ".gitattributes", ".git/info/exclude"):
        repository = await make_repository(site)
        await site.bash(f"cd repo; rm -f {name}; mkfifo {name}; echo x > untracked")
        for call in (
            site.executor.git_status(repository, timeout_s=0.4),
            site.executor.git_diff(repository, timeout_s=0.4),
            site.executor.git_commit("x", repository, author=AGENT, timeout_s=0.4),
        ):
            try:
                await call
            except ShadowError:
                continue  # whichever error it is: it came in time
        await site.executor.delete(repository, recursive=True)


async def check_what_a_filter_leaves_behind_is_ended(site: Site) -> None:
    """A process that a filter left running is ended with the operation."""
    repository = await make_repository(site)
    await site.bash(
        "cd repo; echo '*.up filter=up' > .gitattributes; echo x > a.up;"
        ' git config filter.up.clean "setsid sleep 986 >/dev/null 2>&1 & echo \\$! > $PWD/../pid; cat"'
    )
    await site.executor.git_commit("x", repository, author=AGENT)
    await site.gone(await site.pid_in("pid"))


NEEDS = {function: ("git",) for name, function in list(globals().items()) if name.startswith("check_")}
