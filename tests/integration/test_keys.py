"""Stored keys of providers: tried before they are kept, bound to their place, encrypted anew while they are used, never shown."""

import asyncio
import json
import ssl
import stat
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from shadow.accounts.keys import Keys
from shadow.accounts.sealing import Ring, SealingKeys
from shadow.agent.providers.making import Endpoint, Provider, make_model
from shadow.agent.providers.trying import try_key
from shadow.bootstrap import check_model, make_keys, open_model
from shadow.core.accounts import LOCAL_USER, Project, ProjectId, UserId
from shadow.core.egress import parse_rules
from shadow.core.errors import Broken, Conflict, Denied, NotFound, Rejected, SettingsRefused, ShadowError
from shadow.core.keys import KEY_PROVIDERS, KeyOwner, Payer, ProviderKey, SealingKeyMissing, hint_of
from shadow.core.models import (
    ModelAnswerUnreadable,
    ModelKeyMissing,
    ModelKeyRefused,
    ModelOverloaded,
    ModelQuotaExceeded,
    ModelRateLimited,
    ModelRequestRefused,
    ModelUnreachable,
)
from shadow.db import projects
from shadow.db.database import Database
from shadow.db.keys import SealedKey
from shadow.settings import Settings
from tests.support.databases import SQLITE, Place, make_place
from tests.support.model_replies import Answer, Fail, Raw, Say
from tests.support.model_wires import ANTHROPIC, CHAT, COMPATIBLE, WIRES, Wire, ask, request

pytestmark = pytest.mark.anyio

ALICE, BOB = UserId("user_alice"), UserId("user_bob")
HERS, HIS = KeyOwner(user_id=ALICE), KeyOwner(user_id=BOB)
THEIRS = KeyOwner(project_id=ProjectId("proj_site"))
KEY = "sk-hers-0123456789abcdef"


async def taken(provider: Provider, endpoint: Endpoint) -> None: ...


def kept(
    database: Database, directory: Path, *, rules: Sequence[str] = (), given: str = "", attempt: Any = taken
) -> Keys:
    sealing = SealingKeys(file=directory / "sealing-keys", given=given)
    return Keys(database=database, sealing=sealing, attempt=attempt, rules=parse_rules(rules))


async def put(keys: Keys, owner: KeyOwner, key: str = KEY, provider: str = "anthropic", **options: Any) -> ProviderKey:
    return await keys.put(owner, provider, key=key, **{"base_url": None, "by": ALICE, **options})


async def used(keys: Keys, payer: Payer, provider: str = "anthropic") -> str | None:
    async with keys.endpoint(provider, payer) as endpoint:
        return None if endpoint is None else endpoint.key


async def add_project(database: Database, owner: KeyOwner) -> None:
    assert owner.project_id is not None
    async with database.write() as transaction:
        await projects.add(transaction, Project(id=owner.project_id, name="Site", created_at=1.0))


async def rows(database: Database) -> list[dict[str, Any]]:
    async with database.read() as connection:
        return [dict(row) for row in (await connection.execute(text("SELECT * FROM provider_keys"))).mappings()]


# Whose counts


async def test_the_projects_key_counts_before_the_users_and_both_before_the_servers(
    place: Place, tmp_path: Path
) -> None:
    async with place.open() as database:
        await add_project(database, THEIRS)
        keys = kept(database, tmp_path)
        hers, in_project = Payer(user_id=ALICE), Payer(user_id=ALICE, project_id=THEIRS.project_id)
        assert await used(keys, in_project) is None
        await put(keys, HERS, "sk-hers-0123456789")
        assert [await used(keys, payer) for payer in (hers, in_project)] == ["sk-hers-0123456789"] * 2
        await put(keys, THEIRS, "sk-theirs-0123456789")
        assert await used(keys, in_project) == "sk-theirs-0123456789"
        assert await used(keys, hers) == "sk-hers-0123456789"
        assert await used(keys, Payer(user_id=BOB)) is None
        assert await used(keys, in_project, "openai") is None
        await keys.remove(THEIRS, "anthropic")
        assert await used(keys, in_project) == "sk-hers-0123456789"
        with pytest.raises(NotFound):
            await keys.remove(THEIRS, "anthropic")


async def test_what_is_told_of_a_key_is_no_key(place: Place, tmp_path: Path) -> None:
    async with place.open() as database:
        keys = kept(database, tmp_path)
        stored = await put(keys, HERS)
        assert (stored.hint, stored.added_by, stored.base_url) == ("cdef", ALICE, None)
        assert await keys.list(HERS) == [stored]
        assert await keys.list(HIS) == []
        (row,) = await rows(database)
        assert KEY not in json.dumps(row)
        assert (await put(keys, HERS, "short-key")).hint == ""
        assert len(await rows(database)) == 1


async def test_a_projects_key_goes_with_it(place: Place, tmp_path: Path) -> None:
    async with place.open() as database:
        await add_project(database, THEIRS)
        await put(kept(database, tmp_path), THEIRS)
        async with database.write() as transaction:
            await projects.remove(transaction, ProjectId("proj_site"))
        assert await rows(database) == []
        with pytest.raises(NotFound):
            await put(kept(database, tmp_path), THEIRS)


@pytest.mark.parametrize(
    ("provider", "key", "base_url"),
    [
        ("anthropic", "", None),
        ("anthropic", "sk-with blank", None),
        ("anthropic", "sk-with\nline", None),
        ("anthropic", "sk-schlüssel", None),
        ("anthropic", "x" * 501, None),
        ("compatible", KEY, None),
        ("ollama", "", None),
        ("anthropic", KEY, "http://example.org"),
        ("anthropic", KEY, "https://user:pw@example.org"),
        ("anthropic", KEY, "https://example.org/v1?key=x"),
    ],
)
async def test_what_can_be_no_key_is_refused(tmp_path: Path, provider: str, key: str, base_url: str | None) -> None:
    async with make_place(SQLITE, tmp_path).open() as database:
        with pytest.raises(Rejected):
            await put(kept(database, tmp_path), HERS, key, provider, base_url=base_url)
        with pytest.raises(NotFound):
            await put(kept(database, tmp_path), HERS, KEY, "openai-chat")
        assert await rows(database) == []
        assert not (tmp_path / "sealing-keys").exists()


# Trying


TRIALS = [
    (Fail(status=401), ModelKeyRefused),
    (Fail(status=403), ModelKeyRefused),
    (Fail(status=402), ModelQuotaExceeded),
    (Fail(status=429), ModelRateLimited),
    (Fail(status=529), ModelOverloaded),
    (Fail(status=404), ModelRequestRefused),
    (Raw(b"", status=302, headers={"location": "https://example.org/"}), ModelRequestRefused),
    (Raw(b"<html>Welcome!</html>", content_type="text/html"), ModelAnswerUnreadable),
    (Raw(b" " * (5 * 1024 * 1024), content_type="application/json"), ModelAnswerUnreadable),
]


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_a_key_is_tried_before_it_is_kept(wire: Wire, tmp_path: Path) -> None:
    async with wire.serve([]) as server, make_place(SQLITE, tmp_path).open() as database:
        rule = server.url.removeprefix("http://").removesuffix("/v1")
        keys = kept(database, tmp_path, rules=[rule], attempt=try_key)
        await put(keys, HERS, server.key, wire.settings, base_url=server.url)
        assert [(seen.method, seen.path) for seen in server.requests] == [("GET", server.tried_at)]
        await keys.test(HERS, wire.settings, by=ALICE)
        with pytest.raises(ModelKeyRefused) as raised:
            await put(keys, HERS, "sk-another-0123456789", wire.settings, base_url=server.url)
        assert "sk-another" not in str(raised.value) + repr(raised.value.details)
        assert (await keys.list(HERS))[0].hint == hint_of(server.key)
        assert (
            await put(keys, HERS, "sk-another-0123456789", wire.settings, base_url=server.url, check=False)
        ).hint == "6789"
        with pytest.raises(ModelKeyRefused):
            await keys.test(HERS, wire.settings, by=ALICE)


@pytest.mark.parametrize(("reply", "kind"), TRIALS, ids=lambda value: getattr(value, "__name__", None))
async def test_a_refusal_is_its_own_error_and_keeps_nothing(
    reply: Fail | Raw, kind: type[ShadowError], tmp_path: Path
) -> None:
    async with ANTHROPIC.serve([]) as server, make_place(SQLITE, tmp_path).open() as database:
        server.trial = reply
        keys = kept(database, tmp_path, rules=[server.url.removeprefix("http://")], attempt=try_key)
        with pytest.raises(ShadowError) as raised:
            await put(keys, HERS, server.key, base_url=server.url)
        assert type(raised.value) is kind
        assert server.key not in str(raised.value)
        assert await rows(database) == []


async def test_nobody_who_answers_is_said(tmp_path: Path, free_tcp_port: int) -> None:
    async with make_place(SQLITE, tmp_path).open() as database:
        keys = kept(database, tmp_path, rules=[f"127.0.0.1:{free_tcp_port}"], attempt=try_key)
        for scheme in ("http", "https"):
            with pytest.raises((ModelUnreachable, ModelOverloaded)):
                await put(keys, HERS, base_url=f"{scheme}://127.0.0.1:{free_tcp_port}")
        assert await rows(database) == []


async def test_by_https_the_tunnel_of_the_guard_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS is between the provider and the client: the guard sees the host, and neither key nor conversation."""
    made, key = tmp_path / "made.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", made], check=True, capture_output=True)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(made))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # does not count
    server = COMPATIBLE.serve([Answer([Say("safely")])])
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(made, key)
    async with server, make_place(SQLITE, tmp_path).open() as database:
        rule = server.url.removeprefix("https://").removesuffix("/v1")
        keys = kept(database, tmp_path, rules=[rule], attempt=try_key)
        await put(keys, HERS, server.key, "compatible", base_url=server.url)
        async with keys.endpoint("compatible", Payer(user_id=ALICE)) as endpoint:
            assert endpoint is not None
            model = make_model("compatible:any", endpoints={"compatible": endpoint})
            assert (await ask(model, request("Go"))).message.text == "safely"
            await model.aclose()
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(ModelUnreachable):
            await put(keys, HERS, server.key, "compatible", base_url=server.url)


async def test_a_user_tries_one_key_at_a_time(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(provider: Provider, endpoint: Endpoint) -> None:
        begun.set()
        await go_on.wait()

    async with make_place(SQLITE, tmp_path).open() as database:
        keys = kept(database, tmp_path, attempt=slow)
        first = asyncio.create_task(put(keys, HERS))
        await begun.wait()
        with pytest.raises(Conflict):
            await put(keys, HERS)
        go_on.set()
        await put(keys, HIS, by=BOB)
        assert (await first).provider == "anthropic"


# Sealing


async def test_a_row_opens_in_its_own_place_alone(place: Place, tmp_path: Path) -> None:
    """Whoever can write into the database makes no key go to another owner, provider or address."""
    async with place.open() as database:
        keys = kept(database, tmp_path)
        await put(keys, HERS)
        await put(keys, HIS, "sk-his-0123456789abcd")
        (hers,) = [row for row in await rows(database) if row["owner"] == "user/user_alice"]
        changes = [
            ("sealed = :sealed", {"sealed": hers["sealed"]}),
            ("base_url = 'https://evil.example'", {}),
            ("provider = 'openai'", {}),
            ("sealed = :sealed", {"sealed": hers["sealed"][:-8] + "AAAAAAA="}),
            ("sealed = 'rubbish'", {}),
        ]
        (before,) = [row for row in await rows(database) if row["owner"] == "user/user_bob"]
        for change, values in changes:
            async with database.write() as transaction:
                statement = text(f"UPDATE provider_keys SET {change} WHERE owner = 'user/user_bob'")
                await transaction.connection.execute(statement, values)
            provider = "openai" if "provider" in change else "anthropic"
            with pytest.raises(Broken) as raised:
                await used(keys, Payer(user_id=BOB), provider)
            assert KEY not in str(raised.value)
            async with database.write() as transaction:
                restore = "UPDATE provider_keys SET sealed = :sealed, base_url = :base_url, provider = :provider"
                await transaction.connection.execute(text(f"{restore} WHERE owner = 'user/user_bob'"), before)
        assert await used(keys, Payer(user_id=BOB)) == "sk-his-0123456789abcd"


def about(provider: str = "anthropic", base_url: str | None = None) -> ProviderKey:
    return ProviderKey(provider=provider, base_url=base_url, hint="", added_by="x", added_at=1.0)


@given(
    key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=500),
    owner=st.sampled_from(["user/a", "user/b", "project/a"]),
    provider=st.sampled_from(KEY_PROVIDERS),
    base_url=st.sampled_from([None, "https://a.example", "https://b.example"]),
    other=st.tuples(
        st.sampled_from(["user/a", "user/b", "project/a"]),
        st.sampled_from(KEY_PROVIDERS),
        st.sampled_from([None, "https://a.example", "https://b.example"]),
    ),
)
def test_what_is_sealed_is_bound(
    key: str, owner: str, provider: str, base_url: str | None, other: tuple[str, str, str | None]
) -> None:
    ring = Ring(keys=(Fernet.generate_key(), Fernet.generate_key()))
    sealed = ring.seal(owner, about(provider, base_url), key)
    assert ring.open(sealed) == key
    assert key not in sealed.sealed or len(key) < 8
    moved = SealedKey(owner=other[0], about=about(other[1], other[2]), sealed=sealed.sealed, sealed_by=sealed.sealed_by)
    if other != (owner, provider, base_url):
        with pytest.raises(Broken):
            ring.open(moved)
    with pytest.raises(Broken):
        ring.open(replace(sealed, sealed_by=ring.names[1]))


async def test_the_sealing_key_is_for_its_user_alone_and_made_once(tmp_path: Path) -> None:
    file = tmp_path / "data/sealing-keys"
    rings = await asyncio.gather(*(asyncio.to_thread(SealingKeys(file=file).made) for _ in range(8)))
    assert len({ring.names for ring in rings}) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["sealing-keys"]
    assert repr(rings[0]) == "Ring()"
    file.chmod(0o604)
    with pytest.raises(Denied, match="everybody"):
        SealingKeys(file=file).ring()


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"\xff\xfe", b"SIBcPnvqmPbOkrgIsgAsEPiucvTOAn7_Pa_Dq-wZ", b"x" * 100_000], ids=range(5)
)
def test_a_damaged_file_is_said_and_not_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "sealing-keys"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(SettingsRefused) as raised:
        SealingKeys(file=file).made()
    assert content[:10].decode("latin-1") not in str(raised.value) or not content
    assert file.read_bytes() == content


async def test_a_lost_sealing_key_is_said_and_none_is_made_beside_what_it_sealed(place: Place, tmp_path: Path) -> None:
    async with place.open() as database:
        keys = kept(database, tmp_path)
        await put(keys, HERS)
        file = tmp_path / "sealing-keys"
        saved = file.read_bytes()
        (name,) = keys.sealing.ring().names
        for wrong in (None, Fernet.generate_key()):
            file.unlink(missing_ok=True)
            if wrong is not None:
                file.write_bytes(wrong)
                file.chmod(0o600)
            for attempt in (
                lambda: used(keys, Payer(user_id=ALICE)),
                lambda: put(keys, HIS),
                lambda: put(keys, HERS),
                lambda: keys.test(HERS, "anthropic", by=ALICE),
                keys.rotate,
            ):
                with pytest.raises(SealingKeyMissing, match=name) as raised:
                    await attempt()
                assert raised.value.mend is not None
            assert (file.read_bytes() if file.exists() else None) == wrong
        assert len(await keys.list(HERS)) == 1
        file.write_bytes(saved)
        assert await used(keys, Payer(user_id=ALICE)) == KEY
        file.unlink()
        await keys.remove(HERS, "anthropic")
        await put(keys, HIS)
        assert await used(keys, Payer(user_id=BOB)) == KEY


async def test_sealing_keys_of_the_setting_need_no_file(place: Place, tmp_path: Path) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    async with place.open() as database:
        await put(kept(database, tmp_path, given=old), HERS)
        both = kept(database, tmp_path, given=f"{new}, {old}")
        assert await used(both, Payer(user_id=ALICE)) == KEY
        rotated = await both.rotate()
        assert (rotated.keys, rotated.sealed_by) == (1, both.sealing.ring().names[0])
        assert await used(kept(database, tmp_path, given=new), Payer(user_id=ALICE)) == KEY
        with pytest.raises(Conflict):
            await both.rotate(forget_old=True)
        assert not (tmp_path / "sealing-keys").exists()


# Encrypting anew


@pytest.mark.parametrize("forget_old", [False, True])
async def test_encrypting_anew_disturbs_nobody(shared_place: Place, tmp_path: Path, forget_old: bool) -> None:
    """Another process reads and writes all the time; each read finds a key, and what is written is there at the end."""
    owners = [KeyOwner(user_id=UserId(f"user_{number}")) for number in range(6)]
    done = asyncio.Event()

    async def read_on(keys: Keys) -> int:
        count = 0
        while not done.is_set():
            for number, owner in enumerate(owners):
                assert owner.user_id is not None
                assert await used(keys, Payer(user_id=owner.user_id)) == f"sk-{number}-0123456789"
                count += 1
        return count

    async def write_on(keys: Keys) -> int:
        count = 0
        while not done.is_set():
            await put(keys, HERS, f"sk-hers-{count:010}")
            count += 1
        return count

    async with shared_place.open() as database, shared_place.open() as other:
        keys = kept(database, tmp_path)
        for number, owner in enumerate(owners):
            await put(keys, owner, f"sk-{number}-0123456789")
        reading = asyncio.create_task(read_on(kept(other, tmp_path)))
        writing = asyncio.create_task(write_on(kept(other, tmp_path)))
        names = {(await keys.rotate(forget_old=forget_old)).sealed_by for _ in range(5)}
        done.set()
        async with asyncio.timeout(60):
            assert await reading > 0
            written = await writing
        assert len(names) == 5
        assert await used(keys, Payer(user_id=ALICE)) == f"sk-hers-{written - 1:010}"
        await keys.rotate(forget_old=forget_old)
        (newest, *_) = keys.sealing.ring().names
        assert {row["sealed_by"] for row in await rows(database)} == {newest}
        assert len(keys.sealing.ring().names) == (1 if forget_old else 7)


async def test_what_was_encrypted_anew_between_two_looks_is_found(tmp_path: Path) -> None:
    """The row was read, then its sealing key was forgotten by another process, then the file was read."""
    place = make_place(SQLITE, tmp_path)

    async def rotate() -> None:
        async with place.open() as database:
            await kept(database, tmp_path).rotate(forget_old=True)

    class Overtaken(SealingKeys):
        times = 0

        def ring(self) -> Ring:
            self.times += 1
            if self.times == 1:
                with ThreadPoolExecutor(1) as thread:
                    thread.submit(asyncio.run, rotate()).result()
            return super().ring()

    async with place.open() as database:
        keys = kept(database, tmp_path)
        await put(keys, HERS)
        keys.sealing = overtaken = Overtaken(file=tmp_path / "sealing-keys")
        assert await used(keys, Payer(user_id=ALICE)) == KEY
        assert overtaken.times == 2


# Models


async def test_a_model_is_opened_with_the_key_that_counts(tmp_path: Path) -> None:
    async with COMPATIBLE.serve([Answer([Say("Hers.")]), Answer([Say("The server's.")])]) as server:
        rule = server.url.removeprefix("http://").removesuffix("/v1")
        settings = Settings(
            data_dir=tmp_path,
            compatible_base_url=server.url,
            compatible_api_key=server.key,  # type: ignore[arg-type]
            model_egress=(rule,),
        )
        async with make_place(SQLITE, tmp_path).open() as database:
            keys = make_keys(settings, database)
            await put(keys, HERS, server.key, "compatible", base_url=server.url)
            for payer, said in ((Payer(user_id=ALICE), "Hers."), (Payer(user_id=BOB), "The server's.")):
                async with open_model(settings, "compatible:any", keys=keys, payer=payer) as model:
                    assert (await ask(model, request("Whose?"))).message.text == said
            assert await keys.secrets(Payer(user_id=ALICE)) == [server.key]


async def test_the_servers_own_keys_are_for_all_unless_it_says_otherwise(tmp_path: Path) -> None:
    async with make_place(SQLITE, tmp_path).open() as database:
        shared = Settings(data_dir=tmp_path, anthropic_api_key="sk-server-0123456789")  # type: ignore[arg-type]
        alone = shared.model_copy(update={"server_share_keys": False})
        keys = make_keys(alone, database)
        keys.attempt = taken
        hers = {"keys": keys, "payer": Payer(user_id=ALICE)}
        local = {"keys": keys, "payer": Payer(user_id=LOCAL_USER)}
        assert await check_model(shared, "anthropic:any", **hers) == "anthropic:any"  # type: ignore[arg-type]
        assert await check_model(alone, "anthropic:any", **local) == "anthropic:any"  # type: ignore[arg-type]
        with pytest.raises(ModelKeyMissing, match="no key of yours"):
            await check_model(alone, "anthropic:any", **hers)  # type: ignore[arg-type]
        await put(keys, HERS)
        assert await check_model(alone, "anthropic:any", **hers) == "anthropic:any"  # type: ignore[arg-type]


async def test_a_refused_key_that_is_stored_is_not_looked_for_in_the_settings(tmp_path: Path) -> None:
    async with CHAT.serve([Fail(status=401, message=f"bad key {KEY}")]) as server:
        endpoint = Endpoint(base_url=server.url, key=server.key, is_stored=True)
        model = make_model(CHAT.model, endpoints={"openai": endpoint})
        with pytest.raises(ModelKeyRefused) as raised:
            await ask(model, request("Go"))
        await model.aclose()
        assert "that is stored" in str(raised.value)
        assert server.key not in str(raised.value)
