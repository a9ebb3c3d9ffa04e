"""Evaluations of a small shop's log: every protocol, what is read, and what is refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ray_rec.config import RunConfig, load_config
from ray_rec.errors import ConfigError, DataError, LogUnavailable
from ray_rec.evaluation.asking.logged import read_log
from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.asking.splits import global_time
from ray_rec.evaluation.evaluate import evaluate
from ray_rec.evaluation.offline import judge
from ray_rec.evaluation.options import EvaluateOptions, Protocol, seeds_of
from ray_rec.evaluation.rankers.hybrid import Frozen, Hybrid
from ray_rec.evaluation.rankers.models import MODELS, QUICK, STREAMING, Makings
from ray_rec.evaluation.reports.evaluation import write_evaluation
from ray_rec.events.schema import CONTROLS, EVENTS, Record
from ray_rec.features.histories import History
from ray_rec.log.base import EventLog, create_standard_topics, open_log
from ray_rec.model.encoder import TextEncoder
from ray_rec.training.config import LearnerConfig
from tests.model.encoders import make_encoder
from tests.training.conftest import SMALL
from tests.training.shop import START_MS, fill_items, fill_visits


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("shop")
    with open_log(f"sqlite:///{folder}/log.db") as log:
        create_standard_topics(log, 2)
        fill_items(log)
        fill_visits(log, 400)
    places = (f"log=sqlite:///{folder}/log.db", f"state_dir={folder}/state")
    return load_config(None, (*SMALL, *places), environ={})


@pytest.fixture(scope="module")
def sociable(config: RunConfig) -> RunConfig:
    """The same, but what was taken together counts."""
    features = replace(config.features, covisits=20)
    return replace(config, features=features, model=replace(config.model, late_covisits=3.0))


@pytest.fixture
def own_log(tmp_path: Path) -> Iterator[EventLog]:
    with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        create_standard_topics(log, 2)
        yield log


def put(log: EventLog, topic: str, *records: dict) -> None:
    log.append(
        topic,
        [Record(r["user_id"].encode(), msgspec.json.encode(r), r["ts"]) for r in records],
    )


def event(number: int, user: str, item: str, ts: int) -> dict:
    taken = {"user_id": user, "item_id": item, "event_type": "purchase", "ts": ts}
    return {"event_id": f"e{number}", **taken}


# reports


@pytest.mark.parametrize("protocol", ["global-time", "leave-one-out", "item-holdout"])
def test_reports_say_what_was_asked_and_found(
    config: RunConfig, tmp_path: Path, protocol: Protocol
) -> None:
    options = EvaluateOptions(protocol, ("text-knn", "own-frequency"), repeats=True)
    told: list[tuple[str, int, int]] = []
    report = evaluate(config, options, lambda *done: told.append(done))
    headline = write_evaluation(report, tmp_path)
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(stored["recall"]) == ["text-knn", "own-frequency", "popularity"]
    assert stored["protocol"] == headline["protocol"] == protocol
    assert stored["items"] == 48
    assert told[-1] == ("popularity", stored["queries"], stored["queries"])
    assert stored["queries"] == 40  # the last tenth of 400 events; one for each of 40 users
    assert stored["queries"] == sum(b["targets"] for b in stored["by_times_seen"].values())
    assert sum(stage["targets"] for stage in stored["warm_up"].values()) == 40
    assert stored["learned"] < 400
    assert stored["data"]["counts"]["events"] == 400
    page = (tmp_path / "evaluation.html").read_text()
    assert "<h1>Evaluation</h1>" in page
    assert "own-frequency" in page
    assert page.count("<svg") == 4 + 2  # a metric's bars each, items and users as they warm up
    assert "How it learned" not in page
    assert "<script" not in page


def test_clicks_are_judged_where_models_of_them_are_named(
    config: RunConfig, tmp_path: Path
) -> None:
    options = EvaluateOptions(models=("logistic", "item-prior"), repeats=True)
    headline = write_evaluation(evaluate(config, options), tmp_path)
    assert set(headline["recall"]) == {"popularity"}
    assert set(headline["click_auc"]) == {"purchase"}
    assert headline["click_auc"]["purchase"]["logistic"] > 0.7
    page = (tmp_path / "evaluation.html").read_text()
    assert "AUC above prior" in page
    assert "shown fewer than 20 times before" in page
    with pytest.raises(ConfigError, match="no model 'logistic' here"):
        EvaluateOptions("leave-one-out", ("logistic",))


def test_prequential_is_a_backtest_beside_the_models_named(
    config: RunConfig, tmp_path: Path
) -> None:
    models = ("user-knn", "live-popularity")
    options = EvaluateOptions("prequential", models, twins=True, max_queries=20)
    headline = write_evaluation(evaluate(config, options), tmp_path)
    assert set(headline["above_twins"]) == {"recall-only", "click-only"}
    assert set(headline["recall"]) == {"hybrid", "user-knn", "live-popularity", "popularity"}
    assert "<h1>Backtest</h1>" in (tmp_path / "evaluation.html").read_text()


def test_what_draws_is_trained_under_each_seed(config: RunConfig, tmp_path: Path) -> None:
    models, told = ("sasrec", "user-knn"), list[tuple[str, int, int]]()
    options = EvaluateOptions("leave-one-out", models, seeds=(0, 1, 2), references=("user-knn",))
    write_evaluation(evaluate(config, options, lambda *done: told.append(done)), tmp_path)
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert [name for name, done, total in told if done == total].count("sasrec") == 3
    assert [name for name, done, total in told if done == total].count("user-knn") == 1
    assert stored["seeds"] == [0, 1, 2]
    found = stored["recall"]["sasrec"]["mrr"]
    assert len(set(found["by_seed"])) == 3
    assert stored["above_user-knn"]["sasrec"]["mrr"]["seed_error"] == found["seed_error"]
    assert 0 < stored["lists"]["user-knn"]["coverage"]["value"] <= 1
    page = (tmp_path / "evaluation.html").read_text()
    assert "Above user-knn" in page
    assert "What the lists show" in page


def test_it_repeats_itself(config: RunConfig) -> None:
    options = EvaluateOptions(models=("hybrid", "random"), max_queries=20, repeats=True)
    first, second = (evaluate(config, options) for _ in range(2))
    assert first["queries"] == 20
    for part in ("recall", "by_times_seen", "data"):
        assert json.dumps(first[part]) == json.dumps(second[part])


# the hybrid


def test_the_hybrid_knows_people_with_habits_better_than_popularity(
    config: RunConfig, tmp_path: Path
) -> None:
    options = EvaluateOptions(models=("hybrid",), passes=5, repeats=True)
    report = evaluate(config, options)
    assert report["above_popularity"]["hybrid"]["mrr"]["low"] > 0
    assert list(report["learning"]) == ["hybrid"]
    curve = report["learning"]["hybrid"]
    assert curve["unit"] == "pass"
    (losses,) = curve["losses"]
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)
    write_evaluation(report, tmp_path)
    assert ">hybrid: loss</figcaption>" in (tmp_path / "evaluation.html").read_text()


def test_the_hybrid_knows_nothing_of_the_time_of_a_question_or_later(sociable: RunConfig) -> None:
    with open_log(sociable.log) as log:
        logged = read_log(log, sociable)
    split = global_time(logged.events)
    queries = split.queries()
    model = Hybrid(sociable, logged.items, Makings(sociable, logged.items, 1).raw)
    model.observe(split.training())
    before = model.scores(queries.part(0, 5))
    fresh = queries.fresh
    later = fresh.ts >= queries.ts[4]
    assert later.any()
    changed = fresh.take(np.arange(len(fresh.ts)))
    changed.item[later] = 0
    asked = replace(queries.part(0, 5), fresh=changed)
    assert (model.scores(asked) == before).all()


def test_frozen_counts_stop_where_learning_ended(sociable: RunConfig) -> None:
    with open_log(sociable.log) as log:
        logged = read_log(log, sociable)
    split = global_time(logged.events)
    queries, training = split.queries(), split.training()
    model = Hybrid(sociable, logged.items, Makings(sociable, logged.items, 1).raw)
    frozen = Frozen(model)
    for ranker in (frozen, model):
        ranker.observe(training)  # learned once
    live, stopped = model.scores(queries), frozen.scores(queries)
    assert (live != stopped).any()
    nothing = replace(queries, fresh=queries.fresh.take(np.zeros(0, int)))
    assert frozen.scores(nothing) == pytest.approx(stopped, abs=1e-5)
    alone = Hybrid(sociable, logged.items, Makings(sociable, logged.items, 1).raw)
    alone.observe(training)
    assert alone.scores(queries) == pytest.approx(live, abs=1e-5)


def test_company_counts_once_its_time_has_come(config: RunConfig, sociable: RunConfig) -> None:
    with open_log(config.log) as log:
        logged = read_log(log, config)
    raw = Makings(config, logged.items, 1).raw
    plain, model = (Hybrid(each, logged.items, raw) for each in (config, sociable))
    fresh = Interactions(  # two take item 0, one of them item 1 after it, the other item 2
        user=np.array([0, 0, 1, 1]),
        item=np.array([0, 1, 0, 2]),
        ts=np.array([10, 20, 30, 40]),
        type=np.zeros(4, np.int8),
    )
    ts, nobody = np.array([20, 21, 40, 41]), np.zeros(0, np.int64)
    taken = History(np.zeros(1, np.int32), np.zeros(1, np.int8), np.full(1, 5))
    num_items = logged.items.num_rows
    queries = Queries(np.full(4, 2), ts, [taken] * 4, nobody, nobody, fresh, num_items)
    company = model.scores(queries) - plain.scores(queries)
    found = [np.flatnonzero(np.abs(row) > 1e-4).tolist() for row in company]
    assert found == [[], [1], [1], [1, 2]]
    # at 41 each is one of two companions, and was taken once but for decay
    assert company[3, [1, 2]] == pytest.approx(3 * np.log1p(10 / 2**0.5 / 2**0.25), rel=1e-3)
    assert (model.scores(queries, frozen=True) == plain.scores(queries, frozen=True)).all()


def test_the_hybrid_scores_alike_whatever_the_order_of_questions(sociable: RunConfig) -> None:
    with open_log(sociable.log) as log:
        logged = read_log(log, sociable)
    split = global_time(logged.events)
    queries = split.queries()
    model = Hybrid(sociable, logged.items, Makings(sociable, logged.items, 1).raw)
    model.observe(split.training())
    whole = model.scores(queries)
    for query in reversed(range(0, len(queries), 7)):
        assert model.scores(queries.part(query, query + 1))[0] == pytest.approx(
            whole[query], abs=1e-4
        )


def test_the_hybrid_answers_for_a_user_with_ten_thousand_events(config: RunConfig) -> None:
    with open_log(config.log) as log:
        logged = read_log(log, config)
    model = Hybrid(config, logged.items, Makings(config, logged.items, 1).raw)
    split = global_time(logged.events)
    model.observe(split.training())
    asked = split.queries().part(0, 1)
    short = asked.histories[0]
    repeated = 1 + 10_000 // len(short.item)
    long = type(short)(*(np.resize(tokens, repeated * len(tokens)) for tokens in short))
    assert np.isfinite(model.scores(replace(asked, histories=[long]))).all()


def test_more_passes_learn_more(config: RunConfig) -> None:
    with open_log(config.log) as log:
        logged = read_log(log, config)
    raw = Makings(config, logged.items, 1).raw
    split = global_time(logged.events)
    once, often = (
        judge(split, [Hybrid(config, logged.items, raw, passes)], repeats=True).ranks["hybrid"]
        for passes in (1, 6)
    )
    assert (1 / often).mean() > (1 / once).mean()


def test_an_encoder_learns_with_the_hybrid_from_what_another_knew(
    config: RunConfig, tmp_path: Path
) -> None:
    folder = str(make_encoder(tmp_path / "bert", "bert"))
    encoder = replace(config.encoder, model=folder, max_tokens=8, policy="adapter", bottleneck=4)
    still = replace(config.learner, lr=1e-12, id_lr=1e-12, encoder_lr=1e-12)
    state_dir, model = str(tmp_path / "state"), replace(config.model, text_dim=16)
    config = replace(config, encoder=encoder, learner=still, state_dir=state_dir, model=model)
    with open_log(config.log) as log:
        logged = read_log(log, config)
    raw, split = Makings(config, logged.items, 1).raw, global_time(logged.events)
    known = Hybrid(replace(config, learner=LearnerConfig()), logged.items, raw, passes=2)
    answers = judge(split, [known], repeats=True).ranks["hybrid"]

    def gone_on(learner: LearnerConfig) -> tuple[Hybrid, np.ndarray]:
        own = replace(config, learner=learner)
        made = Hybrid(own, logged.items, raw, 1, False, TextEncoder(encoder), known.learned())
        return made, judge(split, [made], repeats=True).ranks["hybrid"]

    assert gone_on(still)[1] == pytest.approx(answers, abs=1.5)  # bfloat16 orders like scores anew
    tuned, found = gone_on(replace(still, encoder_lr=1e-2, encoder_share=1.0))
    assert (found != answers).any()
    text = known.learned()["items.text"]
    assert (tuned.learned()["items.text"] - text).abs().max() > 0.1
    assert tuned.learned().keys() == known.learned().keys()


# what is read


def test_events_are_read_once_and_not_against_their_users_will(
    own_log: EventLog, config: RunConfig
) -> None:
    put(
        own_log,
        EVENTS,
        event(1, "ann", "milk", 10),
        event(1, "ann", "milk", 10),
        event(2, "ann", "tea", 20),
        event(3, "bob", "milk", 10),
        event(4, "bob", "tea", 40),
        event(5, "cem", "rice", 10),
    )
    put(
        own_log,
        CONTROLS,
        {"user_id": "bob", "action": "forget", "ts": 30},
        {"user_id": "cem", "action": "opt_out", "ts": 30},
    )
    logged = read_log(own_log, config)
    events = logged.events
    taken = zip((events.item_ids[item] for item in events.item), events.ts.tolist(), strict=True)
    assert sorted(taken) == [("milk", 10), ("tea", 20), ("tea", 40)]
    assert set(logged.items["text"].to_pylist()) == {""}


def test_a_stretch_between_two_times(config: RunConfig) -> None:
    start, end = START_MS + 100 * 60_000, START_MS + 300 * 60_000
    options = EvaluateOptions(models=("popularity",), repeats=True, start=str(start), end=str(end))
    report = evaluate(config, options)
    assert 190 <= report["data"]["counts"]["events"] <= 210
    assert report["items"] == 48


# bad input


def test_a_log_without_events_is_named(own_log: EventLog, config: RunConfig) -> None:
    with pytest.raises(DataError, match="0 events in the stretch"):
        read_log(own_log, config)


def test_a_log_that_does_not_answer(tmp_path: Path) -> None:
    other = load_config(None, (f"log=sqlite:///{tmp_path}/none.db",), environ={})
    with pytest.raises(LogUnavailable):
        evaluate(other, EvaluateOptions())


def test_names_that_are_not_known_are_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no model 'sasrek' here.*did you mean 'sasrec'"):
        EvaluateOptions(models=("popularity", "sasrek"))
    with pytest.raises(ConfigError, match=r"each once"):
        EvaluateOptions(models=("popularity", "popularity"))
    with pytest.raises(ConfigError, match=r"no model 'sasrec' here"):
        EvaluateOptions("prequential", ("sasrec",))
    with pytest.raises(ConfigError, match=r"no model 'sasrec' here"):
        EvaluateOptions(models=("popularity",), references=("sasrec",))
    with pytest.raises(ConfigError, match=r"seeds are \[1, 1\]; name each once"):
        EvaluateOptions(seeds=(1, 1))
    with pytest.raises(ConfigError, match=r"none for a replay"):
        EvaluateOptions("prequential", ("popularity",), seeds=(1,))
    with pytest.raises(ConfigError, match=r"take protocol prequential, not next-basket"):
        EvaluateOptions("next-basket", twins=True)
    with pytest.raises(ConfigError, match=r"--set model\.select="):
        EvaluateOptions(models=("click-head", "item-prior"), select=("item rate",))
    EvaluateOptions(models=("click-head", "logistic"), select=("item rate",))
    with pytest.raises(ConfigError, match=r"seeds are '0;1'"):
        seeds_of("0;1")
    with pytest.raises(ConfigError, match=r"no protocol 'luck'; known are prequential"):
        EvaluateOptions("luck")


@pytest.mark.parametrize("name", ["passes", "cutoff", "max_queries"])
def test_options_that_cannot_work(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is -1"):
        EvaluateOptions(**{name: -1})


def test_every_list_names_models_that_exist() -> None:
    assert {*QUICK, *STREAMING} <= MODELS.keys()
    assert {MODELS[name](None).name for name in STREAMING} == set(STREAMING)
