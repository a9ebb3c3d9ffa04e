"""A stream on a real cluster tells everything that an operator is promised, while it runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_rec.config import RunConfig
from ray_rec.errors import ConfigError
from ray_rec.events.schema import EVENTS, Record
from ray_rec.log.base import open_log
from ray_rec.tracking.last import last_recorded
from ray_rec.tracking.measures import MEASURES
from ray_rec.training.planner import LEARNED_TOPICS
from ray_rec.training.status import status
from ray_rec.training.stream import run_stream
from tests.scraping import Samples, free_port, scrape
from tests.tracking.event_files import points
from tests.training.shop import START_MS, fill_visits
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

MakeConfig = Callable[..., RunConfig]

STAGES = {"read", "join", "embed", "test", "learn", "publish", "checkpoint"}


def values(seen: Samples, name: str) -> dict[str, float]:
    """Values of one metric by its labels' values."""
    return {"/".join(v for _, v in labels): x for (n, labels), x in seen.items() if n == name}


def spoil(config: RunConfig) -> None:
    """Put three bad records and ten that are there already."""
    with open_log(config.log) as log:
        log.append(EVENTS, [Record(b"u1", b"{", START_MS)] * 2)
        log.append(EVENTS, [Record(b"u1", b"{}", START_MS)])
        for there in log.read(EVENTS, {0: (0, 10)}):
            rows = there.select(["key", "value", "ts"]).to_pylist()
            log.append(EVENTS, [Record(**row) for row in rows])


def test_what_is_scraped_written_and_shown(make_config: MakeConfig) -> None:
    port = free_port()
    config = make_config("run", f"training.metrics_port={port}")
    spoil(config)
    seen: list[Samples] = []

    def look(window: dict[str, Any]) -> None:
        def told() -> bool:
            seen.append(scrape(port))
            return values(seen[-1], "ray_rec_stream_window") == {"": window["window"]}

        until(told)

    report = run_stream(config, bounded=True, on_metrics=look)
    at_end = seen[-1]
    names = {m.prefix + n + ("_total" if m.kind == "counter" else "") for n, m in MEASURES.items()}
    told = {name for name, _ in at_end}
    assert names - told <= {"ray_rec_stream_set_aside_total"}
    assert values(at_end, "ray_rec_stream_records_total") == {"": report.records}
    dead = {"not_json": 2, "missing_field": 1}
    assert values(at_end, "ray_rec_stream_dead_letters_total") == dead
    assert values(at_end, "ray_rec_stream_events_total") == {"": 210}
    assert values(at_end, "ray_rec_stream_duplicates_total") == {"events": 10, "exposures": 0}
    assert set(values(at_end, "ray_rec_stream_window_seconds")) >= STAGES
    assert set(values(at_end, "ray_rec_stream_loss")) == {"recall", "click"}
    lag = values(at_end, "ray_rec_stream_lag_records")
    assert lag == {f"{p}/{topic}": 0 for topic in LEARNED_TOPICS for p in "01"}
    assert max(sum(values(s, "ray_rec_stream_lag_records").values()) for s in seen) > 0
    assert values(at_end, "ray_rec_model_version") == {"": report.version}

    step, drawn = points(Path(config.state_dir) / "tensorboard")[-1]
    recorded = last_recorded(config.state_dir)
    assert recorded is not None
    assert step == recorded.window == (report.version or 0) - 1
    assert drawn.keys() == recorded.metrics.keys()
    assert recorded.metrics["records"] == report.records

    with open_log(config.log) as log:
        fill_visits(log, 5, first=200)
    found = status(config)
    assert found.stream is not None
    assert found.stream.window == step
    assert sum(found.log.lag[EVENTS].values()) == 5
    assert found.log.reasons == dead
    assert found.model.quality["recall"]["loss"] == recorded.metrics["loss/recall"]
    assert found.checkpoint == report.version

    with pytest.raises(OSError, match="refused"):
        scrape(port)


def test_a_port_in_use_ends_the_run_before_anything_starts(make_config: MakeConfig) -> None:
    port = free_port()
    config = make_config("run", f"training.metrics_port={port}")

    def again(_window: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=f"training.metrics_port: cannot listen on .*:{port}"):
            run_stream(config, bounded=True)

    assert run_stream(config, bounded=True, on_metrics=again).windows > 0
