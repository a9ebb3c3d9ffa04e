"""What a replica counts, in a registry of its own: several replicas may live in one process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """Counters, gauges and the latency histogram of one replica."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "HTTP requests", "route", "status")
        self.latency = Histogram(
            "ray_rec_request_seconds",
            "Time in the application",
            ["route"],
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.dead_letters = self._counter(
            "dead_letters", "Records followed that cannot be used", "topic", "reason"
        )
        self.follower_errors = self._counter(
            "follower_errors", "Failed attempts to follow", "source"
        )
        self.swaps = self._counter("version_swaps", "Versions taken into service")
        self.version = self._gauge("model_version", "Version in service, -1 for none")
        self.version_age = self._gauge("model_version_age_seconds", "Time since it was published")
        self.lag = self._gauge(
            "follower_lag_records", "Records not yet applied", "topic", "partition"
        )
        self.exposures_waiting = self._gauge("exposures_waiting", "Answers not yet on the log")
        self.exposures_written = self._gauge("exposures_written", "Answers on the log")
        self.exposures_lost = self._gauge("exposures_lost", "Answers never written to the log")
        self.items = self._gauge("items", "Items of the catalogue")
        self.items_without_vector = self._gauge(
            "items_without_vector", "Items whose text is not encoded yet"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"ray_rec_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"ray_rec_{name}", text, labels, registry=self.registry)

    def text(self) -> str:
        """Return all of them in the text format of Prometheus."""
        return generate_latest(self.registry).decode()
