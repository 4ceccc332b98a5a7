"""One provider's SDK, set up to our terms: no retries, our timeouts, no redirections, nothing from the environment but
what the HTTP library takes of it (proxies, certificates).
"""

from dataclasses import dataclass

import httpx2
from pydantic_ai.models import Model as PydanticModel
from pydantic_ai.settings import ModelSettings

from shadow.agent.providers.making import Endpoint, ModelOptions, Provider
from shadow.core.errors import SettingsRefused

NO_KEY = "no-key"
"""Sent where there is none: the SDKs insist on one, local servers ignore it."""
WRITE_S = 60.0
KEEP_ALIVE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    model: PydanticModel
    settings: ModelSettings
    http: httpx2.AsyncClient


def connect(provider: Provider, model: str, endpoint: Endpoint, options: ModelOptions) -> Connected:
    assert endpoint.base_url is not None
    timeout = httpx2.Timeout(connect=options.connect_s, read=options.silence_s, write=WRITE_S, pool=options.connect_s)
    limits = httpx2.Limits(keepalive_expiry=KEEP_ALIVE_S)
    try:
        http = httpx2.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False, proxy=endpoint.proxy)
    except (ValueError, OSError, httpx2.InvalidURL) as error:
        raise SettingsRefused(
            f"Proxies or certificates of the environment cannot be used: {error}.",
            mend="Check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR.",
        ) from error
    key = endpoint.key or NO_KEY
    if provider.name == "anthropic":
        made = _anthropic(model, endpoint.base_url, key, http, timeout)
    else:
        made = _openai(provider, model, endpoint.base_url, key, http, timeout)
    settings = _settings(provider, model, options)
    return Connected(model=made, settings=settings, http=http)


def _anthropic(model: str, url: str, key: str, http: httpx2.AsyncClient, timeout: httpx2.Timeout) -> PydanticModel:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(api_key=key, base_url=url, http_client=http, timeout=timeout, max_retries=0)
    # From ANTHROPIC_CUSTOM_HEADERS, which may hold tokens of a gateway: they are not for any host that users name.
    client._custom_headers = {}  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return AnthropicModel(model, provider=AnthropicProvider(anthropic_client=client))


def _openai(
    provider: Provider, model: str, url: str, key: str, http: httpx2.AsyncClient, timeout: httpx2.Timeout
) -> PydanticModel:
    from openai import AsyncOpenAI
    from pydantic_ai.models.ollama import OllamaModel
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.models.openrouter import OpenRouterModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.ollama import OllamaProvider
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openrouter import OpenRouterProvider

    client = AsyncOpenAI(api_key=key, base_url=url, http_client=http, timeout=timeout, max_retries=0)
    client.organization = client.project = None  # from OPENAI_ORG_ID and OPENAI_PROJECT_ID
    # Servers that only resemble OpenAI know `max_tokens` and the role `system`, and not always their successors.
    resembling = OpenAIModelProfile(
        openai_chat_supports_max_completion_tokens=False,
        openai_supports_strict_tool_definition=False,
        openai_system_prompt_role="system",
    )
    match provider.name:
        case "openai":
            return OpenAIResponsesModel(model, provider=OpenAIProvider(openai_client=client))
        case "openai-chat":
            return OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client))
        case "openrouter":
            return OpenRouterModel(model, provider=OpenRouterProvider(openai_client=client))
        case "ollama":
            return OllamaModel(model, provider=OllamaProvider(openai_client=client), profile=resembling)
        case _:
            return OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client), profile=resembling)


def _settings(provider: Provider, model: str, options: ModelOptions) -> ModelSettings:
    """Beyond the tokens of the answer."""
    settings: dict[str, object] = {}
    if options.reasoning is not None:
        settings["thinking"] = False if options.reasoning == "off" else options.reasoning
    match provider.name:
        case "anthropic":
            settings |= {
                "anthropic_cache_instructions": True,
                "anthropic_cache_tool_definitions": True,
                "anthropic_cache_messages": True,
            }
        case "openrouter" if model.startswith("anthropic/"):
            settings |= {"openrouter_cache_instructions": "5m", "openrouter_cache_messages": "5m"}
        case "openai":
            # Nothing is kept there; reasoning comes back to us encrypted and is sent along.
            settings |= {"openai_store": False, "openai_prompt_cache_diagnostics": False}
            if options.reasoning not in (None, "off"):
                settings["openai_reasoning_summary"] = "auto"
        case _:
            pass
    return ModelSettings(**settings)  # type: ignore[typeddict-item]
