"""How far items are promoted: by hand, strictly before, alike however the log was cut."""

import numpy as np
import pyarrow as pa
import pytest

from ray_rec.errors import ConfigError
from ray_rec.features.config import FeatureConfig
from ray_rec.features.examples import PROMOTED_SCHEMA
from ray_rec.features.popularity import Popularity
from ray_rec.features.promotions import RULE_DAYS, Promotions, by_time, columns_of

from .builders import DAY, T0, Stream, event, exposure, item

CHANNELS = {"promotions": ("mailer", "display")}
RULE = round(RULE_DAYS * DAY)


def promoted(name: str, ts: int, **shares: float) -> tuple[str, dict]:
    """A record of an item that is promoted so far from a time on."""
    return item(name, name.title(), ts, promotion=list(shares.items()))


def told(stream: Stream, name: str, at_ms: int) -> list[float]:
    """What popularity tells of an item's promotions at a time."""
    row = stream.state.catalogue.item_id.index(name)
    return stream.state.popularity.features(at_ms)[row, :4].tolist()


def shares(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_the_rule_is_a_mean_that_halves_with_each_half_life():
    promotions = Promotions(1)
    promotions.grow(2)
    promotions.promote(np.array([0]), np.array([T0]), shares(1.0))
    assert promotions.told(T0, slice(0, 2)).tolist() == [[1, 0], [0, 0]]
    assert promotions.told(T0 + RULE, np.array([0])).tolist() == [[1, 0.5]]
    promotions.promote(np.array([0]), np.array([T0 + RULE]), shares(0.0))
    assert promotions.told(T0 + RULE, np.array([0])).tolist() == [[0, 0.5]]
    assert promotions.told(T0 + 3 * RULE, np.array([0])).tolist() == [[0, 0.125]]
    assert promotions.told(0, slice(0, 2)).dtype == np.float32


def test_of_one_item_the_records_hold_one_after_the_other():
    """Whether told at once or each alone, the rule is of all and the last one holds."""
    item_, ts = np.array([0, 1, 0, 0]), np.array([T0, T0, T0 + RULE, T0 + 2 * RULE])
    at_once, alone = Promotions(1), Promotions(1)
    for promotions in (at_once, alone):
        promotions.grow(2)
    at_once.promote(item_, ts, shares(1.0, 0.5, 0.0, 0.5))
    for place, share in enumerate((1.0, 0.5, 0.0, 0.5)):
        one = slice(place, place + 1)
        alone.promote(item_[one], ts[one], shares(share))
    both = [promotions.told(T0 + 2 * RULE, slice(0, 2)).tolist() for promotions in (at_once, alone)]
    assert both[0] == both[1] == [[0.5, 0.25], [0.5, 0.375]]


def test_a_window_learns_what_was_promoted_before_it():
    stream = Stream(**CHANNELS)
    first = stream.window(
        promoted("tea", T0, mailer=1.0), exposure("r", "ann", T0, ["tea"]), event("ann", "tea", T0)
    )
    assert not first.popularity.any()
    assert first.promoted.to_pylist() == [{"item": 0, "ts": T0, "shares": [1.0, 0.0]}]
    second = stream.window(event("bob", "tea", T0 + 1), advance_to_ms=T0 + DAY)
    assert second.popularity[0, :2].tolist() == [1.0, 0.0]
    (shown,) = [row for row in second.examples.to_pylist() if row["topic_code"] == 1]
    assert shown["shown_popularity"][:4] == [0.0] * 4  # as it was when it was shown


def test_what_a_record_does_not_say_is_not_promoted_and_other_channels_are_not_told():
    stream = Stream(**CHANNELS)
    stream.window(promoted("tea", T0, mailer=1.0, display=0.5, radio=1.0))
    assert told(stream, "tea", T0)[:2] == [1.0, 0.5]
    stream.window(promoted("tea", T0 + RULE, display=0.25))
    assert told(stream, "tea", T0 + RULE) == [0.0, 0.25, 0.5, 0.25]
    stream.window(item("tea", "Tea", T0 + RULE, deleted=True))
    assert told(stream, "tea", T0 + RULE)[:2] == [0.0, 0.0]


def test_a_live_follower_is_told_at_once():
    window, live = Stream(**CHANNELS), Stream(**CHANNELS)
    records = [promoted("tea", T0, mailer=1.0), event("ann", "tea", T0 + DAY)]
    window.window(*records)
    live.state.update(live.plan(0, *records)[1])
    assert told(live, "tea", T0 + RULE) == told(window, "tea", T0 + RULE) == [1.0, 0.0, 0.5, 0.0]


def test_counts_made_of_what_was_told_go_on_alike():
    """As learning several times does, from what a window's popularity was."""
    popularity = Popularity([7.0], num_promotions=1)
    popularity.grow(2)
    popularity.promote(np.array([0]), np.array([T0]), shares(1.0))
    popularity.add(np.array([1]), np.array([T0 + RULE]))
    again = Popularity.of(popularity.features(T0 + RULE), T0 + RULE, [7.0])
    for counts in (popularity, again):
        counts.promote(np.array([0]), np.array([T0 + 2 * RULE]), shares(0.0))
    later = T0 + 3 * RULE
    assert again.features(later) == pytest.approx(popularity.features(later), rel=1e-6)


def test_without_channels_nothing_is_told():
    stream = Stream()
    made = stream.window(promoted("tea", T0, mailer=1.0), event("ann", "tea", T0))
    assert made.promoted.equals(PROMOTED_SCHEMA.empty_table())
    assert stream.state.popularity.features().shape == (1, 3)


def test_rows_are_put_in_the_order_of_time():
    rows = {"item": [2, 1], "ts": [9, 5], "shares": [[0.1, 0.2], [0.3, 0.4]]}
    table = pa.table(rows, PROMOTED_SCHEMA)
    item_, ts, found = by_time(table)
    assert (item_.tolist(), ts.tolist()) == ([1, 2], [5, 9])
    assert found == pytest.approx(columns_of(table)[2][::-1])


@pytest.mark.parametrize("channels", [("a", "a"), tuple(f"c{n}" for n in range(33))])
def test_channels_are_few_and_distinct(channels: tuple[str, ...]):
    with pytest.raises(ConfigError, match="promotions"):
        FeatureConfig(promotions=channels)
