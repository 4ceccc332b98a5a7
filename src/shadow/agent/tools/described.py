"""Tools whose description is a file, with their bounds filled in, so that it cannot say another number than the code."""

from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from shadow.agent.prompts.loading import filled
from shadow.agent.toolbox import Tool


class Arguments(BaseModel):
    """A name that does not exist is refused: the model would believe that it did something."""

    model_config = ConfigDict(extra="forbid", frozen=True)


A = TypeVar("A", bound=Arguments)


class DescribedTool(Tool[A], Generic[A]):
    bounds: ClassVar[Mapping[str, int]] = {}
    """What the description names as ``$name``."""

    @property
    def description(self) -> str:
        return filled(f"tools/{self.name}", self.bounds)
