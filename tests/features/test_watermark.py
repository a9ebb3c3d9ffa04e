"""The watermark: a function of the records, as slow as the slowest partition that is not idle."""

from pathlib import Path

import numpy as np

from ray_rec.events.parse import encode
from ray_rec.events.schema import EVENTS, EXPOSURES, MAX_AHEAD_MS, Event, Record
from ray_rec.features.config import FeatureConfig
from ray_rec.features.state import FeatureState
from ray_rec.features.watermark import Watermark
from ray_rec.log.base import open_log
from ray_rec.log.reading import read_decoded
from ray_rec.log.window import Window

from .builders import DAY, T0


def observe(watermark: Watermark, topic: str, *records: tuple[int, int]) -> None:
    partition, ts = np.array(records).T
    watermark.observe(topic, partition, ts)


def test_it_waits_for_the_slowest_partition_that_is_not_idle() -> None:
    watermark = Watermark(lateness_ms=10)
    assert watermark.advance((), None) == 0
    observe(watermark, EVENTS, (0, T0 + 50), (0, T0 + 40), (1, T0 + 90))
    observe(watermark, EXPOSURES, (0, T0 + 30))
    assert watermark.advance((), None) == T0 + 20  # exposures/0 at 30, less 10
    assert watermark.advance([(EXPOSURES, 0)], None) == T0 + 40
    assert watermark.advance([(EXPOSURES, 0), (EVENTS, 0)], None) == T0 + 80
    assert watermark.advance([(t, p) for t in (EVENTS, EXPOSURES) for p in (0, 1)], None) == T0 + 80


def test_a_partition_that_comes_back_neither_moves_it_back_nor_on() -> None:
    watermark = Watermark(lateness_ms=0)
    observe(watermark, EVENTS, (0, T0 + 100), (1, T0))
    assert watermark.advance([(EVENTS, 1)], None) == T0 + 100
    observe(watermark, EVENTS, (1, T0 + 50))
    assert watermark.advance((), None) == T0 + 100
    observe(watermark, EVENTS, (0, T0 + 300), (1, T0 + 200))
    assert watermark.advance((), None) == T0 + 200


def test_a_plan_may_push_it_and_a_snapshot_keeps_it() -> None:
    watermark = Watermark(lateness_ms=10)
    observe(watermark, EVENTS, (0, T0), (1, T0 + 5))
    assert watermark.advance((), T0 + 70) == T0 + 70
    again = Watermark(lateness_ms=10)
    again.restore([watermark.snapshot()])
    assert again.value_ms == T0 + 70
    for one in (watermark, again):
        observe(one, EVENTS, (0, T0 + 200), (1, T0 + 100))
    assert again.advance((), None) == watermark.advance((), None) == T0 + 90


def test_a_clock_far_ahead_moves_nothing(tmp_path: Path) -> None:
    """What claims to be of next year is a dead letter; what is a little ahead is bounded."""
    url = f"sqlite:///{tmp_path}/log.db"

    def record(number: int, ts: int, log_ms: int) -> Record:
        event = Event(event_id=f"e{number}", user_id="u", item_id="i", event_type="click", ts=ts)
        return Record(b"u", encode(event), log_ms)

    with open_log(url) as log:
        log.create_topics({EVENTS: 1})
        ahead = [T0 + 365 * DAY, T0 + MAX_AHEAD_MS + 2, T0 + MAX_AHEAD_MS + 1]
        log.append(EVENTS, [record(n, ts, T0 + 1) for n, ts in enumerate([T0, *ahead])])
    decoded = read_decoded(url, {EVENTS: {0: (0, 4)}})[EVENTS]
    assert decoded.dead["reason"].to_pylist() == ["ahead_of_log"] * 2
    state = FeatureState(FeatureConfig(lateness_ms=0))
    state.apply(Window(0, {EVENTS: {0: (0, 4)}}), {EVENTS: decoded.table})
    assert state.watermark.value_ms == T0 + 1 + MAX_AHEAD_MS
    assert state.popularity.latest_ms == T0 + 1 + MAX_AHEAD_MS
    assert state.histories.last("u").ts.tolist() == [T0, T0 + 1 + MAX_AHEAD_MS]
