"""Masks of needed elements: what the rules have in common, and the rules of operations that slide a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from layerscope.units.trace import Op, Spot

__all__ = ["Masks", "Pairs", "convolution", "fold", "max_pool", "only", "over", "union", "window"]

#: one bool mask an output, None where nothing of it is needed
Masks = Sequence[Tensor | None]
#: the inputs with their masks, None for all of it
Pairs = Iterator[tuple[Spot, Tensor | None]]


def union(masks: Masks) -> Tensor:
    """What is needed of any of several outputs of one shape."""
    found = [mask for mask in masks if mask is not None]
    return torch.stack(found).any(0) if len(found) > 1 else found[0]


def only(masks: Masks) -> Tensor:
    """What is needed of the first output, where the others are by-products that nobody asks for."""
    first, *others = masks
    if first is None or any(other is not None for other in others):
        raise ValueError("a by-product is needed")
    return first


def fold(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mask of something that was broadcast, before it was."""
    extra = mask.dim() - len(shape)
    if extra > 0:
        mask = mask.flatten(0, extra - 1).any(0)
    wide = [axis for axis, size in enumerate(shape) if size == 1 and mask.shape[axis] != 1]
    return mask.any(dim=wide, keepdim=True) if wide else mask


def over(mask: Tensor, axes: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Along these axes everything depends on everything."""
    return (mask.any(dim=tuple(axes), keepdim=True) if axes else mask).expand(shape)


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
