"""Keys for providers of models that a server keeps: each method is one call of its API."""

from collections.abc import Sequence
from urllib.parse import quote

from shadow.client.calling import Caller
from shadow.core.accounts import ProjectId
from shadow.core.keys import ProviderKey
from shadow.wire.keys import KeyListMessage, KeyMessage, NewKeyMessage
from shadow.wire.message import outgoing, to_core


class KeysClient:
    """One's own keys; with ``project_id`` those of a project. Every method raises what the server tells, and Unavailable or
    OutcomeUnknown where it does not answer."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def list(self, *, project_id: ProjectId | None = None) -> Sequence[ProviderKey]:
        found = await self._caller.ask(KeyListMessage, _path(project_id))
        return [to_core(one, ProviderKey) for one in found.keys]

    async def put(
        self,
        provider: str,
        key: str,
        *,
        base_url: str | None = None,
        project_id: ProjectId | None = None,
        check: bool = True,
    ) -> ProviderKey:
        """In the place of the one that was there. ``check``: the provider is asked first, and nothing is kept where it
        refuses. Raises: ModelKeyRefused, ModelUnreachable, and other errors of ``core.models``; Rejected, Denied."""
        message = outgoing(NewKeyMessage, {"key": key, "base_url": base_url, "check": check})
        stored = await self._caller.change(KeyMessage, "PUT", _path(project_id, provider), message, repeatable=True)
        return to_core(stored, ProviderKey)

    async def remove(self, provider: str, *, project_id: ProjectId | None = None) -> None:
        await self._caller.tell("DELETE", _path(project_id, provider))

    async def test(self, provider: str, *, project_id: ProjectId | None = None) -> ProviderKey:
        """Raises: what the provider says against it, as ``put`` does."""
        path = f"{_path(project_id, provider)}/test"
        return to_core(await self._caller.change(KeyMessage, "POST", path, repeatable=True), ProviderKey)


def _path(project_id: ProjectId | None, provider: str | None = None) -> str:
    where = "/v1/keys" if project_id is None else f"/v1/projects/{quote(project_id, safe='')}/keys"
    return where if provider is None else f"{where}/{quote(provider, safe='')}"
