"""What a server tells of itself: its log, its metrics. None of it holds a word of what its users say."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_server import FINISH, Reader, begin, gone, script, shell
from tests.support.git_servers import make_repository
from tests.support.metrics import metrics, metrics_text
from tests.support.servers import Caller, Server, logged_in, running

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
SECRET = "hunter2-correct-horse"
WITHIN_S = 60.0


def events(server: Server, name: str) -> list[dict[str, Any]]:
    """Of the log; a line that is no JSON fails the test."""
    return [event for line in server.log().splitlines() if (event := json.loads(line))["event"] == name]


async def until_logged(server: Server, request_id: str, name: str = "request_id") -> dict[str, Any]:
    async with asyncio.timeout(WITHIN_S):
        while True:
            for event in events(server, "request"):
                if event.get(name) == request_id:
                    return event
            await asyncio.sleep(0.02)


async def test_each_request_is_one_event_with_ids_and_without_what_was_said(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    home = tmp_path / "home"
    home.mkdir()
    model = script(tmp_path, shell(f"echo {SECRET}"), FINISH)
    async with running(home, SHADOW_LOG_LEVEL="info") as server, logged_in(server) as caller:
        asked = {"repository": str(source), "instruction": f"Say {SECRET}.", "model": model}
        task = (await caller.call("POST", "/v1/tasks", asked))["id"]
        await Reader(caller, task).until("run_finished")
        headers = {**caller.headers, "X-Request-Id": "from-a-proxy.1"}
        url = f"{server.url}/v1/tasks/{task}/events?after=1&limit=7&unknown={SECRET}"
        async with caller.session.get(url, headers=headers) as response:
            own, status = response.headers["X-Request-Id"], response.status
        assert re.fullmatch(r"req_\w+", own)
        told = await until_logged(server, own)
        assert told["client_request_id"] == "from-a-proxy.1"
        assert (told["method"], told["route"], told["status"]) == ("GET", "/v1/tasks/{task_id}/events", status)
        assert (told["user_id"], told["task_id"]) == ("local", task)
        assert told["ms"] >= 0
        for hostile in ("a" * 65, "a b", 'x"y', "é", ""):
            given = {"X-Request-Id": hostile}
            async with caller.session.get(f"{server.url}/v1/nothing?{SECRET}", headers=given) as response:
                own = response.headers["X-Request-Id"]
                problem = await response.json(content_type=None)
            assert problem["request_id"] == own
            told = await until_logged(server, own)
            assert (told["route"], "client_request_id" in told) == ("", False)
        async with caller.session.ws_connect(
            f"{server.url}/v1/tasks/{task}/events/attach", headers={**caller.headers, "X-Request-Id": "socket"}
        ) as socket:
            await socket.receive()
        assert (await until_logged(server, "socket", "client_request_id"))["status"] == 101
        jobs = [event for event in events(server, "job.done") if event["task_id"] == task]
        assert {event["kind"] for event in jobs} >= {"initialise", "run"}
        assert {event["user_id"] for event in jobs} == {"local"}
        assert all(event["job_id"] for event in events(server, "job.done"))
        await caller.call("DELETE", f"/v1/tasks/{task}")
        await gone(caller, task)
        assert caller.token is not None
        for word in (SECRET, caller.token, server.code):
            assert word not in server.log()


async def test_metrics_count_the_work_are_documented_and_need_a_scope(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    home = tmp_path / "home"
    home.mkdir()
    async with running(home) as server, logged_in(server) as caller:
        task = await begin(caller, source, script(tmp_path, shell("true"), FINISH))
        await Reader(caller, task).until("run_finished")
        async with asyncio.timeout(WITHIN_S):  # the end of the run's job follows its last event
            while (await metrics(caller))["shadow_server_worker_slots_used"][()]:
                await asyncio.sleep(0.02)
        scraper = Caller(caller.session, server.url, await token_for(caller, "metrics"))
        told = await metrics(scraper)
        assert told["shadow_server_tasks"][("idle",)] == 1
        assert told["shadow_server_runs_total"] == {("done",): 1}
        assert told["shadow_server_model_requests_total"][()] == 2
        assert told["shadow_server_jobs_ended_total"][("run", "done")] == 1
        assert told["shadow_server_worker_slots"][()] == 16
        assert told["shadow_server_database_seconds_count"][("write",)] > 5
        assert 0 < told["process_open_fds"][()] < told["process_max_fds"][()]
        assert told["process_resident_memory_bytes"][()] > 1e7
        for method, path in (("GET", "/v1/tasks"), ("GET", "/v1/users")):
            await scraper.call(method, path, expect=403)
        tasks_only = Caller(caller.session, server.url, await token_for(caller, "tasks:read"))
        await tasks_only.call("GET", "/metrics", expect=403)
        text = await metrics_text(scraper)
        documented = set(re.findall(r"^\| `((?:shadow|process)_\w+)`", PAGE, re.MULTILINE))
        assert documented == set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
        if shutil.which("promtool"):
            checked = await asyncio.to_thread(
                subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
            )
            assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
        await caller.call("DELETE", f"/v1/tasks/{task}")
        await gone(caller, task)


async def token_for(caller: Caller, scope: str) -> str:
    return (await caller.call("POST", "/v1/tokens", {"name": scope, "scopes": [scope]}))["secret"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_the_documented_alerts_are_rules_that_prometheus_takes(tmp_path: Path) -> None:
    (rules,) = re.findall(r"```yaml\n(groups:\n.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    named = set(re.findall(r"(?:shadow|process)_\w+", rules))
    documented = set(re.findall(r"^\| `((?:shadow|process)_\w+)`", PAGE, re.MULTILINE))
    assert named <= documented
