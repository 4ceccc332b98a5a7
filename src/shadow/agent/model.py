"""The port to language models: one request, its answer as it comes."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence

from shadow.core.conversation import AssistantMessage, Delta, Message, ModelRequest
from shadow.core.models import Price


class Model(ABC):
    """One model of one provider. Knows nothing of tasks, tools' effects or retries: each request stands alone."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As the user writes it: ``provider:name``."""

    @property
    @abstractmethod
    def context_tokens(self) -> int:
        """How many tokens a request and its answer may have together."""

    @property
    @abstractmethod
    def max_output_tokens(self) -> int:
        """How many tokens an answer may have at most."""

    @property
    @abstractmethod
    def price(self) -> Price | None:
        """``None``: unknown, which is not free."""

    @abstractmethod
    def stream(self, request: ModelRequest) -> AsyncIterator[Delta | AssistantMessage]:
        """The answer in pieces, then whole: the last item is the ``AssistantMessage``, and what ends without one has failed.

        Raises: the errors of ``core.models``. Nothing is repeated here. Closing the iterator ends the request.
        """

    def check_end(self, messages: Sequence[Message]) -> None:  # noqa: B027 (most models expect nothing)
        """Told the whole conversation once a run is done or given up: for models that expect something of it.

        Raises: ModelError: what it expected did not happen, so that the run counts as failed.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of connections."""
