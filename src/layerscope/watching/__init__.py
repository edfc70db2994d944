"""Training watched live: layers that die, drift or explode are named when it happens."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerscope.watching.run import Run, open_run
    from layerscope.watching.watcher import Watch, watch

__all__ = ["Run", "Watch", "open_run", "watch"]

_WHERE = {"Run": "run", "Watch": "watcher", "open_run": "run", "watch": "watcher"}


def __getattr__(name: str) -> Any:
    # Late: a run is read without torch.
    if name not in _WHERE:
        raise AttributeError(f"module 'layerscope.watching' has no attribute {name!r}")
    return getattr(import_module(f"layerscope.watching.{_WHERE[name]}"), name)
