"""Learning alone: it learns, repeats itself bit for bit, goes on from a state, stops at NaN."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_rec.errors import ModelError
from ray_rec.model.changes import Rows as ChangedRows
from ray_rec.model.changes import merged
from ray_rec.model.config import ModelConfig
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner
from ray_rec.training.metrics import Metrics
from ray_rec.training.steps import sample
from tests.model import toy

Rows = Sequence[dict[str, Any]]
FAST = LearnerConfig(warmup_steps=1, rows_per_step=16)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _learner(model: ModelConfig = toy.PLAIN, config: LearnerConfig = FAST) -> Learner:
    made = Learner(model, config)
    made.observe(toy.items(), toy.text_vectors())
    return made


def _learn(learner: Learner, number: int, rows: Rows) -> Metrics:
    steps = 1 + max((row["step"] for row in rows), default=-1)
    return learner.learn(toy.window(number, rows), toy.table(rows), steps)


def _test(learner: Learner, number: int, rows: Rows) -> dict[str, float]:
    return learner.test(toy.window(number, rows), toy.table(rows)).summary()


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor.nan_to_num(), other[name].nan_to_num()) for name, tensor in one.items()
    )


def test_a_walk_round_the_ring_is_learned_far_beyond_popularity() -> None:
    """Each of 40 items is as likely as any other, so popularity finds a quarter of them in ten."""
    learner = _learner()
    before = _test(learner, 0, toy.ring_rows(128, seed=99))
    for number in range(25):
        _learn(learner, number, toy.ring_rows(128, seed=number))
    after = _test(learner, 25, toy.ring_rows(128, seed=99))
    assert before["hr@10"] < 0.5
    assert after["hr@10"] > 0.9
    assert after["ndcg@10"] > 0.7
    assert after["recall_loss"] < before["recall_loss"] - 1


@pytest.mark.parametrize("changes", [{"exact_items": 0, "negatives": 16}, {"recall_loss": "bce"}])
def test_the_ring_is_learned_from_samples_and_with_the_binary_loss(changes: dict[str, Any]) -> None:
    learner = _learner(replace(toy.PLAIN, **changes))
    for number in range(25):
        _learn(learner, number, toy.ring_rows(128, seed=number))
    assert _test(learner, 25, toy.ring_rows(128, seed=99))["hr@10"] > 0.8


def test_clicks_are_learned() -> None:
    learner = _learner()
    for number in range(8):
        _learn(learner, number, toy.click_rows(128, seed=number))
    after = _test(learner, 8, toy.click_rows(128, seed=99))
    assert after["auc"] > 0.95
    assert after["click_loss"] < 0.15


@pytest.mark.parametrize("units", [0, 4])
def test_what_is_tested_is_what_is_learned(units: int) -> None:
    """Without chance, the loss of a single step is the test's over the whole catalogue."""
    again = [toy.row([at, 9, at, 30], [at, 9], offset=at) for at in range(8)]
    rows = [dict(row, step=0) for row in (*toy.ring_rows(16, 1), *toy.click_rows(16, 2), *again)]
    learner = _learner(replace(toy.PLAIN, repeat_units=units))
    _learn(learner, 0, toy.ring_rows(32, 3))
    tested, learned = _test(learner, 0, rows), _learn(learner, 0, rows).summary()
    assert tested["recall_loss"] == pytest.approx(learned["recall_loss"], rel=1e-5)
    assert tested["click_loss"] == pytest.approx(learned["click_loss"], rel=1e-5)


@pytest.mark.parametrize("changes", [{}, {"exact_items": 0}, {"late_text": (3.0, 3.0, 1.5)}])
def test_bfloat16_learns_both_tasks_like_float32(changes: dict[str, Any]) -> None:
    rows = [dict(row, step=0) for row in (*toy.ring_rows(16, 1), *toy.click_rows(16, 2))]
    whole, half = (
        _learn(_learner(replace(toy.PLAIN, **changes), config), 0, rows).summary()
        for config in (FAST, replace(FAST, precision="bfloat16"))
    )
    assert half == pytest.approx(whole, rel=0.02)


def test_testing_changes_nothing() -> None:
    learner = _learner()
    _learn(learner, 0, toy.ring_rows(32, 1))
    before = learner.state()
    _test(learner, 1, toy.ring_rows(32, 2))
    assert _equal(learner.state(), before)


CHANCE = replace(toy.PLAIN, dropout=0.2, id_dropout=0.3, exact_items=0, negatives=16)


def test_the_same_windows_give_the_same_weights_whatever_else_draws_numbers() -> None:
    one, other = _learner(CHANCE), _learner(CHANCE)
    for number in range(2):
        _learn(one, number, toy.ring_rows(40, number))
    for number in range(2):
        torch.rand(number + 3)
        np.random.default_rng(0)
        _learn(other, number, toy.ring_rows(40, number))
    assert _equal(one.state(), other.state())


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "adafactor"])
def test_a_loaded_state_goes_on_bit_for_bit(optimizer: Any) -> None:
    config = replace(FAST, optimizer=optimizer, warmup_steps=7)
    one, other = _learner(CHANCE, config), Learner(CHANCE, config)
    for number in range(2):
        _learn(one, number, [*toy.ring_rows(40, number)])
    kept = one.state()
    more = toy.items(toy.NUM_ITEMS, toy.NUM_ITEMS + 5)
    for learner in (one, other):
        if learner is other:
            learner.load(kept)
        learner.observe(more, toy.text_vectors(toy.NUM_ITEMS + 5)[toy.NUM_ITEMS :])
        rows = toy.ring_rows(40, 2, num_items=toy.NUM_ITEMS + 5)
        window = toy.window(2, rows, toy.NUM_ITEMS + 5)
        learner.learn(window, toy.table(rows), 3)
    assert _equal(one.state(), other.state())
    assert not _equal(one.state(), kept)


@pytest.mark.parametrize(
    "weights",
    [
        {"task_weights": "scheduled", "alpha": 0.0, "beta_end": 0.0, "weight_steps": 20},
        {"task_weights": "uncertainty"},
    ],
)
def test_the_weights_of_the_tasks_go_on_from_a_state(weights: dict[str, Any]) -> None:
    model = replace(toy.PLAIN, **weights)
    one, other = _learner(model), Learner(model, FAST)
    _learn(one, 0, [*toy.ring_rows(40, 0), *toy.click_rows(8, 1)])
    other.load(one.state())
    for learner in (one, other):
        _learn(learner, 1, toy.click_rows(40, 2))
    assert _equal(one.state(), other.state())


def test_learned_weights_are_part_of_a_version_and_move_with_their_own_task_alone() -> None:
    learner = _learner(replace(toy.PLAIN, task_weights="uncertainty"))
    names = [f"model.weights.log_variance.{task}" for task in range(2)]
    _learn(learner, 0, [dict(row, step=0) for row in (*toy.ring_rows(9, 0), *toy.click_rows(9, 1))])
    before = learner.export()
    _learn(learner, 1, toy.ring_rows(40, 2))
    after = learner.export()
    assert float(after[names[0]]) > float(before[names[0]]) > 0, "the mean loss is above one half"
    assert after[names[1]] == before[names[1]] != 0
    assert learner.servable().num_items == toy.NUM_ITEMS


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adafactor", "sgd"])
def test_a_head_of_which_nothing_is_asked_stays_as_it_is(optimizer: Any) -> None:
    """What is shown closes in bursts: for hundreds of steps between two there is only recall."""
    learner = _learner(config=replace(FAST, optimizer=optimizer))
    _learn(learner, 0, [dict(row, step=0) for row in (*toy.ring_rows(9, 0), *toy.click_rows(9, 1))])
    for number, rows, moves in (
        (1, toy.ring_rows(40, 2), "recall"),
        (2, toy.click_rows(40, 3), "click"),
    ):
        before = learner.export()
        _learn(learner, number, rows)
        moved = {k for k, v in learner.export().items() if not torch.equal(v, before[k])}
        heads = {name.split(".")[1] for name in moved if name.startswith("model.")}
        assert moves in heads
        assert not {"recall", "click"} - {moves} & heads
        assert "trunk" in heads, "both tasks teach what they share"


CALIBRATED = replace(toy.PLAIN, calibration="platt")


def _clicks(learner: Learner) -> np.ndarray:
    shown = np.arange(10)
    return learner.servable().click(toy.history([3, 4]), toy.NOW_MS, toy.popularity(), shown)


def test_probabilities_are_drawn_to_what_held_out_people_did_and_nothing_else_is() -> None:
    """They are shown everything and buy nothing, but click on all."""
    calibrated, plain = _learner(CALIBRATED), _learner()
    shown = [(item, 0b001) for item in range(toy.NUM_ITEMS)]
    held_out = toy.table([*toy.ring_rows(3, 1), toy.row([1, 2], shown=shown)])
    for learner in (calibrated, plain):
        _learn(learner, 0, [*toy.ring_rows(40, 0), *toy.click_rows(8, 1)])
        learner.calibrate(held_out)
    after, before = _clicks(calibrated), _clicks(plain)
    assert (after[:, 0] > before[:, 0]).all()
    assert (after[:, 2] < before[:, 2]).all()
    assert (np.argsort(after, axis=0) == np.argsort(before, axis=0)).all()
    changed = calibrated.export()
    assert {*changed} - {*plain.export()} == {
        "model.calibration.line", "model.calibration.certainty",
    }  # fmt: skip
    assert _equal({name: changed[name] for name in plain.export()}, plain.export())


def test_calibration_is_the_identity_until_anybody_is_held_out() -> None:
    calibrated, plain = _learner(CALIBRATED), _learner()
    for learner in (calibrated, plain):
        _learn(learner, 0, toy.click_rows(40, 0))
        learner.calibrate(toy.table(toy.ring_rows(3, 1)))
    assert (_clicks(calibrated) == _clicks(plain)).all()


def test_calibration_goes_on_from_a_state() -> None:
    one, other = _learner(CALIBRATED), Learner(CALIBRATED, FAST)
    _learn(one, 0, toy.click_rows(40, 0))
    one.calibrate(toy.table(toy.click_rows(20, 1)))
    other.load(one.state())
    for learner in (one, other):
        _learn(learner, 1, toy.click_rows(40, 2))
        learner.calibrate(toy.table(toy.click_rows(20, 3)))
    assert _equal(one.state(), other.state())


def test_a_state_is_not_changed_by_what_is_learned_later() -> None:
    learner = _learner()
    _learn(learner, 0, toy.ring_rows(40, 0))
    kept, version = learner.state(), learner.export()
    copies = [{name: t.clone() for name, t in made.items()} for made in (kept, version)]
    _learn(learner, 1, toy.ring_rows(40, 1))
    assert _equal(kept, copies[0])
    assert _equal(version, copies[1])


def test_a_state_of_another_configuration_is_refused() -> None:
    state = _learner().state()
    with pytest.raises(ModelError, match="configured model"):
        Learner(replace(toy.PLAIN, dim=32), FAST).load(state)
    del state["items.count"]
    with pytest.raises(ModelError, match="configured model"):
        _learner().load(state)


def test_new_items_change_no_answer_about_old_ones() -> None:
    learner = _learner()
    _learn(learner, 0, toy.ring_rows(40, 0))
    person, popularity = toy.history([3, 4]), toy.popularity()
    before = learner.servable().recall(person, toy.NOW_MS, popularity)[0]
    end = toy.NUM_ITEMS + 300
    learner.observe(toy.items(toy.NUM_ITEMS, end), toy.text_vectors(end)[toy.NUM_ITEMS :])
    after = learner.servable().recall(person, toy.NOW_MS, popularity)[0]
    assert len(after) == end
    assert after[: toy.NUM_ITEMS] == pytest.approx(before, abs=1e-6)


def test_a_changed_text_is_taken_and_what_was_learned_stays() -> None:
    learner = _learner()
    _learn(learner, 0, toy.ring_rows(40, 0))
    before = learner.export()
    changed = toy.items(5, 6).set_column(2, "text", pa.array(["item 8"]))
    learner.observe(changed, toy.text_vectors()[[8]])
    after = learner.export()
    assert after["items.text_row"][5] == after["items.text_row"][8]
    assert torch.equal(after["items.id"], before["items.id"])
    assert torch.equal(after["items.text"], before["items.text"])


def test_only_items_of_the_step_move() -> None:
    learner = _learner(replace(toy.PLAIN, exact_items=0, negatives=2))
    _learn(learner, 0, toy.ring_rows(80, 0))
    before = learner.export()["items.id"]
    _learn(learner, 1, [toy.row([1, 2], [3])])
    moved = (learner.export()["items.id"] != before).any(1)
    assert moved[[1, 2, 3]].all()
    assert int(moved.sum()) <= 5


def test_targets_are_counted_once_each() -> None:
    learner = _learner()
    rows = [toy.row([1, 2], [3, 3, 4]), toy.row([3], [4], offset=1)]
    _learn(learner, 0, rows)
    count = learner.export()["items.count"]
    assert count[[1, 2, 3, 4]].tolist() == [0, 0, 2, 2]
    assert float(count.sum()) == 4


def test_held_out_rows_and_empty_windows_are_harmless() -> None:
    learner = _learner()
    before = learner.state()
    assert _learn(learner, 0, []).summary() == {}
    assert _test(learner, 0, []) == {}
    assert _equal(learner.state(), before)


def test_before_the_first_item_there_is_nothing_to_test() -> None:
    learner = Learner(toy.PLAIN, FAST)
    assert learner.test(toy.window(0, [], 0), toy.table([])).summary() == {}


def test_steps_without_rows_are_taken() -> None:
    learner = _learner()
    rows = [toy.row([1, 2], [3], step=2)]
    learner.learn(toy.window(0, rows), toy.table(rows), 4)
    assert int(learner.state()["optimizer.steps"]) == 4


def test_a_person_without_history_and_an_unknown_price_are_learned() -> None:
    items = toy.items().set_column(3, "price", pa.array([None] * toy.NUM_ITEMS, pa.float32()))
    learner = Learner(toy.PLAIN, FAST)
    learner.observe(items, toy.text_vectors())
    rows = [toy.row([], [3]), toy.row([], shown=[(3, 4), (4, 0)], offset=1)]
    assert all(np.isfinite(v) for v in _learn(learner, 0, rows).summary().values())


def test_an_outcome_that_never_happened_becomes_unlikely() -> None:
    learner = _learner(config=replace(FAST, lr=1e-2))
    for number in range(20):
        _learn(learner, number, toy.click_rows(32, number))  # purchases alone
    seen = toy.history([1, 2, 3])
    p = learner.servable().click(seen, toy.NOW_MS, toy.POPULARITY, np.arange(toy.NUM_ITEMS))
    assert ((p > 0) & (p < 1)).all()
    click, cart, purchase = p.mean(axis=0)
    assert max(click, cart) < 0.1 < purchase


def test_a_person_with_ten_thousand_events_is_learned_and_answered() -> None:
    tokens = [number % toy.NUM_ITEMS for number in range(10_000)]
    learner = _learner()
    losses = _learn(learner, 0, [toy.row(tokens, [0], shown=[(1, 4), (2, 0)])]).summary()
    assert losses.keys() == {"recall_loss", "click_loss"}
    assert np.isfinite(list(losses.values())).all()
    found, _ = learner.servable().recall(toy.history(tokens), toy.NOW_MS, toy.POPULARITY)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("poison", ["popularity", "weight"])
def test_a_loss_that_is_not_finite_names_window_and_step(poison: str) -> None:
    learner, rows = _learner(), toy.ring_rows(40, 0)
    window = toy.window(7, rows)
    if poison == "popularity":
        window.popularity[:] = np.nan
    else:
        state = learner.state()
        state["items.id"][:] = np.inf
        state["items.count"][:] = 100.0
        learner.load(state)
    with pytest.raises(ModelError, match="window 7, step 0"):
        learner.learn(window, toy.table(rows), 3)


def test_nothing_is_changed_by_the_step_that_fails() -> None:
    learner, rows = _learner(), toy.ring_rows(40, 0)
    before = learner.state()
    window = toy.window(7, rows)
    window.popularity[:] = np.nan
    with pytest.raises(ModelError):
        learner.learn(window, toy.table(rows), 3)
    assert _equal(learner.state(), before)


def test_about_the_share_asked_for_is_tested_and_the_same_rows_on_any_worker() -> None:
    rows = toy.table([dict(row, offset=at) for at, row in enumerate(toy.ring_rows(2_000, 1))])
    tested = sample(rows, 0.1)["offset"].to_pylist()
    assert 150 < len(tested) < 250
    parts = [sample(rows.slice(at, 500), 0.1) for at in range(0, 2_000, 500)]
    assert pa.concat_tables(parts)["offset"].to_pylist() == tested
    assert sample(rows, 1.0).num_rows == 2_000


def _after(base: dict[str, torch.Tensor], learner: Learner) -> dict[str, torch.Tensor]:
    return merged(base, [learner.export_changes()])


def _changed(learner: Learner) -> list[int]:
    rows = learner.export_changes()["items.id"]
    assert isinstance(rows, ChangedRows)
    return rows.row.tolist()


def test_changes_on_the_last_version_are_the_next_one() -> None:
    """Over several windows, published after each, with new items and a changed text between."""
    learner = _learner(CHANCE)
    version = learner.export()
    learner.published()
    end = toy.NUM_ITEMS
    for number in range(4):
        _learn(learner, number, toy.ring_rows(40, number))
        more = toy.items(end, end + number)
        learner.observe(more, toy.text_vectors(end + number)[end:])
        end += number
        learner.observe(
            toy.items(5, 6).set_column(2, "text", pa.array([f"other {number}"])),
            toy.text_vectors(1, seed=50 + number),
        )
        version = _after(version, learner)
        learner.published()
        assert _equal(version, learner.export())
    assert len(version["items.id"]) == toy.NUM_ITEMS + 6
    assert len(version["items.text"]) == toy.NUM_ITEMS + 6 + 4


def test_what_is_touched_new_or_changed_counts_as_changed() -> None:
    learner = _learner(replace(toy.PLAIN, exact_items=0, negatives=2))
    assert _changed(learner) == list(range(toy.NUM_ITEMS))
    learner.published()
    assert _changed(learner) == []
    learner.observe(
        toy.items(7, 8).set_column(3, "price", pa.array([99.5], pa.float32())),
        toy.text_vectors()[[7]],
    )
    assert _changed(learner) == [7]
    _learn(learner, 1, [toy.row([1, 2], [3])])
    assert {1, 2, 3, 7} <= set(_changed(learner))
    assert len(_changed(learner)) <= 6
    learner.observe(toy.items(toy.NUM_ITEMS, toy.NUM_ITEMS + 1), toy.text_vectors(1, seed=9))
    assert _changed(learner)[-1] == toy.NUM_ITEMS
    text = learner.export_changes()["items.text"]
    assert isinstance(text, ChangedRows)
    assert text.row.tolist() == [toy.NUM_ITEMS], "texts are the same but for the new item's"


def test_a_state_of_another_release_is_refused() -> None:
    state = _learner().state()
    state["items.groups"] = state["items.groups"][:, :2]
    with pytest.raises(ModelError, match=r"does not fit.*items.groups is \[40, 2\].*state_dir"):
        _learner().load(state)


def test_a_loaded_state_gives_the_same_changes() -> None:
    """The rest of a window after a version, then a restart, then more."""
    one, other = _learner(CHANCE), Learner(CHANCE, FAST)
    _learn(one, 0, toy.ring_rows(40, 0))
    one.published()
    _learn(one, 1, [toy.row([1, 2], [3])])
    one.observe(toy.items(toy.NUM_ITEMS, toy.NUM_ITEMS + 1), toy.text_vectors(1, seed=9))
    other.load(one.state())
    for learner in (one, other):
        rows = [toy.row([4, 5], [6])]
        learner.learn(toy.window(2, rows, toy.NUM_ITEMS + 1), toy.table(rows), 1)
    left, right = one.export_changes(), other.export_changes()
    assert left.keys() == right.keys()
    for name, change in left.items():
        mine, theirs = (c if isinstance(c, ChangedRows) else (c,) for c in (change, right[name]))
        for a, b in zip(mine, theirs, strict=True):
            assert torch.equal(a.nan_to_num(), b.nan_to_num()), name
    assert _equal(one.state(), other.state())
