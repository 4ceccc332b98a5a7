"""Routes of the server itself: whether it lives, what it counts, what its API is."""

from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request

from shadow.api.access import PUBLIC, SIGNED_IN
from shadow.core.accounts import Scope
from shadow.core.errors import Unavailable
from shadow.db.database import Database
from shadow.http.metrics import MEDIA_TYPE, Family, render
from shadow.http.responses import Answer
from shadow.http.routes import ApiRoute, ApiRoutes, Raw
from shadow.version import __version__
from shadow.wire.server import HealthMessage

Gather = Callable[[], Awaitable[Iterable[Family]]]


class SystemRoutes:
    def __init__(
        self, database: Database, *, gather: Gather, describe: Callable[[], bytes], is_draining: Callable[[], bool]
    ) -> None:
        self._database = database
        self._gather = gather
        self._describe = describe
        self._description: bytes | None = None
        self._is_draining = is_draining

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "GET",
                "/v1/health/live",
                self.live,
                summary="Whether the process answers.",
                answer=HealthMessage,
                access=PUBLIC,
            ),
            ApiRoute(
                "GET",
                "/v1/health/ready",
                self.ready,
                summary="Whether it can do its work: the database answers, and it is not about to end.",
                answer=HealthMessage,
                access=PUBLIC,
            ),
            ApiRoute(
                "GET",
                "/metrics",
                self.metrics,
                summary="What the server counts, for Prometheus.",
                answer=Raw(about="Prometheus's text format 0.0.4.", media_types=(MEDIA_TYPE,)),
                access=Scope.METRICS,
            ),
            ApiRoute(
                "GET",
                "/v1/openapi.json",
                self.openapi,
                summary="This description.",
                answer=Raw(about="An OpenAPI 3.1 document.", media_types=("application/json",)),
                access=SIGNED_IN,
            ),
        ]

    async def live(self, request: Request) -> Answer:
        return Answer(HealthMessage(status="live", version=__version__).json_bytes())

    async def ready(self, request: Request) -> Answer:
        if self._is_draining():
            raise Unavailable("This server is about to end.")
        async with self._database.read() as connection:
            await self._database.now(connection)
        return Answer(HealthMessage(status="ready", version=__version__).json_bytes())

    async def metrics(self, request: Request) -> Answer:
        return Answer(render(await self._gather()), media_type=MEDIA_TYPE.encode())

    async def openapi(self, request: Request) -> Answer:
        if self._description is None:
            self._description = self._describe()
        return Answer(self._description)
