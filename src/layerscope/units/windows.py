"""Rules of operations that slide a window: convolution, its transpose, max pool."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from layerscope.units.masks import Masks, Pairs, union
from layerscope.units.trace import Op, Spot

__all__ = ["adaptive_max_pool", "convolution", "max_pool", "window"]


def _spread(mask: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int],
            size: Sequence[int]) -> Tensor:  # fmt: skip
    """Sliding windows backwards: (B, 1, *out) -> (B, 1, *size), the input under the windows of the true elements."""
    axes = len(size)
    back = [functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d][axes - 1]
    counts = back(mask.double(), torch.ones(1, 1, *kernel).double(), stride=stride, dilation=dilation)
    for axis in range(axes):
        low, length = padding[axis], size[axis]
        short = max(low + length - counts.shape[2 + axis], 0)
        counts = functional.pad(counts, [0, 0] * (axes - 1 - axis) + [0, short]).narrow(2 + axis, low, length)
    return counts > 0.5  # counts of windows: rounding cannot reach the half


def _gather(mask: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int],
            size: Sequence[int]) -> Tensor:  # fmt: skip
    """A transposed convolution backwards is a convolution: (B, 1, *out) -> (B, 1, *size)."""
    axes = len(size)
    forth = [functional.conv1d, functional.conv2d, functional.conv3d][axes - 1]
    counts = forth(mask.double(), torch.ones(1, 1, *kernel).double(), None, stride, padding, dilation)
    for axis in range(axes):
        counts = counts.narrow(2 + axis, 0, size[axis])  # output_padding makes room for one more
    return counts > 0.5


def window(op: Op, axes: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, stride, padding and dilation of a convolution or a pooling, one number an axis."""

    def setting(name: str, default: list[int]) -> list[int]:
        value = op.arg(name) or default
        value = [value] if isinstance(value, int) else list(value)
        return value * axes if len(value) == 1 else value

    weight = op.arg("weight")
    kernel = setting("kernel_size", []) if weight is None else list(weight.shape[2:])
    return kernel, setting("stride", kernel), setting("padding", [0]), setting("dilation", [1])


def convolution(op: Op, masks: Masks) -> Pairs:
    """The windows of every kernel, for all channels of its group."""
    spot, weight = op.args[:2]
    axes = len(weight.shape) - 2
    mask = union(masks)
    batched = len(spot.shape) == axes + 2
    batch, channels = spot.shape[:2] if batched else (1, spot.shape[0])
    size, groups = spot.shape[-axes:], op.arg("groups", 1)
    grouped = mask.reshape(batch * groups, -1, *mask.shape[-axes:]).any(1, keepdim=True)  # (B*G, 1, *out)
    back = _gather if op.arg("transposed", False) else _spread
    found = back(grouped, *window(op, axes), size)  # (B*G, 1, *in)
    yield spot, found.expand(-1, channels // groups, *size).reshape(spot.shape)


def max_pool(op: Op, masks: Masks) -> Pairs:
    """Every value of the window was compared, not only the greatest."""
    spot: Spot = op.args[0]
    axes = 3 if "3d" in op.name else 2
    mask = union(masks)
    planes = mask.reshape(-1, 1, *mask.shape[-axes:])
    yield spot, _spread(planes, *window(op, axes), spot.shape[-axes:]).reshape(spot.shape)


def adaptive_max_pool(op: Op, masks: Masks) -> Pairs:
    """The bins are those of the adaptive mean."""
    mean = functional.adaptive_avg_pool3d if "3d" in op.name else functional.adaptive_avg_pool2d
    spot = op.args[0]
    with torch.enable_grad():
        values = torch.ones(spot.shape, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(mean(values, op.args[1]), values, union(masks).double())
    yield spot, gradient != 0
