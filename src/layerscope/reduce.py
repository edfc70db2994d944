"""A tensor of a running network -> statistics of every image and channel, and 8-bit maps. The hot path."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerscope.maps import Maps
from layerscope.record import Entry
from layerscope.sites import Site
from layerscope.stats import Columns, activations, quantize, total

__all__ = ["MAX_SIDE", "Collector", "Layouts", "planes", "tiles"]

#: Maps larger than this are reduced by whole factors: no screen shows 64 channels of 800 x 800 at once.
MAX_SIDE = 256

# Modules that fix the meaning of their output's axes; the others keep what came in.
_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention)
_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.GroupNorm,
)
_CHANNELS_FIRST = {2: "NC", 3: "NCL", 4: "NCHW", 5: "NCDHW"}
_CHANNELS_LAST = {2: "NC", 3: "NLC", 4: "NHWC", 5: "NDHWC"}


class Layouts:
    """Which axis of each output is the channels.

    Convolutions and batch norms say it, linear layers and layer norms too. An activation function or a dropout has
    the layout of the last output of the same shape.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, ...], str] = {}

    def of(self, module: nn.Module, shape: tuple[int, ...]) -> str:
        """One letter an axis; "" for a tensor that has no channels (a scalar, or more than five axes)."""
        axes = len(shape)
        if axes == 1:
            return "N"
        if isinstance(module, _LAST):
            layout = _CHANNELS_LAST.get(axes, "")
        elif isinstance(module, _FIRST):
            layout = _CHANNELS_FIRST.get(axes, "")
        else:
            default = _CHANNELS_LAST if axes == 3 else _CHANNELS_FIRST
            layout = self._seen.get(shape, default.get(axes, ""))
        self._seen[shape] = layout
        return layout


def planes(tensor: Tensor, layout: str) -> tuple[NDArray[np.float32], bool]:
    """An output of any type as float32: (B, C, N) and False, or (B, N, C) and True where that is how it lies in memory.

    Shares the tensor's memory where that is possible.
    """
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_complex():
        tensor = tensor.abs()
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        tensor = tensor.to("cpu", torch.float32)
    if "C" not in layout:
        return tensor.reshape(tensor.shape[0] if layout else 1, 1, -1).contiguous().numpy(), False
    axis = layout.index("C")
    last = tensor.movedim(axis, -1)  # (B, ..., C)
    if tensor.dim() > 2 and (axis == tensor.dim() - 1 or not tensor.is_contiguous()) and last.is_contiguous():
        return last.reshape(last.shape[0], -1, last.shape[-1]).numpy(), True
    tensor = tensor if axis == 1 else tensor.movedim(axis, 1)
    return tensor.reshape(tensor.shape[0], tensor.shape[1], -1).contiguous().numpy(), False  # (B, C, N)


class _Output(NamedTuple):
    """One call of a layer in one pass, reduced."""

    site: Site
    type: str
    shape: tuple[int, ...]
    dtype: str
    columns: Columns  # (B, C)
    maps: list[Maps]


class Collector:
    """Reduces outputs inside the hooks that hand them on, and keeps no tensor; `entries` when all passes are over.

    `maps`: of how many images of each pass maps are made; of all if None.
    """

    def __init__(self, maps: int | None = None) -> None:
        self.maps = maps
        self._layouts = Layouts()
        self._found: dict[str, list[_Output]] = {}

    def keep(self, site: Site, module: nn.Module, tensor: Tensor) -> None:
        """What `tap` calls."""
        shape = tuple(tensor.shape)
        if not shape or 0 in shape:
            return
        layout = self._layouts.of(module, shape)
        values, last = planes(tensor, layout)
        columns = activations(values, last)  # (B, C)
        images = len(values) if self.maps is None else min(self.maps, len(values))
        maps = [tiles(values[i], last, columns, layout, shape, i) for i in range(images)]
        site = Site(site.path, site.call, layout)
        output = _Output(site, type(module).__name__, shape, str(tensor.dtype)[6:], columns, maps)
        self._found.setdefault(site.key, []).append(output)

    def entries(self) -> Iterator[Entry]:
        """One entry a layer and call, over the images of all passes, in the order of their first run."""
        for outputs in self._found.values():
            first = outputs[0]
            images = sum(output.shape[0] for output in outputs)
            yield Entry(
                first.site,
                first.type,
                (images, *first.shape[1:]),
                first.dtype,
                _over_images(outputs),
                maps=[maps for output in outputs for maps in output.maps],
            )


def _over_images(outputs: list[_Output]) -> Columns:
    """Statistics of each channel over all images: (C,)"""
    if len(outputs) == 1 and len(outputs[0].columns.count) == 1:
        return outputs[0].columns.take(0)
    joined = Columns(*(np.concatenate(fields) for fields in zip(*(o.columns for o in outputs), strict=True)))  # (B, C)
    return total(joined, axis=0)


def _grid(layout: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(skip, height, width): how the N values of a channel lie in a picture, after `skip` tokens that have no place."""
    sizes = [size for letter, size in zip(layout, shape, strict=True) if letter not in "NC"]
    if len(sizes) >= 2:
        return 0, math.prod(sizes[:-1]), sizes[-1]
    length = sizes[0] if sizes else 1
    for skip in (0, 1):  # patches of a square image, with or without a class token in front
        side = round((length - skip) ** 0.5)
        if length > 4 and side * side == length - skip and layout == "NLC":
            return skip, side, side
    return 0, 1, length


def tiles(
    values: NDArray[np.float32], last: bool, columns: Columns, layout: str, shape: tuple[int, ...], image: int
) -> Maps:
    """The maps of one image, `values` (C, N) or (N, C) if `last`, coded over each channel's own range."""
    plane = values.T if last else values  # (C, N)
    skip, height, width = _grid(layout, shape) if layout else (0, 1, plane.shape[1])
    plane = plane[:, skip:] if skip else plane
    low, high = columns.min[image], columns.max[image]
    factor = max(1, -(-max(height, width) // MAX_SIDE))
    if factor > 1:
        plane, height, width = _shrink(plane.reshape(-1, height, width), factor)
    codes = quantize(plane, low, high)
    sizes = (len(codes), height, width)
    return Maps(low.astype(np.float32), high.astype(np.float32), sizes, codes.reshape(sizes), factor)


def _shrink(plane: NDArray[np.float32], factor: int) -> tuple[NDArray[np.float32], int, int]:
    """Means of factor x factor blocks, the last rows and columns filled up with their neighbours; (C, h*w), h, w."""
    channels, height, width = plane.shape
    rows, cols = -(-height // factor), -(-width // factor)
    padded = np.pad(plane, ((0, 0), (0, rows * factor - height), (0, cols * factor - width)), mode="edge")
    block = padded.reshape(channels, rows, factor, cols, factor).mean(axis=(2, 4), dtype=np.float32)
    return block.reshape(channels, -1), rows, cols
