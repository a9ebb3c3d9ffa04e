"""What the click head is told when it learns is what it is told when it answers, to the bit."""

import numpy as np

from ray_rec.features.arrays import lists
from ray_rec.features.examples import assign_steps, collate
from ray_rec.features.histories import History
from ray_rec.model.config import ModelConfig
from ray_rec.model.shown import Candidates
from ray_rec.training.config import LearnerConfig
from ray_rec.training.learner import Learner
from tests.features.builders import T0, Stream, event, exposure, item

CONFIG = ModelConfig(
    dim=16,
    text_dim=16,
    tower_dim=16,
    click_inputs="rates",
    affinities=("text", "category", "brand"),
    calendar=True,
)
WORDS = {"milk. farm": 0, "bread. farm": 1, "tea. farm": 2, "": 3}


def _learned(learner: Learner, made: object) -> None:
    """Let a learner take a window as the stream does."""
    texts = made.items["text"].to_pylist()
    vectors = np.eye(4, 24, dtype=np.float32)[[WORDS[text] for text in texts]]
    learner.observe(made.items, vectors)
    rows = assign_steps(made.examples, 8)
    learner.learn(made, rows, 1 + max(rows["step"].to_pylist(), default=-1))


def test_an_exposure_is_learned_with_what_serving_knew_of_its_items() -> None:
    stream = Stream(attribution_ms=100, lateness_ms=0, held_out_share=0.0)
    learner = Learner(CONFIG, LearnerConfig())
    shop = [
        item("a", "milk", brand="farm"),
        item("b", "milk", brand="farm"),
        item("c", "bread", brand="farm"),
        item("d", "tea", brand="farm"),
    ]
    first = [exposure(f"r{n}", f"u{n}", T0 + n, ["a", "b", "c"]) for n in range(6)]
    clicks = [event(f"u{n}", "a", T0 + 10 + n, "click") for n in range(4)]
    _learned(learner, stream.window(*shop, *first, *clicks))
    _learned(learner, stream.window(advance_to_ms=T0 + 1_000))  # all six have closed
    servable = learner.servable()
    asked = exposure("s", "u1", T0 + 2_000, ["b", "d", "a"])
    arrived = stream.window(asked)
    known = stream.state.histories.last("u1")
    shown = np.array([stream.state.catalogue.index.row(name) for name in ("b", "d", "a")])
    served = servable.click(known, T0 + 2_000, arrived.popularity, shown)
    others = [exposure(f"t{n}", f"v{n}", T0 + 2_001 + n, ["b", "d"]) for n in range(3)]
    _learned(learner, stream.window(*others, event("u1", "b", T0 + 2_010, "click")))
    end = stream.window(advance_to_ms=T0 + 5_000)
    closed = end.examples
    (row,) = [n for n, ts in enumerate(closed["query_ts"].to_pylist()) if ts == [T0 + 2_000]]
    batch = collate(closed.slice(row, 1), CONFIG.num_outcomes)
    seen = History(batch.item[0].astype(np.int32), batch.type[0].astype(np.int8), batch.ts[0])
    told = Candidates(
        query=batch.shown_query,
        item=batch.shown_item,
        popularity=batch.shown_popularity,
        rates=batch.shown_rates,
        placement=batch.shown_placement,
    )
    learned = servable.click_batch([seen], batch.query_ts, told)
    assert lists(closed.slice(row, 1), "shown_labels")[0].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(learned, served)
    # b was never clicked, but a is of its text and was, by four of six; nobody was shown d
    assert end.responses[shown, 0].tolist() == [6 + 1 + 3, 1 + 3, 6 + 1]


def test_people_held_out_are_not_counted() -> None:
    stream = Stream(attribution_ms=100, lateness_ms=0, held_out_share=0.5)
    shown = [exposure(f"r{n}", f"u{n}", T0, ["a"]) for n in range(40)]
    made = stream.window(*shown)
    closed = stream.window(advance_to_ms=T0 + 1_000)
    learned = [not held for held in closed.examples["held_out"].to_pylist()]
    assert 0 < sum(learned) < 40
    assert made.responses.tolist() == [[0, 0, 0, 0]]
    assert closed.responses.tolist() == [[sum(learned), 0, 0, 0]]
