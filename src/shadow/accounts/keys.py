"""What can be asked of stored keys for providers of models: to keep one, to try it, to use it; and who may not see it again."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from shadow.accounts.sealing import Ring, SealingKeys
from shadow.agent.providers.making import PROVIDERS, Endpoint, Provider
from shadow.core.accounts import LOCAL_USER, UserId
from shadow.core.egress import EgressRule
from shadow.core.errors import Conflict, NotFound, Rejected
from shadow.core.keys import (
    WITHOUT_ADDRESS,
    BaseUrl,
    KeyOwner,
    Payer,
    ProviderKey,
    SealingKeyMissing,
    check_key,
    check_provider,
    hint_of,
    parse_base_url,
)
from shadow.core.outward import check_host, outward_policy
from shadow.db import keys, projects
from shadow.db.database import Database, Transaction
from shadow.db.keys import SealedKey
from shadow.egress.guard import guarded_to
from shadow.egress.resolving import Resolver, resolve_by_system

Attempt = Callable[[Provider, Endpoint], Awaitable[None]]
"""A cheap request with a key. Raises: what is wrong with it, as errors of models."""
SETTING = "SHADOW_MODEL_EGRESS"
_KEYS = 0x5AAD5
"""The lock around what encrypts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    sealed_by: str
    """Names the sealing key that everything is encrypted with now."""
    keys: int
    """How many stored keys were encrypted anew."""


@dataclass(slots=True, kw_only=True)
class Keys:
    database: Database
    sealing: SealingKeys
    attempt: Attempt
    rules: tuple[EgressRule, ...] = ()
    """The operator's: what base URLs of users may name besides public hosts."""
    resolver: Resolver = resolve_by_system
    _trying: set[str] = field(default_factory=set[str])

    # Keeping

    async def put(
        self,
        owner: KeyOwner,
        provider: str,
        *,
        key: str,
        base_url: str | None,
        by: UserId,
        trusted: bool = False,
        check: bool = True,
    ) -> ProviderKey:
        """In the place of the one that was there; first it is tried, and nothing is kept where that fails.

        ``trusted``: ``base_url`` may lead anywhere, since ``by`` may do anything on this host. ``check=False``: it is not tried.
        Raises: NotFound, Rejected, Denied; what ``attempt`` raises; SealingKeyMissing, Conflict.
        """
        check_provider(provider)
        check_key(key, provider=provider)
        if base_url is None and provider in WITHOUT_ADDRESS:
            raise Rejected(f"Where {provider!r} models are reached is not said.", mend="Give a base URL.")
        url = None if base_url is None else self._parse(base_url, trusted=trusted)
        if check:
            await self._try(PROVIDERS[provider], key, url, trusted=trusted, by=by)
        async with self.database.write() as transaction:
            await transaction.lock(_KEYS)
            if owner.project_id is not None:
                await projects.find(transaction.connection, owner.project_id, seen_by=None)
            ring = await self._ring_to_seal(transaction)
            about = ProviderKey(
                provider=provider,
                base_url=None if url is None else url.text,
                hint=hint_of(key),
                added_by=by,
                added_at=transaction.now,
            )
            await keys.put(transaction, owner, ring.seal(str(owner), about, key))
        return about

    async def list(self, owner: KeyOwner) -> Sequence[ProviderKey]:
        async with self.database.read() as connection:
            return [one.about for one in await keys.of_owners(connection, [owner])]

    async def remove(self, owner: KeyOwner, provider: str) -> None:
        """Raises: NotFound."""
        async with self.database.write() as transaction:
            if not await keys.remove(transaction, owner, provider):
                raise _no_key(provider)

    async def test(self, owner: KeyOwner, provider: str, *, by: UserId) -> ProviderKey:
        """Raises: NotFound; what ``attempt`` raises; SealingKeyMissing, Broken, Conflict."""
        found = await self._find([owner], provider)
        if found is None:
            raise _no_key(provider)
        sealed, key = found
        trusted = _is_trusted(sealed)
        url = None if sealed.about.base_url is None else self._parse(sealed.about.base_url, trusted=trusted)
        await self._try(PROVIDERS[provider], key, url, trusted=trusted, by=by)
        return sealed.about

    # Using

    @asynccontextmanager
    async def endpoint(self, provider: str, payer: Payer) -> AsyncGenerator[Endpoint | None]:
        """With the key that counts, for the length of the block; ``None``: nobody has stored one.

        Raises: SealingKeyMissing, Broken, Rejected, Denied, Unavailable: it cannot be used.
        """
        found = await self._find(payer.owners, provider)
        if found is None:
            yield None
            return
        sealed, key = found
        trusted = _is_trusted(sealed)
        url = None if sealed.about.base_url is None else self._parse(sealed.about.base_url, trusted=trusted)
        async with self._reached(key, url, trusted=trusted) as endpoint:
            yield endpoint

    async def secrets(self, payer: Payer) -> Sequence[str]:
        """Every key that may be used on somebody's behalf, to be kept out of records."""
        async with self.database.read() as connection:
            found = await keys.of_owners(connection, payer.owners)
        ring = self.sealing.ring()
        return [ring.open(one) for one in found]

    # Encrypting anew

    async def rotate(self, *, forget_old: bool = False) -> Rotated:
        """A new sealing key, and everything that is stored encrypted with it; servers may run meanwhile.

        ``forget_old``: backups from before can be opened no more. Raises: SealingKeyMissing, Broken, Conflict, Denied.
        """
        if forget_old:
            self.sealing.check_file()
        async with self.database.write() as transaction:
            await transaction.lock(_KEYS)
            stored = await keys.all_of(transaction.connection)
            before = self.sealing.ring()
            opened = [(one, before.open(one)) for one in stored]
            ring = self.sealing.renewed()
            for one, key in opened:
                await keys.reseal(transaction, ring.seal(one.owner, one.about, key))
        if forget_old:
            async with self.database.write() as transaction:
                await transaction.lock(_KEYS)
                Ring(keys=self.sealing.ring().keys[:1]).check(sorted(await keys.sealers(transaction.connection)))
                self.sealing.forget_old()
        return Rotated(sealed_by=ring.names[0], keys=len(opened))

    # Inside

    async def _ring_to_seal(self, transaction: Transaction) -> Ring:
        """Raises: SealingKeyMissing: rows are there that nobody here can open; no new key is made beside them."""
        sealers = sorted(await keys.sealers(transaction.connection))
        ring = self.sealing.ring() if sealers else self.sealing.made()
        ring.check(sealers)
        return ring

    async def _find(self, owners: Sequence[KeyOwner], provider: str) -> tuple[SealedKey, str] | None:
        """Of the first owner that has one."""
        for is_last in (False, True):
            async with self.database.read() as connection:
                found = {one.owner: one for one in await keys.of_owners(connection, owners, provider=provider)}
            chosen = next((found[str(owner)] for owner in owners if str(owner) in found), None)
            if chosen is None:
                return None
            try:
                return chosen, self.sealing.ring().open(chosen)
            except SealingKeyMissing:
                if is_last:
                    raise
                # It may have been encrypted anew, and the old sealing key forgotten, between the two looks.
        raise AssertionError

    def _parse(self, text: str, *, trusted: bool) -> BaseUrl:
        url = parse_base_url(text, named=self.rules, may_be_plain=trusted)
        if not trusted:
            check_host(outward_policy(self.rules), url.host, url.port, setting=SETTING)
        return url

    async def _try(self, provider: Provider, key: str, url: BaseUrl | None, *, trusted: bool, by: UserId) -> None:
        with self._one_at_a_time(by):
            async with self._reached(key, url, trusted=trusted) as endpoint:
                await self.attempt(provider, endpoint)

    @contextmanager
    def _one_at_a_time(self, by: UserId) -> Generator[None]:
        """So that a server makes no more requests for a user than they wait for themselves."""
        if by in self._trying:
            raise Conflict("Another key of yours is being tried.", mend="Wait for it.")
        self._trying.add(by)
        try:
            yield
        finally:
            self._trying.discard(by)

    @asynccontextmanager
    async def _reached(self, key: str, url: BaseUrl | None, *, trusted: bool) -> AsyncGenerator[Endpoint]:
        """Past the guard where a user said where it is; a provider's own address is ours."""
        text = None if url is None else url.text
        if url is None or trusted:
            yield Endpoint(base_url=text, key=key, is_stored=True)
            return
        async with guarded_to(outward_policy(self.rules), url.host, url.port, resolver=self.resolver) as proxy:
            yield Endpoint(base_url=text, key=key, is_stored=True, proxy=proxy)


def _is_trusted(sealed: SealedKey) -> bool:
    return sealed.owner == str(KeyOwner(user_id=LOCAL_USER))


def _no_key(provider: str) -> NotFound:
    return NotFound(f"There is no key for {provider[:50]!r}.", mend="`shadow key list` shows those there are.")
