"""What the user of this host has for a remote: an entry of netrc, or what a credential helper of git has. Nobody is asked."""

import netrc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shadow.core.repositories import Credential, RemoteRepository
from shadow.scm.access import Access
from shadow.scm.git import environment, git

MAX_ANSWER_BYTES = 64 * 1024


async def users_credentials(access: Access, repository: RemoteRepository) -> Sequence[Credential]:
    """In the order in which git tries them."""
    asked = [_of_netrc(access, repository.host), await _of_helpers(access, repository)]
    return [credential for credential in asked if credential is not None]


def _of_netrc(access: Access, host: str) -> Credential | None:
    try:
        found = netrc.netrc(Path(environment(access.call).get("HOME", "/nonexistent")) / ".netrc").authenticators(host)
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError):  # what it says of itself could be a secret
        return None
    return Credential(username=found[0], password=found[2] or "") if found else None


async def _of_helpers(access: Access, repository: RemoteRepository) -> Credential | None:
    host, path = repository.url.partition("://")[2].split("/", 1)
    question = f"protocol={repository.scheme}\nhost={host}\npath={path}\n\n"
    call = replace(access.call, arguments=["credential", "fill"])
    done = await git(call, stdin=question.encode(), limit_bytes=MAX_ANSWER_BYTES, check=False)
    answer = dict(line.split("=", 1) for line in done.stdout.decode(errors="replace").splitlines() if "=" in line)
    if done.code != 0 or "username" not in answer or "password" not in answer:
        return None
    return Credential(username=answer["username"], password=answer["password"])
