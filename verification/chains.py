"""Random chains of windows, and what their units see: by the closed formula, and by sets of indices."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Chain", "Window", "chains"]


@dataclass(frozen=True)
class Window:
    """One axis of a convolution or pool."""

    kernel: int
    stride: int
    padding: int
    dilation: int


@dataclass(frozen=True)
class Chain:
    """A chain of layers with the windows of its two axes, the image's size and that of every map on the way."""

    name: str
    model: nn.Sequential
    windows: tuple[tuple[Window, ...], tuple[Window, ...]]  # an axis
    sizes: tuple[tuple[int, ...], tuple[int, ...]]  # an axis: image, maps

    @property
    def image(self) -> tuple[int, int]:
        """Rows and columns of the input."""
        return self.sizes[0][0], self.sizes[1][0]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the last map."""
        return self.sizes[0][-1], self.sizes[1][-1]

    def closed(self, axis: int, unit: int) -> tuple[int, int]:
        """First and last + 1 index that a unit sees if there were no edges.

        A. Araujo, W. Norris and J. Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019:
        r = 1 + sum of (k_l - 1) * (product of the strides before), start = -sum of p_l * (the same product), k with
        its dilation.
        """
        jump, size, start = 1, 1, 0
        for window in self.windows[axis]:
            size += (window.kernel - 1) * window.dilation * jump
            start -= window.padding * jump
            jump *= window.stride
        return start + unit * jump, start + unit * jump + size

    def seen(self, axis: int, unit: int) -> set[int]:
        """Every index of the input that a unit sees: back through the maps, what lies in the padding left out."""
        wanted = {unit}
        for window, size in zip(reversed(self.windows[axis]), reversed(self.sizes[axis][:-1]), strict=True):
            taps = {at * window.stride - window.padding + tap * window.dilation
                    for at in wanted for tap in range(window.kernel)}  # fmt: skip
            wanted = {at for at in taps if 0 <= at < size}
        return wanted


def chains(many: int) -> Iterator[Chain]:
    """Chains of two to six layers, the same every time."""
    rng = random.Random(0)
    torch.manual_seed(0)
    made = 0
    while made < many:
        chain = _chain(rng, made)
        if chain:
            made += 1
            yield chain


def _chain(rng: random.Random, number: int) -> Chain | None:
    layers: list[nn.Module] = []
    windows: tuple[list[Window], list[Window]] = ([], [])
    sizes = ([rng.randint(20, 48)], [rng.randint(20, 48)])
    for _ in range(rng.randint(2, 6)):
        pool = rng.random() < 0.3
        pair = [_window(rng, pool) for _ in range(2)]
        for axis, window in enumerate(pair):
            span = (window.kernel - 1) * window.dilation + 1
            size = (sizes[axis][-1] + 2 * window.padding - span) // window.stride + 1
            if size < 2:
                return None
            sizes[axis].append(size)
            windows[axis].append(window)
        kernel, stride, padding, dilation = zip(
            *((w.kernel, w.stride, w.padding, w.dilation) for w in pair), strict=True
        )
        if pool:
            layers.append(nn.MaxPool2d(kernel, stride, padding, dilation))
        else:
            layers.append(nn.Conv2d(2, 2, kernel, stride, padding, dilation))
        if rng.random() < 0.4:
            layers[-1] = nn.Sequential(layers[-1], nn.ReLU(inplace=True))
    return Chain(f"chain {number}", nn.Sequential(*layers).eval(), (tuple(windows[0]), tuple(windows[1])),
                 (tuple(sizes[0]), tuple(sizes[1])))  # fmt: skip


def _window(rng: random.Random, pool: bool) -> Window:
    kernel = rng.randint(2 if pool else 1, 5)
    return Window(kernel, rng.choice((1, 1, 2, 3)), rng.randint(0, kernel // 2), rng.choice((1, 1, 2)))
