"""Statistics and codes where the tensor is, in torch: for accelerators, without a synchronisation a layer.

The results stay on the device until all layers have run, since asking for a number waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["codes", "columns"]


def columns(values: Tensor) -> Tensor:
    """count, mean, m2, min, max, zeros, nan, inf of every image and channel. (B, C, N) -> float64 (8, B, C)

    Over the finite values; in two passes in float64, so that a large mean does not swallow a small deviation. Counts
    are exact up to 2**53.
    """
    finite = values.isfinite()
    count = finite.sum(2)
    nan = values.isnan().sum(2)
    size = count.clamp(min=1)
    wide = torch.where(finite, values.double(), 0)
    first = wide.sum(2) / size  # (B, C)
    # A second look at the deviations, not squares minus square; what they sum up to corrects the mean.
    rest = torch.where(finite, wide - first[:, :, None], 0)
    off = rest.sum(2) / size
    m2 = ((rest * rest).sum(2) - size * off * off).clamp(min=0)
    none = count == 0
    low = torch.where(finite, values, torch.inf).amin(2).double().masked_fill(none, torch.nan)
    high = torch.where(finite, values, -torch.inf).amax(2).double().masked_fill(none, torch.nan)
    mean = (first + off).masked_fill(none, 0)
    inf = values.shape[2] - count - nan
    return torch.stack([one.double() for one in (count, mean, m2, low, high, (values == 0).sum(2), nan, inf)])


def codes(plane: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """8-bit codes over each channel's own range, by the formula of `stats.quantize`. plane (C, N), low, high (C,)"""
    wide = high > low
    scale = torch.where(wide, 254 / (high - low), 0)[:, None]
    steps = ((plane.double() - low[:, None]) * scale + 0.5).floor().clamp(0, 254)
    found = torch.where(wide[:, None] & plane.isfinite(), steps, 0)
    return found.masked_fill(~plane.isfinite(), 255).to(torch.uint8)
