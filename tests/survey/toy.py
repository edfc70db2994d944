"""An updater and an accumulator as small as can be, of the shape that engines count on; tiny networks and images."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from layerscope.activations.hooks import looking
from layerscope.images.preprocessing import Preprocessing
from layerscope.networks.feeding import run
from layerscope.networks.open import Network
from layerscope.surveying.running.job import Job
from layerscope.surveying.running.partial import Partial
from layerscope.surveying.running.worker import Worker
from layerscope.surveying.sources import open_source


class ToyState:
    """Whole numbers only: sums of the output's float bits, the images seen, the labels seen."""

    def __init__(self, classes=4):
        self.images, self.bits, self.seen, self.labels = 0, np.zeros(classes, np.int64), set(), {}

    def merge(self, other):
        assert not self.seen & other.seen, "an image was measured twice"
        self.images += other.images
        self.bits += other.bits
        self.seen |= other.seen
        self.labels |= other.labels

    def pack(self):
        return pickle.dumps((self.images, self.bits, sorted(self.seen), sorted(self.labels.items())))

    @classmethod
    def unpack(cls, data):
        state = cls()
        state.images, state.bits, seen, labels = pickle.loads(data)
        state.seen, state.labels = set(seen), dict(labels)
        return state


class ToyUpdater:
    def __init__(self, network, layers, measures):
        self.network, self.state = network, ToyState()

    def update(self, images, numbers, labels):
        assert len(images) > 1, "a batch of one has other bits"
        with looking(self.network.model):
            out = run(self.network, images)[: len(numbers)]
        self.state.images += len(numbers)
        self.state.bits += out.numpy().view(np.int32).astype(np.int64).sum(0)
        self.state.seen |= set(numbers)
        if labels is not None:
            self.state.labels |= dict(zip(numbers, labels, strict=True))

    def take(self):
        state, self.state = self.state, ToyState()
        return state


TOOLS = (ToyUpdater, ToyState)


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )


def pictures(folder: Path, count: int, size: int = 12, seed: int = 0) -> Path:
    """Random PNG files in two folders of classes."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        inside = folder / ("cats" if number % 2 else "dogs")
        inside.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(inside / f"image{number}.png")
    return folder


PLAIN = Preprocessing((8, 8), None, (0.5,) * 3, (0.5,) * 3)


def measure(job: Job, chunk: int) -> Partial:
    return next(Worker(job).measure([chunk]))


def job(images, model: nn.Module | None = None, **options) -> Job:
    network = Network(model or net(), "net", PLAIN)
    return Job(network, open_source(images), **{"layers": ["0"], "tools": TOOLS, "chunk": 64, **options})
