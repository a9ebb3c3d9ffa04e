"""The engine with real weights of a tiny shop."""

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from ray_rec.events import EVENTS, ITEMS, LOG_SCHEMA, Event, Item, decode
from ray_rec.features.state import FeatureState
from ray_rec.log import EventLog, open_log
from ray_rec.model.items import SERVED_ROWS
from ray_rec.registry import Version
from ray_rec.serving.answers import Answer, AnswerItem, Request
from ray_rec.serving.config import ServingConfig
from ray_rec.serving.engine import Engine, NotReady
from tests.serving import builders, shop

WORDS = builders.Words()
LATER_MS = (
    int(time.time() * 1000) + 86_400_000
)  # after whatever the shop saw, however long a run takes


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    with open_log(f"sqlite:///{tmp_path_factory.mktemp('log')}/log.db") as log:
        shop.fill(log)
        yield log


@pytest.fixture(scope="module")
def versions(log: EventLog) -> dict[int, Version]:
    return {number: builders.version_of(log, number, WORDS)[0] for number in (1, 2)}


@pytest.fixture(scope="module")
def snapshot(log: EventLog) -> dict[str, pa.Table]:
    return builders.version_of(log, 1, WORDS)[1].snapshot()


def make(
    snapshot: dict[str, pa.Table], version: Version | None, config: ServingConfig | None = None
) -> Engine:
    state = FeatureState.restore(builders.FEATURES, [snapshot])
    engine = Engine(builders.FEATURES, config or ServingConfig(), state)
    if version is not None:
        engine.swap(version)
    return engine


@pytest.fixture
def engine(snapshot: dict[str, pa.Table], versions: dict[int, Version]) -> Engine:
    return make(snapshot, versions[1])


_offset = iter(range(10_000, 10**9))


def update(engine: Engine, topic: str, *structs: Event | Item) -> None:
    records = shop.records(topic, structs)
    rows = [(0, next(_offset), r.ts, r.key, r.value) for r in records]
    columns = zip(*rows, strict=True)
    raw = pa.table(dict(zip(LOG_SCHEMA.names, map(list, columns), strict=True)), LOG_SCHEMA)
    engine.update({topic: decode(topic, raw).table})


def encode_missing(engine: Engine) -> list[str]:
    texts = engine.missing_texts()
    engine.add_texts(texts, WORDS.encode(texts), "words")
    return texts


def ask(engine: Engine, user_id: str = "u1", **more: object) -> Answer:
    return engine.recommend(Request(user_id=user_id, request_id="r1", **more))


def everything(engine: Engine) -> list[AnswerItem]:
    return list(ask(engine, num=48, explain=True, ts=LATER_MS).items)


def ids(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]


def bought(user: str, item: str, ts: int = LATER_MS) -> Event:
    number = next(_offset)
    return Event(event_id=f"n{number}", user_id=user, item_id=item, event_type="purchase", ts=ts)


def put(item_id: str, title: str = "fermented pu-erh leaves", available: bool = True) -> Item:
    return Item(item_id=item_id, title=title, category="tea", ts=1, available=available)


def test_without_a_version_it_says_so(snapshot: dict[str, pa.Table]) -> None:
    engine = make(snapshot, None)
    assert engine.version is None
    with pytest.raises(NotReady, match="no model version is loaded yet"):
        ask(engine)
    assert engine.missing_texts() == []


def test_a_greedy_answer_is_ordered_and_certain(engine: Engine) -> None:
    answer = ask(engine, num=7)
    assert answer.model_version == 1
    assert answer.policy == "greedy"
    assert [item.position for item in answer.items] == [1, 2, 3, 4, 5, 6, 7]
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert {item.propensity for item in answer.items} == {1.0}


def test_scores_are_the_parts_that_are_explained(engine: Engine) -> None:
    for item in ask(engine, num=48, explain=True, ts=LATER_MS).items:
        assert item.explain is not None
        recall = sum(value for name, value in item.explain.items() if name.startswith("recall."))
        p = max(value for name, value in item.explain.items() if name.startswith("p."))
        assert item.p_click == p
        assert item.score == pytest.approx(recall + 0.5 * np.log(p / (1 - p)), abs=1e-4)


def test_the_rows_order_of_a_version_does_not_matter(
    snapshot: dict[str, pa.Table], versions: dict[int, Version]
) -> None:
    version = versions[1]
    order = np.random.default_rng(9).permutation(len(version.rows))
    moved = dict(version.tensors)
    for name in (f"items.{name}" for name in SERVED_ROWS):
        moved[name] = moved[name][order]
    other = Version(moved, [version.rows[row] for row in order], version.manifest)
    one, two = (ask(make(snapshot, v), num=48, ts=LATER_MS) for v in (version, other))
    assert ids(one) == ids(two)
    for a, b in zip(one.items, two.items, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-4)


def test_a_stranger_is_answered_and_an_event_changes_the_answer(engine: Engine) -> None:
    before = ask(engine, "stranger", num=20)
    assert len(before.items) == 20
    update(engine, EVENTS, bought("stranger", "garden-3"), bought("stranger", "garden-4"))
    after = ask(engine, "stranger", num=20)
    assert ids(after) != ids(before)
    assert engine.profiles.users(1) == ["stranger"]
    history = engine.profiles.history("stranger", 1)
    assert [(past.item_id, past.event_type) for past in history] == [("garden-4", "purchase")]
    assert history[0].title == "north hose reel garden"


def test_what_others_took_with_it_comes_next(versions: dict[int, Version]) -> None:
    model = replace(builders.MODEL, late_covisits=8.0)
    manifest = replace(versions[1].manifest, config={"model": asdict(model)})
    engine = Engine(replace(builders.FEATURES, covisits=5), ServingConfig(popularity_s=1e-9))
    update(engine, ITEMS, *shop.items())
    engine.swap(Version(versions[1].tensors, versions[1].rows, manifest))
    update(engine, EVENTS, bought("ann", "tea-1"))
    before = ask(engine, "ann", num=48, explain=True, ts=LATER_MS)
    assert {item.explain["recall.covisits"] for item in before.items if item.explain} == {0.0}
    for user in ("bob", "cid"):
        update(engine, EVENTS, bought(user, "tea-1"), bought(user, "paper-7"))
    after = ask(engine, "ann", num=48, explain=True, ts=LATER_MS)
    assert ids(after)[0] == "paper-7" != ids(before)[0]
    found = {item.item_id: item.explain["recall.covisits"] for item in after.items if item.explain}
    # both companions of tea-1, divided by their root, and by its count of two
    assert found.pop("paper-7") == pytest.approx(8 * np.log1p(10 * 2 / 2**0.5 / 3**0.25), rel=1e-4)
    assert set(found.values()) == {0.0}


def test_what_is_promoted_from_now_on_comes_first_and_says_so(log: EventLog) -> None:
    model = replace(builders.MODEL, num_promotions=1)
    features = replace(builders.FEATURES, promotions=("mailer",))
    version, state = builders.version_of(log, 1, WORDS, model, features)
    version.tensors["model.recall.popularity"][:2] = torch.tensor([100.0, -4.0])
    engine = Engine(features, ServingConfig(popularity_s=1e-9), state)
    engine.swap(version)
    assert {item.explain["recall.promotion"] for item in everything(engine)} == {0.0}
    (tea,) = [item for item in shop.items() if item.item_id == "tea-1"]
    update(engine, ITEMS, structs.replace(tea, ts=LATER_MS, promotion={"mailer": 0.5, "radio": 1}))
    first, *others = everything(engine)
    assert (first.item_id, first.explain["recall.promotion"]) == ("tea-1", 50.0)
    assert {item.explain["recall.promotion"] for item in others} == {0.0}
    update(engine, ITEMS, structs.replace(tea, ts=LATER_MS))
    assert {item.explain["recall.promotion"] for item in everything(engine)} == {0.0}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num=st.integers(1, 60),
    exclude=st.sets(st.sampled_from([item.item_id for item in shop.items()])),
    category=st.sampled_from([None, "tea", "paper", "none such"]),
)
def test_filters_never_cost_answers(
    engine: Engine, num: int, exclude: set[str], category: str | None
) -> None:
    allowed = {
        item.item_id
        for item in shop.items()
        if item.item_id not in exclude and category in (None, item.category)
    }
    answer = ask(engine, num=num, exclude=tuple(exclude), category=category)
    assert len(answer.items) == min(num, len(allowed))
    assert set(ids(answer)) <= allowed


def test_a_new_item_is_placed_by_its_text_alone(engine: Engine) -> None:
    update(engine, ITEMS, put("new"))
    assert "new" not in ids(ask(engine, num=100))
    assert engine.similar("new", 3) is None
    assert engine.num_without_vector == 1
    assert encode_missing(engine) == ["fermented pu-erh leaves. tea"]
    assert engine.num_without_vector == 0
    assert "new" in ids(ask(engine, num=100))
    similar = engine.similar("new", 48)
    assert similar is not None
    assert len(similar) == 48
    update(engine, ITEMS, put("new", title="north steel spade garden"))
    assert encode_missing(engine) == ["north steel spade garden. tea"]
    changed = engine.similar("new", 48)
    assert changed is not None
    assert [item.item_id for item in changed] != [item.item_id for item in similar]


def test_the_same_text_is_encoded_once_and_kept_through_a_swap(
    engine: Engine, versions: dict[int, Version]
) -> None:
    update(engine, ITEMS, put("new"))
    encode_missing(engine)
    update(engine, ITEMS, put("twin"))
    assert encode_missing(engine) == []
    assert {"new", "twin"} <= set(ids(ask(engine, num=100)))
    engine.swap(versions[2])
    assert engine.missing_texts() == []
    answer = ask(engine, num=100)
    assert answer.model_version == 2
    assert {"new", "twin"} <= set(ids(answer))


def test_vectors_of_another_encoder_than_the_versions_are_not_taken(
    engine: Engine, log: EventLog
) -> None:
    update(engine, ITEMS, put("new"), put("late", "roasted green leaves"))
    late = WORDS.encode(["roasted green leaves. tea"])
    engine.add_texts(["fermented pu-erh leaves. tea"], late, "words")
    assert "new" in ids(ask(engine, num=100))
    other = builders.Words(32, "other")
    version = builders.version_of(log, 2, other)[0]
    assert engine.cold_texts(version) == ["fermented pu-erh leaves. tea"]
    engine.swap(version)
    engine.add_texts(["roasted green leaves. tea"], late, "words")  # asked for before the swap
    assert not {"new", "late"} & set(ids(ask(engine, num=100)))
    texts = engine.missing_texts()
    engine.add_texts(texts, other.encode(texts), "other")
    assert {"new", "late"} <= set(ids(ask(engine, num=100)))


def test_items_that_are_gone_or_unavailable_are_not_shown(engine: Engine) -> None:
    update(engine, ITEMS, put("tea-1", available=False))
    answer = ask(engine, num=100)
    assert len(answer.items) == 47
    assert "tea-1" not in ids(answer)
    similar = engine.similar("tea-2", 100)
    assert similar is not None
    assert len(similar) == 46
    update(engine, ITEMS, put("tea-1"))
    assert len(ask(engine, num=100).items) == 48


def test_an_item_only_seen_in_behaviour_waits_for_its_text(engine: Engine) -> None:
    update(engine, EVENTS, bought("u1", "unheard of"))
    assert engine.missing_texts() == []
    assert len(ask(engine, num=100).items) == 48  # and the history goes on without it
    update(engine, ITEMS, put("unheard of"))
    encode_missing(engine)
    assert "unheard of" in ids(ask(engine, num=100))


def test_exploration_is_repeatable_and_logged_with_its_propensity(
    snapshot: dict[str, pa.Table], versions: dict[int, Version]
) -> None:
    config = ServingConfig(policy="epsilon-greedy", epsilon=0.5, seed=3)
    engine = make(snapshot, versions[1], config)
    answer = ask(engine, num=8)
    assert ids(ask(engine, num=8)) == ids(answer)
    assert answer.policy == "epsilon-greedy:0.5"
    # 8 slots over 40 items below them: 0.5 / 40 for an explored one, 1 - 0.5 for the others.
    assert {round(item.propensity, 6) for item in answer.items} == {0.5, 0.0125}
    exposure = answer.exposure(Request(user_id="u1", request_id="r1"))
    assert [item.propensity for item in exposure.items] == [
        item.propensity for item in answer.items
    ]


def test_the_click_head_is_told_where_items_will_stand(log: EventLog) -> None:
    model = replace(builders.MODEL, click_inputs="rates")
    version, state = builders.version_of(log, 1, WORDS, model)
    engine = make(state.snapshot(), version)

    def chances(placement: str | None) -> list[float | None]:
        answer = ask(engine, num=48, placement=placement, ts=LATER_MS)
        return [item.p_click for item in sorted(answer.items, key=lambda item: item.item_id)]

    assert chances("front page") == chances("front page")
    assert len({tuple(chances(place)) for place in (None, "front page", "newsletter")}) == 3


def test_a_request_sees_one_version_while_versions_and_items_come_in(
    snapshot: dict[str, pa.Table], versions: dict[int, Version]
) -> None:
    """Popularity is frozen, so each version has one exact answer; any mixture would differ."""
    config = ServingConfig(popularity_s=60.0)
    expected = {}
    for number, version in versions.items():
        answer = ask(make(snapshot, version, config), num=48, ts=LATER_MS)
        expected[number] = {item.item_id: item.score for item in answer.items}
    engine = make(snapshot, versions[1], config)
    ask(engine, ts=LATER_MS)
    stop = threading.Event()

    def disturb() -> None:
        for number in range(15):
            engine.swap(versions[2 - number % 2])
            update(engine, ITEMS, put(f"more {number}"))
            encode_missing(engine)
        stop.set()

    thread = threading.Thread(target=disturb)
    thread.start()
    seen = set()
    while not stop.is_set():
        answer = ask(engine, num=100, ts=LATER_MS)
        seen.add(answer.model_version)
        for item in answer.items:
            if not item.item_id.startswith("more"):
                known = expected[answer.model_version][item.item_id]
                assert item.score == pytest.approx(known, abs=1e-4)
    thread.join()
    assert seen == {1, 2}
