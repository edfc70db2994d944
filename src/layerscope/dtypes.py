"""Element types of tensors by name, and their values without torch.

numpy has no bfloat16 and no float8. Tensors of those types travel as their bit patterns (uint16, uint8) together
with the name of the type, and `decode` returns the values as float32.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["STORAGE", "bits_of", "decode", "is_float", "itemsize", "patterns"]

#: name of the element type -> numpy type of its bits, little-endian
STORAGE: dict[str, str] = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2",
    "float8_e4m3fn": "|u1", "float8_e4m3fnuz": "|u1", "float8_e5m2": "|u1", "float8_e5m2fnuz": "|u1",
    "float8_e8m0fnu": "|u1",
    "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "|i1",
    "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "|u1", "bool": "|b1",
    "complex32": "<u4", "complex64": "<c8", "complex128": "<c16",
    "qint8": "|i1", "quint8": "|u1", "qint32": "<i4",
}  # fmt: skip

# mantissa bits, bias, "fn" (no infinities) or "fnuz" (no infinities, no negative zero)
_SMALL_FLOATS = {
    "float8_e4m3fn": (3, 7, "fn"), "float8_e4m3fnuz": (3, 8, "fnuz"),
    "float8_e5m2": (2, 15, ""), "float8_e5m2fnuz": (2, 16, "fnuz"),
}  # fmt: skip


def itemsize(dtype: str) -> int:
    """Bytes of one element."""
    return np.dtype(STORAGE[dtype]).itemsize


def is_float(dtype: str) -> bool:
    """Whether the type can hold NaN and infinities."""
    return dtype.startswith(("float", "bfloat"))


@cache
def _small_float(mantissa_bits: int, bias: int, kind: str) -> NDArray[np.float32]:
    """The values of all patterns, (256,): OCP 8-bit floating point, revision 1.0, and fnuz of Noune et al. 2022."""
    bits = np.arange(256, dtype=np.uint32)
    size = bits & 0x7F
    # The same fields in the places of float32, whose exponents begin elsewhere.
    value = (bits >> 7 << 31 | size << 23 - mantissa_bits).view(np.float32) * np.float32(2.0 ** (127 - bias))
    if kind == "fnuz":
        value[0x80] = np.nan
    elif kind == "fn":
        value[size == 0x7F] = np.nan
    else:
        value[size == 0x7C] *= np.inf
        value[size > 0x7C] = np.nan
    return value


@cache
def patterns(dtype: str) -> NDArray[np.float32]:
    """The value of every bit pattern of an 8-bit or 16-bit type, (256,) or (65536,), in the order of the bits.

    Signed integers are listed by their unsigned bits: pattern 255 of int8 is -1.
    """
    size = itemsize(dtype)
    if size > 2:
        raise ValueError(f"{dtype} has too many bit patterns to list")
    bits = np.arange(1 << 8 * size, dtype=f"<u{size}")
    return decode(bits.view(STORAGE[dtype]), dtype).astype(np.float32)


def decode(bits: NDArray, dtype: str) -> NDArray:
    """Values of a tensor that is stored as `bits`: float64 and complex stay, all other floats become float32.

    Integers and booleans are returned as they are.
    """
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    if dtype in _SMALL_FLOATS:
        return _small_float(*_SMALL_FLOATS[dtype])[bits]
    if dtype == "float8_e8m0fnu":
        value = np.ldexp(1.0, np.arange(256) - 127)
        value[255] = np.nan
        return value.astype(np.float32)[bits]
    if dtype == "float16":
        return bits.astype(np.float32)
    if dtype == "complex32":
        halves = bits.view(np.float16).astype(np.float32)
        return halves.view(np.complex64)
    return bits


def bits_of(tensor: Tensor) -> NDArray:
    """The elements of a torch tensor as `STORAGE` has them, on the host: those that numpy has no type for as bits."""
    import torch

    tensor = tensor.detach()
    tensor = tensor.int_repr() if tensor.is_quantized else tensor
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    tensor = tensor.cpu().contiguous().resolve_conj().resolve_neg()
    if str(tensor.dtype).removeprefix("torch.") in ("bfloat16", "complex32") or "float8" in str(tensor.dtype):
        tensor = tensor.view({1: torch.uint8, 2: torch.uint16, 4: torch.uint32}[tensor.element_size()])
    return tensor.numpy()
