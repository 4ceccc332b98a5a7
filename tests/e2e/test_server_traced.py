"""What a server tells a collector of traces: requests, jobs, steps, requests to models, calls of tools, and nobody's words."""

import json
import signal
import socket
from pathlib import Path

import pytest

from tests.e2e.test_server import FINISH, Reader, gone, script, shell
from tests.support.git_servers import make_repository
from tests.support.otlp import collecting, silent_collector
from tests.support.servers import logged_in, running

pytestmark = pytest.mark.anyio

CANARY = "canary7f3a"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVER_KIND, CLIENT_KIND = 2, 3


async def test_a_task_is_traced_without_a_word_of_what_was_said(tmp_path: Path) -> None:
    source = make_repository(tmp_path / CANARY, {f"{CANARY}.txt": f"{CANARY}\n".encode()})
    home = tmp_path / "home"
    (scripts := tmp_path / f"scripts-{CANARY}").mkdir()
    home.mkdir()
    bad = {"calls": [{"tool": f"tool_{CANARY}", "arguments": {"text": CANARY}}]}
    model = script(scripts, {"text": CANARY, **shell(f"cat {CANARY}.txt; echo {CANARY} >&2; exit 3")}, bad, FINISH)
    keys = {"SHADOW_OPENAI_API_KEY": f"sk-{CANARY}", "SHADOW_OTEL_HEADERS": f"x-key={CANARY}"}
    async with collecting() as collector:
        asked_of = {"SHADOW_OTEL_ENDPOINT": collector.url, "SHADOW_LOG_LEVEL": "info", **keys}
        async with running(home, **asked_of) as server, logged_in(server) as caller:
            caller.session.headers.update(
                {"X-Request-Id": CANARY, "User-Agent": CANARY, "tracestate": f"a={CANARY}", "Cookie": f"b={CANARY}"}
            )
            asked = {"repository": str(source), "instruction": f"Say {CANARY}.", "model": model}
            told = {**caller.headers, "traceparent": f"00-{TRACE}-{SPAN}-01"}
            async with caller.session.post(f"{server.url}/v1/tasks", json=asked, headers=told) as response:
                request_id, task = response.headers["X-Request-Id"], (await response.json())["id"]
            await caller.call("GET", f"/v1/tasks/{CANARY}?x={CANARY}", expect=404)
            await Reader(caller, task).until("run_finished")
            await caller.call("DELETE", f"/v1/tasks/{task}")
            await gone(caller, task)
            await collector.until(lambda: collector.named("job delete"))  # on the way already
            secrets = [CANARY, server.code, caller.token or "", caller.headers["Authorization"]]
            assert server.end(signal.SIGTERM) == 0

        sent = b"".join(collector.bodies)
        told_of = [
            (s.name, k, v) for s in collector.spans for k, v in s.attributes.items() if CANARY in str(v) + s.name
        ]
        assert not told_of
        assert not [secret for secret in secrets if secret.encode() in sent]
        assert not [span for span in collector.spans if span.events]
        assert {headers["x-key"] for headers in collector.headers} == {CANARY}

        (made,) = collector.named("POST /v1/tasks")
        assert (made.trace, made.parent, made.kind) == (TRACE, SPAN, SERVER_KIND)
        about = {"http.response.status_code": 201, "user.id": "local", "shadow.request.id": request_id}
        assert about.items() <= made.attributes.items()
        events = [json.loads(line) for line in server.log().splitlines()]
        (logged,) = [event for event in events if event.get("request_id") == request_id and event["event"] == "request"]
        assert logged["trace_id"] == TRACE
        missing = [span for span in collector.named("GET /v1/tasks/{task_id}") if not span.failed]
        assert 404 in {span.attributes["http.response.status_code"] for span in missing}

        (start,), (run,) = collector.named("job initialise"), collector.named("job run")
        for job in (start, run):
            assert (job.parent, job.failed, job.attributes["shadow.outcome"]) == ("", False, "done")
            assert (job.attributes["shadow.task.id"], job.attributes["user.id"]) == (task, "local")
            assert job.attributes["shadow.job.attempt"] == 1
        within = {job.id: [span.name for span in collector.spans if span.parent == job.id] for job in (start, run)}
        assert within[start.id][:3] == ["step FETCH_REPOSITORY", "step PREPARE_WORKSPACE", "step CLONE_REPOSITORY"]
        assert [name for name in within[run.id] if not name.startswith("step")] == [
            "chat scripted",
            "execute_tool run_terminal_cmd",
            "chat scripted",
            "execute_tool unknown",
            "chat scripted",
            "execute_tool finish",
        ]
        chats = collector.named("chat scripted")
        assert {(span.kind, span.attributes["gen_ai.operation.name"]) for span in chats} == {(CLIENT_KIND, "chat")}
        assert all(span.attributes["gen_ai.usage.input_tokens"] >= 0 for span in chats)
        (unknown,) = collector.named("execute_tool unknown")
        assert (unknown.failed, unknown.attributes["error.type"]) == (True, "fault")


@pytest.mark.parametrize("collector", ["away", "silent"])
async def test_a_collector_that_does_not_answer_costs_the_server_nothing(tmp_path: Path, collector: str) -> None:
    async with silent_collector() as url:
        if collector == "away":
            with socket.create_server(("127.0.0.1", 0)) as taken:
                url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with running(tmp_path, SHADOW_OTEL_ENDPOINT=url, SHADOW_LOG_LEVEL="info") as server:
            async with logged_in(server) as caller:
                for number in range(600):  # more than one batch
                    await caller.call("GET", "/v1/me")
                    if number % 200 == 0:
                        await caller.call("POST", "/v1/tokens", {"name": "ci", "scopes": ["tasks:read"]})
                entries = (await caller.call("GET", "/v1/audit?limit=1000"))["entries"]
                assert len([one for one in entries if one["route"] == "/v1/tokens" and one["status"] == 201]) == 3
            assert server.end(signal.SIGTERM) == 0
        asked = [event for line in server.log().splitlines() if (event := json.loads(line))["event"] == "request"]
        assert len([event for event in asked if event["route"] == "/v1/me"]) == 600
