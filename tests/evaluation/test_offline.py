"""Rankers in the offline harness: numbers by hand, and a future that is there but not used."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ray_rec.errors import DataError
from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.asking.splits import TimeOptions, global_time, item_holdout, leave_one_out
from ray_rec.evaluation.asking.tables import Events
from ray_rec.evaluation.metrics.ranking import ranking
from ray_rec.evaluation.offline import judge
from ray_rec.evaluation.rankers.baselines import (
    ItemKnn,
    OwnFrequency,
    Popularity,
    Random,
    Ranker,
    RecencyPopularity,
)
from ray_rec.evaluation.rankers.baskets import DecayedFrequency, TifuConfig, TifuKnn
from ray_rec.evaluation.rankers.ensemble import Ensemble
from ray_rec.evaluation.rankers.live import Company, LivePopularity
from ray_rec.evaluation.rankers.neighbours import TextKnn, UserKnn
from ray_rec.evaluation.rankers.sasrec import Average, SasRec, SasRecConfig
from ray_rec.features.arrays import AnyArray
from ray_rec.features.config import DAY_MS, FeatureConfig
from tests.evaluation.tables import Taken, table

ITEMS = ["milk", "bread", "tea", "rice"]
TEXTS = np.eye(4, 6, dtype=np.float32)  # a direction of its own for each item
TINY = SasRecConfig(dim=8, blocks=1, heads=1, length=4, batch=4, epochs=30, peak=0.03, dropout=0.0)

SOCIABLE = FeatureConfig(half_lives_days=(7.0, 1e9), covisits=5)


def by_days(number: int) -> Ranker:
    """Members that are told apart by how long they remember."""
    return LivePopularity(days=7.0 * (1 + number))


RANKERS: dict[str, Callable[[], Ranker]] = {
    "random": Random,
    "popularity": Popularity,
    "recency-popularity": RecencyPopularity,
    "live-popularity": LivePopularity,
    "company": lambda: Company(SOCIABLE),
    "own-frequency": OwnFrequency,
    "item-knn": ItemKnn,
    "user-knn": UserKnn,
    "decayed-frequency": DecayedFrequency,
    "tifu-knn": TifuKnn,
    "text-knn": lambda: TextKnn(TEXTS, 3),
    "sasrec": lambda: SasRec(TINY),
    "two-model-average": lambda: Average(SasRec(TINY), SasRec(TINY, TEXTS)),
    "rank-vote": lambda: Ensemble("rank-vote", by_days, "rank-vote"),
    "stacked": lambda: Ensemble("stacked", by_days, "stacking"),
}


def scores(ranker: Ranker, taken: list[Taken], quantile: float = 0.5) -> AnyArray:
    """Return what a ranker makes of the questions after the split, [Q, 4]."""
    split = global_time(Events.of(table(taken), ITEMS), TimeOptions(quantile))
    ranker.observe(split.training())
    return ranker.scores(split.queries())


def test_live_popularity_counts_until_the_question() -> None:
    day = DAY_MS
    taken = [
        ("ann", "milk", 1 * day),
        ("bob", "milk", 2 * day),
        ("bob", "bread", 3 * day),
        ("ann", "rice", 4 * day),  # asked: days 2 and 3 are known
        ("bob", "tea", 5 * day),  # asked: days 3 and 4
    ]
    found = scores(LivePopularity(days=2), taken)
    assert found.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1]]


def test_company_alone_counts_until_the_question() -> None:
    day = DAY_MS
    taken = [
        *(("ann", "milk", 1 * day), ("bob", "milk", 2 * day), ("ann", "bread", 3 * day)),
        ("bob", "tea", 4 * day),  # asked: bread is in the company of milk, and nothing else
        ("ann", "rice", 5 * day),  # asked: tea is, by half of milk's; bread and milk go together
    ]
    bob, ann = scores(Company(SOCIABLE), taken)
    # One event of each, but two of milk; what nobody will forget counts whole.
    assert bob == pytest.approx([0, np.log1p(10 / 2**0.25), 0, 0], rel=1e-5)
    bread, tea = 1 / 2**0.5 / 2**0.25, 1 / 2**0.5 / 2**0.25
    milk = 1 / 3**0.25
    assert ann == pytest.approx(np.log1p(10 * np.array([milk, bread, tea, 0])), rel=1e-5)


def test_user_knn_mixes_own_and_the_neighbours_things() -> None:
    week = 7 * DAY_MS
    taken = [
        ("ann", "milk", 1 * week),
        ("bob", "milk", 1 * week),
        ("bob", "bread", 2 * week),
        ("cem", "rice", 2 * week),
        ("ann", "tea", 3 * week),
        ("cem", "tea", 3 * week),
    ]
    ann, cem = scores(UserKnn(own=0.5, decay=0.5), taken)
    # bob is (1/2, 1) over milk and bread, of length sqrt(5)/2; nobody is like cem.
    assert ann == pytest.approx([0.5 + 0.5 / 5**0.5, 0.5 * 2 / 5**0.5, 0, 0])
    assert cem == pytest.approx([0, 0, 0, 0.5])


def test_user_knn_takes_the_nearest_only() -> None:
    taken = [
        ("ann", "milk", 1),
        *(("bob", item, 1) for item in ("milk", "bread")),
        *(("cem", item, 1) for item in ("milk", "tea", "rice")),
        ("ann", "rice", 2),
    ]
    (ann,) = scores(UserKnn(neighbours=1, own=0.0), taken)
    assert ann == pytest.approx([2**-0.5, 2**-0.5, 0, 0])


def test_decayed_frequency_by_hand() -> None:
    week = 7 * DAY_MS
    taken = [("ann", "milk", 1 * week), ("ann", "tea", 2 * week), ("ann", "milk", 2 * week)]
    (ann,) = scores(DecayedFrequency(0.5, popular=0.1), [*taken, ("ann", "rice", 3 * week)], 0.7)
    # Milk two weeks and one week old, and the most popular; tea has half its count.
    assert ann == pytest.approx([0.25 + 0.5 + 0.1, 0, 0.5 + 0.05, 0])


def test_tifu_knn_by_hand() -> None:
    week = 7 * DAY_MS
    taken = [
        *(("ann", item, ts * week) for item, ts in (("milk", 1), ("milk", 2), ("bread", 3))),
        *(("bob", item, 3 * week) for item in ("bread", "tea")),
        ("cem", "rice", 3 * week),
        ("ann", "rice", 3 * week + 1),
    ]
    config = TifuConfig(neighbours=1, group_size=2, within=0.5, between=0.4, own=0.75)
    (ann,) = scores(TifuKnn(config), taken, 0.8)
    # Newest group: bread 1/2, milk 1/4; older one: milk 1, times .4; each by two groups. So
    # milk 1/8 + .2, bread 1/4; bob (0, 1, 1, 0) is 1.668 off in the square, cem (0, 0, 0, 1) 1.168.
    assert ann == pytest.approx([0.75 * 0.325, 0.75 * 0.25, 0, 0.25])


def test_tifu_knn_knows_others_as_of_the_last_week_and_a_basket_is_a_set() -> None:
    week = 7 * DAY_MS
    taken = [
        *(("ann", "milk", 1), ("ann", "milk", 2), ("bob", "milk", 1), ("bob", "milk", 2)),
        ("bob", "tea", 3),
        ("ann", "bread", 2 + week),  # bob's tea is a few days old, and not in last week's vectors
        ("ann", "rice", 4 + week),  # now it is
    ]
    before, after = scores(TifuKnn(TifuConfig(own=0.5)), taken, 0.5)[1:]
    # A week counted back parts ann's two events, (1 + .9) / 2 of milk; bob's are one basket.
    assert before.tolist() == pytest.approx([0.5 * 0.95 + 0.5 * 1, 0, 0, 0])
    assert after[2] == 0.25  # the newer of bob's two baskets, and half of it


def test_text_knn_finds_what_reads_alike() -> None:
    raw = np.array([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    taken = [("ann", "milk", 1), ("bob", "tea", 1), ("bob", "bread", 1), ("ann", "rice", 2)]
    (ann,) = scores(TextKnn(raw, 2), taken)
    assert ann[0] == pytest.approx(2)  # itself, as the last and as the mean of all
    assert ann[1] > ann[2]
    assert ann[3] == 0  # without text


def test_text_knn_without_any_text_or_history_scores_nothing() -> None:
    taken = [("ann", "milk", 1), ("ann", "tea", 2)]
    assert not scores(TextKnn(np.zeros((4, 5), np.float32)), taken).any()


def test_random_differs_between_questions_and_is_the_same_again() -> None:
    taken = [("ann", "milk", 1), ("ann", "tea", 2), ("ann", "rice", 3)]
    first, second = scores(Random(), taken, 0.2)
    assert (first != second).all()
    assert (scores(Random(), taken, 0.2) == [first, second]).all()
    assert ((first >= 0) & (first < 1)).all()


def test_sasrec_learns_what_follows_what() -> None:
    rounds = [(f"u{n}", ITEMS[(n + k) % 3], k) for n in range(12) for k in range(4)]
    asked = [("u0", "bread", 9), ("u1", "tea", 9), ("u2", "milk", 9)]
    split = global_time(Events.of(table(rounds + asked), ITEMS), TimeOptions(0.9))
    ranks = judge(split, [SasRec(TINY)], repeats=True).ranks["sasrec"]
    assert ranks.tolist() == [1, 1, 1]


def test_sasrec_by_id_puts_what_it_never_learned_last_and_by_text_it_need_not() -> None:
    rounds = [(f"u{n}", ITEMS[(n + k) % 3], k) for n in range(12) for k in range(4)]
    taken = [*rounds, ("u0", "rice", 9)]
    (by_id,) = scores(SasRec(TINY), taken, 0.9)
    assert by_id[3] == by_id.min()
    raw = TEXTS.copy()
    raw[3] = raw[1]  # rice reads like bread
    (by_text,) = scores(SasRec(TINY, raw), taken, 0.9)
    assert by_text[3] == pytest.approx(by_text[1])


def test_sasrec_is_the_same_again_with_its_seed() -> None:
    taken = [*((f"u{n}", ITEMS[(n + k) % 3], k) for n in range(5) for k in range(3))]
    taken.append(("u0", "rice", 9))
    first, again, other = (scores(SasRec(TINY, seed=s), taken, 0.9) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_an_average_is_one_of_log_probabilities_and_learns_once() -> None:
    taken = [*((f"u{n}", ITEMS[(n + k) % 3], k) for n in range(5) for k in range(3))]
    taken.append(("u0", "rice", 9))
    alone = [scores(SasRec(TINY, seed=seed), taken, 0.9) for seed in (1, 2)]
    first, second = SasRec(TINY, seed=1), SasRec(TINY, seed=2)
    split = global_time(Events.of(table(taken), ITEMS), TimeOptions(0.9))
    average, training = Average(first, second), split.training()
    second.observe(training)
    average.observe(training)
    assert average.scores(split.queries()) == pytest.approx((alone[0] + alone[1]) / 2)


# the harness


def test_seen_items_make_room_unless_repeats_are_asked_for() -> None:
    taken = [
        *(("bob", "milk", 1), ("bob", "bread", 1), ("cem", "milk", 1)),
        *(("ann", "milk", 1), ("ann", "bread", 2), ("ann", "milk", 3)),
    ]
    split = global_time(Events.of(table(taken), ITEMS), TimeOptions(0.6))
    filtered = judge(split, [Popularity()])
    # Once: milk 3, bread 1, tea and rice 0; milk is hers already.
    assert filtered.ranks["popularity"].tolist() == [1]
    again = judge(split, [Popularity()], repeats=True)
    assert again.ranks["popularity"].tolist() == [2, 1]
    assert again.seen.tolist() == [1, 3]


def test_the_harness_ranks_alike_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.random.default_rng(0)
    taken: list[Taken] = [
        (f"u{drawn.integers(9)}", ITEMS[drawn.integers(4)], int(drawn.integers(50)))
        for _ in range(200)
    ]
    split = global_time(Events.of(table(taken), ITEMS))
    whole = judge(split, [make() for make in RANKERS.values()], repeats=True)
    monkeypatch.setattr("ray_rec.evaluation.offline.CHUNK_QUERIES", 3)
    parts = judge(split, [make() for make in RANKERS.values()], repeats=True)
    for name in RANKERS:
        assert whole.ranks[name] == pytest.approx(parts.ranks[name]), name


def test_one_item_has_one_rank() -> None:
    taken = [("ann", "milk", n) for n in range(3)]
    with pytest.raises(DataError, match="repeats an item"):
        judge(leave_one_out(Events.of(table(taken))), [Popularity()])
    judged = judge(leave_one_out(Events.of(table(taken))), [Popularity(), UserKnn()], repeats=True)
    assert [ranks.tolist() for ranks in judged.ranks.values()] == [[1], [1]]


@pytest.mark.parametrize("name", RANKERS)
def test_a_ranker_that_learned_nothing_has_scores(name: str) -> None:
    taken = [("ann", "milk", 1), ("ann", "tea", 2)]
    queries = global_time(Events.of(table(taken), ITEMS)).queries()
    nothing = Interactions(*(np.zeros(0, np.int64) for _ in range(4)))
    ranker = RANKERS[name]()
    ranker.observe(nothing)
    found = ranker.scores(queries)
    assert found.shape == (1, 4)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", RANKERS)
def test_a_ranker_takes_a_user_with_ten_thousand_events(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [("ann", ITEMS[number % 4], number) for number in range(10_000)]
    split = global_time(Events.of(table([*many, ("bob", "tea", 1), ("bob", "milk", 9_999)]), ITEMS))
    monkeypatch.setattr(f"{__name__}.TINY", replace(TINY, epochs=1, batch=256))
    ranker = RANKERS[name]()
    ranker.observe(split.training())
    found = ranker.scores(split.queries().part(0, 4))
    assert found.shape == (4, 4)
    assert np.isfinite(found).all()


# the leak test: in HOSTILE what comes next is told by the future, and by nothing else


class Peeking:
    """What no ranker may do: it looks what a user takes at the time of a question, or later."""

    name = "peeking"

    def __init__(self, later: bool) -> None:
        self._later = later

    def scores(self, queries: Queries) -> AnyArray:
        fresh, out = queries.fresh, np.zeros((len(queries), queries.num_items))
        for row, (user, ts) in enumerate(zip(queries.user, queries.ts, strict=True)):
            when = fresh.ts > ts if self._later else fresh.ts == ts
            out[row, fresh.item[(fresh.user == user) & when]] = 1
        return out

    def observe(self, done: Interactions) -> None:
        pass


def hostile(num_items: int = 40) -> Events:
    """Return a world in which a user's next item is a secret that is told at its time and later.

    Each user takes two things at random, then a secret one; at the very time of the secret and
    afterwards all others of the user's group, and the user again, take the same.
    """
    drawn = np.random.default_rng(7)
    taken: list[Taken] = []
    for group in range(60):
        secret = int(drawn.integers(num_items))
        for user in (f"{group}-{n}" for n in range(3)):
            taken += [(user, f"i{drawn.integers(num_items)}", 1 + n) for n in range(2)]
            taken += [(user, f"i{secret}", 10), (user, f"i{secret}", 10 + group)]
    return Events.of(table(taken), [f"i{n}" for n in range(num_items)])


def found(ranker: Ranker, split: str) -> float:
    """Return the share of the secrets, at time 10, that are among the first 4 of 40."""
    events = hostile()
    options = TimeOptions(0.45)
    made = {"time": global_time, "items": lambda e, o: item_holdout(e, 0.5, o)}[split]
    judged = judge(made(events, options), [ranker], repeats=True)
    first = np.unique(judged.user, return_index=True)[1]
    return float(
        ranking(judged.ranks[ranker.name], judged.target_query, len(judged.user), 4)
        .hit[first]
        .mean()
    )


TEXTS_40 = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
HOSTILE = {
    **RANKERS,
    "text-knn": lambda: TextKnn(TEXTS_40, 4),
    "two-model-average": lambda: Average(SasRec(TINY), SasRec(TINY, TEXTS_40)),
}


@pytest.mark.parametrize("split", ["time", "items"])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_ranker_finds_what_only_the_future_tells(name: str, split: str) -> None:
    # By chance .1, with a standard error of .022 over 180 users, .039 over the groups.
    assert found(HOSTILE[name](), split) < 0.3


@pytest.mark.parametrize("later", [False, True])
def test_the_hostile_world_gives_away_its_secrets_to_who_peeks(later: bool) -> None:
    assert found(Peeking(later), "time") > 0.95  # one group takes it twice at once, not later
