"""Statistics of the outputs of the layers for the training batches of one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.hooks import observing
from layerscope.modules import Table, tensors_in
from layerscope.record import Entry
from layerscope.reduce import Collector
from layerscope.sites import Site

__all__ = ["BATCH", "Batch"]

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
