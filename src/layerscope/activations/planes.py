"""Tensors of any type and layout as numpy has them: as float32 planes, as bits, as a picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Plane", "pixels_of", "planes", "real", "rows"]

Plane = NDArray[np.float32]


def real(tensor: Tensor) -> Tensor:
    """float32 on the tensor's own device, dense: quantised values in their unit, complex numbers by their size."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    elif tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = tensor.abs()
    return tensor.to(torch.float32).resolve_neg()


def planes(tensor: Tensor, layout: str) -> tuple[Plane, bool]:
    """An output of any type as float32: (B, C, N) and False, or (B, N, C) and True where that is how it lies in memory.

    Shares the tensor's memory where that is possible.
    """
    if layout == "NCHW" and tensor.dtype is torch.float32 and tensor.is_cpu and tensor.is_contiguous():
        # The usual case without the detours: a millisecond in a pass of MobileNetV2.
        batch, channels, _, _ = tensor.shape
        array = tensor.numpy(force=True) if tensor.requires_grad or tensor.is_neg() else tensor.numpy()
        return array.reshape(batch, channels, -1), False
    values, last = rows(_host(tensor), layout)
    return values.numpy(), last


def _host(tensor: Tensor) -> Tensor:
    plain = tensor.dtype is torch.float32 and tensor.layout is torch.strided and not tensor.is_neg()
    return tensor.detach() if plain and tensor.device.type == "cpu" else real(tensor).cpu()


def rows(tensor: Tensor, layout: str) -> tuple[Tensor, bool]:
    """float32 (B, C, N), or (B, N, C) with True; contiguous."""
    if "C" not in layout:
        return tensor.reshape(tensor.shape[0] if layout else 1, 1, -1).contiguous(), False
    axis = layout.index("C")
    if axis == 1 and tensor.is_contiguous():
        return tensor.view(tensor.shape[0], tensor.shape[1], -1), False  # (B, C, N)
    last = tensor.movedim(axis, -1)  # (B, ..., C)
    if tensor.dim() > 2 and last.is_contiguous():
        return last.reshape(last.shape[0], -1, last.shape[-1]), True
    tensor = tensor if axis == 1 else tensor.movedim(axis, 1)
    return tensor.reshape(tensor.shape[0], tensor.shape[1], -1).contiguous(), False


def pixels_of(image: Tensor) -> NDArray[np.uint8]:
    """A tensor (C, H, W) as a picture (H, W, 3), over its own range: nothing tells how it was normalised.

    The first three channels are the colours; of fewer the first one is shown in gray.
    """
    values = real(image).cpu().numpy()
    values = values if values.ndim == 3 else values.reshape(1, -1, values.shape[-1])
    values = values[:3] if len(values) >= 3 else values[:1].repeat(3, 0)
    finite = values[np.isfinite(values)]
    low, high = float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
    scaled = np.nan_to_num((values - low) / max(high - low, 1e-12) * 255)
    return np.ascontiguousarray(np.rint(scaled).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
