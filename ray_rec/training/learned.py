"""What is known at a moment: the network, the tables of items, their texts; and what leaves it.

A version takes all of it or what changed since the one before; testing and serving take copies.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ray_rec.features.arrays import Int64
from ray_rec.features.catalogue import group_keys
from ray_rec.features.config import GROUPS
from ray_rec.features.examples import WindowExamples, collate
from ray_rec.model.changes import Rows
from ray_rec.model.config import ModelConfig
from ray_rec.model.items import ItemTable
from ray_rec.model.recommender import MultiTaskModel
from ray_rec.model.servable import ITEMS, MODEL, Servable
from ray_rec.training.held_out import calibrate
from ray_rec.training.metrics import Metrics, measure
from ray_rec.training.steps import sample
from ray_rec.training.texts import Texts

ID_SCALE = 0.5
"""Of whitened text, where an own vector starts."""


class Learned:
    """A network with new weights and empty tables.

    Args:
        model: the network's configuration.
        dtype: of weights and tables.
        device: where they are.
    """

    def __init__(self, model: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self._model_config, self._dtype, self._device = model, dtype, device
        self._model = MultiTaskModel(model).to(device, dtype)
        self._items = ItemTable(model, dtype, device)
        self._texts = Texts(self._items)

    def count(self, item: Int64) -> None:
        """Count events [n] of items, ahead of learning them in several passes."""
        seen = torch.from_numpy(np.bincount(item, minlength=len(self._items)))
        self._items.count[: len(seen)] += seen.to(self._items.count)
        self._items.touch(torch.nonzero(seen)[:, 0].to(self._device))

    def calibrate(self, held_out: pa.Table) -> None:
        """Fit the click head's probabilities to what people who are not learned from did.

        All workers are given the same rows (EXAMPLES_SCHEMA), all of a window's.
        """
        calibrate(self._model, self._items, held_out)

    def _place(self, items: pa.Table, text_row: Tensor) -> None:
        """Put items (WINDOW_ITEMS_SCHEMA) into the tables, by the rows of their texts [n]."""
        rows = torch.from_numpy(items["row"].to_numpy().astype(np.int64))
        before = len(self._items)
        self._items.grow(int(rows.max()) + 1)
        self._items.text_row[rows] = text_row.to(self._device)
        price = torch.from_numpy(items["price"].to_numpy(zero_copy_only=False).copy())
        self._items.price[rows] = price.to(self._device, self._dtype)
        keys = group_keys(*(items[name].to_numpy(zero_copy_only=False) for name in GROUPS))
        self._items.groups[rows] = torch.from_numpy(keys).to(self._device)
        self._items.touch(rows)
        new = rows[rows >= before]
        white = self._items.text[self._items.text_row[new]]
        width = min(self._model_config.dim, white.shape[1])
        self._items.id[new, :width] = white[:, :width] * ID_SCALE

    def tester(
        self, window: WindowExamples, examples: pa.Table, share: float = 1.0
    ) -> Callable[[], Metrics]:
        """Return what measures `test` of this worker alone, by the weights of now.

        It may be called from another thread while the window is learned.
        """
        if not len(self._items):
            return Metrics
        batch = collate(sample(examples, share), self._model_config.num_outcomes)
        servable = Servable.from_tensors(self.tensors(), self._model_config)
        return partial(measure, servable, batch, window.popularity)

    def servable(self) -> Servable:
        """Return the model as it would serve now; later steps do not change it."""
        return Servable.from_tensors(self.export(), self._model_config)

    def export(self) -> dict[str, Tensor]:
        """Return a copy of `tensors`; later steps do not change it."""
        return {name: tensor.clone() for name, tensor in self.tensors().items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a version, float32 on the CPU: weights, item tables, whitening.

        They may share memory with what is learned on.
        """
        items = {f"{ITEMS}{k}": _plain(v) for k, v in self._items.served().items()}
        return self._dense() | items

    def export_changes(self) -> dict[str, Tensor | Rows]:
        """Return what differs from the version that `published` was called for last.

        Item tables as rows that changed or are new, the rest whole; later steps do not change it.
        """
        items = {
            f"{ITEMS}{k}": Rows(row.cpu(), _plain(value))
            for k, (row, value) in self._items.changes().items()
        }
        return {name: tensor.clone() for name, tensor in self._dense().items()} | items

    def published(self) -> None:
        """Let a version of what is known now be what later changes start from."""
        self._items.published()

    def _dense(self) -> dict[str, Tensor]:
        """Return what a version holds beside the item tables."""
        named = {f"{MODEL}{k}": v for k, v in self._network().items()}
        return {k: _plain(v) for k, v in (named | self._texts.whitening()).items()}

    def _network(self) -> dict[str, Tensor]:
        """Return the network's tensors as they answer."""
        return dict(self._model.state_dict())


def _plain(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.is_floating_point() else tensor
