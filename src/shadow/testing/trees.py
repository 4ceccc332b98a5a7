"""Checks of whole trees as tar streams: what comes out, what goes in, and what an archive cannot do."""

import io
import tarfile
from collections.abc import AsyncIterator

from shadow.core.errors import (
    AlreadyExists,
    Conflict,
    LimitExceeded,
    NotADirectory,
    NotAFile,
    NotFound,
    PathRefused,
    Rejected,
    StaleEpoch,
)
from shadow.core.trees import TreeReceipt
from shadow.testing.contract import CheckSkipped, closed_after, each_refused, expect, expect_equal, refused
from shadow.testing.site import Site, content_of

MEBIBYTE = 1024 * 1024
SHOW = (
    r"find . -mindepth 1 -printf '%P|%y|%m|%l\n' | LC_ALL=C sort; find . -type f -exec sha256sum {} + | LC_ALL=C sort"
)


def member(
    name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, link, len(content)
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


async def pieces(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def _upload(site: Site, data: bytes, name: str = "target") -> TreeReceipt:
    return await site.executor.upload_tree(site.path(name), pieces(data))


async def _download(site: Site, name: str) -> list[tarfile.TarInfo]:
    data = await content_of(site.executor.download_tree(site.path(name)))
    expect_equal((len(data) % 512, data[-1024:]), (0, bytes(1024)), "the end of the archive")
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        return tar.getmembers()


async def check_a_downloaded_tree_holds_what_is_there(site: Site) -> None:
    """A download is a tar of all below a directory: hidden files, empty directories, modes, links; sorted, without owners."""
    await site.bash(
        "mkdir -p tree/sub/empty tree/.git; printf hello > tree/sub/file; printf x > tree/.hidden; "
        "chmod 0754 tree/sub/file; chmod 0710 tree/sub; ln -s sub/file tree/link; : > tree/z; touch -d @1234567 tree/z"
    )
    members = await _download(site, "tree")
    expect_equal(
        [(info.name, info.type, info.size, info.linkname) for info in members],
        [
            (".git", tarfile.DIRTYPE, 0, ""),
            (".hidden", tarfile.REGTYPE, 1, ""),
            ("link", tarfile.SYMTYPE, 0, "sub/file"),
            ("sub", tarfile.DIRTYPE, 0, ""),
            ("sub/empty", tarfile.DIRTYPE, 0, ""),
            ("sub/file", tarfile.REGTYPE, 5, ""),
            ("z", tarfile.REGTYPE, 0, ""),
        ],
        "the entries",
    )
    modes = {info.name: oct(info.mode) for info in members}
    expect_equal((modes["sub"], modes["sub/file"]), (oct(0o710), oct(0o754)), "the modes")
    expect_equal({(info.uid, info.gid, info.uname) for info in members}, {(0, 0, "")}, "the owners")
    expect_equal(members[-1].mtime, 1234567, "the time of the last change")


async def check_an_empty_tree_is_an_archive(site: Site) -> None:
    """An empty directory is downloaded as an archive without entries, and that can be uploaded."""
    await site.bash("mkdir empty")
    expect_equal(await _download(site, "empty"), [], "the entries")
    nothing = TreeReceipt(files=0, directories=0, links=0, size_bytes=0)
    expect_equal(await _upload(site, bytes(1024)), nothing, "the receipt")
    expect_equal(await site.bash("ls -A target"), b"", "what is there")


async def check_a_tree_comes_back_as_it_was(site: Site) -> None:
    """What is downloaded and uploaded elsewhere is the same: names, kinds, modes, links and every byte."""
    await site.bash(
        "mkdir -p tree/a/b tree/locked 'tree/with space'; head -c 3000000 /dev/urandom > tree/large; "
        "head -c 512 /dev/urandom > tree/a/block; head -c 513 /dev/urandom > tree/a/b/more; : > tree/zero; "
        "printf x > $'tree/line\\nend'; ln -s /nowhere/at/all tree/absolute; ln -s ../.. tree/a/up; "
        "printf y > tree/locked/file; chmod 0400 tree/zero; chmod 0555 tree/locked; printf z > 'tree/with space/é'; "
        "n=$(printf 'n%.0s' {1..150}); mkdir -p tree/$n/$n; printf long > tree/$n/$n/$n"
    )
    path = site.path("tree")
    receipt = await site.executor.upload_tree(site.path("copy"), site.executor.download_tree(path))
    expect_equal((receipt.files, receipt.directories, receipt.links), (8, 6, 2), "the receipt")
    expect_equal(await site.bash(f"cd copy; {SHOW}"), await site.bash(f"cd tree; {SHOW}"), "the copy")
    await site.bash("chmod -R u+rwx tree copy")


async def check_names_that_are_no_utf8_come_and_go(site: Site) -> None:
    """Names and link targets that are not UTF-8 keep their bytes both ways."""
    probe = await site.run(site.spec("bash", "-c", "touch $'\\xff' 2>/dev/null && rm $'\\xff'"))
    if probe.exit_code != 0:
        raise CheckSkipped("this file system takes only names that are UTF-8")
    await site.bash("mkdir $'tree\\xfe'; printf x > $'tree\\xfe/caf\\xe9'; ln -s $'\\xff' $'tree\\xfe/link'")
    source = site.executor.download_tree(site.path("tree\udcfe"))
    await site.executor.upload_tree(site.path("copy\udcfd"), source)
    expect_equal(await site.bash("cd $'copy\\xfd'; ls; readlink link; cat caf*"), b"caf\xe9\nlink\n\xff\nx", "the copy")


async def check_downloads_follow_no_symlink(site: Site) -> None:
    """A symlink is downloaded as a link, wherever it leads; pipes and sockets are left out."""
    await site.bash(
        "mkdir tree; ln -s /etc tree/etc; ln -s /etc/passwd tree/passwd; ln -s . tree/loop; mkfifo tree/pipe"
    )
    members = await _download(site, "tree")
    expect_equal(
        [(info.name, info.issym(), info.linkname) for info in members],
        [("etc", True, "/etc"), ("loop", True, "."), ("passwd", True, "/etc/passwd")],
        "the entries",
    )


async def check_downloads_need_a_directory(site: Site) -> None:
    """Downloading what is missing is NotFound, a file NotADirectory, and nothing leads out of the workspace."""
    await site.bash("touch file; ln -s /etc out")
    with refused(NotFound, what="downloading what is missing"):
        await content_of(site.executor.download_tree(site.path("missing")))
    with refused(NotADirectory, what="downloading a file"):
        await content_of(site.executor.download_tree(site.path("file")))
    for path in ("..", "/etc", site.path("out")):
        with refused(PathRefused, what=f"downloading {path}"):
            await content_of(site.executor.download_tree(path))
        with refused(PathRefused, what=f"uploading to {path}"):
            await site.executor.upload_tree(path, pieces(archive(member("evil"))))


async def check_large_trees_are_streamed_and_may_be_left(site: Site) -> None:
    """A tree of many megabytes comes in pieces; who leaves in the middle can go on with something else."""
    await site.bash("mkdir tree; head -c 20000000 /dev/urandom > tree/large; sha256sum < tree/large > sum")
    count = 0
    async with closed_after(site.executor.download_tree(site.path("tree"))) as stream:
        async for piece in stream:
            expect(len(piece) <= 8 * MEBIBYTE, f"A piece has {len(piece)} bytes.")
            count += 1
            if count == 2:
                break
    await site.executor.upload_tree(site.path("copy"), site.executor.download_tree(site.path("tree")))
    expect_equal(await site.bash("sha256sum < copy/large"), await site.bash("cat sum"), "the file's digest")


async def check_an_uploaded_tree_is_laid_down(site: Site) -> None:
    """An upload makes the directory and all that it holds, with modes; parents that the archive leaves out are made too."""
    receipt = await _upload(
        site,
        archive(
            member(".", kind=tarfile.DIRTYPE, mode=0o000),
            member("./sub", kind=tarfile.DIRTYPE, mode=0o710),
            member("./sub/tool", b"#!/bin/sh\n", mode=0o755),
            member("sub/link", kind=tarfile.SYMTYPE, link="tool"),
            member("no/parent//given", b"x", mode=0o600),
        ),
        "made/target",
    )
    expect_equal(receipt, TreeReceipt(files=2, directories=1, links=1, size_bytes=11), "the receipt")
    expect_equal(
        await site.bash("cd made/target; find . ! -type d -printf '%P %m %l\\n' | sort; stat -c %a sub; cat sub/link"),
        b"no/parent/given 600 \nsub/link 777 tool\nsub/tool 755 \n710\n#!/bin/sh\n",
        "what is there",
    )


async def check_every_kind_of_tar_is_taken(site: Site) -> None:
    """Archives of pax, GNU and ustar are understood, long names and the padding of tape blocks too."""
    name = "/".join(["n" * 50] * 4)
    for number, format_ in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)):
        await _upload(site, archive(member(name, b"%d" % number), format=format_) + bytes(10240), f"t{number}")
    expect_equal(await site.bash(f"cat t*/{name}"), b"012", "the files")


async def check_uploads_replace_files_and_keep_others(site: Site) -> None:
    """An upload into a directory replaces what it brings as a whole, and leaves the rest; a symlink there is replaced itself."""
    await site.bash(
        "mkdir -p target/sub; printf old > target/file; printf kept > target/sub/kept; printf kept > outside; "
        "ln -s ../outside target/link; ln target/file hard; printf old > target/becomes"
    )
    await _upload(
        site,
        archive(
            member("file", b"new"),
            member("link", b"new"),
            member("sub", kind=tarfile.DIRTYPE, mode=0o755),
            member("becomes", kind=tarfile.SYMTYPE, link="file"),
        ),
    )
    expect_equal(await site.bash("cat target/file target/link target/becomes"), b"newnewnew", "what was brought")
    expect_equal(
        await site.bash("cat outside target/sub/kept hard; ls -A target"),
        b"keptkeptoldbecomes\nfile\nlink\nsub\n",
        "the rest",
    )


async def check_set_id_bits_are_dropped(site: Site) -> None:
    """Permission bits are kept; setuid, setgid and sticky are dropped, both ways."""
    await _upload(site, archive(member("f", b"x", mode=0o6755), member("d", kind=tarfile.DIRTYPE, mode=0o1777)))
    expect_equal(await site.bash("stat -c %a target/f target/d"), b"755\n777\n", "the modes")
    await site.bash("chmod u+s target/f")
    expect_equal([oct(info.mode) for info in await _download(site, "target")], [oct(0o777), oct(0o755)], "the modes")


async def check_names_cannot_lead_out(site: Site) -> None:
    """Names that are absolute, hold ``..`` or cannot be names are refused, and nothing is written for them."""
    bad = ["/evil", "//evil", "../evil", "a/../../evil", "sub/..", "..", f"/{'x' * 300}", "x" * 300, "d/" * 3000 + "f"]
    for name in bad:
        with refused(PathRefused, what=f"an entry named {name[:40]!r}"):
            await _upload(site, archive(member(name, b"evil")))
        with refused(PathRefused, what=f"a directory named {name[:40]!r}"):
            await _upload(site, archive(member(name, kind=tarfile.DIRTYPE)))
    info, content = member("f", b"evil")
    info.pax_headers = {"path": "../evil"}
    with refused(PathRefused, what="a pax path that leads out"):
        await _upload(site, archive((info, content)))
    expect_equal(await site.bash("find . -name '*evil*' -o -type f"), b"", "what was written")


async def check_nothing_is_written_through_a_symlink(site: Site) -> None:
    """An entry below a symlink is refused, whether the archive brought it or it was there; links themselves are made."""
    await site.bash("mkdir target outside; ln -s ../outside target/there")
    through = "an entry below a symlink"
    for link, name in ((None, "there"), ("/tmp", "way"), ("../outside", "way"), (".", "self")):
        brought = [member(name, kind=tarfile.SYMTYPE, link=link)] if link else []
        for kind in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE):
            with refused(PathRefused, what=through):
                await _upload(site, archive(*brought, member(f"{name}/evil", kind=kind, link="x")))
        with refused(PathRefused, NotAFile, Rejected, what="a directory in place of a symlink"):
            await _upload(site, archive(*brought, member(name, kind=tarfile.DIRTYPE)))
    expect_equal(
        await site.bash("ls -A outside; ls target; readlink target/way"),
        b"self\nthere\nway\n../outside\n",
        "what is there",
    )


async def check_what_is_no_file_is_refused(site: Site) -> None:
    """Devices, pipes, sparse files and unknown types are refused."""
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, b"Z", b"V"):
        with refused(Rejected, what=f"an entry of type {kind!r}"):
            await _upload(site, archive(member("evil", kind=kind)))
    info, content = member("evil", b"x")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "evil", "GNU.sparse.realsize": "1000000000000"}
    with refused(Rejected, what="a sparse file by its pax header"):
        await _upload(site, archive((info, content)))
    expect_equal(await site.bash("ls -A target"), b"", "what was written")


async def check_hard_links_become_copies(site: Site) -> None:
    """A hard link to a file that the archive brought is a file of its own; any other is refused."""
    await site.bash("mkdir target; printf secret > outside; printf secret > target/before")
    first = member("a/file", b"content")
    receipt = await _upload(site, archive(first, member("b", kind=tarfile.LNKTYPE, link="a/file")))
    expect_equal((receipt.files, receipt.size_bytes), (2, 14), "the receipt")
    expect_equal(await site.bash("cat target/b; stat -c %h target/b"), b"content1\n", "the copy")
    for link in ("../outside", "/etc/passwd", "before", "missing", "a", "evil", "a/../../outside"):
        with refused(Rejected, what=f"a hard link to {link}"):
            await _upload(site, archive(first, member("evil", kind=tarfile.LNKTYPE, link=link)))
    expect_equal(await site.bash("ls target"), b"a\nb\nbefore\n", "what is there")


async def check_cut_archives_are_refused(site: Site) -> None:
    """An archive that is cut anywhere, or has something after its end, is Rejected; no part of a file is ever seen."""
    whole = archive(member("first", b"1" * 700), member("second", b"2" * 700))
    whole = whole[: len(whole.rstrip(b"\0")) // 512 * 512 + 512 + 1024]
    for cut in (0, 1, 511, 512, 600, 1024, 1536, 2100, 3072, len(whole) - 1024, len(whole) - 512, len(whole) - 1):
        with refused(Rejected, what=f"an archive cut at {cut}"):
            await _upload(site, whole[:cut])
        expect(
            not await site.bash("find target -type f ! -size 700c"), f"After a cut at {cut} a part of a file is there."
        )
    with refused(Rejected, what="an archive with another behind it"):
        await _upload(site, whole + whole)
    await _upload(site, whole)


async def check_lies_in_headers_are_refused(site: Site) -> None:
    """Wrong checksums, sizes that cannot be, and headers that are too large are refused before anything is written for them."""
    good = archive(member("evil", b"x" * 600))
    for what, start, patch in (
        ("a wrong checksum", 148, b"0000000\0"),
        ("another name", 0, b"other"),
        ("a size that is no number", 124, b"99999999999\0"),
        ("no header at all", 0, b"\xff" * 512),
    ):
        with refused(Rejected, what=what):
            await _upload(site, good[:start] + patch + good[start + len(patch) :])
    huge = tarfile.TarInfo("evil")
    huge.size = 2**62
    with refused(LimitExceeded, what="a size of exabytes"):
        await _upload(site, huge.tobuf(tarfile.PAX_FORMAT))
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 2**31
    with refused(LimitExceeded, what="an extended header of gigabytes"):
        await _upload(site, header.tobuf(tarfile.USTAR_FORMAT))
    directory = tarfile.TarInfo("evil")
    directory.type, directory.size = tarfile.DIRTYPE, 512
    with refused(Rejected, what="a directory with content"):
        await _upload(site, directory.tobuf(tarfile.USTAR_FORMAT) + bytes(512 * 3))
    expect_equal(await site.bash("ls -A target"), b"", "what was written")


async def check_files_in_the_way_are_kept(site: Site) -> None:
    """A file in place of a directory, a directory in place of a file or of the target: typed, and what is there stays."""
    await site.bash("mkdir -p target/d; printf kept > target/d/f; printf kept > file")
    with refused(Rejected, Conflict, what="a file in place of a directory"):
        await _upload(site, archive(member("d", b"x")))
    with refused(AlreadyExists, what="a symlink in place of a directory"):
        await _upload(site, archive(member("d", kind=tarfile.SYMTYPE, link="f")))
    with refused(Rejected, Conflict, what="a directory in place of a file"):
        await _upload(site, archive(member("d/f", kind=tarfile.DIRTYPE)))
    with refused(NotADirectory, what="an entry below a file"):
        await _upload(site, archive(member("d/f/x", b"x")))
    with refused(Rejected, Conflict, what="a file as the target"):
        await _upload(site, archive(member("x", b"x")), "file")
    expect_equal(await site.bash("cat target/d/f file"), b"keptkept", "what was there")


async def check_a_repeated_upload_happens_once(site: Site) -> None:
    """An upload that is repeated is answered as the first, and changes nothing; an older epoch is refused."""
    operation, data = site.operation(), archive(member("file", b"first"))
    first = await site.executor.upload_tree(site.path("target"), pieces(data), operation=operation)
    await site.executor.write_file(site.path("target/file"), b"since")
    again = await site.executor.upload_tree(site.path("target"), pieces(data), operation=operation)
    expect_equal(again, first, "the second answer")
    stale = site.operation(epoch=site.executor.epoch - 1)
    await each_refused(
        {"upload_tree": site.executor.upload_tree(site.path("target"), pieces(data), operation=stale)},
        StaleEpoch,
        what="with an older epoch",
    )
    expect_equal(await site.bash("cat target/file"), b"since", "the file")


async def check_a_source_that_fails_fails_the_upload(site: Site) -> None:
    """What the source of an upload raises is raised; a file that had not come as a whole by then is not there."""
    data = archive(member("first", b"1" * 600), member("second", b"2" * 5_000_000))

    async def failing() -> AsyncIterator[bytes]:
        yield data[:3_000_000]
        raise NotFound("the rest of it")

    with refused(NotFound, what="an upload whose source fails"):
        await site.executor.upload_tree(site.path("target"), failing())
    expect(await site.bash("mkdir -p target; ls -A target") in (b"", b"first\n"), "A part of a file is there.")


NEEDS = {function: ("trees",) for name, function in list(globals().items()) if name.startswith("check_")}
