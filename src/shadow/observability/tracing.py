"""Traces by OpenTelemetry, sent to a collector by OTLP over HTTP. The one place that knows its SDK and its names.

Imported where tracing is asked for, and nowhere else: the SDK takes a quarter of a second, and threads. Spans wait in a bounded
queue for a thread that sends them; a collector that is away, or slow, costs the spans that do not fit, and nothing else.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Unpack, assert_never

from shadow.core.errors import ShadowError, Unsupported
from shadow.core.tracing import Facts, Span, Traced, Tracer
from shadow.version import __version__

try:
    import requests
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    from opentelemetry.util.types import AttributeValue
except ImportError as missing:
    raise Unsupported(
        "Traces need OpenTelemetry.",
        mend="Install it: pip install 'shadow-agents[otel]', or unset SHADOW_OTEL_ENDPOINT.",
    ) from missing

SEND_S = 5.0
"""How long the collector may take for one batch, with its repeats."""
LAST_SEND_S = 3.0
"""How long the end waits for what is not sent yet."""
MAX_WAITING = 2048
MAX_BATCH = 512
SEND_EVERY_MS = 2000
MAX_TEXT_CHARS = 200
_SERVER_ERROR = 500

ATTRIBUTES: Mapping[str, str] = {
    "route": "http.route",
    "status": "http.response.status_code",
    "request_id": "shadow.request.id",
    "user_id": "user.id",
    "task_id": "shadow.task.id",
    "job_id": "shadow.job.id",
    "attempt": "shadow.job.attempt",
    "outcome": "shadow.outcome",
    "model": "gen_ai.response.model",
    "finish": "gen_ai.response.finish_reasons",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
}
"""What each fact is called in OpenTelemetry's semantic conventions, or else here."""
_LOCAL_MODELS = frozenset({"scripted", "replay"})
"""Their names are paths of files."""


@asynccontextmanager
async def open_tracer(
    endpoint: str, *, headers: Mapping[str, str], sample: float, service: str = "shadow"
) -> AsyncGenerator[Tracer]:
    """Traces that are sent to ``endpoint``, a collector's address without ``/v1/traces``; what waits is sent at the end.

    ``sample``: the share of traces that are kept, of those whose caller has not decided it.
    """
    session = requests.Session()
    session.trust_env = False  # neither a proxy's address nor a .netrc's passwords belong to it
    exporter = OTLPSpanExporter(
        f"{endpoint.rstrip('/')}/v1/traces",
        headers={"User-Agent": f"shadow/{__version__}", **headers},
        timeout=SEND_S,
        session=session,
    )
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(sample)),
        resource=Resource(
            {"service.name": service, "service.version": __version__, "service.instance.id": socket.gethostname()}
        ),
        span_limits=SpanLimits(max_attribute_length=MAX_TEXT_CHARS),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=MAX_WAITING,
            max_export_batch_size=MAX_BATCH,
            schedule_delay_millis=SEND_EVERY_MS,
            export_timeout_millis=SEND_S * 1000,
        )
    )
    try:
        yield OpenTelemetry(provider.get_tracer("shadow", __version__))
    finally:
        await _shut_down(provider)


async def _shut_down(provider: TracerProvider) -> None:
    """In a thread that holds up nobody's end where the collector does not answer."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=shut_down, name="shadow-traces", daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_SEND_S):
            await ended.wait()


class OpenTelemetry(Tracer):
    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def span(self, what: Traced, name: str, *, parent: bytes | None = None, **facts: Unpack[Facts]) -> Generator[Span]:
        named, kind, attributes = _described(what, name)
        within = None
        if what in (Traced.REQUEST, Traced.JOB):  # whatever the loop was at when it came to it is nobody's parent
            within = Context() if parent is None else _parent(parent)
        span = _Span(self._tracer.start_span(named, within, kind, attributes), named)
        span.tell(**facts)
        # Not by the SDK, which writes down what an exception says.
        quietly = {"record_exception": False, "set_status_on_exception": False}
        try:
            with trace.use_span(span.open, end_on_exit=False, **quietly):
                yield span
        except BaseException as error:
            span.fail(error.code if isinstance(error, ShadowError) else type(error).__name__)
            raise
        finally:
            span.open.end()


class _Span(Span):
    def __init__(self, span: trace.Span, name: str) -> None:
        self.open = span
        self._name = name
        self.trace_id = trace.format_trace_id(span.get_span_context().trace_id)

    def tell(self, **facts: Unpack[Facts]) -> None:
        for name, value in facts.items():
            if value is not None:
                self.open.set_attribute(ATTRIBUTES[name], _told(name, value))
        if "route" in facts:
            self.open.update_name(f"{self._name} {facts['route']}")
        status = facts.get("status")
        if status is not None and status >= _SERVER_ERROR:
            self.fail(str(status))

    def fail(self, code: str) -> None:
        self.open.set_attribute("error.type", code)
        self.open.set_status(trace.StatusCode.ERROR)


def _described(what: Traced, name: str) -> tuple[str, trace.SpanKind, dict[str, str]]:
    """Its name, kind and attributes in the words of the semantic conventions."""
    match what:
        case Traced.REQUEST:
            return name, trace.SpanKind.SERVER, {"http.request.method": name}
        case Traced.JOB:
            return f"job {name}", trace.SpanKind.INTERNAL, {"shadow.job.kind": name}
        case Traced.STEP:
            return f"step {name}", trace.SpanKind.INTERNAL, {"shadow.step.name": name}
        case Traced.MODEL_REQUEST:
            provider = name.partition(":")[0]
            model = _without_path(name).removeprefix(f"{provider}:")
            attributes = {"gen_ai.provider.name": provider, "gen_ai.request.model": model}
            return f"chat {model}", trace.SpanKind.CLIENT, {"gen_ai.operation.name": "chat", **attributes}
        case Traced.TOOL_CALL:
            attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
            return f"execute_tool {name}", trace.SpanKind.INTERNAL, attributes
        case _:
            assert_never(what)


def _told(fact: str, value: object) -> AttributeValue:
    match fact, value:
        case "finish", str():
            return [value]
        case "model", str():
            return _without_path(value)
        case _, str() | int():
            return value
        case _:
            raise TypeError(f"{fact} cannot be a {type(value).__name__}")


def _without_path(model: str) -> str:
    maker = model.partition(":")[0]
    return maker if maker in _LOCAL_MODELS else model


def _parent(traceparent: bytes) -> Context:
    """Without ``tracestate``, which says whatever the caller wants to have passed on."""
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent.decode("latin-1")}, Context())
