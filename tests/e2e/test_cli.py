"""The command line as a user meets it: exit codes, streams, JSON, errors with a mend. Runs the real program."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.shadow_cli import DEADLINE_S, ShadowCli


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShadowCli]:
    cli = ShadowCli(tmp_path_factory.mktemp("cli"))
    yield cli
    done = cli.run("workspace", "rm", "--all", "--yes")
    assert done.returncode == 0, done
    assert cli.json("workspace", "list") == {"workspaces": []}


@pytest.fixture(scope="module")
def id_(cli: ShadowCli) -> str:
    """A workspace for all tests that leave nothing behind in it."""
    return cli.create("--name", "shared")


def read_until(process: subprocess.Popen[bytes], wanted: bytes) -> bytes:
    assert process.stdout is not None
    seen = b""
    os.set_blocking(process.stdout.fileno(), False)
    deadline = time.monotonic() + DEADLINE_S
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        select.select([process.stdout], [], [], 1.0)
        piece = process.stdout.read()
        assert piece != b"", seen  # the end
        seen += piece or b""
    return seen


def ends(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    if process.stdout is not None:
        os.set_blocking(process.stdout.fileno(), True)
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


# Without a workspace


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_costs_what_would_go_there_and_nothing_else(cli: ShadowCli, id_: str, closed: str):
    for code, arguments in (
        (0, ("workspace", "list", "--json")),
        (0, ("workspace", "exec", id_, "-c", "cat; echo out; echo err >&2")),
        (7, ("workspace", "exec", id_, "--json", "--", "sh", "-c", "exit 7")),
        (1, ("workspace", "show", "nobody")),
        (2, ("workspce",)),
    ):
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *cli.argv, *arguments],
            env=cli.environment(),
            cwd=cli.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == code, done
        assert b"Traceback" not in done.stderr
        assert b"fault" not in done.stderr
        if arguments[1:2] == ("exec",) and code == 0:
            assert done.stdout == (b"" if closed in (">&-", "<&- >&- 2>&-") else b"out\n"), done
            assert done.stderr == (b"" if "2>&-" in closed else b"err\n"), done


def test_help_is_there_without_arguments(cli: ShadowCli):
    done = cli.run()
    assert done.returncode == 0
    assert b"workspace" in done.stdout


def test_the_version_is_printed(cli: ShadowCli):
    from shadow.version import __version__

    assert cli.run("version").stdout.decode().strip() == __version__
    assert cli.json("version") == {"version": __version__}


def test_wrong_usage_ends_with_2_and_a_mend(cli: ShadowCli):
    for arguments in (("workspace", "exec"), ("workspce",), ("workspace", "rm"), ("workspace", "cp", "a", "b")):
        done = cli.run(*arguments)
        assert (done.returncode, done.stdout) == (2, b""), done
        assert done.stderr.startswith(b"shadow: ")
        assert b"Traceback" not in done.stderr


def test_output_that_cannot_be_written_is_told_and_ends_the_command(cli: ShadowCli, id_: str):
    endless = "echo $$ > pid; while :; do echo more; sleep 0.01; done"
    for code, arguments in (
        (1, ("version",)),
        (1, ("--help",)),
        (1, ("workspace", "list", "--json")),
        (125, ("workspace", "exec", id_, "-c", endless)),
    ):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [*cli.argv, *arguments],
                env=cli.environment(),
                cwd=cli.home,
                stdin=subprocess.DEVNULL,
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=DEADLINE_S,
            )
        assert done.returncode == code, done
        assert b"cannot be written: No space left" in done.stderr
        assert b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr
    assert cli.run("workspace", "exec", id_, "-c", "kill -0 $(cat pid)").returncode == 1


def test_times_that_are_none_are_wrong_usage(cli: ShadowCli):
    for arguments in (("create", "--lease", "soon"), ("exec", "any", "--timeout", "0", "--", "true")):
        done = cli.run("workspace", *arguments)
        assert (done.returncode, done.stdout) == (2, b""), done
        assert b"15m" in done.stderr


def test_wrong_usage_is_json_where_json_was_asked_for(cli: ShadowCli):
    done = cli.run("workspace", "create", "--isolation", "jail", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "wrong_usage"


def test_a_misspelt_setting_ends_with_2_and_the_right_name(tmp_path: Path):
    done = ShadowCli(tmp_path, {"SHADOW_ISOLATOIN": "none"}).run("workspace", "list")
    assert done.returncode == 2
    assert b"Did you mean SHADOW_ISOLATION?" in done.stderr


def test_a_mode_that_is_not_there_ends_with_3(tmp_path: Path):
    done = ShadowCli(tmp_path, {"AGENT_MODE": "remote"}).run("workspace", "list", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "unsupported"


@pytest.mark.parametrize(
    "command", [["create"], ["list"], ["show", "x"], ["exec", "x", "--", "true"], ["rm", "x", "-y"]]
)
def test_the_mock_says_that_it_does_not_outlast_a_command(tmp_path: Path, command: list[str]):
    done = ShadowCli(tmp_path, {"AGENT_MODE": "mock"}).run("workspace", *command)
    assert done.returncode in (3, 125)
    assert b"memory of one process" in done.stderr
    assert b"docs/mock.md" in done.stderr
    assert done.stdout == b""


def test_a_run_needs_more_than_the_mock(tmp_path: Path):
    script = tmp_path / "script.yaml"
    script.write_text("version: 1\nsteps: [{text: hello}]\n")
    done = ShadowCli(tmp_path, {"AGENT_MODE": "mock"}).run(
        "run", str(tmp_path), "x", "--model", f"scripted:{script}", "--json"
    )
    assert done.returncode == 3
    assert b"no git" in done.stdout + done.stderr


def test_the_doctor_checks_the_contract_of_the_mock(tmp_path: Path):
    done = ShadowCli(tmp_path, {"AGENT_MODE": "mock"}).run("doctor", "--json")
    assert done.returncode == 0
    contract = json.loads(done.stdout)["contract"]
    assert contract["failed"] == 0
    assert contract["passed"] > 150


def test_a_data_directory_that_cannot_be_made_is_a_typed_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = ShadowCli(tmp_path, {"SHADOW_DATA_DIR": str(tmp_path / "file/below")}).run("workspace", "create")
    assert done.returncode in (1, 2, 3)
    assert done.stderr.startswith(b"shadow: ")
    assert b"fault of Shadow" not in done.stderr


def test_an_unknown_workspace_is_not_found(cli: ShadowCli):
    done = cli.run("workspace", "show", "nothing\x1b[2J")
    assert done.returncode == 1
    assert b"shadow workspace list" in done.stderr
    assert b"\x1b" not in done.stderr


# exec


def test_streams_stay_apart_as_raw_bytes_and_the_code_is_the_commands(cli: ShadowCli, id_: str):
    done = cli.run("workspace", "exec", id_, "-c", r"printf '\377\0out'; printf err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"\xff\0out", b"err")


def test_arguments_reach_the_command_as_they_are(cli: ShadowCli, id_: str):
    done = cli.run("workspace", "exec", id_, "--", "printf", "%s|", "a b", "", "$HOME", "*", "--json")
    assert done.stdout == b"a b||$HOME|*|--json|"


def test_directory_and_variables_are_set(cli: ShadowCli, id_: str):
    assert cli.run("workspace", "exec", id_, "--", "mkdir", "-p", "sub dir").returncode == 0
    line = 'echo "${PWD##*/} $A [$B]"'
    done = cli.run("workspace", "exec", id_, "--cwd", "sub dir", "--env", "A=1=2", "--env", "B=", "-c", line)
    assert done.stdout == b"sub dir 1=2 []\n"


def test_a_piped_stdin_is_forwarded_to_its_end(cli: ShadowCli, id_: str):
    data = os.urandom(300_000)
    assert cli.run("workspace", "exec", id_, "--", "cat", stdin=data).stdout == data


def test_a_command_need_not_read_its_stdin(cli: ShadowCli, id_: str):
    done = cli.run("workspace", "exec", id_, "--", "true", stdin=b"x" * 1_000_000)
    assert done.returncode == 0, done


def test_a_stdin_that_never_ends_does_not_keep_the_command_line(cli: ShadowCli, id_: str):
    with cli.start("workspace", "exec", id_, "-c", "echo done", stdin=subprocess.PIPE) as process:
        assert process.wait(DEADLINE_S) == 0


def test_output_is_live_and_stdin_interactive(cli: ShadowCli, id_: str):
    line = "echo ready; read a; echo got $a"
    process = cli.start("workspace", "exec", id_, "-c", line, stdin=subprocess.PIPE)
    read_until(process, b"ready")
    assert process.stdin is not None
    process.stdin.write(b"it\n")
    process.stdin.flush()
    read_until(process, b"got it")
    assert ends(process)[0] == 0


@pytest.mark.parametrize(("line", "code"), [("kill -TERM $$", 143), ("kill -KILL $$", 137), ("exit 255", 255)])
def test_signals_show_in_the_exit_code(cli: ShadowCli, id_: str, line: str, code: int):
    assert cli.run("workspace", "exec", id_, "-c", line).returncode == code


def test_a_timeout_ends_with_124_and_says_so(cli: ShadowCli, id_: str):
    done = cli.run("workspace", "exec", id_, "--timeout", "0.3", "-c", "echo began; sleep 60")
    assert (done.returncode, done.stdout) == (124, b"began\n")
    assert b"time was up" in done.stderr


def test_a_program_that_is_not_there_ends_with_125(cli: ShadowCli, id_: str):
    done = cli.run("workspace", "exec", id_, "--", "no-such-program")
    assert done.returncode == 125
    assert b"no-such-program" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_whole_tree(cli: ShadowCli, id_: str, number: signal.Signals, code: int):
    mark = f"6{code}.25"
    line = f"setsid sleep {mark} & nohup sleep {mark} >/dev/null 2>&1 & echo ready; wait"
    process = cli.start("workspace", "exec", id_, "-c", line)
    read_until(process, b"ready")
    process.send_signal(number)
    assert ends(process)[0] == code
    left = cli.run("workspace", "exec", id_, "-c", f"grep -sla 'slee[p].*{mark}' /proc/[0-9]*/cmdline; true").stdout
    assert left == b""


def test_a_reader_that_goes_away_ends_the_command(cli: ShadowCli, id_: str):
    with cli.start("workspace", "exec", id_, "--", "yes", "endless") as process:
        read_until(process, b"endless")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_exec_as_json_holds_output_and_code(cli: ShadowCli, id_: str):
    done = cli.run("workspace", "exec", id_, "--json", "-c", r"echo out; printf '\377' >&2; exit 3")
    document = json.loads(done.stdout)
    assert done.returncode == document["exit_code"] == 3
    assert (document["stdout"], document["stderr_base64"]) == ("out\n", "/w==")
    assert document["output_truncated"] is False
    assert document["command"]["ending"] == {"code": 3, "kind": "exited"}


def test_large_output_arrives_whole(cli: ShadowCli, id_: str):
    process = cli.start("workspace", "exec", id_, "-c", "head -c 100000000 /dev/zero")
    code, out, err = ends(process)
    assert (code, len(out), out.count(0), err) == (0, 100_000_000, 100_000_000, b"")


# create, list, show, renew, rm


def test_a_workspace_is_found_by_id_beginning_and_name(cli: ShadowCli, id_: str):
    for reference in (id_, id_[:-2], id_.partition("_")[2], "shared"):
        assert cli.json("workspace", "show", reference)["workspace"]["id"] == id_


def test_list_and_show_tell_how_it_stands(cli: ShadowCli, id_: str):
    (listed,) = [w for w in cli.json("workspace", "list")["workspaces"] if w["id"] == id_]
    assert (listed["name"], listed["state"], listed["isolation"]) == ("shared", "ready", "sandbox")
    table = cli.run("workspace", "list").stdout.decode()
    assert re.search(rf"{id_}\s+shared\s+ready\s+sandbox", table)
    assert "\x1b" not in table
    shown = cli.run("workspace", "show", id_).stdout.decode()
    assert "ready" in shown
    assert "COMMAND" in shown


def test_what_a_workspace_holds_cannot_steer_the_terminal(cli: ShadowCli, id_: str, tmp_path: Path):
    assert cli.run("workspace", "exec", id_, "--", "true", "a\x1b]0;owned\x07\nb").returncode == 0
    shown = cli.run("workspace", "show", id_).stdout
    assert b"\x1b" not in shown
    assert b"\\x1b]0;owned\\x07\\nb" in shown
    cli.run("workspace", "exec", id_, "-c", "mkdir -p odd; mkfifo odd/$'\\e[2J'")
    copied = cli.run("workspace", "cp", f"{id_}:odd", str(tmp_path / "odd"))
    assert copied.returncode == 1
    assert b"left out: \\x1b[2J" in copied.stderr


def test_a_lease_is_given_and_renewed(cli: ShadowCli):
    id_ = cli.create("--lease", "10m")
    before = cli.json("workspace", "show", id_)["workspace"]["lease_expires_at"]
    assert before - time.time() == pytest.approx(600, abs=60)
    after = cli.json("workspace", "renew", id_, "--lease", "2h")["workspace"]["lease_expires_at"]
    assert after - time.time() == pytest.approx(7200, abs=60)
    assert cli.run("workspace", "rm", id_).returncode == 0


def test_variables_of_a_workspace_reach_every_command(cli: ShadowCli):
    id_ = cli.create("--env", "GREETING=hello there")
    assert cli.run("workspace", "exec", id_, "-c", "echo $GREETING").stdout == b"hello there\n"
    assert cli.json("workspace", "rm", id_) == {"removed": [id_]}
    assert cli.run("workspace", "exec", id_, "--", "true").returncode == 125


def test_the_environment_of_the_caller_stays_outside(cli: ShadowCli, id_: str):
    secret = ShadowCli(cli.home, {"MY_SECRET": "s3cret"})
    assert b"s3cret" not in secret.run("workspace", "exec", id_, "--", "env").stdout


def test_isolation_none_warns_what_it_means(cli: ShadowCli):
    done = cli.run("workspace", "create", "--isolation", "none")
    assert done.returncode == 0, done
    assert b"no wall" in done.stderr
    id_ = done.stdout.decode().strip()
    assert cli.run("workspace", "exec", id_, "--", "true").returncode == 0
    assert cli.run("workspace", "rm", id_).returncode == 0


def test_a_killed_command_line_leaves_a_workspace_for_the_next(cli: ShadowCli, id_: str):
    process = cli.start("workspace", "exec", id_, "-c", "echo going on; sleep 0.5; echo > after-the-kill; sleep 600")
    read_until(process, b"going on")
    process.kill()
    ends(process)
    assert cli.run("workspace", "exec", id_, "-c", "until [ -e after-the-kill ]; do sleep 0.05; done").returncode == 0
    commands = cli.json("workspace", "show", id_)["commands"]
    assert any(command["ending"] is None and "after-the-kill" in command["argv"][-1] for command in commands)


# cp


def test_a_tree_goes_in_and_comes_out_the_same(cli: ShadowCli, id_: str, tmp_path: Path):
    source = tmp_path / "source"
    (source / "deep/empty").mkdir(parents=True)
    (source / "deep/data").write_bytes(os.urandom(3_000_000))
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("deep/data")
    (source / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"")
    (source / "-rf; echo $(x)\n").write_text("odd")
    assert cli.json("workspace", "cp", str(source), f"{id_}:copied")["files"] == 4
    out = cli.json("workspace", "cp", f"{id_}:copied", str(tmp_path / "back"))
    assert (out["files"], out["links"], out["skipped"]) == (4, 1, [])
    compared = subprocess.run(["diff", "-r", "--no-dereference", source, tmp_path / "back"], capture_output=True)
    assert compared.returncode == 0, compared
    assert (tmp_path / "back/run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "back/deep/empty").is_dir()


def test_a_copy_goes_into_a_directory_or_to_a_name(cli: ShadowCli, id_: str, tmp_path: Path):
    (tmp_path / "file").write_text("content")
    cli.json("workspace", "cp", str(tmp_path / "file"), f"{id_}:")
    cli.json("workspace", "cp", str(tmp_path / "file"), f"{id_}:renamed")
    (tmp_path / "into").mkdir()
    cli.json("workspace", "cp", f"{id_}:file", str(tmp_path / "into"))
    cli.json("workspace", "cp", f"{id_}:renamed", str(tmp_path / "named"))
    assert (tmp_path / "into/file").read_text() == (tmp_path / "named").read_text() == "content"


def test_links_that_lead_out_are_not_taken_out(cli: ShadowCli, id_: str, tmp_path: Path):
    line = (
        "mkdir -p t/d; ln -s /etc/passwd t/abs; ln -s ../../up t/d/up; ln -s ../in t/d/ok; echo x > t/in; mkfifo t/pipe"
    )
    assert cli.run("workspace", "exec", id_, "-c", line).returncode == 0
    done = cli.run("workspace", "cp", f"{id_}:t", str(tmp_path / "t"), "--json")
    assert done.returncode == 1  # not all was copied
    assert {skipped["path"] for skipped in json.loads(done.stdout)["skipped"]} == {"abs", "d/up", "pipe"}
    assert sorted(p.name for p in (tmp_path / "t").rglob("*")) == ["d", "in", "ok"]


def test_create_may_copy_a_directory_in(cli: ShadowCli, tmp_path: Path):
    (tmp_path / "hello").write_text("there")
    id_ = cli.create("--from", str(tmp_path))
    assert cli.run("workspace", "exec", id_, "--", "cat", "hello").stdout == b"there"
    assert cli.run("workspace", "rm", id_).returncode == 0


def test_create_names_what_it_leaves_out(cli: ShadowCli, tmp_path: Path):
    (tmp_path / "hello").write_text("there")
    os.mkfifo(tmp_path / "pipe")
    done = cli.run("workspace", "create", "--from", str(tmp_path))
    assert done.returncode == 0
    assert b"left out: pipe" in done.stderr
    made = cli.json("workspace", "create", "--from", str(tmp_path))
    assert [skipped["path"] for skipped in made["copied"]["skipped"]] == ["pipe"]
    for id_ in (done.stdout.decode().strip(), made["workspace"]["id"]):
        assert cli.run("workspace", "rm", id_).returncode == 0


def test_what_is_not_there_cannot_be_copied(cli: ShadowCli, id_: str, tmp_path: Path):
    for arguments in (("/no/such/file", f"{id_}:x"), (f"{id_}:no-such", str(tmp_path / "x"))):
        done = cli.run("workspace", "cp", *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith(b"shadow: ")
    assert not (tmp_path / "x").exists()


# Limits


def test_limits_are_given_shown_and_reached(cli: ShadowCli):
    id_ = cli.create("--memory", "96m", "--processes", "80", "--cpus", "1.5", "--disk", "64m", "--file-size", "1m")
    shown = cli.run("workspace", "show", id_).stdout.decode()
    assert "memory 96.0 MiB, processes 80, cpus 1.5," in shown
    limits = cli.json("workspace", "show", id_)["workspace"]["limits"]
    assert (limits["memory_bytes"], limits["workspace_bytes"], limits["file_size_bytes"]) == (
        96 << 20,
        64 << 20,
        1 << 20,
    )
    assert limits["open_files"] == 65536, "what is not given is the setting's"
    done = cli.run("workspace", "exec", id_, "-c", "head -c 2G /dev/zero | tail; sleep 1000")
    assert (done.returncode, done.stdout) == (123, b"")
    assert b"limit of memory was reached" in done.stderr
    done = cli.run("workspace", "exec", id_, "-c", "exec head -c 2m /dev/zero > large")
    assert done.returncode == 123
    assert b"limit of a file's size was reached" in done.stderr
    assert cli.run("workspace", "exec", id_, "--", "true").returncode == 0
    assert "limit of memory" in cli.run("workspace", "show", id_).stdout.decode()


@pytest.mark.parametrize(
    ("option", "value"), [("--memory", "much"), ("--memory", "0"), ("--cpus", "nan"), ("--disk", "-1")]
)
def test_what_is_no_limit_is_refused(cli: ShadowCli, option: str, value: str):
    done = cli.run("workspace", "create", f"{option}={value}")
    assert (done.returncode, done.stdout) == (2, b""), done
    assert option.encode() in done.stderr


# demo, doctor


def test_the_demo_mends_a_bug_and_says_what_to_type_next(cli: ShadowCli):
    done = cli.run("demo")
    assert done.returncode == 0, done
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "FAILED (failures=1)" in out
    assert "+        return any(minute in interval or minute + MINUTES_PER_WEEK" in out
    delivered = re.search(r"Delivered ([0-9a-f]+) to (shadow/\S+) in (.+)\.", err)
    assert delivered is not None, err
    commit, branch, repository = delivered.groups()
    tip = subprocess.run(["git", "-C", repository, "rev-parse", branch], capture_output=True, check=True, text=True)
    assert tip.stdout.startswith(commit)
    task = re.search(r"shadow task show (task_\S+)", out)
    assert task is not None
    assert cli.json("task", "show", task[1])["task"]["outcome"] == "done"


def test_the_doctor_says_what_this_host_can_do(cli: ShadowCli):
    done = cli.run("doctor", "--quick", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["able"]) == (0, True), document
    verdicts = {row["name"]: row["verdict"] for row in document["rows"]}
    assert verdicts["sandbox"] == "ok"
    assert {
        "python",
        "data directory",
        "limit: memory",
        "limit: disk",
        "kvm",
        "containers",
        "overlay",
        "git",
        "ripgrep",
    } <= set(verdicts)


def test_the_doctor_ends_with_3_where_nothing_can_run(tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = ShadowCli(tmp_path, {"SHADOW_DATA_DIR": str(tmp_path / "file")}).run("doctor", "--quick")
    assert done.returncode == 3
    assert b"SHADOW_DATA_DIR" in done.stdout


def test_colours_are_for_terminals_only(cli: ShadowCli):
    def shown_on_a_terminal(env: dict[str, str]) -> bytes:
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", buffering=0) as reader:
            with ShadowCli(cli.home, env | {"TERM": "xterm"}).start(
                "workspace", "show", "no", stderr=theirs
            ) as process:
                process.wait(DEADLINE_S)
            os.close(theirs)
            return reader.read(4096) or b""

    assert b"\x1b[31m" in shown_on_a_terminal({})
    assert b"\x1b" not in shown_on_a_terminal({"NO_COLOR": "1"})


# What dies meanwhile


def holder_of(cli: ShadowCli, id_: str) -> int:
    return json.loads((cli.home / "data/workspaces" / id_ / "holder.json").read_text())["pid"]


def wait_for_sidecar_of(holder: int) -> int:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        for child in Path(f"/proc/{holder}/task/{holder}/children").read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):
                if b"shadow.sidecar" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_sidecar_killed_again_and_again_costs_no_byte(cli: ShadowCli, id_: str):
    size, line = 200_000_000, "seq 100000000 | head -c 200000000"
    holder, got, digest = holder_of(cli, id_), 0, sha256()
    with cli.start("workspace", "exec", id_, "-c", line) as process:
        assert process.stdout is not None
        for kill_at in (1, size // 4, size // 2, 3 * size // 4, size + 1):
            while got < kill_at and (piece := process.stdout.read1(1 << 20)):
                digest.update(piece)
                got += len(piece)
            if kill_at < size:
                os.kill(wait_for_sidecar_of(holder), signal.SIGKILL)
        code, rest, err = ends(process)
    assert (code, rest, err, got) == (0, b"", b"", size)
    expected = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert digest.digest() == sha256(expected).digest()


def test_a_killed_holder_is_told_at_once_and_its_workspace_goes_on(cli: ShadowCli):
    id_ = cli.create()
    with cli.start("workspace", "exec", id_, "-c", "echo kept > file; echo ready; sleep 600") as process:
        read_until(process, b"ready")
        os.kill(holder_of(cli, id_), signal.SIGKILL)
        code, _, err = ends(process)
    assert code == 125
    assert b"nobody can know how the command did" in err
    assert cli.json("workspace", "show", id_)["workspace"]["state"] == "stopped"
    assert cli.run("workspace", "exec", id_, "--", "cat", "file").stdout == b"kept\n"
    endings = [command["ending"]["kind"] for command in cli.json("workspace", "show", id_)["commands"]]
    assert endings == ["lost", "exited"]
    assert cli.run("workspace", "rm", id_).returncode == 0


def test_a_running_command_keeps_its_workspace_past_the_lease(cli: ShadowCli):
    id_ = cli.create()
    with cli.start("workspace", "exec", id_, "-c", "echo ready; read line", stdin=subprocess.PIPE) as process:
        read_until(process, b"ready")
        cli.json("workspace", "renew", id_, "--lease", "40")
        deadline = time.monotonic() + 30
        while cli.json("workspace", "show", id_)["workspace"]["lease_expires_at"] - time.time() < 60:
            assert time.monotonic() < deadline
        process.communicate(b"\n", timeout=DEADLINE_S)
    assert process.returncode == 0
    assert cli.run("workspace", "rm", id_).returncode == 0
