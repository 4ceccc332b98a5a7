"""What goes wrong with a provider, over real HTTP: each its own error, none with the key in it."""

import asyncio
import socket
import ssl
import subprocess
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from shadow.agent.providers.making import Endpoint, ModelOptions, make_model
from shadow.core.conversation import TextDelta, ToolCallDelta
from shadow.core.errors import SettingsRefused, ShadowError
from shadow.core.models import (
    ContentRefused,
    ContextTooLong,
    ModelAnswerUnreadable,
    ModelKeyMissing,
    ModelKeyRefused,
    ModelNotFound,
    ModelOverloaded,
    ModelQuotaExceeded,
    ModelRateLimited,
    ModelRequestRefused,
    ModelUnreachable,
)
from tests.support.model_replies import Answer, Call, Cut, Fail, Raw, Reply, Say, Think
from tests.support.model_wires import ANTHROPIC, CHAT, COMPATIBLE, OLLAMA, RESPONSES, WIRES, Heard, Wire, ask, request

pytestmark = pytest.mark.anyio


@pytest.fixture(params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Wire:
    return request.param


async def fault_of(
    wire: Wire, reply: Reply, *, options: ModelOptions | None = None, heard: Heard | None = None
) -> ShadowError:
    """The error of a request that is answered with ``reply``; it was sent once, and its key is nowhere."""
    async with wire.serve([reply]) as server:
        model = wire.connect(server, options=options)
        with pytest.raises(ShadowError) as raised:
            await ask(model, request("Go"), heard)
        assert len(server.requests) == 1, "the SDK repeated it"
        shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value.details) + str(raised.value.mend)
        assert server.key not in shown
    return raised.value


REFUSALS = [
    (Fail(status=401, type="authentication_error", message="no", code="invalid_api_key"), ModelKeyRefused, False),
    (Fail(status=403, type="permission_error", message="not for you"), ModelKeyRefused, False),
    (Fail(status=402, type="billing_error", message="pay"), ModelQuotaExceeded, False),
    (Fail(status=404, type="not_found_error", message="model: x", code="model_not_found"), ModelNotFound, False),
    (Fail(status=400, type="invalid_request_error", message="tools.0.name is odd"), ModelRequestRefused, False),
    (Fail(status=422, type="invalid_request_error", message="unprocessable"), ModelRequestRefused, False),
    (Fail(status=405, type="invalid_request_error", message="no such method"), ModelRequestRefused, False),
    (Fail(status=429, type="rate_limit_error", message="slower"), ModelRateLimited, True),
    (Fail(status=500, type="api_error", message="internal"), ModelOverloaded, True),
    (Fail(status=502, type="api_error", message="bad gateway"), ModelOverloaded, True),
    (Fail(status=503, type="api_error", message="unavailable"), ModelOverloaded, True),
    (Fail(status=529, type="overloaded_error", message="Overloaded"), ModelOverloaded, True),
    (Fail(status=408, type="timeout", message="too slow"), ModelOverloaded, True),
    (Fail(status=413, type="request_too_large", message="Request exceeds the maximum size"), ContextTooLong, False),
    (Fail(status=400, type="invalid_request_error", message="Output blocked by content filtering policy (content filter)"),
     ContentRefused, False),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "kind", "again"), REFUSALS, ids=lambda value: str(getattr(value, "status", "")))
async def test_a_refusal_is_its_own_error(wire: Wire, reply: Fail, kind: type[ShadowError], again: bool):
    error = await fault_of(wire, reply)
    assert type(error) is kind
    assert error.repeat_is_safe is again
    assert reply.message in error.message


@pytest.mark.parametrize(
    ("wire", "reply", "kind"),
    [
        (
            ANTHROPIC,
            Fail(status=400, type="invalid_request_error", message="prompt is too long: 9 > 8"),
            ContextTooLong,
        ),
        (
            ANTHROPIC,
            Fail(
                status=400,
                type="invalid_request_error",
                message="input length and `max_tokens` exceed context limit: 9",
            ),
            ContextTooLong,
        ),
        (
            ANTHROPIC,
            Fail(status=400, type="invalid_request_error", message="Your credit balance is too low to access the API"),
            ModelQuotaExceeded,
        ),
        (
            RESPONSES,
            Fail(status=429, type="insufficient_quota", code="insufficient_quota", message="x"),
            ModelQuotaExceeded,
        ),
        (
            CHAT,
            Fail(status=400, type="x", code="context_length_exceeded", message="maximum context length"),
            ContextTooLong,
        ),
        (CHAT, Fail(status=400, type="x", code="content_policy_violation", message="no"), ContentRefused),
        (OLLAMA, Fail(status=400, type="x", message="the request exceeds the available context size"), ContextTooLong),
    ],
    ids=str,
)
async def test_what_a_provider_means_by_its_own_words(wire: Wire, reply: Fail, kind: type[ShadowError]):
    assert type(await fault_of(wire, reply)) is kind


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "nonsense"}, None),
        ({}, None),
    ],
)
async def test_the_wait_that_a_provider_asks_for_is_told(wire: Wire, headers: dict[str, str], wait_s: float | None):
    error = await fault_of(wire, Fail(status=429, type="rate_limit_error", message="slower", headers=headers))
    assert error.details.get("retry_after_s") == wait_s


async def test_a_wait_can_be_a_date(wire: Wire):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    error = await fault_of(wire, Fail(status=429, type="rate_limit_error", headers={"Retry-After": date}))
    wait_s = error.details["retry_after_s"]
    assert isinstance(wait_s, float)
    assert 60 < wait_s <= 90


TALK = [Think("thinking"), Say("I will read it."), Call("read_file", {"path": "a" * 60})]


async def test_an_error_in_the_middle_of_the_stream_is_its_own_error(wire: Wire):
    fails = Fail(type="overloaded_error", code="server_is_overloaded", message="Overloaded")
    heard = Heard()
    error = await fault_of(wire, Answer(TALK, fails=fails), heard=heard)
    assert type(error) is ModelOverloaded
    assert any(isinstance(delta, TextDelta) for delta in heard.deltas)
    assert heard.answer is None


@pytest.mark.parametrize("how", ["reset", "close", "end"])
async def test_a_stream_that_is_cut_in_the_middle_of_a_call_is_no_answer(wire: Wire, how: str):
    events = Answer([Call("read_file", {"path": "a" * 60})], cut=Cut(after_events=9, how=how))
    heard = Heard()
    error = await fault_of(wire, events, heard=heard)
    assert type(error) is ModelUnreachable
    assert error.repeat_is_safe
    given = "".join(delta.arguments for delta in heard.deltas if isinstance(delta, ToolCallDelta))
    assert given.startswith('{"path"')


@pytest.mark.parametrize("how", ["reset", "close", "end"])
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_stream_that_is_cut_at_its_beginning_is_no_answer(wire: Wire, how: str, after: int):
    error = await fault_of(wire, Answer([Say("hello")], cut=Cut(after_events=after, how=how)))
    assert type(error) in (ModelUnreachable, ModelAnswerUnreadable)
    assert error.repeat_is_safe


async def test_a_provider_that_falls_silent_is_not_waited_for_for_ever(wire: Wire):
    reply = Answer([Say("hello " * 20)], stall_after_events=8)
    error = await fault_of(wire, reply, options=ModelOptions(silence_s=0.4))
    assert type(error) is ModelUnreachable


async def test_nobody_listens(wire: Wire):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}/v1", key="sk-0123456789")
    model = make_model(wire.model, endpoints={wire.settings: endpoint})
    with pytest.raises(ModelUnreachable) as raised:
        await ask(model, request("Go"))
    assert str(port) in raised.value.message
    assert raised.value.mend
    await model.aclose()


async def test_a_connection_that_is_not_accepted_ends_in_time():
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        full = [socket.socket() for _ in range(4)]
        for one in full:
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{server.getsockname()[1]}", key="sk-0123456789")
        options = ModelOptions(connect_s=0.4, silence_s=0.4)
        model = make_model(ANTHROPIC.model, endpoints={"anthropic": endpoint}, options=options)
        with pytest.raises(ModelUnreachable):
            await asyncio.wait_for(ask(model, request("Go")), 10)
        await model.aclose()
        for one in full:
            one.close()


UNREADABLE = [
    Raw(b"<html><body><h1>It works!</h1></body></html>", content_type="text/html"),
    Raw(b"data: {not json}\n\nevent: message_start\ndata: {not json}\n\n"),
    Raw(b""),
    Raw(b'data: "a text"\n\nevent: message_start\ndata: "a text"\n\n'),
    Raw(
        b'event: message_start\ndata: {"type": "message_start"}\n\ndata: {"choices": 5, "type": "response.created"}\n\n'
    ),
    Raw(b"event: message_start\ndata: [1, 2]\n\ndata: [1, 2]\n\n"),
    Raw(b"\xff\xfe\x00garbage\n\n"),
]


@pytest.mark.parametrize("reply", UNREADABLE, ids=lambda raw: raw.body[:20].decode(errors="replace"))
async def test_what_is_no_answer_at_all_is_told_and_may_be_repeated(wire: Wire, reply: Raw):
    error = await fault_of(wire, reply)
    assert isinstance(error, ModelAnswerUnreadable | ModelUnreachable)


@pytest.mark.parametrize("status", [302, 500])
async def test_a_page_of_a_proxy_is_told_in_a_bounded_line(wire: Wire, status: int):
    page = b"<html>" + b"<p>Sorry, the proxy is tired.</p>" * 500 + b"</html>"
    reply = Raw(page, status=status, content_type="text/html", headers={"location": "http://127.0.0.1:1/"})
    error = await fault_of(wire, reply)
    assert type(error) is (ModelRequestRefused if status == 302 else ModelOverloaded)
    assert len(str(error)) < 700
    assert "\n" not in error.message


async def test_a_key_that_the_provider_repeats_is_not_shown(wire: Wire):
    async with wire.serve(
        lambda seen: Fail(status=403, message=f"key {server.key} or sk-other-123456 is wrong")
    ) as server:
        with pytest.raises(ModelKeyRefused) as raised:
            await ask(wire.connect(server), request("Go"))
    assert "key [key] or [key] is wrong" in raised.value.message


@pytest.mark.parametrize("wire", [ANTHROPIC, RESPONSES, CHAT], ids=str)
async def test_a_missing_key_is_told_before_any_request(wire: Wire):
    async with wire.serve([]) as server:
        with pytest.raises(ModelKeyMissing) as raised:
            wire.connect(server, key="  ")
        assert f"SHADOW_{wire.settings.upper()}_API_KEY" in (raised.value.mend or "")
        assert not server.requests


async def test_a_server_of_ones_own_needs_no_key():
    async with COMPATIBLE.serve([Answer([Say("hi")])]) as server:
        server.key = "no-key"
        assert (await ask(COMPATIBLE.connect(server, key=""), request("Go"))).message.text == "hi"


async def test_keys_of_the_environment_are_not_sent_anywhere(monkeypatch: pytest.MonkeyPatch):
    """They are settings, which say where they go; the SDKs must not find them by themselves."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "OPENROUTER_API_KEY", "OLLAMA_API_KEY"):
        monkeypatch.setenv(name, "sk-of-the-environment")
    for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "OLLAMA_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for wire in WIRES:
        async with wire.serve([Answer([Say("hi")])]) as server:
            await ask(wire.connect(server), request("Go"))
            assert "sk-of-the-environment" not in repr(server.requests[0].headers)


async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch):
    async with ANTHROPIC.serve([Answer([Say("by proxy")])]) as proxy:
        host = proxy.url.removeprefix("http://")
        monkeypatch.setenv("HTTP_PROXY", f"http://{host}")
        monkeypatch.setenv("http_proxy", f"http://{host}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        proxy.check = lambda seen: None  # type: ignore[method-assign] - a proxy gets the whole address as the path
        endpoint = Endpoint(base_url="http://model.invalid", key=proxy.key)
        model = make_model(ANTHROPIC.model, endpoints={"anthropic": endpoint})
        proxy.clients.append(model)
        heard = await ask(model, request("Go"))
        assert heard.message.text == "by proxy"
        assert proxy.requests[0].path.startswith("http://model.invalid/v1/messages")


@pytest.mark.parametrize(("variable", "value"), [("HTTP_PROXY", "nonsense://x"), ("SSL_CERT_FILE", "/nowhere.pem")])
async def test_an_environment_that_cannot_be_used_is_told(variable: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, value)
    model = make_model("ollama:x", endpoints={})
    with pytest.raises(SettingsRefused) as raised:
        await ask(model, request("Go"))
    assert variable in (raised.value.mend or "")
    await model.aclose()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of an authority that nobody knows, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    made, key = directory / "made.pem", directory / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", made], check=True, capture_output=True)
    return made, key


@pytest.mark.parametrize("trusted", [True, False])
async def test_authorities_of_the_environment_are_trusted_and_no_others(
    trusted: bool, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    made, key = certificate
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(made))
    server = ANTHROPIC.serve([Answer([Say("safely")])])
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(made, key)
    async with server:
        model = ANTHROPIC.connect(server)
        if trusted:
            assert (await ask(model, request("Go"))).message.text == "safely"
        else:
            with pytest.raises(ModelUnreachable) as raised:
                await ask(model, request("Go"))
            assert "certificate" in raised.value.message


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://host/v1", "http://", "http://host:99999/", "http://user:pw@host/v1", "http://h/?a=b"],
)
def test_a_base_url_that_is_none_is_refused(url: str):
    with pytest.raises(SettingsRefused) as raised:
        make_model("compatible:m", endpoints={"compatible": Endpoint(base_url=url)})
    assert "SHADOW_COMPATIBLE_BASE_URL" in raised.value.message
    assert "pw" not in str(raised.value)


def test_a_key_with_a_line_break_is_refused_without_showing_it():
    with pytest.raises(SettingsRefused) as raised:
        make_model("openai:m", endpoints={"openai": Endpoint(key="sk-abc\nsk-def")})
    assert "sk-" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("antropic:x", "Did you mean anthropic?"),
        ("gpt-5", "Models are named as in"),
        ("openai:", "openai:gpt-"),
        ("", "Models"),
    ],
)
def test_a_name_that_is_no_model_is_refused_with_the_way_to_write_it(name: str, mend: str):
    with pytest.raises(ModelNotFound) as raised:
        make_model(name, endpoints={})
    assert mend in (raised.value.mend or "")
