"""The network of both tasks: item vectors, user vectors, and the losses of one step.

Shapes: B rows of L tokens, Q queries, T recall targets, S shown items, U distinct items of the
step, C negatives, d dimensions, R repeat features. Items are given as places in an `ItemSlice`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_rec.model.config import ModelConfig
from ray_rec.model.heads import REPEAT_DAYS, ClickHead, RecallHead, ShownFeatures, repeat_weights
from ray_rec.model.items import ItemSlice
from ray_rec.model.losses import binary_loss, click_loss, sampled_logits, softmax_loss
from ray_rec.model.trunk import Trunk


@dataclass(frozen=True)
class Queries:
    """Who asks: token rows, and queries that see the first `context` tokens of their row."""

    token: Tensor  # int64 [B, L] places in the slice, 0 where padded
    type: Tensor  # int64 [B, L]
    ts: Tensor  # int64 [B, L] ms
    row: Tensor  # int64 [Q]
    context: Tensor  # int64 [Q]
    at_ms: Tensor  # int64 [Q]


@dataclass(frozen=True)
class Step:
    """One step's rows: queries, recall targets, shown items and the step's negatives."""

    queries: Queries
    target_query: Tensor  # int64 [T]
    target: Tensor  # int64 [T]
    shown_query: Tensor  # int64 [S]
    shown: Tensor  # int64 [S]
    shown_position: Tensor  # int64 [S]
    shown_labels: Tensor  # [S, O]
    negative: Tensor  # int64 [C], distinct
    log_expected: Tensor  # [C]; all zero when the negatives are the whole catalogue
    exact: bool


@dataclass(frozen=True)
class View:
    """What is computed once for the queries of a step."""

    vector: Tensor  # [U, d]
    text: Tensor  # [U, text_dim], unit length
    user: Tensor  # [Q, d]
    token: Tensor  # int64 [Q, L]
    seen: Tensor  # bool [Q, L]
    repeat: Tensor  # [Q, L, R] what each token adds to its item's repeats
    text_last: Tensor  # [Q, text_dim]
    text_mean: Tensor  # [Q, text_dim]


@dataclass(frozen=True)
class LossSums:
    """Sums of the two losses over a step's rows, and over how many."""

    recall: Tensor
    recall_weight: int
    click: Tensor
    click_weight: int
    click_logits: Tensor


class MultiTaskModel(nn.Module):
    """Recall and click-through on one trunk."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = nn.Sequential(
            nn.Linear(config.text_dim, config.tower_dim),
            nn.GELU(),
            nn.Linear(config.tower_dim, config.dim),
        )
        self.trunk = Trunk(config)
        self.recall = RecallHead(config)
        self.click = ClickHead(config)

    def item_vectors(self, items: ItemSlice, own: Tensor | None = None) -> Tensor:
        """Return v = a·id + (1-a)·tower(text), [U, d]; `own` [U] scales a (0 drops the id)."""
        if items.vector is not None:
            return items.vector
        share = items.share if own is None else items.share * own
        text = self.tower(items.text)[items.text_of]
        mixed: Tensor = share[:, None] * items.id + (1 - share)[:, None] * text
        return mixed

    def view(self, items: ItemSlice, queries: Queries, own: Tensor | None = None) -> View:
        """Run the trunk and gather what both heads need."""
        vector = self.item_vectors(items, own)
        text = functional.normalize(items.text, dim=1)[items.text_of]
        state = self.trunk(vector[queries.token], queries.type, queries.ts)
        token, context = queries.token[queries.row], queries.context
        ts = queries.ts[queries.row]
        seen = torch.arange(token.shape[1], device=token.device) < context[:, None]
        last = (context - 1).clamp(min=0)[:, None]
        since = queries.at_ms - ts.gather(1, last)[:, 0]
        user = self.trunk.query(state[queries.row, context], since, context > 0)
        seen_real = seen.to(vector.dtype)
        mean = torch.einsum("ql,qlt->qt", seen_real, text[token])
        known = (context > 0).to(vector.dtype)[:, None]
        repeat = repeat_weights(queries.at_ms[:, None] - ts, seen).to(vector.dtype)
        return View(
            vector=vector,
            text=text,
            user=user,
            token=token,
            seen=seen,
            repeat=repeat,
            text_last=text[token.gather(1, last)[:, 0]] * known,
            text_mean=functional.normalize(mean, dim=1),
        )

    def losses(self, items: ItemSlice, step: Step, own: Tensor | None = None) -> LossSums:
        """Return the sums of both losses over this worker's rows of a step."""
        view = self.view(items, step.queries, own)
        recall = self._recall_loss(items, step, view)
        logits = self.shown_logits(items, view, step.shown_query, step.shown, step.shown_position)
        return LossSums(
            recall=recall.sum(),
            recall_weight=len(step.target),
            click=click_loss(logits, step.shown_labels).sum(),
            click_weight=len(step.shown),
            click_logits=logits,
        )

    def _recall_loss(self, items: ItemSlice, step: Step, view: View) -> Tensor:
        query, target = step.target_query, step.target
        wanted = self._pair_scores(items, view, query, target)
        negatives = self._negative_scores(items, view, step.negative)
        hit = step.negative == target[:, None]
        if step.exact:
            others = negatives[query].masked_fill(hit, -torch.inf)
        else:
            own, listed = self._own_scores(items, view)
            repeated = (view.token[query] == target[:, None]) & view.seen[query]
            mine = own[query].masked_fill(repeated, -torch.inf)
            sampled = sampled_logits(negatives, step.log_expected, self._listed(view, step, listed))
            others = torch.cat([mine, sampled[query].masked_fill(hit, -torch.inf)], dim=1)
        loss = binary_loss if self.config.recall_loss == "bce" else softmax_loss
        return loss(wanted, others)

    def _pair_scores(self, items: ItemSlice, view: View, query: Tensor, item: Tensor) -> Tensor:
        """Return the recall score of one item for each of some queries, [T]."""
        text = view.text[item]
        same = (view.token[query] == item[:, None]).to(text.dtype)
        parts = self.recall.parts(
            (view.user[query] * view.vector[item]).sum(1),
            items.popularity[item],
            (view.text_last[query] * text).sum(1),
            (view.text_mean[query] * text).sum(1),
            self.recall.repeats(torch.einsum("tl,tlr->tr", same, view.repeat[query])),
        )
        return torch.stack(list(parts.values())).sum(0)

    def _negative_scores(self, items: ItemSlice, view: View, negative: Tensor) -> Tensor:
        """Return the recall scores of the step's negatives for every query, [Q, C]."""
        place = torch.full((len(view.vector),), -1, device=negative.device)
        place[negative] = torch.arange(len(negative), device=negative.device)
        column = place[view.token]
        row, token = torch.nonzero(view.seen & (column >= 0), as_tuple=True)
        shape = (len(view.user), len(negative), len(REPEAT_DAYS))
        repeats = view.repeat.new_zeros(shape).index_put(
            (row, column[row, token]), view.repeat[row, token], accumulate=True
        )
        text = view.text[negative]
        parts = self.recall.parts(
            view.user @ view.vector[negative].T,
            items.popularity[negative],
            view.text_last @ text.T,
            view.text_mean @ text.T,
            self.recall.repeats(repeats),
        )
        return torch.stack([part.expand(shape[:2]) for part in parts.values()]).sum(0)

    def _own_scores(self, items: ItemSlice, view: View) -> tuple[Tensor, Tensor]:
        """Return the scores of the own history's items [Q, L], each item once, and which are."""
        earlier = torch.tril(_same_tokens(view), diagonal=-1).any(2)
        listed = view.seen & ~earlier
        text, vector = view.text[view.token], view.vector[view.token]
        parts = self.recall.parts(
            torch.einsum("qd,qld->ql", view.user, vector),
            items.popularity[view.token],
            torch.einsum("qt,qlt->ql", view.text_last, text),
            torch.einsum("qt,qlt->ql", view.text_mean, text),
            self.own_repeats(view),
        )
        scores = torch.stack(list(parts.values())).sum(0)
        return scores.masked_fill(~listed, -torch.inf), listed

    def own_repeats(self, view: View) -> Tensor:
        """Return the repeat part of the score of each query's own history items, [Q, L]."""
        same = _same_tokens(view).to(view.repeat.dtype)
        return self.recall.repeats(torch.einsum("qlm,qmr->qlr", same, view.repeat))

    def _listed(self, view: View, step: Step, listed: Tensor) -> Tensor:
        """Return which negatives [Q, C] stand in the sum already, as items of the own history."""
        place = torch.full((len(view.vector),), -1, device=listed.device)
        place[step.negative] = torch.arange(len(step.negative), device=listed.device)
        column = place[view.token]
        row, token = torch.nonzero(listed & (column >= 0), as_tuple=True)
        out = torch.zeros(len(view.user), len(step.negative), dtype=torch.bool, device=row.device)
        out[row, column[row, token]] = True
        return out

    def shown_logits(
        self, items: ItemSlice, view: View, query: Tensor, item: Tensor, position: Tensor | None
    ) -> Tensor:
        """Return the click head's logits of items shown to queries, [S, O]."""
        text = view.text[item]
        same = (view.token[query] == item[:, None]).to(text.dtype)
        repeats = torch.log1p(torch.einsum("sl,slr->sr", same, view.repeat[query]))
        price = items.price[item]
        numbers = torch.cat(
            [
                items.popularity[item],
                (view.text_last[query] * text).sum(1, keepdim=True),
                (view.text_mean[query] * text).sum(1, keepdim=True),
                repeats,
                torch.log1p(price.nan_to_num(0.0).clamp(min=0))[:, None],
                torch.isnan(price).to(text.dtype)[:, None],
                items.share[item][:, None],
            ],
            dim=1,
        )
        shown = ShownFeatures(
            user=view.user[query],
            item=view.vector[item],
            history=view.vector[view.token[query]],
            seen=view.seen[query],
            numbers=numbers,
        )
        logits: Tensor = self.click(shown, position)
        return logits


def _same_tokens(view: View) -> Tensor:
    """Return which tokens m that the query sees hold the item of token l: bool [Q, L, L]."""
    return (view.token[:, :, None] == view.token[:, None, :]) & view.seen[:, None, :]
