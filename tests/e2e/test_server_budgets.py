"""Budgets through the real server: what is above them is refused before it is spent, also in the middle of a run."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.git_servers import make_repository
from tests.support.servers import Caller, calling, logged_in, running
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

ENDS_WITHIN_S = 90.0
CALL: dict[str, Any] = {"calls": [{"tool": "run_terminal_cmd", "arguments": {"command": "true", "timeout_s": 60}}]}


def script(path: Path, *, steps: int, tokens: int) -> str:
    all_steps = [CALL | {"tokens": {"input": tokens - 1, "output": 1}} for _ in range(steps)]
    path.write_text(json.dumps({"version": 1, "steps": [*all_steps, {"text": "Done."}]}))
    return f"scripted:{path}"


async def finished(caller: Caller, task: str) -> dict[str, Any]:
    async with asyncio.timeout(ENDS_WITHIN_S):
        async for event in caller.events(task):
            if event["event"]["kind"] == "run_finished":
                return event["event"]
    raise AssertionError("the log ended")


async def usage(caller: Caller, query: str = "") -> list[dict[str, Any]]:
    return (await caller.call("GET", f"/v1/usage{query}"))["users"]


async def test_a_run_ends_before_the_request_that_would_be_above_the_budget(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    home = tmp_path / "home"
    home.mkdir()
    model = script(tmp_path / "script.yaml", steps=5, tokens=100)
    asked = {"repository": str(source), "instruction": "Do it.", "model": model}
    async with running(home, SHADOW_BUDGET_TOKENS_DAY="250") as server, logged_in(server) as admin:
        task = (await admin.call("POST", "/v1/tasks", asked))["id"]
        end = await finished(admin, task)
        assert (end["status"], end["code"]) == ("limit_reached", "tokens_day")
        assert "300 of 250 tokens" in end["summary"]
        assert end["usage"]["input_tokens"] + end["usage"]["output_tokens"] == 300
        (own,) = await usage(admin)
        assert own["spending"]["day"]["requests"] == 3
        assert own["spending"]["month"]["input_tokens"] == 297
        assert {name: value for name, value in own["budgets"].items() if value is not None} == {"tokens_day": 250}
        for path, body in (("/v1/tasks", asked), (f"/v1/tasks/{task}/messages", {"text": "Go on."})):
            told = await admin.call("POST", path, body, expect=413)
            assert told["error"]["code"] == "budget_spent"
            assert told["error"]["details"]["limit"] == "tokens_day"
        changed = await admin.call("PUT", "/v1/users/local/budgets", {"tokens_day": None, "usd_month": "0.5"})
        assert changed["budgets"]["tokens_day"] is None
        await admin.call("POST", f"/v1/tasks/{task}/messages", {"text": "Go on."})
        await admin.call("PUT", "/v1/users/local/budgets", {"tokens_day": -1}, expect=422)
        await admin.call("PUT", "/v1/users/user_nobody/budgets", {}, expect=404)


async def test_everybody_sees_their_own_and_administrators_all(tmp_path: Path) -> None:
    async with running(tmp_path) as server, logged_in(server) as admin:
        invited = await admin.call("POST", "/v1/users", {"name": "ann"})
        async with calling(server.url, None) as ann:
            ann.token = (await ann.call("POST", "/v1/login", {"code": invited["code"]}))["secret"]
            (own,) = await usage(ann)
            assert (own["user_id"], own["spending"]["month"]["requests"]) == (invited["user"]["id"], 0)
            await ann.call("GET", "/v1/usage?all=true", expect=403)
            await ann.call("PUT", f"/v1/users/{own['user_id']}/budgets", {"tokens_day": None}, expect=403)
        assert {one["user_id"] for one in await usage(admin, "?all=true")} == {"local", invited["user"]["id"]}


async def test_cpu_time_and_storage_end_with_their_budgets(tmp_path: Path) -> None:
    source = make_repository(tmp_path / "project", {"a.txt": b"x" * 8192})
    home = tmp_path / "home"
    home.mkdir()
    burn = "while [ $(awk '{print int($14 + $15)}' /proc/$$/stat) -lt 150 ]; do :; done; echo burnt > burnt.txt"
    calls = [{"tool": "run_terminal_cmd", "arguments": {"command": line, "timeout_s": 60}} for line in (burn, "true")]
    path = tmp_path / "script.yaml"
    path.write_text(json.dumps({"version": 1, "steps": [{"calls": [call]} for call in calls] + [{"text": "Done."}]}))
    asked = {"repository": str(source), "instruction": "Do it.", "model": f"scripted:{path}"}
    async with (
        running(home, SHADOW_BUDGET_CPU_S_DAY="1", SHADOW_BUDGET_STORAGE_BYTES="8k") as server,
        logged_in(server) as admin,
    ):
        task = await admin.call("POST", "/v1/tasks", asked)
        end = await finished(admin, task["id"])
        assert (end["status"], end["code"]) == ("limit_reached", "cpu_s_day")
        (own,) = await usage(admin)
        assert 1.5 <= own["spending"]["day"]["cpu_s"] < 60
        assert own["spending"]["month"]["cpu_s"] == own["spending"]["day"]["cpu_s"]
        assert 8192 <= own["spending"]["storage_bytes"] < 2**20
        for limit, freed in (("cpu_s_day", "cpu_s_day"), ("storage_bytes", None)):
            for where, body in (("/v1/tasks", asked), (f"/v1/tasks/{task['id']}/messages", {"text": "Go on."})):
                told = await admin.call("POST", where, body, expect=413)
                assert (told["error"]["code"], told["error"]["details"]["limit"]) == ("budget_spent", limit)
            if freed is not None:
                await admin.call("PUT", "/v1/users/local/budgets", {freed: None})
        await admin.call("POST", f"/v1/tasks/{task['id']}/archive")

        async def is_free() -> bool:
            return (await usage(admin))[0]["spending"]["storage_bytes"] == 0

        await until(is_free, within_s=ENDS_WITHIN_S)
        (own,) = await usage(admin)
        assert own["spending"]["day"]["cpu_s"] >= 1.5  # that stays spent
        await admin.call("POST", "/v1/tasks", asked)
