"""A model of a provider behind our port. Its SDK, a second of imports, loads while other things are prepared."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import aclosing
from threading import Thread
from typing import TYPE_CHECKING

from shadow.agent.model import Model
from shadow.agent.providers.making import Endpoint, ModelOptions, Provider
from shadow.core.conversation import AssistantMessage, Delta, ModelRequest
from shadow.core.models import Price

if TYPE_CHECKING:
    from shadow.agent.providers.requesting import Requesting


class ProviderModel(Model):
    """What is known of the model, and the first request, wait for the SDK.

    Raises: SettingsRefused, from there: proxies or certificates of the environment that cannot be used.
    """

    def __init__(self, provider: Provider, model: str, endpoint: Endpoint, options: ModelOptions) -> None:
        self._name = f"{provider.name}:{model}"
        self._loaded: Future[Requesting] = Future()

        def load() -> None:
            try:
                from shadow.agent.providers.requesting import Requesting

                self._loaded.set_result(Requesting(provider, model, endpoint, options))
            except Exception as error:  # noqa: BLE001 - raised again where it is waited for
                self._loaded.set_exception(error)

        # A daemon: who ends early does not wait for imports.
        Thread(target=load, name=f"load {provider.name}", daemon=True).start()

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_tokens(self) -> int:
        return self._loaded.result().facts.context_tokens

    @property
    def max_output_tokens(self) -> int:
        return self._loaded.result().facts.max_output_tokens

    @property
    def price(self) -> Price | None:
        return self._loaded.result().facts.price

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | AssistantMessage]:
        requesting = await asyncio.shield(asyncio.wrap_future(self._loaded))
        async with aclosing(requesting.stream(request)) as items:
            async for item in items:
                yield item

    async def aclose(self) -> None:
        if self._loaded.done() and self._loaded.exception() is None:
            await self._loaded.result().aclose()
