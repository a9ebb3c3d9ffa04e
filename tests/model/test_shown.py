"""What the click head is told in numbers: named, selected by name, shuffled by name."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from ray_rec.errors import ConfigError
from ray_rec.evaluation.clicks.importance import auc_drops
from ray_rec.model.config import ModelConfig
from ray_rec.model.heads import ClickHead
from ray_rec.model.servable import Servable
from ray_rec.model.shown import Candidates, ShownFeatures, click_numbers
from tests.model import toy

RATES = replace(toy.PLAIN, click_inputs="rates")
WIDTHS = {"popularity": 3, "likeness": 2, "repeats": 3, "price": 2, "share": 1}
WIDTHS_BY_RATES = {
    "popularity": 3 + 3 * 10,  # ten levels of each
    "likeness": 2,
    "repeats": 3,
    "price": 2,
    "rates": 3 * (1 + 3),  # of all, of text, of category: how sure, and of three outcomes
    "habits": 3 * 3,
    "placement": 8,
}
BOTH = [toy.PLAIN, RATES]


def features(config: ModelConfig) -> ShownFeatures:
    """Five items shown to two people who did three things, all drawn."""
    random = torch.Generator().manual_seed(0)
    widths = click_numbers(config)
    return ShownFeatures(
        query=torch.tensor([0, 0, 1, 1, 1]),
        user=torch.randn(5, config.dim, generator=random),
        item=torch.randn(5, config.dim, generator=random),
        numbers={
            name: torch.randn(5, width, generator=random)
            for name, width in widths.items()
            if name != "placement"
        },
        history=torch.randn(2, 3, config.dim, generator=random),
        seen=torch.ones(2, 3, dtype=torch.bool),
        placement=torch.arange(5),
        position=None,
    )


def of_one_name(head: ClickHead, config: ModelConfig, name: str) -> None:
    """Let a head's logits be the sum of the numbers of one name."""
    widths = click_numbers(config)
    begin = sum(list(widths.values())[: list(widths).index(name)])
    with torch.no_grad():
        for parameter in (head.out.weight, head.out.bias, head.wide.weight, head.wide.bias):
            parameter.zero_()
        head.wide.weight[:, begin : begin + widths[name]] = 1.0


def test_all_is_told_in_order_where_nothing_is_selected() -> None:
    assert list(click_numbers(toy.PLAIN).items()) == list(WIDTHS.items())
    assert list(click_numbers(RATES).items()) == list(WIDTHS_BY_RATES.items())
    shapes = {name: tuple(each.shape) for name, each in ClickHead(toy.PLAIN).state_dict().items()}
    # candidate, history, user and two crosses of 16 each, and 3 + 2 + 3 + 2 + 1 numbers
    assert shapes["mix.0.weight"] == (32, 4 * 16 + 11)
    assert shapes["wide.weight"] == (3, 11)
    by_rates = {name: tuple(each.shape) for name, each in ClickHead(RATES).state_dict().items()}
    assert by_rates["mix.0.weight"] == (32, 5 * 16 + 69)
    assert set(by_rates) - set(shapes) == {"placement.plain.weight", "placement.of_kind.weight"}


@pytest.mark.parametrize("config", BOTH)
def test_selecting_all_in_any_order_is_selecting_none(config: ModelConfig) -> None:
    made = []
    for select in ((), tuple(reversed(config.click_numbers))):
        torch.manual_seed(0)
        chosen = replace(config, select=select)
        made.append(ClickHead(chosen)(features(chosen)))
    assert torch.equal(*made)


def test_affinities_and_the_calendar_are_told_where_a_configuration_says_so() -> None:
    config = replace(RATES, affinities=["text", "category", "brand"], calendar=True)
    widths = click_numbers(config)
    assert list(widths) == ["calendar", *WIDTHS_BY_RATES]
    assert (widths["calendar"], widths["habits"]) == (4, 4 * 3)
    assert click_numbers(replace(RATES, affinities=("brand",)))["habits"] == 2 * 3
    with pytest.raises(ConfigError, match=r"'band'; known are .*brand; did you mean 'brand'\?"):
        ModelConfig(affinities=("band",))
    with pytest.raises(ConfigError, match="affinities is empty; name some of text, category"):
        ModelConfig(affinities=())


def test_promotions_come_before_popularity_and_are_no_counts() -> None:
    config = replace(RATES, num_promotions=2)
    widths = click_numbers(config)
    assert list(widths) == ["promotion", *WIDTHS_BY_RATES]
    assert (widths["promotion"], widths["popularity"]) == (2 * 2, 33)
    assert click_numbers(replace(config, select=("promotion",))) == {"promotion": 4}


def test_a_head_that_is_told_less_is_smaller() -> None:
    config = replace(RATES, select=["price", "popularity"])  # as TOML gives them
    assert click_numbers(config) == {"popularity": 33, "price": 2}
    head = ClickHead(config)
    assert head.wide.weight.shape == (3, 35)
    assert head.mix[0].weight.shape == (32, 4 * 16 + 35)
    assert head.placement is None


def test_a_name_that_is_not_known_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'prise'.*popularity, .*share; did you mean 'price'\?"):
        ModelConfig(select=("popularity", "prise"))
    with pytest.raises(ConfigError, match=r"'share'; known with model.click_inputs=rates are"):
        ModelConfig(click_inputs="rates", select=("share",))


@pytest.mark.parametrize("config", BOTH)
def test_what_is_shuffled_moves_and_nothing_else(config: ModelConfig) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    head, shown = ClickHead(config), features(config)
    for name in click_numbers(config):
        of_one_name(head, config, name)
        before = head(shown)
        for other in click_numbers(config):
            after = head(shown.shuffled(other, order))
            torch.testing.assert_close(after, before[order] if other == name else before)


def test_only_what_a_head_goes_by_is_missed(
    tensors: Callable[[], dict[str, torch.Tensor]],
) -> None:
    """Dear items are bought, and the head goes by the price: it ranks them without a mistake."""
    head = ClickHead(toy.PLAIN)
    of_one_name(head, toy.PLAIN, "price")
    own = {f"model.click.{name}": tensor for name, tensor in head.state_dict().items()}
    servable = Servable.from_tensors(tensors() | own, toy.PLAIN)
    item = np.arange(toy.NUM_ITEMS)
    none = np.zeros_like(item)
    rates = np.zeros((len(item), 0), np.float32)
    asked = ([toy.history([1, 2])], np.array([toy.NOW_MS]))
    shown = Candidates(none, item, toy.POPULARITY, rates, none)
    order = np.roll(item, toy.NUM_ITEMS // 2)  # the dear ones have the prices of the cheap ones
    without = servable.click_shuffled(*asked, shown, order)
    bought = (item >= toy.NUM_ITEMS // 2).astype(np.float32)
    said = servable.click_batch(*asked, shown)[:, 2]
    drops = auc_drops(bought, said, {name: p[:, 2] for name, p in without.items()})
    assert drops == {"price": 1.0, "popularity": 0, "likeness": 0, "repeats": 0, "share": 0}
    assert next(iter(drops)) == "price"
