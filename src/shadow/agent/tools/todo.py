"""The list of things to do, which the user watches."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from shadow.agent.toolbox import Answer, Bench
from shadow.agent.tools.described import Arguments, DescribedTool
from shadow.core.events import TodoChanged, TodoItem

MAX_ITEMS = 50
MAX_ITEM_CHARS = 300


class Item(Arguments):
    text: str = Field(min_length=1, max_length=MAX_ITEM_CHARS)
    status: Literal["pending", "in_progress", "done"] = "pending"


class TodoWriteArguments(Arguments):
    items: tuple[Item, ...] = Field(max_length=MAX_ITEMS, description="The whole list, in order.")


class TodoWrite(DescribedTool[TodoWriteArguments]):
    name = "todo_write"
    arguments = TodoWriteArguments
    bounds: ClassVar[Mapping[str, int]] = {"max_items": MAX_ITEMS, "max_item_chars": MAX_ITEM_CHARS}

    async def call(self, arguments: TodoWriteArguments, bench: Bench, *, call_id: str) -> Answer:
        bench.todo = tuple(TodoItem(text=item.text, status=item.status) for item in arguments.items)
        bench.told(TodoChanged(items=bench.todo))
        states = [item.status for item in bench.todo]
        return Answer(
            content=f"The list has {len(states)} items: {states.count('done')} done, "
            f"{states.count('in_progress')} in progress, {states.count('pending')} pending."
        )
