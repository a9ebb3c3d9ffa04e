"""Every judged answer of a backtest as columns, from which all numbers are made afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ray_rec.evaluation.asking.questions import Queries
from ray_rec.evaluation.clicks.measures import Judged
from ray_rec.features.arrays import AnyArray, Float64, Int64


@dataclass(frozen=True)
class Ranked:
    """Ranks of T targets of Q queries, by ranker."""

    window: Int64  # [Q]
    user: Int64  # [Q]
    target_query: Int64  # [T] -> Q
    seen: Int64  # [T] how often the target had been taken before its window
    collected: Int64  # [T] the same until the question: what a model with live counts knows
    ranks: dict[str, Float64]  # [T]
    lists: dict[str, Int64] = field(default_factory=dict)
    """[Q, k] the best items, by ranker; nothing where they were not kept"""
    past: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """[Q] what its user was known to have done, as much as is remembered; nothing if not kept"""

    def with_answers(self, others: "Ranked") -> "Ranked":
        """Return the same questions with others' answers in the place of those of that name."""
        ranks, lists = {**self.ranks, **others.ranks}, {**self.lists, **others.lists}
        return replace(self, ranks=ranks, lists=lists)

    def of_window(self, number: int) -> "Ranked":
        """Return the part of one window."""
        queries = np.flatnonzero(self.window == number)
        keep = np.isin(self.target_query, queries)
        return Ranked(
            self.window[queries],
            self.user[queries],
            np.searchsorted(queries, self.target_query[keep]),
            self.seen[keep],
            self.collected[keep],
            {name: ranks[keep] for name, ranks in self.ranks.items()},
            {name: lists[queries] for name, lists in self.lists.items()},
            self.past[queries] if len(self.past) else self.past,
        )


@dataclass
class Ledger:
    """Collects windows; `ranked` and `judged` give the whole."""

    _ranked: list[tuple[int, Queries, Int64, dict[str, Float64]]] = field(default_factory=list)
    _judged: list[tuple[int, Judged]] = field(default_factory=list)

    @property
    def has_ranks(self) -> bool:
        """Whether any query was ranked."""
        return bool(self._ranked)

    def add_ranks(
        self, window: int, queries: Queries, seen: Int64, ranks: dict[str, Float64]
    ) -> None:
        """Keep a window's ranks [T] by ranker, and how often each target was `seen` before [T]."""
        self._ranked.append((window, queries, seen, ranks))

    def add_clicks(self, window: int, judged: Judged) -> None:
        """Keep the predictions that met their labels in a window."""
        self._judged.append((window, judged))

    def ranked(self) -> Ranked:
        """Return all ranks."""
        sizes = [len(queries) for _, queries, _, _ in self._ranked]
        first = np.cumsum([0, *sizes])[:-1]
        names = self._ranked[0][3] if self._ranked else {}
        query = [part[1].target_query + at for part, at in zip(self._ranked, first, strict=True)]
        collected = [seen + queries.taken_meanwhile() for _, queries, seen, _ in self._ranked]
        return Ranked(
            np.repeat(np.array([number for number, *_ in self._ranked], np.int64), sizes),
            _joined([queries.user for _, queries, _, _ in self._ranked]),
            _joined(query),
            _joined([seen for _, _, seen, _ in self._ranked]),
            _joined(collected),
            {name: _joined([ranks[name] for *_, ranks in self._ranked]) for name in names},
            past=_joined([queries.past() for _, queries, _, _ in self._ranked]),
        )

    def judged(self) -> tuple[Int64, Judged] | None:
        """Return (window [S], predictions and labels) of all shown items; None without any."""
        if not any(len(judged.user) for _, judged in self._judged):
            return None
        window = [np.full(len(judged.user), number) for number, judged in self._judged]
        columns = zip(*(judged for _, judged in self._judged), strict=True)
        return _joined(window), Judged(*(_joined(column) for column in columns))


def _joined(parts: Sequence[AnyArray]) -> AnyArray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
