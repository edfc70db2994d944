"""Epochs of training and validation; files and options are somebody else's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from layerscope.activations.hooks import looking, tensors_in
from layerscope.errors import Diverged
from layerscope.networks.feeding import run
from layerscope.networks.open import Network
from layerscope.progress import Progress, quiet
from layerscope.training.data import Examples, ahead, batches
from layerscope.watching.watcher import Watch

__all__ = ["EVERY", "Diverged", "Epoch", "Plan", "Score", "Training", "logits_of"]

#: steps between two points of the training loss
EVERY = 10


@dataclass
class Score:
    """Loss and right answers, summed over images."""

    loss_sum: float = 0.0
    right: int = 0
    images: int = 0

    def add(self, loss: float, logits: Tensor, targets: Tensor) -> None:
        """Count a batch: its mean loss, logits (B, classes) and targets (B,)."""
        self.loss_sum += loss * len(targets)
        self.right += int((logits.argmax(1) == targets).sum())
        self.images += len(targets)

    @property
    def loss(self) -> float:
        """Mean over the images."""
        return self.loss_sum / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        """Share of the images that were right."""
        return self.right / max(self.images, 1)


@dataclass(frozen=True)
class Epoch:
    """What came of an epoch; `number` counts from 1, `train` was measured while the weights changed."""

    number: int
    of: int
    train: Score
    val: Score
    lr: float
    images_per_s: float

    def __str__(self) -> str:
        scores = [f"loss {score.loss:.4f} accuracy {score.accuracy:.4f}" for score in (self.train, self.val)]
        return (
            f"epoch {self.number}/{self.of}   train {scores[0]}   validation {scores[1]}   "
            f"{self.images_per_s:.0f} images/s"
        )


@dataclass(frozen=True)
class Plan:
    """How to train. `head` is the path of the only layer that learns; "" if all do."""

    epochs: int
    batch: int
    lr: float
    seed: int
    head: str = ""


def logits_of(output: object) -> Tensor | None:
    """The first tensor that a network returns: those of GoogLeNet's side branches come after it."""
    return next((tensor for _, tensor in tensors_in(output)), None)


def _learning(model: nn.Module, head: str) -> list[nn.Parameter]:
    """Set the mode of every module, and give the parameters that learn."""
    if not head:
        model.train()
        return list(model.parameters())
    model.eval()  # a frozen batch norm must not follow the new images either
    learner = model.get_submodule(head).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in learner.parameters():
        parameter.requires_grad_(True)
    return list(learner.parameters())


class Training:
    """Adam on the cross entropy, one epoch after the other, each followed by the held-out images.

    `on_epoch(epoch)` gets what came of an epoch. `watched` keeps the mean loss of the images since it was last kept,
    every EVERY steps and at the end of each epoch, and says where a loss that is not finite began. The order of the
    images comes from the seed of the plan; other random numbers (dropout) are torch's own.
    """

    def __init__(
        self,
        network: Network,
        examples: Examples,
        plan: Plan,
        on_epoch: Callable[[Epoch], None],
        watched: Watch | None = None,
        progress: Progress = quiet,
    ) -> None:
        self.network, self.examples, self.plan = network, examples, plan
        self.on_epoch, self.watched, self.progress = on_epoch, watched, progress
        self.order = torch.Generator().manual_seed(plan.seed)
        self.step = self.done = 0  # of learning; of learning and validating
        parts = len(examples.train), len(examples.held_out)
        self.of = plan.epochs * sum(math.ceil(part / plan.batch) for part in parts)

    def run(self) -> list[Epoch]:
        """Train for all epochs. Raises Diverged when the loss is not finite any more."""
        plan, epochs = self.plan, []
        optimizer = torch.optim.Adam(_learning(self.network.model, plan.head), lr=plan.lr)
        for number in range(1, plan.epochs + 1):
            began = time.perf_counter()
            train = self._learn(optimizer, f"epoch {number}/{plan.epochs}")
            speed = train.images / (time.perf_counter() - began)
            epochs.append(Epoch(number, plan.epochs, train, self._validate(number), plan.lr, speed))
            self.on_epoch(epochs[-1])
        return epochs

    def _learn(self, optimizer: torch.optim.Optimizer, name: str) -> Score:
        whole, recent = Score(), Score()
        shuffled = self.examples.train[torch.randperm(len(self.examples.train), generator=self.order).numpy()]
        for images, targets in self._batches(shuffled):
            self.step += 1
            optimizer.zero_grad(set_to_none=True)
            logits = self._logits(images)
            targets = targets.to(logits.device)
            loss = cross_entropy(logits, targets)
            value = loss.item()
            if not math.isfinite(value):
                if self.watched:
                    self.watched.diverged()
                raise Diverged(f"{name}, step {self.step}: the loss is {value}; take a --lr below {self.plan.lr:g}")
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            whole.add(value, logits, targets)
            recent.add(value, logits, targets)
            if self.step % EVERY == 0:
                self._keep(recent)
                recent = Score()
            self._tick(f"{name}, loss {whole.loss:.3f}")
        if recent.images:
            self._keep(recent)
        return whole

    def _keep(self, recent: Score) -> None:
        if self.watched:
            self.watched.log({"train/loss": recent.loss})

    def _validate(self, number: int) -> Score:
        """The held-out images through the network as it will be used: dropout off, batch norms fixed."""
        score = Score()
        with looking(self.network.model):
            for images, targets in self._batches(self.examples.held_out):
                logits = self._logits(images)
                targets = targets.to(logits.device)
                score.add(cross_entropy(logits, targets).item(), logits, targets)
                self._tick(f"epoch {number}/{self.plan.epochs}, validation loss {score.loss:.3f}")
        return score

    def _batches(self, indices: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
        return ahead(batches(self.examples, indices, self.network.preprocessing, self.plan.batch))

    def _logits(self, images: Tensor) -> Tensor:
        logits = logits_of(run(self.network, images))
        assert logits is not None  # tried before training
        return logits

    def _tick(self, text: str) -> None:
        self.done += 1
        self.progress(self.done, self.of, text)
