"""Questions of a window: baskets as sets, contexts strictly before, a sample that is stable."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.worlds import World

BASKETS = [
    ("ann", "milk", 100),
    ("ann", "bread", 100),
    ("ann", "milk", 100),
    ("bob", "milk", 150),
    ("ann", "milk", 200),
]


def test_a_basket_is_one_query_with_distinct_targets() -> None:
    world = World()
    queries, done = world.window(BASKETS)
    milk, bread = world.row("milk"), world.row("bread")
    by_query = {
        (int(user), int(ts)): sorted(queries.target_item[queries.target_query == query].tolist())
        for query, (user, ts) in enumerate(zip(queries.user, queries.ts, strict=True))
    }
    ann, bob = (int(queries.user[queries.ts == ts][0]) for ts in (100, 150))
    assert by_query == {(ann, 100): sorted([milk, bread]), (bob, 150): [milk], (ann, 200): [milk]}
    assert len(done.user) == 5


def test_contexts_hold_nothing_of_the_query_or_later() -> None:
    queries, _ = World().window(BASKETS)
    for ts, history in zip(queries.ts.tolist(), queries.histories, strict=True):
        assert (history.ts < ts).all()
    assert sorted(len(history.item) for history in queries.histories) == [0, 0, 3]


def test_users_are_known_again_in_later_windows() -> None:
    world = World()
    first, _ = world.window(BASKETS)
    second, _ = world.window([("bob", "tea", 300), ("ann", "tea", 310)])
    assert second.user[second.ts == 300] == first.user[first.ts == 150]
    assert second.user[second.ts == 310] == first.user[first.ts == 100][0]


def test_parts_keep_targets_with_their_queries() -> None:
    queries, _ = World().window(BASKETS)
    targets = []
    for start in range(len(queries)):
        part = queries.part(start, start + 1)
        assert set(part.target_query.tolist()) == {0}
        targets += part.target_item.tolist()
    assert targets == queries.target_item.tolist()


def test_a_sample_is_the_same_whatever_the_limit() -> None:
    taken = [(f"u{n}", "milk", 100 + n) for n in range(50)]
    few, done = World().window(taken, most=10)
    more, _ = World().window(taken, most=20)
    assert len(few) == 10
    assert set(few.ts.tolist()) < set(more.ts.tolist())
    assert len(done.user) == 50


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(1, 9)), min_size=1
    )
)
def test_what_is_known_before_a_query_is_what_happened_before_it(
    taken: list[tuple[str, str, int]],
) -> None:
    world = World()
    queries, done = world.window(taken)
    query, place = done.before(queries.user, queries.ts)
    for number, (user, ts) in enumerate(zip(queries.user, queries.ts, strict=True)):
        known = sorted(done.item[place[query == number]].tolist())
        expected = done.item[(done.user == user) & (done.ts < ts)]
        assert known == sorted(expected.tolist())
        assert known == sorted(queries.histories[number].item.tolist())
