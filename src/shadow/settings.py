"""Settings: the one place that reads the environment and the settings file.

A value comes from its environment variable, else from the settings file, else from its default. A name that does not
exist is refused, so that a misspelt setting never passes for a default.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    model_validator,
)

from shadow.core.egress import parse_rules
from shadow.core.errors import Rejected, SettingsRefused
from shadow.core.limits import parse_bytes
from shadow.core.workspaces import Isolation, Mode

PREFIX = "SHADOW_"
CONFIG_VARIABLE = "SHADOW_CONFIG"
_OWN_VARIABLES = {"mode": "AGENT_MODE"}
_FALLBACK_VARIABLES = {
    "anthropic_api_key": "ANTHROPIC_API_KEY",
    "anthropic_base_url": "ANTHROPIC_BASE_URL",
    "openai_api_key": "OPENAI_API_KEY",
    "openai_base_url": "OPENAI_BASE_URL",
    "openrouter_api_key": "OPENROUTER_API_KEY",
}
"""Variables that providers' own tools read. They count where neither our variable nor the file says anything."""


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    AUTO = "auto"
    """``console`` where stderr is a terminal, else ``json``."""
    CONSOLE = "console"
    JSON = "json"


class ModelReasoning(StrEnum):
    OFF = "off"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class UidRange(BaseModel):
    """Host uids from ``first`` to ``last``, both included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int = Field(ge=1000)
    last: int = Field(le=2**32 - 2)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError("the first uid is above the last")
        return self

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def _uid_range(value: object) -> object:
    if not isinstance(value, str):
        return value
    first, dash, last = value.partition("-")
    if not (dash and first.strip().isdecimal() and last.strip().isdecimal()):
        raise ValueError("write it as FIRST-LAST, for example 200000-265535")
    return {"first": int(first), "last": int(last)}


class Address(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(min_length=1, max_length=255)
    port: int = Field(ge=0, le=65535)
    """0: any that is free."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isdecimal()):
        raise ValueError("write it as HOST:PORT, for example 127.0.0.1:8765")
    return {"host": host.removeprefix("[").removesuffix("]"), "port": int(port)}


ListenAddress = Annotated[Address, BeforeValidator(_address)]


def _path_list(value: object) -> object:
    return tuple(part for part in value.split(":") if part) if isinstance(value, str) else value


def _words(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


def _git_hosts(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        if not re.fullmatch(r"\*|[A-Za-z0-9._\-]+(:\d+)?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+|\[[0-9A-Fa-f:.]+\]:\d+", text):
            raise ValueError(f"{text!r} is neither HOST nor HOST:PORT nor *")
    return tuple(text.lower().replace("[", "").replace("]", "") for text in texts)


def _egress_rules(texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        parse_rules(texts)
    except Rejected as error:
        raise ValueError(error.message.removesuffix(".")) from error
    return texts


def _absolute(path: Path) -> Path:
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError("the home directory that ~ stands for is unknown") from error
    if not path.is_absolute():
        raise ValueError("write an absolute path (or one that begins with ~)")
    if "\0" in str(path):
        raise ValueError("a path cannot hold NUL characters")
    return path


def _base_directory(variable: str, fallback: str) -> Path:
    """A directory of the XDG base directory specification, which ignores relative values."""
    given = Path(os.environ.get(variable, ""))
    if given.is_absolute():
        return given
    try:
        return Path.home() / fallback
    except RuntimeError as error:
        raise SettingsRefused(
            "The home directory of this user is unknown.", mend=f"Set HOME, {variable} or {PREFIX}DATA_DIR."
        ) from error


def default_data_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/shadow")
    return _base_directory("XDG_DATA_HOME", ".local/share") / "shadow"


def _three_quarters_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def _no_limit(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _bytes(value: object) -> object:
    value = _no_limit(value)
    return parse_bytes(value) if isinstance(value, str) else value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
ByteLimit = Annotated[int | None, BeforeValidator(_bytes)]
CountLimit = Annotated[int | None, BeforeValidator(_no_limit)]
NumberLimit = Annotated[float | None, BeforeValidator(_no_limit)]
MoneyLimit = Annotated[Decimal | None, BeforeValidator(_no_limit)]


class Settings(BaseModel):
    """All settings. Field descriptions are the text of ``docs/settings.md``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = Field(
        default=Mode.LOCAL,
        description="Where workspaces live: `local` is this host; `mock` is the memory of one process, with simulated commands, "
        "for tests (docs/mock.md). `remote` is refused until it exists.",
    )
    mock_plan: AbsolutePath | None = Field(
        default=None,
        description="With the mode `mock`: a YAML file that says what commands answer, how long things take and what fails.",
        json_schema_extra={"shown_default": "none"},
    )
    isolation: Isolation = Field(
        default=Isolation.SANDBOX,
        description="How a workspace is walled off: `sandbox` (Linux namespaces) or `none`, which is no wall at all: "
        "commands run with the rights of the user who started Shadow.",
    )
    data_dir: AbsolutePath = Field(
        default_factory=default_data_dir,
        description="Directory that holds the workspaces.",
        json_schema_extra={"shown_default": "root: `/var/lib/shadow`; else `$XDG_DATA_HOME/shadow`"},
    )
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="The database for tasks and their logs where several hosts share it: "
        "`postgresql://USER:PASSWORD@HOST/NAME`, as PostgreSQL's own programs take it. Without one it is a file in the data "
        "directory.",
        json_schema_extra={"shown_default": "none"},
    )
    lease_s: float = Field(
        default=24 * 3600.0,
        ge=1,
        le=365 * 24 * 3600,
        description="How long a new workspace lives unless it is renewed.",
        json_schema_extra={"unit": "seconds"},
    )
    toolchain_paths: Annotated[tuple[AbsolutePath, ...], BeforeValidator(_path_list)] = Field(
        default=(),
        description="More directories of this host that sandboxes see, read-only and at the same path; "
        "in the variable parted by `:`, in the file a list. Everything in a sandbox can read them.",
        json_schema_extra={"shown_default": "none"},
    )
    sandbox_uids: Annotated[UidRange | None, BeforeValidator(_uid_range)] = Field(
        default=None,
        description="Host uids for sandboxes, one each, where Shadow runs as root: `FIRST-LAST`. "
        "Nothing else on the host may use them.",
        json_schema_extra={"shown_default": "a range that distributions leave free"},
    )
    git_tokens: SecretStr = Field(
        default=SecretStr(""),
        description="Tokens for https remotes: `HOST=TOKEN` or `HOST=USER:TOKEN`, parted by commas. Used by Shadow itself, "
        "outside of workspaces. Without one, your `~/.netrc`, git credential helpers and ssh keys are used.",
        json_schema_extra={"shown_default": "none"},
    )
    git_shared_hosts: Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_git_hosts)] = Field(
        default=(),
        description="Hosts at which `shadow serve` uses these credentials (SHADOW_GIT_TOKENS, and its own user's `~/.netrc`, "
        "git credential helpers and ssh keys) for the tasks of all users: `HOST` or `HOST:PORT`, `*` for all. Whoever may begin "
        "tasks can then read and push to whatever these open there. Elsewhere they are for the server's own user alone. In the "
        "variable parted by blanks, in the file a list.",
        json_schema_extra={"shown_default": "none"},
    )
    git_egress: Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_egress_rules)] = Field(
        default=(),
        description="Hosts that are not public and that repositories may lead Shadow to (submodules, redirects, large files), "
        "as egress rules: `private:git.corp.example`. The host of an address that you type needs no rule; one that other users "
        "of `shadow serve` type does.",
        json_schema_extra={"shown_default": "none"},
    )
    git_proxy: str | None = Field(
        default=None,
        pattern="^https?://",
        description="The proxy through which Shadow's own git reaches https remotes, `http://HOST:PORT`. That proxy resolves "
        "names then, so that Shadow cannot refuse addresses that are not public.",
        json_schema_extra={"shown_default": "none"},
    )
    model_egress: Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_egress_rules)] = Field(
        default=(),
        description="Hosts that are not public, or not encrypted, and that users of `shadow serve` may name in base URLs of the "
        "keys that they store, as egress rules: `private:llm.corp.example`, `10.1.2.3:8000`.",
        json_schema_extra={"shown_default": "none"},
    )
    sealing_key_file: AbsolutePath | None = Field(
        default=None,
        description="The file with the keys that stored keys of providers are encrypted with: made with the first one, one a "
        "line, the newest first. Servers that share a database share it; backups of the database are worth nothing without it.",
        json_schema_extra={"shown_default": "`sealing-keys` in the data directory"},
    )
    sealing_keys: SecretStr = Field(
        default=SecretStr(""),
        description="Those keys themselves, in place of the file: each 32 random bytes in URL-safe base64, the newest first, "
        "parted by blanks or commas.",
        json_schema_extra={"shown_default": "none"},
    )
    agent_name: str = Field(
        default="Shadow", min_length=1, max_length=200, description="Author of what is committed in workspaces."
    )
    agent_email: str = Field(
        default="shadow@localhost", min_length=1, max_length=200, description="E-mail address of that author."
    )
    repository_limit_bytes: int = Field(
        default=8 * 1024**3,
        ge=1024**2,
        description="How large the mirror of one repository may be.",
        json_schema_extra={"unit": "bytes"},
    )
    delivery_limit_bytes: int = Field(
        default=512 * 1024**2,
        ge=1024,
        description="How large the bundle with the work of one workspace may be.",
        json_schema_extra={"unit": "bytes"},
    )
    limit_memory_bytes: ByteLimit = Field(
        default_factory=_three_quarters_of_memory,
        description="Memory of all commands of a workspace together, with files in memory (/tmp, /dev/shm, the home "
        "directory), which can take half of it. Sizes may be written as `512m` or `4g`; `none` is no limit, here and below.",
        json_schema_extra={"unit": "bytes", "shown_default": "three quarters of the host's"},
    )
    limit_processes: CountLimit = Field(
        default=4096, ge=8, description="Processes and threads of all commands of a workspace together."
    )
    limit_cpus: NumberLimit = Field(
        default=None,
        ge=0.01,
        description="CPUs for all commands of a workspace together, also parts of one.",
        json_schema_extra={"shown_default": "none"},
    )
    limit_open_files: CountLimit = Field(default=65536, ge=64, description="Open files of each process of a command.")
    limit_file_size_bytes: ByteLimit = Field(
        default=16 * 1024**3,
        ge=64 * 1024,
        description="Size of each file that is written.",
        json_schema_extra={"unit": "bytes"},
    )
    limit_workspace_bytes: ByteLimit = Field(
        default=32 * 1024**3,
        ge=64 * 1024,
        description="What a workspace's checkout takes on disk.",
        json_schema_extra={"unit": "bytes"},
    )
    limit_workspace_files: CountLimit = Field(
        default=4_000_000, ge=8, description="Files and directories of a workspace's checkout."
    )
    limit_tasks: CountLimit = Field(
        default=200, ge=1, description="Tasks with a workspace of one user: a further one is refused before it is made."
    )
    budget_tokens_day: CountLimit = Field(
        default=None,
        ge=0,
        description="Tokens, input and output, that the models of one user's tasks may take in a day (of UTC) unless an "
        "administrator gives them another budget. Where it is spent, no task begins, and a run ends before its next request.",
        json_schema_extra={"shown_default": "none"},
    )
    budget_tokens_month: CountLimit = Field(
        default=None,
        ge=0,
        description="As SHADOW_BUDGET_TOKENS_DAY, in a month.",
        json_schema_extra={"shown_default": "none"},
    )
    budget_usd_day: MoneyLimit = Field(
        default=None,
        ge=0,
        description="As SHADOW_BUDGET_TOKENS_DAY, in US dollars; a model whose price is unknown costs nothing here.",
        json_schema_extra={"shown_default": "none"},
    )
    budget_usd_month: MoneyLimit = Field(
        default=None,
        ge=0,
        description="As SHADOW_BUDGET_USD_DAY, in a month.",
        json_schema_extra={"shown_default": "none"},
    )
    budget_cpu_s_day: CountLimit = Field(
        default=None,
        ge=0,
        description="CPU time that the workspaces of one user's tasks may take in a day (of UTC), as SHADOW_BUDGET_TOKENS_DAY; a "
        "run ends before its next tool call. What counts: docs/operations.md.",
        json_schema_extra={"unit": "CPU seconds", "shown_default": "none"},
    )
    budget_cpu_s_month: CountLimit = Field(
        default=None,
        ge=0,
        description="As SHADOW_BUDGET_CPU_S_DAY, in a month.",
        json_schema_extra={"unit": "CPU seconds", "shown_default": "none"},
    )
    budget_storage_bytes: ByteLimit = Field(
        default=None,
        ge=0,
        description="What the workspaces and artifacts of one user's tasks may take together, as last measured, unless an "
        "administrator gives them another budget. Where it is used up, no task and no run begins.",
        json_schema_extra={"unit": "bytes", "shown_default": "none"},
    )
    limit_command_time_s: NumberLimit = Field(
        default=None,
        gt=0,
        description="How long a command may run that has no timeout of its own.",
        json_schema_extra={"unit": "seconds", "shown_default": "none"},
    )
    egress: Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_egress_rules)] = Field(
        default=(),
        description="Which hosts new sandboxes may reach unless they are made with rules of their own: egress rules and "
        "presets, such as `pypi .example.org`; in the variable parted by blanks, in the file a list.",
        json_schema_extra={"shown_default": "none"},
    )
    task_hibernate_after_s: NumberLimit = Field(
        default=1800.0,
        gt=0,
        description="How long a task is idle before its workspace's processes are ended; the next message wakes it.",
        json_schema_extra={"unit": "seconds"},
    )
    task_archive_after_s: NumberLimit = Field(
        default=14 * 24 * 3600.0,
        gt=0,
        description="How long nothing happens with a task before its workspace is removed; its log is kept. `none`: never.",
        json_schema_extra={"unit": "seconds"},
    )
    task_delete_after_s: NumberLimit = Field(
        default=None,
        gt=0,
        description="How long an archived task is kept before its log is removed too.",
        json_schema_extra={"unit": "seconds", "shown_default": "none"},
    )
    server: str | None = Field(
        default=None,
        description="The server that commands speak to, as `--server` says it: `https://…`; `none` for this host. Without it "
        "that of the last `shadow login`, if there was any.",
        json_schema_extra={"shown_default": "none"},
    )
    server_token: SecretStr = Field(
        default=SecretStr(""),
        description="The token to show it; else that of `shadow login`.",
        json_schema_extra={"shown_default": "none"},
    )
    server_insecure: bool = Field(
        default=False,
        description="Whether the token may be sent to another host by plain `http`, where whoever is on the way can read it; as "
        "`--insecure`.",
    )
    server_listen: ListenAddress = Field(
        default=Address(host="127.0.0.1", port=8765),
        description="Where `shadow serve` listens: `HOST:PORT`. An address that others can reach needs SHADOW_SERVER_URL.",
        json_schema_extra={"shown_default": "127.0.0.1:8765"},
    )
    server_url: str = Field(
        default="",
        pattern=r"^(https?://[A-Za-z0-9.\-\[\]:]+)?$",
        description="The address that users of `shadow serve` type, where it is not the one that it listens on: "
        "`https://shadow.example.org`. Requests under other names are refused.",
        json_schema_extra={"shown_default": "where it listens"},
    )
    server_trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], BeforeValidator(_words)] = Field(
        default=(),
        description="Addresses and networks of proxies in front of `shadow serve`: whom their `X-Forwarded-For` names is "
        "whom a request comes from, on record and for limits; nobody else's counts. In the variable parted by blanks, in the "
        "file a list.",
        json_schema_extra={"shown_default": "none"},
    )
    server_user_requests_per_s: float = Field(
        default=500,
        gt=0,
        description="How many requests a second `shadow serve` takes from one user, and twice as many at once after a quiet "
        "time. Each server counts for itself.",
    )
    server_logins_per_min: float = Field(
        default=30,
        gt=0,
        description="How many logins, and requests with a bad credential, `shadow serve` takes a minute from one address.",
    )
    server_share_keys: bool = Field(
        default=True,
        description="Whether tasks of all users may use the keys and endpoints of providers that are in the settings, where "
        "neither their project nor they have stored a key. Else only this host's own user may.",
    )
    server_unready_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="How long `shadow serve`, told to end, still answers everything but says that it is not ready: until whoever "
        "balances the load has noticed.",
        json_schema_extra={"unit": "seconds"},
    )
    server_drain_s: float = Field(
        default=20.0,
        ge=0,
        le=3600,
        description="How long its jobs may then go on; what has not ended by then, another server takes up, or the next start.",
        json_schema_extra={"unit": "seconds"},
    )
    worker_slots: int = Field(default=16, ge=1, le=1000, description="How many jobs one process does at once.")
    worker_lease_s: float = Field(
        default=15.0,
        ge=1,
        le=600,
        description="How long after a worker's last sign of life another one takes over what it did.",
        json_schema_extra={"unit": "seconds"},
    )
    sidecar_answer_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="How long a workspace may take for an answer, besides what the call itself waits for. A call and its repeats "
        "take at most half a minute more.",
        json_schema_extra={"unit": "seconds"},
    )
    sidecar_retry_waits_s: Annotated[
        tuple[Annotated[float, Field(ge=0, le=60)], ...], BeforeValidator(_words), Field(max_length=10)
    ] = Field(
        default=(1.0, 2.0, 4.0),
        description="How long to wait before each repeat of a call that a workspace did not answer; so many repeats there are. "
        "In the variable parted by blanks, in the file a list. Only what is safe to repeat is repeated.",
        json_schema_extra={"unit": "seconds", "shown_default": "`1 2 4`"},
    )
    sidecar_retry_jitter: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="By which share of itself each of these waits may be longer, at random.",
    )
    sidecar_breaker_failures: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="After how many unanswered calls in a row, repeats not counted, calls to a workspace fail at once.",
    )
    sidecar_breaker_open_s: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="For how long they do, until one call is let through to try.",
        json_schema_extra={"unit": "seconds"},
    )
    model: str | None = Field(
        default=None,
        description="The model that runs use: `PROVIDER:NAME`, `scripted:FILE` or `replay:FILE`. See docs/models.md.",
        json_schema_extra={"shown_default": "none"},
    )
    anthropic_api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key for `anthropic:` models. `ANTHROPIC_API_KEY` counts where this is not set.",
        json_schema_extra={"shown_default": "none"},
    )
    anthropic_base_url: str = Field(
        default="https://api.anthropic.com",
        description="Where they are reached. `ANTHROPIC_BASE_URL` counts where this is not set.",
    )
    openai_api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key for `openai:` and `openai-chat:` models. `OPENAI_API_KEY` counts where this is not set.",
        json_schema_extra={"shown_default": "none"},
    )
    openai_base_url: str = Field(
        default="https://api.openai.com/v1",
        description="Where they are reached. `OPENAI_BASE_URL` counts where this is not set.",
    )
    openrouter_api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key for `openrouter:` models. `OPENROUTER_API_KEY` counts where this is not set.",
        json_schema_extra={"shown_default": "none"},
    )
    openrouter_base_url: str = Field(
        default="https://openrouter.ai/api/v1",
        description="Where they are reached.",
    )
    ollama_api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key for `ollama:` models, where the server wants one.",
        json_schema_extra={"shown_default": "none"},
    )
    ollama_base_url: str = Field(
        default="http://localhost:11434/v1",
        description="Where they are reached.",
    )
    compatible_api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key for `compatible:` models, where the server wants one.",
        json_schema_extra={"shown_default": "none"},
    )
    compatible_base_url: str = Field(
        default="",
        description="Where they are reached: any server with OpenAI's Chat Completions, for example `http://localhost:8000/v1`.",
        json_schema_extra={"shown_default": "none"},
    )
    model_context_tokens: int | None = Field(
        default=None,
        ge=1024,
        description="How many tokens a request to the model and its answer have together at most.",
        json_schema_extra={"unit": "tokens", "shown_default": "as known of the model"},
    )
    model_output_tokens: int | None = Field(
        default=None,
        ge=64,
        description="How many tokens an answer of the model has at most.",
        json_schema_extra={"unit": "tokens", "shown_default": "as known of the model"},
    )
    model_reasoning: ModelReasoning | None = Field(
        default=None,
        description="How much the model reasons before it answers: `off`, `low`, `medium` or `high`.",
        json_schema_extra={"shown_default": "as the model does by itself"},
    )
    model_connect_s: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="How long connecting to a model's provider may take.",
        json_schema_extra={"unit": "seconds"},
    )
    model_silence_s: float = Field(
        default=300.0,
        gt=0,
        le=3600,
        description="How long a provider may send nothing at all before the request counts as lost.",
        json_schema_extra={"unit": "seconds"},
    )
    audit_keep_days: CountLimit = Field(
        default=400,
        ge=1,
        description="How long the record of operations (`shadow audit`) is kept; what is older is removed, and that is put "
        "on record. `none`: for ever.",
        json_schema_extra={"unit": "days"},
    )
    otel_endpoint: str = Field(
        default="",
        pattern=r"^(https?://[!-~]+)?$",
        description="An OpenTelemetry collector that takes OTLP over HTTP, for example `http://127.0.0.1:4318`: requests, jobs, "
        "requests to models and calls of tools are traced, without what was said. Needs the extra `otel`. Variables "
        "`OTEL_…` do not count.",
        json_schema_extra={"shown_default": "none"},
    )
    otel_headers: SecretStr = Field(
        default=SecretStr(""),
        description="What to send it with each request, `NAME=VALUE` parted by commas, as for a hosted one's key.",
        json_schema_extra={"shown_default": "none"},
    )
    otel_sample: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Which share of the traces is kept, where the `traceparent` of a request has not decided it.",
    )
    log_level: LogLevel = Field(
        default=LogLevel.WARNING,
        description="Least severe log events that are written, to stderr: `debug`, `info`, `warning` or `error`.",
    )
    log_format: LogFormat = Field(
        default=LogFormat.AUTO,
        description="`console`, `json` (one object a line) or `auto`: `console` where stderr is a terminal.",
    )


def secrets_of_environment() -> tuple[str, ...]:
    """The values of this process's variables whose names say that they are secret."""
    from shadow.core.secrets import secret_values  # seldom needed

    return secret_values(os.environ)


def variable_name(field: str) -> str:
    return _OWN_VARIABLES.get(field, PREFIX + field.upper())


def config_path() -> Path:
    """Where the settings file is looked for."""
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named).expanduser() if named else _base_directory("XDG_CONFIG_HOME", ".config") / "shadow/config.toml"


class Source(StrEnum):
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the value of a setting comes from."""

    source: Source
    name: str | None = None
    """The variable, or the path of the file."""


def setting_origins() -> Mapping[str, Origin]:
    """Of each setting, by its name, as ``load_settings`` would take it now. Raises: SettingsRefused."""
    path = config_path()
    layers = [
        {name: Origin(source=Source.DEFAULT) for name in Settings.model_fields},
        {
            name: Origin(source=Source.ENVIRONMENT, name=_FALLBACK_VARIABLES[name])
            for name in _read_fallbacks(os.environ)
        },
        {
            name: Origin(source=Source.FILE, name=str(path))
            for name in _read_file(path, must_exist=CONFIG_VARIABLE in os.environ)
        },
        {name: Origin(source=Source.ENVIRONMENT, name=variable_name(name)) for name in _read_environment(os.environ)},
    ]
    return {name: origin for layer in layers for name, origin in layer.items()}


def load_settings() -> Settings:
    """The settings as environment, file and defaults give them. Raises: SettingsRefused: naming what to change."""
    from_environment = _read_environment(os.environ)
    path = config_path()
    from_file = _read_file(path, must_exist=CONFIG_VARIABLE in os.environ)
    try:
        return Settings.model_validate(_read_fallbacks(os.environ) | from_file | from_environment)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = str(fault["loc"][0])
        source = variable_name(field) if field in from_environment else f"{field} in {path}"
        secret = Settings.model_fields[field].annotation is SecretStr
        given = "…" if secret else (_read_fallbacks(os.environ) | from_file | from_environment).get(field)
        raise SettingsRefused(
            f"{source} cannot be {given!r}: {_lower_first(fault['msg'].removeprefix('Value error, '))}.",
            mend=f"It means: {Settings.model_fields[field].description}",
            details={"setting": field, "variable": variable_name(field)},
        ) from error


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _read_environment(environ: Mapping[str, str]) -> dict[str, object]:
    field_by_variable = {variable_name(field): field for field in Settings.model_fields}
    known = {*field_by_variable, CONFIG_VARIABLE}
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            raise _unknown(f"environment variable {name!r}", name, known)
    # An empty variable counts as one that is not set.
    return {field: environ[variable] for variable, field in field_by_variable.items() if environ.get(variable)}


def _read_fallbacks(environ: Mapping[str, str]) -> dict[str, object]:
    return {field: environ[variable] for field, variable in _FALLBACK_VARIABLES.items() if environ.get(variable)}


def _read_file(path: Path, *, must_exist: bool) -> dict[str, object]:
    try:
        text = path.read_bytes().decode()
        values: dict[str, object] = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        if must_exist:
            raise SettingsRefused(
                f"{CONFIG_VARIABLE} names {str(path)!r}, which is not there.", mend="Create it or unset the variable."
            ) from error
        return {}
    except OSError as error:
        raise SettingsRefused(
            f"The settings file {str(path)!r} cannot be read: {error.strerror}.", mend="Check its permissions."
        ) from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise SettingsRefused(
            f"The settings file {str(path)!r} is not TOML: {_lower_first(str(error))}.",
            mend='Write lines such as: isolation = "sandbox"',
        ) from error
    for name in values:
        if name not in Settings.model_fields:
            raise _unknown(f"setting {name!r} in {path}", name, set(Settings.model_fields))
    return values


def _unknown(what: str, name: str, known: set[str]) -> SettingsRefused:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    mend = f"Did you mean {close[0]}?" if close else f"Settings are: {', '.join(sorted(known))}."
    return SettingsRefused(f"There is no {what}.", mend=mend, details={"name": name})
