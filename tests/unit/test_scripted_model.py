"""A scripted model says what its file says, and holds the tools to what it expects."""

import json
from pathlib import Path

import pytest
from hypothesis import given

from shadow.agent.deltas import MAX_PIECES, deltas_of
from shadow.agent.model import Model
from shadow.agent.scripted import ScriptEnded, ScriptExpectationFailed, open_scripted
from shadow.core.conversation import (
    AssistantMessage,
    Delta,
    FinishReason,
    Message,
    ModelRequest,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
)
from shadow.core.errors import ShadowError
from shadow.core.models import (
    ContentRefused,
    ContextTooLong,
    ModelKeyRefused,
    ModelOverloaded,
    ModelQuotaExceeded,
    ModelRateLimited,
    ModelUnreachable,
)
from tests.support.conversations import assistant_messages

pytestmark = pytest.mark.anyio


class Talk:
    """A conversation with a model, request by request."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.messages: list[Message] = [UserMessage(text="Mend it.")]
        self.deltas: list[Delta] = []

    async def ask(self) -> AssistantMessage:
        self.deltas = []
        request = ModelRequest(instructions="", messages=tuple(self.messages), tools=(), max_output_tokens=100)
        async for piece in self.model.stream(request):
            if isinstance(piece, AssistantMessage):
                self.messages.append(piece)
                return piece
            self.deltas.append(piece)
        raise AssertionError("the stream ended without an answer")

    def answer(self, *contents: str, is_error: bool = False, exit_code: int | None = None) -> None:
        said = self.messages[-1]
        assert isinstance(said, AssistantMessage)
        self.messages.append(
            ToolMessage(
                results=tuple(
                    ToolResult(call_id=call.id, name=call.name, content=text, is_error=is_error, exit_code=exit_code)
                    for call, text in zip(said.calls, contents, strict=True)
                )
            )
        )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "s.yaml"


def opened(script: Path, steps: str, *, head: str = "version: 1") -> Talk:
    script.write_text(f"{head}\nsteps:\n{steps}")
    return Talk(open_scripted(script))


def test_the_pieces_of_an_answer_are_the_answer() -> None:
    @given(assistant_messages())
    def check(message: AssistantMessage) -> None:
        pieces = list(deltas_of(message))
        assert "".join(p.text for p in pieces if isinstance(p, TextDelta)) == message.text
        reasoning = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
        assert "".join(p.text for p in pieces if isinstance(p, ReasoningDelta)) == reasoning
        for call in message.calls:
            of_call = [p for p in pieces if isinstance(p, ToolCallDelta) and p.call_id == call.id]
            assert of_call
            assert "".join(p.arguments for p in of_call) == call.arguments

    check()


def test_even_a_long_answer_comes_in_few_pieces() -> None:
    message = AssistantMessage(
        parts=(Text(text="word " * 10_000), ToolCall(id="1", name="n", arguments="x" * 100_000)), model="m"
    )
    assert 20 < len(list(deltas_of(message))) <= 2 * MAX_PIECES + 1


async def test_it_says_its_steps_in_order_in_pieces(script: Path) -> None:
    talk = opened(
        script,
        """
  - reasoning: Let me see.
    text: I will look.
    calls:
      - {tool: list_dir, arguments: {path: "é"}}
      - {tool: read_file, arguments: {path: a}}
    tokens: {input: 10, output: 3, cache_read: 4}
  - text: It is done.
""",
    )
    first = await talk.ask()
    reasoning, text, *calls = first.parts
    assert (reasoning, text) == (Reasoning(text="Let me see."), Text(text="I will look."))
    assert [(c.name, json.loads(c.arguments)) for c in calls if isinstance(c, ToolCall)] == [
        ("list_dir", {"path": "é"}),
        ("read_file", {"path": "a"}),
    ]
    assert len({call.id for call in first.calls}) == 2
    assert first.finish is FinishReason.TOOL_CALLS
    assert first.usage == Usage(input_tokens=10, output_tokens=3, cache_read_tokens=4)
    assert len(talk.deltas) > 6
    talk.answer("a", "b")
    second = await talk.ask()
    assert (second.text, second.calls, second.finish) == ("It is done.", (), FinishReason.STOP)


async def test_which_step_is_next_follows_from_the_conversation(script: Path) -> None:
    talk = opened(script, "  - {calls: [{tool: a}]}\n  - text: b\n  - text: c\n")
    first = await talk.ask()
    talk.answer("x")
    talk.model = open_scripted(script)
    assert (await talk.ask()).text == "b"
    talk.messages.append(UserMessage(text="More."))
    assert (await talk.ask()).text == "c"
    other = script.with_name("other.yaml")
    other.write_text(script.read_text())
    talk.model = open_scripted(other)
    again = await talk.ask()
    assert again.calls[0].name == "a"
    assert again.calls[0].id != first.calls[0].id


async def test_a_script_that_is_over_is_told_as_such(script: Path) -> None:
    talk = opened(script, "  - text: a\n")
    await talk.ask()
    with pytest.raises(ScriptEnded, match="1 steps"):
        await talk.ask()


@pytest.mark.parametrize(
    ("expect", "wanted"),
    [
        ("contains: green", "contains 'green'"),
        ("contains: [red, green]", "contains 'green'"),
        ("lacks: red", "without 'red'"),
        ("matches: '^FAILED \\d$'", "matches"),
        ("exit_code: 0", "exit code 0"),
        ("is_error: true", "is_error: true"),
    ],
)
async def test_an_expectation_that_fails_shows_what_was_wanted_and_what_came(
    script: Path, expect: str, wanted: str
) -> None:
    talk = opened(script, f"  - calls:\n      - tool: run\n        expect:\n          {expect}\n  - text: done\n")
    await talk.ask()
    talk.answer("one\nFAILED, red", exit_code=1)
    with pytest.raises(ScriptExpectationFailed) as caught:
        await talk.ask()
    assert f"{script}:5: `run`" in caught.value.message
    assert wanted in caught.value.message
    assert "exit code: 1, text:\none\nFAILED, red" in caught.value.message
    assert caught.value.details["line"] == 5
    assert not caught.value.repeat_is_safe
    with pytest.raises(ScriptExpectationFailed):
        talk.model.check_end(talk.messages)


@pytest.mark.parametrize(
    "expect",
    ["contains: [one, red]", "lacks: green", "matches: '^FAILED, (red|blue)$'", "exit_code: 1", "is_error: false"],
)
async def test_an_expectation_that_is_met_lets_the_script_go_on(script: Path, expect: str) -> None:
    talk = opened(script, f"  - calls:\n      - tool: run\n        expect: {{{expect}}}\n  - text: done\n")
    await talk.ask()
    talk.answer("one\nFAILED, red", exit_code=1)
    talk.model.check_end(talk.messages)
    assert (await talk.ask()).text == "done"


async def test_each_call_is_held_to_its_own_answer(script: Path) -> None:
    talk = opened(
        script,
        "  - calls:\n    - {tool: a, expect: {contains: x}}\n    - {tool: b, expect: {contains: y}}\n  - text: done\n",
    )
    await talk.ask()
    talk.answer("x", "x")
    with pytest.raises(ScriptExpectationFailed, match="`b`"):
        await talk.ask()


async def test_what_came_is_shown_within_bounds(script: Path) -> None:
    talk = opened(script, "  - calls:\n    - {tool: a, expect: {contains: x}}\n")
    await talk.ask()
    talk.answer("begin" + "-" * 1_000_000 + "end")
    with pytest.raises(ScriptExpectationFailed) as caught:
        talk.model.check_end(talk.messages)
    assert len(caught.value.message) < 3000
    assert "begin" in caught.value.message
    assert "end" in caught.value.message


async def test_what_an_answer_said_can_be_used_later_and_the_shells_variables_stay(script: Path) -> None:
    talk = opened(
        script,
        """
  - calls:
      - tool: run_terminal_cmd
        arguments: {command: "echo ${id}", background: true}
        expect: {matches: 'command_id="(?P<id>\\w+)"'}
  - calls: [{tool: list_dir}]
  - calls:
      - {tool: stop_command, arguments: {command_id: "${id}", more: ["${id}-${HOME}"]}}
""",
    )
    first = await talk.ask()
    assert json.loads(first.calls[0].arguments)["command"] == "echo ${id}"
    talk.answer('running in the background: command_id="cmd_1"')
    await talk.ask()
    talk.answer("")
    third = await talk.ask()
    assert json.loads(third.calls[0].arguments) == {"command_id": "cmd_1", "more": ["cmd_1-${HOME}"]}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rate_limit", ModelRateLimited),
        ("overloaded", ModelOverloaded),
        ("cut", ModelUnreachable),
        ("quota", ModelQuotaExceeded),
        ("key_refused", ModelKeyRefused),
        ("context_too_long", ContextTooLong),
        ("content_refused", ContentRefused),
    ],
)
async def test_a_fault_happens_as_often_as_it_is_to_and_then_the_step_is_said(
    script: Path, kind: str, error: type[ShadowError]
) -> None:
    talk = opened(
        script,
        f"  - text: one two three four\n    fault: {{kind: {kind}, times: 2, retry_after_s: 3}}\n  - text: last\n",
    )
    for _ in range(2):
        with pytest.raises(error) as caught:
            await talk.ask()
        assert type(caught.value) is error
        assert caught.value.details == {"retry_after_s": 3}
        assert len(talk.deltas) == (2 if kind == "cut" else 0)
    assert (await talk.ask()).text == "one two three four"
    assert (await talk.ask()).text == "last"


async def test_arguments_may_be_no_json_and_an_answer_cut_or_refused(script: Path) -> None:
    talk = opened(script, "  - calls: [{tool: a, arguments: '{\"path\": '}]\n  - {text: half, finish: length}\n")
    assert (await talk.ask()).calls[0].arguments == '{"path": '
    talk.answer("not JSON", is_error=True)
    assert (await talk.ask()).finish is FinishReason.LENGTH


def test_it_says_of_itself_what_the_script_claims(script: Path) -> None:
    head = "version: 1\nmodel: {context_tokens: 9000, max_output_tokens: 500, price: {input: 3, output: 15}}"
    model = opened(script, "  - text: a\n", head=head).model
    assert model.name == f"scripted:{script}"
    assert (model.context_tokens, model.max_output_tokens) == (9000, 500)
    assert model.price is not None
    assert model.price.of(Usage(input_tokens=10**6, output_tokens=10**6)) == 18
