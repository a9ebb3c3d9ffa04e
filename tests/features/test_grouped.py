"""Users shared out among owners: whatever their number, results are those of one."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_rec.errors import StateError
from ray_rec.features.arrays import hash_strings
from ray_rec.features.config import FeatureConfig
from ray_rec.features.examples import assign_steps
from ray_rec.features.grouped import GroupedState
from ray_rec.features.owners import owner_of
from ray_rec.features.state import FeatureState
from ray_rec.features.users import UserState, tables_of

from .builders import DAY, T0, Stream, check_same_state, event, exposure, same
from .streams import LATENESS, USERS, cut_streams

CONFIG = FeatureConfig(
    lateness_ms=LATENESS,
    attribution_ms=80,
    attribution_by_outcome_ms={"click": 40},
    dedup_ms=100,
    history_length=4,
    covisits=3,
    held_out_share=0.3,
    user_ttl_days=1,
)
OWNERS = st.integers(1, 4)


class Here:
    """An owner of users in this process."""

    def __init__(self, config, num_owners):
        self._config, self._num_owners = config, num_owners

    def restore(self, chains, watermark_ms):
        self.users = UserState.restore(self._config, chains, watermark_ms, self._num_owners)
        return lambda: None

    def apply(self, share):
        gained = self.users.apply(share)
        return lambda: gained

    def tell(self, whole):
        tables = tables_of(self.users.parts, whole)
        return lambda: tables


def grouped(num_owners, segments=None, config=CONFIG):
    return GroupedState(config, [Here(config, num_owners) for _ in range(num_owners)], segments)


def check_same_window(one, other):
    assert same(assign_steps(one.examples, 3), assign_steps(other.examples, 3))
    assert same(one.items, other.items)
    assert one.popularity.tolist() == other.popularity.tolist()
    assert (one.number, one.at_ms, one.counts) == (other.number, other.at_ms, other.counts)


def pieces(cut, data):
    """Return the windows of a stream; after one of them every user's records move elsewhere."""
    windows = [*cut[1], ([], {"advance_to_ms": T0 + DAY})]
    moved = data.draw(st.integers(0, len(windows)))
    for number, (records, plan) in enumerate(windows):
        shift = int(number >= moved)
        yield [(t, {**r, "partition": (r["partition"] + shift) % 2}) for t, r in records], plan


@given(cut=cut_streams(), num_owners=OWNERS, data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_number_of_owners_gives_the_same(cut, num_owners, data):
    plain, shared_out = Stream(FeatureState(CONFIG)), grouped(num_owners)
    for records, plan in pieces(cut, data):
        window, tables = plain.plan(plain.state.number, *records, **plan)
        check_same_window(shared_out.apply(window, tables), plain.state.apply(window, tables))
    assert shared_out.number == plain.state.number
    assert shared_out.offsets == plain.state.offsets
    assert shared_out.watermark.value_ms == plain.state.watermark.value_ms
    check_same_state(FeatureState.restore(CONFIG, [shared_out.snapshot()]), plain.state)


@given(cut=cut_streams(), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_restart_with_another_number_of_owners_changes_nothing(cut, data):
    plain, state = Stream(FeatureState(CONFIG)), grouped(data.draw(OWNERS))
    chain = [state.snapshot()]
    for records, plan in pieces(cut, data):
        window, tables = plain.plan(plain.state.number, *records, **plan)
        check_same_window(state.apply(window, tables), plain.state.apply(window, tables))
        chain.append(state.changes())
        check_same_state(FeatureState.restore(CONFIG, chain), plain.state)
        if data.draw(st.booleans()):
            state = grouped(data.draw(OWNERS), chain)
            chain = [state.snapshot()]


def test_a_state_of_one_is_shared_out_and_back_again():
    stream = Stream(FeatureState(CONFIG))
    stream.window(*[event(user, "a", T0 + n) for n, user in enumerate(USERS)])
    stream.window(exposure("r", "u", T0 + 5, ["a"]))
    chain = [stream.state.snapshot()]
    stream.window(event("u", "a", T0 + 6, "click", request_id="r"))
    chain.append(stream.state.changes())
    owner = owner_of(hash_strings(pa.array(list(USERS))), 3)
    assert len(set(owner.tolist())) == 2, "these users are not with the same owner"
    told = grouped(3, chain).snapshot()
    for n in range(3):
        users = [user for user, at in zip(USERS, owner.tolist(), strict=True) if at == n]
        assert told[f"histories.{n}"]["user_id"].to_pylist() == users
        assert told[f"open_exposures.{n}"].num_rows == ("u" in users)
    check_same_state(FeatureState.restore(CONFIG, [told]), stream.state)


def test_owners_have_equal_parts_of_the_memory():
    config = FeatureConfig(max_state_mb=0.02)
    state, stream = grouped(2, config=config), Stream(FeatureState(config))
    records = [event(f"u{n}", "a", T0 + n) for n in range(100)]
    gave_way = state.apply(*stream.plan(0, *records)).counts["evicted_memory"]
    told = state.snapshot()
    held = [told[f"histories.{n}"].num_rows for n in range(2)]
    assert sum(held) == 100 - gave_way
    # 10,000 bytes each, less 500 and 24 of the item and 16 of each key, for users of 313
    keys = np.array([told[f"seen_events.{n}"].num_rows for n in range(2)])
    most = 10_000 - (500 + 1 + 24) / 2 - 16 * keys
    assert held == (0.9 * most // 313).astype(int).tolist()


def test_a_snapshot_that_lacks_an_owner_is_refused_by_name():
    tables = grouped(3).snapshot()
    del tables["controls.1"]
    with pytest.raises(StateError, match=r"controls\.1"):
        grouped(2, [tables])
    with pytest.raises(StateError, match=r"controls\.1"):
        FeatureState.restore(CONFIG, [tables])
