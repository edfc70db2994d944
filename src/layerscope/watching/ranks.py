"""Training in several processes: which one writes, and the statistics of all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch.distributed as dist

from layerscope.record import Entry
from layerscope.stats import Columns, total

__all__ = ["merged", "rank"]


def rank() -> int:
    """Number of this process, 0 where there is one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def merged(entries: list[Entry]) -> list[Entry]:
    """The entries of all processes, the statistics of each channel over the batches of all: on the first process.

    Counts, minima and maxima are exact, means and deviations merge by Chan's update. Every process has to call this in
    the same step. The others get their own entries back.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return entries
    ours = {entry.key: (entry.shape, entry.columns) for entry in entries}
    parts: list[dict[str, tuple[tuple[int, ...], Columns | None]]] | None = None
    if dist.get_rank() == 0:
        parts = [{} for _ in range(dist.get_world_size())]
    dist.gather_object(ours, parts)
    return (
        entries
        if parts is None
        else [_merge(entry, [part[entry.key] for part in parts if entry.key in part]) for entry in entries]
    )


def _merge(entry: Entry, parts: list[tuple[tuple[int, ...], Columns | None]]) -> Entry:
    columns = [one for _, one in parts if one is not None]
    if not columns or len({len(one.count) for one in columns}) > 1:
        return entry  # no channels in common, such as boxes of a detector
    joined = Columns(*(np.stack(fields) for fields in zip(*columns, strict=True)))  # (ranks, C)
    shape = (sum(shape[0] for shape, _ in parts), *entry.shape[1:])
    return replace(entry, shape=shape, columns=total(joined, axis=0), whole=None)
