"""One harness for all rankers: fit on what a split lets be learned, rank the whole catalogue."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.asking.split import Split
from ray_rec.evaluation.metrics.catalogue import top_items
from ray_rec.evaluation.metrics.ranking import target_ranks
from ray_rec.evaluation.rankers.baselines import Ranker
from ray_rec.features.arrays import AnyArray, Bool, Float64, Int64

CHUNK_QUERIES = 128  # scores of so many queries over all items are held at once


Progress = Callable[[str, int, int], None]
"""Told (ranker, queries done, queries in all)."""


class Asking(Protocol):
    """What is learned, and what is asked: T targets of Q queries."""

    def training(self) -> Interactions:
        """Return what rankers are fitted on."""

    def queries(self) -> Queries:
        """Return what is asked."""

    def times_learned(self) -> Int64:
        """Return how often each target's item is among the learned events, [T]."""


@dataclass(frozen=True)
class View:
    """Which targets count [T], and whether what a user took before may come again.

    If it may not, it is ranked last.
    """

    targets: Bool
    repeats: bool


def judge(
    split: Split,
    rankers: Iterable[Ranker],
    repeats: bool = False,
    most: int = 0,
    progress: Progress | None = None,
    cutoff: int = 10,
) -> Ranked:
    """Fit each ranker once and rank every target among all N items, equal scores counting half.

    Args:
        split: what may be learned and what is asked.
        rankers: new ones; each learns the training part in one window.
        repeats: whether what a user took before may come again. If not, it is ranked last, and an
            event that repeats is no target.
        most: at most so many targets, chosen by a stable hash; 0: all.
        progress: told how far it is.
        cutoff: length of the lists that are kept.

    Raises:
        DataError: no target is left.
    """
    split = (split if repeats else split.without_repeats()).sampled(most)
    view = View(np.ones(len(split.target), np.bool_), repeats)
    return judge_views(split, rankers, [view], progress, cutoff)[0]


def judge_views(
    asking: Asking,
    rankers: Iterable[Ranker],
    views: Sequence[View],
    progress: Progress | None = None,
    cutoff: int = 10,
) -> list[Ranked]:
    """Fit each ranker once, score once, and rank for each view: its targets alone, of who has any.

    Scores are held for `CHUNK_QUERIES` at a time; of each query its `cutoff` best items are kept.
    """
    queries, training, seen = asking.queries(), asking.training(), asking.times_learned()
    out = [_Answers(queries, view, seen, cutoff) for view in views]
    for ranker in rankers:
        ranker.observe(training)
        for start in range(0, len(queries), CHUNK_QUERIES):
            end = min(start + CHUNK_QUERIES, len(queries))
            scores = ranker.scores(queries.part(start, end))
            for answers in out:
                answers.take(ranker.name, start, scores)
            if progress is not None:
                progress(ranker.name, end, len(queries))
    return [answers.ranked() for answers in out]


class _Answers:
    """Collects ranks and lists of one view, chunk by chunk."""

    def __init__(self, queries: Queries, view: View, seen: Int64, cutoff: int) -> None:
        self._queries, self._repeats, self._cutoff = queries, view.repeats, cutoff
        self._seen = seen[view.targets]
        self._collected = (seen + queries.taken_meanwhile())[view.targets]
        self._asked, self._query = np.unique(
            queries.target_query[view.targets], return_inverse=True
        )
        self._item = queries.target_item[view.targets]
        self._parts: dict[str, list[tuple[Float64, Int64]]] = {}

    def take(self, name: str, start: int, scores: AnyArray) -> None:
        """Rank by the scores [C, N] of the queries from `start` on."""
        low, high = np.searchsorted(self._asked, [start, start + len(scores)])
        first, last = np.searchsorted(self._query, [low, high])
        rows = self._asked[low:high] - start
        own = scores if len(rows) == len(scores) else scores[rows]
        if not self._repeats:
            own = own.astype(np.float32, copy=True)
            for row, query in enumerate(self._asked[low:high].tolist()):
                own[row, self._queries.histories[query].item] = -np.inf
        ranks = target_ranks(own, self._query[first:last] - low, self._item[first:last])
        self._parts.setdefault(name, []).append((ranks, top_items(own, self._cutoff)))

    def ranked(self) -> Ranked:
        """Return all of it."""
        ranks, lists = {}, {}
        for name, parts in self._parts.items():
            of_parts = zip(*parts, strict=True)
            ranks[name], lists[name] = (np.concatenate(part) for part in of_parts)
        window = np.zeros(len(self._asked), np.int64)
        user, past = self._queries.user[self._asked], self._queries.past()[self._asked]
        return Ranked(window, user, self._query, self._seen, self._collected, ranks, lists, past)
