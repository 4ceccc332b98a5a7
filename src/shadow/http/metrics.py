"""What a service counts of its work, in Prometheus's text format 0.0.4. Labels hold names from the code, never a task's."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.types import Message, Receive, Scope, Send

from shadow.http.admission import Clock
from shadow.http.routes import ROUTE, ApiRoute, ApiSocket

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0)

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]
"""What the name of its family is continued with, labels, value."""


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    kind: str
    help: str
    samples: Iterable[Sample]

    def lines(self) -> Iterable[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for rest, labels, value in self.samples:
            told = ",".join(f'{name}="{text}"' for name, text in labels.items())
            yield f"{self.name}{rest}{{{told}}} {value:.17g}" if told else f"{self.name}{rest} {value:.17g}"


def family(name: str, kind: str, help_: str, value: float) -> Family:
    return Family(name, kind, help_, [("", {}, value)])


def render(families: Iterable[Family]) -> bytes:
    return "".join(f"{line}\n" for one in families for line in one.lines()).encode()


class Histogram:
    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum += seconds

    def samples(self, labels: Labels) -> Iterable[Sample]:
        total = 0
        for bound, count in zip([f"{bound:g}" for bound in BOUNDS_S] + ["+Inf"], self._counts, strict=True):
            total += count
            yield "_bucket", {**labels, "le": bound}, total
        yield "_sum", labels, self._sum
        yield "_count", labels, total


class RequestMetrics:
    def __init__(self, noun: str) -> None:
        self._noun = noun
        self.received_bytes = 0
        self.sent_bytes = 0
        self._answers = Counter[tuple[str, str, str]]()
        self._seconds: dict[tuple[str, str], Histogram] = {}

    def answered(self, method: str, route: str, *, status: int, seconds: float) -> None:
        self._answers[method, route, f"{status // 100}xx"] += 1
        self._seconds.setdefault((method, route), Histogram()).observe(seconds)

    def families(self) -> Iterable[Family]:
        yield Family(
            f"shadow_{self._noun}_requests_total",
            "counter",
            "Requests that were answered, by route and class of status; route is empty where there is none.",
            [("", {"method": m, "route": r, "status": s}, n) for (m, r, s), n in sorted(self._answers.items())],
        )
        yield Family(
            f"shadow_{self._noun}_request_seconds",
            "histogram",
            "From a request's headers to the beginning of its answer.",
            [
                sample
                for (method, route), histogram in sorted(self._seconds.items())
                for sample in histogram.samples({"method": method, "route": route})
            ],
        )
        yield family(
            f"shadow_{self._noun}_received_bytes_total", "counter", "Bytes of bodies and messages.", self.received_bytes
        )
        yield family(
            f"shadow_{self._noun}_sent_bytes_total", "counter", "Bytes of bodies and messages.", self.sent_bytes
        )


class Exchange:
    """One request at the edge: what goes through is counted, and with what its answer began."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, metrics: RequestMetrics, clock: Clock) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._metrics = metrics
        self._clock = clock
        self._began_at = clock()
        self.status: int | None = None

    @property
    def route(self) -> tuple[str, str]:
        """Method and template of the route, for people and labels."""
        route: ApiRoute | ApiSocket | None = self._scope.get(ROUTE)
        return (route.method, route.path) if route is not None else ("other", "")

    @property
    def took_s(self) -> float:
        return self._clock() - self._began_at

    async def receive(self) -> Message:
        message = await self._receive()
        self._metrics.received_bytes += len(message.get("body") or message.get("bytes") or b"")
        return message

    async def send(self, message: Message) -> None:
        if self.status is None:
            status: int = message.get("status", 101)
            self.status = status
            method, path = self.route
            self._metrics.answered(method, path, status=status, seconds=self.took_s)
        self._metrics.sent_bytes += len(message.get("body") or message.get("bytes") or b"")
        await self._send(message)
