"""Traces: what they are made of, what an end looks like, and that nothing of them is loaded unless somebody asks."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import SecretStr, ValidationError

from shadow.bootstrap import open_tracer
from shadow.core.errors import NotFound, SettingsRefused
from shadow.core.tracing import UNTRACED, Facts, Traced
from shadow.observability.tracing import ATTRIBUTES, MAX_WAITING, OpenTelemetry
from shadow.settings import Settings
from tests.support.otlp import collecting, silent_collector

pytestmark = pytest.mark.anyio
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Kept:
    """A tracer whose spans stay here."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OpenTelemetry(provider.get_tracer("test"))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def one(self) -> ReadableSpan:
        (span,) = self.spans
        return span


@pytest.fixture(autouse=True)
def nothing_is_sent_any_more() -> Iterator[None]:
    """What a collector did not take is tried again, after a time that is drawn: other tests' draws must not meet it."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("Otel"):
            thread.join(60)
            assert not thread.is_alive()


def test_every_fact_has_a_name_out_there() -> None:
    assert set(ATTRIBUTES) == set(get_type_hints(Facts))


def test_a_request_is_named_by_its_route_and_bound_to_its_callers_trace() -> None:
    kept = Kept()
    with kept.tracer.span(Traced.REQUEST, "GET", parent=f"00-{TRACE}-{SPAN}-01".encode(), request_id="req_1") as span:
        assert span.trace_id == TRACE
        span.tell(route="/v1/tasks/{task_id}", status=200, user_id="user_1", task_id=None)
    span = kept.one
    assert (span.name, span.kind) == ("GET /v1/tasks/{task_id}", SpanKind.SERVER)
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/v1/tasks/{task_id}",
        "http.response.status_code": 200,
        "shadow.request.id": "req_1",
        "user.id": "user_1",
    }
    assert span.status.status_code is StatusCode.UNSET


def test_an_error_is_told_by_its_code_and_never_by_its_text() -> None:
    kept = Kept()
    for error in (NotFound("canary-1"), ValueError("canary-2"), asyncio.CancelledError("canary-3")):
        with pytest.raises(type(error)), kept.tracer.span(Traced.STEP, "COMMIT"):
            raise error
    with kept.tracer.span(Traced.REQUEST, "GET") as span:
        span.tell(status=503)
    assert [span.status.status_code for span in kept.spans] == [StatusCode.ERROR] * 4
    types = [(span.attributes or {})["error.type"] for span in kept.spans]
    assert types == ["not_found", "ValueError", "CancelledError", "503"]
    assert not [span.events for span in kept.spans if span.events]
    assert not [span.status.description for span in kept.spans if span.status.description]
    assert "canary" not in "".join(span.to_json() for span in kept.spans)


@given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
def test_any_traceparent_is_taken_or_counts_as_none(parent: bytes) -> None:
    kept = Kept()
    with kept.tracer.span(Traced.REQUEST, "GET", parent=parent) as span:
        assert span.trace_id is not None
        assert len(span.trace_id) == 32


async def test_what_runs_within_a_job_belongs_to_it_and_a_job_to_nobody() -> None:
    kept = Kept()

    async def call() -> None:
        with kept.tracer.span(Traced.TOOL_CALL, "read_file"):
            await asyncio.sleep(0)

    with kept.tracer.span(Traced.REQUEST, "POST"):
        with kept.tracer.span(Traced.JOB, "run"), kept.tracer.span(Traced.STEP, "CHECK"):
            await asyncio.gather(call(), call())
    *calls, step, job, request = kept.spans
    assert job.parent is None
    assert request.parent is None
    assert step.parent == job.context
    assert [call.parent for call in calls] == [step.context] * 2


def test_a_model_that_is_a_file_is_told_without_its_path() -> None:
    kept = Kept()
    for name in ("scripted:/home/canary/script.yaml", "replay:/home/canary/x", "anthropic:claude-x"):
        with kept.tracer.span(Traced.MODEL_REQUEST, name) as span:
            span.tell(model=name.replace("anthropic:claude-x", "claude-x-1"), finish="stop", input_tokens=7)
    assert [span.name for span in kept.spans] == ["chat scripted", "chat replay", "chat claude-x"]
    assert "canary" not in "".join(span.to_json() for span in kept.spans)
    assert dict(kept.spans[-1].attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-x",
        "gen_ai.response.model": "claude-x-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 7,
    }


async def test_they_are_sent_with_the_headers_that_are_set_at_the_end_too() -> None:
    async with collecting() as collector:
        settings = Settings(
            otel_endpoint=f"{collector.url}/", otel_headers=SecretStr("authorization=Bearer a=b, x-other=2")
        )
        async with open_tracer(settings) as tracer:
            with tracer.span(Traced.JOB, "run", job_id="job_1", attempt=2):
                pass
        (span,) = collector.spans
        assert span.attributes == {"shadow.job.kind": "run", "shadow.job.id": "job_1", "shadow.job.attempt": 2}
        (headers,) = collector.headers
        assert (headers["authorization"], headers["x-other"]) == ("Bearer a=b", "2")
        assert b"Bearer" not in b"".join(collector.bodies)


async def test_a_share_of_them_is_kept_unless_the_caller_decides() -> None:
    async with collecting() as collector:
        async with open_tracer(Settings(otel_endpoint=collector.url, otel_sample=0.0)) as tracer:
            for parent in (None, f"00-{TRACE}-{SPAN}-01".encode(), f"00-{TRACE}-{SPAN}-00".encode()):
                with tracer.span(Traced.REQUEST, "GET", parent=parent), tracer.span(Traced.STEP, "CHECK"):
                    pass
        assert sorted((span.name, span.trace) for span in collector.spans) == [("GET", TRACE), ("step CHECK", TRACE)]


async def test_a_collector_that_never_answers_holds_up_nobody() -> None:
    async with silent_collector() as url, asyncio.timeout(30):
        async with open_tracer(Settings(otel_endpoint=url)) as tracer:
            for _ in range(3 * MAX_WAITING):
                with tracer.span(Traced.STEP, "CHECK"):
                    pass


@pytest.mark.parametrize("headers", ["novalue", "a=b,c", "=x", "a=b\x00", "a\r\nb=c"])
async def test_headers_that_are_none_are_refused_without_being_shown(headers: str) -> None:
    settings = Settings(otel_endpoint="http://127.0.0.1:1", otel_headers=SecretStr(headers))
    with pytest.raises(SettingsRefused) as refused:
        async with open_tracer(settings):
            pass
    assert headers not in str(refused.value)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4317", "grpc://127.0.0.1:4317", "http://a b", "http://a\n"])
def test_an_address_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        Settings(otel_endpoint=endpoint)


async def test_without_a_collector_nothing_is_traced() -> None:
    async with open_tracer(Settings()) as tracer:
        assert tracer is UNTRACED
        with tracer.span(Traced.JOB, "run") as span:
            span.tell(outcome="done")
        assert span.trace_id is None


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"HOME": "/nowhere"},
    )


def test_a_server_that_traces_nothing_loads_nothing_of_it() -> None:
    done = python(
        """
import asyncio, json, sys
import shadow.api.main, shadow.bootstrap, shadow.cli.main, shadow.tasks.handlers
from shadow.settings import Settings

async def main():
    async with shadow.bootstrap.open_tracer(Settings()):
        print(json.dumps([name for name in sys.modules if name.startswith(("opentelemetry", "google", "requests"))]))

asyncio.run(main())
"""
    )
    assert json.loads(done.stdout) == [], done.stderr


def test_without_the_package_the_error_says_what_to_install() -> None:
    done = python(
        """
import asyncio, sys
sys.modules["opentelemetry.sdk.trace"] = None
from shadow.bootstrap import open_tracer
from shadow.core.errors import Unsupported
from shadow.settings import Settings

async def main():
    async with open_tracer(Settings(otel_endpoint="http://127.0.0.1:1")):
        pass

try:
    asyncio.run(main())
except Unsupported as error:
    print(error.mend)
"""
    )
    assert "pip install 'shadow-agents[otel]'" in done.stdout, done.stderr
