"""``ETag`` and its conditions on files, through a sidecar and through the server before it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shadow.db.database import open_database
from tests.support.api_servers import serving_api, workspaces
from tests.support.sidecars import TOKEN

pytestmark = pytest.mark.anyio

LARGE = b"0123456789" * 100_000
READS = (
    "/files?path=f",
    "/files?path=f&limit_bytes=3",
    "/files?path=f&offset=2",
    "/files/stat?path=f",
    "/files/lines?path=f",
)


@dataclass(frozen=True, kw_only=True)
class Files:
    session: aiohttp.ClientSession
    root: Path
    prefix: str

    async def ask(
        self, method: str, path: str, data: Any = None, *, json: object = None, **headers: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Headers are written with ``_`` for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, self.prefix + path, data=data, json=json, headers=named) as response:
            return response.status, response.headers, await response.read()

    async def put(self, data: Any, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        return await self.ask("PUT", "/files?path=f", data, **headers)


@pytest.fixture(params=["sidecar", "server"])
async def files(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Files]:
    async with workspaces(tmp_path, "ws_alice") as manager:
        root = tmp_path / "ws_alice" / "files"
        opened = through_sidecar(root) if request.param == "sidecar" else through_server(root, manager)
        async with opened as found:
            yield found


@asynccontextmanager
async def through_sidecar(root: Path) -> AsyncGenerator[Files]:
    connector = aiohttp.UnixConnector(str(root.parent / "sidecar.sock"))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession("http://sidecar", connector=connector, headers=headers) as session:
        yield Files(session=session, root=root, prefix="/v1")


@asynccontextmanager
async def through_server(root: Path, manager: Any) -> AsyncGenerator[Files]:
    async with (
        open_database(root.parent.parent, url="sqlite://") as database,
        serving_api(database, manager) as api,
    ):
        alice, token = await api.user("alice")
        await api.add_task("task_alice", owner=alice.id, workspace_id="ws_alice")
        async with aiohttp.ClientSession(api.url, headers={"Authorization": f"Bearer {token}"}) as session:
            yield Files(session=session, root=root, prefix="/v1/workspaces/ws_alice")


async def test_every_way_of_reading_tells_the_same_tag(files: Files) -> None:
    for content in (b"a\nb\n", b"", LARGE):
        status, headers, _ = await files.put(content)
        assert status == 200
        tag = headers["ETag"]
        assert tag.startswith('"')
        for path in READS:
            status, headers, _ = await files.ask("GET", path)
            assert (status, headers.get("ETag")) == (200, tag), (path, len(content))
    (files.root / "d").mkdir()
    _, headers, _ = await files.ask("GET", "/files/stat?path=d")
    assert "ETag" not in headers


async def test_who_has_the_version_gets_no_body(files: Files) -> None:
    for content in (b"small", LARGE):
        _, headers, _ = await files.put(content)
        tag = headers["ETag"]
        for path in READS:
            for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
                status, headers, body = await files.ask("GET", path, If_None_Match=known)
                assert (status, headers["ETag"], body) == (304, tag, b""), (path, known)
            for unknown in ('"x"', "nonsense", tag[:-1], ""):
                assert (await files.ask("GET", path, If_None_Match=unknown))[0] == 200, (path, unknown)
    assert (await files.ask("GET", READS[0], If_None_Match=tag))[0] == 304
    (files.root / "f").write_bytes(b"other")
    status, _, body = await files.ask("GET", READS[0], If_None_Match=tag)
    assert (status, body) == (200, b"other")


async def test_a_write_goes_through_only_over_what_was_seen(files: Files) -> None:
    _, headers, _ = await files.put(b"one")
    seen = headers["ETag"]
    status, headers, _ = await files.put(b"two", If_Match=seen)
    assert status == 200
    status, _, body = await files.put(b"three", If_Match=seen)
    assert status == 412
    assert b'"code":"changed"' in body
    assert b'"mend":"Read it again' in body

    async def pieces() -> AsyncIterator[bytes]:
        yield LARGE
        yield LARGE

    assert (await files.put(pieces(), If_Match=seen))[0] == 412
    assert (files.root / "f").read_bytes() == b"two"
    assert (await files.put(pieces(), If_Match=headers["ETag"]))[0] == 200
    assert (files.root / "f").read_bytes() == 2 * LARGE
    assert (await files.put(b"any", If_Match="*"))[0] == 200
    (files.root / "f").unlink()
    for missing in ("*", seen):
        assert (await files.put(b"x", If_Match=missing))[0] == 412
    assert list(files.root.iterdir()) == []


@pytest.mark.parametrize("given", ["", "x", 'W/"x"', '"a", "b"', "**"])
async def test_a_condition_that_means_nothing_is_refused(files: Files, given: str) -> None:
    await files.put(b"x")
    for method, path in (("PUT", "/files?path=f"), ("DELETE", "/files?path=f"), ("GET", "/files?path=f")):
        assert (await files.ask(method, path, If_Match=given))[0] == 422
    for one in (given, '"x"'):
        assert (await files.put(b"y", If_None_Match=one))[0] == 422
    assert (files.root / "f").read_bytes() == b"x"


async def test_a_new_file_is_not_written_over_another(files: Files) -> None:
    assert (await files.put(b"new", If_None_Match="*"))[0] == 200
    status, _, body = await files.put(b"newer", If_None_Match="*")
    assert status == 412
    assert b'"code":"already_exists"' in body
    assert (await files.ask("PUT", "/files?path=f&exclusive=true", b"x"))[0] == 409
    assert (await files.put(b"x", If_None_Match="*", If_Match="*"))[0] == 422
    assert (files.root / "f").read_bytes() == b"new"


async def test_whatever_changes_a_file_takes_the_condition(files: Files) -> None:
    _, headers, _ = await files.put(b"text")
    seen = headers["ETag"]
    (files.root / "f").write_bytes(b"text")
    replace = {"path": "f", "old": "text", "new": "more"}
    move = {"source": "f", "target": "g"}
    assert (await files.ask("POST", "/files/replace", json=replace, If_Match=seen))[0] == 412
    assert (await files.ask("POST", "/files/move", json=move, If_Match=seen))[0] == 412
    assert (await files.ask("DELETE", "/files?path=f", If_Match=seen))[0] == 412
    assert [path.name for path in files.root.iterdir()] == ["f"]
    assert (await files.ask("DELETE", "/files?path=nothing", If_Match=seen))[0] == 404
    _, headers, _ = await files.ask("GET", "/files/stat?path=f")
    status, headers, _ = await files.ask("POST", "/files/replace", json=replace, If_Match=headers["ETag"])
    assert status == 200
    assert (await files.ask("POST", "/files/move", json=move, If_Match=headers["ETag"]))[0] == 200
    _, headers, body = await files.ask("GET", "/files?path=g")
    assert body == b"more"
    assert (await files.ask("DELETE", "/files?path=g", If_Match=headers["ETag"]))[0] == 200
    assert list(files.root.iterdir()) == []


async def test_a_reader_goes_on_only_in_the_same_version(files: Files) -> None:
    for content in (LARGE, b"0123456789"):
        _, headers, _ = await files.put(content)
        for limit in ("", "&limit_bytes=5"):
            path = f"/files?path=f&offset=5{limit}"
            status, _, body = await files.ask("GET", path, If_Match=headers["ETag"])
            assert (status, body[:5]) == (200, b"56789")
            assert (await files.ask("GET", path, If_Match='"x"'))[0] == 412


async def test_of_many_writers_that_saw_the_same_one_wins(files: Files) -> None:
    _, headers, _ = await files.put(b"seen")
    seen = headers["ETag"]
    answers = await asyncio.gather(*(files.put(b"%04d" % number, If_Match=seen) for number in range(12)))
    assert sorted(status for status, _, _ in answers) == [200, *[412] * 11]
    (won,) = (number for number, (status, _, _) in enumerate(answers) if status == 200)
    assert (files.root / "f").read_bytes() == b"%04d" % won
