"""Masks of needed elements: what the rules have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from layerscope.units.trace import Spot

__all__ = ["Masks", "Pairs", "fold", "only", "over", "union"]

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
