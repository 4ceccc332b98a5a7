"""Checks of paths: nothing leads out of the workspace, and every name that a file can have works."""

from collections.abc import Coroutine
from typing import Any

from shadow.core.errors import NotFound, PathRefused, Rejected
from shadow.core.files import FileKind
from shadow.core.search import GrepQuery
from shadow.testing.contract import CheckSkipped, each_refused, expect_equal, refused
from shadow.testing.site import Site, content_of


def _calls(site: Site, path: str) -> dict[str, Coroutine[Any, Any, object]]:
    """Every call that would reach through ``path`` to what it leads to."""
    executor = site.executor
    return {
        "stat": executor.stat(path),
        "read_file": executor.read_file(path),
        "read_lines": executor.read_lines(path),
        "stream_file": content_of(executor.stream_file(path)),
        "write_file": executor.write_file(path, b"evil"),
        "an exclusive write_file": executor.write_file(f"{path}/evil", b"evil", exclusive=True),
        "search_replace": executor.search_replace(path, old="a", new="b"),
        "list_directory": executor.list_directory(path),
        "make_directory": executor.make_directory(f"{path}/evil"),
        "delete": executor.delete(f"{path}/evil"),
        "move from": executor.move(f"{path}/evil", site.path("stolen")),
        "move to": executor.move(site.path("own"), f"{path}/evil"),
        "grep": executor.grep(GrepQuery(pattern="root", path=path)),
        "search_files": executor.search_files("passwd", path=path),
        "a command's cwd": executor.start(site.spec("true", cwd=path)),
    }


async def _expect_closed(site: Site, path: str, what: str) -> None:
    await site.executor.write_file(site.path("own"), b"own")
    await each_refused(_calls(site, path), PathRefused, what=f"of {what}")
    expect_equal((await site.executor.read_file(site.path("own"))).content, b"own", "the check's own file")


async def _root(site: Site) -> str:
    """The workspace's root as commands see it."""
    return (await site.run(site.spec("pwd", cwd="."))).stdout.decode().rstrip("\n")


async def check_dots_do_not_lead_out(site: Site) -> None:
    """``..`` leads out of the workspace for no call."""
    for path in ("..", "../..", f"{site.directory}/../../etc", "../../../../../../etc", "./../etc/"):
        await _expect_closed(site, path, repr(path))


async def check_absolute_paths_do_not_lead_out(site: Site) -> None:
    """An absolute path that does not begin with the root is refused by every call."""
    root = await _root(site)
    for path in ("/", "/etc", "//etc", "/proc/self/root/etc", f"{root}/../etc", f"{root}-other/etc"):
        await _expect_closed(site, path, repr(path))


async def check_absolute_paths_below_the_root_are_accepted(site: Site) -> None:
    """An absolute path that begins with the root as commands see it names the same file."""
    root = await _root(site)
    await site.executor.write_file(f"{root}/{site.directory}/file", b"x")
    expect_equal((await site.executor.read_file(site.path("file"))).content, b"x", "the file")
    await site.bash("printf y > file")
    expect_equal((await site.executor.read_file(f"{root}/{site.directory}/file")).content, b"y", "the file")
    result = await site.run(site.spec("cat", "file", cwd=f"{root}/{site.directory}"))
    expect_equal(result.stdout, b"y", "a command with an absolute cwd")


async def check_symlinks_do_not_lead_out(site: Site) -> None:
    """A symlink to a directory outside is refused by every call that would follow it."""
    up = "/".join([".."] * 12)
    await site.bash(
        f"ln -s /etc absolute; ln -s {up}/etc relative; ln -s absolute chained; mkdir sub; ln -s ../absolute sub/way"
    )
    for name in ("absolute", "relative", "chained", "sub/way"):
        await _expect_closed(site, site.path(name), f"the symlink {name}")


async def check_symlinks_through_proc_do_not_lead_out(site: Site) -> None:
    """The magic links of /proc lead nowhere."""
    await site.bash("ln -s /proc/self/root/etc root; ln -s /proc/self/cwd/.. cwd; ln -s /proc/1/root init")
    for name in ("root", "cwd", "init"):
        await _expect_closed(site, site.path(name), f"the symlink {name}")


async def check_linked_files_outside_stay_untouched(site: Site) -> None:
    """A symlink to a file outside is neither read nor written, but itself described, moved and deleted."""
    outside = f"/tmp/{site.directory}"
    await site.bash(f"printf secret > {outside}; ln -s {outside} link")
    try:
        path = site.path("link")
        await each_refused(
            {
                "stat": site.executor.stat(path),
                "read_file": site.executor.read_file(path),
                "stream_file": content_of(site.executor.stream_file(path)),
                "write_file": site.executor.write_file(path, b"evil"),
                "search_replace": site.executor.search_replace(path, old="secret", new="evil"),
            },
            PathRefused,
            what="of a symlink to a file outside",
        )
        link = await site.executor.stat(path, follow=False)
        expect_equal((link.kind, link.target), (FileKind.SYMLINK, outside), "the link itself")
        await site.executor.move(path, site.path("moved"))
        await site.executor.delete(site.path("moved"))
        expect_equal(await site.bash(f"cat {outside}; ls"), b"secret", "what is outside, and what is left inside")
    finally:
        await site.bash(f"rm -f {outside}")


async def check_a_directory_swapped_for_a_symlink_does_not_lead_out(site: Site) -> None:
    """While a directory is swapped for a symlink to the outside and back, no read shows what is outside."""
    await site.bash("mkdir real; printf inside > real/passwd; ln -s real way; ln -s /etc evil; ln -s real good")
    await site.start_bash(
        "echo go; while [ ! -e stop ]; do cp -P evil next; mv -T next way; cp -P good next; mv -T next way; done",
        until=b"go",
    )
    for _ in range(150):
        try:
            content = (await site.executor.read_file(site.path("way/passwd"))).content
        except (PathRefused, NotFound):
            continue
        expect_equal(content, b"inside", "what a read through the swapped directory gave")
    await site.executor.write_file(site.path("stop"), b"")


async def check_symlink_loops_are_refused(site: Site) -> None:
    """A symlink that leads to itself is a typed error, and can be deleted."""
    await site.bash("ln -s a b; ln -s b a; ln -s self self")
    for name in ("a", "self"):
        with refused(Rejected, NotFound, what="reading a loop of symlinks"):
            await site.executor.read_file(site.path(name))
        await site.executor.delete(site.path(name))


async def check_dangling_symlinks_are_not_found(site: Site) -> None:
    """A symlink to what is not there is NotFound when followed, and a symlink when not."""
    await site.bash("ln -s nowhere dangling")
    await each_refused(
        {
            "stat": site.executor.stat(site.path("dangling")),
            "read_file": site.executor.read_file(site.path("dangling")),
        },
        NotFound,
        what="of a dangling symlink",
    )
    link = await site.executor.stat(site.path("dangling"), follow=False)
    expect_equal((link.kind, link.target), (FileKind.SYMLINK, "nowhere"), "the link itself")


async def check_nul_is_refused(site: Site) -> None:
    """A path with a NUL character is PathRefused, and nothing is made of its first part."""
    path = site.path("a\0b")
    await each_refused(
        {
            "stat": site.executor.stat(path),
            "read_file": site.executor.read_file(path),
            "write_file": site.executor.write_file(path, b""),
            "make_directory": site.executor.make_directory(path),
            "delete": site.executor.delete(path),
            "list_directory": site.executor.list_directory(path),
        },
        PathRefused,
        what="of a path with NUL",
    )
    expect_equal(await site.bash("ls -A"), b"", "what is there")


async def check_too_long_names_are_rejected(site: Site) -> None:
    """A name of 255 bytes works; a longer one, and a path longer than the system takes, are Rejected."""
    await site.executor.write_file(site.path("n" * 255), b"x")
    expect_equal((await site.executor.read_file(site.path("n" * 255))).content, b"x", "the file with a long name")
    too_long = site.path("n" * 256), site.path("é" * 128), site.path("d/" * 3000 + "f")
    for path in too_long:
        with refused(Rejected, what=f"writing a path of {len(path)} characters"):
            await site.executor.write_file(path, b"")
        with refused(Rejected, NotFound, what=f"reading a path of {len(path)} characters"):
            await site.executor.read_file(path)


async def check_every_name_works(site: Site) -> None:
    """Names with spaces, quotes, line ends, URL and shell characters name just the file that they say."""
    names = [
        " ",
        "a b",
        "-rf",
        "--help",
        "*",
        "?x=1",
        "a?b#c&d=e",
        "%2e%2e",
        "%00",
        "+",
        "a+b",
        "'",
        '"',
        "\\",
        "$HOME",
    ]
    names += [
        "`id`",
        "line\nend",
        "tab\t",
        "\r",
        "\x7f",
        "\x01",
        "...",
        "~",
        "{a,b}",
        "[x]",
        "a;b",
        "a:b",
        "|",
        "!",
        "C:\\x",
    ]
    for name in names:
        await site.executor.write_file(site.path(name), name.encode())
    for name in names:
        expect_equal((await site.executor.read_file(site.path(name))).content, name.encode(), f"the file {name!r}")
    listed = [entry.path for entry in (await site.executor.list_directory(site.directory)).entries]
    expect_equal(listed, [site.path(name) for name in sorted(names)], "the listing")
    await site.executor.move(site.path("%2e%2e"), site.path("%252f"))
    await site.executor.delete(site.path("*"))
    expect_equal((await site.bash("ls -A")).count(b"\n"), len(names), "lines of names, one name having two")


async def check_unicode_names_stay_apart(site: Site) -> None:
    """Names that look the same and are not the same bytes are different files."""
    names = [
        "\u00e9",
        "e\u0301",
        "\ufb01",
        "fi",
        "\u00c5",
        "\u212b",
        "ß",
        "SS",
        "\u202egpj.exe",
        "😀",
        "日本語",
        "a\u200bb",
        "ab",
    ]
    for number, name in enumerate(names):
        await site.executor.write_file(site.path(name), b"%d" % number)
    for number, name in enumerate(names):
        expect_equal((await site.executor.read_file(site.path(name))).content, b"%d" % number, f"the file {name!r}")
    expect_equal((await site.bash("ls")).count(b"\n"), len(names), "how many files there are")


async def check_names_that_are_no_utf8_work(site: Site) -> None:
    """A name that is not UTF-8 is written, read, listed, moved and deleted, and commands see its bytes."""
    name = "caf\udce9-\udcff"
    probe = await site.run(site.spec("mkdir", "\udcff"))
    if probe.exit_code != 0:
        raise CheckSkipped("this file system takes only names that are UTF-8")
    await site.run(site.spec("rmdir", "\udcff"))
    written = await site.executor.write_file(site.path(name), b"x")
    expect_equal(written.path, site.path(name), "the path returned")
    expect_equal(await site.bash("ls"), b"caf\xe9-\xff\n", "the name that a command sees")
    expect_equal((await site.executor.read_file(site.path(name))).content, b"x", "the content")
    expect_equal((await site.executor.read_lines(site.path(name))).content, b"x", "the content by lines")
    await site.executor.search_replace(site.path(name), old="x", new="y")
    listed = (await site.executor.list_directory(site.directory)).entries
    expect_equal([entry.path for entry in listed], [site.path(name)], "the listing")
    moved = await site.executor.move(site.path(name), site.path("\udcfe"))
    expect_equal(moved.path, site.path("\udcfe"), "the path after the move")
    expect_equal((await site.run(site.spec("cat", "\udcfe"))).stdout, b"y", "the content")
    await site.executor.delete(site.path("\udcfe"))
    expect_equal(await site.bash("ls -A"), b"", "what is there")


async def check_superfluous_parts_do_not_matter(site: Site) -> None:
    """``.`` and repeated slashes change nothing."""
    await site.executor.write_file(f"./{site.directory}//sub/./file", b"x")
    expect_equal((await site.executor.read_file(f"{site.directory}/sub//file")).content, b"x", "the file")
    expect_equal((await site.executor.stat(f"{site.directory}/sub/.")).kind, FileKind.DIRECTORY, "the directory")


NEEDS = dict.fromkeys(
    (
        check_linked_files_outside_stay_untouched,
        check_a_directory_swapped_for_a_symlink_does_not_lead_out,
    ),
    ("programs",),
)
