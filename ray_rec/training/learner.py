"""Learning without Ray: one window's examples to better weights, alone or in a process group.

Every worker takes the same steps with the same negatives. A step's loss is divided by the step's
weight over all workers, gradients are summed, and touched item rows are updated alike everywhere;
so shares need not be equal, and a worker without rows in a step only adds zeros.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from ray_rec.errors import ModelError
from ray_rec.features.arrays import mix
from ray_rec.features.examples import Batch, WindowExamples
from ray_rec.model.config import ModelConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.items import ItemSlice
from ray_rec.model.losses import LossSums
from ray_rec.model.servable import ITEMS, MODEL, known_popularity, tensors_under
from ray_rec.training.adversarial import with_adversary
from ray_rec.training.births import with_own, younger
from ray_rec.training.config import LearnerConfig
from ray_rec.training.course import Course, Share, Stretch
from ray_rec.training.descent import Descent
from ray_rec.training.divergence import DivergenceGuard
from ray_rec.training.learned import Learned
from ray_rec.training.metrics import Metrics
from ray_rec.training.moments import Moments
from ray_rec.training.negatives import Negatives
from ray_rec.training.optimizer import rowwise_adagrad_
from ray_rec.training.precision import mixed_precision
from ray_rec.training.schedule import Rates
from ray_rec.training.steps import make_step, shares
from ray_rec.training.summed import Summed
from ray_rec.training.tuner import Tuner
from ray_rec.training.workers import Workers

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class Learner(Learned):
    """What is known, and the optimizer; see the module for how workers agree.

    Args:
        model: the network's configuration.
        config: rates, step size and seed.
        device: where to learn.
        encoder: the text encoder, where it is to learn too; on the same device.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: LearnerConfig,
        device: torch.device | None = None,
        encoder: TextEncoder | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        super().__init__(model, getattr(torch, config.dtype), device or torch.device("cpu"))
        self._config = config
        self._mixed = mixed_precision(config, self._device)
        parameters = dict(self._model.named_parameters())
        self._tuner: Tuner | None = None
        if encoder is not None:
            wording = config.texts.transform()
            self._tuner = Tuner(encoder, self._texts, config.encoder_share, self._mixed, wording)
            parameters |= self._tuner.parameters()
        self._descent = Descent(parameters, config)
        self._guard = DivergenceGuard(config.explode_factor, config.explode_patience)
        self._workers = Workers()

    @property
    def steps(self) -> int:
        """How many were taken."""
        return self._descent.steps

    def observe(self, items: pa.Table, text_vectors: Float32) -> None:
        """Take new and changed items (WINDOW_ITEMS_SCHEMA) with raw text vectors [n, raw_dim]."""
        if not items.num_rows:
            return
        texts = [str(text) for text in items["text"].to_pylist()]
        text_row = self._texts.rows(texts, text_vectors)
        if self._tuner is not None:
            self._tuner.note(texts, text_row)
        self._place(items, text_row)

    def test(self, window: WindowExamples, examples: pa.Table, share: float = 1.0) -> Metrics:
        """Predict about `share` of this worker's rows before they are learned; sums over workers.

        Which ones, their hash decides: the same whatever the number of workers.
        """
        return self._workers.add_metrics(self.tester(window, examples, share)())

    def learn(
        self,
        window: WindowExamples,
        examples: pa.Table,
        num_steps: int,
        rate_scale: float = 1.0,
        stretch: Stretch | None = None,
    ) -> Metrics:
        """Take the window's steps with this worker's share of its rows (sorted by step).

        Args:
            window: whose rows they are; its number seeds what is drawn.
            examples: EXAMPLES_SCHEMA, sorted by step.
            num_steps: of all workers.
            rate_scale: a factor on all learning rates, for this window alone.
            stretch: of several passes, whose events were counted before (see `count`); without it
                all queries are asked with the popularity of the window.

        Raises:
            Diverged: a loss or gradient is not finite, or a loss exploded; names window and step.
        """
        self._model.train()
        self._items.respond(torch.from_numpy(window.responses).to(self._device))
        popularity = known_popularity(window.popularity, len(self._items)).numpy()
        moments = Moments.once(popularity) if stretch is None else stretch.moments
        negatives = Negatives(popularity, self._model_config, window.number)
        asked = torch.tensor(moments.popularity, dtype=self._dtype, device=self._device)
        course = Course(window.number, num_steps, rate_scale, moments, asked, negatives, stretch)
        told = self._config.sequences(examples, window.number)
        batches = shares(told, num_steps, self._model_config.num_outcomes)
        weights = self._weights(batches)
        total = Metrics()
        for step, batch in enumerate(batches):
            total += self._step(course, step, batch, weights[step])
        return self._workers.add_metrics(total)

    def _weights(self, batches: Sequence[Batch | None]) -> Tensor:
        """Return the targets and shown items of each step over all workers, [num_steps, 2]."""
        mine = [[len(b.target_item), len(b.shown_item)] if b else [0, 0] for b in batches]
        weights = torch.tensor(mine, dtype=torch.float64).reshape(len(batches), 2)
        return self._workers.add(weights.to(self._device))

    def _step(self, course: Course, step: int, batch: Batch | None, weights: Tensor) -> Metrics:
        """One optimizer step of all workers."""
        drawn = mix(*(np.array([part]) for part in (course.number, step, self._workers.rank)))
        torch.manual_seed(int(drawn[0] >> np.uint64(1)))
        self._descent.zero_grad()
        share = Share(np.zeros(0, np.int64), None, None)
        if batch is not None:
            share = self._backward(course, step, batch, weights)
        events = batch.target_item if batch is not None and not course.counted else share.rows[:0]
        self._apply(course, step, share, events, weights)
        return share.losses()

    def _backward(self, course: Course, step: int, batch: Batch, weights: Tensor) -> Share:
        """Add the gradient of this worker's rows, as their part of the whole step."""
        config, drawn = self._model_config, course.negatives.draw(step)
        rows, made = make_step(batch, drawn, course.moments, self._device, self._dtype)
        index = torch.from_numpy(rows).to(self._device)
        items = self._items.gather(index, course.popularity, config.id_prior)
        if self._tuner is not None:
            items = self._tuner.live(items, self._items.text_row[index], course.number, step)
        items = younger(items, rows, course.number, step, config.births)
        kept = with_own(rows, course.number, step, config.id_dropout)
        own = torch.from_numpy(kept).to(self._device, self._dtype)

        def losses(seen: ItemSlice) -> tuple[Tensor, LossSums]:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed):
                sums = self._model.losses(seen, made, own)
            return self._model.weights(sums, weights, self.steps), sums

        loss, sums = with_adversary(losses, items, self._config.adversarial_epsilon)
        torch.autograd.backward(loss)
        return Share(rows, items, sums)

    def _apply(
        self,
        course: Course,
        step: int,
        share: Share,
        events: Int64,
        weights: Tensor,
    ) -> None:
        """Sum gradients over the workers and update weights and touched rows alike."""
        dense = self._descent.grads()
        summed = Summed.over(self._workers, share, events, self._items.id, dense)
        if self._tuner is not None:
            self._tuner.constrain()
        norm = self._descent.clip()
        where = f"window {course.number}, step {step}"
        mean = summed.losses / weights.clamp(min=1)
        self._guard.check(where, mean, weights, norm + summed.grad.square().sum())
        self._descent.rest(self._model.idle(weights.tolist()))
        self._update(summed, course.rates(self._config, step, self.steps))

    def _update(self, summed: Summed, rates: Rates) -> None:
        """Step the dense part, and the touched rows by their gradient."""
        self._descent.step(rates)
        if self._tuner is not None:
            self._tuner.stepped(self.steps)
        id_lr = self._config.id_lr * rates.scale * rates.own
        index = torch.from_numpy(summed.rows).to(self._device)
        rowwise_adagrad_(self._items.id, self._items.accumulator, index, summed.grad, id_lr)
        self._items.count[index] += summed.seen
        self._items.touch(index)

    def calibrate(self, held_out: pa.Table) -> None:
        """Fit the probabilities of the weights that answer; see `Learned.calibrate`."""
        with self._descent.average.in_place():
            super().calibrate(held_out)

    def published(self) -> None:
        """Let a version of what is known now be what later changes, and the penalty, start from."""
        super().published()
        self._descent.elastic.settle()

    def _network(self) -> dict[str, Tensor]:
        return super()._network() | self._descent.average.weights

    def renew_texts(self) -> None:
        """Bring the vectors of all texts to what an encoder that learns makes of them now."""
        if self._tuner is not None:
            self._texts.renew(self._tuner.encode())

    def state(self) -> dict[str, Tensor]:
        """Return everything needed to continue bit for bit, by flat names."""
        named = {f"{MODEL}{k}": v for k, v in self._model.state_dict().items()}
        named |= {f"{ITEMS}{k}": v for k, v in self._items.tensors().items()}
        named |= self._descent.state() | self._texts.state() | self._guard.state()
        named |= {} if self._tuner is None else self._tuner.state()
        return {k: v.detach().cpu().clone() for k, v in named.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        try:
            self._model.load_state_dict(tensors_under(state, MODEL))
            self._items.load(tensors_under(state, ITEMS))
            self._texts.load(state)
            if self._tuner is not None:
                self._tuner.load(state)
            self._descent.load(state)
            self._guard.load(state)
        except (KeyError, RuntimeError) as error:
            raise ModelError(
                f"the checkpoint does not fit the configured model ({error}); "
                "use its configuration, or a fresh state_dir"
            ) from error
