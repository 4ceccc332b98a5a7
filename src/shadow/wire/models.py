"""Models and their providers, as messages of the server's API."""

from decimal import Decimal

from pydantic import Field

from shadow.core.models import ModelOffer, Price, ProviderOffer
from shadow.wire.message import Message


class ProviderMessage(Message, core=ProviderOffer):
    name: str
    title: str
    example: str
    can_be_asked: bool
    lacks: str | None = None


class ModelListMessage(Message):
    default: str | None
    """What tasks take that name no model."""
    providers: tuple[ProviderMessage, ...]


class ModelQuery(Message):
    name: str = Field(min_length=1, max_length=300)
    """`PROVIDER:NAME`."""


class PriceMessage(Message, core=Price):
    """US dollars for a million tokens."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None


class ModelMessage(Message, core=ModelOffer):
    name: str
    provider: str
    can_be_asked: bool
    lacks: str | None = None
    context_tokens: int
    price: PriceMessage | None
