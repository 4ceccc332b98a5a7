"""The example as a repository of the user's own: a copy of it with one commit, beside the workspaces."""

import os
import shutil
from pathlib import Path

import shadow
from shadow.core.errors import Denied, NotFound
from shadow.scm.git import Call, git

EXAMPLE = "openhours"
INSTRUCTION = "The bar is shut in the second half of its Sunday night. Find out why, and mend it."
CHECK = "python3 -m unittest"


def find_example() -> Path:
    """Raises: NotFound."""
    return _find(EXAMPLE)


def find_script() -> Path:
    """What the scripted model says about it. Raises: NotFound."""
    return _find(f"{EXAMPLE}.yaml")


def _find(name: str) -> Path:
    """In an installed wheel beside the code, in a checkout beside ``src``."""
    package = Path(shadow.__file__).resolve().parent
    for path in (package / "examples" / name, package.parents[1] / "examples" / name):
        if path.exists():
            return path
    raise NotFound("The example is not installed.", mend="Run `make run` in a checkout of Shadow.")


async def example_repository(data_dir: Path) -> Path:
    """Made where it is not there yet; what was done to it since stays. Raises: Denied, NotFound."""
    example = find_example()
    path = data_dir / "examples" / EXAMPLE
    if (path / ".git/HEAD").exists():
        return path
    new = path.with_name(f".{EXAMPLE}.new-{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copytree(example, new, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:
        raise Denied(
            f"The example cannot be copied to {path}: {error.strerror}.", mend="Set SHADOW_DATA_DIR."
        ) from error
    env = {"GIT_WORK_TREE": str(new)}
    for arguments in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        ["commit", "--quiet", "--message=Add openhours"],
    ):
        await git(Call(arguments=arguments, directory=new / ".git", env=env, about="Making the example's repository"))
    shutil.rmtree(path, ignore_errors=True)
    new.rename(path)
    return path
