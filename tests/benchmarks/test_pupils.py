"""Answers of several models to the same questions: kept by seed, joined by name, compared."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import _pupils
from ray_rec.errors import DataError
from ray_rec.evaluation.asking.ledger import Ledger
from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.clicks.measures import Judged
from ray_rec.evaluation.prequential import MODEL
from ray_rec.features.histories import History


def run(names: list[str], ranks: list[list[float]], clicks: list[list[float]]) -> dict[str, Any]:
    """Two users are asked for one thing each, and shown two items each of which one is taken."""
    labels, said = np.zeros((4, 3), np.float32), np.zeros((len(names), 4, 3), np.float32)
    labels[[0, 2], _pupils.OUTCOME] = 1
    said[:, :, _pupils.OUTCOME] = clicks
    return {
        "names": np.array(names),
        "window": np.array([1, 1]),
        "user": np.array([3, 4]),
        "seen": np.array([0, 9]),
        "target_query": np.array([0, 1]),
        "ranks": np.array(ranks),
        "shown_window": np.zeros(4, int),
        "shown_user": np.array([3, 3, 4, 4]),
        "labels": labels,
        "clicks": said,
    }


RIGHT, WRONG = [0.9, 0.1, 0.8, 0.2], [0.1, 0.9, 0.2, 0.8]


def test_models_are_joined_by_their_names_whatever_their_order() -> None:
    first = run(["plain", "other"], [[1, 20], [1, 1]], [WRONG, RIGHT])
    second = run(["other", "plain"], [[1, 2], [30, 1]], [RIGHT, WRONG])
    ranked = _pupils.ranked_by([first, second], ["plain", "other"])
    assert ranked.ranks["plain"].tolist() == [1, 20, 30, 1]
    assert ranked.ranks["other"].tolist() == [1, 1, 1, 2]
    assert ranked.target_query.tolist() == [0, 1, 2, 3]
    found = _pupils.compared_to([first, second], ranked, ["plain", "other"], "plain")
    assert found["plain"]["hr@10"]["value"] == 1 / 2
    assert found["other"]["above"]["hr@10"]["value"] == 1 / 2
    assert (found["plain"]["auc"]["value"], found["other"]["auc"]["value"]) == (0, 1)
    assert found["other"]["above"]["auc"]["value"] == 1
    assert "above" not in found["plain"]


def test_models_that_were_not_asked_the_same_are_not_compared() -> None:
    def pupil(user: int, rank: float) -> SimpleNamespace:
        ledger, one = Ledger(), np.array([user])
        history = History(np.zeros(1, np.int32), np.zeros(1, np.int8), np.zeros(1, np.int64))
        done = Interactions(*np.zeros((4, 0), np.int64))
        zero = np.array([0])
        asked = Queries(one, np.array([9]), [history], zero, zero, done, 2)
        ledger.add_ranks(1, asked, zero, {MODEL: np.array([rank])})
        shown = np.full((1, 3), 0.5, np.float32)
        ledger.add_clicks(1, Judged(one, np.zeros((1, 3), np.float32), shown, shown))
        return SimpleNamespace(ledger=ledger)

    found = _pupils.answers({"plain": pupil(3, 1.0), "other": pupil(3, 2.0)})
    assert (found["names"], found["ranks"].tolist()) == (["plain", "other"], [[1.0], [2.0]])
    with pytest.raises(DataError, match="not asked the same"):
        _pupils.answers({"plain": pupil(3, 1.0), "other": pupil(4, 1.0)})


def test_a_seed_is_measured_again_when_its_key_is_another(tmp_path: Path) -> None:
    made: list[str] = []

    def answered() -> dict[str, Any]:
        made.append("once more")
        return run(["plain"], [[1, 1]], [RIGHT])

    for key in ("a", "a", "b"):
        _pupils.measure(tmp_path / "kept" / "7.npz", key, answered, again=False)
    assert len(made) == 2
    _pupils.measure(tmp_path / "kept" / "7.npz", "b", answered, again=True)
    assert len(made) == 3
    kept = _pupils.kept_runs(tmp_path / "kept")
    assert [*kept] == [7]
    assert len(_pupils.commits([kept[7]]).rstrip("+")) == 12


def test_answers_of_other_models_are_not_mixed(tmp_path: Path) -> None:
    for seed, name in enumerate(("plain", "other")):
        answered = run([name], [[1, 1]], [RIGHT])
        _pupils.measure(tmp_path / f"{seed}.npz", "key", lambda made=answered: made, again=False)
    with pytest.raises(DataError, match="measure all seeds again"):
        _pupils.kept_runs(tmp_path)
