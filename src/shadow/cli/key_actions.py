"""``shadow key …``: keys for providers, of this host's user or at a server. A key is typed or read, and never an argument."""

import getpass
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from shadow.accounts.keys import Keys
from shadow.bootstrap import make_keys, open_tasks, start_logging
from shadow.cli.outcome import DONE, WrongUsage, print_json, say
from shadow.cli.servers import check_here, chosen_url, open_server
from shadow.cli.tables import print_table
from shadow.cli.text import span
from shadow.client.keys import KeysClient
from shadow.core.accounts import LOCAL_USER, ProjectId
from shadow.core.keys import MAX_KEY_CHARS, WITHOUT_ADDRESS, KeyOwner, ProviderKey, check_provider
from shadow.settings import load_settings
from shadow.terminal.neutral import printable


class _Place(ABC):
    """Where keys are kept: here, or at a server."""

    @abstractmethod
    async def list(self) -> Sequence[ProviderKey]: ...

    @abstractmethod
    async def put(self, provider: str, key: str, *, base_url: str | None, check: bool) -> ProviderKey: ...

    @abstractmethod
    async def remove(self, provider: str) -> None: ...

    @abstractmethod
    async def test(self, provider: str) -> ProviderKey: ...


class _Here(_Place):
    def __init__(self, keys: Keys, project_id: ProjectId | None) -> None:
        self._keys = keys
        self._owner = KeyOwner(project_id=project_id) if project_id is not None else KeyOwner(user_id=LOCAL_USER)

    async def list(self) -> Sequence[ProviderKey]:
        return await self._keys.list(self._owner)

    async def put(self, provider: str, key: str, *, base_url: str | None, check: bool) -> ProviderKey:
        trusted = self._owner.project_id is None
        return await self._keys.put(
            self._owner, provider, key=key, base_url=base_url, by=LOCAL_USER, trusted=trusted, check=check
        )

    async def remove(self, provider: str) -> None:
        await self._keys.remove(self._owner, provider)

    async def test(self, provider: str) -> ProviderKey:
        return await self._keys.test(self._owner, provider, by=LOCAL_USER)


class _There(_Place):
    def __init__(self, keys: KeysClient, project_id: ProjectId | None) -> None:
        self._keys = keys
        self._project_id = project_id

    async def list(self) -> Sequence[ProviderKey]:
        return await self._keys.list(project_id=self._project_id)

    async def put(self, provider: str, key: str, *, base_url: str | None, check: bool) -> ProviderKey:
        return await self._keys.put(provider, key, base_url=base_url, project_id=self._project_id, check=check)

    async def remove(self, provider: str) -> None:
        await self._keys.remove(provider, project_id=self._project_id)

    async def test(self, provider: str) -> ProviderKey:
        return await self._keys.test(provider, project_id=self._project_id)


@asynccontextmanager
async def _open(project: str | None) -> AsyncGenerator[_Place]:
    settings = load_settings()
    start_logging(settings)
    project_id = None if project is None else ProjectId(project)
    url = chosen_url(settings)
    if url is not None:
        async with open_server(settings, url) as shadow:
            yield _There(shadow.keys, project_id)
    else:
        async with open_tasks(settings) as tasks:
            yield _Here(make_keys(settings, tasks.database), project_id)


async def add(provider: str, *, base_url: str | None, project: str | None, check: bool, as_json: bool) -> int:
    check_provider(provider)
    key = _read_key(provider).strip()
    async with _open(project) as place:
        stored = await place.put(provider, key, base_url=base_url, check=check)
    if as_json:
        print_json({"key": asdict(stored)})
    else:
        say(f"Stored{'' if check else ', and not tried'}: {provider}{_ending(stored)}.")
    return DONE


async def list_keys(*, project: str | None, as_json: bool) -> int:
    async with _open(project) as place:
        found = await place.list()
    if as_json:
        print_json({"keys": [asdict(one) for one in found]})
        return DONE
    now = time.time()
    rows = [
        (
            one.provider,
            f"…{printable(one.hint)}" if one.hint else "",
            printable(one.base_url or "its own"),
            one.added_by,
            f"{span(now - one.added_at)} ago",
        )
        for one in found
    ]
    print_table(("PROVIDER", "KEY", "AT", "BY", "STORED"), rows)
    return DONE


async def remove(provider: str, *, project: str | None, as_json: bool) -> int:
    async with _open(project) as place:
        await place.remove(provider)
    if as_json:
        print_json({"removed": provider})
    else:
        say(f"Removed: {provider}.")
    return DONE


async def test(provider: str, *, project: str | None, as_json: bool) -> int:
    async with _open(project) as place:
        stored = await place.test(provider)
    if as_json:
        print_json({"key": asdict(stored)})
    else:
        say(f"{provider} takes it{_ending(stored)}.")
    return DONE


async def rotate(*, forget_old: bool, as_json: bool) -> int:
    settings = load_settings()
    start_logging(settings)
    check_here(settings, "Rotating sealing keys")
    async with open_tasks(settings) as tasks:
        rotated = await make_keys(settings, tasks.database).rotate(forget_old=forget_old)
    if as_json:
        print_json(asdict(rotated))
    else:
        say(f"{rotated.keys} stored keys are encrypted with the sealing key {rotated.sealed_by} now.")
    return DONE


def _read_key(provider: str) -> str:
    """Raises: WrongUsage."""
    if sys.stdin.isatty():
        # Not typer's prompt, which asks before the terminal has stopped to show what is typed.
        return getpass.getpass(f"Key for {provider}: ")
    line = sys.stdin.buffer.readline(MAX_KEY_CHARS + 2)
    try:
        key = line.decode().strip()
    except UnicodeDecodeError as error:
        raise WrongUsage("What comes by stdin is no key.") from error
    if not key and provider not in WITHOUT_ADDRESS:
        raise WrongUsage(
            "There is no key on stdin.", mend=f"Type it, or send it there: shadow key add {provider} < FILE"
        )
    return key


def _ending(stored: ProviderKey) -> str:
    return f", the key that ends in {stored.hint}" if stored.hint else ""
