"""Statistics of the outputs of the layers for the training batches of one step, of one process or of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from layerscope.hooks import observing
from layerscope.modules import Table, tensors_in
from layerscope.record import Entry
from layerscope.reduce import Collector
from layerscope.sites import Site
from layerscope.stats import Columns, total

__all__ = ["BATCH", "Batch", "merged", "rank"]

#: what is appended to the path of a layer
BATCH = "/batch"


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


class Batch:
    """Hooks on, statistics of every training batch, hooks off.

    A pass is a training batch if gradients are on and a module is in training mode when it begins. What a checkpointed
    layer computes again in the backward pass is not counted. Several batches of one step (accumulated gradients) are
    merged. Where the root of the network is never called itself, each layer is judged alone, and `begin` has
    to be told of every batch.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str], guard: Callable[[str], Any]) -> None:
        self.table, self.paths, self.guard = Table(model), list(paths), guard
        self._stack = ExitStack()

    def open(self) -> None:
        """Put the hooks on."""
        self.collector = Collector(0)
        self.counting = self.called = False
        self.depth = self.batches = 0
        with ExitStack() as stack:
            self.calls = stack.enter_context(observing(self.table, self.paths, self._keep)).calls
            stack.enter_context(observing(self.table, [""], on_input=self._enter, on_exit=self._leave))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Take them away."""
        self._stack.close()

    def entries(self) -> list[Entry]:
        """One entry a layer and call, PATH/batch, in the order of the forward pass; hooks off."""
        self.close()
        return [
            replace(entry, site=Site(entry.site.path + BATCH, entry.site.call, entry.site.layout))
            for entry in self.collector.entries()
        ]

    def begin(self) -> None:
        """A batch begins."""
        self.calls.clear()

    def _enter(self, _path: str, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.called = True
        self.depth += 1
        if self.depth > 1 or _in_backward():
            return
        self.counting = torch.is_grad_enabled() and any(module.training for module in self.table.root.modules())
        if self.counting:
            self.batches += 1
            self.begin()
            first = next((tensor for _, tensor in tensors_in([*args, *kwargs.values()])), None)
            self.collector.begin(len(first) if first is not None and first.dim() else None)

    def _leave(self, *_: object) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.counting = False

    def _keep(self, site: Site, module: nn.Module, tensor: Tensor) -> None:
        alone = not self.called and module.training and torch.is_grad_enabled() and not _in_backward()
        if self.counting or alone:
            with self.guard("the training batch"):
                self.collector.keep(site, module, tensor)


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
