"""A tensor of a running network -> statistics of every image and channel, and 8-bit maps. The hot path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from layerscope.activations.layouts import Layouts, Plan
from layerscope.activations.planes import Plane, planes, real, rows
from layerscope.records.maps import Maps
from layerscope.records.record import Entry
from layerscope.records.sites import Site
from layerscope.stats import Columns, activations, quantize, total

__all__ = ["MAX_SIDE", "Collector", "Layouts"]

#: Maps larger than this are reduced by whole factors: no screen shows 64 channels of 800 x 800 at once.
MAX_SIDE = 256


@cache
def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(slots=True)
class _Output:
    """One call of a layer in one pass, reduced; columns (B, C) and maps may still be on the device."""

    site: Site
    type: str
    shape: tuple[int, ...]
    dtype: str
    note: str
    columns: Columns | Tensor
    maps: list[Maps] | list[Callable[[], Maps]]


class Collector:
    """Reduces outputs inside the hooks that hand them on, and keeps no tensor; `entries` when all passes are over.

    `maps`: of how many images of each pass maps are made; of all if None. `on_device`: reduce where the tensor is;
    by default that is done for accelerators with float64 alone. The results stay there until all layers have run, since
    asking for a number waits for the device.
    """

    def __init__(self, maps: int | None = None, on_device: bool | None = None) -> None:
        self.maps = maps
        self.on_device = on_device
        self.layouts = Layouts()
        self._found: dict[str, list[_Output]] = {}

    def begin(self, images: int | None) -> None:
        """A pass with so many images begins; None where the inputs do not tell."""
        self.layouts.images = images

    def keep(self, site: Site, module: nn.Module | None, tensor: Tensor, kind: str = "") -> None:
        """Reduce what a module returned, or a function that is called `kind`, outside of any layer."""
        if tensor.is_nested or not tensor.dim() or not tensor.numel():  # a nested one has no shape to ask for
            return
        plan = self.layouts.plan(module, tuple(tensor.shape))
        if plan.layout == "LNC":  # records have the batch first
            tensor = tensor.transpose(0, 1)
            plan = Plan("NLC", *self.layouts.grid_of(tensor.shape[1]))
        away = self.on_device if self.on_device is not None else tensor.device.type in ("cuda", "xpu")
        columns, maps = (self._away if away else self._here)(tensor, plan)
        shape, dtype = tuple(tensor.shape), _name_of(tensor.dtype)
        site, kind = Site(site.path, site.call, plan.layout), kind or type(module).__name__
        self._found.setdefault(site.key, []).append(_Output(site, kind, shape, dtype, plan.note, columns, maps))

    def attend(self, site: Site, weights: Tensor) -> None:
        """Attention weights (B, heads, L, S): statistics of all, and as maps the first token's view of the patches.

        Without a token in front the maps are means over the queries; windows are put side by side.
        """
        batch, heads, _, keys = weights.shape
        plan = self.layouts.tokens((batch, keys, heads))
        values, _ = planes(weights.flatten(2), "NCL")
        drawn, _ = planes(weights[:, :, 0] if plan.prefix_tokens else weights.mean(2), "NCL")  # (B, heads, S)
        maps = self._maps(drawn, False, activations(drawn), plan)
        view = "attention of the first token" if plan.prefix_tokens else "mean attention over the queries"
        note = "; ".join(filter(None, [view, plan.note]))
        shape, dtype = tuple(weights.shape), _name_of(weights.dtype)
        site = Site(site.path, site.call, "NCLL")
        output = _Output(site, "attention", shape, dtype, note, activations(values), maps)
        self._found.setdefault(site.key, []).append(output)

    def _here(self, tensor: Tensor, plan: Plan) -> tuple[Columns, list[Maps]]:
        values, last = planes(tensor, plan.layout)
        columns = activations(values, last)  # (B, C)
        return columns, self._maps(values, last, columns, plan)

    def _maps(self, values: Plane, last: bool, columns: Columns, plan: Plan) -> list[Maps]:
        images, each = self._images(len(values), plan)
        maps = []
        for image in range(images):
            low, high = columns.min[image], columns.max[image]
            plane = values[image].T if last else values[image]  # (C, N)
            if each > 1:
                windows = slice(image * each, (image + 1) * each)
                low, high = np.fmin.reduce(columns.min[windows]), np.fmax.reduce(columns.max[windows])
                plane = _side_by_side(values[windows].swapaxes(1, 2) if last else values[windows], plan)
            maps.append(_tiles(plane, low, high, plan))
        return maps

    def _away(self, tensor: Tensor, plan: Plan) -> tuple[Tensor, list[Callable[[], Maps]]]:
        values, last = rows(real(tensor), plan.layout)
        values = values.transpose(1, 2) if last else values  # (B, C, N)
        columns = columns_on_device(values)  # (8, B, C)
        images, each = self._images(len(values), plan)
        maps: list[Callable[[], Maps]] = []
        for image in range(images):
            windows = slice(image * each, (image + 1) * each)
            low = columns[3, windows].nan_to_num(torch.inf).amin(0)  # (C,)
            high = columns[4, windows].nan_to_num(-torch.inf).amax(0)
            plane = _join(values[windows], plan)  # (C, h, w)
            factor = _factor(*plane.shape[1:])
            if factor > 1:
                rest = (0, -plane.shape[2] % factor, 0, -plane.shape[1] % factor)
                plane = F.avg_pool2d(F.pad(plane[None], rest, mode="replicate"), factor)[0]
            flat = codes_on_device(plane.flatten(1), low, high).view(plane.shape)
            maps.append(partial(_fetched, flat, low, high, factor))
        return columns, maps

    def _images(self, rows: int, plan: Plan) -> tuple[int, int]:
        """Of how many images maps are made, and how many rows of the batch axis make up one."""
        each = plan.windows[0] * plan.windows[1]
        most = rows // each
        if self.layouts.images is not None:
            most = min(most, self.layouts.images)
        return most if self.maps is None else min(most, self.maps), each

    def entries(self) -> Iterator[Entry]:
        """One entry a layer and call, over the images of all passes, in the order of their first run."""
        for outputs in self._found.values():
            first = outputs[0]
            shape = (sum(output.shape[0] for output in outputs), *first.shape[1:])
            maps = [maps() if callable(maps) else maps for output in outputs for maps in output.maps]
            yield Entry(first.site, first.type, shape, first.dtype, _over_images(outputs), maps=maps, note=first.note)


def _fetched(codes: Tensor, low: Tensor, high: Tensor, factor: int) -> Maps:
    """Maps from the device: codes uint8 (C, h, w), low and high (C,)."""
    ends = torch.stack([low, high]).cpu().numpy().astype(np.float32)
    ends[:, ~np.isfinite(ends[0])] = np.nan  # a channel without a finite value
    host = codes.cpu().numpy()
    return Maps(ends[0], ends[1], cast(tuple[int, int, int], host.shape), host, factor)


def _columns(output: _Output) -> Columns:
    found = output.columns
    if isinstance(found, Columns):
        return found
    count, mean, m2, low, high, *others = found.cpu().numpy()  # (B, C) each
    zeros, nan, inf = (one.astype(np.int64) for one in others)
    return Columns(count.astype(np.int64), mean, m2, low, high, zeros, nan, inf)


def _over_images(outputs: list[_Output]) -> Columns:
    """Statistics of each channel over all images: (C,)"""
    found = [_columns(output) for output in outputs]
    if len(found) == 1 and len(found[0].count) == 1:
        return found[0].take(0)
    if len({columns.count.shape[1] for columns in found}) > 1:
        # What is called the channels differs from image to image, as the number of boxes does.
        found = [total(columns, axis=1).take(np.s_[:, None]) for columns in found]  # (B, 1)
    joined = Columns(*(np.concatenate(fields) for fields in zip(*found, strict=True)))  # (B, C)
    return total(joined, axis=0)


def _factor(height: int, width: int) -> int:
    return max(1, -(-max(height, width) // MAX_SIDE))


def _join(values: Tensor, plan: Plan) -> Tensor:
    """The rows of one image (windows, C, N) as (C, h, w); tokens without a place are left out."""
    height, width = plan.grid
    rows, cols = plan.windows
    cut = values[:, :, plan.prefix_tokens :].reshape(rows, cols, values.shape[1], height, width)
    return cut.permute(2, 0, 3, 1, 4).reshape(values.shape[1], rows * height, cols * width)


def _side_by_side(values: Plane, plan: Plan) -> Plane:
    """Windows (rows*cols, C, N) as one picture a channel (C, h*w)."""
    return _join(torch.from_numpy(np.ascontiguousarray(values)), plan).flatten(1).numpy()


def _tiles(plane: Plane, low: NDArray[np.float64], high: NDArray[np.float64], plan: Plan) -> Maps:
    """The maps of one image, `plane` (C, N), coded over each channel's own range."""
    height, width = plan.grid[0] * plan.windows[0], plan.grid[1] * plan.windows[1]
    plane = plane[:, plan.prefix_tokens :] if plan.prefix_tokens else plane
    factor = _factor(height, width)
    if factor > 1:
        plane = _shrink(plane.reshape(-1, height, width), factor)
        _, height, width = plane.shape
    codes = quantize(plane.reshape(len(plane), -1), low, high)
    sizes = (len(codes), height, width)
    return Maps(low.astype(np.float32), high.astype(np.float32), sizes, codes.reshape(sizes), factor)


def _shrink(plane: Plane, factor: int) -> Plane:
    """Means of factor x factor blocks, the last rows and columns filled up with their neighbours; (C, h, w)"""
    channels, height, width = plane.shape
    rows, cols = -(-height // factor), -(-width // factor)
    padded = np.pad(plane, ((0, 0), (0, rows * factor - height), (0, cols * factor - width)), mode="edge")
    return padded.reshape(channels, rows, factor, cols, factor).mean(axis=(2, 4), dtype=np.float32)


def columns_on_device(values: Tensor) -> Tensor:
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


def codes_on_device(plane: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """8-bit codes over each channel's own range, by the formula of `stats.quantize`. plane (C, N), low, high (C,)"""
    wide = high > low
    scale = torch.where(wide, 254 / (high - low), 0)[:, None]
    steps = ((plane.double() - low[:, None]) * scale + 0.5).floor().clamp(0, 254)
    found = torch.where(wide[:, None] & plane.isfinite(), steps, 0)
    return found.masked_fill(~plane.isfinite(), 255).to(torch.uint8)
