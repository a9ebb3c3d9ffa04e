"""Sequences told otherwise: what stays, what no query may see, and that chance is a hash."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.features.examples import EXAMPLES_SCHEMA
from ray_rec.features.sequence_augment import MASKED, SequenceAugment, crop, mask, reorder

TRANSFORMS = (crop, mask, reorder)
TOKENS = {"token_item", "token_type", "token_ts", "query_context"}


def row(offset: int, length: int, contexts: list[int]) -> dict[str, Any]:
    """Tokens offset·1000, …+1, …; each query wants an item of its own."""
    queries = len(contexts)
    empty = {name: [] for name in EXAMPLES_SCHEMA.names if name.startswith("shown_")}
    return {
        "step": offset,
        "topic_code": 0,
        "partition": 1,
        "offset": offset,
        "held_out": False,
        "token_item": [1000 * offset + place for place in range(length)],
        "token_type": [place % 5 for place in range(length)],
        "token_ts": [10 * place for place in range(length)],
        "query_context": contexts,
        "query_ts": [10 * context for context in contexts],
        "target_query": list(range(queries)),
        "target_item": [9 + query for query in range(queries)],
        "target_type": [0] * queries,
        **empty,
    }


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = []
    for offset in range(draw(st.integers(0, 4))):
        length = draw(st.integers(0, 9))
        rows.append(row(offset, length, sorted(draw(st.lists(st.integers(0, length), max_size=4)))))
    return pa.Table.from_pylist(rows, EXAMPLES_SCHEMA)


shares, draws = st.floats(0, 1), st.integers(0, 1 << 40)


@given(tables(), st.sampled_from(TRANSFORMS), shares, draws)
def test_only_tokens_change_and_rows_do_not_depend_on_their_neighbours(
    rows: pa.Table, transform: Any, share: float, draw: int
) -> None:
    out = transform(rows, share, draw)
    assert out.schema == rows.schema
    for name in set(rows.schema.names) - TOKENS:
        assert out[name].equals(rows[name])
    for at in range(rows.num_rows):
        assert transform(rows.slice(at, 1), share, draw).to_pylist() == [
            out.slice(at, 1).to_pylist()[0]
        ]


@given(tables(), st.sampled_from(TRANSFORMS), draws)
def test_a_share_of_nothing_changes_nothing(rows: pa.Table, transform: Any, draw: int) -> None:
    assert transform(rows, 0.0, draw).equals(rows)
    assert SequenceAugment()(rows, draw) is rows


@given(tables(), st.sampled_from(TRANSFORMS), shares, draws)
def test_no_query_sees_what_it_did_not_see_before(
    rows: pa.Table, transform: Any, share: float, draw: int
) -> None:
    for old, new in zip(rows.to_pylist(), transform(rows, share, draw).to_pylist(), strict=True):
        for before, after in zip(old["query_context"], new["query_context"], strict=True):
            known = {*old["token_item"][:before], MASKED}
            assert known >= set(new["token_item"][:after])
            assert all(ts < 10 * before for ts in new["token_ts"][:after])


@given(tables(), shares, draws)
def test_crop_keeps_the_newest_and_at_least_the_rest_of_the_share(
    rows: pa.Table, share: float, draw: int
) -> None:
    for old, new in zip(rows.to_pylist(), crop(rows, share, draw).to_pylist(), strict=True):
        length, dropped = len(old["token_item"]), len(old["token_item"]) - len(new["token_item"])
        assert 0 <= dropped <= share * length
        for name in ("token_item", "token_type", "token_ts"):
            assert new[name] == old[name][dropped:]
        assert new["query_context"] == [max(0, seen - dropped) for seen in old["query_context"]]


@given(tables(), shares, draws)
def test_mask_keeps_lengths_types_and_times(rows: pa.Table, share: float, draw: int) -> None:
    out = mask(rows, share, draw)
    for name in TOKENS - {"token_item"}:
        assert out[name].equals(rows[name])
    for old, new in zip(rows["token_item"].to_pylist(), out["token_item"].to_pylist(), strict=True):
        assert all(told in (item, MASKED) for item, told in zip(old, new, strict=True))


@given(tables(), shares, draws)
def test_reorder_permutes_one_run_and_leaves_the_times(
    rows: pa.Table, share: float, draw: int
) -> None:
    for old, new in zip(rows.to_pylist(), reorder(rows, share, draw).to_pylist(), strict=True):
        pairs = [list(zip(r["token_item"], r["token_type"], strict=True)) for r in (old, new)]
        assert Counter(pairs[0]) == Counter(pairs[1])
        assert (new["token_ts"], new["query_context"]) == (old["token_ts"], old["query_context"])
        moved = [at for at, pair in enumerate(pairs[0]) if pair != pairs[1][at]]
        assert not moved or moved[-1] - moved[0] + 1 <= share * len(pairs[0])


def test_how_often_and_how_much() -> None:
    """600 rows of 10 tokens: half of up to 4 dropped, three in ten masked, runs of 5 shuffled."""
    rows = pa.Table.from_pylist([row(n, 10, [10]) for n in range(600)], EXAMPLES_SCHEMA)
    cropped = crop(rows, 0.4, draw=1)["token_item"].to_pylist()
    counts = Counter(10 - len(items) for items in cropped)
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert all(80 < count < 160 for count in counts.values())  # 120 of each
    masked = mask(rows, 0.3, draw=1)["token_item"].to_pylist()
    assert sum(item == MASKED for items in masked for item in items) == pytest.approx(1800, abs=150)
    shuffled = reorder(rows, 0.5, draw=1)["token_item"].to_pylist()
    still = sum(
        new == old for new, old in zip(shuffled, rows["token_item"].to_pylist(), strict=True)
    )
    assert still == pytest.approx(600 / 120, abs=8)  # one order of 5! is the old one


def test_another_draw_tells_it_otherwise() -> None:
    rows = pa.Table.from_pylist([row(n, 9, [9]) for n in range(20)], EXAMPLES_SCHEMA)
    every = SequenceAugment(crop=0.5, mask=0.5, reorder=0.5)
    assert every(rows, 1).equals(every(rows, 1))
    assert not every(rows, 1).equals(every(rows, 2))
