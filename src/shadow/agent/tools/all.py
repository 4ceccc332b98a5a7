"""All tools of the agent, in the order in which a model is told of them."""

from typing import Any

from shadow.agent.tools.commands import ReadCommand, RunTerminalCmd, StopCommand, WriteCommandStdin
from shadow.agent.tools.described import DescribedTool
from shadow.agent.tools.directories import ListDir
from shadow.agent.tools.files import DeleteFile, EditFile, ReadFile, SearchReplace
from shadow.agent.tools.finish import Finish
from shadow.agent.tools.search import FileSearch, GrepSearch
from shadow.agent.tools.todo import TodoWrite


def make_tools() -> tuple[DescribedTool[Any], ...]:
    return (
        ReadFile(),
        EditFile(),
        SearchReplace(),
        DeleteFile(),
        ListDir(),
        GrepSearch(),
        FileSearch(),
        RunTerminalCmd(),
        ReadCommand(),
        WriteCommandStdin(),
        StopCommand(),
        TodoWrite(),
        Finish(),
    )
