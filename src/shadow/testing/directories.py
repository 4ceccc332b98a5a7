"""Checks of making directories, moving and deleting."""

from shadow.core.errors import AlreadyExists, Conflict, NotFound, PathRefused, Rejected
from shadow.core.files import FileKind
from shadow.testing.contract import expect_equal, refused
from shadow.testing.site import Site


async def check_directories_are_made(site: Site) -> None:
    """A directory is made with its parents, unless they must not be."""
    made = await site.executor.make_directory(site.path("a/b/c"))
    expect_equal((made.kind, made.path), (FileKind.DIRECTORY, site.path("a/b/c")), "what was returned")
    expect_equal(await site.bash("find ."), b".\n./a\n./a/b\n./a/b/c\n", "the directories")
    expect_equal(await site.bash("ls a/b/c"), b"", "what is in the last one")
    with refused(NotFound, what="a directory below a missing one with create_parents=False"):
        await site.executor.make_directory(site.path("x/y"), create_parents=False)
    await site.executor.make_directory(site.path("a/z"), create_parents=False)


async def check_a_directory_that_is_there_is_fine(site: Site) -> None:
    """Making a directory that is there changes nothing and is no error."""
    await site.bash("mkdir there; chmod 0710 there; touch there/file")
    await site.executor.make_directory(site.path("there"))
    await site.executor.make_directory(site.path("there"), create_parents=False)
    expect_equal(await site.bash("stat -c %a there; ls there"), b"710\nfile\n", "the directory")


async def check_a_file_in_the_way_of_a_directory(site: Site) -> None:
    """Where something else is there, no directory is made: AlreadyExists."""
    await site.bash("touch file; ln -s nowhere dangling")
    for name in ("file", "dangling"):
        with refused(AlreadyExists, what=f"a directory in place of a {name}"):
            await site.executor.make_directory(site.path(name))


async def check_files_and_trees_move(site: Site) -> None:
    """A file and a tree move as a whole, with mode and content."""
    await site.bash("printf x > file; chmod 0754 file; mkdir -p tree/sub; printf y > tree/sub/.hidden")
    moved = await site.executor.move(site.path("file"), site.path("renamed"))
    expect_equal((moved.path, oct(moved.mode)), (site.path("renamed"), oct(0o754)), "what was returned")
    await site.executor.move(site.path("tree"), site.path("forest"))
    expect_equal(await site.bash("ls; cat renamed forest/sub/.hidden"), b"forest\nrenamed\nxy", "what is there")


async def check_moving_never_replaces_unasked(site: Site) -> None:
    """A move onto something refuses, and both stay as they were."""
    await site.bash("printf a > a; printf b > b; mkdir directory; ln -s nowhere dangling")
    for target in ("b", "directory", "dangling"):
        with refused(AlreadyExists, what=f"a move onto {target}"):
            await site.executor.move(site.path("a"), site.path(target))
    expect_equal(await site.bash("cat a b; ls"), b"aba\nb\ndangling\ndirectory\n", "what is there")


async def check_moving_replaces_a_file_when_asked(site: Site) -> None:
    """With ``overwrite`` a move replaces a file, and still no directory."""
    await site.bash("printf a > a; printf b > b; printf c > c; mkdir directory; touch directory/kept")
    await site.executor.move(site.path("a"), site.path("b"), overwrite=True)
    expect_equal(await site.bash("cat b; ls"), b"ab\nc\ndirectory\n", "what is there")
    with refused(AlreadyExists, what="a move onto a directory with overwrite"):
        await site.executor.move(site.path("c"), site.path("directory"), overwrite=True)
    expect_equal(await site.bash("cat c; ls directory"), b"ckept\n", "what the refusal left")


async def check_a_symlink_itself_is_moved(site: Site) -> None:
    """A symlink is moved, not what it leads to, also where it leads nowhere."""
    await site.bash("printf x > file; ln -s file link; ln -s nowhere dangling")
    await site.executor.move(site.path("link"), site.path("link2"))
    await site.executor.move(site.path("dangling"), site.path("dangling2"))
    expect_equal(
        await site.bash("readlink link2 dangling2; ls"), b"file\nnowhere\ndangling2\nfile\nlink2\n", "what is there"
    )


async def check_a_tree_cannot_move_into_itself(site: Site) -> None:
    """A directory is not moved below itself."""
    await site.bash("mkdir -p tree/sub")
    with refused(Rejected, Conflict, what="a move of a directory below itself"):
        await site.executor.move(site.path("tree"), site.path("tree/sub/tree"))
    expect_equal(await site.bash("find ."), b".\n./tree\n./tree/sub\n", "what is there")


async def check_files_and_empty_directories_are_deleted(site: Site) -> None:
    """A file and an empty directory are deleted."""
    await site.bash("printf x > file; mkdir empty; touch kept")
    await site.executor.delete(site.path("file"))
    await site.executor.delete(site.path("empty"))
    expect_equal(await site.bash("ls"), b"kept\n", "what is there")


async def check_full_directories_are_deleted_only_when_asked(site: Site) -> None:
    """A directory that is not empty is a Conflict, and stays; with ``recursive`` all of it goes."""
    await site.bash("mkdir -p tree/sub/deeper; touch tree/.hidden tree/sub/file; mkfifo tree/pipe")
    await site.executor.write_file(site.path("tree/sub/\udcff"), b"")
    with refused(Conflict, what="deleting a directory that is not empty"):
        await site.executor.delete(site.path("tree"))
    expect_equal((await site.bash("find tree")).count(b"\n"), 7, "how much is there after the refusal")
    await site.executor.delete(site.path("tree"), recursive=True)
    expect_equal(await site.bash("ls -A"), b"", "what is there")


async def check_deleting_never_follows_symlinks(site: Site) -> None:
    """A symlink is deleted, never what it leads to, also inside a tree that is deleted."""
    await site.bash(
        "mkdir real; touch real/file; ln -s real way; ln -s real/file link; mkdir tree; "
        "ln -s ../real tree/way; ln -s /etc tree/etc"
    )
    await site.executor.delete(site.path("link"))
    await site.executor.delete(site.path("way"), recursive=True)
    await site.executor.delete(site.path("tree"), recursive=True)
    expect_equal(await site.bash("find ."), b".\n./real\n./real/file\n", "what is there")


async def check_the_root_is_not_deleted(site: Site) -> None:
    """The workspace's root itself is never deleted."""
    for root in (".", "./", f"{site.directory}/.."):
        with refused(PathRefused, what=f"deleting {root!r}"):
            await site.executor.delete(root, recursive=True)
    expect_equal((await site.executor.stat(site.directory)).kind, FileKind.DIRECTORY, "the check's directory")


async def check_very_deep_trees_are_deleted(site: Site) -> None:
    """A tree deeper than a path can be long is deleted."""
    name = "d" * 100
    await site.bash(
        f"mkdir deep; cd deep; for i in {{1..60}}; do mkdir {name}; cd ./{name} || exit 1; done; touch bottom"
    )
    await site.executor.delete(site.path("deep"), recursive=True)
    expect_equal(await site.bash("ls -A"), b"", "what is there")


NEEDS = dict.fromkeys(
    (check_very_deep_trees_are_deleted,),
    ("programs",),
)
