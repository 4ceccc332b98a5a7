"""What tools say of themselves, and those that need no workspace; calls that are wrong in themselves."""

import json
from typing import cast

import pytest

from shadow.agent.toolbox import MAX_ERROR_CHARS, Bench, Called, Toolbox
from shadow.agent.tools import commands, files, finish, todo
from shadow.agent.tools.all import make_tools
from shadow.core.conversation import ToolCall
from shadow.core.events import TaskEvent, TodoChanged, TodoItem
from shadow.execution.interface import ToolExecutor

pytestmark = pytest.mark.anyio


def toolbox() -> tuple[Toolbox, list[TaskEvent]]:
    told: list[TaskEvent] = []
    nowhere = cast("ToolExecutor", None)
    return Toolbox(make_tools(), Bench(executor=nowhere, told=told.append, operation=_none, clock=lambda: 0.0)), told


def _none(call_id: str) -> None:  # type: ignore[misc]
    raise AssertionError(f"{call_id} reached the workspace")


async def call(name: str, arguments: str, box: Toolbox | None = None) -> Called:
    return await (box or toolbox()[0]).call(ToolCall(id="c", name=name, arguments=arguments))


async def test_the_list_of_things_to_do_is_told_and_kept() -> None:
    box, told = toolbox()
    items = [{"text": "look", "status": "done"}, {"text": "mend", "status": "in_progress"}, {"text": "check"}]
    called = await call("todo_write", json.dumps({"items": items}), box)
    assert called.result.content == "The list has 3 items: 1 done, 1 in progress, 1 pending."
    expected = (
        TodoItem(text="look", status="done"),
        TodoItem(text="mend", status="in_progress"),
        TodoItem(text="check", status="pending"),
    )
    assert told == [TodoChanged(items=expected)]
    assert box.bench.todo == expected
    await call("todo_write", '{"items": []}', box)
    assert box.bench.todo == ()


@pytest.mark.parametrize(
    "items",
    [
        [{"text": "x"}] * (todo.MAX_ITEMS + 1),
        [{"text": "x" * (todo.MAX_ITEM_CHARS + 1)}],
        [{"text": ""}],
        [{"text": "x", "status": "almost"}],
    ],
)
async def test_a_list_beyond_its_bounds_is_refused(items: list[dict[str, str]]) -> None:
    assert (await call("todo_write", json.dumps({"items": items}))).is_fault


async def test_finish_takes_a_summary_and_a_plain_truth_value() -> None:
    assert not (await call("finish", '{"summary": "done"}')).result.is_error
    assert not (await call("finish", '{"summary": "no way", "success": false}')).result.is_error
    for wrong in ('{"summary": "x", "success": "false"}', '{"summary": "x", "success": 0}', '{"success": true}', "{}"):
        assert (await call("finish", wrong)).is_fault
    assert (await call("finish", json.dumps({"summary": "x" * (finish.MAX_SUMMARY_CHARS + 1)}))).is_fault


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("reed_file", "{}", "There are: delete_file, edit_file"),
        ("read_file", '{"path": ', "not JSON"),
        ("read_file", "[" * 200_000, "not JSON"),
        ("read_file", "[]", "valid dictionary"),
        ("read_file", '{"path": "a", "limit": 3}', "limit: Extra inputs are not permitted"),
        ("read_file", '{"path": 7}', "path: Input should be a valid string"),
        ("read_file", '{"path": "a", "first_line": 0}', "first_line"),
        ("edit_file", json.dumps({"x" * 100_000: 1}), "The arguments are not right"),
        ("edit_file", '{"\\ud800": 1}', "The arguments are not right"),
        ("todo_write", '{"items": [{"text": "\\ud800"}]}', "The arguments are not right"),
    ],
)
async def test_a_call_that_is_wrong_in_itself_is_told_apart_and_bounded(name: str, arguments: str, told: str) -> None:
    called = await call(name, arguments)
    assert called.is_fault
    assert called.result.is_error
    assert told in called.result.content
    assert len(called.result.content.encode()) < MAX_ERROR_CHARS + 500


def test_numbers_of_the_schemas_are_those_that_are_told() -> None:
    schemas = {d.name: d.parameters["properties"] for d in toolbox()[0].descriptions}
    assert schemas["read_file"]["max_lines"]["maximum"] == files.MAX_LINES
    timeout = schemas["run_terminal_cmd"]["timeout_s"]
    assert (timeout["default"], timeout["maximum"]) == (commands.DEFAULT_TIMEOUT_S, commands.MAX_TIMEOUT_S)
    assert schemas["read_command"]["wait_s"]["maximum"] == commands.MAX_WAIT_S
    assert schemas["todo_write"]["items"]["maxItems"] == todo.MAX_ITEMS
    assert schemas["finish"]["summary"]["maxLength"] == finish.MAX_SUMMARY_CHARS
