"""Two processes with unequal shares learn what one process learns from all rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.training.config import LearnerConfig
from ray_rec.training.course import Stretch
from ray_rec.training.epochs import targets
from ray_rec.training.learner import Learner
from ray_rec.training.metrics import Metrics
from ray_rec.training.moments import Moments
from tests.model import toy
from tests.model.encoders import make_encoder
from tests.training.pair import run_pair

NUM_STEPS = 5
SAMPLED = replace(toy.PLAIN, exact_items=0, negatives=16, id_dropout=0.25)
"""Without dropout in the network, but with that of items, which all workers draw alike."""
CONFIGS = {
    "sgd": LearnerConfig(optimizer="sgd", lr=0.05),
    "adamw": LearnerConfig(optimizer="adamw", dtype="float64"),
    "learned-weights": LearnerConfig(optimizer="adamw", dtype="float64"),
    "passes": LearnerConfig(optimizer="adamw", dtype="float64"),
    "continual": LearnerConfig(optimizer="adamw", dtype="float64", elastic=5.0, average=0.5),
}
POLICIES = {*get_args(get_type_hints(EncoderConfig)["policy"])} - {"frozen"}
TUNED = LearnerConfig(optimizer="sgd", lr=0.05, encoder_lr=0.05, encoder_share=0.5)
CONFIGS |= dict.fromkeys(sorted(POLICIES), TUNED)
TOLERANCES = {"sgd": 1e-6, **dict.fromkeys(POLICIES, 1e-5)}
"""Of float32; the others are in float64."""
MODELS = {"learned-weights": replace(SAMPLED, task_weights="uncertainty", calibration="platt")}
"""Of the steps, three have no clicks anywhere, and one no targets."""


def _rows() -> list[dict[str, Any]]:
    """Mixed rows of five steps, two windows."""
    rows = [*toy.ring_rows(60, seed=1), *toy.click_rows(20, seed=2)]
    for at, row in enumerate(rows):
        row["step"], row["offset"] = at // 16, at
    return rows


def _mine(rank: int, count: int) -> list[dict[str, Any]]:
    """A third of the rows, and the rest; worker 1 has none of step 2, worker 0 none of step 3."""
    rows = _rows()
    if count == 1:
        return rows
    mine = [row for at, row in enumerate(rows) if (at % 3 == 0) == (rank == 0)]
    lost = [row for at, row in enumerate(rows) if (at % 3 == 0) != (rank == 0)]
    without = {0: 3, 1: 2}
    kept = [row for row in mine if row["step"] != without[rank]]
    taken = [row for row in lost if row["step"] == without[1 - rank]]
    return sorted([*kept, *taken], key=lambda row: int(row["offset"]))


def _encoder(policy: Any, folder: Path) -> TextEncoder:
    """One whose sizes are small; half of AdaLoRA's ranks are gone after six of the ten steps."""
    sizes = {"max_tokens": 8, "top_layers": 1, "rank": 2, "rank_steps": 6}
    sizes |= {"prefix_length": 2, "bottleneck": 4}
    return TextEncoder(EncoderConfig(model=str(folder / "encoder"), policy=policy, **sizes))


def _learned(name: str, rank: int, count: int, folder: Path) -> tuple[dict[str, Any], Metrics]:
    torch.set_num_threads(1)
    encoder = _encoder(name, folder) if name in POLICIES else None
    learner = Learner(MODELS.get(name, SAMPLED), CONFIGS[name], encoder=encoder)
    texts = toy.items()["text"].to_pylist()
    learner.observe(toy.items(), encoder.encode(texts) if encoder else toy.text_vectors())
    if name == "passes":
        learner.count(targets(toy.table(_rows())))
    total = Metrics()
    for number in range(2):
        rows, stretch = _mine(rank, count), _stretch(number) if name == "passes" else None
        window = toy.window(number, rows)
        total += learner.test(window, toy.table(rows))
        total += learner.learn(window, toy.table(rows), NUM_STEPS, stretch=stretch)
        learner.calibrate(toy.table(toy.click_rows(12, seed=50 + number)))
        learner.published()
    return learner.state(), total


def _stretch(number: int) -> Stretch:
    """One of two passes, with popularity of two times."""
    popularity = np.stack([toy.popularity(seed=seed) for seed in (4, 5)])
    moments = Moments(np.array([0, toy.NOW_MS]), popularity)
    return Stretch(moments, number / 2, (number + 1) / 2)


def _worker(rank: int, folder: Path) -> None:
    for name in CONFIGS:
        state, metrics = _learned(name, rank, 2, folder)
        torch.save({"state": state, "metrics": dict(metrics.sums)}, f"{folder}/{name}{rank}.pt")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what two workers learned, by configuration and rank."""
    folder = tmp_path_factory.mktemp("workers")
    make_encoder(folder / "encoder", "bert")
    run_pair(_worker, folder)
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_two_workers_equal_one(name: str, together: Path) -> None:
    tolerance = TOLERANCES.get(name, 1e-12)
    alone, tested = _learned(name, 0, 1, together)
    made = [torch.load(together / f"{name}{rank}.pt") for rank in range(2)]
    one, other = (worker["state"] for worker in made)
    for key, wanted in alone.items():
        torch.testing.assert_close(
            one[key], wanted, rtol=tolerance, atol=tolerance, equal_nan=True, msg=key
        )
        assert torch.equal(one[key].nan_to_num(), other[key].nan_to_num()), key
    assert made[0]["metrics"] == made[1]["metrics"]
    for key in ("recall_loss", "click_loss", "hr@10", "ndcg@10"):
        assert np.allclose(made[0]["metrics"][key], tested.sums[key], rtol=1e-5), key


def test_the_shares_are_unequal_and_each_lacks_a_step() -> None:
    shares = [_mine(rank, 2) for rank in range(2)]
    steps = [{row["step"] for row in share} for share in shares]
    assert [set(range(NUM_STEPS)) - found for found in steps] == [{3}, {2}]
    assert sorted(row["offset"] for share in shares for row in share) == list(range(80))
    assert len(shares[0]) != len(shares[1])
