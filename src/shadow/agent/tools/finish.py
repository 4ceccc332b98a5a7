"""The end of a run, by the agent's own word."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from shadow.agent.loop import FINISH_TOOL
from shadow.agent.toolbox import Answer, Bench
from shadow.agent.tools.described import Arguments, DescribedTool

MAX_SUMMARY_CHARS = 8000


class FinishArguments(Arguments):
    summary: str = Field(
        min_length=1, max_length=MAX_SUMMARY_CHARS, description="What you did and what is open, for the user."
    )
    success: bool = Field(default=True, strict=True, description="False where you could not do it.")


class Finish(DescribedTool[FinishArguments]):
    name = FINISH_TOOL
    arguments = FinishArguments
    bounds: ClassVar[Mapping[str, int]] = {"max_summary_chars": MAX_SUMMARY_CHARS}

    async def call(self, arguments: FinishArguments, bench: Bench, *, call_id: str) -> Answer:
        return Answer(content="The run ends here.")
