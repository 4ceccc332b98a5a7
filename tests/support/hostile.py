"""What a hostile repository brings along: programs to be run in every place that git knows, trees that git would not write."""

import os
import shutil
from pathlib import Path

from tests.support.git_servers import git


def ran(canary: Path) -> bool:
    return canary.with_suffix(".ran").exists()


def arm(repository: Path, canary: Path) -> None:
    """Everything in a repository's own configuration and hooks that makes git run a program."""
    hooks = [
        "applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-applypatch", "post-checkout", "post-commit", "post-merge",
        "post-rewrite", "post-update", "pre-auto-gc", "pre-commit", "pre-merge-commit", "pre-push", "pre-rebase", "pre-receive",
        "prepare-commit-msg", "proc-receive", "push-to-checkout", "reference-transaction", "update",
    ]  # fmt: skip
    git_dir = Path(git(repository, "rev-parse", "--absolute-git-dir"))
    (git_dir / "hooks").mkdir(exist_ok=True)
    for name in hooks:
        shutil.copy(canary, git_dir / "hooks" / name)
    for name in [
        "core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.gitProxy", "core.askPass",
        "core.alternateRefsCommand", "diff.external", "diff.x.textconv", "diff.x.command", "filter.x.clean", "filter.x.smudge",
        "filter.x.process", "gpg.program", "gpg.ssh.program", "credential.helper", "sequence.editor",
        "uploadpack.packObjectsHook",
        "remote.origin.uploadpack", "remote.origin.receivepack", "remote.origin.vcs", "merge.x.driver", "interactive.diffFilter",
        "uploadArchive.x", "trailer.x.command",
    ]:  # fmt: skip
        git(repository, "config", name, str(canary))
    git(repository, "config", "core.hooksPath", str(git_dir / "hooks"))
    git(repository, "config", "commit.gpgSign", "true")
    git(repository, "config", "push.gpgSign", "true")
    git(repository, "config", "remote.origin.promisor", "true")
    git(repository, "config", "remote.origin.url", "ext::" + str(canary))
    git(repository, "config", f"url.ext::{canary}.insteadOf", "/")
    git(repository, "config", "protocol.allow", "always")
    git(repository, "config", "gc.auto", "1")
    git(repository, "config", "receive.autogc", "true")
    (repository / ".git/info").mkdir(exist_ok=True)
    (repository / ".git/info/attributes").write_text("* filter=x diff=x merge=x\n")


def raw_tree(repository: Path, *entries: tuple[str, str, str]) -> str:
    """A tree that git itself would not write: entries of mode, name and object."""
    data = b"".join(
        mode.encode() + b" " + os.fsencode(name) + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries
    )
    return git(repository, "hash-object", "-t", "tree", "--literally", "-w", "--stdin", stdin=data)
