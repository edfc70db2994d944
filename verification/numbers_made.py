"""Tensors of every element type and every kind of values, as torch makes them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscope import dtypes

__all__ = ["Made", "floats", "made"]

#: what torch calls nothing by that name, or does not compute with: their bits are made by numpy
_QUANTISED = {"qint8": "int8", "quint8": "uint8", "qint32": "int32"}


@dataclass(frozen=True)
class Made:
    """A tensor: the bits as a checkpoint's reader hands them on, and the values by torch's own conversion."""

    kind: str
    dtype: str
    bits: NDArray
    values: NDArray[np.float64]  # complex: real and imaginary parts, as two values


def floats(rng: np.random.Generator, top: float, tiny: float, count: int) -> dict[str, NDArray[np.float64]]:
    """Kinds of values for a floating-point type with this greatest and least positive number."""
    normal = rng.normal(size=count)
    kinds = {
        "normal": normal,
        "normal, large": rng.normal(0, 3, 1 << 17),
        "normal, in threads": rng.normal(0, 0.02, (1 << 20) + 4097),
        "rectified": np.maximum(normal, 0),
        "denormal": rng.integers(-40, 41, count) * tiny,
        "huge": rng.uniform(-0.9, 0.9, count) * top,
        "both ends": rng.choice([-top, top], count),
        "constant": np.full(count, 0.1),
        "constant, huge": np.full(count, top),
        "zeros of both signs": rng.choice([-0.0, 0.0], count),
        "large mean, tiny std": rng.normal(100, 0.01, count),
        "larger mean, tinier std": rng.normal(1e4, 1e-3, count),
        "outlier first": np.concatenate([[min(1e8, top)], normal]),
        "outlier last": np.concatenate([normal, [-min(1e8, top)]]),
        "some NaN": np.where(rng.random(count) < 0.05, np.nan, normal),
        "some infinite": np.where(rng.random(count) < 0.05, rng.choice([-np.inf, np.inf], count), normal),
        "none finite": rng.choice([np.nan, np.inf, -np.inf], count),
        "finite but one": np.concatenate([[np.nan], normal]),
        "all NaN": np.full(count, np.nan),
        "one": np.array([1.5]),
        "two": np.array([-1.0, 3.0]),
        "empty": np.empty(0),
        "no axes": np.array(2.0),
    }  # fmt: skip
    return {name: np.asarray(values) for name, values in kinds.items()}


def made(dtype: str, count: int = 5001) -> Iterator[Made]:
    """Tensors of one element type of `dtypes.STORAGE`, of every kind that it can hold."""
    rng = np.random.default_rng(sum(map(ord, dtype)))
    size = dtypes.itemsize(dtype)
    warnings.filterwarnings("ignore", message="ComplexHalf")  # torch calls it experimental
    if dtypes.is_float(dtype) or dtype.startswith("complex"):
        yield from _floating(dtype, rng, count)
    else:
        yield from _whole(dtype, rng, count)
    for name, many in (("any bits", count), ("any bits, large", 1 << 17)):
        raw = rng.integers(0, 256, many * size, np.uint8)
        raw = raw & 1 if dtype == "bool" else raw
        yield _of(name, dtype, raw.view(dtypes.STORAGE[dtype]))


def _floating(dtype: str, rng: np.random.Generator, count: int) -> Iterator[Made]:
    kind = getattr(torch, dtype)
    info = torch.finfo(torch.float16 if dtype == "complex32" else kind)
    for name, values in floats(rng, info.max, info.smallest_normal / 2**3, count).items():
        if dtype == "float8_e8m0fnu":  # it has neither zero nor a sign
            values = np.where(values == 0, 1.0, np.abs(values))
        tensor = torch.from_numpy(values)
        if dtype.startswith("complex"):
            tensor = torch.complex(tensor, tensor.flip(0) if tensor.dim() else tensor)
        yield _of(name, dtype, _bits(tensor.to(kind), dtype))


def _whole(dtype: str, rng: np.random.Generator, count: int) -> Iterator[Made]:
    storage = np.dtype(dtypes.STORAGE[dtype])
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(storage).min, np.iinfo(storage).max)
    kinds = {
        "few values": rng.integers(0, min(high, 5) + 1, count),
        "many values": rng.integers(0, min(high, 100) + 1, 1 << 17),
        "in threads": rng.integers(0, min(high, 100) + 1, (1 << 20) + 4097),
        "both ends": rng.choice(np.array([low, high], storage), count),
        "constant": np.full(count, 1),
        "zeros": np.zeros(count),
        "one": np.array([1]),
        "empty": np.empty(0),
    }
    for name, values in kinds.items():
        yield _of(name, dtype, values.astype(storage))


def _bits(tensor: Tensor, dtype: str) -> NDArray:
    size = tensor.element_size()
    if dtype.startswith("complex"):
        flat = torch.view_as_real(tensor.reshape(-1)).contiguous().numpy()
        return flat.reshape(-1).view(dtypes.STORAGE[dtype]).reshape(tensor.shape)
    as_ints = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    return tensor.view(as_ints).numpy().view(dtypes.STORAGE[dtype])


def _of(name: str, dtype: str, bits: NDArray) -> Made:
    """The values of bits by torch, which knows all of these types."""
    size = bits.dtype.itemsize
    signed = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64, 16: np.complex128}[size]
    raw = torch.from_numpy(np.ascontiguousarray(bits).reshape(-1).view(signed).copy())
    tensor = raw.view(getattr(torch, _QUANTISED.get(dtype, dtype)))
    if dtype.startswith("complex"):
        tensor = torch.view_as_real(tensor)  # (N, 2)
    return Made(name, dtype, bits, tensor.reshape(-1).to(torch.float64).numpy())
