"""How the control plane reaches a repository: whose credentials, which protocols, past which guard. Secrets stay in memory.

A token is handed to git by a credential helper that reads an inherited descriptor of a file in memory: it is in no
configuration, no argument, no environment and no file. The user's own means (netrc, credential helpers, ssh keys and agents)
are left to git and ssh, which run with the user's configuration, outside of every workspace.
"""

import os
import shlex
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shadow.core.repositories import DEFAULT_PORTS, Credential, RemoteRepository, Scheme
from shadow.scm.git import Call, Runner
from shadow.scm.local_source import LocalSource

_SSH_OPTIONS = (
    "-o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 -o ForwardAgent=no"
)
_HTTP = ("http.lowSpeedLimit=1000", "http.lowSpeedTime=60", "http.followRedirects=initial")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The part of a call that has to do with the other side."""

    address: str
    """For git's command line; never begins with a dash."""
    call: Call
    upload_pack: Sequence[str] = ()
    """``--upload-pack …`` for a source that another user owns."""


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
    )


@asynccontextmanager
async def to_remote(
    repository: RemoteRepository, *, credential: Credential | None, config: Sequence[str] = (), about: str
) -> AsyncGenerator[Access]:
    """``config``: more settings, such as the proxy that guards addresses."""
    settings = [*_HTTP, *config]
    descriptor: int | None = None
    env: dict[str, str] = {}
    try:
        if repository.scheme is Scheme.SSH:
            env["GIT_SSH_COMMAND"] = f"{os.environ.get('GIT_SSH_COMMAND') or 'ssh'} {_SSH_OPTIONS}"
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
                users_config=True,
                config=settings,
                env=env,
                pass_fds=() if descriptor is None else (descriptor,),
                about=about,
            ),
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
