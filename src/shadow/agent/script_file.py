"""The file of a script: what a scripted model says, step by step, read and checked. ``docs/scripts.md`` explains it."""

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from shadow.core.errors import Rejected

MAX_BYTES = 4 * 1024 * 1024


class ScriptRefused(Rejected):
    """``details["line"]`` and ``details["field"]``: where in the file, if it is about one place."""

    code = "script_refused"


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


def _arguments(value: JsonValue) -> JsonValue:
    if not isinstance(value, dict | str):
        # pydantic collects ValueError alone
        raise ValueError("write a mapping, or a text that is sent as it is")  # noqa: TRY004
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise ValueError("JSON has no infinite numbers") from error
    return value


def _unknown_price(value: object) -> object:
    return None if value == "unknown" else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Expectation(_Part):
    """What the answer of a call must be like."""

    contains: Texts = ()
    lacks: Texts = ()
    matches: Annotated[str, AfterValidator(_pattern)] | None = None
    exit_code: int | None = None
    is_error: bool | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("expect something: contains, lacks, matches, exit_code or is_error")
        return self


class ScriptedCall(_Part):
    tool: str = Field(min_length=1)
    arguments: Annotated[JsonValue, AfterValidator(_arguments)] = Field(default_factory=dict)
    expect: Expectation | None = None


class FaultKind(StrEnum):
    RATE_LIMIT = "rate_limit"
    OVERLOADED = "overloaded"
    CUT = "cut"
    """Half of the answer is sent, then the connection breaks."""
    QUOTA = "quota"
    KEY_REFUSED = "key_refused"
    CONTEXT_TOO_LONG = "context_too_long"
    CONTENT_REFUSED = "content_refused"


class Fault(_Part):
    """What goes wrong ``times`` times before the step is said."""

    kind: FaultKind
    times: int = Field(default=1, ge=1, le=1000)
    retry_after_s: Seconds | None = None


class Tokens(_Part):
    """As ``Usage`` has them: what is cached is part of ``input``."""

    input: int = Field(default=0, ge=0)
    output: int = Field(default=0, ge=0)
    cache_read: int = Field(default=0, ge=0)
    cache_write: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _cached_is_a_part(self) -> Self:
        if self.cache_read + self.cache_write > self.input:
            raise ValueError("cache_read and cache_write are part of input, and cannot be more")
        return self


class Step(_Part):
    """One answer of the model."""

    reasoning: str = ""
    text: str = ""
    calls: tuple[ScriptedCall, ...] = ()
    fault: Fault | None = None
    delay_s: Seconds = 0.0
    tokens: Tokens = Tokens()
    finish: Literal["length", "refused"] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set & {"reasoning", "text", "calls", "fault"}:
            raise ValueError('a step has text, reasoning, calls or a fault (an empty answer is written as text: "")')
        return self


class ScriptedPrice(_Part):
    """US dollars for a million tokens."""

    input: Decimal = Field(ge=0, allow_inf_nan=False)
    output: Decimal = Field(ge=0, allow_inf_nan=False)
    cache_read: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] | None = None
    cache_write: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] | None = None


class Facts(_Part):
    """What the scripted model says of itself."""

    context_tokens: int = Field(default=200_000, ge=1)
    max_output_tokens: int = Field(default=8_192, ge=1)
    price: Annotated[ScriptedPrice | None, BeforeValidator(_unknown_price)] = ScriptedPrice(
        input=Decimal(0), output=Decimal(0)
    )
    pace_s: Seconds = 0.0
    """Between the pieces of an answer."""


class Script(_Part):
    version: Literal[1]
    model: Facts = Facts()
    steps: tuple[Step, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class ScriptFile:
    path: Path
    script: Script
    _root: yaml.Node

    def line(self, *location: str | int) -> int:
        """Where a field stands, from 1."""
        return _place(self._root, location)[0]


class _Loader(yaml.SafeLoader):
    """YAML with the types of JSON: what looks like a date stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_script(path: Path) -> ScriptFile:
    """Raises: ScriptRefused: with the line and the field that is wrong."""
    root, value = _parsed(path, _read(path))
    try:
        return ScriptFile(path, Script.model_validate(value), root)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        line, field = _place(root, fault["loc"])
        if fault["type"] == "missing":
            field = f"{field}.{fault['loc'][-1]}".lstrip(".")
        message = fault["msg"].removeprefix("Value error, ")
        raise _refused(path, f"{message[:1].lower()}{message[1:]}", line=line, field=field) from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise _refused(path, f"larger than {MAX_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _refused(path, f"not UTF-8: {error.reason} at byte {error.start}") from error


def _parsed(path: Path, text: str) -> tuple[yaml.Node, Any]:
    loader: Any = None
    try:
        loader = _Loader(text)
        root: yaml.Node | None = loader.get_single_node()
        if root is None:
            raise _refused(path, "the file is empty", line=1)
        _check_nodes(path, root, set())
        return root, loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise _refused(path, error.problem or "not YAML", line=1 if mark is None else mark.line + 1) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # characters, numbers, depths that nobody can read
        raise _refused(path, f"not YAML: {str(error) or 'too deep'}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _check_nodes(path: Path, node: yaml.Node, seen: set[int]) -> None:
    if id(node) in seen:
        raise _refused(path, "anchors and aliases are not taken: write it out", line=node.start_mark.line + 1)
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in keys:
                raise _refused(path, "this is there twice", line=key.start_mark.line + 1, field=name)
            keys.add(name)
            _check_nodes(path, value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_nodes(path, value, seen)


def _place(node: yaml.Node, location: tuple[str | int, ...]) -> tuple[int, str]:
    """The line of a field and its name; parts of ``location`` that the file does not have are passed over."""
    line, field = node.start_mark.line + 1, ""
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, field, node = key.start_mark.line + 1, f"{field}.{part}".lstrip("."), value
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line, field = node.start_mark.line + 1, f"{field}[{part}]"
    return line, field


def _refused(path: Path, what: str, *, line: int | None = None, field: str = "") -> ScriptRefused:
    place = str(path) if line is None else f"{path}:{line}"
    details: dict[str, object] = {} if line is None else {"line": line, "field": field}
    return ScriptRefused(
        f"{place}: {f'{field}: ' if field else ''}{what}.", mend="docs/scripts.md has examples.", details=details
    )
