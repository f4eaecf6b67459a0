"""What Prometheus is told of the service."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        """All at 0."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "beagle_requests_total", "Requests", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "beagle_request_seconds", "Time to the end of an answer", ("route",), buckets=_BUCKETS,
            registry=self._registry,
        )  # fmt: skip
        self._evolutions = Gauge("beagle_evolutions", "Evolutions", ("state",), registry=self._registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request that was answered. `route` is the pattern, not the path: there are few of them."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when it is looked at."""
        Gauge(name, what, registry=self._registry).set_function(value)

    def text(self, states: dict[str, int]) -> bytes:
        """All of it as Prometheus reads it; `states` counts evolutions."""
        self._evolutions.clear()
        for state, count in states.items():
            self._evolutions.labels(state).set(count)
        return generate_latest(self._registry)
