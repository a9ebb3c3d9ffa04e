"""Click predictions: the prior by hand, and that labels meet what was predicted before them."""

import numpy as np
import pyarrow as pa
import pytest

from ray_rec.evaluation.clicks.measures import ItemPrior, arrivals
from ray_rec.features.examples import EXAMPLES_SCHEMA
from ray_rec.features.join import OPEN_SCHEMA


def test_item_prior_draws_rates_to_the_overall_one() -> None:
    prior = ItemPrior(1)
    assert prior.is_empty
    prior.observe(np.array([0, 0, 1]), np.array([[1.0], [0.0], [0.0]], np.float32))
    assert not prior.is_empty
    overall = (1 + 1) / (3 + 2)
    rates = prior.predict(np.array([0, 1, 5]))[:, 0].tolist()
    assert rates == pytest.approx([(1 + 10 * overall) / 12, (10 * overall) / 11, overall])


def test_arrivals_are_those_of_the_window_open_or_closed() -> None:
    waiting = pa.Table.from_pylist(
        [{"partition": 0, "offset": offset, "ts": 5, "shown_item": [1]} for offset in (1, 2)],
        OPEN_SCHEMA,
    )
    closed = pa.Table.from_pylist(
        [
            {"partition": 0, "offset": 3, "query_ts": [6], "shown_item": [2]},
            {"partition": 1, "offset": 3, "query_ts": [7], "shown_item": [3]},
        ],
        EXAMPLES_SCHEMA,
    )
    found = arrivals(waiting, closed, {0: (2, 9), 1: (0, 3)})
    assert found["offset"].to_pylist() == [2, 3]
    assert found["ts"].to_pylist() == [5, 6]
