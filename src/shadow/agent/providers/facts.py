"""How much a model takes and says, and its price: from genai-prices and pydantic-ai, else defaults that no model refuses.

Some prices rise for requests above a number of tokens. Then the context counts as ending there, so that the price holds for
each request; whoever asks for more context gets the higher price as *the* price.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from shadow.agent.providers.making import ModelOptions, Provider
from shadow.core.models import Price

DEFAULT_CONTEXT_TOKENS = 128_000
DEFAULT_LOCAL_CONTEXT_TOKENS = 32_768
"""Of ``ollama`` and ``compatible``: few servers are started with less where an agent is to work."""
MOST_OUTPUT_TOKENS = 32_000
DEFAULT_OUTPUT_TOKENS = 16_384
DEFAULT_LOCAL_OUTPUT_TOKENS = 8_192

_DATA_OF = {"anthropic": "anthropic", "openai": "openai", "openai-chat": "openai", "openrouter": "openrouter"}
_LOCAL = frozenset({"ollama", "compatible"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    context_tokens: int
    max_output_tokens: int
    price: Price | None


def facts_of(
    provider: Provider,
    model: str,
    options: ModelOptions,
    *,
    now: datetime,
    known_output_tokens: int | None,
    reasons: bool,
) -> Facts:
    """``known_output_tokens``: what the model can say at most, where somebody knows; ``reasons``: whether it reasons."""
    info = _info(provider, model)
    prices = info.get_prices(now) if info is not None else None
    rises_at = _rises_at(prices)
    local = provider.name in _LOCAL
    context = options.context_tokens
    if context is None:
        context = (info.context_window if info is not None else None) or (
            DEFAULT_LOCAL_CONTEXT_TOKENS if local else DEFAULT_CONTEXT_TOKENS
        )
        context = min(context, rises_at) if rises_at is not None else context
    output = options.max_output_tokens
    if output is None:
        plain = DEFAULT_LOCAL_OUTPUT_TOKENS if local else DEFAULT_OUTPUT_TOKENS
        output = known_output_tokens or (MOST_OUTPUT_TOKENS if reasons and not local else plain)
        output = max(1, min(output, MOST_OUTPUT_TOKENS, context // 4))
    return Facts(context_tokens=context, max_output_tokens=output, price=_price(prices, context))


def _info(provider: Provider, model: str) -> ModelInfo | None:
    source = _DATA_OF.get(provider.name)
    if source is None:
        return None
    try:
        return get_snapshot().find_provider_model(model, None, source, None)[1]
    except LookupError:
        return None


def _rises_at(prices: ModelPrice | None) -> int | None:
    if prices is None:
        return None
    tiers = [tier.start for value in vars(prices).values() if isinstance(value, TieredPrices) for tier in value.tiers]
    return min(tiers, default=None)


def _price(prices: ModelPrice | None, context_tokens: int) -> Price | None:
    if prices is None:
        return None
    input_, output = _value(prices, "input_mtok", context_tokens), _value(prices, "output_mtok", context_tokens)
    if input_ is None or output is None:
        return None
    return Price(
        input=input_,
        output=output,
        cache_read=_value(prices, "cache_read_mtok", context_tokens),
        cache_write=_value(prices, "cache_write_mtok", context_tokens),
    )


def _value(prices: ModelPrice, name: str, context_tokens: int) -> Decimal | None:
    """The dearest of a price's tiers that a request of the context's size can reach."""
    value: object = getattr(prices, name, None)
    if isinstance(value, TieredPrices):
        return max([value.base, *(tier.price for tier in value.tiers if tier.start < context_tokens)])
    return value if isinstance(value, Decimal) else None
