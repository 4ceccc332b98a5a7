"""What can go wrong with a model, and what its price is: values and errors. No I/O, no clock."""

from dataclasses import dataclass
from decimal import Decimal

from shadow.core.conversation import Usage
from shadow.core.errors import Denied, LimitExceeded, Rejected, ShadowError, Unavailable


class ModelError(ShadowError):
    """A fault of a model or its provider that has no class of its own."""

    code = "model_error"


class ModelKeyMissing(Denied):
    code = "model_key_missing"


class ModelKeyRefused(Denied):
    code = "model_key_refused"


class ModelQuotaExceeded(LimitExceeded):
    """The account's credit is used up: waiting does not help."""

    code = "model_quota_exceeded"


class ModelRateLimited(Unavailable):
    """``details["retry_after_s"]``: how long the provider asks to wait, where it said so."""

    code = "model_rate_limited"


class ModelOverloaded(Unavailable):
    """The provider cannot serve anybody right now, or failed by itself."""

    code = "model_overloaded"


class ModelUnreachable(Unavailable):
    """No connection, no answer in time, or the answer broke off in the middle."""

    code = "model_unreachable"


class ModelAnswerUnreadable(Unavailable):
    """What came is not what the provider's protocol says: a proxy's page, broken JSON, events out of place."""

    code = "model_answer_unreadable"


class ModelNotFound(Rejected):
    code = "model_not_found"


class ModelRequestRefused(Rejected):
    """The provider does not take this request; a repeat would be refused too."""

    code = "model_request_refused"


class ContextTooLong(Rejected):
    """The conversation does not fit into the model's context window."""

    code = "context_too_long"


class ContentRefused(Rejected):
    """The provider's content policy refuses the request or the answer."""

    code = "content_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderOffer:
    """A provider of models, as a server offers it."""

    name: str
    """What its models' names begin with: ``PROVIDER:NAME``."""
    title: str
    example: str
    """The name of one of its models."""
    can_be_asked: bool
    """Whether it can be reached: there is a key for it, or it needs none, and an address."""
    lacks: str | None = None
    """What is missing where it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars for a million tokens."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    """``None``: as input."""
    cache_write: Decimal | None = None

    def of(self, usage: Usage) -> Decimal:
        read = self.input if self.cache_read is None else self.cache_read
        write = self.input if self.cache_write is None else self.cache_write
        plain = max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens)
        million = (
            self.input * plain
            + read * usage.cache_read_tokens
            + write * usage.cache_write_tokens
            + self.output * usage.output_tokens
        )
        return million / 1_000_000

    def upper_bound(self, *, input_tokens: int, output_tokens: int) -> Decimal:
        """What a request of at most so many tokens can cost, whichever of them are cached."""
        dearest = max(self.input, self.cache_read or self.input, self.cache_write or self.input)
        return (dearest * input_tokens + self.output * output_tokens) / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOffer:
    """What is known of a model."""

    name: str
    provider: str
    can_be_asked: bool
    lacks: str | None = None
    context_tokens: int
    """What runs reckon with, for a request and its answer together: what is known of the model, or a careful guess."""
    price: Price | None
    """``None``: nobody knows it, and its runs cost nothing on record."""
