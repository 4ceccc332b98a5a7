"""The one guard of what users of a server name: however a host inside is written or reached, nothing there hears of it."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shadow.accounts.keys import Keys
from shadow.accounts.sealing import SealingKeys
from shadow.agent.providers.making import Endpoint, make_model
from shadow.agent.providers.trying import try_key
from shadow.api.tasks import check_outward
from shadow.core.accounts import LOCAL_USER, UserId
from shadow.core.egress import parse_rules
from shadow.core.errors import Denied, Rejected, Unavailable
from shadow.core.keys import KeyOwner, Payer
from shadow.core.models import ModelRequestRefused
from shadow.core.outward import check_host, outward_policy
from shadow.core.repositories import parse_repository
from shadow.db.database import open_database
from shadow.egress.guard import guarded_to, guarding_proxy
from shadow.scm.owners import Owner
from shadow.scm.repositories import Repositories
from tests.support.egress import Resolver, Upstream, pretending, upstream
from tests.support.git_servers import git, http_server, make_repository
from tests.support.model_replies import Answer, Raw, Say
from tests.support.model_wires import COMPATIBLE, ask, request
from tests.support.nasty_hosts import AMBIGUOUS, INSIDE, LOOPBACK, NASTY, resolves_to_nothing
from tests.support.scm import clone, commit_inside, repositories

MEMBER = Owner(id="user_other", is_host_user=False)
pytestmark = pytest.mark.anyio

ALICE = UserId("user_alice")
HERS = KeyOwner(user_id=ALICE)
KEY = "sk-somebodys-0123456789"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def kept(directory: Path, *rules: str, resolver: Any = None) -> AsyncGenerator[Keys]:
    """``rules``: the operator's."""
    async with open_database(directory, url="sqlite://") as database:
        yield Keys(
            database=database,
            sealing=SealingKeys(file=directory / "sealing-keys"),
            attempt=try_key,
            rules=parse_rules(rules),
            **({} if resolver is None else {"resolver": resolver}),
        )


async def put(keys: Keys, base_url: str, *, owner: KeyOwner = HERS, **options: Any) -> object:
    options = {"by": ALICE, **options}
    return await keys.put(owner, "compatible", key=KEY, base_url=base_url, **options)


@asynccontextmanager
async def listening() -> AsyncGenerator[tuple[Upstream, Upstream]]:
    """Who would hear of it, on both kinds of loopback and the same port."""
    async with upstream(OK) as four:
        server = await asyncio.start_server(lambda _reader, writer: heard(writer), "::1", four.port)
        six = Upstream(four.port, bytearray())

        def heard(writer: asyncio.StreamWriter) -> None:
            six.connections += 1
            writer.close()

        try:
            yield four, six
        finally:
            server.close()
            await server.wait_closed()


# Base URLs


@pytest.mark.parametrize("check", [True, False])
async def test_no_base_url_inside_is_taken_however_it_is_written(tmp_path: Path, check: bool) -> None:
    async with listening() as (four, six), kept(tmp_path) as keys:
        for host in NASTY:
            for url in (f"https://{host}:{four.port}/v1", f"http://{host}:{four.port}/v1", f"https://{host}"):
                if not check and host.lower() == "localhost":
                    continue  # a name, which is judged when it is resolved
                with pytest.raises((Rejected, Denied)):
                    await put(keys, url, check=check)
        for url in (
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
            "unix:/run/x.sock",
            "//127.0.0.1",
            "127.0.0.1",
            "https:127.0.0.1",
        ):
            with pytest.raises(Rejected):
                await put(keys, url, check=check)
        assert await keys.list(HERS) == []
        assert (four.connections, six.connections) == (0, 0)


async def test_a_public_looking_name_that_leads_inside_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    inside = [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "169.254.169.254",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fd00::1",
        "0.0.0.0",
    ]
    names = {f"n{number}.example": [address] for number, address in enumerate(inside)}
    names["mixed.example"] = ["93.184.216.34 127.0.0.1"]
    async with listening() as (four, six), kept(tmp_path, resolver=Resolver(names)) as keys:
        for name in names:
            with pytest.raises(Denied, match="is not allowed"):
                await put(keys, f"https://{name}:{four.port}")
        assert (four.connections, six.connections) == (0, 0)


async def test_a_name_that_changes_its_mind_is_judged_once_more_and_connected_to_as_judged(tmp_path: Path) -> None:
    """Public when it is looked at first, loopback when it is connected to; then loopback hears nothing."""
    async with listening() as (four, _):
        resolver = pretending(llm_example=["93.184.216.34", "127.0.0.1"])
        async with kept(tmp_path, resolver=resolver) as keys:
            with pytest.raises(ModelRequestRefused, match="not public"):
                await put(keys, f"https://llm.example:{four.port}")
            assert resolver.asked == ["llm.example"] * 2
        # The same in plain HTTP, which only a rule of the operator's allows, and towards a model.
        resolver = pretending(llm_example=["10.0.0.1", "127.0.0.1"])
        async with kept(tmp_path, f"private:llm.example:{four.port}", resolver=resolver) as keys:
            with pytest.raises(ModelRequestRefused, match="not public"):
                await put(keys, f"http://llm.example:{four.port}")
        policy = outward_policy(parse_rules([f"private:llm.example:{four.port}"]))
        for scheme in ("http", "https"):
            resolver = pretending(llm_example=["10.0.0.1", "127.0.0.1"])
            async with guarded_to(policy, "llm.example", four.port, resolver=resolver) as proxy:
                endpoint = Endpoint(base_url=f"{scheme}://llm.example:{four.port}", key=KEY, proxy=proxy)
                model = make_model("compatible:any", endpoints={"compatible": endpoint})
                with pytest.raises(ModelRequestRefused, match="not public") as raised:
                    await ask(model, request("Go"))
                assert KEY not in str(raised.value)
                await model.aclose()
        assert four.connections == 0


async def test_a_redirect_takes_no_key_anywhere(tmp_path: Path) -> None:
    """Neither when a key is tried nor when it is used: where the redirect leads hears nothing."""
    async with listening() as (four, six):
        for status in (301, 302, 303, 307, 308):
            away = Raw(b"", status=status, headers={"location": f"http://127.0.0.1:{four.port}/v1/models"})
            async with COMPATIBLE.serve(lambda _, away=away: away) as server:
                server.trial = away
                outside = server.url.removeprefix("http://").removesuffix("/v1")
                async with kept(tmp_path, outside) as keys:
                    with pytest.raises(ModelRequestRefused, match="redirects"):
                        await keys.put(HERS, "compatible", key=server.key, base_url=server.url, by=ALICE)
                    await keys.put(HERS, "compatible", key=server.key, base_url=server.url, by=ALICE, check=False)
                    async with keys.endpoint("compatible", Payer(user_id=ALICE)) as endpoint:
                        assert endpoint is not None
                        model = make_model("compatible:any", endpoints={"compatible": endpoint})
                        with pytest.raises(ModelRequestRefused, match="redirects"):
                            await ask(model, request("Go"))
                        await model.aclose()
        assert (four.connections, six.connections) == (0, 0)


async def test_what_the_operator_names_may_be_reached_and_nothing_beside_it(tmp_path: Path) -> None:
    async with COMPATIBLE.serve([Answer([Say("Hello.")])]) as server, listening() as (four, _):
        outside = server.url.removeprefix("http://").removesuffix("/v1")
        async with kept(tmp_path, outside) as keys:
            await keys.put(HERS, "compatible", key=server.key, base_url=server.url, by=ALICE)
            with pytest.raises((Rejected, Denied)):
                await put(keys, f"http://127.0.0.1:{four.port}/v1")
            async with keys.endpoint("compatible", Payer(user_id=ALICE)) as endpoint:
                assert endpoint is not None
                assert endpoint.proxy is not None
                model = make_model("compatible:any", endpoints={"compatible": endpoint})
                assert (await ask(model, request("Hi"))).message.text == "Hello."
                await model.aclose()
        assert four.connections == 0


async def test_what_is_stored_is_judged_each_time_it_is_used(tmp_path: Path) -> None:
    async with listening() as (four, _), kept(tmp_path, f"127.0.0.1:{four.port}") as keys:
        await put(keys, f"http://127.0.0.1:{four.port}", check=False)
        keys.rules = ()
        with pytest.raises((Rejected, Denied)):
            async with keys.endpoint("compatible", Payer(user_id=ALICE)):
                pass
        with pytest.raises((Rejected, Denied)):
            await keys.test(HERS, "compatible", by=ALICE)
        assert four.connections == 0


async def test_this_hosts_own_user_may_name_what_they_like(tmp_path: Path) -> None:
    async with COMPATIBLE.serve([]) as server, kept(tmp_path) as keys:
        mine = KeyOwner(user_id=LOCAL_USER)
        await keys.put(mine, "compatible", key=server.key, base_url=server.url, by=LOCAL_USER, trusted=True)
        async with keys.endpoint("compatible", Payer(user_id=LOCAL_USER)) as endpoint:
            assert endpoint is not None
            assert endpoint.proxy is None


# Repositories


def addresses(host: str, port: int) -> list[str]:
    at_scp = [] if "@" in host or (":" in host and "[" not in host) else [f"git@{host}:team/project.git"]
    return [
        *at_scp,
        f"https://{host}:{port}/team/project.git",
        f"https://{host}/team/project.git",
        f"ssh://git@{host}:{port}/team/project.git",
        f"http://{host}:{port}/team/project.git",
        f"git://{host}:{port}/team/project.git",
        f"ext::sh -c 'echo {host}'",
    ]


async def test_no_repository_inside_is_fetched_for_others_than_this_hosts_user(tmp_path: Path) -> None:
    repos = repositories(tmp_path / "data")
    async with listening() as (four, six):
        for host in NASTY:
            for text in addresses(host, four.port):
                with pytest.raises((Rejected, Denied)):
                    await fetch(repos, text)
        assert (four.connections, six.connections) == (0, 0)


async def fetch(repos: Repositories, text: str) -> None:
    """As the worker does for a task of a member."""
    repository = parse_repository(text, local_user=False)
    async with repos.opened(repository, owner=MEMBER):
        pass


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "served/source")


def outward(data_dir: Path, *urls: str) -> Repositories:
    """As for members of a server whose operator names these hosts."""
    return repositories(data_dir, egress=parse_rules([url.removeprefix("http://") for url in urls]))


async def test_a_redirect_from_outside_to_inside_is_refused(tmp_path: Path, served: Path) -> None:
    with http_server(served.parent) as server, http_server(served.parent) as inner:
        server.redirect = inner.url
        repository = parse_repository(f"{server.url}/source", local_user=True)
        with pytest.raises(Denied):
            async with outward(tmp_path / "data", server.url).opened(repository, owner=MEMBER):
                pass
        assert server.requests != []
        assert inner.requests == []


async def test_a_submodule_inside_is_refused_however_its_host_is_written(tmp_path: Path) -> None:
    with http_server(tmp_path) as inner:
        port = int(inner.url.rpartition(":")[2])
        hosts = ["127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"]
        for number, host in enumerate(hosts):
            modules = f'[submodule "x"]\n\tpath = x\n\turl = https://{host}:{port}/secret\n'
            source = make_repository(tmp_path / f"served/s{number}", {".gitmodules": modules.encode()})
            git(source, "update-index", "--add", "--cacheinfo", f"160000,{git(source, 'rev-parse', 'HEAD')},x")
            git(source, "commit", "-qm", "a module")
        with http_server(tmp_path / "served") as server:
            repos = outward(tmp_path / "data", server.url)
            for number in range(len(hosts)):
                repository = parse_repository(f"{server.url}/s{number}", local_user=True)
                with pytest.raises((Rejected, Denied)):
                    async with repos.opened(repository, submodules=True, owner=MEMBER):
                        pass
        assert inner.requests == []


async def test_nothing_is_pushed_inside_for_others_than_this_hosts_user(tmp_path: Path, served: Path) -> None:
    """A task that was begun when a rule still named the host does not deliver there once none does."""
    with http_server(served.parent) as server:
        async with clone(outward(tmp_path / "data", server.url), f"{server.url}/source", tmp_path / "w") as (
            executor,
            checkout,
        ):
            await commit_inside(executor, "echo new > new")
            repos = repositories(tmp_path / "data")
            before = len(server.requests)
            async with repos.collected(executor, checkout) as work:
                with pytest.raises((Rejected, Denied)):
                    await repos.deliver(work, checkout, owner=MEMBER)
            assert len(server.requests) == before


# Egress rules, and the guard itself


@pytest.mark.parametrize("host", [*LOOPBACK, *INSIDE])
def test_no_rule_of_a_user_leads_inside(host: str) -> None:
    with pytest.raises(Rejected):
        check_outward([f"{host}:443"])


async def test_the_guard_connects_to_nothing_inside() -> None:
    """Raw requests, as a client that was led astray would send them, also for what no URL parser of ours would pass on."""
    async with listening() as (four, six):
        async with guarding_proxy(outward_policy(())) as url:
            credentials, _, authority = url.removeprefix("http://").partition("@")
            authorization = b64encode(credentials.encode()).decode()
            port = int(authority.rpartition(":")[2])
            for host in NASTY:
                target = f"{host}:{four.port}"
                for line in (f"CONNECT {target} HTTP/1.1", f"GET http://{target}/ HTTP/1.1"):
                    head = f"{line}\r\nHost: {target}\r\nProxy-Authorization: Basic {authorization}\r\n\r\n"
                    assert await answer_of(port, head.encode()) in (400, 403), (host, line)
        assert (four.connections, six.connections) == (0, 0)


async def answer_of(port: int, data: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            writer.write(data)
            writer.write_eof()
            return int((await reader.read()).split(b" ", 2)[1])
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("host", [*INSIDE, *AMBIGUOUS])
def test_what_shows_without_a_resolver_is_refused_without_one(host: str) -> None:
    with pytest.raises(Denied):
        check_host(outward_policy(()), host.strip("[]") or "[", 443, setting="X")


async def test_a_host_that_does_not_resolve_is_not_reached(tmp_path: Path) -> None:
    async with kept(tmp_path, resolver=resolves_to_nothing) as keys:
        with pytest.raises(Unavailable):
            await put(keys, "https://nowhere.example")
