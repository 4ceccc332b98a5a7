"""How the control plane reaches a repository: whose credentials, which protocols, past which guard. Secrets stay in memory.

A token is handed to git by a credential helper that reads an inherited descriptor of a file in memory: it is in no
configuration, no argument, no environment and no file. The user's own means (netrc, credential helpers, ssh keys and agents)
are left to git and ssh, which run with the user's configuration, outside of every workspace; whose they are not gets neither
(``owners.py``).
"""

import asyncio
import os
import shlex
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from shadow.core.egress import EgressLimits, EgressPolicy, EgressRule
from shadow.core.outward import outward_policy
from shadow.core.repositories import DEFAULT_PORTS, Credential, RemoteRepository, Scheme, is_address
from shadow.egress.guard import guarding_proxy
from shadow.egress.resolving import checked_addresses, resolve_by_system
from shadow.scm.failures import HOST_UNKNOWN_MEND, HostUnknown, RemoteUnreachable
from shadow.scm.git import AUTHORITIES, Call, Runner
from shadow.scm.local_source import LocalSource

_SSH_OPTIONS = (
    "-o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 -o ForwardAgent=no"
)
RESOLVE_S = 5.0
_HTTP = ("http.lowSpeedLimit=1000", "http.lowSpeedTime=60", "http.followRedirects=initial")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The part of a call that has to do with the other side."""

    address: str
    """For git's command line; never begins with a dash."""
    call: Call
    upload_pack: Sequence[str] = ()
    """``--upload-pack …`` for a source that another user owns."""
    local: LocalSource | None = None
    """Where the other side is a directory of this host."""
    remote: RemoteRepository | None = None
    """Where it is not: as its user named it."""
    credential: Credential | None = None
    """For the remote's host alone; ``None``: what the user's own means have for it."""
    proxy: str | None = field(default=None, repr=False)
    """Through which whatever speaks HTTP to the remote, or to where it leads, must go. Holds a credential."""


def credential_for(repository: RemoteRepository, tokens: Mapping[str, Credential]) -> Credential | None:
    """What the address had in it, else the setting's for its host. Nothing goes unencrypted to another machine."""
    if repository.scheme is Scheme.SSH or (repository.scheme is Scheme.HTTP and not repository.is_loopback):
        return None
    with_port = f"{repository.host}:{repository.port}"
    return repository.credential or tokens.get(with_port) or tokens.get(repository.host)


def to_local(source: LocalSource, *, about: str) -> Access:
    """git's upload-pack is made to serve directories that it does not trust; it runs with the rights of their owner."""
    runner = Runner.as_owner_of(source.common_dir)
    serve = shlex.join([*runner.prefix, "git-upload-pack"]) if runner.prefix else None
    return Access(
        address=str(source.path),
        call=Call(arguments=(), protocols=("file",), users_config=not runner.prefix, about=about),
        upload_pack=("--upload-pack", serve) if serve else (),
        local=source,
    )


def guard_policy(
    repository: RemoteRepository, *, trusted: bool, rules: Sequence[EgressRule], limit_bytes: int
) -> EgressPolicy:
    """Every public host, what ``rules`` name, and, if it is ``trusted``, the repository's host wherever it is.

    Redirects and what a server names (of large files, say) go by the same policy, and all of it together by ``limit_bytes``.
    A host of ssh serves large files by https.
    """
    named: list[str] = []
    if trusted:
        host = f"[{repository.host}]" if ":" in repository.host else repository.host
        itself = is_address(repository.host) or repository.host == "localhost"
        ports = f"{repository.port},443" if repository.scheme is Scheme.SSH else f"{repository.port}"
        named = [f"{'' if itself else 'private:'}{host}:{ports}"]
    return outward_policy(rules, named=named, limits=EgressLimits(total_bytes=limit_bytes))


@asynccontextmanager
async def to_remote(
    repository: RemoteRepository,
    *,
    credential: Credential | None,
    users_means: bool,
    policy: EgressPolicy,
    proxy: str | None,
    about: str,
) -> AsyncGenerator[Access]:
    """``users_means``: with what the user of this host has, where there is no ``credential``. ``policy``: which addresses it may
    lead to. ``proxy``: of the host's own network; then that one judges addresses.

    Raises: Denied: the host of an ssh address is not allowed. HostUnknown: there is none of that name. Unavailable: it does
    not resolve.
    """
    try:
        ssh = await _pinned(repository, policy) if repository.scheme is Scheme.SSH else ""
        async with (
            guarding_proxy(policy) if proxy is None else nullcontext(proxy) as through,
            _reaching(repository, credential, through, about, ssh=ssh, users_means=users_means) as access,
        ):
            yield access
    except RemoteUnreachable:
        if proxy is None and repository.scheme is not Scheme.SSH:  # an alias of ssh's configuration is no name
            await _check_name(repository.host, about)
        raise


async def _check_name(host: str, about: str) -> None:
    """git only says that its tunnel failed. Raises: HostUnknown."""
    try:
        async with asyncio.timeout(RESOLVE_S):
            await resolve_by_system(host)
    except TimeoutError:
        return
    except OSError as error:
        if error.errno == socket.EAI_NONAME:
            raise HostUnknown(f"{about} failed: there is no host {host!r}.", mend=HOST_UNKNOWN_MEND) from error


async def _pinned(repository: RemoteRepository, policy: EgressPolicy) -> str:
    """Options for ssh: the address that was judged, under the name that its key belongs to.

    A host that a rule names may be an alias in the user's ssh configuration, which only ssh can resolve.
    """
    if any(rule.private and rule.host == repository.host for rule in policy.rules):
        return ""
    address = (await checked_addresses(policy, repository.host, repository.port))[0]
    if is_address(repository.host):
        return ""
    standard = repository.port == DEFAULT_PORTS[Scheme.SSH]
    key = repository.host if standard else f"[{repository.host}]:{repository.port}"
    return f" -o HostName={address} -o HostKeyAlias={key}"


@asynccontextmanager
async def _reaching(
    repository: RemoteRepository,
    credential: Credential | None,
    proxy: str,
    about: str,
    *,
    ssh: str,
    users_means: bool,
) -> AsyncGenerator[Access]:
    settings = [*_HTTP, f"http.proxy={proxy}"]
    descriptor: int | None = None
    env = {name: os.environ[name] for name in AUTHORITIES if name in os.environ}
    try:
        if repository.scheme is Scheme.SSH:
            env["GIT_SSH_COMMAND"] = f"{os.environ.get('GIT_SSH_COMMAND') or 'ssh'} {_SSH_OPTIONS}{ssh}"
        elif credential is not None:
            descriptor = _in_memory(credential)
            # Other helpers are asked for nothing: they might store what they are told.
            # Ours answers for this host alone, wherever a redirect may lead.
            settings += ["credential.helper=", f"{_helper(repository)}=!cat /proc/self/fd/{descriptor} #"]
        yield Access(
            address=repository.url,
            call=Call(
                arguments=(),
                protocols=(repository.scheme.value,),
                users_config=users_means,
                config=settings,
                env=env,
                pass_fds=() if descriptor is None else (descriptor,),
                about=about,
            ),
            remote=repository,
            credential=credential,
            proxy=proxy,
        )
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _helper(repository: RemoteRepository) -> str:
    host = f"[{repository.host}]" if ":" in repository.host else repository.host
    port = "" if repository.port == DEFAULT_PORTS[repository.scheme] else f":{repository.port}"
    return f"credential.{repository.scheme}://{host}{port}.helper"


def _in_memory(credential: Credential) -> int:
    descriptor = os.memfd_create("credential", os.MFD_CLOEXEC)
    os.write(descriptor, f"username={credential.username}\npassword={credential.password}\n".encode())
    return descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Credentials by host, or by ``host:port``."""

    by_host: Mapping[str, Credential] = field(default_factory=dict[str, Credential], repr=False)

    @staticmethod
    def parse(text: str) -> "Tokens":
        """``HOST=TOKEN,HOST=USER:TOKEN``. Raises: ValueError."""
        found: dict[str, Credential] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            host, equals, secret = part.partition("=")
            if not (host and equals and secret and part.isprintable()):
                raise ValueError("write HOST=TOKEN, several parted by commas")
            user, colon, token = secret.partition(":")
            found[host.lower()] = (
                Credential(username=user, password=token)
                if colon
                else Credential(username="x-access-token", password=secret)
            )
        return Tokens(by_host=found)
