"""What a model is told of its tools is true: the names that are mentioned exist, the numbers are those of the code."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shadow.agent.prompts import loading
from shadow.agent.toolbox import Toolbox
from shadow.agent.tools.all import make_tools
from shadow.agent.tools.described import DescribedTool

TOOLS = {tool.name: tool for tool in make_tools()}
ROOT = Path(__file__).parents[2]
PROMPTS = ROOT / "src/shadow/agent/prompts"
NAMES = {
    "read_file",
    "edit_file",
    "search_replace",
    "delete_file",
    "list_dir",
    "grep_search",
    "file_search",
    "run_terminal_cmd",
    "read_command",
    "write_command_stdin",
    "stop_command",
    "todo_write",
    "finish",
}
PROSE = {"number: text", "success", "false"}


def descriptions() -> dict[str, str]:
    return {d.name: d.description for d in Toolbox(make_tools(), None).descriptions}  # type: ignore[arg-type]


def test_every_tool_has_its_file_and_every_file_its_tool() -> None:
    assert set(TOOLS) == NAMES
    assert {path.stem for path in (PROMPTS / "tools").glob("*.md")} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_names_in_a_description_exist(name: str) -> None:
    parameters = set(TOOLS[name].arguments.model_fields)
    for word in re.findall(r"`([^`]+)`", TOOLS[name].description):
        assert word in parameters | NAMES | PROSE, word


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_bound_is_told_and_no_number_is_written_by_hand(name: str) -> None:
    written = loading.prompt(f"tools/{name}")
    assert set(re.findall(r"\$(\w+)", written)) == set(TOOLS[name].bounds)
    assert not re.search(r"\d", written.replace("UTF-16", ""))


def test_the_system_prompt_names_tools_that_exist() -> None:
    words = set(re.findall(r"`([^`]+)`", loading.prompt("system")))
    assert words <= NAMES | PROSE


def test_what_is_sent_with_each_request_is_short() -> None:
    assert all(len(text) < 700 for text in descriptions().values())
    assert sum(map(len, descriptions().values())) < 4000
    assert len(loading.prompt("system")) < 2500
    schemas = sum(len(json.dumps(d.parameters)) for d in Toolbox(make_tools(), None).descriptions)  # type: ignore[arg-type]
    assert schemas < 7000


@pytest.mark.parametrize("name", sorted(NAMES))
def test_schemas_are_objects_without_room_for_misspelt_names(name: str) -> None:
    schema = TOOLS[name].arguments.model_json_schema()
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False


def test_a_description_that_names_an_unknown_bound_is_no_description() -> None:
    class Unbounded(DescribedTool):  # type: ignore[type-arg]
        name = "read_file"
        arguments = TOOLS["finish"].arguments
        call = TOOLS["finish"].call  # type: ignore[assignment]

    with pytest.raises(KeyError):
        _ = Unbounded().description


def test_the_page_of_the_tools_is_that_of_the_code() -> None:
    page = (ROOT / "docs/agent-tools.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \|(.*)\|", page, re.MULTILINE))
    assert set(rows) == NAMES
    for name, bounds in rows.items():
        told = {n: int(v) for n, v in re.findall(r"`(\w+)` (\d+)", bounds)}
        assert told == dict(TOOLS[name].bounds), name


def test_the_wheel_has_the_texts(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for path in PROMPTS.rglob("*.md"):
        assert str(path.relative_to(ROOT / "src")) in names
