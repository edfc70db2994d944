"""Statistics and histogram of every tensor of a live network, of its gradients, and of what a step changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerscope.dtypes import STORAGE, bits_of
from layerscope.records.record import Entry, Histogram
from layerscope.records.sites import Site
from layerscope.stats import Columns, distribution
from layerscope.stats.calls import bin_values, columns, rows
from layerscope.tensors import layout_of, role_of

__all__ = ["BINS", "GRAD", "UPDATE", "Named", "Updates", "described"]

BINS = 50
#: what is appended to the name of a tensor
GRAD, UPDATE = "/grad", "/update"
#: up to here what a call costs is more than what the values cost
_SMALL = 4096

Named = tuple[str, Tensor]
Found = tuple[Columns, Histogram | None]


def described(named: Iterable[Named], suffix: str = "") -> list[Entry]:
    """Statistics and histogram of tensors, whole, in their order: the figures of `stats.distribution`.

    Tensors of a type that numpy can't hold get a note. `suffix` is appended to the names: GRAD for gradients.
    Counters (`num_batches_tracked`) are left out.
    """
    tensors = [(name, tensor) for name, tensor in named if role_of(name, tuple(tensor.shape)) != "counter"]
    found = _many(tensors)
    return [_entry(name, tensor, found.get(at), suffix) for at, (name, tensor) in enumerate(tensors)]


def _whole(tensor: Tensor) -> Columns:
    """Statistics of a float32 tensor on the host, without a histogram: one column."""
    table = np.empty((8, 1))
    rows(tensor.detach().reshape(-1).numpy(), tensor.numel(), table)
    return columns(table, 1)


def _entry(name: str, tensor: Tensor, found: Found | None, suffix: str) -> Entry:
    shape, dtype = tuple(tensor.shape), str(tensor.dtype)[6:]
    role = {GRAD: "gradient", UPDATE: "update"}.get(suffix) or role_of(name, shape)
    entry = Entry(Site(name + suffix, 0, layout_of(name, shape)), role, shape, dtype)
    if found is None:
        entry.note = f"no statistics of {dtype}"
    else:
        entry.whole, entry.histogram = found
    return entry


def _many(tensors: list[Named]) -> dict[int, Found]:
    found: dict[int, Found] = {}
    alike: dict[int, list[tuple[int, NDArray[np.float32]]]] = {}
    for at, (_, tensor) in enumerate(tensors):
        if str(tensor.dtype)[6:] not in STORAGE or tensor.is_meta:
            continue
        bits = bits_of(tensor)
        if tensor.dtype is torch.float32 and 1 < bits.size <= _SMALL:
            alike.setdefault(bits.size, []).append((at, bits.reshape(-1)))
        else:
            found[at] = _one(bits, str(tensor.dtype)[6:])
    for group in alike.values():
        found.update(_alike(group))
    return found


def _one(bits: NDArray[Any], dtype: str) -> Found:
    # One thread: two take a quarter more CPU time together, and the cores are busy with the training.
    made = distribution(bits, dtype, BINS, threads=1)
    if made.counts is None or made.edges is None:
        return made.whole, None
    return made.whole, Histogram(np.asarray(made.edges, np.float64), made.counts)


def _alike(group: list[tuple[int, NDArray[np.float32]]]) -> dict[int, Found]:
    """The same of many small tensors of one size at once: a batch norm has four of them."""
    many, size = len(group), group[0][1].size
    values = np.stack([one for _, one in group])  # (k, n)
    table = np.empty((8, many))
    rows(values.reshape(-1), size, table)
    stats = columns(table, many)
    low, high = stats.min.astype(np.float32), stats.max.astype(np.float32)
    with np.errstate(all="ignore"):
        plain = (stats.count == size) & np.isfinite(high - low) & ((high - low) / np.float32(BINS) > 0)
        # One row without a width would have numpy compute all of them in another way.
        low, high = np.where(plain, low, np.float32(0)), np.where(plain, high, np.float32(1))
        # As numpy.histogram makes them; of several at once the axis comes out in the wrong order.
        edges = np.ascontiguousarray(np.linspace(low, high, BINS + 1, axis=1, dtype=np.float32))
        plain &= (np.diff(edges, axis=1) > 0).all(1)
    wide = edges.astype(np.float64)
    constant = (stats.count == size) & (stats.min == stats.max)
    same: dict[bytes, Found] = {}  # most batch norms begin with ones and zeros
    found: dict[int, Found] = {}
    for row, (at, one) in enumerate(group):
        if constant[row]:
            key = one[:1].tobytes()
            found[at] = same[key] = same.get(key) or _one(one, "float32")
        elif not plain[row]:
            found[at] = _one(one, "float32")
        else:
            counts = np.zeros(BINS, np.int64)
            bin_values(values[row], edges[row], counts)
            found[at] = stats.take(np.s_[row : row + 1]), Histogram(wide[row], counts)
    return found


class Updates:
    """Keeps the weights as they are before an update, and gives their difference after it.

    The copies stay allocated while one chosen step follows the other, and are dropped otherwise.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._before: dict[str, Tensor] = {}
        self._ready = False

    def before(self) -> None:
        """An update begins."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and parameter.is_floating_point() and parameter.layout is torch.strided:
                kept = self._before.get(name)
                if kept is None or kept.shape != parameter.shape:
                    self._before[name] = parameter.detach().clone()
                else:
                    kept.copy_(parameter.detach())
        self._ready = True

    def after(self) -> list[Entry]:
        """Statistics of the difference, TENSOR/update, of what an update has changed; nothing if none has begun."""
        if not self._ready:
            return []
        self._ready = False
        found: list[Entry] = []
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                kept = self._before.get(name)
                if kept is None or parameter.grad is None:
                    continue
                change = torch.sub(parameter.detach(), kept, out=kept)  # no sign to take back, and no new memory
                whole = _whole(change.float().cpu().contiguous())
                found.append(_entry(name, parameter, (whole, None), UPDATE))
        return found

    def forget(self) -> None:
        """Drop the copies."""
        self._before.clear()
        self._ready = False
