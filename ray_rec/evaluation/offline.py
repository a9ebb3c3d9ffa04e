"""One harness for all rankers: fit on what a split lets be learned, rank the whole catalogue."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.asking.questions import Queries
from ray_rec.evaluation.asking.splits import Split
from ray_rec.evaluation.metrics.ranking import target_ranks
from ray_rec.evaluation.rankers.baselines import Ranker
from ray_rec.features.arrays import Float64

CHUNK_QUERIES = 128  # scores of so many queries over all items are held at once

Progress = Callable[[str, int, int], None]
"""Told (ranker, queries done, queries in all)."""


def judge(
    split: Split,
    rankers: Iterable[Ranker],
    repeats: bool = False,
    most: int = 0,
    progress: Progress | None = None,
) -> Ranked:
    """Fit each ranker once and rank every target among all N items, equal scores counting half.

    Args:
        split: what may be learned and what is asked.
        rankers: new ones; each learns the training part in one window.
        repeats: whether what a user took before may come again. If not, it is ranked last, and an
            event that repeats is no target.
        most: at most so many targets, chosen by a stable hash; 0: all.
        progress: told how far it is.

    Raises:
        DataError: no target is left.
    """
    split = (split if repeats else split.without_repeats()).sampled(most)
    queries, training = split.queries(), split.training()
    ranks = {}
    for ranker in rankers:
        ranker.observe(training)
        parts = []
        for done, part in _parts(queries):
            parts.append(_ranked(ranker, part, repeats))
            if progress is not None:
                progress(ranker.name, done, len(queries))
        ranks[ranker.name] = np.concatenate(parts)
    window = np.zeros(len(queries), np.int64)
    return Ranked(window, queries.user, queries.target_query, split.times_learned(), ranks)


def _parts(queries: Queries) -> Iterator[tuple[int, Queries]]:
    for start in range(0, len(queries), CHUNK_QUERIES):
        end = min(start + CHUNK_QUERIES, len(queries))
        yield end, queries.part(start, end)


def _ranked(ranker: Ranker, queries: Queries, repeats: bool) -> Float64:
    scores = ranker.scores(queries)
    if not repeats:
        scores = scores.astype(np.float32, copy=True)
        for row, history in enumerate(queries.histories):
            scores[row, history.item] = -np.inf
    return target_ranks(scores, queries.target_query, queries.target_item)
