"""Baselines on purchases small enough to count by hand, and never with a look ahead."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_rec.evaluation.rankers.baselines import (
    ItemKnn,
    OwnFrequency,
    Popularity,
    Ranker,
    RecencyPopularity,
    default_rankers,
)
from ray_rec.features.config import DAY_MS
from tests.evaluation.worlds import World

# ann and bob take milk and bread, cem takes milk and tea.
PAST = [
    ("ann", "milk", 10),
    ("ann", "bread", 11),
    ("bob", "milk", 12),
    ("bob", "bread", 13),
    ("cem", "milk", 14),
    ("cem", "tea", 15),
    ("cem", "tea", 16),
]


def after(ranker: Ranker, question: list[tuple[str, str, int]]) -> tuple[World, np.ndarray]:
    """Show PAST to a ranker and return its scores for the only query of a second window."""
    world = World()
    ranker.observe(world.window(PAST)[1])
    queries, _ = world.window(question)
    return world, ranker.scores(queries)


def test_popularity_counts_everything() -> None:
    world, scores = after(Popularity(), [("dan", "new", 99)])
    assert scores.shape == (1, 4)
    found = {item: scores[0, world.row(item)] for item in ("milk", "bread", "tea", "new")}
    assert found == {"milk": 3, "bread": 2, "tea": 2, "new": 0}


def test_recency_popularity_forgets() -> None:
    ranker = RecencyPopularity(days=1)
    world = World()
    ranker.observe(world.window([("ann", "milk", 10), ("ann", "tea", 10 + DAY_MS)])[1])
    queries, _ = world.window([("bob", "milk", 20 + DAY_MS)])
    scores = ranker.scores(queries)
    assert (scores[0, world.row("milk")], scores[0, world.row("tea")]) == (0, 1)


def test_own_frequency_is_first_own_then_popular() -> None:
    world, scores = after(OwnFrequency(), [("cem", "milk", 99)])
    best = [world.row(item) for item in ("tea", "milk", "bread")]
    assert np.argsort(-scores[0])[:3].tolist() == best
    assert scores[0, world.row("tea")] == pytest.approx(2 + 2 / 4)
    assert scores[0, world.row("bread")] == pytest.approx(2 / 4)


def test_own_frequency_knows_the_same_window_before_the_query() -> None:
    world, scores = after(OwnFrequency(), [("dan", "tea", 90), ("dan", "milk", 99)])
    assert scores[0, world.row("tea")] < 1 <= scores[1, world.row("tea")]


def test_item_knn_sums_cosines() -> None:
    world, scores = after(ItemKnn(damping=0), [("ann", "milk", 99)])
    milk, bread, tea = (scores[0, world.row(item)] for item in ("milk", "bread", "tea"))
    # Users: milk 3, bread 2, tea 1; together: milk and bread 2, milk and tea 1.
    assert milk == pytest.approx(1 + 2 / sqrt(3 * 2))
    assert bread == pytest.approx(1 + 2 / sqrt(3 * 2))
    assert tea == pytest.approx(1 / sqrt(3 * 1))


def test_item_knn_damps_items_of_few_and_counts_repeats() -> None:
    world, scores = after(ItemKnn(damping=2), [("cem", "milk", 99)])
    milk, tea = (scores[0, world.row(item)] for item in ("milk", "tea"))
    # cem took milk once and tea twice; norms are 1/sqrt(users + 2).
    assert milk == pytest.approx(3 / 5 + 2 * 1 / sqrt(5 * 3))
    assert tea == pytest.approx(1 / sqrt(5 * 3) + 2 * 1 / 3)


def test_item_knn_without_anything_known() -> None:
    queries, _ = World().window([("ann", "milk", 5)])
    assert ItemKnn().scores(queries).tolist() == [[0.0]]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(1, 9)), min_size=1
    ),
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(10, 19)), min_size=1
    ),
    st.integers(10, 19),
)
def test_no_ranker_sees_the_time_of_a_query_or_later(
    past: list[tuple[str, str, int]], now: list[tuple[str, str, int]], cut: int
) -> None:
    """Changing what happens at or after a query's time changes no score of it."""
    whole = scores_until(past, now, cut)
    other = [(user, "x", ts) if ts >= cut else (user, item, ts) for user, item, ts in now]
    assert whole == scores_until(past, other, cut)


def scores_until(past: list, now: list, cut: int) -> dict:
    found = {}
    for ranker in default_rankers():
        world = World()
        seed = [("z", item, 1) for item in "xyz"]  # so that rows do not depend on the future
        ranker.observe(world.window(seed + past)[1])
        queries, _ = world.window(now)
        for user, ts, scores in zip(queries.user, queries.ts, ranker.scores(queries), strict=True):
            if ts <= cut:
                found[ranker.name, int(user), int(ts)] = scores.tolist()
    return found
