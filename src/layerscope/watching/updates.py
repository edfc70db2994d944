"""What one step changes: the difference of the weights, of chosen steps alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layerscope.record import Entry
from layerscope.sites import Site
from layerscope.tensors import layout_of
from layerscope.watching.tensors import UPDATE, whole

__all__ = ["Updates"]


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
        found = []
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                kept = self._before.get(name)
                if kept is None or parameter.grad is None:
                    continue
                change = torch.sub(parameter.detach(), kept, out=kept)  # no sign to take back, and no new memory
                shape, dtype = tuple(parameter.shape), str(parameter.dtype)[6:]
                entry = Entry(Site(name + UPDATE, 0, layout_of(name, shape)), "update", shape, dtype)
                entry.whole = whole(change.float().cpu().contiguous())
                found.append(entry)
        return found

    def forget(self) -> None:
        """Drop the copies."""
        self._before.clear()
        self._ready = False
