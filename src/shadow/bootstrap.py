"""The one place that wires things: settings become managers, managers become workspaces to work in.

As a library::

    async with open_workspace() as workspace:
        result = await workspace.run(CommandSpec(argv=shell("echo hello > greeting; ls")))
        greeting = await workspace.read_file("greeting")
"""

import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from shadow.core.accounts import LOCAL_USER
from shadow.core.egress import EgressPolicy, parse_rules
from shadow.core.errors import Denied, SettingsRefused
from shadow.core.events import TaskEvent
from shadow.core.limits import Limits
from shadow.core.quota import Budgets
from shadow.core.tracing import UNTRACED, Tracer
from shadow.core.workspaces import Isolation, WorkspaceSpec
from shadow.execution import registry
from shadow.execution.interface import ToolExecutor, WorkspaceManager
from shadow.execution.sidecar_client.breaker import BreakerPolicy
from shadow.execution.sidecar_client.retries import Resilience, RetryPolicy
from shadow.settings import LogFormat, Settings, load_settings, secrets_of_environment

Watcher = Callable[[TaskEvent], None]

if TYPE_CHECKING:
    from shadow.accounts.keys import Keys
    from shadow.agent.model import Model
    from shadow.agent.providers.making import Endpoint
    from shadow.core.keys import Payer
    from shadow.core.secrets import Redactor
    from shadow.core.tasks import TaskId
    from shadow.db.database import Database
    from shadow.engine.worker import Worker
    from shadow.execution.sidecar_client.breakers import Breakers
    from shadow.scm.repositories import Repositories
    from shadow.storage.artifacts import ArtifactStore
    from shadow.tasks.service import Tasks


def make_manager(
    settings: Settings, *, isolation: Isolation | None = None, breakers: "Breakers | None" = None
) -> WorkspaceManager:
    """The manager that ``settings`` ask for. ``breakers``: its sidecars', to look at.

    Raises: Unsupported: for a mode or an isolation that this version lacks.
    """
    uids = settings.sandbox_uids
    return registry.make_manager(
        settings.mode,
        isolation or settings.isolation,
        data_dir=settings.data_dir,
        default_lease_s=settings.lease_s,
        default_egress=EgressPolicy(rules=parse_rules(settings.egress)),
        toolchain_paths=settings.toolchain_paths,
        default_limits=default_limits(settings),
        mock_plan=settings.mock_plan,
        resilience=resilience(settings),
        breakers=breakers,
        sandbox_uids=range(uids.first, uids.last + 1) if uids else None,
    )


def make_repositories(settings: Settings) -> "Repositories":
    """Where repositories come from and work goes to, as ``settings`` say. Raises: SettingsRefused."""
    from shadow.scm.access import Tokens
    from shadow.scm.filling import Identity
    from shadow.scm.repositories import Repositories

    try:
        tokens = Tokens.parse(settings.git_tokens.get_secret_value())
    except ValueError as error:
        raise SettingsRefused(f"SHADOW_GIT_TOKENS cannot be understood: {error}.") from error
    return Repositories(
        data_dir=settings.data_dir,
        tokens=tokens,
        identity=Identity(name=settings.agent_name, email=settings.agent_email),
        repository_limit_bytes=settings.repository_limit_bytes,
        delivery_limit_bytes=settings.delivery_limit_bytes,
        entropy=os.urandom,
        egress=parse_rules(settings.git_egress),
        proxy=settings.git_proxy,
        shared_hosts=settings.git_shared_hosts,
    )


def make_keys(settings: Settings, database: "Database") -> "Keys":
    """The keys of providers that users and projects have stored."""
    from shadow.accounts.keys import Keys
    from shadow.accounts.sealing import SealingKeys
    from shadow.agent.providers.trying import try_key

    return Keys(
        database=database,
        sealing=SealingKeys(
            file=settings.sealing_key_file or settings.data_dir / "sealing-keys",
            given=settings.sealing_keys.get_secret_value(),
        ),
        attempt=try_key,
        rules=parse_rules(settings.model_egress),
    )


def make_provider_model(settings: Settings, name: str, stored: "Mapping[str, Endpoint] | None" = None) -> "Model":
    """The model that ``name`` (``provider:name``) means. The provider's SDK loads in the background.

    ``stored``: in place of what the settings have. Raises: ModelNotFound, ModelKeyMissing, SettingsRefused.
    """
    from shadow.agent.providers.making import Endpoint, ModelOptions, make_model

    def endpoint(base_url: str, key: SecretStr) -> Endpoint:
        return Endpoint(base_url=base_url, key=key.get_secret_value())

    return make_model(
        name,
        endpoints=stored
        or {
            "anthropic": endpoint(settings.anthropic_base_url, settings.anthropic_api_key),
            "openai": endpoint(settings.openai_base_url, settings.openai_api_key),
            "openrouter": endpoint(settings.openrouter_base_url, settings.openrouter_api_key),
            "ollama": endpoint(settings.ollama_base_url, settings.ollama_api_key),
            "compatible": endpoint(settings.compatible_base_url, settings.compatible_api_key),
        },
        options=ModelOptions(
            context_tokens=settings.model_context_tokens,
            max_output_tokens=settings.model_output_tokens,
            reasoning=settings.model_reasoning.value if settings.model_reasoning else None,
            connect_s=settings.model_connect_s,
            silence_s=settings.model_silence_s,
        ),
    )


def default_limits(settings: Settings) -> Limits:
    """Of workspaces that ask for nothing else."""
    return Limits(
        memory_bytes=settings.limit_memory_bytes,
        processes=settings.limit_processes,
        cpus=settings.limit_cpus,
        open_files=settings.limit_open_files,
        file_size_bytes=settings.limit_file_size_bytes,
        workspace_bytes=settings.limit_workspace_bytes,
        workspace_files=settings.limit_workspace_files,
        command_time_s=settings.limit_command_time_s,
    )


def default_budgets(settings: Settings) -> Budgets:
    """Of users for whom no administrator has said anything else."""
    return Budgets(
        tokens_day=settings.budget_tokens_day,
        tokens_month=settings.budget_tokens_month,
        usd_day=settings.budget_usd_day,
        usd_month=settings.budget_usd_month,
        cpu_s_day=settings.budget_cpu_s_day,
        cpu_s_month=settings.budget_cpu_s_month,
        storage_bytes=settings.budget_storage_bytes,
    )


def resilience(settings: Settings) -> Resilience:
    """How executors meet a sidecar that does not answer."""
    return Resilience(
        retries=RetryPolicy(waits_s=settings.sidecar_retry_waits_s, jitter=settings.sidecar_retry_jitter),
        breaker=BreakerPolicy(failures=settings.sidecar_breaker_failures, open_s=settings.sidecar_breaker_open_s),
        answer_s=settings.sidecar_answer_s,
    )


@asynccontextmanager
async def open_model(
    settings: Settings, name: str | None, *, keys: "Keys | None" = None, payer: "Payer | None" = None
) -> AsyncGenerator["Model"]:
    """The model that ``name``, or else the setting, means.

    ``keys``, ``payer``: those that are stored, and on whose behalf; without them the settings' count.
    Raises: SettingsRefused: none is named; ModelNotFound, ModelKeyMissing, and others.
    """
    name = name or settings.model
    if name is None:
        raise SettingsRefused(
            "No model is chosen.",
            mend="Give --model PROVIDER:NAME (for example anthropic:claude-sonnet-5 with ANTHROPIC_API_KEY set), or set "
            "SHADOW_MODEL. Without a key: --model scripted:FILE, see docs/scripts.md.",
        )
    kind, _, rest = name.partition(":")
    async with AsyncExitStack() as stack:
        if kind == "scripted":
            from shadow.agent.scripted import open_scripted

            model = open_scripted(Path(rest))
        elif kind == "replay":
            from shadow.agent.replay import open_replay

            model = open_replay(Path(rest), redactor=make_redactor(settings))
        elif keys is None or payer is None:
            model = make_provider_model(settings, name)
        else:
            stored = await stack.enter_async_context(_stored(settings, name, keys, payer))
            model = make_provider_model(settings, name, stored)
        stack.push_async_callback(model.aclose)
        yield model


@asynccontextmanager
async def _stored(
    settings: Settings, name: str, keys: "Keys", payer: "Payer"
) -> AsyncGenerator["Mapping[str, Endpoint] | None"]:
    """What is stored for the provider of a model; ``None``: nothing is, and the settings count. Raises: ModelKeyMissing."""
    from shadow.agent.providers.making import PROVIDERS
    from shadow.core.models import ModelKeyMissing

    provider = PROVIDERS.get(name.partition(":")[0])
    if provider is None:
        yield None
        return
    async with keys.endpoint(provider.settings, payer) as endpoint:
        if endpoint is None and not settings.server_share_keys and payer.user_id != LOCAL_USER:
            raise ModelKeyMissing(
                f"There is no key of yours for {provider.title}.",
                mend=f"Store one: shadow key add {provider.settings}.",
            )
        yield None if endpoint is None else {provider.settings: endpoint}


async def check_model(
    settings: Settings, name: str | None, *, keys: "Keys | None" = None, payer: "Payer | None" = None
) -> str:
    """The full name of a model that can be asked. Raises: as ``open_model``."""
    async with open_model(settings, name, keys=keys, payer=payer) as model:
        return model.name


def make_redactor(settings: Settings, stored: Sequence[str] = ()) -> "Redactor":
    """What takes secrets out of records: those of the settings, the values of variables whose names say so, and ``stored``."""
    from shadow.core.secrets import Redactor
    from shadow.scm.access import Tokens

    values = (getattr(settings, name) for name in type(settings).model_fields)
    secrets = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    with suppress(ValueError):  # refused where they are used
        tokens = Tokens.parse(settings.git_tokens.get_secret_value())
        secrets += [credential.password for credential in tokens.by_host.values() if credential.password]
    return Redactor([*secrets, *secrets_of_environment(), *stored])


@contextmanager
def record_to(settings: Settings, path: Path, model: "Model", stored: Sequence[str] = ()) -> Generator[Watcher]:
    """What records a run as it goes, secrets removed, ``stored`` ones too. Raises: RecordingRefused, AlreadyExists, Denied."""
    from shadow.agent.recording import open_recording

    with open_recording(path, model=model, redactor=make_redactor(settings, stored)) as recorder:
        yield recorder


@asynccontextmanager
async def open_tasks(settings: Settings) -> AsyncGenerator["Tasks"]:
    """What can be asked of tasks. Raises: Denied, Broken, LimitExceeded, Unavailable: of the database."""
    from shadow.db.database import open_database
    from shadow.tasks.service import TaskLimits, Tasks

    url = settings.database_url.get_secret_value() or None
    async with open_database(settings.data_dir, url=url) as database:
        yield Tasks(
            database=database,
            shown=make_repositories(settings).shown,
            entropy=os.urandom,
            limits=TaskLimits(live_per_owner=settings.limit_tasks, budgets=default_budgets(settings)),
            host=host_name(settings.data_dir),
        )


def has_database(settings: Settings) -> bool:
    """Whether there may be tasks, without a look into it."""
    from shadow.db.engines import FILE

    return bool(settings.database_url.get_secret_value()) or (settings.data_dir / FILE).exists()


def host_name(data_dir: Path) -> str:
    """Names this host and data directory, where local workspaces are, for good. Raises: Denied."""
    path = data_dir / "host"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            new = path.with_name(f".host.{os.getpid()}")
            new.write_text(f"{socket.gethostname()}-{os.urandom(4).hex()}\n")
            with suppress(FileExistsError):  # somebody else was as fast
                os.link(new, path)
            new.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise Denied(f"{path} cannot be used: {error.strerror}.", mend="Set SHADOW_DATA_DIR.") from error


async def make_worker(
    settings: Settings,
    tasks: "Tasks",
    *,
    task_id: "TaskId | None" = None,
    manager: WorkspaceManager | None = None,
    tracer: Tracer = UNTRACED,
) -> "Worker":
    """What does the work of tasks; with ``task_id`` of that one alone. ``manager``: the one that this process has already."""
    import structlog

    from shadow.core.keys import payer_of
    from shadow.db.group import EventWriter
    from shadow.db.schedules import ensure_schedule
    from shadow.engine.identity import own_name
    from shadow.engine.worker import Worker
    from shadow.scm.people import users_identity
    from shadow.tasks.ending import CLEAN_UP_EVERY_S, CleanupPolicy
    from shadow.tasks.handlers import make_handlers
    from shadow.tasks.kinds import clean_up_of
    from shadow.tasks.workshop import Workshop

    person = await users_identity()
    keys = make_keys(settings, tasks.database)
    shop = Workshop(
        tasks=tasks,
        writer=EventWriter(tasks.database),
        manager=manager or make_manager(settings),
        repositories=make_repositories(settings),
        artifacts=open_artifacts(settings),
        open_model=lambda task: open_model(settings, task.model, keys=keys, payer=payer_of(task)),
        co_authors=[person] if person else [],
        clock=time.time,
        entropy=os.urandom,
        tracer=tracer,
    )
    policy = CleanupPolicy(
        hibernate_after_s=settings.task_hibernate_after_s,
        archive_after_s=settings.task_archive_after_s,
        delete_after_s=settings.task_delete_after_s,
        keep_record_s=None if settings.audit_keep_days is None else settings.audit_keep_days * 24 * 3600.0,
    )
    if task_id is None:
        kind = clean_up_of(tasks.host)
        async with tasks.database.write() as transaction:
            await ensure_schedule(transaction, kind, kind=kind, payload={}, every_s=CLEAN_UP_EVERY_S)
    assert tasks.host is not None
    return Worker(
        tasks.database,
        make_handlers(shop, policy),
        host=tasks.host,
        name=own_name(tasks.host),
        slots=settings.worker_slots,
        lease_s=settings.worker_lease_s,
        task_id=task_id,
        entropy=os.urandom,
        log=structlog.get_logger("shadow.engine"),
        tracer=tracer,
    )


@asynccontextmanager
async def open_tracer(settings: Settings) -> AsyncGenerator[Tracer]:
    """Nothing is traced, and nothing loaded, unless the settings ask for it. Raises: Unsupported, SettingsRefused."""
    if not settings.otel_endpoint:
        yield UNTRACED
        return
    from shadow.observability.tracing import open_tracer as opened

    headers = _headers(settings.otel_headers.get_secret_value())
    async with opened(settings.otel_endpoint, headers=headers, sample=settings.otel_sample) as tracer:
        yield tracer


def _headers(text: str) -> Mapping[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(equals and name.strip() and f"{name}{value}".isprintable() for name, equals, value in pairs):
        raise SettingsRefused("SHADOW_OTEL_HEADERS cannot be understood.", mend="Write NAME=VALUE,NAME=VALUE.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def open_artifacts(settings: Settings) -> "ArtifactStore":
    from shadow.storage.artifacts import ArtifactStore

    return ArtifactStore(settings.data_dir / "artifacts")


@asynccontextmanager
async def open_workspace(
    *,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    allow: Sequence[str] | None = None,
    isolation: Isolation | None = None,
    limits: Limits | None = None,
    settings: Settings | None = None,
) -> AsyncGenerator[ToolExecutor]:
    """A workspace for the length of a block: made, kept alive, removed.

    ``allow``: egress rules and presets, see ``shadow.core.egress``; ``None`` takes the setting. Raises: Rejected.
    """
    egress = None if allow is None else EgressPolicy(rules=parse_rules(allow))
    manager = make_manager(settings or load_settings(), isolation=isolation)
    spec = WorkspaceSpec(name=name, env=env or {}, egress=egress, limits=limits or Limits())
    async with manager.open(spec) as executor:
        yield executor


def start_logging(settings: Settings) -> None:
    """Log as the settings say. For programs; a library leaves it to its host."""
    from shadow.observability import logs  # not above: as a library, Shadow needs no structlog

    as_lines = settings.log_format is LogFormat.CONSOLE or (
        settings.log_format is LogFormat.AUTO and sys.stderr.isatty()
    )
    logs.configure(level=settings.log_level.value, json=not as_lines)
