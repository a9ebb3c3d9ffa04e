"""Answers what a user should see next, from the log's state and one version of the model.

State is written by one follower and read by requests, under one short lock; the version is one
reference that is swapped, so a request sees a single version from start to end.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_rec.errors import RayRecError
from ray_rec.events import ITEMS
from ray_rec.features.arrays import column
from ray_rec.features.config import FeatureConfig
from ray_rec.features.histories import History
from ray_rec.features.state import FeatureState
from ray_rec.model.ensemble import scorer_of
from ray_rec.registry import Manifest, Version
from ray_rec.serving.answers import Answer, Details, Request, SimilarItem
from ray_rec.serving.cold import ColdTexts
from ray_rec.serving.config import ServingConfig
from ray_rec.serving.context import Sought, looking_at, placed
from ray_rec.serving.live import Live, to_replica_order, with_cold
from ray_rec.serving.policy import Choice, epsilon_greedy, greedy, request_generator
from ray_rec.serving.profiles import Profiles
from ray_rec.serving.ranking import best_rows, combined, likeliest
from ray_rec.serving.shelf import Shelf, details_of
from ray_rec.serving.slate import Ranking, answer_items, similar_items

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


class NotReady(RayRecError):
    """No version is loaded yet, so nothing can be answered."""


class _View(NamedTuple):
    """What one request sees: a version, and the state at one moment."""

    live: Live
    history: History
    popularity: Float32  # [N, P]
    covisits: Float32 | None  # [N], None where none are remembered
    eligible: Bool  # [N]
    sought: Float32 | None  # [text_dim] raw, by the version's encoder


class Engine:
    """State, version and policy of one replica; every method may be called from any thread."""

    def __init__(
        self, features: FeatureConfig, serving: ServingConfig, state: FeatureState | None = None
    ) -> None:
        self.features = features
        self.serving = serving
        self.state = state or FeatureState(features)
        self.catalogue = self.state.catalogue
        self._shelf = Shelf(self.catalogue)
        self._cold = ColdTexts(self.catalogue)
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self.profiles = Profiles(self.state, self._lock)
        self._live: Live | None = None
        self._popularity: tuple[float, Float32] | None = None

    # State and versions come in.

    def update(self, tables: Mapping[str, pa.Table]) -> None:
        """Apply decoded records (topic -> table) to the state; requests see them from here on."""
        with self._lock:
            before = len(self.catalogue)
            self.state.update(tables)
            if ITEMS in tables:
                rows = self.catalogue.rows(column(tables[ITEMS], "item_id"))
                self._cold.touch(row for row in rows.tolist() if not self._learned(row))
            if ITEMS in tables or len(self.catalogue) > before:
                self._shelf.changed()

    def _learned(self, row: int) -> bool:
        return (
            self._live is not None and row < self._live.num_rows and bool(self._live.learned[row])
        )

    def cold_texts(self, version: Version) -> list[str]:
        """Return the distinct texts that have a vector now, of items that `version` lacks."""
        with self._lock:
            return self._cold.encoded(unless=set(version.rows))

    def swap(self, version: Version, cold: Mapping[str, Float32] | None = None) -> None:
        """Take a version into service; it is built beside the old one, then replaces it.

        `cold` gives raw vectors [text_dim] of texts, by the version's encoder, where that changes.
        """
        servable = scorer_of(version.tensors, version.manifest.config)
        with self._building:
            with self._lock:
                if self._live and self._live.manifest.encoder != version.manifest.encoder:
                    self._cold.renew(cold or {})
                item_ids, groups = list(self.catalogue.item_id), self.catalogue.groups.copy()
            live = to_replica_order(version, servable, item_ids, groups, self._cold_of)
            with self._lock:
                self._cold.keep(np.flatnonzero(~live.learned).tolist())
                self._cold.touch(np.flatnonzero(~live.has_vector).tolist())
                self._cold.settle(np.flatnonzero(live.learned).tolist())
                self._live = live

    def _cold_of(self, rows: list[int]) -> Mapping[int, Float32]:
        with self._lock:
            return self._cold.known(rows)

    def missing_texts(self, limit: int = 256) -> list[str]:
        """Return texts that are to be encoded, of items that the version has not learned."""
        with self._lock:
            return self._cold.missing(limit) if self._live and len(self._cold) else []

    def add_texts(self, texts: Sequence[str], vectors: Float32, encoder: str) -> None:
        """Take an encoder's raw vectors [n, text_dim] of texts; only the version's own counts."""
        with self._building:
            with self._lock:
                if self._live is None or self._live.manifest.encoder != encoder:
                    return
                self._cold.add(texts, vectors)
                live, groups = self._live, self.catalogue.groups.copy()
                placed = self._cold.known(self._cold.waiting()) if len(self._cold) else {}
            if not placed:
                return
            live = with_cold(live, groups, placed)
            with self._lock:
                now = self._cold.known(placed)
                self._cold.settle(row for row, v in placed.items() if now.get(row) is v)
                self._live = live

    @property
    def num_without_vector(self) -> int:
        """Items that wait for their text's vector."""
        return len(self._cold)

    # Answers go out.

    @property
    def version(self) -> int | None:
        """The version in service, None for none."""
        return None if self._live is None else self._live.manifest.version

    @property
    def manifest(self) -> Manifest:
        """The manifest of the version in service; NotReady when there is none."""
        return self._served().manifest

    def _served(self) -> Live:
        if self._live is None:
            raise NotReady("no model version is loaded yet: train one, or wait for the first")
        return self._live

    def recommend(self, request: Request, sought: Sought | None = None) -> Answer:
        """Answer a request with one version; fewer than `num` items only if no more may be shown.

        Raises:
            NotReady: no version is loaded yet.
        """
        at_ms = time.time_ns() // 1_000_000 if request.ts is None else request.ts
        view = self._view(request, at_ms, sought)
        ranking = self._rank(view, at_ms, request)
        choice = self._choose(request, len(ranking.rows))
        return Answer(
            request_id=request.request_id,
            user_id=request.user_id,
            model_version=view.live.manifest.version,
            policy=self.policy,
            ts=at_ms,
            items=answer_items(
                request, ranking, choice, self.catalogue, self.features.outcome_types
            ),
        )

    def _view(self, request: Request, at_ms: int, sought: Sought | None) -> _View:
        live = self._served()
        n = live.num_rows
        with self._lock:
            history = self.state.histories.last(request.user_id)
            popularity = self._popular(n)[:n]
            if request.category is None:
                eligible = self._shelf.available()[:n] & live.has_vector
            else:
                eligible = self._shelf.in_category(request.category)[:n] & live.has_vector
            excluded = [self.catalogue.index.row(i) for i in (*request.exclude, request.item or "")]
            history = looking_at(history, excluded[-1], self.features, at_ms)
            covisits = self.state.covisits.support(history.item, popularity)
        eligible[[row for row in excluded if 0 <= row < n]] = False
        known = history.item < n
        known[known] = live.has_vector[history.item[known]]
        seen = History(history.item[known], history.type[known], history.ts[known])
        words = sought.by(live.manifest.encoder) if sought else None
        return _View(live, seen, popularity, covisits, eligible, words)

    def _popular(self, num_rows: int) -> Float32:
        """Return popularity features [>= num_rows, P], at most `popularity_s` old."""
        now = time.monotonic()
        if self._popularity is not None:
            made, features = self._popularity
            if now - made < self.serving.popularity_s and len(features) >= num_rows:
                return features
        self.state.popularity.grow(len(self.catalogue))
        features = self.state.popularity.features()
        self._popularity = (now, features)
        return features

    def _rank(self, view: _View, at_ms: int, request: Request) -> Ranking:
        servable = view.live.servable
        scores, parts = servable.recall(
            view.history, at_ms, view.popularity, view.covisits, view.sought
        )
        rows = best_rows(scores, view.eligible, max(self.serving.pool, request.num))
        placement = placed(request.placement, len(rows))
        outcomes = servable.click(view.history, at_ms, view.popularity, rows, placement)
        total = combined(scores[rows], likeliest(outcomes), self.serving.click_weight)
        order = np.argsort(-total, kind="stable")
        return Ranking(rows[order], total[order], outcomes[order], parts)

    @property
    def policy(self) -> str:
        """The policy's name as exposures carry it."""
        serving = self.serving
        return f"{serving.policy}:{serving.epsilon:g}" if serving.policy != "greedy" else "greedy"

    def _choose(self, request: Request, num_ranked: int) -> Choice:
        if self.serving.policy == "greedy":
            return greedy(num_ranked, request.num)
        generator = request_generator(self.serving.seed, request.request_id)
        return epsilon_greedy(num_ranked, request.num, self.serving.epsilon, generator)

    def similar(self, item_id: str, num: int) -> list[SimilarItem] | None:
        """Return the items most like one by item vector; None when it is unknown or not encoded."""
        live = self._served()
        row = self.catalogue.index.row(item_id)
        if not 0 <= row < live.num_rows or not live.has_vector[row]:
            return None
        with self._lock:
            eligible = self._shelf.available()[: live.num_rows] & live.has_vector
        eligible[row] = False
        scores = live.servable.similarity(row)
        return similar_items(self.catalogue, best_rows(scores, eligible, num), scores)

    def details(self, item_id: str) -> Details | None:
        """Return what is known of an item, None when it is unknown."""
        row = self.catalogue.index.row(item_id)
        return None if row < 0 else details_of(self.catalogue, row)
