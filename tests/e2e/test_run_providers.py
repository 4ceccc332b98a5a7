"""Whole runs through the real SDKs against stand-ins of the providers: the real program, real sandboxes, real HTTP."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.git_servers import git, make_repository
from tests.support.model_replies import Answer, Call, Cut, Fail, Reply, Say, Think
from tests.support.model_wires import ANTHROPIC, CHAT, COMPATIBLE, RESPONSES, Wire
from tests.support.shadow_cli import ShadowCli

pytestmark = pytest.mark.anyio

LIMIT_S = 100.0


async def run(
    cli: ShadowCli, wire: Wire, replies: Sequence[Reply], source: Path, *options: str
) -> tuple[int, str, int]:
    """Exit code, output, and how many requests the provider got; none of them may have been invalid."""
    async with wire.serve(replies) as server:
        name = wire.settings.upper()
        env: Mapping[str, str] = {f"SHADOW_{name}_BASE_URL": server.url, f"SHADOW_{name}_API_KEY": server.key}
        process = await asyncio.create_subprocess_exec(
            *(*cli.argv, "run", str(source), "Make it so", "--model", wire.model, *options),
            env={**cli.environment(), **env},
            cwd=cli.home,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(LIMIT_S):
            out, _ = await process.communicate()
        assert server.key not in out.decode()
        assert process.returncode is not None
        return process.returncode, out.decode(), len(server.requests)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[ShadowCli]:
    (tmp_path / "home").mkdir()
    cli = ShadowCli(tmp_path / "home")
    yield cli
    done = cli.run("workspace", "rm", "--all", "--yes")  # runs that did not end well keep theirs
    assert done.returncode == 0, done


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "project")


def delivered(source: Path, path: str) -> str:
    (branch,) = git(source, "for-each-ref", "--format=%(refname:short)", "refs/heads/shadow").split()
    return git(source, "show", f"{branch}:{path}")


@pytest.mark.parametrize("wire", [ANTHROPIC, RESPONSES, CHAT, COMPATIBLE], ids=str)
async def test_a_run_with_parallel_calls_and_faults_on_the_way(wire: Wire, cli: ShadowCli, source: Path) -> None:
    edit = Call("edit_file", {"path": "NEW.txt", "content": "héllo `$&`\n"})
    replies = [
        Answer([Say("I look."), Call("list_dir", {"path": "."}), Call("read_file", {"path": "README"})]),
        Fail(status=529 if wire is ANTHROPIC else 503, message="Overloaded"),
        Answer([edit], cut=Cut(after_events=4)),
        Answer([edit], one_byte_chunks=True),
        Answer([Call("run_terminal_cmd", {"command": "wc -c NEW.txt", "timeout_s": 30})]),
        Answer([Call("nothing_like_it", {})]),
        Answer([Call("finish", {"summary": "Add NEW.txt", "success": True})]),
    ]
    code, out, requests = await run(cli, wire, replies, source, "--check", "grep -q llo NEW.txt")
    assert code == 0, out
    assert requests == len(replies)
    assert delivered(source, "NEW.txt") == "héllo `$&`"


async def test_reasoning_is_shown_and_sent_back_as_it_was(cli: ShadowCli, source: Path) -> None:
    replies = [
        Answer([Think("Where to begin?"), Call("list_dir", {"path": "."})]),
        Answer([Call("finish", {"summary": "Nothing to do", "success": True})]),
    ]
    code, out, _ = await run(cli, ANTHROPIC, replies, source)
    assert code == 0, out
    assert "Where to begin?" in out


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        (Fail(status=401, message="invalid key"), "model_key_refused"),
        (Fail(status=404, message="no such model"), "model_not_found"),
        (Fail(status=400, message="bad request"), "model_request_refused"),
    ],
)
async def test_what_no_repeat_can_mend_fails_at_once(cli: ShadowCli, source: Path, fail: Fail, code: str) -> None:
    exit_code, out, requests = await run(cli, ANTHROPIC, [fail], source, "--json")
    assert (exit_code, requests) == (1, 1), out
    assert f'"code": "{code}"' in out


async def test_a_rate_limit_is_waited_for(cli: ShadowCli, source: Path) -> None:
    replies = [
        Fail(status=429, message="slow down", headers={"retry-after": "1"}),
        Answer([Call("finish", {"summary": "x", "success": True})]),
    ]
    code, out, requests = await run(cli, ANTHROPIC, replies, source)
    assert (code, requests) == (0, 2), out


async def test_a_cost_limit_is_checked_before_a_request(cli: ShadowCli, source: Path) -> None:
    code, out, requests = await run(cli, ANTHROPIC, [], source, "--max-cost", "0.0001")
    assert (code, requests) == (4, 0), out
    code, out, requests = await run(cli, COMPATIBLE, [], source, "--max-cost", "100")
    assert (code, requests) == (4, 0), out
    assert "unknown" in out


def test_importing_the_command_line_loads_no_sdk() -> None:
    heavy = ("anthropic", "openai", "pydantic_ai", "sqlalchemy")
    code = f"import sys, shadow.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
