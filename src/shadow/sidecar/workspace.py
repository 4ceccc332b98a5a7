"""Routes of the workspace itself: how it is, how long it lives, what this API is."""

from collections.abc import Callable, Iterable
from dataclasses import asdict

from starlette.requests import Request

from shadow.execution.interface import ToolExecutor
from shadow.http.admission import Admission, Clock
from shadow.http.metrics import MEDIA_TYPE, Family, RequestMetrics, family, render
from shadow.http.requests import read_message
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes, Raw
from shadow.wire.workspaces import HealthMessage, LeaseMessage, StatusMessage


class WorkspaceRoutes:
    def __init__(
        self,
        executor: ToolExecutor,
        admission: Admission,
        metrics: RequestMetrics,
        *,
        clock: Clock,
        describe: Callable[[], bytes],
    ) -> None:
        """``describe`` makes the description of the whole API."""
        self._executor = executor
        self._admission = admission
        self._metrics = metrics
        self._clock = clock
        self._started_at = clock()
        self._describe = describe
        self._description: bytes | None = None

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute("GET", "/v1/health", self.health, summary="Whether it lives, in short.", answer=HealthMessage),
            ApiRoute(
                "GET",
                "/v1/status",
                self.status,
                summary="How the workspace is: lease, capabilities, what runs, what the logs take.",
                answer=StatusMessage,
            ),
            ApiRoute(
                "GET",
                "/v1/metrics",
                self.metrics,
                summary="Counters for Prometheus.",
                answer=Raw(about="Prometheus's text format 0.0.4.", media_types=(MEDIA_TYPE,)),
            ),
            ApiRoute(
                "GET",
                "/v1/openapi.json",
                self.openapi,
                summary="This description.",
                answer=Raw(about="An OpenAPI 3.1 document.", media_types=("application/json",)),
            ),
            ApiRoute(
                "PUT",
                "/v1/lease",
                self.renew_lease,
                summary="The workspace ends itself after so long unless renewed again.",
                body=LeaseMessage,
            ),
        ]

    async def health(self, request: Request) -> Answer:
        return message_answer(HealthMessage.of(await self._executor.health()))

    async def status(self, request: Request) -> Answer:
        return message_answer(await self._status())

    async def metrics(self, request: Request) -> Answer:
        status = await self._status()
        text = render([*_gauges(status), *self._metrics.families(), self._refusals()])
        return Answer(text, media_type=MEDIA_TYPE.encode())

    async def openapi(self, request: Request) -> Answer:
        if self._description is None:
            self._description = self._describe()
        return Answer(self._description)

    async def renew_lease(self, request: Request) -> Answer:
        asked = await read_message(request, LeaseMessage)
        await self._executor.renew_lease(asked.lease_s)
        return Answer(b"{}")

    async def _status(self) -> StatusMessage:
        health = await self._executor.health()
        capabilities = asdict(self._executor.capabilities)
        commands = await self._executor.list_commands()
        terminals = await self._executor.list_terminals() if self._executor.capabilities.terminals else ()
        return StatusMessage(
            version=health.version,
            uptime_s=health.uptime_s,
            epoch=health.epoch,
            lease_remaining_s=health.lease_remaining_s,
            isolation=self._executor.capabilities.isolation,
            capabilities=tuple(sorted(name for name, claimed in capabilities.items() if claimed is True)),
            commands_running=sum(1 for command in commands if command.ending is None),
            terminals_running=sum(1 for terminal in terminals if terminal.ending is None),
            log_bytes=sum(one.output_end - one.output_start for one in (*commands, *terminals)),
            sidecar_uptime_s=self._clock() - self._started_at,
            sidecar_restarts=health.sidecar_restarts,
            requests_running=self._admission.requests,
            streams_open=self._admission.streams,
        )

    def _refusals(self) -> Family:
        return Family(
            "shadow_sidecar_refused_total",
            "counter",
            "Requests that came too fast, or were too many at once.",
            [("", {"limit": limit}, self._admission.refused[limit]) for limit in ("rate", "requests", "streams")],
        )


def _gauges(status: StatusMessage) -> Iterable[Family]:
    yield Family(
        "shadow_workspace_info",
        "gauge",
        "1; which version runs, behind which wall.",
        [("", {"version": status.version, "isolation": status.isolation}, 1)],
    )
    yield family("shadow_workspace_uptime_seconds", "gauge", "Since the holder started.", status.uptime_s)
    yield family("shadow_workspace_epoch", "gauge", "The newest fencing epoch.", status.epoch)
    if status.lease_remaining_s is not None:
        yield family(
            "shadow_workspace_lease_remaining_seconds",
            "gauge",
            "Until the workspace ends itself.",
            status.lease_remaining_s,
        )
    yield family("shadow_workspace_commands_running", "gauge", "Commands that run.", status.commands_running)
    yield family("shadow_workspace_terminals_running", "gauge", "Terminals that run.", status.terminals_running)
    yield family(
        "shadow_workspace_log_bytes", "gauge", "What the logs of commands and terminals hold.", status.log_bytes
    )
    yield family("shadow_sidecar_uptime_seconds", "gauge", "Since this sidecar started.", status.sidecar_uptime_s)
    yield family(
        "shadow_sidecar_restarts_total", "counter", "How often the holder started it again.", status.sidecar_restarts
    )
    yield family("shadow_sidecar_requests_running", "gauge", "Without streams.", status.requests_running)
    yield family("shadow_sidecar_streams_open", "gauge", "Outputs, downloads and terminals.", status.streams_open)
