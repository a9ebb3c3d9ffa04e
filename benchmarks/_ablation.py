"""One row of benchmarks.ablation: the hybrid without one of its parts, and what it answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from benchmarks._asked import before_test, by_time, keep, options, pretrained
from ray_rec.config import RunConfig
from ray_rec.evaluation.asking.logged import Logged
from ray_rec.evaluation.asking.splits import Split, item_holdout
from ray_rec.evaluation.asking.tables import Events
from ray_rec.evaluation.offline import View, judge_views
from ray_rec.evaluation.rankers.baselines import Ranker
from ray_rec.evaluation.rankers.hybrid import Frozen, Hybrid
from ray_rec.evaluation.rankers.live import Company
from ray_rec.evaluation.rankers.neighbours import TextKnn
from ray_rec.features.arrays import Bool
from ray_rec.model.servable import MODEL
from ray_rec.model.text import Vectors
from ray_rec.training.texts import text_key

_GIVEN = f"{MODEL}recall.text"
"""Of what was learned, the weights of late text: each row has those of its configuration."""


@dataclass(frozen=True)
class Row:
    """How a row differs from the whole.

    Attributes:
        model: who is asked: hybrid, hybrid-frozen, company or text-knn.
        texts: what texts are to it: whole, none, or random.
        held: what of a tenth of the items is not learned: nothing (""), all that ever happened to
            them, as if they were not there (gone), or only what was before the split (live).
        start: the row whose model is asked; "" trains one.
        questions: how many are asked; 0: all.
    """

    name: str
    config: RunConfig
    model: str = "hybrid"
    texts: str = "whole"
    held: str = ""
    start: str = ""
    questions: int = 0


def answer(row: Row, logged: Logged, passes: int, earlier: bool, key: str, kept: Path) -> None:
    """Learn, ask, and keep the answers, with the place of each target and whether it is held."""
    torch.set_num_threads(row.config.training.torch_threads)
    split, held = asked(logged.events, row.held, earlier, row.questions)
    items, raw = TEXTS[row.texts](logged.items, pretrained(row.config, _texts(logged.items)))
    start = None
    if row.start:
        start = torch.load(kept.with_name(f"{row.start}.pt"))
        del start[_GIVEN]
    ranker = _ranker(row, items, raw, 0 if row.start else passes, start)
    view = View(np.ones(len(split.target), np.bool_), repeats=False)
    answers = judge_views(split, [ranker], [view])[0]
    kept.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(ranker, Hybrid) and not row.start:
        torch.save(ranker.learned(), kept.with_suffix(".pt"))
    own = {"place": split.target, "held": held, "collected": answers.collected}
    keep(kept, replace(answers, ranks={row.name: answers.ranks[ranker.name]}), {"key": key}, **own)


def _ranker(
    row: Row, items: pa.Table, raw: Vectors, passes: int, start: dict[str, Tensor] | None
) -> Ranker:
    if row.model == Company.name:
        return Company(row.config.features)
    if row.model == TextKnn.name:
        return TextKnn(raw, row.config.model.text_dim)
    hybrid = Hybrid(row.config, items, raw, passes, True, start=start)
    return Frozen(hybrid) if row.model == Frozen.name else hybrid


def asked(events: Events, hold: str, earlier: bool, most: int = 0) -> tuple[Split, Bool]:
    """Return the questions, and which targets [T] are held items; `hold` is that of a row."""
    if not hold:
        split = by_time(events, earlier).without_repeats().sampled(most)
        return split, np.zeros(len(split.target), np.bool_)
    events = before_test(events, earlier)
    split = item_holdout(events, options=options(earlier)).without_repeats().sampled(most)
    held = np.isin(events.item[split.target], events.item[~split.known])
    if hold == "live":
        begun = events.ts >= options(earlier).begin_ms(events.ts)
        split = replace(split, known=split.known | begun)
    return split, held


def _none(items: pa.Table, raw: Vectors) -> tuple[pa.Table, Vectors]:
    place = items.schema.get_field_index("text")
    field = items.schema.field(place)
    empty = pa.array([""] * items.num_rows, field.type)
    return items.set_column(place, field, empty), np.zeros_like(raw)


def _random(items: pa.Table, raw: Vectors) -> tuple[pa.Table, Vectors]:
    """Return a vector for each distinct text, drawn by its hash; zeros stay where there is none."""
    out = np.zeros_like(raw)
    for row, text in enumerate(_texts(items)):
        if text:
            drawn = np.random.default_rng(text_key(text))
            out[row] = drawn.standard_normal(raw.shape[1], np.float32)
    return items, out


TEXTS: dict[str, Callable[[pa.Table, Vectors], tuple[pa.Table, Vectors]]] = {
    "whole": lambda items, raw: (items, raw),
    "none": _none,
    "random": _random,
}
"""The catalogue and the vectors of its texts, as a row knows them."""


def _texts(items: pa.Table) -> Sequence[str]:
    return [str(text) for text in items["text"].to_pylist()]
