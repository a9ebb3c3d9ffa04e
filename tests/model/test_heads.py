"""The recall head's repeats: a line in log counts and popularity, and a layer that bends it."""

from dataclasses import replace

import pytest
import torch

from ray_rec.errors import ConfigError
from ray_rec.model.config import ModelConfig
from ray_rec.model.heads import RecallHead, num_habits
from ray_rec.model.shown import by_levels
from tests.model import toy

COUNTS = torch.tensor([[1.0, 0.5, 0.0], [2.0, 0.0, 0.5]])
POPULARITY = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 1.0]])
HABITS = torch.zeros(2, num_habits(toy.PLAIN))
HABITS[:, 0] = 4.0
LINE = torch.tensor([1.0 + 1.0 + 2.0 - 0.5, 2.0 + 1.0 + 1.0 - 0.5])
"""With the weights of `_head`: the first count, twice the third and the rest as written there."""


def _head(config: ModelConfig) -> RecallHead:
    head = RecallHead(config)
    with torch.no_grad():
        head.repeat.copy_(torch.tensor([1.0, 2.0, 2.0]))
        head.repeat_popularity.copy_(torch.tensor([0.0, 0.0, 1.0]))
        head.repeat_bonus.fill_(-0.5)
    return head


def test_repeats_are_a_line_in_counts_and_popularity() -> None:
    # 1·1 + 2·0.5 + 2·0 + 1·2 - 0.5 and 1·2 + 2·0 + 2·0.5 + 1·1 - 0.5
    torch.testing.assert_close(_head(toy.PLAIN).repeats(COUNTS, POPULARITY, None), LINE)


def test_units_begin_with_the_line_and_bend_it() -> None:
    head = _head(replace(toy.PLAIN, repeat_units=2))
    torch.testing.assert_close(head.repeats(COUNTS, POPULARITY, HABITS), LINE)
    inner, _, outer = head.bend
    with torch.no_grad():
        # unit 0 sees how far the plain count goes beyond 1, unit 1 the second horizon's popularity
        inner.weight.zero_()
        inner.weight[0, 0], inner.weight[1, 4], inner.weight[:, 6] = 1.0, 1.0, 0.25
        inner.bias.copy_(torch.tensor([-2.0, -1.0]))  # the total adds 1 to both
        outer.weight.copy_(torch.tensor([[2.0, -1.0]]))
    one = 0.8413447  # gelu(1) is the normal distribution's share below 1, gelu(0) is 0
    bent = LINE + torch.tensor([2 * 0.0 - one, 2 * one - 0.0])
    torch.testing.assert_close(head.repeats(COUNTS, POPULARITY, HABITS), bent)


def test_popularity_and_promotion_are_parts_of_their_own() -> None:
    head = RecallHead(replace(toy.PLAIN, num_promotions=1))
    assert head.popularity[:2].tolist() == head.repeat_popularity[:2].tolist() == [0, 0]
    with torch.no_grad():
        head.popularity.copy_(torch.tensor([2.0, -1.0, 0.0, 1.0, 3.0]))
    told = torch.tensor([[0.5, 0.25, 9.0, 1.0, 2.0]])  # now, as a rule, and three counts
    parts = head.popular_parts(told)
    assert {name: part.tolist() for name, part in parts.items()} == {
        "popularity": [7.0],
        "promotion": [0.75],
    }
    assert head.popular(told).tolist() == [7.75]
    assert list(RecallHead(toy.PLAIN).popular_parts(told[:, 2:])) == ["popularity"]


def test_nothing_repeated_is_judged() -> None:
    head = RecallHead(replace(toy.PLAIN, repeat_units=2))
    nothing = torch.zeros(0, 3), torch.zeros(0, toy.HORIZONS), HABITS[:0]
    assert head.repeats(*nothing).shape == (0,)


def test_a_layer_has_no_fewer_than_no_units() -> None:
    with pytest.raises(ConfigError, match=r"model\.repeat_units is -1; it must not be negative"):
        ModelConfig(repeat_units=-1)


def test_log_counts_are_told_apart_at_several_levels() -> None:
    made = by_levels(torch.tensor([[0.0, 0.4], [2.0, 9.0]]))
    none, few = [0.0] * 10, [0.3, 0.1] + [0.0] * 8  # above .1 and .3 of .1 .3 .5 .7 1 1.4 …
    some = [1.0, 1.0, 1.0, 1.0, 1.0, 0.6, 0.2, 0.0, 0.0, 0.0]
    expected = torch.tensor([[0.0, 0.4, *none, *few], [2.0, 9.0, *some, *[1.0] * 10]])
    torch.testing.assert_close(made, expected)
