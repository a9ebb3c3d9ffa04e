"""What queries see: pieces of long rows, own items and their repeats, states where asked."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.model.trunk import NUM_GAPS, Block, gap_bucket
from ray_rec.model.view import DAY_MS, Alike, Queries, calendar, own_items, pieces
from tests.model import toy

DAY = int(DAY_MS)


def _queries(context: list[int], width: int) -> Queries:
    token = torch.arange(2 * width).reshape(2, width)
    row = torch.tensor([at % 2 for at in range(len(context))])
    at_ms = torch.full((len(context),), 1000 * DAY)
    return Queries(
        token,
        token % 5,
        token * DAY,
        row,
        torch.tensor(context),
        at_ms,
        torch.zeros(len(row)).long(),
    )


def test_a_row_that_fits_is_one_piece() -> None:
    cut = pieces(_queries([0, 4], 4), longest=4)
    assert cut.token.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert cut.context.tolist() == [0, 4]


def test_long_rows_are_cut_by_half_a_piece() -> None:
    # longest 4, so pieces begin at 0, 2, 4, …: context 5 has to begin at 2, context 7 at 4
    cut = pieces(_queries([5, 4, 7], 8), longest=4)
    seen = [
        cut.token[of, :context].tolist() for of, context in zip(cut.of, cut.context, strict=True)
    ]
    assert seen == [[2, 3, 4], [8, 9, 10, 11], [4, 5, 6]]


@given(st.lists(st.integers(0, 23), min_size=1, max_size=6), st.integers(1, 30))
def test_pieces_end_at_their_query_and_keep_half(context: list[int], longest: int) -> None:
    queries = _queries(context, 23)
    cut = pieces(queries, longest)
    for at, wanted in enumerate(context):
        got = cut.token[cut.of[at], : cut.context[at]].tolist()
        whole = queries.token[queries.row[at], :wanted].tolist()
        assert got == whole[len(whole) - len(got) :]
        assert min(wanted, (longest + 1) // 2) <= len(got) <= longest


def test_repeats_are_log_counts_decayed_by_age() -> None:
    # item 3 was had 7 and 0 days ago, item 1 had 28 days ago; what comes later is not seen
    ts = torch.tensor([[0, 21 * DAY, 28 * DAY, 28 * DAY]])
    token = torch.tensor([[1, 3, 3, 2]])
    ask = torch.tensor([3]), torch.tensor([28 * DAY])
    queries = Queries(token, token, ts, torch.tensor([0]), *ask, torch.tensor([0]))
    own = own_items(queries, 5, torch.float64)
    assert (own.query.tolist(), own.item.tolist()) == ([0, 0], [1, 3])
    counts = torch.tensor(
        [
            [1.0, math.exp(-4), math.exp(-1)],
            [2.0, 1 + math.exp(-1), 1 + math.exp(-0.25)],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(own.values, torch.log1p(counts))
    torch.testing.assert_close(own.total, torch.log1p(counts.sum(0, keepdim=True)))
    found = own.look_up(torch.tensor([0, 0, 0]), torch.tensor([3, 2, 4]))
    torch.testing.assert_close(found[0], own.values[1])
    assert found[1:].tolist() == [[0.0] * 3] * 2


def test_what_was_had_of_the_like_is_counted_by_text_and_category() -> None:
    ts = torch.tensor([[0, 21 * DAY, 28 * DAY]])
    token = torch.tensor([[1, 3, 3]])
    ask = torch.tensor([3]), torch.tensor([28 * DAY])
    queries = Queries(token, token, ts, torch.tensor([0]), *ask, torch.tensor([0]))
    groups = torch.tensor([[0, 0], [7, 9], [7, 0], [8, 9], [5, 9]])
    alike = Alike.of(queries, groups, torch.float64)
    found = alike.look_up(torch.tensor([0, 0, 0]), torch.tensor([0, 2, 4]))
    once = [1.0, math.exp(-4), math.exp(-1)]
    thrice = [3.0, math.exp(-4) + math.exp(-1) + 1, math.exp(-1) + math.exp(-0.25) + 1]
    nothing = [0.0, 0.0, 0.0]
    counts = torch.tensor([nothing * 2, once + nothing, nothing + thrice], dtype=torch.float64)
    torch.testing.assert_close(found, torch.log1p(counts))


def test_a_moment_is_told_by_its_place_in_the_day_and_the_week() -> None:
    sunday_six = 1_700_978_400_000  # 2023-11-26T06:00Z: a quarter of the day, 3.25 days of the week
    at = torch.tensor([sunday_six, sunday_six + 7 * DAY, sunday_six + DAY // 2])
    told = calendar(at, torch.float64)
    angle = 2 * math.pi * 3.25 / 7  # from Thursday on, as the epoch began
    expected = torch.tensor([1.0, 0.0, math.sin(angle), math.cos(angle)], dtype=torch.float64)
    torch.testing.assert_close(told[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(told[1], told[0])
    torch.testing.assert_close(told[2, :2], -told[0, :2], atol=1e-6, rtol=0)


def test_nobody_with_a_history_has_no_own_items() -> None:
    own = own_items(_queries([0, 0], 3), 6, torch.float32)
    assert own.look_up(torch.tensor([0, 1]), torch.tensor([5, 0])).tolist() == [[0.0] * 3] * 2


def test_gaps_double_from_bucket_to_bucket() -> None:
    seconds = torch.tensor([0, 1, 2, 3, 6, 7, 10**15])
    assert gap_bucket(seconds * 1000).tolist() == [0, 1, 1, 2, 2, 3, NUM_GAPS - 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_block_asked_for_some_places_answers_as_for_all(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    block, x = Block(toy.PLAIN).to(dtype), torch.randn(3, 7, 16, dtype=dtype)
    row, place = torch.tensor([0, 2, 2, 1]), torch.tensor([0, 6, 3, 5])
    torch.testing.assert_close(block.at(x, row, place), block(x)[row, place])
