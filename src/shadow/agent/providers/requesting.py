"""One request to a provider through pydantic-ai, streamed. Importing this takes a second: ``loading`` does it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import cast

import httpx2
from pydantic_ai.direct import model_request_stream
from pydantic_ai.exceptions import AgentRunError, UserError
from pydantic_ai.messages import ModelResponse, ModelResponseStreamEvent
from pydantic_ai.settings import ModelSettings

from shadow.agent.providers.clients import connect
from shadow.agent.providers.facts import Facts, facts_of
from shadow.agent.providers.faults import cut, fault
from shadow.agent.providers.making import Endpoint, ModelOptions, Provider
from shadow.agent.providers.sendable import clean, sendable
from shadow.agent.providers.translation import Deltas, from_response, to_messages, to_parameters
from shadow.core.conversation import AssistantMessage, Delta, ModelRequest
from shadow.core.models import ModelOverloaded

# The SDKs build their events without checking them, so that one of a wrong shape surfaces as any of these.
_UNREADABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


class Requesting:
    """``endpoint`` has its base URL. Connects with the first request."""

    def __init__(self, provider: Provider, model: str, endpoint: Endpoint, options: ModelOptions) -> None:
        self._provider = provider
        self._name = model
        self._endpoint = endpoint
        self._connected = connect(provider, model, endpoint, options)
        profile = self._connected.model.profile
        self._id_length = profile.get("tool_call_id_length")
        self.facts: Facts = facts_of(
            provider,
            model,
            options,
            now=datetime.now(UTC),
            known_output_tokens=cast("int | None", profile.get("anthropic_max_output_tokens")),
            reasons=bool(profile.get("supports_thinking")),
        )

    @property
    def maker(self) -> str:
        """Who answers here: reasoning that this one made is valid for this one alone."""
        return f"{self._provider.name}:{self._name} {self._endpoint.base_url or ''}"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | AssistantMessage]:
        response: ModelResponse | None = None
        deltas = Deltas()
        async with aclosing(self._events(request)) as events:
            async for event in events:
                if isinstance(event, ModelResponse):
                    response = event
                    continue
                for delta in deltas.of(event):
                    yield delta
        assert response is not None
        yield self._answer(response, request)

    async def aclose(self) -> None:
        await self._connected.http.aclose()

    async def _events(self, request: ModelRequest) -> AsyncGenerator[ModelResponseStreamEvent | ModelResponse]:
        """What pydantic-ai makes of the stream, then the whole; errors as ours."""
        messages = sendable(request.messages, maker=self.maker, id_length=self._id_length)
        settings: ModelSettings = {**self._connected.settings, "max_tokens": request.max_output_tokens}
        try:
            async with model_request_stream(
                self._connected.model,
                to_messages(messages, instructions=clean(request.instructions)),
                model_settings=settings,
                model_request_parameters=to_parameters(request.tools),
            ) as streamed:
                async for event in streamed:
                    yield event
                yield streamed.get()
        except (AgentRunError, UserError, httpx2.HTTPError, httpx2.StreamError, *_UNREADABLE) as error:
            # Not chained: what providers send back can hold the key, and what shows a chain shows it too.
            raise fault(error, provider=self._provider, model=self._name, endpoint=self._endpoint) from None

    def _answer(self, response: ModelResponse, request: ModelRequest) -> AssistantMessage:
        """Raises: ModelUnreachable, ModelOverloaded: it is no whole answer."""
        details = response.provider_details or {}
        if "finish_reason" not in details and response.finish_reason != "content_filter":
            raise cut(self._provider)
        if response.finish_reason == "error":
            raise ModelOverloaded(f"{self._provider.title} failed in the middle of its answer.")
        return from_response(response, maker=self.maker, request=request)
