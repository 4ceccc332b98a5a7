"""The tar reader: the same in pieces of any size, and nothing but typed refusals whatever it is fed."""

import tarfile
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.errors import LimitExceeded, PathRefused, Rejected
from shadow.execution.host.tar_reader import MAX_EXTENSION_BYTES, Entry, EntryKind, TarReader, split_name
from shadow.testing.trees import archive, member

MAX = 1 << 30
Item = tuple[Entry, bytes]


def read(data: bytes, cuts: list[int] | None = None, *, max_bytes: int = MAX) -> list[Item]:
    """Each entry with its content."""
    reader, entries = TarReader(max_bytes=max_bytes), list[tuple[Entry, bytearray]]()
    bounds = sorted({0, len(data), *(cut for cut in cuts or [] if cut < len(data))})
    for start, end in pairwise(bounds):
        for item in reader.feed(data[start:end]):
            if isinstance(item, Entry):
                entries.append((item, bytearray()))
            else:
                entries[-1][1].extend(item)
    reader.finish()
    return [(entry, bytes(content)) for entry, content in entries]


SAMPLE = archive(
    member("d", kind=tarfile.DIRTYPE, mode=0o755),
    member("d/short", b"x"),
    member("d/block", b"y" * 512),
    member("d/" + "long/" * 40 + "name", b"z" * 1000),
    member("caf\udce9", b""),
    member("link", kind=tarfile.SYMTYPE, link="to/" * 50),
    member("hard", kind=tarfile.LNKTYPE, link="d/short"),
)


@given(st.lists(st.integers(0, len(SAMPLE)), max_size=60))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    assert read(SAMPLE, cuts) == read(SAMPLE)


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_is_read_is_what_was_written(format_: int) -> None:
    data = archive(
        member("./d/", kind=tarfile.DIRTYPE, mode=0o2755),
        member("d/" + "long/" * 40 + "name", b"z" * 1000, mode=0o4711),
        member("caf\udce9", b"e"),
        member("link", kind=tarfile.SYMTYPE, link="to/" * 50),
        format=format_,
    )
    entries = [entry for entry, _ in read(data)]
    assert [(entry.kind, entry.path, oct(entry.mode), entry.size_bytes) for entry in entries] == [
        (EntryKind.DIRECTORY, "d", oct(0o755), 0),
        (EntryKind.FILE, "d/" + "long/" * 40 + "name", oct(0o711), 1000),
        (EntryKind.FILE, "caf\udce9", oct(0o644), 1),
        (EntryKind.SYMLINK, "link", oct(0o644), 0),
    ]
    assert entries[-1].target == b"to/" * 50
    assert [content for _, content in read(data)] == [b"", b"z" * 1000, b"e", b""]


@given(
    data=st.binary(max_size=3000),
    patches=st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.binary(min_size=1, max_size=20)), max_size=8),
)
def test_nothing_but_refusals_comes_of_garbage(data: bytes, patches: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(SAMPLE)
    for at, patch in patches:
        damaged[at : at + len(patch)] = patch
    for fed in (data, bytes(damaged), data + SAMPLE, SAMPLE + data):
        try:
            entries = read(fed)
        except (Rejected, LimitExceeded):
            continue
        for entry, content in entries:
            assert len(content) == entry.size_bytes
            assert b".." not in entry.names
            assert not [name for name in entry.names if b"/" in name or b"\0" in name or not name]


def with_checksum(header: bytes) -> bytes:
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


@given(st.lists(st.tuples(st.integers(0, 511), st.binary(min_size=1, max_size=12)), max_size=6))
def test_headers_with_a_right_checksum_may_hold_anything(patches: list[tuple[int, bytes]]) -> None:
    header = bytearray(member("name", b"x" * 512)[0].tobuf(tarfile.USTAR_FORMAT))
    for at, patch in patches:
        header[at : at + len(patch)] = patch
    try:
        entries = read(with_checksum(bytes(header[:512])) + b"x" * 512 + bytes(1024))
    except (Rejected, LimitExceeded):
        return
    assert all(len(content) == entry.size_bytes <= 512 for entry, content in entries)


def extended(body: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while size != len(rest) + len(str(size)):
        size = len(rest) + len(str(size))
    return str(size).encode() + rest


ONE = archive(member("file", b"x"))


@pytest.mark.parametrize(
    "body",
    [
        b"garbage", b"5 a=b", b"0 a=b\n", b"-6 a=b\n", b"99999 path=evil\n", b"6 =ab\n", b"5 ab\n", b"07 a=bc\n", b" 6 a=b\n",
        b"6 a=b\n6 a=c\n", b"6 a=b\n\0\0\0", record(b"size", b"-1"), record(b"size", b"1e3"), record(b"size", b""),
        record(b"size", b"9" * 30), record(b"path", b""), record(b"path", b"a\0b"), record(b"path", b"../x"),
        record(b"path", b"/x"), record(b"GNU.sparse.size", b"1"),
    ],
)  # fmt: skip
def test_extended_headers_that_lie_are_refused(body: bytes) -> None:
    with pytest.raises((Rejected, LimitExceeded)):
        read(extended(body) + ONE)


def test_extended_headers_say_what_they_may() -> None:
    body = record(b"mtime", b"1.5") + record(b"comment", b"a=b\n c") + record(b"path", b"caf\xe9/x")
    assert [entry.names for entry, _ in read(extended(body) + ONE)] == [(b"caf\xe9", b"x")]
    assert len(read(extended(record(b"comment", b"of git"), tarfile.XGLTYPE) + ONE)) == 1
    assert read(extended(record(b"size", b"1")) + ONE)[0][1] == b"x"
    for body in (record(b"path", b"x"), record(b"size", b"1"), record(b"linkpath", b"x")):
        with pytest.raises(Rejected):  # it would be said of every entry
            read(extended(body, tarfile.XGLTYPE) + ONE)
    with pytest.raises(Rejected):  # which of the two?
        read(extended(record(b"path", b"a")) + extended(record(b"path", b"b")) + ONE)
    with pytest.raises(Rejected):
        read(extended(record(b"path", b"a")) + extended(b"b\0", tarfile.GNUTYPE_LONGNAME) + ONE)
    with pytest.raises(Rejected):
        read(extended(record(b"path", b"a")) + bytes(1024))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_headers_are_bounded(kind: bytes) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, MAX_EXTENSION_BYTES + 1
    with pytest.raises(LimitExceeded):
        list(TarReader(max_bytes=MAX).feed(info.tobuf(tarfile.USTAR_FORMAT)))


def test_bytes_are_bounded_by_what_is_announced_and_by_what_comes() -> None:
    data = archive(member("a", b"x" * 5000))
    assert len(read(data, max_bytes=len(data))) == 1
    with pytest.raises(LimitExceeded):
        read(data, max_bytes=len(data) - 1)
    with pytest.raises(LimitExceeded):
        list(TarReader(max_bytes=5000).feed(data[:512]))


def test_numbers_may_be_in_base_256() -> None:
    header = member("file", b"x" * 700)[0].tobuf(tarfile.USTAR_FORMAT)
    large = with_checksum(header[:124] + b"\x80" + (700).to_bytes(11, "big") + header[136:])
    assert read(large + b"x" * 700 + bytes(324 + 1024))[0][1] == b"x" * 700
    negative = with_checksum(header[:124] + b"\xff" * 12 + header[136:])
    with pytest.raises(Rejected):
        read(negative + bytes(1024))


@given(st.binary(max_size=60))
def test_names_lead_nowhere_else(path: bytes) -> None:
    try:
        names = split_name(path)
    except PathRefused:
        return
    assert not path.startswith(b"/")
    assert all(name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name for name in names)
