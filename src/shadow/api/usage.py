"""Routes of what users spend, and may: parse, one call, answer."""

from starlette.requests import Request

from shadow.accounts.service import Accounts
from shadow.api.access import principal
from shadow.api.acting import acting
from shadow.core.accounts import Scope, UserId
from shadow.http.requests import read_message, read_query
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.tasks.service import Tasks
from shadow.wire.usage import NewBudgetsMessage, UsageListMessage, UsageMessage, UsageQuery


class UsageRoutes:
    def __init__(self, tasks: Tasks, accounts: Accounts) -> None:
        self._tasks = tasks
        self._accounts = accounts

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "GET",
                "/v1/usage",
                self.usage,
                summary="What one has spent today and this month, keeps, and may; of everybody, for administrators.",
                query=UsageQuery,
                answer=UsageListMessage,
                access=Scope.ACCOUNT,
            ),
            ApiRoute(
                "PUT",
                "/v1/users/{user_id}/budgets",
                self.set_budgets,
                summary="Give a user other budgets than the server's.",
                body=NewBudgetsMessage,
                answer=UsageMessage,
                access=Scope.ADMIN,
            ),
        ]

    async def usage(self, request: Request) -> Answer:
        query, who = read_query(request, UsageQuery), principal(request)
        user_ids = [str(who.user.id)]
        if query.all:
            who.check(Scope.ADMIN)
            user_ids = [user.id for user in await self._accounts.users()]
        found = await self._tasks.spenders.usage(user_ids)
        return message_answer(UsageListMessage(users=tuple(UsageMessage.of(one) for one in found)))

    async def set_budgets(self, request: Request) -> Answer:
        asked = await read_message(request, NewBudgetsMessage)
        user = await self._accounts.user(UserId(request.path_params["user_id"]))
        own = {name: getattr(asked, name) for name in asked.model_fields_set}
        await acting(self._tasks, request).spenders.set_budgets(user.id, own)
        (changed,) = await self._tasks.spenders.usage([user.id])
        return message_answer(UsageMessage.of(changed))
