"""Clicks by a small network beside a linear part, over the same features as the trees."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_rec.features.arrays import AnyArray, Float32, Float64

_BATCH = 2_048
_FEWEST_STEPS = 100  # of an epoch, by smaller batches, where there are as many rows
_FARTHEST = 6.0  # standard deviations; what lies farther counts as this


class _Wide(nn.Module):
    """logit = linear(x) + network(x)."""

    def __init__(self, num_features: int, width: int) -> None:
        super().__init__()
        self.wide = nn.Linear(num_features, 1)
        self.deep = nn.Sequential(
            nn.Linear(num_features, width),
            nn.GELU(),
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n] of features [n, F]."""
        logits: Tensor = (self.wide(x) + self.deep(x))[:, 0]
        return logits


class Network:
    """Wide and deep (Cheng et al. 2016), on features scaled by the learned rows alone."""

    def __init__(self, seed: int = 0, width: int = 128, epochs: int = 4, lr: float = 2e-3) -> None:
        self._seed, self._width, self._epochs, self._lr = seed, width, epochs, lr

    def fit(self, names: tuple[str, ...], features: Float32, labels: Float32) -> None:
        """Learn, in an order drawn by the seed."""
        self._mean, self._scale = features.mean(axis=0), features.std(axis=0) + 1e-6
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            self._model = _Wide(features.shape[1], self._width)
        optimizer = torch.optim.AdamW(self._model.parameters(), self._lr, weight_decay=1e-4)
        generator = np.random.default_rng(self._seed)
        per_epoch = max(-(-len(labels) // _BATCH), min(_FEWEST_STEPS, len(labels)))
        steps = self._epochs * per_epoch
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self._lr, steps, pct_start=0.1)
        for _ in range(self._epochs):
            order = generator.permutation(len(labels))
            for rows in np.array_split(order, per_epoch):
                logits = self._model(self._scaled(features[rows]))
                wanted = torch.from_numpy(labels[rows])
                loss = functional.binary_cross_entropy_with_logits(logits, wanted)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()

    @torch.inference_mode()
    def predict(self, features: Float32) -> Float64:
        """Return probabilities."""
        parts = np.array_split(features, -(-len(features) // 65_536))
        made = [torch.sigmoid(self._model(self._scaled(part))).numpy() for part in parts]
        out: AnyArray = np.concatenate(made).astype(np.float64)
        return out

    def _scaled(self, features: Float32) -> Tensor:
        scaled = (features - self._mean) / self._scale
        return torch.from_numpy(scaled.astype(np.float32)).clamp(-_FARTHEST, _FARTHEST)
