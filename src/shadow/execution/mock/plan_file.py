"""The YAML form of a plan, read and checked. ``docs/mock.md`` explains it."""

import signal as signals
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from shadow.core.commands import Channel
from shadow.core.errors import Rejected, ShadowError, Unavailable, type_by_code
from shadow.execution.mock.latency import Exponential, Latency, LogNormal, Uniform
from shadow.execution.mock.plan import (
    ANY,
    DEFAULT_BYTES,
    DEFAULT_ENTRIES,
    Chunk,
    Fault,
    MockCommand,
    MockPlan,
    PodEnd,
    PodEvent,
    PodFailure,
    PodPlan,
    StreamCut,
)

MAX_BYTES = 4 * 1024 * 1024

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class MockPlanRefused(Rejected):
    """``details["field"]``: where in the file, if it is about one place."""

    code = "mock_plan_refused"


def _signal(value: object) -> object:
    return signals.Signals[value].value if isinstance(value, str) and value in signals.Signals.__members__ else value


Signal = Annotated[int, BeforeValidator(_signal), Field(ge=1, le=64)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Distribution(_Part):
    uniform: tuple[Seconds, Seconds] | None = None
    exponential: Seconds | None = None
    lognormal: tuple[Seconds, Seconds] | None = None
    """Median and sigma."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("write one of uniform, exponential and lognormal")
        return self

    def latency(self) -> Latency:
        if self.uniform is not None:
            return Uniform(*self.uniform)
        if self.lognormal is not None:
            return LogNormal(*self.lognormal)
        return Exponential(self.exponential or 0.0)


_Latency = Seconds | _Distribution


def _latency(value: _Latency) -> Latency:
    return value.latency() if isinstance(value, _Distribution) else value


class _Counted(_Part):
    operation: str = ANY
    probability: float = Field(default=1.0, ge=0, le=1)
    skip: int = Field(default=0, ge=0)
    count: Count | None = 1


class _Fault(_Counted):
    error: str = Unavailable.code
    message: str = "The mock's plan says that this call fails."
    done: bool = False

    def value(self) -> Fault:
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "error"}
        return Fault(error=self._type(), **values)

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        self._type()
        return self

    def _type(self) -> type[ShadowError]:
        if self.error not in type_by_code:
            raise ValueError(f"there is no error {self.error!r}; write a code such as unavailable or outcome_unknown")
        return type_by_code[self.error]


class _Cut(_Counted):
    after_bytes: int = Field(default=0, ge=0)
    resumes: bool = True
    away_s: Seconds = 1.0

    def value(self) -> StreamCut:
        return StreamCut(**{name: getattr(self, name) for name in type(self).model_fields})


class _Chunk(_Part):
    data: str
    channel: Literal["stdout", "stderr"] = "stdout"
    after: _Latency = 0.0

    def value(self) -> Chunk:
        return Chunk(data=self.data.encode(), channel=Channel[self.channel.upper()], after=_latency(self.after))


class _Command(_Part):
    pattern: str
    stdout: str = ""
    stderr: str = ""
    chunks: tuple[_Chunk, ...] = ()
    latency: _Latency = 0.0
    exit_code: int = Field(default=0, ge=0, le=255)
    signal: Signal | None = None
    files: dict[str, str | None] = Field(default_factory=dict)
    ignores: frozenset[Signal] = frozenset()
    times: Count | None = None

    def value(self) -> MockCommand:
        return MockCommand(
            pattern=self.pattern,
            stdout=self.stdout.encode(),
            stderr=self.stderr.encode(),
            chunks=tuple(chunk.value() for chunk in self.chunks),
            latency=_latency(self.latency),
            exit_code=self.exit_code,
            signal=self.signal,
            files={name: None if content is None else content.encode() for name, content in self.files.items()},
            ignores=self.ignores,
            times=self.times,
        )


class _Event(_Part):
    what: PodEnd
    after_s: Seconds


class _Pod(_Part):
    pending: _Latency = 0.0
    pulling: _Latency = 0.0
    starting: _Latency = 0.0
    failure: PodFailure | None = None
    give_up_s: Seconds = 300.0
    events: tuple[_Event, ...] = ()
    restart: _Latency = 5.0

    def value(self) -> PodPlan:
        return PodPlan(
            pending=_latency(self.pending),
            pulling=_latency(self.pulling),
            starting=_latency(self.starting),
            failure=self.failure,
            give_up_s=self.give_up_s,
            events=tuple(PodEvent(what=event.what, after_s=event.after_s) for event in self.events),
            restart=_latency(self.restart),
        )


class _Plan(_Part):
    seed: int = 0
    latency: dict[str, _Latency] = Field(default_factory=dict)
    faults: tuple[_Fault, ...] = ()
    cuts: tuple[_Cut, ...] = ()
    commands: tuple[_Command, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)
    pods: tuple[_Pod, ...] = ()
    pod: _Pod = Field(default_factory=_Pod)
    limit_bytes: Count = DEFAULT_BYTES
    limit_entries: Count = DEFAULT_ENTRIES

    def value(self) -> MockPlan:
        return MockPlan(
            seed=self.seed,
            latency={name: _latency(latency) for name, latency in self.latency.items()},
            faults=tuple(fault.value() for fault in self.faults),
            cuts=tuple(cut.value() for cut in self.cuts),
            commands=tuple(command.value() for command in self.commands),
            files={name: content.encode() for name, content in self.files.items()},
            pods=tuple(pod.value() for pod in self.pods),
            pod=self.pod.value(),
            limit_bytes=self.limit_bytes,
            limit_entries=self.limit_entries,
        )


def load_plan(path: Path) -> MockPlan:
    """Raises: MockPlanRefused."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MockPlanRefused(f"The mock's plan {str(path)!r} cannot be read: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise MockPlanRefused(f"The mock's plan {str(path)!r} is larger than {MAX_BYTES} bytes.")
    return parse_plan(content)


def parse_plan(content: bytes | str) -> MockPlan:
    """Raises: MockPlanRefused."""
    try:
        document: object = yaml.safe_load(content)
        return _Plan.model_validate({} if document is None else document).value()
    except yaml.YAMLError as error:
        raise MockPlanRefused(f"The mock's plan is no YAML: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise MockPlanRefused(
            f"The mock's plan cannot be taken: {where}: {first['msg']}.", details={"field": where}
        ) from error
    except MockPlanRefused:
        raise
    except Rejected as error:
        raise MockPlanRefused(f"The mock's plan cannot be taken: {error.message}", mend=error.mend) from error
