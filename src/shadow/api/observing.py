"""What the server tells of each request: one id, one log event, one span. Never a body, a token or a value of a query.

The id is the server's own, so that no two requests share one and nobody chooses what stands in the record of operations. What a
client, or a proxy, calls the request is logged beside it, if that is harmless.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager

import structlog
from starlette.types import Scope
from structlog.contextvars import bind_contextvars, bound_contextvars

from shadow.api.access import PRINCIPAL, PUBLIC, TASK
from shadow.api.answering import REQUEST_ID_HEADER, Beginning
from shadow.core.accounts import Principal
from shadow.core.tasks import Task
from shadow.core.tracing import Facts, Span, Traced, Tracer
from shadow.http.admission import Clock
from shadow.http.requests import REQUEST_ID
from shadow.http.routes import ROUTE, ApiRoute, ApiSocket

TRACEPARENT = b"traceparent"
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{1,64}")

log = structlog.get_logger("shadow.server")


@contextmanager
def observed(scope: Scope, answer: Beginning, *, tracer: Tracer, clock: Clock) -> Generator[None]:
    """Around one request, which has a context of its own."""
    began_at, id_, method = clock(), scope[REQUEST_ID], scope.get("method", "GET")
    with (
        bound_contextvars(request_id=id_),
        tracer.span(Traced.REQUEST, method, parent=_header(scope, TRACEPARENT), request_id=id_) as span,
    ):
        if span.trace_id is not None:
            bind_contextvars(trace_id=span.trace_id)
        is_cut = True
        try:
            yield
            is_cut = False
        finally:
            _tell(scope, span, method, answer.status, ms=round((clock() - began_at) * 1000, 1), cut=is_cut)


def knows_user(who: Principal) -> None:
    bind_contextvars(user_id=who.user.id)


def knows_task(task: Task) -> None:
    bind_contextvars(task_id=task.id)


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    given = [value for name, value in scope["headers"] if name == wanted]
    return given[0] if len(given) == 1 else None


def _tell(scope: Scope, span: Span, method: str, status: int | None, *, ms: float, cut: bool) -> None:
    route: ApiRoute | ApiSocket | None = scope.get(ROUTE)
    who: Principal | None = scope.get(PRINCIPAL)
    task: Task | None = scope.get(TASK)
    facts: Facts = {
        "route": "" if route is None else route.path,
        "status": status,
        "user_id": None if who is None else who.user.id,
        "task_id": None if task is None else task.id,
    }
    span.tell(**facts)
    event = {"method": method, "ms": ms, **facts}
    given = _header(scope, REQUEST_ID_HEADER)
    if given is not None and _GIVEN.fullmatch(given):
        event["client_request_id"] = given.decode()
    if cut:
        event["cut"] = True
    is_probe = route is not None and route.about.access == PUBLIC and route.method == "GET"
    (log.debug if is_probe else log.info)("request", **event)
