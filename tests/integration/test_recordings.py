"""A run on record, and the same played back against real tools: alike where it is alike, told where it is not."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.agent.loop import RunState, RunStatus
from shadow.agent.model import Model
from shadow.agent.recording import RecordingRefused, load_recording, open_recording
from shadow.agent.replay import open_replay
from shadow.agent.scripted import open_scripted
from shadow.core.conversation import AssistantMessage, ToolResult, UserMessage
from shadow.core.errors import AlreadyExists, Denied
from shadow.core.events import ModelAnswered, ModelRequestFailed, RunStarted, TextAdded, ToolFinished
from shadow.core.secrets import REMOVED, Redactor
from tests.support.agent_runs import outcome_of, run_agent
from tests.support.conversations import assistant_messages

pytestmark = pytest.mark.anyio

STEPS = r"""
  - reasoning: Let me look.
    calls:
      - {tool: list_dir, arguments: {path: .}}
      - {tool: read_file, arguments: {path: a.txt}}
  - fault: {kind: overloaded}
    calls:
      - {tool: search_replace, arguments: {path: a.txt, old: one, new: two}}
  - calls:
      - tool: run_terminal_cmd
        arguments: {command: "date; echo pid $$; cat a.txt; mktemp; exit 3"}
        expect: {exit_code: 3}
  - calls:
      - {tool: run_terminal_cmd, arguments: {command: "read line; echo got $line; exit 4", background: true},
         expect: {matches: 'command_id="(?P<id>cmd_\w+)"'}}
  - calls:
      - {tool: write_command_stdin, arguments: {command_id: "${id}", text: "hello\n", close: true}}
  - calls:
      - {tool: read_command, arguments: {command_id: "${id}", wait_s: 20}, expect: {exit_code: 4}}
  - calls: [{tool: read_file, arguments: {path: nowhere}, expect: {is_error: true}}]
  - calls: [{tool: finish, arguments: {summary: Two now.}}]
"""


def scripted(tmp_path: Path, steps: str) -> Model:
    path = tmp_path / "script.yaml"
    path.write_text(f"version: 1\nmodel: {{context_tokens: 50000, max_output_tokens: 1000}}\nsteps:\n{steps}")
    return open_scripted(path)


def directory(tmp_path: Path, name: str, *, text: str = "one\n") -> Path:
    path = tmp_path / name
    (path / "files").mkdir(parents=True)
    (path / "files/a.txt").write_text(text)
    return path


async def recorded(tmp_path: Path, steps: str = STEPS, *, redactor: Redactor | None = None) -> Path:
    """The recording of a run that went well."""
    path = tmp_path / "run.jsonl"
    model = scripted(tmp_path, steps)
    with open_recording(path, model=model, redactor=redactor or Redactor()) as recorder:
        state = await run_agent(model, directory(tmp_path, "first"), watchers=[recorder])
    assert outcome_of(state).status is RunStatus.DONE, outcome_of(state).summary
    return path


async def replayed(tmp_path: Path, path: Path, where: Path, *, redactor: Redactor | None = None) -> RunState:
    return await run_agent(open_replay(path, redactor=redactor or Redactor()), where)


async def test_a_run_that_does_the_same_replays_to_the_same_end(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    where = directory(tmp_path, "second")
    state = await replayed(tmp_path, path, where)
    assert (outcome_of(state).status, outcome_of(state).summary) == (RunStatus.DONE, "Two now.")
    assert (where / "files/a.txt").read_text() == "two\n"
    first = load_recording(path).answers[0].message
    again = next(m for m in state.messages if isinstance(m, AssistantMessage))
    assert (again.parts, again.usage) == (first.parts, first.usage)
    assert state.cost_usd == 0
    assert (state.model.context_tokens, state.model.max_output_tokens) == (50000, 1000)


@pytest.mark.parametrize(
    ("change", "says", "shows"),
    [
        ("text", "`read_file`", ("-1\tone", "+1\tone more")),
        ("file", "`list_dir`", ("+b.txt",)),
    ],
)
async def test_a_file_that_differs_is_told_with_both_versions(
    tmp_path: Path, change: str, says: str, shows: tuple[str, ...]
) -> None:
    path = await recorded(
        tmp_path,
        STEPS.replace(
            "      - {tool: list_dir, arguments: {path: .}}\n",
            "" if change == "text" else "      - {tool: list_dir, arguments: {path: .}}\n",
        ),
    )
    where = directory(tmp_path, "second", text="one more\n" if change == "text" else "one\n")
    if change == "file":
        (where / "files/b.txt").write_text("")
    outcome = outcome_of(await replayed(tmp_path, path, where))
    assert (outcome.status, outcome.code) == (RunStatus.FAILED, "replay_diverged")
    assert says in outcome.summary
    for line in shows:
        assert line in outcome.summary
    assert "--- recorded" in outcome.summary


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("test -e /FLAG || exit 1", "another exit code"),
        ("test -e /FLAG || echo other", "answers something else"),
    ],
)
async def test_a_command_that_ends_or_writes_otherwise_is_told(tmp_path: Path, command: str, what: str) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    line = command.replace("/FLAG", str(flag))
    path = await recorded(
        tmp_path,
        f"  - calls: [{{tool: run_terminal_cmd, arguments: {{command: {json.dumps(line)}}}}}]\n  - text: Done.\n",
    )
    flag.unlink()
    outcome = outcome_of(await replayed(tmp_path, path, directory(tmp_path, "second")))
    assert outcome.code == "replay_diverged"
    assert what in outcome.summary


async def test_what_differs_in_the_last_step_is_told_too(tmp_path: Path) -> None:
    path = await recorded(
        tmp_path,
        "  - calls: [{tool: read_file, arguments: {path: a.txt}}, {tool: finish, arguments: {summary: It is so.}}]\n",
    )
    outcome = outcome_of(await replayed(tmp_path, path, directory(tmp_path, "second", text="other\n")))
    assert (outcome.status, outcome.code) == (RunStatus.FAILED, "replay_diverged")


async def test_a_tool_that_refuses_now_is_told(tmp_path: Path) -> None:
    path = await recorded(tmp_path, "  - calls: [{tool: delete_file, arguments: {path: a.txt}}]\n  - text: Done.\n")
    where = directory(tmp_path, "second")
    (where / "files/a.txt").unlink()
    outcome = outcome_of(await replayed(tmp_path, path, where))
    assert outcome.code == "replay_diverged"
    assert "refuses what it did before" in outcome.summary


async def test_a_recording_that_was_cut_off_replays_up_to_there(tmp_path: Path) -> None:
    path = await recorded(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(b"".join(lines[:5]) + lines[5][:30])
    outcome = outcome_of(await replayed(tmp_path, cut, directory(tmp_path, "second")))
    assert (outcome.status, outcome.code) == (RunStatus.FAILED, "replay_ended")


async def test_a_failure_that_ended_the_run_ends_the_replay(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    model = scripted(tmp_path, "  - {text: never, fault: {kind: quota}}\n")
    with open_recording(path, model=model, redactor=Redactor()) as recorder:
        await run_agent(model, directory(tmp_path, "first"), watchers=[recorder])
    outcome = outcome_of(await replayed(tmp_path, path, directory(tmp_path, "second")))
    assert outcome.code == "model_quota_exceeded"


# What is in the file


async def test_no_secret_is_on_record_and_the_replay_knows(tmp_path: Path) -> None:
    secret, key = "correct-horse-battery", "ghp_" + "a1B2" * 9
    redactor = Redactor([secret])
    steps = f"""
  - text: I use {secret}.
    calls: [{{tool: run_terminal_cmd, arguments: {{command: "printf '%s %s' correct-horse -battery | tr -d ' '; echo {key}"}}}}]
  - calls: [{{tool: finish, arguments: {{summary: Done with {secret}.}}}}]
"""
    path = await recorded(tmp_path, steps.replace(f"echo {key}", "cat a.txt"), redactor=redactor)
    text = path.read_text()
    assert secret not in text
    assert text.count(REMOVED) >= 3
    assert path.stat().st_mode & 0o777 == 0o600
    state = await replayed(tmp_path, path, directory(tmp_path, "second"), redactor=redactor)
    assert outcome_of(state).status is RunStatus.DONE
    unaware = outcome_of(await replayed(tmp_path, path, directory(tmp_path, "third")))
    assert unaware.code == "replay_diverged"


def test_only_what_a_replay_needs_is_kept(tmp_path: Path) -> None:
    model = scripted(tmp_path, "  - text: a\n")
    with open_recording(tmp_path / "r", model=model, redactor=Redactor()) as recorder:
        recorder(RunStarted(run=1, message=UserMessage(text="Mend it.")))
        recorder(TextAdded(text="piece"))
    head, line = map(json.loads, (tmp_path / "r").read_text().splitlines())
    assert head == {
        "shadow_recording": 1,
        "model": model.name,
        "context_tokens": 50000,
        "max_output_tokens": 1000,
    }
    assert line["kind"] == "run_started"


@given(st.lists(assistant_messages(), max_size=4), st.text())
def test_what_was_recorded_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, messages: list[AssistantMessage], text: str
) -> None:
    tmp_path = tmp_path_factory.mktemp("recording")
    model = scripted(tmp_path, "  - text: a\n")
    failure = ModelRequestFailed(code="model_overloaded", message=text, repeat_is_safe=True)
    with open_recording(tmp_path / "r", model=model, redactor=Redactor()) as recorder:
        for message in messages:
            recorder(failure)
            recorder(ModelAnswered(message=message, took_ms=1.0))
            for call in message.calls:
                recorder(ToolFinished(result=ToolResult(call_id=call.id, name=call.name, content=text), took_ms=1.0))
    recording = load_recording(tmp_path / "r")
    assert [answer.message for answer in recording.answers] == messages
    assert all(answer.failures == (failure,) for answer in recording.answers)
    assert all(r.content == text for answer in recording.answers for r in answer.results.values())


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("mine")
    model = scripted(tmp_path, "  - text: a\n")
    with pytest.raises(AlreadyExists):
        with open_recording(tmp_path / "r", model=model, redactor=Redactor()):
            pass
    with pytest.raises(Denied):
        with open_recording(tmp_path / "none/r", model=model, redactor=Redactor()):
            pass
    assert (tmp_path / "r").read_text() == "mine"


def test_a_killed_run_leaves_a_beginning_that_can_be_read(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from shadow.agent.recording import open_recording
from shadow.agent.scripted import open_scripted
from shadow.core.events import RunStarted
from shadow.core.conversation import UserMessage
from shadow.core.secrets import Redactor

model = open_scripted(Path({str(tmp_path / "script.yaml")!r}))
with open_recording(Path({str(tmp_path / "r")!r}), model=model, redactor=Redactor()) as recorder:
    while True:
        recorder(RunStarted(run=1, message=UserMessage(text="x" * 5000)))
        print("one", flush=True)
"""
    scripted(tmp_path, "  - text: a\n")
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(20):
        assert process.stdout.readline() == b"one\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert load_recording(tmp_path / "r").answers == ()
    assert (tmp_path / "r").read_bytes().count(b"\n") >= 21


def test_a_disk_that_is_full_is_told_at_the_end_and_leaves_whole_lines(tmp_path: Path) -> None:
    program = f"""
import resource, signal
from pathlib import Path
from shadow.agent.recording import open_recording, load_recording
from shadow.agent.scripted import open_scripted
from shadow.core.errors import LimitExceeded
from shadow.core.events import RunStarted
from shadow.core.conversation import UserMessage
from shadow.core.secrets import Redactor

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = open_scripted(Path({str(tmp_path / "script.yaml")!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with open_recording(Path({str(tmp_path / "r")!r}), model=model, redactor=Redactor()) as recorder:
        for _ in range(10):
            recorder(RunStarted(run=1, message=UserMessage(text="x" * 5000)))
except LimitExceeded as error:
    print(error)
"""
    scripted(tmp_path, "  - text: a\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "is not complete" in done.stdout
    data = (tmp_path / "r").read_bytes()
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 4
    load_recording(tmp_path / "r")


HEAD = b'{"shadow_recording":1,"model":"m","context_tokens":1,"max_output_tokens":1}\n'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "r:1: "),
        (b"hello\n", "r:1: not JSON"),
        (b"{}\n", "r:1: this is no recording"),
        (b'{"shadow_recording":1}\n', "r:1: what the model was"),
        (b'{"shadow_recording":99}\n', "newer version"),
        (HEAD + b"[]\n", "r:2: not an object"),
        (HEAD + b"\xff\n", "r:2: not JSON"),
        (HEAD + b'{"kind":"from_tomorrow"}\n', "r:2: "),
        (
            HEAD + b'{"kind":"tool_finished","result":{"call_id":"1","name":"a","content":""},"took_ms":1}\n',
            "r:2: a tool answers that nobody called",
        ),
    ],
)
def test_what_is_no_recording_is_refused_with_its_line(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "r").write_bytes(data)
    with pytest.raises(RecordingRefused) as caught:
        load_recording(tmp_path / "r")
    assert says in str(caught.value)
    with pytest.raises(RecordingRefused):
        load_recording(tmp_path / "not there")
