"""The owner of the state: however often a window is applied, it has an effect once."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_rec.config import RunConfig, build
from ray_rec.errors import StateError
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.training.owner import StateOwner
from tests.features.builders import DAY, T0, Stream, event, exposure, same
from tests.features.streams import LATENESS, cut_streams

Owners = Callable[[], StateOwner]


@pytest.fixture(scope="module")
def make_owner(tmp_path_factory: pytest.TempPathFactory) -> Owners:
    folder = tmp_path_factory.mktemp("owner")
    places = {"log": f"sqlite:///{folder}/log.db"}
    places |= {name: f"{folder}/{name}" for name in ("registry", "state_dir")}
    features = {"lateness_ms": LATENESS, "attribution_ms": 80, "held_out_share": 0.3}
    config = build(RunConfig, {**places, "features": features, "learner": {"rows_per_step": 3}})
    with open_log(config.log) as log:
        create_standard_topics(log, partitions=2)

    def make() -> StateOwner:
        owner = StateOwner(config)
        assert owner.resume(0)
        return owner

    return make


@settings(max_examples=40, deadline=None)
@given(cut=cut_streams(), data=st.data())
def test_applying_a_window_again_changes_nothing(make_owner, cut, data) -> None:
    stream, once, again = Stream(), make_owner(), make_owner()
    pieces = [*cut[1], ([], {"advance_to_ms": T0 + DAY})]
    planned = [stream.plan(n, *records, **plan) for n, (records, plan) in enumerate(pieces)]
    results = []
    for number, (window, tables) in enumerate(planned):
        results.append(once.apply(window, tables, []))
        repeated = data.draw(st.lists(st.integers(0, number), max_size=4))
        for at in (number, *repeated):
            assert again.apply(*planned[at], []).equals(results[at])
        sides = once.side(number), again.side(number)
        assert sides[0].offsets == sides[1].offsets
        assert sides[0].window.counts == sides[1].window.counts
        assert sides[0].lesson.held_out.equals(sides[1].lesson.held_out)
    ours, theirs = once.snapshot(len(planned)), again.snapshot(len(planned))
    assert ours is not None
    assert theirs is not None
    assert all(same(ours.tables[name], theirs.tables[name]) for name in ours.tables)


def test_a_window_that_a_checkpoint_stands_for_is_not_applied_again(make_owner) -> None:
    stream, owner = Stream(), make_owner()
    planned = [stream.plan(n, exposure(f"r{n}", "u", T0 + n, ["a"])) for n in range(2)]
    for window, tables in planned:
        owner.apply(window, tables, [])
    owner.commit(1, oldest=0)
    with pytest.raises(StateError, match="window 0 was given, the next one is 2"):
        owner.apply(*planned[0], [])
    assert owner.apply(*planned[1], []).num_rows == 0  # its result is held still
    assert owner.resume(2)


def test_a_snapshot_tells_what_changed_since_the_one_it_gave_last(make_owner) -> None:
    stream, owner = Stream(), make_owner()
    for n in range(3):
        window, tables = stream.plan(n, event("u", f"item {n}", T0 + n))
        owner.apply(window, tables, [])
        kept = owner.snapshot(n + 1, base=n or None)
        assert kept is not None
        assert kept.base == (n or None)
        names = kept.tables["catalogue"]["item_id"].to_pylist()
        assert names == [f"item {n}"], "a whole state first, then what is new"
    assert owner.snapshot(2) is None
    asked_for_another = owner.snapshot(3, base=1)
    assert asked_for_another is not None
    assert asked_for_another.base is None
    assert asked_for_another.tables["catalogue"].num_rows == 3
