"""A small network that learns, and what a watch says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import layerscope
from layerscope.watching import Watch


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn(self.conv(x)))
        return self.fc(self.drop(x.mean((2, 3))))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def batch(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 3, 10, 10), torch.randint(0, 4, (size,))


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, size: int = 8) -> torch.Tensor:
    """One step."""
    optimizer.zero_grad()
    images, targets = batch(size)
    loss = cross_entropy(model(images), targets)
    loss.backward()
    optimizer.step()
    return loss


@pytest.fixture
def quiet(tmp_path) -> Callable[..., object]:
    """`watch` into tmp_path/run, whose lines are kept in `.said`, and which must not have failed anywhere."""

    @contextmanager
    def make(model: nn.Module, every: object = 1, fine: bool = True, **options: object) -> Iterator[Watch]:
        said: list[str] = []
        options = {"graph": False, **options}
        with layerscope.watch(model, tmp_path / "run", every=every, say=said.append, **options) as watching:
            watching.said = said
            yield watching
        if fine:
            assert not [line for line in said if "the training goes on" in line.lower()]

    return make
