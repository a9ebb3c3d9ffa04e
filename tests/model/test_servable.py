"""What a version answers: alone or in batches, in any order of rows, to new items and people."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from ray_rec.errors import ModelError
from ray_rec.features.histories import History
from ray_rec.features.responses import rates
from ray_rec.model.config import ModelConfig
from ray_rec.model.servable import Servable
from ray_rec.model.shown import Candidates
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner
from tests.model import toy

Tensors = Callable[[], dict[str, torch.Tensor]]

PEOPLE = [
    toy.history([]),
    toy.history([3]),
    toy.history([1, 2, 1, 1, 38]),
    toy.history(list(range(30)) * 2),
]
POPULARITY = toy.popularity()
NO_KEYS, ONE_KEY = np.zeros((0, 3), np.int64), np.array([[3, 4, 5]])
SAME_RATES = rates(
    np.zeros((toy.NUM_ITEMS, 4)), np.zeros((toy.NUM_ITEMS, 2), np.int64), slice(None)
)
"""Where nothing was shown yet."""


@pytest.mark.parametrize("who", range(len(PEOPLE)))
def test_parts_add_up_to_the_score(servable: Servable, who: int) -> None:
    scores, parts = servable.recall(PEOPLE[who], toy.NOW_MS, POPULARITY)
    assert set(parts) == {"taste", "popularity", "text", "repeat"}
    assert scores.shape == (toy.NUM_ITEMS,)
    assert np.sum(list(parts.values()), axis=0) == pytest.approx(scores, abs=1e-5)


def test_only_items_of_the_own_history_repeat(servable: Servable) -> None:
    repeat = servable.recall(PEOPLE[2], toy.NOW_MS, POPULARITY)[1]["repeat"]
    assert np.flatnonzero(repeat).tolist() == [1, 2, 38]


def test_a_layer_for_repeats_leaves_taste_to_new_items() -> None:
    torch.manual_seed(0)
    learner = Learner(replace(toy.PLAIN, repeat_units=4), LearnerConfig(warmup_steps=1))
    learner.observe(toy.items(), toy.text_vectors())
    taste = learner.servable().recall(PEOPLE[2], toy.NOW_MS, POPULARITY)[1]["taste"]
    assert np.flatnonzero(taste == 0).tolist() == [1, 2, 38]


def test_a_batch_answers_as_each_alone(servable: Servable) -> None:
    at = np.array([toy.NOW_MS + day * 24 * toy.HOUR_MS for day in range(len(PEOPLE))])
    together = servable.recall_batch(PEOPLE, at, POPULARITY)
    for who, person in enumerate(PEOPLE):
        alone = servable.recall(person, int(at[who]), POPULARITY)[0]
        assert together[who] == pytest.approx(alone, abs=1e-5)


def test_company_counts_by_its_late_weight(servable: Servable, tensors: Tensors) -> None:
    weighing = Servable.from_tensors(tensors(), replace(toy.PLAIN, late_covisits=3.0))
    told = np.random.default_rng(0).random((len(PEOPLE), 35)).astype(np.float32)  # not of the last
    expected = np.pad(3 * told, ((0, 0), (0, 5)))
    at = np.full(len(PEOPLE), toy.NOW_MS)
    together = weighing.recall_batch(PEOPLE, at, POPULARITY, told)
    for who, person in enumerate(PEOPLE):
        scores, parts = weighing.recall(person, toy.NOW_MS, POPULARITY, told[who])
        assert parts["covisits"] == pytest.approx(expected[who])
        without = servable.recall(person, toy.NOW_MS, POPULARITY)[0]
        assert scores == pytest.approx(without + expected[who], abs=1e-5)
        assert together[who] == pytest.approx(scores, abs=1e-5)
    assert servable.recall(PEOPLE[0], toy.NOW_MS, POPULARITY, told[0])[1]["covisits"].any() == 0
    assert "covisits" not in weighing.recall(PEOPLE[0], toy.NOW_MS, POPULARITY)[1]


def test_company_is_cut_to_the_rows_that_can_be_scored(servable: Servable) -> None:
    told = np.ones((1, toy.NUM_ITEMS + 3), np.float32)
    at = np.array([toy.NOW_MS])
    assert servable.recall_batch(PEOPLE[:1], at, POPULARITY, told).shape == (1, toy.NUM_ITEMS)


def test_clicks_of_a_batch_are_those_of_each_alone(servable: Servable) -> None:
    at = np.full(len(PEOPLE), toy.NOW_MS)
    query, shown = np.array([0, 0, 1, 2, 2, 2, 3]), np.array([5, 6, 5, 1, 38, 20, 7])
    told = Candidates(query, shown, POPULARITY[shown], SAME_RATES[shown], np.zeros_like(shown))
    together = servable.click_batch(PEOPLE, at, told)
    for who, person in enumerate(PEOPLE):
        mine = query == who
        alone = servable.click(person, toy.NOW_MS, POPULARITY, shown[mine])
        assert together[mine] == pytest.approx(alone, abs=1e-6)


def test_clicks_follow_their_candidates(servable: Servable) -> None:
    shown = np.array([4, 1, 38, 20, 2])
    order = np.array([3, 0, 4, 1, 2])
    one = servable.click(PEOPLE[2], toy.NOW_MS, POPULARITY, shown)
    other = servable.click(PEOPLE[2], toy.NOW_MS, POPULARITY, shown[order])
    assert one.shape == (5, 3)
    assert ((one > 0) & (one < 1)).all()
    assert other == pytest.approx(one[order], abs=1e-6)


def test_clicks_of_no_candidates_are_none(servable: Servable) -> None:
    none = np.zeros(0, np.int64)
    assert servable.click(PEOPLE[1], toy.NOW_MS, POPULARITY, none).shape == (0, 3)


def test_scores_follow_the_rows(servable: Servable) -> None:
    rows = np.random.default_rng(0).permutation(toy.NUM_ITEMS)
    moved = servable.permute(rows, np.zeros((0, toy.RAW_DIM), np.float32), NO_KEYS)
    place = np.argsort(rows)  # where each old row went
    person = PEOPLE[2]
    same = History(place[person.item].astype(np.int32), person.type, person.ts)
    before = servable.recall(person, toy.NOW_MS, POPULARITY)[0]
    after = moved.recall(same, toy.NOW_MS, POPULARITY[rows])[0]
    assert after == pytest.approx(before[rows], abs=1e-5)
    clicks = servable.click(person, toy.NOW_MS, POPULARITY, np.array([7, 38]))
    again = moved.click(same, toy.NOW_MS, POPULARITY[rows], place[[7, 38]])
    assert again == pytest.approx(clicks, abs=1e-6)


def test_a_cold_item_is_scored_as_its_text(servable: Servable, tensors: Tensors) -> None:
    """Item 39 was never learned from: a new item of the same text is its twin."""
    raw = toy.text_vectors()[[39]]
    grown = servable.permute(np.array([*range(toy.NUM_ITEMS), -1]), raw, ONE_KEY)
    popularity = np.concatenate([POPULARITY, POPULARITY[[39]]])
    scores, parts = grown.recall(toy.history([3, 4]), toy.NOW_MS, popularity)
    assert grown.num_items == toy.NUM_ITEMS + 1
    assert tensors()["items.count"][39] == 0
    assert {name: part[40] for name, part in parts.items()} == pytest.approx(
        {name: part[39] for name, part in parts.items()}, abs=1e-5
    )
    assert scores[:40] == pytest.approx(
        servable.recall(toy.history([3, 4]), toy.NOW_MS, POPULARITY)[0], abs=1e-5
    )


def test_the_own_vector_of_an_item_never_learned_from_is_not_used(tensors: Tensors) -> None:
    made = tensors()
    made["items.id"][30:] = 1e6
    one, other = (Servable.from_tensors(t, toy.PLAIN) for t in (made, tensors()))
    person = toy.history([3, 35])
    assert one.recall(person, toy.NOW_MS, POPULARITY)[0] == pytest.approx(
        other.recall(person, toy.NOW_MS, POPULARITY)[0], abs=1e-5
    )


def test_an_item_without_text_has_no_likeness(servable: Servable) -> None:
    grown = servable.permute(
        np.array([*range(toy.NUM_ITEMS), -1]), np.zeros((1, toy.RAW_DIM), np.float32), ONE_KEY
    )
    parts = grown.recall(toy.history([3]), toy.NOW_MS, POPULARITY)[1]
    assert parts["text"][40] == 0.0
    assert np.isfinite(grown.recall(toy.history([40, 40]), toy.NOW_MS, POPULARITY)[0]).all()


def test_items_that_popularity_does_not_know_count_as_never_bought(servable: Servable) -> None:
    padded = POPULARITY.copy()
    padded[35:] = 0.0
    one = servable.recall(PEOPLE[2], toy.NOW_MS, POPULARITY[:35])[0]
    assert one == pytest.approx(servable.recall(PEOPLE[2], toy.NOW_MS, padded)[0], abs=1e-6)


def test_similarity_is_a_cosine(servable: Servable) -> None:
    cosine = servable.similarity(7)
    assert cosine[7] == pytest.approx(1.0, abs=1e-5)
    assert (np.abs(cosine) <= 1 + 1e-5).all()


def test_of_some_rows_it_scores_them_as_the_whole_does(tensors: Tensors) -> None:
    """Items that share a text, and rows in any order."""
    made = tensors()
    made["items.text_row"][7] = made["items.text_row"][1]
    rows = [7, 38, 1, 2, 20]
    whole = Servable.from_tensors(made, toy.PLAIN)
    some = Servable.from_tensors(made, toy.PLAIN, torch.tensor(rows))
    place = {row: at for at, row in enumerate(rows)}
    person = PEOPLE[2]  # of items 1, 2 and 38
    same = person._replace(item=np.array([place[r] for r in person.item.tolist()], np.int32))
    scores = some.recall(same, toy.NOW_MS, POPULARITY[rows])[0]
    assert scores == pytest.approx(whole.recall(person, toy.NOW_MS, POPULARITY)[0][rows], abs=1e-5)


def test_rows_where_they_are_cost_nothing(servable: Servable) -> None:
    rows, none = np.arange(toy.NUM_ITEMS), np.zeros((0, toy.RAW_DIM), np.float32)
    assert servable.permute(rows, none, NO_KEYS) is servable
    assert servable.permute(rows[:-1], none, NO_KEYS).num_items == toy.NUM_ITEMS - 1


def test_items_of_another_release_are_refused(tensors: Tensors) -> None:
    narrow = tensors() | {"items.groups": torch.zeros(toy.NUM_ITEMS, 2, dtype=torch.int64)}
    with pytest.raises(ModelError, match=r"items.groups is \[40, 2\], where rows of \[3\]"):
        Servable.from_tensors(narrow, toy.PLAIN)


def test_tensors_of_another_configuration_are_refused(tensors: Tensors) -> None:
    with pytest.raises(ModelError, match="configuration"):
        Servable.from_tensors(tensors(), ModelConfig(dim=32, text_dim=16))
    missing = tensors()
    del missing["items.id"]
    with pytest.raises(ModelError, match="configuration"):
        Servable.from_tensors(missing, toy.PLAIN)


def test_an_hour_changes_what_a_repeat_is_worth(servable: Servable) -> None:
    day = 24 * toy.HOUR_MS
    now = servable.recall(PEOPLE[2], toy.NOW_MS, POPULARITY)[1]["repeat"]
    later = servable.recall(PEOPLE[2], toy.NOW_MS + 60 * day, POPULARITY)[1]["repeat"]
    assert not np.allclose(now[[1, 2, 38]], later[[1, 2, 38]])
