"""Trees and changes through a sidecar and its client: cuts, restarts, readers that stand still, sidecars that lie."""

import asyncio
import os
import tarfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shadow.core.errors import Broken, NotFound, Rejected, ShadowError, Unavailable
from shadow.core.watching import ChangesMissed, FileChanges, Watching
from shadow.execution.host.executor import HostExecutor, open_host
from shadow.execution.interface import WatchEvent
from shadow.execution.sidecar_client.endpoint import UnixEndpoint
from shadow.execution.streams import closing
from shadow.http.admission import Admission, HttpLimits
from shadow.http.events import EventStream
from shadow.http.holds import Holds
from shadow.sidecar.watching import encode
from shadow.testing.trees import archive, member, pieces
from shadow.wire.server_sent import MAX_EVENT_BYTES, EventDecoder, encode_event
from tests.support.descriptors import open_descriptors
from tests.support.sidecars import Waits, client, forged, listen, serving
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

DEADLINE_S = 20.0


@pytest.fixture
async def host(tmp_path: Path) -> AsyncGenerator[HostExecutor]:
    (tmp_path / "root").mkdir()
    async with open_host(tmp_path / "root", tmp_path / "state") as executor:
        yield executor


async def content(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


async def following(events: AsyncIterator[WatchEvent]) -> WatchEvent | None:
    async with asyncio.timeout(DEADLINE_S):
        return await anext(events, None)


async def told_of(events: AsyncIterator[WatchEvent], path: str) -> list[WatchEvent]:
    seen: list[WatchEvent] = []
    while True:
        event = await following(events)
        assert event is not None
        seen.append(event)
        if isinstance(event, FileChanges) and any(change.path == path for change in event.changes):
            return seen


# Trees


async def test_an_upload_that_is_refused_early_ends_early(host: HostExecutor, tmp_path: Path) -> None:
    """The client hears why, and does not send the gigabytes that are left."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield archive(member("../evil", b"x"))[:512]
        while sent < 1 << 32:
            sent += 1 << 20
            yield bytes(1 << 20)

    with listen(tmp_path / "sock") as listener:
        async with serving(host, listener), client(UnixEndpoint(tmp_path / "sock")) as one:
            with pytest.raises(Rejected, match="leads out"):
                await one.upload_tree("target", endless())
            assert sent < 256 << 20
            await one.upload_tree("target", pieces(archive(member("good", b"x"))))
    assert os.listdir(tmp_path / "root/target") == ["good"]


async def test_a_download_that_fails_in_the_middle_is_not_taken_for_whole(host: HostExecutor, tmp_path: Path) -> None:
    (tmp_path / "root/a").write_bytes(b"x" * 20_000_000)
    with listen(tmp_path / "sock") as listener:
        async with serving(host, listener), client(UnixEndpoint(tmp_path / "sock")) as one:
            async with closing(one.download_tree()) as stream:
                await anext(stream)
                os.truncate(tmp_path / "root/a", 15_000_000)
                with pytest.raises(Unavailable, match="broke off"):
                    await content(stream)


async def test_a_sidecar_that_stops_cuts_a_download(host: HostExecutor, tmp_path: Path) -> None:
    (tmp_path / "root/a").write_bytes(b"x" * 50_000_000)
    with listen(tmp_path / "sock") as listener:
        async with client(UnixEndpoint(tmp_path / "sock")) as one:
            async with serving(host, listener):
                stream = one.download_tree()
                await anext(stream)
            with pytest.raises(Unavailable):
                await content(stream)


TREE = archive(member("a", b"x" * 3000), member("d", kind=tarfile.DIRTYPE))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (TREE, None),
        (b"", Broken),
        (TREE[:-512], None),  # tapes are padded: it still ends in two empty blocks
        (TREE[:4608], Broken),
        (TREE[:-1], Broken),
        (TREE + b"\0", Broken),
        (TREE + b"x" * 512, Broken),
        (b'{"error": {}}', Broken),
    ],
)
async def test_a_tree_without_its_end_is_an_error(body: bytes, error: type[ShadowError] | None, tmp_path: Path) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()

    async with forged(tmp_path / "sock", answer) as endpoint, client(endpoint, waits=Waits()) as one:
        if error is None:
            assert await content(one.download_tree()) == body
        else:
            with pytest.raises(error):
                await content(one.download_tree())


async def test_a_download_begins_anew_only_before_its_first_byte(tmp_path: Path) -> None:
    answers = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        answers += 1
        if answers > 2:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + TREE[:1000])
            await writer.drain()

    async with forged(tmp_path / "sock", answer) as endpoint, client(endpoint, waits=Waits()) as one:
        with pytest.raises(Unavailable, match="after 1000 bytes"):
            await content(one.download_tree())
    assert answers == 3


# Changes


async def test_a_restart_of_the_sidecar_is_told_as_missed_and_the_watch_goes_on(
    host: HostExecutor, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    with listen(tmp_path / "sock") as listener:
        async with client(UnixEndpoint(tmp_path / "sock")) as one:
            async with closing(one.watch()) as events:
                async with serving(host, listener):
                    assert await following(events) == Watching()
                    (root / "before").touch()
                    await told_of(events, "before")
                (root / "meanwhile").touch()
                async with serving(host, listener):
                    assert await following(events) == ChangesMissed(reason="a disconnect")
                    (root / "after").touch()
                    assert len(await told_of(events, "after")) == 1


async def test_a_directory_that_went_while_nobody_saw_it_ends_the_watch(host: HostExecutor, tmp_path: Path) -> None:
    (tmp_path / "root/d").mkdir()
    with listen(tmp_path / "sock") as listener:
        async with client(UnixEndpoint(tmp_path / "sock")) as one:
            async with closing(one.watch("d")) as events:
                async with serving(host, listener):
                    assert await following(events) == Watching()
                (tmp_path / "root/d").rmdir()
                async with serving(host, listener):
                    assert await following(events) is None
            async with serving(host, listener):
                with pytest.raises(NotFound):
                    await following(one.watch("d"))


async def test_a_sidecar_that_stays_away_ends_the_watch(host: HostExecutor, tmp_path: Path) -> None:
    with listen(tmp_path / "sock") as listener:
        async with client(UnixEndpoint(tmp_path / "sock"), waits=Waits()) as one:
            async with closing(one.watch()) as events:
                async with serving(host, listener):
                    assert await following(events) == Watching()
                listener.close()
                with pytest.raises(Unavailable):
                    await following(events)


async def test_a_client_that_leaves_ends_the_watch_inside(host: HostExecutor, tmp_path: Path) -> None:
    def instances() -> int:
        return open_descriptors()["anon_inode:inotify"]

    with listen(tmp_path / "sock") as listener:
        async with serving(host, listener), client(UnixEndpoint(tmp_path / "sock")) as one:
            async with closing(one.watch()) as events:
                await following(events)
                assert instances() == 1
            await until(lambda: instances() == 0)


class Reader:
    """The other side of an ASGI response."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.ended = False
        self.takes = asyncio.Event()
        self.takes.set()
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.parts.append(message.get("body", b""))
        self.ended = message["type"] == "http.response.body" and not message.get("more_body", False)

    def events(self) -> list[tuple[str, bytes]]:
        decoder = EventDecoder()
        return [event for part in self.parts for event in decoder.feed(part)]


def open_holds() -> Holds:
    return Holds(Admission(HttpLimits(), clock=time.monotonic))


async def test_a_silent_watch_gives_signs_of_life(host: HostExecutor) -> None:
    reader = Reader()
    task = asyncio.create_task(
        EventStream(host.watch(), encode, open_holds(), heartbeat_s=0.02)({}, reader.receive, reader.send)
    )
    await until(lambda: reader.parts.count(b": heartbeat\n\n") >= 3)
    reader.gone.set()
    await asyncio.wait_for(task, 10)
    assert reader.events() == [("watching", b"{}")]
    assert not reader.ended


async def test_a_reader_that_takes_nothing_is_given_up_and_nothing_is_kept_for_it(
    host: HostExecutor, tmp_path: Path
) -> None:
    asked = 0

    async def counted() -> AsyncIterator[WatchEvent]:
        nonlocal asked
        async with closing(host.watch()) as events:
            async for event in events:
                asked += 1
                yield event

    reader = Reader()
    task = asyncio.create_task(
        EventStream(counted(), encode, open_holds(), heartbeat_s=0.1)({}, reader.receive, reader.send)
    )
    await until(lambda: bool(reader.events()))
    reader.takes.clear()
    for number in range(100):
        (tmp_path / f"root/{number}").touch()
        await asyncio.sleep(0)
    await asyncio.wait_for(task, 10)
    assert asked <= 2
    assert not reader.ended


async def test_a_sidecar_that_stops_leaves_the_end_open(host: HostExecutor) -> None:
    reader, holds = Reader(), open_holds()
    task = asyncio.create_task(EventStream(host.watch(), encode, holds)({}, reader.receive, reader.send))
    await until(lambda: bool(reader.events()))
    holds.stop()
    await asyncio.wait_for(task, 10)
    assert [name for name, _ in reader.events()] == ["watching"]


WATCHING = encode_event("watching", b"{}")
LIES = {
    "no JSON": encode_event("changes", b"x"),
    "another shape": encode_event("changes", b'{"changes": [{"kind": "x", "path": "a"}]}'),
    "a path that leads out": encode_event("changes", b'{"changes": [{"kind": "created", "path": "../a"}]}'),
    "an absolute path": encode_event("changes", b'{"changes": [{"kind": "created", "path": "/a"}]}'),
    "a source that leads out": encode_event(
        "changes", b'{"changes": [{"kind": "renamed", "path": "a", "source": "b/../../c"}]}'
    ),
    "a long reason": encode_event("missed", b'{"reason": "%s"}' % (b"x" * 2000)),
    "a line without end": b"data: " + b"x" * (MAX_EVENT_BYTES + 1),
    "comments without end": b":x\n" * (MAX_EVENT_BYTES // 2),
}


@pytest.mark.parametrize("what", LIES)
async def test_changes_that_are_none_are_typed_errors(what: str, tmp_path: Path) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + WATCHING + LIES[what])
        await writer.drain()

    async with forged(tmp_path / "sock", answer) as endpoint, client(endpoint, waits=Waits()) as one:
        async with closing(one.watch()) as events:
            assert await following(events) == Watching()
            with pytest.raises(Broken):
                await following(events)


async def test_events_of_newer_sidecars_are_passed_over(tmp_path: Path) -> None:
    sent = (
        WATCHING
        + encode_event("weather", b"{}")
        + encode_event("missed", b'{"reason": "x", "new": 1}')
        + encode_event("end", b"{}")
    )

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for at in range(len(sent)):
            writer.write(sent[at : at + 1])
            await writer.drain()

    async with forged(tmp_path / "sock", answer) as endpoint, client(endpoint) as one:
        assert [event async for event in one.watch()] == [Watching(), ChangesMissed(reason="x")]
