"""The egress proxy against hostile clients, servers and resolvers: raw bytes on both sides of it."""

import asyncio
import json
from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadow.core.errors import Denied, Unavailable
from shadow.egress.guard import guarding_proxy
from shadow.egress.requests import BadRequest, parse_request
from shadow.egress.resolving import checked_addresses
from tests.support.egress import policy, pretending, running_proxy, upstream
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
Z = b"\r\n\r\n"


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def get(port: int, *headers: str, method: str = "GET", host: str = "127.0.0.1", body: str = "") -> bytes:
    lines = [f"{method} http://{host}:{port}/path?q HTTP/1.1", f"Host: {host}:{port}", *headers, "", body]
    return "\r\n".join(lines).encode()


# What goes through


async def test_a_request_is_written_anew_and_its_answer_comes_back() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\nKeep-Alive: timeout=9\r\nX-A: b\r\n\r\nhello"
    async with upstream(answer) as server, running_proxy(policy("127.0.0.1:*")) as proxy:
        said = await proxy.say(
            get(
                server.port,
                "Proxy-Connection: keep-alive",
                "Connection: X-Hop, close",
                "X-Hop: 1",
                "X-End: 2",
                "TE: trailers",
            )
        )
    assert said == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\nConnection: close\r\n\r\nhello"
    assert bytes(server.received) == (
        b"GET /path?q HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-End: 2\r\nConnection: close\r\n\r\n" % server.port
    )


async def test_a_tunnel_carries_bytes_both_ways_and_each_side_may_end_first() -> None:
    async def echo_then_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.write(data[::-1] * 1000)
        await writer.drain()

    async with upstream(echo_then_more) as server, running_proxy(policy("127.0.0.1:*")) as proxy:
        said = await proxy.say(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nabc" % server.port, end=True)
        await until(lambda: proxy.proxy.book.open == 0)
    assert said.partition(Z)[0].startswith(b"HTTP/1.1 200 ")
    assert said.partition(Z)[2] == b"cba" * 1000
    counters = proxy.proxy.book.counters()
    assert (counters.bytes_out, counters.bytes_in, counters.connections) == (3, 3000, 1)


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
async def test_bodies_arrive_whole_however_they_are_cut(piece: int) -> None:
    body = bytes(range(256)) * 8
    chunks = b"".join(
        b"%x;x=y\r\n%b\r\n" % (len(body[i : i + piece]), body[i : i + piece]) for i in range(0, len(body), piece)
    )
    async with upstream(OK) as server, running_proxy(policy("127.0.0.1:*")) as proxy:
        said = await proxy.say(
            get(server.port, "Transfer-Encoding: chunked", method="POST") + chunks + b"0\r\nT: 1\r\n\r\n"
        )
        assert said.endswith(b"hello")
    head, _, sent = bytes(server.received).partition(Z)
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    decoded, rest = b"", sent
    while rest and not rest.startswith(b"0\r\n"):
        size, _, rest = rest.partition(b"\r\n")
        decoded, rest = decoded + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    assert body.startswith(decoded)  # the server answered, and closed, after the head


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000
    async with upstream(answer) as server, running_proxy(policy("127.0.0.1:*")) as proxy:
        said = await proxy.say(get(server.port))
    assert said == b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 100_000


# What does not


@pytest.mark.parametrize(
    "request_",
    [
        b"GET http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: other.example\r\n\r\n",
        b"GET http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nHost: 127.0.0.1:PORT\r\n\r\n",
        b"GET http://127.0.0.1:PORT/ HTTP/1.1\r\n\r\n",
        b"GET http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
        b"GET http://127.0.0.1:PORT/ HTTP/1.1\r\nHost : 127.0.0.1:PORT\r\n\r\n",
        b"GET http://127.0.0.1:PORT/ HTTP/1.1\nHost: 127.0.0.1:PORT\n\n\r\n\r\n",
        b"GET http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\nX: y\r\n\r\n",
        b"GET http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\rX: y\r\n\r\n",
        b"GET http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nX: y\r\n folded\r\n\r\n",
        b"GET http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nX: y\0z\r\n\r\n",
        get(0, "Content-Length: 5", "Transfer-Encoding: chunked", method="POST", body="0\r\n\r\n").replace(
            b":0", b":PORT"
        ),
        b"POST http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 5, 5\r\n\r\n",
        b"POST http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: +5\r\n\r\n",
        b"POST http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: -1\r\n\r\n",
        b"POST http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST http://127.0.0.1:PORT/ HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n",
        b"GET http://user:password@127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n",
        b"GET https://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n",
        b"GET file:///etc/passwd HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n",
        b"GET http://127.0.0.1:PORT/ HTTP/2.0\r\nHost: 127.0.0.1:PORT\r\n\r\n",
        b"GET  http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n",
        b"GET http://2130706433:PORT/ HTTP/1.1\r\nHost: 2130706433:PORT\r\n\r\n",
        b"GET http://127.1:PORT/ HTTP/1.1\r\nHost: 127.1:PORT\r\n\r\n",
        b"GET http://0x7f.1:PORT/ HTTP/1.1\r\nHost: 0x7f.1:PORT\r\n\r\n",
        b"CONNECT 127.0.0.1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"CONNECT 127.0.0.1:0 HTTP/1.1\r\nHost: 127.0.0.1:0\r\n\r\n",
        b"CONNECT 127.0.0.1:99999 HTTP/1.1\r\n\r\n",
        b"CONNECT 127.0.0.1:PORT HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc",
        b"CONNECT ::1:PORT HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT [127.0.0.1]:PORT HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT [fe80::1%25lo]:PORT HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n\r\n",
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused(request_: bytes) -> None:
    async with upstream(OK) as server, running_proxy(policy("*:*", "127.0.0.1:*", "[::1]:*")) as proxy:
        assert status(await proxy.say(request_.replace(b"PORT", b"%d" % server.port))) == 400
        assert server.connections == 0


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nabcdefgh\r\n0\r\n\r\n",
        b"0x5\r\nabcde\r\n0\r\n\r\n",
        b"-1\r\n",
        b"5\nabcde\n0\n\n",
        b"\r\n",
        b"f" * 9000 + b"\r\n",
    ],
)
async def test_chunks_that_lie_end_the_exchange(body: bytes) -> None:
    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        got.extend(await reader.read())

    got = bytearray()
    async with upstream(listen) as server, running_proxy(policy("127.0.0.1:*")) as proxy:
        said = await proxy.say(get(server.port, "Transfer-Encoding: chunked", method="POST") + body)
        assert status(said) in (0, 400)
    assert b"0\r\n\r\n" not in bytes(got).partition(Z)[2]


async def test_a_second_request_on_the_same_connection_reaches_nobody() -> None:
    async with upstream(OK) as server, upstream(OK) as other, running_proxy(policy("127.0.0.1:*")) as proxy:
        said = await proxy.say(get(server.port) + get(other.port) + get(server.port, method="DELETE"))
        assert said.count(b"HTTP/1.1 ") == 1
        assert (server.connections, other.connections) == (1, 0)
    assert bytes(server.received).count(b"HTTP/1.1") == 1


async def test_what_follows_a_body_is_not_sent() -> None:
    async with upstream(OK) as server, running_proxy(policy("127.0.0.1:*")) as proxy:
        await proxy.say(get(server.port, "Content-Length: 3", method="POST", body="abcGET /evil HTTP/1.1\r\n\r\n"))
    assert bytes(server.received).partition(Z)[2] in (b"abc", b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage" + Z,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6" + Z,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked" + Z,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x" + Z,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 400_000 + Z,
    ],
)
async def test_answers_that_make_no_sense_are_a_bad_gateway(answer: bytes) -> None:
    async with upstream(answer) as server, running_proxy(policy("127.0.0.1:*")) as proxy:
        assert status(await proxy.say(get(server.port))) == 502


async def test_redirects_are_not_followed_and_their_targets_are_judged_again() -> None:
    async with upstream(OK) as private:
        location = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:%d/\r\nContent-Length: 0\r\n\r\n" % private.port
        async with upstream(location) as server, running_proxy(policy(f"127.0.0.1:{server.port}")) as proxy:
            assert status(await proxy.say(get(server.port))) == 302
            assert status(await proxy.say(get(private.port, host="127.0.0.2"))) == 403
        assert private.connections == 0


# Names


async def test_a_name_that_no_rule_has_is_never_resolved() -> None:
    resolver = pretending(secret_data_evil_example=["93.184.216.34"])
    async with running_proxy(policy(".example.org"), resolver) as proxy:
        said = await proxy.say(
            b"CONNECT secret.data.evil.example:443 HTTP/1.1\r\nHost: secret.data.evil.example\r\n\r\n"
        )
    assert status(said) == 403
    assert b"allow secret.data.evil.example" in said
    assert resolver.asked == []


async def test_a_name_is_resolved_once_and_connected_to_what_was_judged() -> None:
    """Rebinding: an answer that would be allowed first, and another one for whoever asks again."""
    async with upstream(OK) as server:
        resolver = pretending(rebinding_example=["127.0.0.1", "127.0.0.2"])
        async with running_proxy(policy("rebinding.example:*"), resolver) as proxy:
            assert status(await proxy.say(get(server.port, host="rebinding.example"))) == 403
            assert resolver.asked == ["rebinding.example"]
            assert status(await proxy.say(get(server.port, host="rebinding.example"))) == 403
        assert server.connections == 0


@pytest.mark.parametrize(
    "addresses",
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "169.254.169.254", "10.0.0.1", "64:ff9b::7f00:1", "fe80::1",
     "93.184.216.34 127.0.0.1"],
)  # fmt: skip
async def test_a_name_that_leads_inside_is_refused(addresses: str) -> None:
    async with upstream(OK) as server, running_proxy(policy("*:*"), pretending(a_example=[addresses])) as proxy:
        said = await proxy.say(get(server.port, host="a.example"))
        assert (status(said), server.connections) == (403, 0)
        assert b"resolves to a" in said


async def test_an_unresolved_and_an_unreachable_host_are_told_apart_from_refusals() -> None:
    async with running_proxy(policy("a.example:*", "127.0.0.1:1"), pretending()) as proxy:
        said = await proxy.say(get(80, host="a.example"))
        assert (status(said), b"cannot be resolved" in said) == (502, True)
        said = await proxy.say(get(1))
        assert (status(said), b"cannot be reached" in said) == (502, True)


async def test_a_resolver_that_hangs_is_given_up() -> None:
    async def hang(_: str) -> list[object]:
        await asyncio.Event().wait()
        return []

    async with running_proxy(policy("a.example", connect_s=0.2), hang) as proxy:
        assert status(await proxy.say(get(80, host="a.example"))) == 504


# Bounds


async def test_slow_and_huge_heads_are_cut_off() -> None:
    async with running_proxy(policy("127.0.0.1:*", header_s=0.3, header_bytes=4096)) as proxy:
        assert status(await proxy.say(b"GET http://127.0.0.1/ HTTP/1.1\r\nX: y")) == 408
        assert status(await proxy.say(b"GET http://127.0.0.1/ HTTP/1.1\r\nX: " + b"y" * 5000 + Z)) == 431
        assert status(await proxy.say(b"GET http://127.0.0.1/" + b"y" * 1_000_000)) == 431
        assert status(await proxy.say(b"GET http://127.0.0.1/ HTTP/1.1\r\n" + b"X: y\r\n" * 300 + b"\r\n")) == 431
        assert await proxy.say(b"GET http://127.0", end=True) == b""


async def test_idle_connections_end() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(silent) as server, running_proxy(policy("127.0.0.1:*", idle_s=0.3)) as proxy:
        said = await proxy.say(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % server.port)
        assert status(said) == 200
        await until(lambda: proxy.proxy.book.open == 0)


async def test_connections_at_once_are_bounded() -> None:
    async with running_proxy(policy("127.0.0.1:*", connections=3)) as proxy:
        held = [await proxy.connect() for _ in range(3)]
        await until(lambda: proxy.proxy.book.open == 3)
        assert status(await proxy.say(get(80))) == 503
        for _, writer in held:
            writer.transport.abort()
        await until(lambda: proxy.proxy.book.open == 0)
        assert status(await proxy.say(get(1))) == 502


async def test_bytes_are_bounded_and_an_endless_body_ends() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(Z)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with upstream(endless) as server, running_proxy(policy("127.0.0.1:*", total_bytes=1_000_000)) as proxy:
        with suppress(ConnectionError):  # cut off
            assert len(await proxy.say(get(server.port))) < 1_100_000
        assert status(await proxy.say(get(server.port))) == 403
        assert proxy.proxy.book.total_bytes < 1_400_000
        assert json.loads(proxy.events()[-1])["kind"] == "limit"


async def test_refusals_are_told_but_not_without_bound() -> None:
    async with running_proxy(policy("a.example")) as proxy:
        for number in range(150):
            assert status(await proxy.say(get(80, host=f"n{number}.example"))) == 403
        events = [json.loads(line) for line in proxy.events()]
        assert proxy.proxy.book.refused == 150
    assert 0 < len(events) <= 100
    assert {"kind": "refused", "host": "n0.example", "port": 80, "rule": "n0.example"}.items() <= events[0].items()


# Changes


async def test_a_change_ends_what_is_allowed_no_more_and_leaves_the_rest() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)

    async with upstream(echo) as one, upstream(echo) as two, running_proxy(policy("127.0.0.1:*")) as proxy:
        tunnels: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for server in (one, two):
            reader, writer = await proxy.connect()
            writer.write(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % server.port)
            assert status(await reader.readuntil(Z)) == 200
            tunnels.append((reader, writer))
        proxy.proxy.change(policy(f"127.0.0.1:{two.port}"))
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await tunnels[0][0].readexactly(1)
            tunnels[1][1].write(b"still")
            assert await tunnels[1][0].readexactly(5) == b"still"
        for _, writer in tunnels:
            writer.transport.abort()


# The guard of the control plane


async def test_the_guard_takes_nobody_without_its_credentials() -> None:
    async with upstream(OK) as server, guarding_proxy(policy(f"127.0.0.1:{server.port}")) as url:
        credentials, _, address = url.removeprefix("http://").rpartition("@")
        host, _, port = address.partition(":")

        async def say(*headers: str) -> bytes:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(get(server.port, *headers))
            answer = await reader.read()
            writer.close()
            return answer

        assert status(await say()) == 407
        assert status(await say("Proxy-Authorization: Basic " + b64encode(b"shadow:wrong").decode())) == 407
        assert server.connections == 0
        assert status(await say("Proxy-Authorization: Basic " + b64encode(credentials.encode()).decode())) == 200
    assert b"Proxy-Auth" not in server.received


async def test_addresses_for_other_programs_are_judged_too() -> None:
    resolver = pretending(git_example=["93.184.216.34"], inside_example=["10.0.0.1"])
    assert [str(a) for a in await checked_addresses(policy("*:22"), "git.example", 22, resolver=resolver)] == [
        "93.184.216.34"
    ]
    with pytest.raises(Denied, match="private address"):
        await checked_addresses(policy("*:22"), "inside.example", 22, resolver=resolver)
    with pytest.raises(Denied, match="no rule"):
        await checked_addresses(policy("*:22"), "git.example", 23, resolver=resolver)
    with pytest.raises(Denied):
        await checked_addresses(policy("*:22"), "-oProxyCommand=x", 22, resolver=resolver)
    with pytest.raises(Unavailable):
        await checked_addresses(policy("*:22"), "gone.example", 22, resolver=resolver)


# Any bytes


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_any_head_is_read_or_refused(head: bytes) -> None:
    with suppress(BadRequest):
        assert parse_request(head + Z, limit_bytes=1000).target.host


@given(st.text("abcdefXYZ:/@[]%.0127 \t", max_size=40), st.text("GETCONNECT ", max_size=9))
def test_what_is_read_is_written_as_one_request(target: str, method: str) -> None:
    try:
        request = parse_request(f"{method} {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode(), limit_bytes=1000)
    except BadRequest:
        return
    assert request.head().count(b"\r\n\r\n") == 1
