"""Models by name: ``provider:name`` becomes a ``Model``. Loads no SDK before it is sure that one is needed."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from shadow.agent.model import Model
from shadow.core.errors import SettingsRefused
from shadow.core.models import ModelKeyMissing, ModelNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One way to reach models. ``settings`` is how its settings begin; ``openai`` and ``openai-chat`` share theirs."""

    name: str
    title: str
    settings: str
    base_url: str | None
    """Where it is reached unless an endpoint says otherwise; ``None``: there is no such place."""
    needs_key: bool
    example: str


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            name="anthropic",
            title="Anthropic",
            settings="anthropic",
            base_url="https://api.anthropic.com",
            needs_key=True,
            example="anthropic:claude-sonnet-5",
        ),
        Provider(
            name="openai",
            title="OpenAI",
            settings="openai",
            base_url="https://api.openai.com/v1",
            needs_key=True,
            example="openai:gpt-5",
        ),
        Provider(
            name="openai-chat",
            title="OpenAI",
            settings="openai",
            base_url="https://api.openai.com/v1",
            needs_key=True,
            example="openai-chat:gpt-4.1",
        ),
        Provider(
            name="openrouter",
            title="OpenRouter",
            settings="openrouter",
            base_url="https://openrouter.ai/api/v1",
            needs_key=True,
            example="openrouter:anthropic/claude-sonnet-5",
        ),
        Provider(
            name="ollama",
            title="Ollama",
            settings="ollama",
            base_url="http://localhost:11434/v1",
            needs_key=False,
            example="ollama:qwen3-coder:30b",
        ),
        Provider(
            name="compatible",
            title="the endpoint",
            settings="compatible",
            base_url=None,
            needs_key=False,
            example="compatible:my-model",
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a provider is reached, and with which key."""

    base_url: str | None = None
    """``None``: the provider's own."""
    key: str = field(default="", repr=False)
    is_stored: bool = False
    """Whether a user has stored it, rather than that the settings have it."""
    proxy: str | None = field(default=None, repr=False)
    """Through which it must be reached, since a user said where it is; holds a credential. ``None``: as the environment says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """What holds for all models. ``None``: as the provider's data say, else a safe default."""

    context_tokens: int | None = None
    max_output_tokens: int | None = None
    reasoning: str | None = None
    """``off``, ``low``, ``medium`` or ``high``; ``None``: as the model does by itself."""
    connect_s: float = 10.0
    silence_s: float = 300.0
    """How long a provider may send nothing at all before the request counts as lost."""


def is_provider(name: str) -> bool:
    """Whether ``name`` (``provider:name``) begins with the name of a provider."""
    return name.partition(":")[0] in PROVIDERS


def named(name: str) -> tuple[Provider, str]:
    """The provider and its own name for the model. Raises: ModelNotFound: there is no such provider."""
    prefix, colon, model_name = name.partition(":")
    provider = PROVIDERS.get(prefix)
    if provider is None or not colon or not model_name.strip():
        raise _not_a_model(name, prefix)
    return provider, model_name.strip()


def make_model(name: str, *, endpoints: Mapping[str, Endpoint], options: ModelOptions | None = None) -> Model:
    """The model that ``name`` (``provider:name``) means. ``endpoints`` is by ``Provider.settings``.

    Returns at once; the provider's SDK loads in the background, which takes about a second the first time.

    Raises: ModelNotFound: no such provider; ModelKeyMissing; SettingsRefused: a base URL that is none.
    """
    provider, model_name = named(name)
    given = endpoints.get(provider.settings, Endpoint())
    endpoint = replace(given, base_url=_base_url(provider, given), key=given.key.strip())
    if provider.needs_key and not endpoint.key:
        variable = f"{provider.settings.upper()}_API_KEY"
        raise ModelKeyMissing(
            f"There is no key for {provider.title}.",
            mend=f"Set SHADOW_{variable} (or {variable}) to your key, or store one: shadow key add {provider.settings}.",
        )
    if not (endpoint.key.isascii() and endpoint.key.isprintable()):
        raise SettingsRefused(
            f"The key for {provider.title} holds characters that no key has.",
            mend="Copy it again, without line breaks.",
        )
    from shadow.agent.providers.loading import ProviderModel

    return ProviderModel(provider, model_name, endpoint, options or ModelOptions())


def _not_a_model(name: str, prefix: str) -> ModelNotFound:
    examples = ", ".join(provider.example for provider in PROVIDERS.values())
    close = difflib.get_close_matches(prefix, PROVIDERS, n=1)
    if prefix in PROVIDERS:
        return ModelNotFound(f"{name!r} names no model.", mend=f"Write it as in {PROVIDERS[prefix].example}.")
    hint = f"Did you mean {close[0]}? " if close else ""
    return ModelNotFound(f"There is no provider {prefix!r}.", mend=f"{hint}Models are named as in: {examples}.")


def _base_url(provider: Provider, endpoint: Endpoint) -> str:
    url = (endpoint.base_url or provider.base_url or "").strip().rstrip("/")
    variable = f"SHADOW_{provider.settings.upper()}_BASE_URL"
    if not url:
        raise SettingsRefused(
            f"Where {provider.name!r} models are reached is not said.",
            mend=f"Set {variable}, for example to http://localhost:8000/v1.",
        )
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        usable = usable and not parts.query and not parts.fragment
        secret = parts.username is not None or parts.password is not None
    except ValueError:
        usable, secret = False, False
    if secret:
        raise SettingsRefused(f"{variable} holds a user or a password.", mend="Put the key into its own setting.")
    if not usable:
        raise SettingsRefused(f"{variable} is no base URL: {url!r}.", mend="Write it as https://host/path.")
    return url
