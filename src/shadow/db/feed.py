"""Telling readers that something was written: inside this process at once, from other processes as soon as the database says so.

A subscription holds few events, or only the fact that there may be some: a slow reader costs a writer nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress

from shadow.core.errors import ShadowError
from shadow.core.events import Recorded

SAFETY_NET_S = 2.0
"""After so long who listens looks for all readers whether their logs have grown, whatever was told."""
READER_LOOKS_S = 60.0
"""A reader looks by itself after so long, whatever has become of who listens."""
LISTEN_AGAIN_S = 0.2
HELD = 256
"""So many events of this process a subscription takes along; beyond that its reader looks for them."""


class Subscription:
    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._held: list[Recorded] = []
        self._must_look = False
        self.stands_at: int | None = None
        """Where its reader stands in the one log that it reads; ``None``: it reads none, and is told of everything."""

    def tell(self, recorded: Sequence[Recorded] = ()) -> None:
        """``recorded``: what was written, where that is known."""
        if not recorded or len(self._held) + len(recorded) > HELD:
            self._must_look = True
        if self._must_look or self.stands_at is None:
            self._held.clear()
        else:
            self._held += recorded
        self._news.set()

    def knows(self, end: int) -> bool:
        """Whether a log that ends at ``end`` has nothing that it was not told of."""
        last = self._held[-1].seq if self._held else self.stands_at
        return last is not None and last >= end

    async def wait(self, timeout_s: float = SAFETY_NET_S) -> None:
        """Until something may have been written since the last ``wait`` returned, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            self._must_look = True
        self._news.clear()

    def take(self, after: int) -> Sequence[Recorded] | None:
        """What follows number ``after`` without a gap, as far as it was told. ``None``: there may be more, to be looked for."""
        taken: list[Recorded] = []
        missed = self._must_look
        for recorded in self._held:
            if recorded.seq == after + 1:
                taken.append(recorded)
                after += 1
            elif recorded.seq > after:
                missed = True  # in between is what others wrote
                break
        self._held.clear()
        self._must_look = False
        if missed and taken:
            self._must_look = True
            self._news.set()  # the next time
        return None if missed and not taken else taken


def _reads_a_log(subscription: Subscription) -> bool:
    return subscription.stands_at is not None


Listen = Callable[["Feed"], Awaitable[None]]


class Feed:
    """``listen`` runs while anybody subscribes: it tells what other processes wrote."""

    def __init__(self, listen: Listen | None) -> None:
        self._listen = listen
        self._listening: asyncio.Task[None] | None = None
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._watching: list[Callable[[Sequence[Recorded]], None]] = []

    @contextmanager
    def subscribe(self, *topics: str) -> Generator[Subscription]:
        """``topics``: ids of tasks, or others that transactions tell."""
        subscription = Subscription()
        for topic in topics:
            self._subscriptions.setdefault(topic, set()).add(subscription)
        if self._listen is not None and (self._listening is None or self._listening.done()):
            self._listening = asyncio.create_task(self._keep_listening(self._listen))
        try:
            yield subscription
        finally:
            for topic in set(topics):
                left = self._subscriptions[topic]
                left.discard(subscription)
                if not left:
                    del self._subscriptions[topic]

    def watch(self, told: Callable[[Sequence[Recorded]], None]) -> None:
        """``told`` gets the events that this process writes, of any log, once they are kept; for counting."""
        self._watching.append(told)

    def tell(self, topics: Iterable[str]) -> None:
        self.tell_of(dict.fromkeys(topics, ()))

    def tell_of(self, news: Mapping[str, Sequence[Recorded]]) -> None:
        """Of topics with the events that were written, where they are known."""
        for topic, recorded in news.items():
            for subscription in self._subscriptions.get(topic, ()):
                subscription.tell(recorded)
            if recorded:
                for told in self._watching:
                    told(recorded)

    def tell_all(self) -> None:
        self.tell(self.topics)

    def tell_behind(self, topic: str, end: int | None) -> None:
        """Those who do not know of all up to ``end``. ``None``: there is no such log, or no more."""
        for subscription in self._subscriptions.get(topic, ()):
            if end is None or not subscription.knows(end):
                subscription.tell()

    @property
    def topics(self) -> Sequence[str]:
        return list(self._subscriptions)

    @property
    def logs(self) -> Sequence[str]:
        """Topics that are logs somebody reads."""
        return [topic for topic, of_topic in self._subscriptions.items() if any(map(_reads_a_log, of_topic))]

    @property
    def readers(self) -> int:
        """Subscriptions, each as often as it has topics."""
        return sum(len(of_topic) for of_topic in self._subscriptions.values())

    @property
    def is_read(self) -> bool:
        return bool(self._subscriptions)

    async def aclose(self) -> None:
        if (listening := self._listening) is not None:
            self._listening = None
            listening.cancel()
            await asyncio.wait({listening})  # whoever is cancelled meanwhile is told so
            if not listening.cancelled():
                listening.result()

    async def _keep_listening(self, listen: Listen) -> None:
        while self.is_read:
            # Whatever ends it: readers look by themselves until there is another connection, and meet the cause there.
            with suppress(ShadowError):
                await listen(self)
            self.tell_all()
            if self.is_read:
                await asyncio.sleep(LISTEN_AGAIN_S)
