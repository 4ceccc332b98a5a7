"""The texts that a model is given, from the files beside this module."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from string import Template


@cache
def prompt(name: str) -> str:
    """The text of ``name``: a path below this directory, without ``.md``."""
    return files("shadow.agent.prompts").joinpath(f"{name}.md").read_text(encoding="utf-8").strip()


def filled(name: str, values: Mapping[str, object]) -> str:
    """The text with each ``$name`` replaced. Raises: KeyError where the text names a value that is not given."""
    return Template(prompt(name)).substitute(values)
