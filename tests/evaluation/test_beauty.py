"""Baselines on Amazon Beauty against what others have measured on the same split.

Expected: popularity of 28 days, live, .063/.037 (HR@10/NDCG@10) and text-kNN .056 to .058 / .028 to
.035; each may differ by .008 and .006: the order of a day's reviews is not in the data, and a
standard error of HR is .002.
"""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.asking.split import Split
from ray_rec.evaluation.asking.splits import TimeOptions, global_time
from ray_rec.evaluation.asking.tables import Events
from ray_rec.evaluation.metrics.ranking import ranking
from ray_rec.evaluation.offline import judge
from ray_rec.evaluation.rankers.baselines import Ranker
from ray_rec.evaluation.rankers.live import LivePopularity
from ray_rec.evaluation.rankers.neighbours import TextKnn
from ray_rec.features.config import TOKEN_TYPES, FeatureConfig
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.text import TextStore, Vectors

REVIEWS = FeatureConfig(event_types=(*TOKEN_TYPES, "review", "other"), target_types=("review",))


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "amazon14_beauty"


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    items = [str(name) for name in pq.read_table(folder / "items.parquet")["item_id"].to_pylist()]
    events = Events.of(pq.read_table(folder / "events.parquet"), items, REVIEWS)
    return global_time(events, TimeOptions(0.9, same_time=True))  # stamps are whole days


@pytest.fixture(scope="module")
def raw(folder: Path, pytestconfig: pytest.Config) -> Vectors:
    """Real vectors of all titles: a minute or two once, then from pytest's cache."""
    assert pytestconfig.cache is not None
    encoder = TextEncoder(EncoderConfig())
    store = TextStore(str(pytestconfig.cache.mkdir("texts")), encoder.digest)
    titles = pq.read_table(folder / "items.parquet")["title"].to_pylist()
    return store.vectors([str(title) for title in titles], encoder.encode)


def measured(split: Split, ranker: Ranker) -> tuple[Ranked, float, float]:
    judged = judge(split, [ranker])
    found = ranking(judged.ranks[ranker.name], judged.target_query, len(judged.user))
    return judged, float(found.hit.mean()), float(found.ndcg.mean())


def test_popularity_of_28_days_kept_live(split: Split) -> None:
    judged, hit, ndcg = measured(split, LivePopularity())
    assert len(judged.user) == 15_412
    assert (judged.seen == 0).mean() == pytest.approx(0.165, abs=0.0005)
    assert hit == pytest.approx(0.063, abs=0.008)
    assert ndcg == pytest.approx(0.037, abs=0.006)


def test_text_knn_on_whitened_vectors(split: Split, raw: Vectors) -> None:
    _, hit, ndcg = measured(split, TextKnn(raw))
    assert hit == pytest.approx(0.057, abs=0.008)
    assert ndcg == pytest.approx(0.0315, abs=0.006)
