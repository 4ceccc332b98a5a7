"""Messages: they mirror the core, survive the trip through JSON with any bytes, and tolerate newer peers."""

import json
from dataclasses import fields, is_dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.core.commands import (
    Channel,
    Command,
    CommandResult,
    CommandSpec,
    Ending,
    Exited,
    Gap,
    Killed,
    LimitReached,
    Lost,
    Output,
)
from shadow.core.errors import Broken, Rejected
from shadow.core.files import FileKind, FileStat, Listing
from shadow.core.git import ChangeKind, GitCommit, GitHead, GitLog, GitPerson, GitProgress, GitStatus, GitStatusEntry
from shadow.core.ids import CommandId
from shadow.core.limits import LimitKind
from shadow.core.search import GrepLine, GrepQuery, GrepResult
from shadow.wire import commands, files, git, search, workspaces
from shadow.wire.commands import CommandMessage, CommandResultMessage, CommandSpecMessage, StdinMessage
from shadow.wire.files import FileStatMessage, ListingMessage
from shadow.wire.message import Message, outgoing, parse_answer, parse_request, to_core
from shadow.wire.search import GrepQueryMessage, GrepResultMessage

MESSAGES = sorted(
    {
        kind
        for module in (commands, files, git, search, workspaces)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind.core is not None
    },
    key=lambda kind: kind.__name__,
)

os_text = st.binary(max_size=30).map(lambda data: data.decode("utf-8", "surrogateescape"))


def through_json(message: Message) -> Message:
    return type(message).model_validate_json(message.json_bytes())


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_has_the_fields_of_its_core_value(kind: type[Message]) -> None:
    core = kind.core
    assert core is not None
    assert is_dataclass(core)
    extra = {"kind"} if core in (Output, Gap) else set[str]()
    assert set(kind.model_fields) == {field.name for field in fields(core)} | extra


@given(
    argv=st.lists(os_text, min_size=1, max_size=4).map(tuple),
    env=st.dictionaries(os_text, os_text, max_size=4),
    cwd=os_text,
)
def test_a_spec_of_any_bytes_arrives_as_it_was(argv: tuple[str, ...], env: dict[str, str], cwd: str) -> None:
    spec = CommandSpec(argv=argv, env=env, cwd=cwd, timeout_s=1.5)
    assert to_core(through_json(CommandSpecMessage.of(spec)), CommandSpec) == spec


@given(st.lists(os_text, max_size=5), st.none() | os_text)
def test_paths_of_any_bytes_arrive_as_they_were(paths: list[str], target: str | None) -> None:
    listing = Listing(
        entries=tuple(
            FileStat(path=path, kind=FileKind.SYMLINK, size_bytes=1, mode=0o777, modified_at=0.5, target=target)
            for path in paths
        ),
        next_after=target,
    )
    assert to_core(through_json(ListingMessage.of(listing)), Listing) == listing


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_lines_of_any_bytes_arrive_as_they_were(texts: list[bytes]) -> None:
    result = GrepResult(
        lines=tuple(GrepLine(path="a", number=1, text=text, is_match=True) for text in texts), truncated="bytes"
    )
    assert to_core(through_json(GrepResultMessage.of(result)), GrepResult) == result


@pytest.mark.parametrize(
    "ending", [None, Exited(code=0), Killed(), Lost(reason="the holder is gone"), LimitReached(limit=LimitKind.MEMORY)]
)
def test_a_result_keeps_its_ending_channels_and_gaps(ending: Ending | None) -> None:
    command = Command(
        id=CommandId("cmd_1"),
        argv=("a",),
        cwd=".",
        pid=None,
        started_at=1.0,
        ended_at=None,
        ending=ending,
        output_start=0,
        output_end=9,
        output_closed=False,
        stdin_accepted=0,
        descendants=1,
        survivors=(7,),
    )
    result = CommandResult(
        command=command,
        output=(
            Output(offset=0, channel=Channel.STDERR, data=b"\0\xff"),
            Gap(start=2, end=8),
            Output(offset=8, channel=Channel.STDOUT, data=b"x"),
        ),
    )
    assert to_core(through_json(CommandResultMessage.of(result)), CommandResult) == result


@given(os_text, os_text, st.none() | os_text)
def test_git_values_of_any_bytes_arrive_as_they_were(path: str, message: str, branch: str | None) -> None:
    person = GitPerson(name=message, email=path)
    commit = GitCommit(
        id="a" * 40,
        parents=("b" * 64,),
        author=person,
        authored_at=-1,
        committer=person,
        committed_at=2,
        message=message,
    )
    log = GitLog(commits=(commit,), truncated=False)
    assert to_core(through_json(git.GitLogMessage.of(log)), GitLog) == log
    entry = GitStatusEntry(path=path, old_path=branch, index=None, work_tree=ChangeKind.UNTRACKED)
    status = GitStatus(
        root=path,
        head=GitHead(branch=branch, commit=None),
        upstream=branch,
        ahead=None,
        behind=0,
        in_progress=GitProgress.CHERRY_PICK,
        entries=(entry,),
        truncated=True,
    )
    assert to_core(through_json(git.GitStatusMessage.of(status)), GitStatus) == status


@pytest.mark.parametrize("commit", ["", "HEAD", "A" * 40, "a" * 39, "a" * 41, "a" * 40 + "\n", "--output=x"])
def test_what_is_no_id_of_a_commit_is_the_peers_fault(commit: str) -> None:
    with pytest.raises(Broken):
        parse_answer(git.GitHeadMessage, json.dumps({"branch": None, "commit": commit}).encode())


def test_text_is_plain_where_it_can_be_and_tagged_where_it_must() -> None:
    def shown(path: str) -> object:
        stat = FileStat(path=path, kind=FileKind.FILE, size_bytes=0, mode=0, modified_at=0)
        return json.loads(FileStatMessage.of(stat).json_bytes())["path"]

    assert shown("käse/\n") == "käse/\n"
    assert shown("a\udcff") == {"b64": "Yf8="}


def test_fields_of_a_newer_peer_are_ignored() -> None:
    body = b'{"accepted": 3, "done": false, "mood": "fine"}'
    assert parse_answer(StdinMessage, body) == StdinMessage(accepted=3, done=False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'{"argv": "ls"}',
        b'{"argv": [1]}',
        b'{"argv": [{"b64": "%"}]}',
        b'{"argv": ["a"], "timeout_s": NaN}',
        b'{"argv": ["\xff"]}',
        b'{"argv": ["a"], "env": [["a"]]}',
        b"[" * 100_000,
    ],
)
def test_a_request_of_another_shape_is_rejected(body: bytes) -> None:
    with pytest.raises(Rejected):
        parse_request(CommandSpecMessage, body)


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(Rejected) as caught:
        parse_request(CommandSpecMessage, b'{"argv": {"b64": 5}, "env": ["secret-value"]}')
    assert "secret-value" not in str(caught.value)


def test_an_answer_of_another_shape_is_the_peers_fault() -> None:
    with pytest.raises(Broken):
        parse_answer(CommandMessage, b'{"id": "../x"}')


def test_half_a_character_cannot_be_sent() -> None:
    with pytest.raises(Rejected):
        outgoing(GrepQueryMessage, GrepQuery(pattern="\ud800"))
