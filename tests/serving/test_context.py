"""What a request tells of its moment reaches its answer: the item on the page, and words."""

import numpy as np
import pyarrow as pa
import pytest

from ray_rec.events import EVENTS
from ray_rec.features.config import FeatureConfig
from ray_rec.features.histories import History
from ray_rec.log import open_log
from ray_rec.registry import Version
from ray_rec.serving.answers import Answer, Request
from ray_rec.serving.context import Sought, looking_at, sought
from ray_rec.serving.engine import Engine
from ray_rec.serving.metrics import Metrics
from tests.serving import builders, shop
from tests.serving.test_engine import LATER_MS, bought, make, update

WORDS = builders.Words()
FEATURES = FeatureConfig()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Version, dict[str, pa.Table]]:
    with open_log(f"sqlite:///{tmp_path_factory.mktemp('log')}/log.db") as log:
        shop.fill(log)
        version, state = builders.version_of(log, 1, WORDS)
        return version, state.snapshot()


@pytest.fixture
def engine(made: tuple[Version, dict[str, pa.Table]]) -> Engine:
    version, snapshot = made
    return make(snapshot, version)


def ask(engine: Engine, words: str | None = None, encoder: str = "words", **more: object) -> Answer:
    """Ask for a stranger, at one moment."""
    request = Request(
        user_id="stranger", request_id="r1", num=48, explain=True, ts=LATER_MS, **more
    )
    found = None if words is None else Sought(WORDS.encode([words])[0], encoder)
    return engine.recommend(request, found)


def part(answer: Answer, name: str) -> dict[str, float]:
    return {item.item_id: (item.explain or {})[f"recall.{name}"] for item in answer.items}


def history(*items: int) -> History:
    return History(np.array(items, np.int32), np.zeros(len(items), np.int8), np.arange(len(items)))


def test_without_context_a_stranger_gets_what_is_popular(engine: Engine) -> None:
    update(engine, EVENTS, *(bought(f"n{number}", "cheese-9") for number in range(50)))
    answer = ask(engine)
    popular = part(answer, "popularity")
    assert max(popular, key=lambda item: popular[item]) == "cheese-9"
    assert set(part(answer, "text").values()) == {0.0}
    assert set(part(answer, "repeat").values()) == {0.0}


def test_words_bring_up_what_reads_like_them(engine: Engine) -> None:
    plain, asked = ask(engine), ask(engine, "rose seeds garden")
    text = part(asked, "text")
    best = sorted(text, key=lambda item: -text[item])
    assert set(best[:3]) == {"garden-3", "garden-7", "garden-11"}  # rose seeds of three makers
    for name in ("taste", "popularity", "repeat"):  # nothing but the text's part differs
        assert part(asked, name) == pytest.approx(part(plain, name))
    clicks = ({item.item_id: item.p_click for item in answer.items} for answer in (plain, asked))
    assert next(clicks) == pytest.approx(next(clicks))


def test_the_item_on_the_page_counts_as_viewed_and_is_not_shown(engine: Engine) -> None:
    answer = ask(engine, item="tea-1")
    assert len(answer.items) == 47
    text = part(answer, "text")
    assert "tea-1" not in text
    best = sorted(text, key=lambda item: -text[item])
    assert set(best[:2]) == {"tea-5", "tea-9"}  # green leaves of the other makers
    assert engine.profiles.history("stranger", 5) == []
    unknown = ask(engine, item="no such item")
    assert [item.item_id for item in unknown.items] == [item.item_id for item in ask(engine).items]


def test_words_of_another_encoder_are_passed_over(engine: Engine) -> None:
    asked = ask(engine, "rose seeds garden", encoder="another")
    assert [item.score for item in asked.items] == [item.score for item in ask(engine).items]


def test_a_view_of_now_by_hand() -> None:
    after = looking_at(history(4, 5), 7, FEATURES, at_ms=90)
    assert (after.item.tolist(), after.ts.tolist()) == ([4, 5, 7], [0, 1, 90])
    assert after.type.tolist() == [0, 0, FEATURES.event_types.index("view")]
    assert looking_at(history(4, 7), 7, FEATURES, at_ms=90).item.tolist() == [4, 7]
    assert looking_at(history(4), -1, FEATURES, at_ms=90).item.tolist() == [4]
    buys = FeatureConfig(target_types=("purchase",))
    assert looking_at(history(), 7, buys, at_ms=90).type.tolist() == [
        buys.event_types.index("purchase")
    ]


def test_an_encoder_that_fails_costs_the_words_alone() -> None:
    def broken(texts: object, digest: str) -> None:
        raise RuntimeError("the encoder is being replaced")

    metrics = Metrics()
    assert sought("rose", "words", broken, metrics) is None
    assert 'ray_rec_follower_errors_total{source="encoder"} 1.0' in metrics.text()
