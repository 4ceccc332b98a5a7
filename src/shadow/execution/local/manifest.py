"""The manifest of a local workspace: what every process of the host has to know about it, in one file."""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import cast

from shadow.core.egress import EgressPolicy
from shadow.core.egress_status import policy_from_json, policy_to_json
from shadow.core.errors import Broken, NotFound, Rejected
from shadow.core.ids import WorkspaceId, is_id
from shadow.core.limits import Limits, limits_from
from shadow.core.repositories import Checkout
from shadow.core.workspaces import Isolation
from shadow.execution.local.process import ProcessIdentity

MANIFEST = "manifest.json"
HOLDER = "holder.json"
PROXY = "proxy.json"
_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Times are seconds since 1970. Readers of one version skip the fields of a newer one."""

    id: WorkspaceId
    isolation: Isolation
    created_at: float
    lease_expires_at: float
    token: str = field(repr=False)
    epoch: int
    starter: ProcessIdentity
    """Who made or started it last."""
    name: str | None = None
    made: bool = False
    """Whether ``create`` got to its end: one that did not, and whose starter is gone, belongs to nobody."""
    ready: bool = False
    """Whether it answered since it was started last."""
    uid: int | None = None
    """The leased uid that it runs under; ``None``: the service's own."""
    tcp_port: int | None = None
    """Where it listens, if not on its unix socket."""
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    checkout: Checkout | None = None
    limits: Limits = field(default_factory=Limits)
    egress: EgressPolicy = field(default_factory=EgressPolicy)
    egress_revision: int = 0
    """Counts the changes of ``egress``: a proxy takes no older one. 0: none was ever set, and there is no proxy."""


def encode_manifest(manifest: Manifest) -> bytes:
    values = {f.name: getattr(manifest, f.name) for f in fields(manifest)}
    values["env"] = dict(manifest.env)
    values["limits"] = asdict(manifest.limits)
    values["egress"] = policy_to_json(manifest.egress)
    values["starter"] = asdict(manifest.starter)
    values["checkout"] = None if manifest.checkout is None else asdict(manifest.checkout)
    return json.dumps(values, indent=1).encode()


def decode_manifest(data: bytes) -> Manifest:
    """Raises: Broken: for anything that ``encode_manifest`` of this or a newer version does not write."""
    try:
        values: object = json.loads(data)
        if not isinstance(values, dict):
            values = {}
        return _checked(cast("dict[str, object]", values))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, Rejected) as error:
        raise Broken(
            f"The workspace's manifest is damaged: {error}.", mend="Destroy the workspace; its files are in 'files'."
        ) from error


def _checked(values: dict[str, object]) -> Manifest:
    identifier = _text(values, "id")
    if not is_id(identifier):
        raise ValueError("'id' is not an identifier")
    env = values.get("env", {})
    if not isinstance(env, dict):
        raise TypeError("'env' is not an object")
    pairs = cast("dict[object, object]", env)
    if not all(isinstance(name, str) and isinstance(value, str) for name, value in pairs.items()):
        raise TypeError("'env' holds something that is not text")
    limits = values.get("limits", {})
    if not isinstance(limits, dict):
        raise TypeError("'limits' is not an object")
    epoch = _integer(values, "epoch")
    if epoch is None:
        raise TypeError("'epoch' is missing")
    return Manifest(
        id=WorkspaceId(identifier),
        name=None if values.get("name") is None else _text(values, "name"),
        isolation=Isolation(_text(values, "isolation")),
        created_at=_number(values, "created_at"),
        lease_expires_at=_number(values, "lease_expires_at"),
        token=_text(values, "token"),
        epoch=epoch,
        made=_flag(values, "made"),
        ready=_flag(values, "ready"),
        starter=decode_identity(values["starter"]),
        uid=_integer(values, "uid"),
        tcp_port=_integer(values, "tcp_port"),
        env=cast("dict[str, str]", env),
        egress=policy_from_json(values["egress"]) if "egress" in values else EgressPolicy(),
        egress_revision=_integer(values, "egress_revision") or 0,
        limits=limits_from(cast("dict[str, object]", limits)),
        checkout=_checkout(values.get("checkout")),
    )


def _checkout(value: object) -> Checkout | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise TypeError("'checkout' is not an object")
    parts = cast("dict[str, object]", value)
    return Checkout(
        repository=_text(parts, "repository"),
        base_branch=None if parts.get("base_branch") is None else _text(parts, "base_branch"),
        base_commit=_text(parts, "base_commit"),
        branch=_text(parts, "branch"),
        depth=_integer(parts, "depth"),
    )


def _text(values: Mapping[str, object], name: str) -> str:
    value = values[name]
    if not isinstance(value, str):
        raise TypeError(f"{name!r} is not text")
    return value


def _number(values: Mapping[str, object], name: str) -> float:
    value = values[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise TypeError(f"{name!r} is not a number from 0 on")
    return float(value)


def _integer(values: Mapping[str, object], name: str) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise TypeError(f"{name!r} is not a whole number from 0 on")
    return value


def _flag(values: Mapping[str, object], name: str) -> bool:
    value = values[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name!r} is neither true nor false")
    return value


def decode_identity(value: object) -> ProcessIdentity:
    """Raises: TypeError, KeyError: where it is not what ``asdict`` of an identity gives."""
    if not isinstance(value, dict):
        raise TypeError("the identity of a process is not an object")
    parts = cast("dict[str, object]", value)
    pid, start_ticks = _integer(parts, "pid"), _integer(parts, "start_ticks")
    if not pid or start_ticks is None:
        raise TypeError("the identity of a process names none")
    return ProcessIdentity(boot_id=_text(parts, "boot_id"), pid=pid, start_ticks=start_ticks)


def read_manifest(directory_fd: int) -> Manifest:
    """Raises: NotFound: there is none. Broken: it is damaged."""
    data = _read(directory_fd, MANIFEST)
    if data is None:
        raise NotFound("The workspace has no manifest.", mend="Destroy it.")
    return decode_manifest(data)


def write_manifest(directory_fd: int, manifest: Manifest) -> None:
    """As a whole or not at all, also over a crash of the machine."""
    _write(directory_fd, MANIFEST, encode_manifest(manifest), durable=True)


def read_holder(directory_fd: int, *, name: str = HOLDER) -> ProcessIdentity | None:
    """The first process of the workspace, or with ``PROXY`` its egress proxy, as the host sees it.

    Apart from the manifest, so that damage to one spares the other.

    ``None`` where none was started, or the record is damaged.
    """
    try:
        data = _read(directory_fd, name)
        return None if data is None else decode_identity(json.loads(data))
    except (Broken, ValueError, TypeError, KeyError, RecursionError):
        return None


def write_holder(directory_fd: int, holder: ProcessIdentity, *, name: str = HOLDER) -> None:
    _write(directory_fd, name, json.dumps(asdict(holder)).encode(), durable=False)  # means nothing after a crash


def _read(directory_fd: int, name: str) -> bytes | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
        with open(fd, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Broken(
            f"The workspace's {name} cannot be read: {error.strerror}.", mend="Destroy the workspace."
        ) from error
    if len(data) > _MAX_BYTES:
        raise Broken(f"The workspace's {name} is damaged: it is too large.", mend="Destroy the workspace.")
    return data


def _write(directory_fd: int, name: str, data: bytes, *, durable: bool) -> None:
    temporary = f".{name}.{os.urandom(6).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory_fd)
        raise
