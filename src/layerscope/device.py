"""Statistics and codes where the tensor is, in torch: for accelerators, without a synchronisation a layer.

The results stay on the device until all layers have run, since asking for a number waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["codes", "columns"]


def columns(values: Tensor) -> Tensor:
    """count, mean, m2, min, max, zeros, nan, inf of every image and channel. (B, C, N) -> float64 (8, B, C)

    Over the finite values; mean and m2 about the first finite-or-zero value of the channel, so that a large mean does
    not swallow a small deviation. Counts are exact up to 2**53.
    """
    finite = values.isfinite()
    count = finite.sum(2)
    nan = values.isnan().sum(2)
    # In float64 before the shift: in float32 it rounds, and overflows where the ends lie far apart.
    pivot = values[:, :, :1].nan_to_num(0, 0, 0).double()  # (B, C, 1)
    shifted = torch.where(finite, values.double() - pivot, 0)
    size = count.clamp(min=1)
    offset = shifted.sum(2) / size  # (B, C)
    # A second look at the deviations, not squares minus square: the pivot may be an outlier.
    rest = torch.where(finite, shifted - offset[:, :, None], 0)
    m2 = (rest * rest).sum(2)
    none = count == 0
    low = torch.where(finite, values, torch.inf).amin(2).double().masked_fill(none, torch.nan)
    high = torch.where(finite, values, -torch.inf).amax(2).double().masked_fill(none, torch.nan)
    mean = (pivot[:, :, 0] + offset).masked_fill(none, 0)
    inf = values.shape[2] - count - nan
    return torch.stack([one.double() for one in (count, mean, m2, low, high, (values == 0).sum(2), nan, inf)])


def codes(plane: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """8-bit codes over each channel's own range, by the formula of `stats.quantize`. plane (C, N), low, high (C,)"""
    wide = high > low
    scale = torch.where(wide, 254 / (high - low), 0)[:, None]
    steps = ((plane.double() - low[:, None]) * scale + 0.5).floor().clamp(0, 254)
    found = torch.where(wide[:, None] & plane.isfinite(), steps, 0)
    return found.masked_fill(~plane.isfinite(), 255).to(torch.uint8)
