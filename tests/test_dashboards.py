"""Dashboard, scrape configuration and documents, held against the metrics that are exposed."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_rec.serving.metrics import Metrics
from ray_rec.tracking.measures import MEASURES
from ray_rec.tracking.prometheus import Prometheus
from serve.host import held
from serve.http import create_app
from tests.scraping import HOST, Samples, free_port, samples, scrape

ROOT = Path(__file__).resolve().parent.parent
DASHBOARDS = ROOT / "deploy" / "dashboards"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SCRAPED = {"job", "instance"}
"""Labels that Prometheus itself puts on what it scrapes."""

Labels = dict[str, set[str]]


def labels_of(exposed: Samples) -> Labels:
    """Label names by sample name."""
    found: Labels = defaultdict(set)
    for name, labels in exposed:
        found[name] |= {label for label, _ in labels}
    return found


def trainer_labels() -> Labels:
    port = free_port()
    paths = ("/".join([name, *("x" for _ in m.labels)]) for name, m in MEASURES.items())
    with closing(Prometheus(HOST, port)) as tracker:
        tracker.log(1, dict.fromkeys(paths, 1.0))
        return labels_of(scrape(port))


def serving_labels() -> Labels:
    metrics = Metrics()
    for metric in vars(metrics).values():
        if names := getattr(metric, "_labelnames", ()):
            metric.labels(*("x" for _ in names))
    return labels_of(samples(metrics.text()))


@pytest.fixture(scope="module")
def exposed() -> Labels:
    return {**serving_labels(), **trainer_labels()}


def targets() -> Iterator[tuple[str, str, str]]:
    """(panel, expression, legend) of every line that is drawn."""
    dashboard: dict[str, Any] = json.loads((DASHBOARDS / "ray-rec.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]


def test_every_metric_of_a_panel_is_exposed_with_the_labels_it_uses(exposed: Labels) -> None:
    drawn = list(targets())
    assert len(drawn) > 20
    for panel, expression, legend in drawn:
        metrics = re.findall(r"\bray_rec_\w+", expression)
        assert metrics, panel
        assert set(metrics) <= exposed.keys(), panel
        known = SCRAPED.union(*(exposed[metric] for metric in metrics))
        grouped = {
            name for part in re.findall(r"by \(([^)]*)\)", expression) for name in part.split(", ")
        }
        shown = set(re.findall(r"{{(\w+)}}", legend))
        assert grouped | shown <= known, panel
        assert not grouped or shown <= grouped, f"{panel} shows a label that is summed over"


def test_every_measure_of_a_stream_is_drawn() -> None:
    drawn = " ".join(expression for _, expression, _ in targets())
    for name, measure in MEASURES.items():
        suffix = "_total" if measure.kind == "counter" else ""
        assert re.search(rf"\b{measure.prefix}{name}{suffix}\b", drawn), name


def test_panels_lie_side_by_side_with_ids_of_their_own() -> None:
    panels = json.loads((DASHBOARDS / "ray-rec.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_prometheus_scrapes_trainer_and_serving() -> None:
    text = (DASHBOARDS / "prometheus.yml").read_text()
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    assert set(jobs) == {"ray-rec-trainer", "ray-rec-serve"}
    (port,) = re.findall(r"training\.metrics_port=(\d+)", text)
    assert jobs["ray-rec-trainer"]["static_configs"] == [{"targets": [f"127.0.0.1:{port}"]}]
    assert f"training.metrics_port={port}" in OPERATIONS
    routes = {getattr(route, "path", "") for route in create_app(held).routes}
    assert jobs["ray-rec-serve"]["metrics_path"] in routes


def test_the_document_lists_every_metric_with_its_type_labels_and_meaning() -> None:
    for name, measure in MEASURES.items():
        suffix = "_total" if measure.kind == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in measure.labels)
        row = f"| `{measure.prefix}{name}{suffix}` | {measure.kind} | {labels} | "
        assert row + measure.meaning in OPERATIONS, row + measure.meaning
    for family in Metrics().registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        assert f"| `{family.name}{suffix}` | {family.type} | " in OPERATIONS, family.name
