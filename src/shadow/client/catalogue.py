"""What a server has to offer for new tasks: repositories and models. Each method is one call of its API."""

from collections.abc import Sequence

from shadow.client.calling import Caller
from shadow.core.models import ModelOffer, ProviderOffer
from shadow.core.repositories import Branches, UsedRepository
from shadow.wire.message import outgoing, to_core
from shadow.wire.models import ModelListMessage, ModelMessage
from shadow.wire.repositories import PAGE, BranchesMessage, BranchesQueryMessage, RepositoryListMessage


class RepositoriesClient:
    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def list(self, *, limit: int = 100) -> Sequence[UsedRepository]:
        """Those of the tasks that one sees, the one that was used last first."""
        found: list[UsedRepository] = []
        before: str | None = None
        while len(found) < limit:
            query = {"limit": min(PAGE, limit - len(found)), "before": before}
            page = await self._caller.ask(RepositoryListMessage, "/v1/repositories", query)
            found += [to_core(one, UsedRepository) for one in page.repositories]
            before = page.next
            if before is None or not page.repositories:
                break
        return found[:limit]

    async def branches(self, repository: str) -> Branches:
        """What a task can start from, asked of where the repository is."""
        message = outgoing(BranchesQueryMessage, {"repository": repository})
        path = "/v1/repositories/branches"
        return to_core(await self._caller.change(BranchesMessage, "POST", path, message, repeatable=True), Branches)


class ModelsClient:
    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def default(self) -> str | None:
        """What tasks take that name no model."""
        return (await self._caller.ask(ModelListMessage, "/v1/models")).default

    async def providers(self) -> Sequence[ProviderOffer]:
        found = await self._caller.ask(ModelListMessage, "/v1/models")
        return [to_core(one, ProviderOffer) for one in found.providers]

    async def about(self, name: str) -> ModelOffer:
        """``name``: ``PROVIDER:NAME``. Raises: Rejected: there is no such provider."""
        return to_core(await self._caller.ask(ModelMessage, "/v1/models/about", {"name": name}), ModelOffer)
