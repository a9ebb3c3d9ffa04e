"""What the rows of the ablation know and are asked, and how two of them are set side by side."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import ablation
from benchmarks._ablation import TEXTS, asked
from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.asking.tables import Events
from ray_rec.features.arrays import Int64
from tests.evaluation.tables import Taken, table

RAW = np.ones((4, 3), np.float32)
RAW[3] = 0.0


def test_random_vectors_tell_equal_texts_apart_from_others_and_nothing_more() -> None:
    items = pa.table({"text": ["green tea", "rice", "green tea", ""]})
    known, raw = TEXTS["random"](items, RAW)
    assert known is items
    assert raw[0].tolist() == raw[2].tolist() != raw[1].tolist()
    assert raw[3].tolist() == [0, 0, 0]
    bare, nothing = TEXTS["none"](items, RAW)
    assert bare["text"].to_pylist() == [""] * 4
    assert not nothing.any()


def test_held_items_are_not_learned_and_live_ones_are_known_from_the_split_on() -> None:
    """Two of twenty items are held by their hash; each of forty people takes five of them all."""
    names = [f"item {number}" for number in range(20)]
    rows: list[Taken] = [
        (f"user {user:02}", names[(3 * user + step) % 20], 100 * step + user)
        for user in range(40)
        for step in range(5)
    ]
    events = Events.of(table(rows), names)
    whole, none_held = asked(events, "", earlier=False)
    gone, held = asked(events, "gone", earlier=False)
    live, also_held = asked(events, "live", earlier=False)
    assert not none_held.any()
    assert 0 < held.sum() < len(held)
    assert held.tolist() == also_held.tolist()
    assert set(gone.target.tolist()) <= set(whole.target.tolist())
    assert gone.train.tolist() == live.train.tolist()
    begin = events.ts[whole.train].max() + 1
    more = live.known & ~gone.known
    assert more.any()
    assert (events.ts[more] >= begin).all()
    assert np.isin(events.item[more], events.item[gone.target[held]]).all()


def kept(name: str, place: list[int], rank: list[float], held: list[bool]) -> ablation.Kept:
    user: Int64 = np.array(place) // 10
    ranked = Ranked(
        np.zeros_like(user), user, np.arange(len(user)), user, user, {name: np.array(rank)}
    )
    more = {"place": np.array(place), "held": np.array(held), "collected": user}
    return ranked, {}, more


def test_rows_are_set_beside_each_other_on_the_targets_that_both_were_asked_for() -> None:
    first = kept("held", [30, 10, 11, 40], [1, 10, 11, 1], [False, False, False, True])
    second = kept("whole", [10, 11, 12, 30, 40], [1, 2, 1, 3, 4], [False] * 5)
    found = ablation._beside({"held": first, "whole": second}, "held", "whole", ~first[2]["held"])
    # Of the places 10, 11 and 30 the first finds two among ten, the second all three.
    assert (found["targets"], found["users"]) == (3, 2)
    assert found["first"]["value"] == pytest.approx(2 / 3)
    assert found["second"]["value"] == 1
    assert found["difference"]["value"] == pytest.approx(-1 / 3)
