"""Routes of models: which providers there are and can be asked, and what is known of a model. Loads no SDK."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.requests import Request

from shadow.agent.providers.making import PROVIDERS, ModelOptions, Provider, named
from shadow.core.accounts import Scope
from shadow.http.requests import read_query
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.settings import Settings, variable_name
from shadow.wire.models import ModelListMessage, ModelMessage, ModelQuery, PriceMessage, ProviderMessage

if TYPE_CHECKING:
    from shadow.agent.providers.facts import Facts


class ModelRoutes:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "GET",
                "/v1/models",
                self.list,
                summary="The providers of models, and the model that tasks take by default.",
                answer=ModelListMessage,
                access=Scope.TASKS_READ,
            ),
            ApiRoute(
                "GET",
                "/v1/models/about",
                self.about,
                summary="What is known of a model: its context and its price.",
                query=ModelQuery,
                answer=ModelMessage,
                access=Scope.TASKS_READ,
            ),
        ]

    async def list(self, request: Request) -> Answer:
        providers = tuple(
            ProviderMessage(
                name=provider.name,
                title=provider.title,
                example=provider.example,
                can_be_asked=(lacks := what_lacks(self._settings, provider)) is None,
                lacks=lacks,
            )
            for provider in PROVIDERS.values()
        )
        return message_answer(ModelListMessage(default=self._settings.model, providers=providers))

    async def about(self, request: Request) -> Answer:
        provider, model = named(read_query(request, ModelQuery).name)
        options = ModelOptions(context_tokens=self._settings.model_context_tokens)
        facts = await asyncio.to_thread(_facts, provider, model, options)
        lacks = what_lacks(self._settings, provider)
        return message_answer(
            ModelMessage(
                name=f"{provider.name}:{model}",
                provider=provider.name,
                can_be_asked=lacks is None,
                lacks=lacks,
                context_tokens=facts.context_tokens,
                price=None if facts.price is None else PriceMessage.of(facts.price),
            )
        )


def what_lacks(settings: Settings, provider: Provider) -> str | None:
    """What is missing before the provider can be asked; ``None``: nothing."""
    if provider.needs_key and not has_key(settings, provider):
        return f"There is no key for {provider.title}."
    if not (getattr(settings, f"{provider.settings}_base_url") or provider.base_url):
        return f"Where it is reached is not said: {variable_name(f'{provider.settings}_base_url')}."
    return None


def has_key(settings: Settings, provider: Provider) -> bool:
    return bool(getattr(settings, f"{provider.settings}_api_key").get_secret_value().strip())


def _facts(provider: Provider, model: str, options: ModelOptions) -> "Facts":
    from shadow.agent.providers.facts import facts_of  # its data take a while to load

    return facts_of(provider, model, options, now=datetime.now(UTC), known_output_tokens=None, reasons=False)
