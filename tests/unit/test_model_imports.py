"""What is loaded before a model of a provider is made: none of the SDKs, which take a second."""

import subprocess
import sys

import pytest

SDKS = ("anthropic", "openai", "pydantic_ai", "genai_prices", "httpx2")


@pytest.mark.parametrize(
    "statement",
    [
        "import shadow.cli.main",
        "import shadow.agent.runner, shadow.agent.toolbox, shadow.agent.compaction",
        "import shadow.agent.providers.making",
        "from shadow.bootstrap import make_provider_model",
        """
from shadow.agent.providers.making import make_model
from shadow.core.models import ModelKeyMissing
try:
    make_model("openai:gpt-5", endpoints={})
except ModelKeyMissing:
    pass
""",
    ],
)
def test_no_sdk_is_loaded_before_its_model_is_made(statement: str):
    check = f"{statement}\nimport sys\nprint(sorted(set({SDKS!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_each_sdk_is_loaded_for_its_own_models_alone():
    make = """
import sys
from shadow.agent.providers.making import Endpoint, make_model
model = make_model("anthropic:claude-sonnet-5", endpoints={"anthropic": Endpoint(key="sk-0123456789")})
assert model.price is not None
print("anthropic" in sys.modules, "openai" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", make], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "False"]
