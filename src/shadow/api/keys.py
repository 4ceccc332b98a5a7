"""Routes of stored keys for providers, of users and of projects: parse, one call, answer. A key goes in and never out."""

from typing import Any

from starlette.requests import Request

from shadow.accounts.keys import Keys
from shadow.api.access import is_local, principal
from shadow.api.acting import acting
from shadow.core.accounts import ProjectId, Scope
from shadow.core.keys import KeyOwner
from shadow.http.requests import read_message
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.wire.keys import KeyListMessage, KeyMessage, NewKeyMessage


class KeyRoutes:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def routes(self) -> ApiRoutes:
        own: dict[str, Any] = {"access": Scope.ACCOUNT}
        return [
            *self._routes("/v1/keys", "one's own", own, own),
            *self._routes(
                "/v1/projects/{project_id}/keys",
                "a project's",
                {"access": Scope.TASKS_READ},
                {"access": Scope.TASKS_WRITE},
            ),
        ]

    def _routes(self, path: str, whose: str, read: dict[str, Any], write: dict[str, Any]) -> ApiRoutes:
        one = f"{path}/{{provider}}"
        return [
            ApiRoute(
                "GET",
                path,
                self.list,
                summary=f"For which providers there is a key of {whose}; keys themselves are told nobody.",
                answer=KeyListMessage,
                **read,
            ),
            ApiRoute(
                "PUT",
                one,
                self.put,
                summary=f"Store {whose} key for a provider, encrypted, once the provider has taken it.",
                body=NewKeyMessage,
                answer=KeyMessage,
                **write,
            ),
            ApiRoute("DELETE", one, self.remove, summary=f"Forget {whose} key.", **write),
            ApiRoute(
                "POST",
                f"{one}/test",
                self.test,
                summary=f"Ask the provider whether it still takes {whose} key.",
                answer=KeyMessage,
                **write,
            ),
        ]

    async def list(self, request: Request) -> Answer:
        found = await self._keys.list(_owner(request))
        return message_answer(KeyListMessage(keys=tuple(KeyMessage.of(one) for one in found)))

    async def put(self, request: Request) -> Answer:
        asked, who, owner = await read_message(request, NewKeyMessage), principal(request), _owner(request)
        stored = await self._acting(request).put(
            owner,
            _provider(request),
            key=asked.key,
            base_url=asked.base_url,
            by=who.user.id,
            trusted=is_local(who) and owner.project_id is None,
            check=asked.check,
        )
        return message_answer(KeyMessage.of(stored))

    async def remove(self, request: Request) -> Answer:
        await self._acting(request).remove(_owner(request), _provider(request))
        return Answer(b"{}")

    async def test(self, request: Request) -> Answer:
        stored = await self._keys.test(_owner(request), _provider(request), by=principal(request).user.id)
        return message_answer(KeyMessage.of(stored))

    def _acting(self, request: Request) -> Keys:
        return acting(self._keys, request, project_id=_owner(request).project_id)


def _owner(request: Request) -> KeyOwner:
    project_id = request.path_params.get("project_id")
    if project_id is not None:
        return KeyOwner(project_id=ProjectId(project_id))
    return KeyOwner(user_id=principal(request).user.id)


def _provider(request: Request) -> str:
    return request.path_params["provider"]
