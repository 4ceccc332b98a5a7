"""What records must not hold is taken from the settings and the environment."""

import pytest
from pydantic import SecretStr

from shadow.bootstrap import make_redactor
from shadow.core.secrets import REMOVED
from shadow.settings import Settings


def test_tokens_of_settings_are_removed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", "from-the-environment")
    settings = Settings(git_tokens=SecretStr("example.org=alpha-token,other.org=me:beta-token"))
    text = make_redactor(settings).text("alpha-token beta-token from-the-environment example.org")
    assert text == f"{REMOVED} {REMOVED} {REMOVED} example.org"
