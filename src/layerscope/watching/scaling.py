"""Gradients that are scaled for half precision, and steps that are skipped because of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Skips"]


class Skips:
    """What a `torch.amp.GradScaler` does to steps.

    `scaler.step(optimizer)` takes the scale out of the gradients before it calls `optimizer.step()`, and does not call
    it when one of them is infinite. Fused optimizers take it out themselves: then it is in `optimizer.grad_scale`
    while `step` runs, and `optimizer.found_inf` says that the step changes nothing. `skips`: that the last one did not.
    """

    def __init__(self, scaler: Any = None) -> None:
        self.scaler = scaler
        self._last = self._scale() if scaler is not None else 0.0
        self.skips = False

    def _scale(self) -> float:
        return float(self.scaler.get_scale())

    @staticmethod
    def scale(optimizer: Optimizer | None) -> Tensor | None:
        """The scale that is still in the gradients; None if there is none."""
        scale = getattr(optimizer, "grad_scale", None)
        return scale if isinstance(scale, Tensor) else None

    def now(self, optimizer: Optimizer | None) -> bool:
        """Whether the step that begins changes nothing."""
        found = getattr(optimizer, "found_inf", None)
        self.skips = isinstance(found, Tensor) and bool(found)
        return self.skips

    def since(self) -> str:
        """What was skipped since it was last asked, "" if nothing was; asked once a step."""
        if self.scaler is None:
            return "the step was skipped: its gradients overflow at this scale" if self.skips else ""
        last, self._last = self._last, self._scale()
        if self._last >= last:
            return ""
        return (
            f"a step before this one was skipped: its gradients overflow at the scale of {last:g}, now {self._last:g}"
        )
