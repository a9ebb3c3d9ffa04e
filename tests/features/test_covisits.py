"""What was taken with each item lately: by hand, and whatever the cutting of the log."""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_rec.features.config import FeatureConfig
from ray_rec.features.covisits import NO_COMPANIONS, Companions, Covisits, companions_of
from ray_rec.features.histories import History
from ray_rec.features.state import FeatureState

from .builders import DAY, T0, Stream, control, decoded, event, number_offsets
from .streams import LATENESS, streams

A, B, C, D = range(4)
ONE_USER = np.zeros(10, np.int64)


def company(covisits):
    """Return each item's companions, the oldest first."""
    rows = covisits.snapshot().to_pylist()
    return {row["item"]: row["who"] for row in rows}


def remembered(size, *items, num_items=4):
    """Return what is remembered of one user who took these items."""
    covisits = Covisits(size)
    covisits.grow(num_items)
    covisits.add(np.array(items), companions_of(ONE_USER[: len(items)], np.array(items), 10))
    return covisits


def counts(*counts):
    """Return popularity with these counts in its last horizon, and others before."""
    return np.log1p(np.array([[99.0, count] for count in counts])).astype(np.float32)


# pairs


def test_company_is_what_the_same_user_took_before_the_nearest_first():
    users, items = np.array([0, 1, 0, 0]), np.array([5, 6, 7, 5])
    found = companions_of(users, items, 2)
    assert found.token.tolist() == [2, 3, 3]
    assert found.before.tolist() == [5, 7, 5]
    assert companions_of(users, items, 1).before.tolist() == [5, 7]
    some = found.within(3, 4)
    assert some.token.tolist() == [3, 3]
    assert some.before.tolist() == [7, 5]
    assert found.within(0, 2).token.tolist() == []


# the ring


def test_both_sides_of_a_pair_remember_each_other():
    assert company(remembered(5, A, B, C)) == {A: [B, C], B: [A, C], C: [B, A]}


def test_an_item_is_not_its_own_company():
    assert company(remembered(5, A, A, B)) == {A: [B, B], B: [A, A]}


@pytest.mark.parametrize("together", [True, False])
def test_the_newest_of_an_item_stay(together):
    covisits = Covisits(2)
    covisits.grow(4)
    items, pairs = np.array([A, B, C, D, B]), [(1, A), (2, A), (3, A), (4, A)]
    batches = [pairs] if together else [[pair] for pair in pairs]
    for batch in batches:
        token, before = zip(*batch, strict=True)
        covisits.add(items, Companions(np.array(token), np.array(before, np.int32)))
    assert company(covisits) == {A: [D, B], B: [A, A], C: [A], D: [A]}


def test_changes_lay_whole_lists_over_what_was_told():
    covisits = remembered(2, A, B)
    chain = [covisits.snapshot()]
    covisits.add(np.array([A, C]), Companions(np.array([1]), np.array([A], np.int32)))
    covisits.add(np.array([A, D]), Companions(np.array([1]), np.array([A], np.int32)))
    chain.append(covisits.changes())
    again = Covisits(2)
    again.restore(chain)
    assert chain[1].to_pylist() == [
        {"item": A, "who": [C, D]}, {"item": C, "who": [A]}, {"item": D, "who": [A]},
    ]  # fmt: skip
    assert company(again) == company(covisits) == {A: [C, D], B: [A], C: [A], D: [A]}
    again.add(np.array([A, B]), Companions(np.array([1]), np.array([A], np.int32)))
    assert company(again)[A] == [D, B]


def test_a_copy_stays_as_it_was():
    covisits = remembered(5, A, B)
    before = covisits.copy()
    covisits.add(np.array([A, C]), Companions(np.array([1]), np.array([A], np.int32)))
    assert company(before) == {A: [B], B: [A]}
    assert company(covisits)[A] == [B, C]


def test_memory_is_four_bytes_a_companion_and_eight_an_item():
    assert remembered(5, A, B, num_items=7).num_bytes == 7 * (4 * 5 + 8)


def test_with_size_0_nothing_is_remembered():
    covisits = remembered(0, A, B)
    assert covisits.num_bytes == covisits.snapshot().num_rows == 0
    assert covisits.support(np.array([A]), counts(0, 0)) is None
    nobody = History(*(np.zeros(0, np.int64) for _ in range(3)))
    assert covisits.supports([nobody], counts(0, 0)) is None


# support


def test_support_is_the_share_of_the_company_less_for_the_popular():
    covisits = remembered(4, A, B, A, C, num_items=4)  # A: B, B, C, C; B: A, A, C; C: A, B, A
    assert company(covisits) == {A: [B, B, C, C], B: [A, A, C], C: [A, B, A]}
    found = covisits.support(np.array([A]), counts(7, 15, 0, 0))
    assert found.dtype == np.float32
    # A has 4 companions, B and C 2 of them each: 2 / 4 ** .5 = 1; B was taken 15 times: 16 ** .25
    assert np.expm1(found) == pytest.approx([0, 10 * 1 / 2, 10 * 1 / 1, 0], rel=1e-5)
    # B adds C, one of three, and A, two of three and (1 + 7) ** .25
    both = covisits.support(np.array([A, B]), counts(7, 15, 0, 0))
    a, c = 2 / 3**0.5 / 8**0.25, 1 + 1 / 3**0.5
    assert np.expm1(both) == pytest.approx([10 * a, 5, 10 * c, 0], rel=1e-5)


def test_items_that_are_not_known_have_and_are_no_company():
    covisits = remembered(4, A, D)
    assert covisits.support(np.array([A]), counts(0, 0)).tolist() == [0, 0]  # D has no popularity
    assert covisits.support(np.array([C, 99]), counts(0, 0, 0, 0)).tolist() == [0] * 4
    alone = covisits.support(np.array([A]), counts(0, 0, 0, 0))
    assert covisits.support(np.array([A, 99]), counts(0, 0, 0, 0)).tolist() == alone.tolist()
    assert np.flatnonzero(alone).tolist() == [D]


def test_the_last_ten_items_are_asked():
    covisits, none = remembered(4, A, B), counts(0, 0, 0, 0)
    assert covisits.support(np.array([A] + [C] * 9), none)[B] > 0
    assert not covisits.support(np.array([A] + [C] * 10), none).any()


def test_several_people_are_each_alone():
    covisits, known = remembered(4, A, B, C, A), counts(3, 1, 4, 1)
    people = [np.array(items, np.int64) for items in ([], [A], [C, B])]
    found = covisits.supports([History(items, items, items) for items in people], known)
    for row, items in zip(found, people, strict=True):
        assert row.tolist() == covisits.support(items, known).tolist()


# out of the log


def named(state):
    """Return each item's companions by name, the oldest first."""
    ids = state.catalogue.item_id
    rows = state.covisits.snapshot().to_pylist()
    return {ids[row["item"]]: [ids[who] for who in row["who"]] for row in rows}


def after(*records, one_by_one=False, **config):
    stream = Stream(**{"covisits": 20, **config})
    for some in [[record] for record in records] if one_by_one else [records]:
        stream.window(*some)
    return named(stream.state)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_late_token_has_no_company_but_is_some(one_by_one):
    came = [event("u", name, T0 + at) for name, at in (("x", 0), ("a", 10), ("b", 5), ("c", 20))]
    assert after(*came, one_by_one=one_by_one) == {
        "x": ["a", "c"], "a": ["x", "c"], "b": ["c"], "c": ["a", "b", "x"],
    }  # fmt: skip


@pytest.mark.parametrize("one_by_one", [True, False])
def test_tokens_of_one_time_are_company_and_those_of_two_users_are_not(one_by_one):
    baskets = [event(user, name, T0) for user, name in ("ua", "vc", "ub", "vd")]
    found = after(*baskets, one_by_one=one_by_one)
    assert found == {"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"]}


@pytest.mark.parametrize("action", ["forget", "opt_out"])
def test_what_was_erased_is_no_company(action):
    wishes = [control("u", action, T0 + 1), control("u", "opt_in", T0 + 2)]
    records = [event("u", "a", T0), *wishes, event("u", "b", T0 + 3), event("u", "c", T0 + 4)]
    for one_by_one in (True, False):
        assert after(*records, one_by_one=one_by_one) == {"b": ["c"], "c": ["b"]}


def test_company_reaches_no_further_than_a_history():
    walk = [event("u", name, T0 + n) for n, name in enumerate("abcd")]
    short = after(*walk, history_length=2)
    assert short == {"a": ["b", "c"], "b": ["a", "c", "d"], "c": ["b", "a", "d"], "d": ["c", "b"]}
    far = after(*(event("u", f"i{n}", T0 + n) for n in range(12)))
    assert far["i0"] == [f"i{n}" for n in range(1, 11)]


def test_returns_and_duplicates_are_no_company():
    taken, again = (event("u", name, T0 + n) for n, name in enumerate("ab"))
    back = event("u", "c", T0 + 2, "return")
    assert after(taken, again, back, again) == {"a": ["b"], "b": ["a"]}


def defined(records, size, reach):
    """Return each item's companions, record by record."""
    known, seen, out = defaultdict(list), set(), defaultdict(list)
    for topic, r in records:
        if topic != "events" or r["event_id"] in seen or seen.add(r["event_id"]):
            continue
        if r["event_type"] == "return":
            continue
        mine, name, ts = known[r["user_id"]], r["item_id"], r["ts"]
        if ts >= max((at for at, _ in mine), default=0):
            for _, other in mine[::-1][:reach]:
                if other != name:
                    out[name].append(other)
                    out[other].append(name)
        mine.append((ts, name))
        mine.sort(key=lambda token: token[0])
    return {name: who[-size:] for name, who in out.items()}


@given(
    records=streams(),
    cuts=st.lists(st.integers(0, 30)),
    size=st.integers(1, 20),
    length=st.sampled_from([2, 4, 50]),
)
@settings(max_examples=40, deadline=None)
def test_any_cutting_remembers_what_is_defined_live_too(records, cuts, size, length):
    records = [(t, {**r, "partition": 0}) for t, r in records if t != "controls"]
    config = FeatureConfig(covisits=size, history_length=length, lateness_ms=LATENESS)
    stream, live = Stream(FeatureState(config)), FeatureState(config)
    ends = sorted({0, len(records), *(cut for cut in cuts if cut < len(records))})
    placed = number_offsets(records)
    for begin, end in pairwise(ends):
        stream.window(*records[begin:end])
        live.update(decoded(placed[begin:end]))
    stream.window(advance_to_ms=T0 + DAY)
    assert named(stream.state) == named(live) == defined(records, size, min(10, length))
    told = stream.state.snapshot()
    again = FeatureState.restore(config, [told])
    assert named(again) == named(stream.state)
    assert again.num_bytes == stream.state.num_bytes


def test_no_tokens_have_no_companions():
    covisits = remembered(3, A)
    covisits.add(np.zeros(0, np.int64), NO_COMPANIONS)
    assert company(covisits) == {}
