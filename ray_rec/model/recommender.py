"""The network of both tasks: item vectors, user vectors, and the losses of one step.

Shapes: B rows of L tokens, Q queries, A of them asking for T recall targets, S shown items, U
distinct items of the step, C negatives, M recent tokens, d dimensions. Items are given as places in
an `ItemSlice`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_rec.model.calibration import Calibration
from ray_rec.model.config import ModelConfig
from ray_rec.model.heads import ClickHead, RecallHead
from ray_rec.model.items import ItemSlice
from ray_rec.model.losses import (
    LossSums,
    binary_loss,
    click_loss,
    ragged,
    sampled_logits,
    softmax_loss,
    without,
)
from ray_rec.model.shown import alike_of, shown_features
from ray_rec.model.step import ShownItems, Step
from ray_rec.model.trunk import Trunk
from ray_rec.model.view import Queries, View, own_items, pieces
from ray_rec.model.weights import TaskWeights


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
        self.weights = TaskWeights(config)
        self.calibration = Calibration(config)

    def item_vectors(self, items: ItemSlice, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return v = a·id + (1-a)·tower(text) and tower(text), [U, d] each.

        `own` [U] scales a (0 drops the id).
        """
        if items.vector is not None and self.config.click_inputs == "vectors":
            return items.vector, items.vector  # nobody asks what a text alone gives
        kind = self.tower(items.text)[items.text_of].to(items.id.dtype)  # under autocast it is not
        if items.vector is not None:
            return items.vector, kind
        share = items.share if own is None else items.share * own
        return torch.lerp(kind, items.id, share[:, None]), kind

    def view(self, items: ItemSlice, queries: Queries, own: Tensor | None = None) -> View:
        """Run the trunk and gather what both heads need."""
        vector, kind = self.item_vectors(items, own)
        text = items.unit_text()[items.text_of]
        context = queries.context
        place = context[:, None] - 1 - torch.arange(self.config.max_length, device=context.device)
        place = place[:, : max(1, queries.token.shape[1])]
        seen = place >= 0
        newest = (queries.row[:, None], place.clamp(min=0))
        recent = queries.token[newest]
        if queries.told is not None:
            seen &= queries.told[newest]
        known = seen.to(text.dtype)
        judged = self.recall.bend is not None
        total = functional.embedding_bag(recent, text, mode="sum", per_sample_weights=known)
        return View(
            queries=queries,
            vector=vector,
            kind=kind,
            text=text,
            user=self._users(vector, queries),
            recent=recent,
            seen=seen,
            own=own_items(queries, len(vector), vector.dtype),
            alike=alike_of(self.config, items, queries) if judged else None,
            text_last=text[recent[:, 0]] * known[:, :1],
            text_mean=functional.normalize(total, dim=1),
        )

    def _users(self, vector: Tensor, queries: Queries) -> Tensor:
        """Return user vectors [Q, d]."""
        cut = pieces(queries, self.config.max_length)
        tokens = vector[cut.token]
        if cut.told is not None:
            tokens = tokens * cut.told[..., None]
        state = self.trunk(tokens, cut.type, cut.ts, cut.of, cut.context)
        last = (cut.context - 1).clamp(min=0)
        since_ms = queries.at_ms - cut.ts[cut.of, last]
        user: Tensor = self.trunk.query(state, since_ms, cut.context > 0, queries.at_ms)
        return user

    def idle(self, total: Sequence[float]) -> list[nn.Parameter]:
        """Return what is only of tasks without rows in `total`, recall and click, [2]."""
        heads = zip((self.recall, self.click), total, strict=True)
        parameters = [p for head, rows in heads if not rows for p in head.parameters()]
        return parameters + self.weights.idle(total)

    def losses(self, items: ItemSlice, step: Step, own: Tensor | None = None) -> LossSums:
        """Return the sums of both losses over this worker's rows of a step."""
        view = self.view(items, step.queries, own)
        nothing = view.user.sum() * 0.0
        recall = self._recall_loss(items, step, view).sum() if len(step.target) else nothing
        click = self._click_loss(items, step, view).sum() if len(step.shown_labels) else nothing
        return LossSums(recall, len(step.target), click, len(step.shown_labels))

    def _click_loss(self, items: ItemSlice, step: Step, view: View) -> Tensor:
        return click_loss(self.shown_logits(items, view, step.shown), step.shown_labels)

    def _recall_loss(self, items: ItemSlice, step: Step, view: View) -> Tensor:
        """Return the loss of each target, [T].

        Candidates are the query's own history and targets, which are always there, and the
        negatives, which stand for all other items.
        """
        asked, query = torch.unique(step.target_query, return_inverse=True)
        wanted = step.target_query * len(view.vector) + step.target
        asking = torch.zeros(len(view.user), dtype=torch.bool, device=asked.device)
        asking[asked] = True
        sure = torch.cat([view.own.key[asking[view.own.query]], wanted])
        key, place = torch.unique(sure, return_inverse=True)
        pair_query, pair_item = key // len(view.vector), key % len(view.vector)
        score = self.pair_scores(items, view, step.queries.moment, pair_query, pair_item)
        target = place[-len(wanted) :]
        row = torch.searchsorted(asked, pair_query)
        drawn = self._negative_scores(items, view, step, asked)
        drawn = without(drawn, row, pair_item, step.negative, len(view.vector))
        if self.config.recall_loss == "bce":
            others = ragged(score.index_fill(0, target, -torch.inf), row, len(asked))
            return binary_loss(score[target], query, torch.cat([others, drawn], dim=1))
        candidates = ragged(score, row, len(asked))
        drawn = sampled_logits(drawn, step.log_chance)
        return softmax_loss(score[target], query, torch.cat([candidates, drawn], dim=1))

    def pair_scores(
        self, items: ItemSlice, view: View, moment: Tensor, query: Tensor, item: Tensor
    ) -> Tensor:
        """Return the recall score of one item for each of some queries, [n]; `moment` is [Q]."""
        head = self.recall
        popularity, counts = items.popularity[moment[query], item], view.own.look_up(query, item)
        own = counts[:, 0] > 0
        taste = head.taste((view.user[query] * view.vector[item]).sum(1))
        score = (
            (taste * ~own if head.tastes_new else taste)
            + head.popular(popularity)
            + head.repeats(counts, popularity, self.habits(view, query, item)) * own
        )
        if head.reads:
            profile = head.profile(view.text_last, view.text_mean)
            alike = (profile[query] * view.text[item]).sum(1)
            score = score + alike * head.emphasis(items.share[item])
        return score

    def habits(self, view: View, query: Tensor, item: Tensor) -> Tensor | None:
        """Return what a layer is told of repeats, [n, `num_habits`]; None where there is none.

        Log counts of all that the person took, and of what is alike by each of `affinities`; the
        item's vector, and how it fits the person's taste.
        """
        if view.alike is None:
            return None
        vector = view.vector[item]
        taste = self.recall.taste((view.user[query] * vector).sum(1, keepdim=True))
        return torch.cat(
            [view.own.total[query], view.alike.look_up(query, item), vector, taste], dim=1
        )

    def _negative_scores(self, items: ItemSlice, view: View, step: Step, asked: Tensor) -> Tensor:
        """Return the scores of the step's negatives for asking queries, [A, C], but for repeats."""
        head, negative = self.recall, step.negative
        asks, answers = head.taste(view.user[asked]), view.vector[negative]
        if head.reads:
            profile = head.profile(view.text_last[asked], view.text_mean[asked])
            asks = torch.cat([asks, profile], dim=1)
            answers = torch.cat([answers, view.text[negative]], dim=1)
        popular = head.popular(items.popularity[:, negative])
        if len(popular) > 1:
            popular = popular[step.queries.moment[asked]]
        return torch.addmm(popular, asks, answers.T)

    def shown_logits(self, items: ItemSlice, view: View, shown: ShownItems) -> Tensor:
        """Return the click head's logits of items shown to queries, [S, O]."""
        logits: Tensor = self.click(shown_features(self.config, items, view, shown))
        return logits
