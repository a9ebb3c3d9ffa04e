"""An ensemble answers like a model, in batches, rows of any order, and for cold items; by hand."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from ray_rec.errors import ConfigError, ModelError
from ray_rec.features.histories import History
from ray_rec.model.combining import Combine, borda
from ray_rec.model.ensemble import Ensemble, EnsembleConfig, Scorer, joined, logit, scorer_of
from ray_rec.model.items import SERVED_ROWS
from ray_rec.model.servable import Servable
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner
from tests.model import toy

WIDE = replace(toy.PLAIN, dim=8)
PERSON = toy.history([1, 2, 1, 1, 38])
POPULARITY = toy.popularity()
SHOWN = np.array([5, 38, 2])
IDS = [f"i{row}" for row in range(toy.NUM_ITEMS)]
CONFIGS = [
    EnsembleConfig((toy.PLAIN, WIDE)),
    EnsembleConfig((toy.PLAIN, WIDE), "rank-vote"),
    EnsembleConfig((toy.PLAIN, WIDE), "stacking", (0.25, 2.0), (0.5, 0.75)),
]


@pytest.fixture(scope="module")
def exports() -> list[dict[str, torch.Tensor]]:
    """Two models of different sizes and seeds that have learned for a moment."""
    torch.set_num_threads(1)
    out = []
    for seed, model in enumerate((toy.PLAIN, WIDE)):
        learner = Learner(model, LearnerConfig(warmup_steps=1, seed=seed))
        learner.observe(toy.items(), toy.text_vectors())
        rows = toy.ring_rows(32, seed)
        learner.learn(toy.window(0, rows), toy.table(rows), 2)
        out.append(learner.export())
    return out


@pytest.fixture(scope="module")
def members(exports: list[dict[str, torch.Tensor]]) -> list[Servable]:
    both = zip(exports, (toy.PLAIN, WIDE), strict=True)
    return [Servable.from_tensors(tensors, model) for tensors, model in both]


@pytest.fixture(params=CONFIGS, ids=[config.combine for config in CONFIGS])
def ensemble(request: pytest.FixtureRequest, members: list[Servable]) -> Ensemble:
    return Ensemble(members, request.param)


def _scores(scorer: Scorer, person: History = PERSON) -> np.ndarray:
    return scorer.recall(person, toy.NOW_MS, POPULARITY)[0]


def test_scores_and_clicks_are_the_members_combined(members: list[Servable]) -> None:
    average, vote, stacked = (Ensemble(members, config) for config in CONFIGS)
    one, two = (_scores(member) for member in members)
    assert _scores(average) == pytest.approx((one + two) / 2)
    assert _scores(vote) == pytest.approx((borda(one) + borda(two)) / 2)
    assert _scores(stacked) == pytest.approx(0.25 * one + 2 * two, abs=1e-5)
    p, q = (member.click(PERSON, toy.NOW_MS, POPULARITY, SHOWN) for member in members)
    for mean in (average, vote):
        assert mean.click(PERSON, toy.NOW_MS, POPULARITY, SHOWN) == pytest.approx((p + q) / 2)
    odds = np.exp(0.5 * logit(p) + 0.75 * logit(q))
    found = stacked.click(PERSON, toy.NOW_MS, POPULARITY, SHOWN)
    assert found == pytest.approx(odds / (1 + odds), abs=1e-5)


def test_parts_add_up_to_the_score(ensemble: Ensemble) -> None:
    scores, parts = ensemble.recall(PERSON, toy.NOW_MS, POPULARITY)
    assert np.sum(list(parts.values()), axis=0) == pytest.approx(scores, abs=1e-5)


def test_a_batch_answers_as_each_alone(ensemble: Ensemble) -> None:
    people = [toy.history([]), PERSON, toy.history([3])]
    together = ensemble.recall_batch(people, np.full(3, toy.NOW_MS), POPULARITY)
    for who, person in enumerate(people):
        # members agree to 1e-5 only, so a vote may differ by a rank
        assert together[who] == pytest.approx(_scores(ensemble, person), abs=0.02)


def test_company_counts_by_each_members_late_weight(exports: list[dict[str, torch.Tensor]]) -> None:
    models = [replace(model, late_covisits=late) for model, late in ((toy.PLAIN, 4.0), (WIDE, 1.0))]
    members = [Servable.from_tensors(*both) for both in zip(exports, models, strict=True)]
    stacked = Ensemble(members, replace(CONFIGS[2], models=tuple(models)))
    told = np.arange(toy.NUM_ITEMS, dtype=np.float32)
    scores, parts = stacked.recall(PERSON, toy.NOW_MS, POPULARITY, told)
    assert parts["covisits"] == pytest.approx((0.25 * 4 + 2 * 1) * told)
    assert scores == pytest.approx(_scores(stacked) + 3 * told, abs=1e-4)
    at = np.array([toy.NOW_MS])
    (together,) = stacked.recall_batch([PERSON], at, POPULARITY, told[None])
    assert together == pytest.approx(scores, abs=1e-4)
    assert "covisits" not in stacked.recall(PERSON, toy.NOW_MS, POPULARITY)[1]


def test_scores_follow_the_rows_and_a_cold_item_is_scored(ensemble: Ensemble) -> None:
    rows = np.append(np.random.default_rng(0).permutation(toy.NUM_ITEMS), -1)
    moved = ensemble.permute(rows, toy.text_vectors()[[39]], np.array([[3, 4, 5]]))
    place = np.argsort(rows[:-1])
    same = History(place[PERSON.item].astype(np.int32), PERSON.type, PERSON.ts)
    popularity = np.append(POPULARITY[rows[:-1]], POPULARITY[[39]], axis=0)
    after = moved.recall(same, toy.NOW_MS, popularity)[0]
    assert moved.num_items == toy.NUM_ITEMS + 1
    assert moved.raw_dim == toy.RAW_DIM
    old = _scores(ensemble)[rows[:-1]]
    assert np.argsort(-after[:-1])[:5].tolist() == np.argsort(-old)[:5].tolist()
    assert np.isfinite(after).all()


def test_similarity_is_the_mean_cosine(ensemble: Ensemble, members: list[Servable]) -> None:
    cosine = ensemble.similarity(7)
    assert cosine[7] == pytest.approx(1.0, abs=1e-5)
    assert cosine == pytest.approx(sum(m.similarity(7) for m in members) / 2, abs=1e-6)


def test_one_member_alone_is_that_member(members: list[Servable]) -> None:
    alone = Ensemble(members[:1], EnsembleConfig((toy.PLAIN,)))
    assert (_scores(alone) == _scores(members[0])).all()


@pytest.mark.parametrize("config", CONFIGS, ids=[config.combine for config in CONFIGS])
def test_joined_tensors_open_as_the_ensemble_whatever_order_rows_have(
    config: EnsembleConfig, exports: list[dict[str, torch.Tensor]], members: list[Servable]
) -> None:
    order = np.random.default_rng(1).permutation(toy.NUM_ITEMS)
    moved = dict(exports[1])
    for name in (f"items.{name}" for name in SERVED_ROWS):
        moved[name] = moved[name][order]
    tensors, rows = joined([(exports[0], IDS), (moved, [IDS[row] for row in order])])
    assert rows == IDS
    opened = scorer_of(tensors, {"model": {}, "ensemble": asdict(config)})
    wanted = _scores(Ensemble(members, config))
    assert _scores(opened) == pytest.approx(wanted, abs=1e-5)


def test_what_a_member_does_not_know_is_left_out(exports: list[dict[str, torch.Tensor]]) -> None:
    short = dict(exports[1])
    for name in (f"items.{name}" for name in SERVED_ROWS):
        short[name] = short[name][:30]
    tensors, rows = joined([(exports[0], IDS), (short, IDS[:30])])
    assert rows == IDS[:30]
    assert scorer_of(tensors, {"ensemble": asdict(CONFIGS[0])}).num_items == 30


def test_a_single_model_is_opened_by_its_configuration(
    exports: list[dict[str, torch.Tensor]], members: list[Servable]
) -> None:
    opened = scorer_of(exports[0], {"model": asdict(toy.PLAIN)})
    assert (_scores(opened) == _scores(members[0])).all()


def test_members_that_do_not_fit_together_are_refused(members: list[Servable]) -> None:
    fewer = members[1].permute(
        np.arange(5), np.zeros((0, toy.RAW_DIM), np.float32), np.zeros((0, 3), np.int64)
    )
    with pytest.raises(ModelError, match="no ensemble of 2"):
        Ensemble([members[0], fewer], CONFIGS[0])
    with pytest.raises(ModelError, match="no ensemble of 2"):
        Ensemble(members[:1], CONFIGS[0])


@pytest.mark.parametrize(
    ("combine", "weights", "said"),
    [
        ("median", (), "known are"),
        ("score-average", (1.0, 1.0), "recall_weights"),
        ("stacking", (1.0,), "takes 2"),
        ("stacking", (1.0, -1.0), "not negative"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(
    combine: Combine, weights: tuple[float, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        EnsembleConfig((toy.PLAIN, WIDE), combine, weights, weights)
    with pytest.raises(ConfigError, match="no members"):
        EnsembleConfig(())
