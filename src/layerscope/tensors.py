"""What a tensor of a state dict is, told from its name and shape, and its picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscope.fused import quantize
from layerscope.maps import Maps

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
    if last in _ROLES:
        return _ROLES[last]
    if last == "weight":
        return {1: "scale", 2: "weight", 3: "kernel", 4: "kernel", 5: "kernel"}.get(len(shape), "tensor")
    return "tensor"


def _coded(planes: NDArray[np.float32], low: NDArray, high: NDArray, reduced: int = 1) -> Maps:
    count, height, width = planes.shape
    codes = quantize(np.ascontiguousarray(planes).reshape(count, -1), low, high).reshape(planes.shape)
    return Maps(low.astype(np.float32), high.astype(np.float32), (count, height, width), codes, reduced)


def _span(planes: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Finite minimum and maximum of each plane, NaN where there is none: (C,), (C,)"""
    flat = planes.reshape(len(planes), -1)
    finite = np.isfinite(flat)
    low = np.where(finite, flat, np.inf).min(1, initial=np.inf)
    high = np.where(finite, flat, -np.inf).max(1, initial=-np.inf)
    none = ~finite.any(1)
    return np.where(none, np.nan, low).astype(np.float64), np.where(none, np.nan, high).astype(np.float64)


def _matrix(values: NDArray[np.float32]) -> tuple[Maps, str]:
    """(O, I) as one picture, rows are output channels."""
    factor = max(1, -(-max(values.shape) // MAX_MATRIX))
    if factor > 1:
        # Every factor-th value, not a mean: the mean of weights of either sign is gray everywhere.
        values = values[::factor, ::factor]
    low, high = _span(values[None])
    note = f"every {factor}th row and column of the matrix" if factor > 1 else "as a matrix"
    return _coded(values[None], low, high, factor), f"{note}, rows are output channels"


def kernel_maps(values: NDArray, layout: str) -> tuple[Maps | None, str]:
    """The picture of a kernel tensor, and in words what is shown.

    Three input channels are shown as one RGB tile a kernel: planes (O*3, h, w), with one range for the three. Other
    kernels are one tile an input channel while there are at most MAX_TILES, else their mean over the input channels.
    1 x 1 kernels and linear weights are one matrix. None for what is no kernel or has no element.
    """
    if len(layout) < 2 or not values.size:
        return None, ""
    values = np.asarray(values, np.float32)
    if layout == "OI" or (layout == "OIHW" and values.shape[2:] == (1, 1)):
        return _matrix(values.reshape(values.shape[:2]))
    if layout == "OIL":
        low, high = _span(values)
        return _coded(values, low, high), "one tile a kernel, rows are input channels"
    if layout == "OIDHW":
        values = values.reshape(*values.shape[:2], -1, values.shape[4])  # depth slices below each other
    outputs, inputs, height, width = values.shape
    if inputs == 3 and layout == "OIHW":
        low, high = _span(values.reshape(outputs, -1, 1))
        return _coded(values.reshape(-1, height, width), low.repeat(3), high.repeat(3)), "one RGB tile a kernel"
    if inputs == 1:
        tiles, note = values[:, 0], "one tile a kernel"
    elif outputs * inputs <= MAX_TILES:
        tiles, note = values.reshape(-1, height, width), "one row a kernel, one tile an input channel"
    else:
        tiles = values.mean(axis=1, dtype=np.float32)
        note = f"one tile a kernel, the mean over its {inputs} input channels"
    low, high = _span(tiles)
    return _coded(tiles, low, high), note
