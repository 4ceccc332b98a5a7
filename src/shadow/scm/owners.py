"""For whom a repository is reached, and with what of this host: its own user's credentials are not everybody's."""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from shadow.core.accounts import LOCAL_USER
from shadow.core.errors import Denied
from shadow.core.repositories import RemoteRepository, Repository, Scheme
from shadow.scm.failures import CredentialsWanted

ALL_HOSTS = "*"
_MEND = (
    "Put one of your own into the address (https://USER:TOKEN@HOST/PATH), or ask whoever runs the server: "
    "SHADOW_GIT_SHARED_HOSTS."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Of what is fetched; mirrors are never shared between two."""

    id: str = LOCAL_USER
    is_host_user: bool = True
    """Whether this host is theirs: its paths, its network, and what its user has for remotes."""


HOST_USER = Owner()


def may_use_means(owner: Owner, repository: RemoteRepository, shared_hosts: Collection[str]) -> bool:
    """Whether it is reached with what this host has: SHADOW_GIT_TOKENS, netrc, credential helpers, ssh keys."""
    named = {ALL_HOSTS, repository.host, f"{repository.host}:{repository.port}"}
    return owner.is_host_user or not named.isdisjoint(shared_hosts)


def check_reach(owner: Owner, repository: Repository, shared_hosts: Collection[str]) -> None:
    """What can be known before anybody is asked. Raises: Denied."""
    if not isinstance(repository, RemoteRepository):
        if not owner.is_host_user:
            raise Denied("Paths of the server are for its own user.", mend="Give an https:// address.")
    elif repository.scheme is Scheme.SSH and not may_use_means(owner, repository, shared_hosts):
        raise Denied(
            f"The server's ssh keys are for its own user, and nobody else reaches {repository.host} with them.",
            mend=f"Use https. {_MEND}",
            details={"host": repository.host},
        )


@contextmanager
def explained(owner: Owner, repository: RemoteRepository, shared_hosts: Collection[str]) -> Generator[None]:
    """Whoever is refused without the server's means is told why they were not used."""
    try:
        yield
    except CredentialsWanted as error:
        if repository.credential is not None or may_use_means(owner, repository, shared_hosts):
            raise
        raise CredentialsWanted(
            f"{error.message.rstrip('.')}. The server's own credentials for {repository.host} are not for everybody.",
            mend=_MEND,
            details={"host": repository.host},
        ) from error
