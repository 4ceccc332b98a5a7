"""``shadow terminal``, ``logs`` and ``record`` as a person meets them: a real terminal, real sandboxes, real kills."""

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from shadow.core.ids import WorkspaceId
from tests.support.git_servers import make_repository
from tests.support.local_workspaces import holder_pid
from tests.support.people import Person
from tests.support.shadow_cli import DEADLINE_S, ShadowCli

BASH = ("--", "bash", "--norc", "--noprofile")
DETACH = "\x1d"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShadowCli]:
    cli = ShadowCli(tmp_path_factory.mktemp("cli"))
    yield cli
    done = cli.run("workspace", "rm", "--all", "--yes")
    assert done.returncode == 0, done


@pytest.fixture(scope="module")
def id_(cli: ShadowCli) -> str:
    return cli.create("--name", "desk")


def sidecar_pid(cli: ShadowCli, id_: str, *, other_than: int = 0) -> int:
    holder = holder_pid(cli.home / "data", WorkspaceId(id_))
    end = time.monotonic() + DEADLINE_S
    while True:
        for pid in map(int, Path(f"/proc/{holder}/task/{holder}/children").read_text().split()):
            with suppress(FileNotFoundError, ProcessLookupError):  # one that ended meanwhile
                if pid != other_than and b"shadow.sidecar.main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        assert time.monotonic() < end, "there is no sidecar"
        time.sleep(0.01)


def running(cli: ShadowCli, id_: str) -> list[str]:
    return [t["id"] for t in cli.json("terminal", id_, "--list")["terminals"] if t["ending"] is None]


def told_id(person: Person) -> str:
    """The id of their terminal."""
    found = re.search(rb"shadow: terminal (term_\w+)\.", person.sent)
    assert found is not None, person.sent
    return found[1].decode()


def detached(person: Person) -> str:
    """Detaches; returns the terminal's id, which the person is told once more."""
    person.type(DETACH)
    assert person.leaves() == 0
    terminal = told_id(person)
    assert f"--attach {terminal}".encode() in person.sent
    return terminal


# Terminals


def test_what_is_typed_is_run_and_the_exit_code_is_the_programs(cli: ShadowCli, id_: str):
    with Person(cli, "terminal", id_, *BASH) as person:
        person.is_sent(b"$ ")
        assert person.modes != person.modes_before
        person.type("echo $((6 * 7)) grüße; tty\r")
        person.sees("42 grüße")
        person.sees("/dev/pts/")
        person.type("echo now sleep''ing; sleep 100\r")
        person.sees("now sleeping")
        person.type("\x03")
        person.type("echo interrupted $?\r")
        person.sees("interrupted 130")
        person.type("exit 7\r")
        assert person.leaves() == 7
        assert person.modes == person.modes_before


def test_the_program_follows_the_size_of_the_persons_terminal(cli: ShadowCli, id_: str):
    report = "trap 'stty size' WINCH; stty size; until read -t 0.05 -n 1; do :; done"
    with Person(cli, "terminal", id_, "--", "bash", "-c", report, columns=91, rows=23) as person:
        person.sees("23 91")
        person.resize(70, 31)
        person.sees("31 70")
        person.type("x")
        assert person.leaves() == 0


def test_the_screen_is_back_after_detaching(cli: ShadowCli, id_: str):
    with Person(cli, "terminal", id_, *BASH) as person:
        person.is_sent(b"$ ")
        person.type("mine=there; for i in $(seq 200); do printf '\\e[3%dmline %d\\e[m\\n' $((i % 8)) $i; done\r")
        person.sees("line 200")
        terminal = detached(person)
        assert person.modes == person.modes_before
    with Person(cli, "terminal", "desk", "--attach", terminal[:12]) as person:
        person.sees("line 200")
        assert "line 190" in person.screen.text
        assert "line 3" in [line.text.rstrip() for line in person.screen.scrolled]
        person.type("echo still $mine\r")
        person.sees("still there")
        person.type("exit 3\r")
        assert person.leaves() == 3


def test_the_alternate_screen_is_left_and_comes_back(cli: ShadowCli, id_: str):
    draw = "printf '\\e[?1049h\\e[2J\\e[?2004h\\e[?1000;1006h\\e[?25l\\e[>1u\\e[5;7Hfull screen'; read; printf '\\e[?1049l'"
    with Person(cli, "terminal", id_, "--", "bash", "-c", draw) as person:
        person.sees("full screen")
        detached(person)
        assert b"\x1b[?1049l" in person.sent
        assert b"\x1b[?25h" in person.sent
        for mode in (1000, 1006, 2004):
            assert b"\x1b[?%dl" % mode in person.sent
        assert b"\x1b[<" in person.sent
        assert "full screen" not in "".join(person.screen.text)
    with Person(cli, "terminal", id_, "--last") as person:
        person.sees("full screen")
        assert person.screen.text[4] == "      full screen"
        assert not person.screen.cursor.visible
        assert b"\x1b[?2004h" in person.sent
        person.type("\r")
        assert person.leaves() == 0
        assert person.screen.cursor.visible


def test_a_question_of_the_past_is_not_asked_again(cli: ShadowCli, id_: str):
    """The person's terminal would answer, and the answer would be typed into the program."""
    ask = "printf 'asked\\e[6n\\e[c\\e]10;?\\a'; read -r line; printf '%q' \"$line\"; read -r line"
    with Person(cli, "terminal", id_, "--", "bash", "-c", ask) as person:
        person.is_sent(b"asked\x1b[6n")
        detached(person)
    with Person(cli, "terminal", id_, "--last") as person:
        person.sees("asked")
        for question in (b"\x1b[6n", b"\x1b[c", b"\x1b]10;?"):
            assert question not in person.sent
        person.type("\r\r")
        assert person.leaves() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_attachment_and_not_the_program(cli: ShadowCli, id_: str, number: signal.Signals):
    with Person(cli, "terminal", id_, *BASH) as person:
        person.is_sent(b"$ ")
        person.type("printf '\\e[?1049h\\e[2Jdrawn'\r")
        person.is_sent(b"\x1b[2Jdrawn")
        person.signal(number)
        assert person.leaves() == 128 + number
        assert person.modes == person.modes_before
        assert b"\x1b[?1049l" in person.sent
    terminal = told_id(person)
    assert terminal in running(cli, id_)
    assert cli.json("terminal", id_, "--close", terminal) == {"closed": terminal}
    assert terminal not in running(cli, id_)


def test_another_detach_key_or_none(cli: ShadowCli, id_: str):
    with Person(cli, "terminal", id_, "--detach-key", "ctrl-q", "--", "cat", "-v") as person:
        person.is_sent(b"Ctrl-Q detaches")
        person.type("\x1d\r")
        person.is_sent(b"^]\r\n^]")
        person.type(b"\x1b[113;5u")  # Ctrl-Q as a terminal sends it that was asked to tell keys apart
        assert person.leaves() == 0
    with Person(cli, "terminal", id_, "--last", "--detach-key", "none") as person:
        person.sees("^]")
        person.type("\x11\x1d\r\x04")
        assert person.leaves() == 0
        assert "^]" in person.screen.text


def test_several_people_see_the_same_and_one_only_watches(cli: ShadowCli, id_: str):
    with Person(cli, "terminal", id_, *BASH) as typing:
        typing.is_sent(b"$ ")
        with Person(cli, "terminal", id_, "--last", "--read-only", columns=60, rows=10) as watching:
            watching.sees("$")
            watching.type("echo from the watcher\r")
            typing.type("echo from $((1 + 1)); stty size\r")
            for person in (typing, watching):
                person.sees("from 2")
                person.sees("24 80")
                assert "watcher" not in "".join(person.screen.text)
            watching.type("\x03")
            assert watching.leaves() == 0
        typing.type("exit\r")
        assert typing.leaves() == 0


def test_a_workspace_that_is_removed_ends_the_attachment(cli: ShadowCli):
    id_ = cli.create()
    with Person(cli, "terminal", id_, *BASH) as person:
        person.is_sent(b"$ ")
        assert cli.run("workspace", "rm", id_).returncode == 0
        assert person.leaves() == 125
        assert person.modes == person.modes_before
        assert b"shadow: " in person.sent
        assert b"Traceback" not in person.sent


def test_after_detaching_nothing_of_the_program_stays_below_the_cursor(cli: ShadowCli, id_: str):
    with Person(
        cli, "terminal", id_, "--", "bash", "-c", r"printf 'above\n\n\n\n\n\n\nbelow\033[3H'; sleep 100"
    ) as person:
        person.sees("below")
        detached(person)
        assert "below" not in person.screen.text
        assert "above" in person.screen.text


def test_without_a_terminal_it_is_refused(cli: ShadowCli, id_: str):
    done = cli.run("terminal", id_)
    assert done.returncode == 2
    assert b"stdin is not one" in done.stderr
    assert b"shadow workspace exec" in done.stderr
    for arguments in (
        ("--attach", "x", "--last"),
        ("--list", "--", "bash"),
        ("--read-only",),
        ("--last", "--cwd", "x"),
        ("--detach-key", "ctrl-enter"),
    ):
        done = cli.run("terminal", id_, *arguments)
        assert (done.returncode, done.stdout) == (2, b""), (arguments, done)


def test_one_that_is_not_there_is_not_found(cli: ShadowCli, id_: str):
    done = cli.run("terminal", id_, "--kill", "term_nowhere")
    assert done.returncode == 125
    assert b"--list" in done.stderr
    with Person(cli, "terminal", id_, "--", "no-such-program") as person:
        assert person.leaves() == 125
        assert b"no-such-program" in person.sent
        assert person.modes == person.modes_before


def test_a_killed_one_keeps_what_it_showed_until_it_is_closed(cli: ShadowCli, id_: str):
    with Person(cli, "terminal", id_, "--", "bash", "-c", "echo shown; sleep 1000") as person:
        person.sees("shown")
        terminal = detached(person)
    assert cli.json("terminal", id_, "--kill", terminal) == {"killed": terminal}
    with Person(cli, "terminal", id_, "--attach", terminal) as person:
        person.sees("shown")
        assert person.leaves() == 137
    assert recorded(cli, id_, terminal) == b"shown\r\n"
    assert cli.run("terminal", id_, "--close", terminal).stdout.decode().strip() == terminal
    assert cli.run("record", id_, terminal).returncode == 1


# Kills


def recorded(cli: ShadowCli, id_: str, source: str) -> bytes:
    done = cli.run("record", id_, source)
    assert done.returncode == 0, done
    events = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    return "".join(event[2] for event in events if event[1] == "o").encode()


def test_no_byte_is_lost_where_the_sidecar_is_killed_amid_output(cli: ShadowCli, id_: str):
    count = 150_000
    line = f"stty raw -echo; echo ready; read -n 1; seq -f %09.0f {count}; echo end of it"
    with Person(cli, "terminal", id_, "--", "bash", "-c", line) as person:
        start = person.is_sent(b"ready\n")
        person.type("x")
        pid = 0
        for share in (0.1, 0.4, 0.7):
            person.is_sent(b"%09d\n" % int(count * share), after=start)
            pid = sidecar_pid(cli, id_, other_than=pid)
            os.kill(pid, signal.SIGKILL)
        end = person.is_sent(b"end of it\n", after=start)
        assert person.leaves() == 0
        assert b"shadow:" not in person.sent[start:]
    expected = hashlib.sha256(b"".join(b"%09d\n" % n for n in range(1, count + 1)) + b"end of it\n")
    assert hashlib.sha256(person.sent[start:end]).hexdigest() == expected.hexdigest()


def test_what_is_typed_while_the_sidecar_is_killed_arrives_once(cli: ShadowCli, id_: str):
    size = 40_000
    keys = bytes((n * 7) % 26 + 97 for n in range(size))
    with Person(
        cli, "terminal", id_, "--", "bash", "-c", f"stty raw -echo; echo ready; head -c {size} | sha256sum"
    ) as person:
        person.is_sent(b"ready\n")
        for start in range(0, size, 8000):
            person.type(keys[start : start + 8000])
            os.kill(sidecar_pid(cli, id_), signal.SIGKILL)
        person.is_sent(hashlib.sha256(keys).hexdigest().encode())
        assert person.leaves() == 0


def test_a_killed_client_costs_nothing(cli: ShadowCli, id_: str):
    count = 100_000
    line = f"stty raw -echo; echo ready; read -n 1; seq -f %09.0f {count}; echo end of it; read -n 1; exit 5"
    with Person(cli, "terminal", id_, "--", "bash", "-c", line) as person:
        start = person.is_sent(b"ready\n")
        person.type("x")
        person.is_sent(b"%09d\n" % 20_000, after=start)
        person.signal(signal.SIGKILL)
        assert person.leaves() == -signal.SIGKILL
    terminal = told_id(person)
    with Person(cli, "terminal", id_, "--last") as person:
        person.sees("end of it")
        person.type("x")
        assert person.leaves() == 5
        assert person.modes == person.modes_before
    expected = b"ready\n" + b"".join(b"%09d\n" % n for n in range(1, count + 1)) + b"end of it\n"
    assert hashlib.sha256(recorded(cli, id_, terminal)).hexdigest() == hashlib.sha256(expected).hexdigest()


def test_a_terminal_of_a_workspace_that_died_is_lost_and_keeps_what_it_showed(cli: ShadowCli):
    id_ = cli.create()
    with Person(cli, "terminal", id_, "--", "bash", "-c", "echo shown; sleep 1000") as person:
        person.sees("shown")
        os.kill(holder_pid(cli.home / "data", WorkspaceId(id_)), signal.SIGKILL)
        assert person.leaves() == 125
        person.sees("The workspace ended")
        assert person.modes == person.modes_before
    (terminal,) = cli.json("terminal", id_, "--list")["terminals"]
    assert terminal["ending"]["kind"] == "lost"
    assert recorded(cli, id_, terminal["id"]) == b"shown\r\n"
    with Person(cli, "terminal", id_, "--attach", terminal["id"]) as person:
        assert person.leaves() == 125
        person.sees("shown")
        person.sees("nobody can know how the terminal ended")


# Logs and recordings


def command_of(cli: ShadowCli, id_: str, line: str) -> str:
    cli.run("workspace", "exec", id_, "-c", line)
    return cli.json("logs", id_)["commands"][-1]["id"]


def test_logs_list_the_commands_and_show_what_one_wrote(cli: ShadowCli, id_: str):
    command = command_of(cli, id_, "echo out; echo err >&2; exit 3")
    listed = cli.run("logs", "desk").stdout.decode()
    assert command in listed
    assert "exited 3" in listed
    for arguments in ((command,), (command[:10],), ("--last",), ("--last", "--no-follow")):
        done = cli.run("logs", "desk", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n"), (arguments, done)
    assert cli.run("logs", id_, command, "--after", "2").stdout == b"t\n"
    *pieces, last = [json.loads(line) for line in cli.run("logs", id_, command, "--json").stdout.splitlines()]
    assert [(p["offset"], p["channel"], p["text"]) for p in pieces] == [(0, "stdout", "out\n"), (4, "stderr", "err\n")]
    assert (last["kind"], last["exit_code"], last["command"]["id"]) == ("command", 3, command)
    for arguments, code in ((("cmd_nowhere",), 125), ((command, "--last"), 2)):
        done = cli.run("logs", id_, *arguments)
        assert (done.returncode, done.stdout) == (code, b""), done
        assert done.stderr.startswith(b"shadow: ")


def test_logs_follow_a_command_over_the_end_of_its_sidecar(cli: ShadowCli, id_: str):
    line = "for i in $(seq 200); do printf '%0500d\\n' $i; sleep 0.02; done; exit 4"
    starter = cli.start("workspace", "exec", id_, "-c", line)
    with starter:
        assert starter.stdout is not None
        first = starter.stdout.readline()
        follower = cli.start("logs", id_, "--last")
        with follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == first
            os.kill(sidecar_pid(cli, id_), signal.SIGKILL)
            rest = follower.stdout.read()
        starter.stdout.read()
    assert (starter.returncode, follower.returncode) == (4, 4)
    assert first + rest == b"".join(b"%0500d\n" % n for n in range(1, 201))


def test_ctrl_c_leaves_the_command_running(cli: ShadowCli, id_: str):
    with cli.start("workspace", "exec", id_, "-c", "echo up; read line; exit 6", stdin=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"up\n"
        with cli.start("logs", id_, "--last") as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"up\n"
            follower.send_signal(signal.SIGINT)
            assert follower.wait(DEADLINE_S) == 130
        assert starter.stdin is not None
        starter.stdin.write(b"\n")
        starter.stdin.close()
        assert starter.wait(DEADLINE_S) == 6


def test_output_is_harmless_on_a_persons_terminal_and_exact_elsewhere(cli: ShadowCli, id_: str):
    line = "printf 'a\\e]52;c;aGk=\\ab\\e[31mred\\e[?1049h\\e[6n\\n'"
    exact = b"a\x1b]52;c;aGk=\x07b\x1b[31mred\x1b[?1049h\x1b[6n\n"
    command = command_of(cli, id_, line)
    assert cli.run("logs", id_, command).stdout == exact
    for arguments in (("logs", id_, command), ("workspace", "exec", id_, "-c", line)):
        with Person(cli, *arguments) as person:
            assert person.leaves() == 0
            assert person.sent == b"ab\x1b[31mred\r\n\x1b[m", arguments
    for arguments in (("logs", id_, command, "--raw"), ("workspace", "exec", "--raw", id_, "-c", line)):
        with Person(cli, *arguments) as person:
            assert person.leaves() == 0
            assert person.sent == exact.replace(b"\n", b"\r\n"), arguments


def test_a_recording_goes_to_a_new_file_and_not_on_a_screen(cli: ShadowCli, id_: str):
    command = command_of(cli, id_, "echo one; sleep 0.2; echo two")
    path = cli.home / "it.cast"
    assert cli.run("record", id_, command, "-o", str(path)).returncode == 0
    header, *events = [json.loads(line) for line in path.read_text().splitlines()]
    assert (header["version"], header["command"]) == (2, "bash -c echo one; sleep 0.2; echo two")
    assert "".join(event[2] for event in events) == "one\r\ntwo\r\n"
    assert events[-1][0] - events[0][0] >= 0.15
    again = cli.run("record", id_, command, "-o", str(path))
    assert again.returncode == 1
    assert b"is there already" in again.stderr
    assert not (cli.home / "none.cast").exists()
    assert cli.run("record", id_, "cmd_nowhere", "-o", str(cli.home / "none.cast")).returncode == 1
    assert not (cli.home / "none.cast").exists()
    with Person(cli, "record", id_, command) as person:
        assert person.leaves() == 2
        assert b"Give -o FILE" in person.sent


def test_what_an_agent_runs_is_seen_live_and_afterwards(cli: ShadowCli, tmp_path: Path):
    source = make_repository(tmp_path / "project", {"a.txt": b"one\n"})
    line = "for i in 1 2 3; do echo step $i; until [ -e go ]; do sleep 0.02; done; done; echo err >&2; exit 9"
    steps: list[object] = [
        {"calls": [{"tool": "run_terminal_cmd", "arguments": {"command": line, "timeout_s": 60}}]},
        {"calls": [{"tool": "finish", "arguments": {"summary": "Did it.", "success": True}}]},
    ]
    script = tmp_path / "script.yaml"
    script.write_text(yaml.safe_dump({"version": 1, "steps": steps}))
    with cli.start("run", str(source), "x", "--model", f"scripted:{script}", "--deliver", "none") as run:
        end = time.monotonic() + DEADLINE_S
        while not (tasks := [t for t in cli.json("task", "list")["tasks"] if t["workspace_id"]]) or not (
            commands := [c for c in cli.json("logs", tasks[0]["id"])["commands"] if "step" in c["argv"][-1]]
        ):
            assert time.monotonic() < end, "the agent runs nothing"
        task = tasks[0]["id"]
        with cli.start("logs", task, commands[-1]["id"], stderr=subprocess.STDOUT) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"step 1\n"
            assert run.poll() is None
            assert cli.run("workspace", "exec", tasks[0]["workspace_id"], "--", "touch", "go").returncode == 0
            assert follower.stdout.read() == b"step 2\nstep 3\nerr\n"
            assert follower.wait(DEADLINE_S) == 9
        run.communicate(timeout=DEADLINE_S)
        assert run.returncode == 0
    assert cli.run("logs", task, commands[-1]["id"]).stdout == b"step 1\nstep 2\nstep 3\n"


def test_a_person_who_fell_behind_is_painted_the_screen(cli: ShadowCli, id_: str):
    line = "stty -echo; echo ready; read -n 1; seq -f %015.0f 1000000; printf 'the e'; echo nd; read -n 1"
    with Person(cli, "terminal", id_, "--", "bash", "-c", line) as person:
        start = person.is_sent(b"ready")
        person.type("x")
        end = time.monotonic() + DEADLINE_S
        while cli.json("terminal", id_, "--list")["terminals"][-1]["output_end"] < 16_000_000:
            assert time.monotonic() < end, "the program is held back by who does not read"
        person.sees("the end")
        assert person.screen.text[-3:-1] == ["000000001000000", "the end"]
        assert b"\x1b[H\x1b[2J" in person.sent[start:]
        assert len(person.sent) < 14_000_000
        person.type("x")
        assert person.leaves() == 0


def test_leaving_under_a_flood_and_from_a_terminal_that_stands_still(cli: ShadowCli, id_: str):
    flood = ("--", "bash", "-c", "while :; do printf '\\e[31m%0200d\\e[?1049h' 1; done")
    with Person(cli, "terminal", id_, *flood) as person:
        person.is_sent(b"\x1b[?1049h")
        detached(person)
        assert person.modes == person.modes_before
        assert person.sent.rindex(b"\x1b[?1049l") > person.sent.rindex(b"\x1b[?1049h")
    with Person(cli, "terminal", id_, "--last") as person:
        person.is_sent(b"0001")
        # Nobody takes what the terminal is sent: it stands still, and so does what would be told at the end.
        person.signal(signal.SIGTERM)
        end = time.monotonic() + DEADLINE_S
        while person.modes != person.modes_before:
            assert time.monotonic() < end, "the terminal was not given back"
            time.sleep(0.02)
        assert person.leaves() == 128 + signal.SIGTERM
    terminal = told_id(person)
    cli.json("terminal", id_, "--close", terminal)
