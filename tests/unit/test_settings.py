"""Settings: where a value comes from, and what is refused with which mend."""

from pathlib import Path

import pytest

from shadow.core.errors import SettingsRefused
from shadow.core.workspaces import Isolation, Mode
from shadow.settings import Origin, Settings, Source, UidRange, load_settings, setting_origins, variable_name


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own and no setting in the environment."""
    for name in (*map(variable_name, Settings.model_fields), "SHADOW_CONFIG", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENROUTER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_config(home: Path, text: str) -> Path:
    path = home / ".config/shadow/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_anything_set_the_defaults_hold():
    settings = load_settings()
    assert (settings.mode, settings.isolation, settings.lease_s) == (Mode.LOCAL, Isolation.SANDBOX, 86400)


def test_the_environment_goes_before_the_file(home: Path, monkeypatch: pytest.MonkeyPatch):
    write_config(home, 'lease_s = 60\nlog_level = "info"\n')
    monkeypatch.setenv("SHADOW_LEASE_S", "120")
    settings = load_settings()
    assert (settings.lease_s, settings.log_level) == (120, "info")


def test_the_mode_is_agent_mode(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AGENT_MODE", "mock")
    assert load_settings().mode is Mode.MOCK


def test_a_misspelt_variable_is_refused_with_the_right_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHADOW_ISOLATOIN", "none")
    with pytest.raises(SettingsRefused) as refused:
        load_settings()
    assert "SHADOW_ISOLATOIN" in refused.value.message
    assert refused.value.mend == "Did you mean SHADOW_ISOLATION?"


def test_a_misspelt_name_in_the_file_is_refused_with_the_right_name(home: Path):
    path = write_config(home, "leases = 5\n")
    with pytest.raises(SettingsRefused) as refused:
        load_settings()
    assert str(path) in refused.value.message
    assert refused.value.mend == "Did you mean lease_s?"


def test_a_name_that_resembles_nothing_is_answered_with_all_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHADOW_QQQQQQQQ", "1")
    with pytest.raises(SettingsRefused) as refused:
        load_settings()
    assert "SHADOW_DATA_DIR" in (refused.value.mend or "")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SHADOW_LEASE_S", "soon"),
        ("SHADOW_LEASE_S", "0"),
        ("SHADOW_LEASE_S", "nan"),
        ("SHADOW_ISOLATION", "jail"),
        ("SHADOW_DATA_DIR", "relative/path"),
        ("SHADOW_SANDBOX_UIDS", "5000"),
        ("SHADOW_SANDBOX_UIDS", "6000-5000"),
        ("SHADOW_SANDBOX_UIDS", "0-10"),
        ("SHADOW_TOOLCHAIN_PATHS", "/opt/go:bin"),
        ("SHADOW_LOG_LEVEL", "loud"),
        ("AGENT_MODE", "cloud"),
    ],
)
def test_an_impossible_value_is_refused_naming_the_variable(variable: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsRefused) as refused:
        load_settings()
    assert refused.value.message.startswith(f"{variable} cannot be {value!r}: ")
    assert refused.value.mend


def test_an_impossible_value_in_the_file_is_refused_naming_the_file(home: Path):
    path = write_config(home, "lease_s = -1\n")
    with pytest.raises(SettingsRefused, match="lease_s in ") as refused:
        load_settings()
    assert str(path) in refused.value.message


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHADOW_LEASE_S", "")
    assert load_settings().lease_s == 86400


def test_lists_and_ranges_are_written_alike_in_both_places(home: Path, monkeypatch: pytest.MonkeyPatch):
    write_config(home, 'toolchain_paths = ["/opt/go", "~/rust"]\nsandbox_uids = "300000-300099"\n')
    from_file = load_settings()
    monkeypatch.setenv("SHADOW_TOOLCHAIN_PATHS", "/opt/go:~/rust")
    assert load_settings().toolchain_paths == from_file.toolchain_paths == (Path("/opt/go"), home / "rust")
    assert from_file.sandbox_uids == UidRange(first=300000, last=300099)
    assert str(from_file.sandbox_uids) == "300000-300099"


@pytest.mark.parametrize("content", [b"lease_s = ", b"\xff\xfe", b"[lease_s"])
def test_a_file_that_is_not_toml_is_refused(home: Path, content: bytes):
    write_config(home, "").write_bytes(content)
    with pytest.raises(SettingsRefused, match="is not TOML"):
        load_settings()


def test_a_named_file_must_be_there(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHADOW_CONFIG", str(home / "missing.toml"))
    with pytest.raises(SettingsRefused, match="SHADOW_CONFIG names"):
        load_settings()


def test_the_file_may_live_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch):
    (home / "elsewhere.toml").write_text("lease_s = 7\n")
    monkeypatch.setenv("SHADOW_CONFIG", "~/elsewhere.toml")
    assert load_settings().lease_s == 7


def test_a_directory_in_place_of_the_file_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHADOW_CONFIG", str(home))
    with pytest.raises(SettingsRefused, match="cannot be read"):
        load_settings()


def test_every_setting_is_documented():
    page = (Path(__file__).parents[2] / "docs/settings.md").read_text()
    for name, field in Settings.model_fields.items():
        assert field.description
        assert f"`{variable_name(name)}`" in page
        assert field.description in page


@pytest.mark.parametrize("provider", ["anthropic", "openai", "openrouter"])
def test_a_key_of_the_providers_own_variable_counts_last(provider: str, home: Path, monkeypatch: pytest.MonkeyPatch):
    def key() -> str:
        return getattr(load_settings(), f"{provider}_api_key").get_secret_value()

    assert not key()
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", "sk-own")
    assert key() == "sk-own"
    write_config(home, f'{provider}_api_key = "sk-file"\n')
    assert key() == "sk-file"
    monkeypatch.setenv(f"SHADOW_{provider.upper()}_API_KEY", "sk-ours")
    assert key() == "sk-ours"


def test_keys_are_not_shown(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHADOW_OPENAI_API_KEY", "sk-secret")
    assert "sk-secret" not in repr(load_settings())
    write_config(home, 'anthropic_api_key = ["sk-secret"]\n')
    with pytest.raises(SettingsRefused) as refused:
        load_settings()
    assert "anthropic_api_key" in refused.value.message
    assert "sk-secret" not in str(refused.value)


def test_each_setting_says_where_it_comes_from(home: Path, monkeypatch: pytest.MonkeyPatch):
    file = write_config(home, 'lease_s = 60\nopenai_api_key = "file"\nmodel = "ollama:x"\n')
    monkeypatch.setenv("SHADOW_MODEL", "ollama:y")
    monkeypatch.setenv("SHADOW_EGRESS", "")
    monkeypatch.setenv("OPENAI_API_KEY", "tool")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "tool")
    monkeypatch.setenv("AGENT_MODE", "mock")
    found = setting_origins()
    assert set(found) == set(Settings.model_fields)
    assert found["lease_s"] == found["openai_api_key"] == Origin(source=Source.FILE, name=str(file))
    assert found["model"] == Origin(source=Source.ENVIRONMENT, name="SHADOW_MODEL")
    assert found["mode"] == Origin(source=Source.ENVIRONMENT, name="AGENT_MODE")
    assert found["anthropic_api_key"] == Origin(source=Source.ENVIRONMENT, name="ANTHROPIC_API_KEY")
    assert found["egress"] == Origin(source=Source.DEFAULT)
    assert load_settings().model == "ollama:y"
