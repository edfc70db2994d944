"""Counts the steps of a training by its optimizers, without the user's help, and those that half precision skips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

__all__ = ["Clock", "Skips", "plain"]

Say = Callable[[str], None]


def plain(optimizer: Any) -> Optimizer:
    """The optimizer inside of what Lightning and accelerate wrap around it."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer


class Clock:
    """Calls `before(optimizer, closed)` and `after(optimizer)` around the update that ends a step.

    That is the update of `optimizers`, of the last of them if there are several; without any, of the first optimizer
    over parameters of the model that makes a step. `closed`: the gradients are computed inside of the step, by a
    closure. Every optimizer of torch has these hooks: nothing is wrapped.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Any],
        before: Callable[[Optimizer, bool], None],
        after: Callable[[Optimizer], None],
        say: Say,
    ) -> None:
        self.model, self.before, self.after, self.say = model, before, after, say
        self.given = [plain(one) for one in optimizers]
        self.first: Optimizer | None = self.given[0] if self.given else None
        self.last: Optimizer | None = self.given[-1] if self.given else None
        self.depth = 0
        self._mine: WeakKeyDictionary[Optimizer, bool] = WeakKeyDictionary()
        self._told = False
        self._handles = [
            register_optimizer_step_pre_hook(self._pre),
            register_optimizer_step_post_hook(self._post),
        ]

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def _pre(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if optimizer is self.first or (self.first is None and self._is_mine(optimizer)):
            if self.first is None:
                self.first = self.last = optimizer
            closed = any(callable(one) for one in (*args[1:], kwargs.get("closure")))  # args begins with the optimizer
            self.depth = 1
            self.before(optimizer, closed)
        elif not self.given and self.depth == 0 and not self._told and self._is_mine(optimizer):
            self._told = True
            kinds = type(self.first).__name__, type(optimizer).__name__
            self.say(
                f"two optimizers work on this network: steps are those of the first ({kinds[0]}), not of the second "
                f"({kinds[1]}); pass optimizer=[first, second] if a step is one of each"
            )

    def _post(self, optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        if optimizer is self.first:
            self.depth = 0
        if optimizer is self.last:
            self.after(optimizer)

    def _is_mine(self, optimizer: Optimizer) -> bool:
        known = self._mine.get(optimizer)
        if known is None:
            ours = {id(parameter) for parameter in self.model.parameters()}
            known = any(id(one) in ours for group in optimizer.param_groups for one in group["params"])
            self._mine[optimizer] = known
        return known


class Skips:
    """What a `torch.amp.GradScaler` does to steps: gradients are scaled, and a step is skipped where they overflow.

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
