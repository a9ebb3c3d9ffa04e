"""A port that Prometheus scrapes."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ray_rec.errors import ConfigError
from ray_rec.tracking.measures import MEASURES, Measure

Family = CounterMetricFamily | GaugeMetricFamily


class Prometheus(Collector):
    """Tells whoever asks what was logged last, as far as it stands in the table of measures.

    Raises:
        ConfigError: nothing can listen there.
    """

    def __init__(self, host: str, port: int) -> None:
        self._metrics: Mapping[str, float] = {}
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"training.metrics_port: cannot listen on {host}:{port} "
                f"({error.strerror or error}); choose another, or 0 for none"
            ) from error

    def collect(self) -> Iterator[Family]:
        """Return the families of the metrics logged last; how prometheus_client asks."""
        families: dict[str, Family] = {}
        for path, value in self._metrics.items():
            name, *labels = path.split("/")
            measure = MEASURES.get(name)
            if measure is None:
                continue
            if name not in families:
                families[name] = _family(name, measure)
            families[name].add_metric(labels, value)
        yield from families.values()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Let the next scrape see these."""
        self._metrics = dict(metrics)

    def close(self) -> None:
        """Leave the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _family(name: str, measure: Measure) -> Family:
    kind = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
    return kind(measure.prefix + name, measure.meaning, labels=measure.labels)
