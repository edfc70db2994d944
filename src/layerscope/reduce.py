"""A tensor of a running network -> statistics of every image and channel, and 8-bit maps. The hot path."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerscope.fused import Columns, activations, quantize
from layerscope.maps import Maps

__all__ = ["MAX_SIDE", "Layouts", "planes", "reduce", "tiles"]

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


def planes(tensor: Tensor, layout: str) -> NDArray[np.float32]:
    """float32 (B, C, N) of an output, whatever its type and memory format; shares its memory where that is possible."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_complex():
        tensor = tensor.abs()
    tensor = tensor.to("cpu", torch.float32)
    if "C" not in layout:
        return tensor.reshape(tensor.shape[0] if tensor.dim() else 1, 1, -1).contiguous().numpy()
    tensor = tensor.movedim(layout.index("C"), 1)
    return tensor.reshape(tensor.shape[0], tensor.shape[1], -1).contiguous().numpy()  # (B, C, N)


def reduce(values: NDArray[np.float32]) -> Columns:
    """(B, C, N) -> statistics, each field (B, C)"""
    return activations(values)


def _grid(layout: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(skip, height, width): how the N values of a channel lie in a picture, after `skip` tokens that have no place."""
    sizes = [size for letter, size in zip(layout, shape, strict=True) if letter not in "NC"]
    if len(sizes) >= 2:
        return 0, int(np.prod(sizes[:-1])), sizes[-1]
    length = sizes[0] if sizes else 1
    for skip in (0, 1):  # patches of a square image, with or without a class token in front
        side = round((length - skip) ** 0.5)
        if length > 4 and side * side == length - skip and layout == "NLC":
            return skip, side, side
    return 0, 1, length


def tiles(values: NDArray[np.float32], columns: Columns, layout: str, shape: tuple[int, ...], image: int) -> Maps:
    """The maps of one image out of `values` (B, C, N), coded over each channel's own range."""
    skip, height, width = _grid(layout, shape) if layout else (0, 1, values.shape[2])
    plane = values[image][:, skip:]  # (C, N)
    low, high = columns.min[image], columns.max[image]
    factor = max(1, -(-max(height, width) // MAX_SIDE))
    if factor > 1:
        plane, height, width = _shrink(plane.reshape(-1, height, width), factor)
    codes = quantize(np.ascontiguousarray(plane), low, high)
    shape3 = (len(codes), height, width)
    return Maps(low.astype(np.float32), high.astype(np.float32), shape3, codes.reshape(shape3), factor)


def _shrink(plane: NDArray[np.float32], factor: int) -> tuple[NDArray[np.float32], int, int]:
    """Means of factor x factor blocks, the last rows and columns filled up with their neighbours; (C, h*w), h, w."""
    channels, height, width = plane.shape
    rows, cols = -(-height // factor), -(-width // factor)
    padded = np.pad(plane, ((0, 0), (0, rows * factor - height), (0, cols * factor - width)), mode="edge")
    block = padded.reshape(channels, rows, factor, cols, factor).mean(axis=(2, 4), dtype=np.float32)
    return block.reshape(channels, -1), rows, cols
