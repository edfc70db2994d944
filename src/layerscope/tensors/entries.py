"""What a tensor of a state dict is, told from its name and shape, and its picture."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from layerscope.dtypes import decode
from layerscope.records.maps import Maps
from layerscope.stats import activations, quantize

__all__ = ["MAX_TILES", "kernel_maps", "layout_of", "role_of"]

#: A sheet of more tiles than this is no longer looked at kernel by kernel.
MAX_TILES = 4096
#: A matrix is reduced until no side is longer.
MAX_MATRIX = 512

_LAYOUTS = {1: "C", 2: "OI", 3: "OIL", 4: "OIHW", 5: "OIDHW"}
_ROLES = {
    "bias": "bias",
    "running_mean": "running mean",
    "running_var": "running variance",
    "num_batches_tracked": "counter",
}


def layout_of(name: str, shape: tuple[int, ...]) -> str:
    """One letter an axis: O I for output and input channels; "" for scalars and more than five axes."""
    return _LAYOUTS.get(len(shape), "")


def role_of(name: str, shape: tuple[int, ...]) -> str:
    """kernel, weight (of a linear layer), scale (of a norm), bias, running mean or variance, counter, or tensor."""
    last = name.rpartition(".")[2]
    if last in _ROLES and (last != "num_batches_tracked" or not shape):  # stacked networks have a row of these
        return _ROLES[last]
    if last == "weight":
        return {1: "scale", 2: "weight", 3: "kernel", 4: "kernel", 5: "kernel"}.get(len(shape), "tensor")
    return "tensor"


def first_kernel(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """The name of the first kernel, or weight of a linear layer, of names and shapes; "" for none."""
    return next((name for name, shape in tensors if role_of(name, shape) in ("kernel", "weight")), "")


def _coded(planes: NDArray[np.float32], low: NDArray, high: NDArray, reduced: int = 1) -> Maps:
    count, height, width = planes.shape
    codes = quantize(np.ascontiguousarray(planes).reshape(count, -1), low, high).reshape(planes.shape)
    return Maps(low.astype(np.float32), high.astype(np.float32), (count, height, width), codes, reduced)


def _span(planes: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Finite minimum and maximum of each plane, NaN where there is none: (C,), (C,)"""
    columns = activations(np.ascontiguousarray(planes).reshape(1, len(planes), -1))
    return columns.min[0] + 0.0, columns.max[0] + 0.0  # -0.0 is 0.0


def _matrix(bits: NDArray, dtype: str) -> tuple[Maps, str]:
    """(O, I) as one picture, rows are output channels."""
    factor = max(1, -(-max(bits.shape) // MAX_MATRIX))
    # Every factor-th value, not a mean: the mean of weights of either sign is gray everywhere.
    values = _floats(np.ascontiguousarray(bits[::factor, ::factor]), dtype)[None]
    low, high = _span(values)
    note = f"every {factor}th row and column of the matrix" if factor > 1 else "as a matrix"
    return _coded(values, low, high, factor), f"{note}, rows are output channels"


def _floats(bits: NDArray, dtype: str) -> NDArray[np.float32]:
    return np.asarray(decode(bits, dtype), np.float32)


def _means(bits: NDArray, dtype: str) -> NDArray[np.float32]:
    """(O, I, h, w) -> means over the input channels (O, h, w), a few kernels at a time."""
    step = max(1, (1 << 22) // max(bits[0].size, 1))
    parts = [_floats(bits[at : at + step], dtype).mean(axis=1, dtype=np.float32) for at in range(0, len(bits), step)]
    return np.concatenate(parts)


def kernel_maps(bits: NDArray, dtype: str, layout: str) -> tuple[Maps | None, str]:
    """The picture of a kernel tensor, and in words what is shown.

    Three input channels are shown as one RGB tile a kernel: planes (O*3, h, w), with one range for the three. Other
    kernels are one tile an input channel while there are at most MAX_TILES, else their mean over the input channels.
    1 x 1 kernels and linear weights are one matrix. None for what is no kernel or has no element.
    """
    if len(layout) < 2 or not bits.size:
        return None, ""
    if layout == "OI" or (layout == "OIHW" and bits.shape[2:] == (1, 1)):
        return _matrix(bits.reshape(bits.shape[:2]), dtype)
    if layout == "OIL":
        tiles = _floats(bits, dtype)
        return _coded(tiles, *_span(tiles)), "one tile a kernel, rows are input channels"
    if layout == "OIDHW":
        bits = bits.reshape(*bits.shape[:2], -1, bits.shape[4])  # depth slices below each other
    outputs, inputs, height, width = bits.shape
    if inputs == 3 and layout == "OIHW":
        values = _floats(bits, dtype)
        low, high = _span(values.reshape(outputs, -1, 1))
        return _coded(values.reshape(-1, height, width), low.repeat(3), high.repeat(3)), "one RGB tile a kernel"
    if inputs == 1:
        tiles, note = _floats(bits[:, 0], dtype), "one tile a kernel"
    elif outputs * inputs <= MAX_TILES:
        tiles, note = _floats(bits, dtype).reshape(-1, height, width), "one row a kernel, one tile an input channel"
    else:
        tiles, note = _means(bits, dtype), f"one tile a kernel, the mean over its {inputs} input channels"
    return _coded(tiles, *_span(tiles)), note
