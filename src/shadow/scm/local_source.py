"""A repository on this host as a source and as a target: where its git directory is, looked at without running git in it.

The directory may come from anywhere: an archive, a colleague, a download. A ``.git`` file or a list of alternates in it could
point at another repository that this user may read and the author of the directory may not; so these are followed only where
the other side points back, or where they stay within what was named.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from shadow.core.errors import Denied, NotARepository, NotFound, Rejected

MAX_POINTER_BYTES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSource:
    path: Path
    """What was named, absolute, without symlinks."""
    git_dir: Path
    """Of this work tree: its HEAD."""
    common_dir: Path
    """Of the repository: its objects and branches."""


def find_local(path: str) -> LocalSource:
    """Raises: NotFound, NotARepository, Denied, Rejected: it leads elsewhere."""
    named = Path(path).expanduser()
    try:
        named = named.resolve(strict=True)
        return _find(named)
    except FileNotFoundError as error:
        raise NotFound(f"There is nothing at {path}.", mend="Give the path of a git repository.") from error
    except PermissionError as error:
        raise Denied(f"{path} may not be read: {error.strerror}.", mend="Look at its permissions.") from error
    except (NotADirectoryError, RuntimeError, OSError) as error:
        raise NotARepository(f"{path} is not a git repository: {error}.", mend="Give the path of one.") from error


def _find(named: Path) -> LocalSource:
    if not named.is_dir():
        raise NotARepository(f"{named} is not a directory.", mend="Give the path of a git repository.")
    pointer = named / ".git"
    if pointer.is_symlink():
        raise Rejected(f"{pointer} is a symbolic link.", mend="Give the path of the repository that it leads to.")
    if pointer.is_dir():
        return _source(named, pointer)
    if pointer.is_file():
        return _source(named, _linked(named, pointer))
    if _is_git_dir(named):
        return _source(named, named)
    above = next((parent for parent in named.parents if (parent / ".git").exists()), None)
    raise NotARepository(
        f"{named} is not a git repository.",
        mend=f"Give the path of its root, {above}."
        if above
        else "Run 'git init' and commit there, or give another path.",
    )


def _is_git_dir(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "refs").is_dir() and (path / "objects").is_dir()


def _linked(named: Path, pointer: Path) -> Path:
    """The git directory that a ``.git`` file names, if that one knows of it."""
    target = (named / _read_pointer(pointer, prefix="gitdir: ")).resolve(strict=True)
    back = target / "gitdir"  # a work tree of `git worktree add`
    if back.is_file() and (target / _read_pointer(back)).resolve() == pointer:
        return target
    worktree = _core_worktree(target)  # a submodule, or `git init --separate-git-dir`
    if worktree is not None and (target / worktree).resolve() == named:
        return target
    raise Rejected(
        f"{pointer} points to {target}, which does not point back.",
        mend="Give the path of that repository itself, if it is what you want.",
    )


def _core_worktree(git_dir: Path) -> str | None:
    config = git_dir / "config"
    if not config.is_file():
        return None
    section = ""
    for line in config.read_text(errors="replace").splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped.lower()
        elif section == "[core]" and stripped.replace(" ", "").lower().startswith("worktree="):
            return stripped.partition("=")[2].strip().strip('"')
    return None


def _source(named: Path, git_dir: Path) -> LocalSource:
    common = git_dir / "commondir"
    common_dir = (git_dir / _read_pointer(common)).resolve(strict=True) if common.is_file() else git_dir
    if common_dir != git_dir and not git_dir.is_relative_to(common_dir / "worktrees"):
        raise Rejected(
            f"{git_dir} borrows {common_dir}, which does not know of it.", mend="Give the path of that repository."
        )
    for place in ("objects", "objects/info", "objects/pack", "refs", "refs/heads"):
        if (common_dir / place).is_symlink():
            raise Rejected(f"{common_dir / place} is a symbolic link.", mend="Make it a directory of its own.")
    _check_alternates(common_dir, within=named)
    return LocalSource(path=named, git_dir=git_dir, common_dir=common_dir)


def _check_alternates(common_dir: Path, *, within: Path) -> None:
    alternates = common_dir / "objects/info/alternates"
    if not alternates.is_file():
        return
    for line in alternates.read_text(errors="surrogateescape").splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        target = Path(os.path.realpath(common_dir / "objects" / text))
        if not target.is_relative_to(within):
            raise Rejected(
                f"{common_dir} borrows objects from {target}, outside of it.",
                mend="Make it whole with `git repack -a -d` and remove objects/info/alternates, or give the path of that one.",
            )


def _read_pointer(path: Path, *, prefix: str = "") -> str:
    with path.open("rb") as file:
        data = file.read(MAX_POINTER_BYTES + 1)
    text = os.fsdecode(data).rstrip("\n")
    if len(data) > MAX_POINTER_BYTES or not text.startswith(prefix) or "\0" in text or not text[len(prefix) :]:
        raise NotARepository(f"{path} is damaged.", mend="Give the path of a git repository.")
    return text[len(prefix) :]
