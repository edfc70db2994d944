"""Statistics of the outputs of the layers: of the training batches of a step, and of the same images at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from layerscope.activations.collector import Collector
from layerscope.activations.hooks import looking, observing
from layerscope.activations.modules import Table, copied, tensors_in, unwrapped
from layerscope.activations.planes import pixels_of
from layerscope.networks.feeding import passes_of, run
from layerscope.networks.open import Network
from layerscope.records.maps import shrunk
from layerscope.records.record import Entry, Picture
from layerscope.records.sites import Site
from layerscope.stats import Columns, total

__all__ = ["BATCH", "Batch", "Probe", "fitted", "merged", "rank"]

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
    if parts is None:
        return entries
    return [_merge(entry, [part[entry.key] for part in parts if entry.key in part]) for entry in entries]


def _merge(entry: Entry, parts: list[tuple[tuple[int, ...], Columns | None]]) -> Entry:
    columns = [one for _, one in parts if one is not None]
    if not columns or len({len(one.count) for one in columns}) > 1:
        return entry  # no channels in common, such as boxes of a detector
    joined = Columns(*(np.stack(fields) for fields in zip(*columns, strict=True)))  # (ranks, C)
    shape = (sum(shape[0] for shape, _ in parts), *entry.shape[1:])
    return replace(entry, shape=shape, columns=total(joined, axis=0), whole=None)


#: of so many images maps are made; statistics are over all
MAPPED = 4
_PASS = 16


@dataclass
class Probe:
    """The same images through the network at every step that is looked at: what has changed is the network.

    `passes`: what the network is called with in turn. `pictures`: of the first images, as they are shown.
    """

    passes: list[Any]
    pictures: list[Picture]

    @classmethod
    def of(cls, model: nn.Module, images: Any) -> Probe:
        """`images`: a tensor (B, C, H, W), paths, or what else the network is called with: see `layerscope.features`.

        Raises ImageError.
        """
        network = Network(unwrapped(model), type(unwrapped(model)).__name__)
        passes, pictures, _ = passes_of(network, images, _PASS)
        first = passes[0] if passes else None
        if not pictures and isinstance(first, Tensor) and first.dim() == 4:
            pictures = [Picture(f"probe {at}", pixels_of(one)) for at, one in enumerate(first[:MAPPED])]
        return cls(copied(passes), pictures[:MAPPED])

    @property
    def example(self) -> Any:
        """One image, or all arguments, for the graph."""
        first = self.passes[0]
        return first[:1] if isinstance(first, Tensor) else first

    def look(self, model: nn.Module, paths: Sequence[str], budget_bytes: int) -> list[Entry]:
        """Statistics of all images and maps of the first ones; the network is left as it was. Raises ForwardError."""
        table, collector = Table(model), Collector(MAPPED)
        network = Network(table.root, type(table.root).__name__)
        with looking(table.root):
            for batch in self.passes:
                collector.begin(len(batch) if isinstance(batch, Tensor | list) else None)
                with observing(table, paths, collector.keep):
                    run(network, batch)
                collector.maps = 0
        return fitted(list(collector.entries()), budget_bytes)


def fitted(entries: list[Entry], budget_bytes: int) -> list[Entry]:
    """The entries with maps of so many bytes together at most: reduced by one factor, or else none of the largest."""
    factor = 1
    while _bytes(entries, factor) > budget_bytes and factor < 256:
        factor += 1
    entries = [replace(entry, maps=[shrunk(maps, factor) for maps in entry.maps]) for entry in entries]
    for entry in sorted(entries, key=lambda one: _bytes([one], 1), reverse=True):
        if _bytes(entries, 1) <= budget_bytes:
            break
        entry.maps = []
    return entries


def _bytes(entries: list[Entry], factor: int) -> int:
    shapes = [maps.shape for entry in entries for maps in entry.maps]
    return sum(channels * -(-height // factor) * -(-width // factor) for channels, height, width in shapes)
