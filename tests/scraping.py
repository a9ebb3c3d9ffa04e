"""Asking a port as Prometheus does."""

import socket
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

HOST = "127.0.0.1"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and sorted labels."""


def free_port() -> int:
    """Return a port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def samples(text: str) -> Samples:
    """Read the text format of Prometheus."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(port: int) -> Samples:
    """Return what the port tells now."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return samples(answer.read().decode())
