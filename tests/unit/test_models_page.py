"""docs/models.md says what is so."""

import re
from pathlib import Path

from shadow.agent.providers import facts, making
from shadow.core.errors import type_by_code
from shadow.settings import Settings, variable_name

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text()


def test_each_provider_is_there_with_its_example_and_its_place():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for provider in making.PROVIDERS.values():
        (row,) = [row for row in rows if row.startswith(f"| `{provider.name}`")]
        assert f"`{provider.example}`" in row
        assert provider.base_url is None or f"`{provider.base_url}`" in row


def test_each_setting_and_code_that_is_named_exists():
    variables = set(map(variable_name, Settings.model_fields))
    assert set(re.findall(r"SHADOW_\w+", PAGE)) <= variables
    codes = set(re.findall(r"`((?:model|context|content)_\w+)`", PAGE))
    assert codes
    assert codes <= set(type_by_code)


def test_the_numbers_are_those_of_the_code():
    for number in (
        facts.DEFAULT_CONTEXT_TOKENS,
        facts.DEFAULT_LOCAL_CONTEXT_TOKENS,
        facts.MOST_OUTPUT_TOKENS,
        facts.DEFAULT_OUTPUT_TOKENS,
        facts.DEFAULT_LOCAL_OUTPUT_TOKENS,
    ):
        assert str(number) in PAGE


def test_the_places_of_the_settings_are_those_of_the_providers():
    for provider in making.PROVIDERS.values():
        assert Settings.model_fields[f"{provider.settings}_base_url"].default == (provider.base_url or "")
