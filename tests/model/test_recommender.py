"""The network: nothing of the future is seen, vectors are mixed as stated, losses agree."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from ray_rec.features.responses import num_rates
from ray_rec.model.config import ModelConfig
from ray_rec.model.items import ItemSlice, ItemTable, own_share
from ray_rec.model.recommender import MultiTaskModel
from ray_rec.model.shown import shown_features
from ray_rec.model.step import ShownItems, Step
from ray_rec.model.view import Queries
from tests.model import toy

U, B, L, F = 12, 3, 6, num_rates(3)


@pytest.fixture
def model() -> MultiTaskModel:
    torch.manual_seed(0)
    made = MultiTaskModel(toy.PLAIN)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@pytest.fixture
def items() -> ItemSlice:
    random = torch.Generator().manual_seed(1)
    return ItemSlice(
        id=torch.randn(U, 16, generator=random),
        share=torch.rand(U, generator=random),
        text=torch.nn.functional.normalize(torch.randn(U, 16, generator=random), dim=1) * 4,
        text_of=torch.arange(U),
        popularity=torch.rand(1, U, 3, generator=random),
        price=torch.full((U,), torch.nan),
        groups=torch.tensor([[1 + at // 2, 1 + at // 4, 1 + at % 2] for at in range(U)]),
    )


def _queries() -> Queries:
    token = torch.tensor([[1, 2, 3, 1, 5, 6], [7, 8, 9, 0, 0, 0], [4, 4, 4, 4, 4, 4]])
    ts = toy.NOW_MS + torch.arange(L) * toy.HOUR_MS
    context = torch.tensor([0, 2, 4, 3, 6])
    row = torch.tensor([0, 0, 0, 1, 2])
    return Queries(
        token=token,
        type=torch.full((B, L), 4),
        ts=ts.expand(B, L).clone(),
        row=row,
        context=context,
        at_ms=toy.NOW_MS + (context + 1) * toy.HOUR_MS,
        moment=torch.zeros(len(context), dtype=torch.int64),
    )


def _step(queries: Queries, negative: torch.Tensor) -> Step:
    return Step(
        queries=queries,
        target_query=torch.tensor([0, 1, 1, 2, 4]),
        target=torch.tensor([1, 3, 1, 5, 4]),
        shown=ShownItems(
            query=torch.tensor([0, 0, 3]),
            item=torch.tensor([2, 10, 7]),
            popularity=torch.tensor([[0.0, 1, 2], [3, 2, 1], [0, 0, 1]]),
            rates=torch.linspace(-2, 2, 3 * F).reshape(3, F),
            placement=torch.tensor([0, 1, 2]),
            position=torch.tensor([1, 2, 1]),
        ),
        shown_labels=torch.tensor([[0.0, 0, 1], [0, 0, 0], [1, 1, 1]]),
        negative=negative,
        log_chance=torch.zeros(len(negative)),
    )


def _part(shown: ShownItems, rows: slice) -> ShownItems:
    return ShownItems(*(getattr(shown, field.name)[rows] for field in fields(shown)))


def test_item_vectors_mix_own_and_text_by_experience(
    model: MultiTaskModel, items: ItemSlice
) -> None:
    # k = 5: after 5 events half is its own, after 15 three quarters, before the first none
    share = own_share(torch.tensor([5.0, 15.0, 0.0]), 5.0)
    assert share.tolist() == [0.5, 0.75, 0.0]
    assert own_share(torch.zeros(1), 0.0).tolist() == [0.0]
    some = replace(items, share=torch.cat([share, torch.zeros(U - 3)]))
    text = model.tower(items.text)
    vector = model.item_vectors(some)[0]
    torch.testing.assert_close(vector[0], 0.5 * items.id[0] + 0.5 * text[0])
    torch.testing.assert_close(vector[1], 0.75 * items.id[1] + 0.25 * text[1])
    torch.testing.assert_close(vector[2], text[2])
    torch.testing.assert_close(model.item_vectors(some, torch.zeros(U))[0], text)


@pytest.mark.parametrize("what", ["token", "type", "ts"])
@pytest.mark.parametrize("longest", [12, 3])
def test_what_comes_after_the_context_is_never_seen(
    items: ItemSlice, what: str, longest: int
) -> None:
    torch.manual_seed(0)
    model = MultiTaskModel(replace(toy.PLAIN, max_length=longest))
    queries = _queries()
    changed = getattr(queries, what).clone()
    changed[0, 4:] = changed[0, 4:].flip(0) + 1
    changed[1, 3:] += 1
    one = model.view(items, queries)
    other = model.view(items, replace(queries, **{what: changed}))
    for name in ("user", "text_last", "text_mean"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=0, rtol=0)
    torch.testing.assert_close(one.own.values, other.own.values, atol=0, rtol=0)
    assert torch.equal(one.own.key, other.own.key)


def test_what_is_in_the_context_is_seen(model: MultiTaskModel, items: ItemSlice) -> None:
    queries = _queries()
    token = queries.token.clone()
    token[0, 1] = 11
    one, other = model.view(items, queries), model.view(items, replace(queries, token=token))
    changed = (one.user != other.user).any(1)
    assert changed.tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("longest", [12, 3])
def test_a_token_whose_item_is_not_told_might_be_of_any(items: ItemSlice, longest: int) -> None:
    torch.manual_seed(0)
    model, queries = MultiTaskModel(replace(toy.PLAIN, max_length=longest)), _queries()
    told = torch.ones(B, L, dtype=torch.bool)
    told[0, 1] = told[2, 5] = False
    token = queries.token.clone()
    token[0, 1], token[2, 5] = 11, 0
    steps = [
        _step(replace(queries, token=some, told=told), torch.arange(U))
        for some in (queries.token, token)
    ]
    one, other = (model.losses(items, step) for step in steps)
    torch.testing.assert_close(one.recall, other.recall, atol=0, rtol=0)
    torch.testing.assert_close(one.click, other.click, atol=0, rtol=0)
    own = model.view(items, steps[0].queries).own
    # queries 1 to 4 see (1, ?), (1, ?, 3, 1), (7, 8, 9) and five fours of six
    assert own.query.tolist() == [1, 2, 2, 3, 3, 3, 4]
    assert own.item.tolist() == [1, 1, 3, 7, 8, 9, 4]
    assert own.values[:, 0].exp().round().tolist() == [2, 3, 2, 2, 2, 2, 6]  # 1 + counts


def test_a_row_that_is_told_whole_is_what_it_was(model: MultiTaskModel, items: ItemSlice) -> None:
    told = torch.ones(B, L, dtype=torch.bool)
    one = model.losses(items, _step(_queries(), torch.arange(U)))
    other = model.losses(items, _step(replace(_queries(), told=told), torch.arange(U)))
    assert (one.recall, one.click) == (other.recall, other.click)


def test_a_query_does_not_depend_on_its_neighbours(model: MultiTaskModel, items: ItemSlice) -> None:
    queries = _queries()
    together = model.view(items, queries).user
    for at in range(len(queries.row)):
        row = queries.row[at]
        alone = Queries(
            token=queries.token[row, None],
            type=queries.type[row, None],
            ts=queries.ts[row, None],
            row=torch.zeros(1, dtype=torch.int64),
            context=queries.context[at, None],
            at_ms=queries.at_ms[at, None],
            moment=queries.moment[at, None],
        )
        torch.testing.assert_close(model.view(items, alone).user[0], together[at])


def test_exact_loss_is_the_softmax_over_all_items(model: MultiTaskModel, items: ItemSlice) -> None:
    queries, everyone = _queries(), torch.arange(U)
    step = _step(queries, everyone)
    view = model.view(items, queries)
    expected = 0.0
    for query, target in zip(step.target_query.tolist(), step.target.tolist(), strict=True):
        scores = model.pair_scores(
            items, view, step.queries.moment, torch.full((U,), query), everyone
        )
        expected -= float(torch.log_softmax(scores.detach(), 0)[target])
    sums = model.losses(items, step)
    assert sums.recall_weight == 5
    assert float(sums.recall.detach()) == pytest.approx(expected, rel=1e-5)


def test_which_negatives_were_drawn_twice_over_does_not_matter(
    model: MultiTaskModel, items: ItemSlice
) -> None:
    """Targets and own items are candidates by themselves; being drawn as well changes nothing."""
    queries = _queries()
    without = _step(queries, torch.tensor([0, 11]))
    own = torch.tensor([0, 11, 4])  # 4 is all that the last query has had, and its target
    last = {
        "target_query": torch.tensor([4]),
        "target": torch.tensor([4]),
    }
    one = model.losses(items, replace(without, **last)).recall
    other = model.losses(items, replace(_step(queries, own), **last)).recall
    torch.testing.assert_close(one, other)


def test_the_binary_form_counts_targets_and_others(items: ItemSlice) -> None:
    torch.manual_seed(0)
    model = MultiTaskModel(replace(toy.PLAIN, recall_loss="bce"))
    queries, everyone = _queries(), torch.arange(U)
    step = replace(
        _step(queries, everyone), target_query=torch.tensor([1, 1]), target=torch.tensor([3, 1])
    )
    scores = model.pair_scores(
        items,
        model.view(items, queries),
        queries.moment,
        torch.ones(U, dtype=torch.int64),
        everyone,
    )
    others = [item for item in range(U) if item not in (1, 3)]
    mean = torch.nn.functional.softplus(scores[others]).mean()
    expected = torch.nn.functional.softplus(-scores[[3, 1]]).sum() + 2 * mean
    torch.testing.assert_close(model.losses(items, step).recall, expected)


def test_clicks_and_recall_stand_alone(model: MultiTaskModel, items: ItemSlice) -> None:
    step = _step(_queries(), torch.arange(U))
    both = model.losses(items, step)
    none = torch.zeros(0, dtype=torch.int64)
    recall = model.losses(
        items,
        replace(
            step,
            shown=_part(step.shown, slice(0)),
            shown_labels=step.shown_labels[:0],
        ),
    )
    click = model.losses(items, replace(step, target_query=none, target=none))
    torch.testing.assert_close(recall.recall, both.recall)
    torch.testing.assert_close(click.click, both.click)
    assert (recall.click_weight, click.recall_weight) == (0, 0)
    assert float(recall.click.detach()) == float(click.recall.detach()) == 0.0


def test_the_place_shown_at_is_learned_beside_the_item(
    model: MultiTaskModel, items: ItemSlice
) -> None:
    view = model.view(items, _queries())
    shown = _part(_step(_queries(), torch.arange(U)).shown, slice(2))
    served = model.shown_logits(items, view, replace(shown, position=None))
    placed = model.shown_logits(items, view, replace(shown, position=torch.tensor([1, 500])))
    bias = model.click.position.weight[[1, model.click.MAX_POSITION]]
    torch.testing.assert_close(placed - served, bias)


def test_growth_leaves_what_is_there() -> None:
    table = ItemTable(replace(toy.PLAIN, dim=4, text_dim=3), torch.float32, torch.device("cpu"))
    table.grow(2)
    table.add_texts(torch.ones(1, 3))
    table.id[:2] = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    table.count[:2] = torch.tensor([1.0, 2.0])
    table.price[0] = 9.5
    before = {name: tensor.clone() for name, tensor in table.served().items()}
    table.grow(100)
    first = table.add_texts(torch.full((7, 3), 2.0))
    assert (first, table.num_texts, len(table)) == (1, 8, 100)
    after = table.served()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name][: len(tensor)], tensor, equal_nan=True)
    assert torch.isnan(after["price"][2:]).all()
    assert not after["id"][2:].any()
    table.grow(3)
    assert len(table) == 100


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recall_loss": "bce"},
        {"repeat_units": 2},
        {"click_inputs": "rates"},
        {"select": ("likeness",)},
        {"click_inputs": "rates", "select": ("placement",)},
        {"calendar": True},
        {"click_inputs": "rates", "repeat_units": 2, "affinities": ("text", "category", "brand")},
    ],
)
def test_every_weight_of_the_network_learns(changes: dict[str, Any], items: ItemSlice) -> None:
    torch.manual_seed(0)
    model = MultiTaskModel(replace(toy.PLAIN, **changes))
    if model.recall.bend is not None:  # begins as nothing, through which nothing is learned yet
        torch.nn.init.ones_(model.recall.bend[-1].weight)
    leaf = replace(items, id=items.id.requires_grad_())
    sums = model.losses(leaf, _step(_queries(), torch.arange(U)))
    torch.autograd.backward(sums.recall + sums.click)
    untouched = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []
    assert leaf.id.grad is not None


def test_clicks_see_the_popularity_of_when_an_item_was_shown(
    model: MultiTaskModel, items: ItemSlice
) -> None:
    step = _step(_queries(), torch.arange(U))
    before = model.losses(items, step)
    later = model.losses(replace(items, popularity=items.popularity + 1), step)
    torch.testing.assert_close(later.click, before.click, atol=0, rtol=0)
    assert not torch.equal(later.recall, before.recall)
    shown = replace(step.shown, popularity=step.shown.popularity + 1)
    other = model.losses(items, replace(step, shown=shown))
    assert not torch.equal(other.click, before.click)


@pytest.mark.parametrize(("select", "sees"), [("popularity", True), ("likeness", False)])
def test_clicks_see_what_is_selected_alone(items: ItemSlice, select: str, sees: bool) -> None:
    torch.manual_seed(0)
    model = MultiTaskModel(replace(toy.PLAIN, select=(select,)))
    step = _step(_queries(), torch.arange(U))
    shown = replace(step.shown, popularity=step.shown.popularity + 1)
    before, after = (model.losses(items, each).click for each in (step, replace(step, shown=shown)))
    assert torch.equal(before, after) != sees


@pytest.mark.parametrize("calendar", [True, False])
def test_both_heads_are_told_the_hour_where_a_configuration_says_so(
    calendar: bool, items: ItemSlice
) -> None:
    torch.manual_seed(0)
    model = MultiTaskModel(replace(toy.PLAIN, calendar=calendar))
    torch.nn.init.zeros_(model.trunk.query_gap.weight)  # which another hour changes too
    step = _step(_queries(), torch.arange(U))
    zeros = torch.zeros_like(step.queries.ts)
    still = replace(step.queries, ts=zeros, at_ms=torch.full_like(step.queries.at_ms, 10**12))
    later = replace(still, at_ms=still.at_ms + 5 * toy.HOUR_MS)
    users = [model.view(items, queries).user for queries in (still, later)]
    assert torch.equal(*users) != calendar
    numbers = [
        shown_features(model.config, items, model.view(items, queries), step.shown).numbers
        for queries in (still, later)
    ]
    assert ("calendar" in numbers[0]) == calendar
    if calendar:
        assert not torch.equal(numbers[0]["calendar"], numbers[1]["calendar"])


@pytest.mark.parametrize("known_by", ["vectors", "rates"])
def test_clicks_by_rates_know_nothing_of_own_vectors(known_by: str, items: ItemSlice) -> None:
    """Item 10 is shown and in no history, so that its own vector counts for nothing else."""
    torch.manual_seed(0)
    config: ModelConfig = replace(toy.PLAIN, click_inputs=known_by)
    model = MultiTaskModel(config)
    step = _step(_queries(), torch.arange(U))
    assert 10 in step.shown.item
    assert 10 not in step.queries.token
    own = items.id.clone()
    own[10] += 1.0
    before, after = (model.losses(each, step).click for each in (items, replace(items, id=own)))
    assert torch.equal(before, after) == (known_by == "rates")


def test_texts_that_are_weighed_late_are_left_out_of_the_loss_and_part_of_the_answer(
    items: ItemSlice,
) -> None:
    torch.manual_seed(0)
    model = MultiTaskModel(replace(toy.PLAIN, late_text=(3.0, 5.0, 2.0)))
    step = _step(_queries(), torch.arange(U))
    other = replace(items, text=items.text.flip(0))
    vectors = [replace(part, vector=torch.ones(U, 16)) for part in (items, other)]
    learning = [float(model.losses(part, step).recall.detach()) for part in vectors]
    assert learning[0] == learning[1]
    model.eval()
    view = model.view(items, step.queries)
    query, item = torch.tensor([1]), torch.tensor([9])
    with_text = model.pair_scores(items, view, step.queries.moment, query, item)
    model.recall.text.zero_()
    without = model.pair_scores(items, view, step.queries.moment, query, item)
    unit = torch.nn.functional.normalize(items.text, dim=1)
    mean = torch.nn.functional.normalize(unit[[1, 2]].sum(0), dim=0)
    expected = 3.0 * unit[2] @ unit[9] + 5.0 * mean @ unit[9]
    expected = expected * (1 + 2.0 * (1 - items.share[9]))  # the less it was learned, the more
    torch.testing.assert_close(with_text - without, expected[None], atol=1e-5, rtol=1e-5)
    assert "recall.text" not in dict(model.named_parameters())
    assert "recall.text" in model.state_dict()
