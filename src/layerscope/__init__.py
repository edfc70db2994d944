"""Look inside vision networks in PyTorch: every feature map, every kernel, every number.

import layerscope
record = layerscope.features(model, "tulip.jpg", layers="layer1*")
record = layerscope.weights("AlexNet.pth")

Importing this package imports neither torch nor numba; the functions do when they need them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from layerscope._version import __version__

if TYPE_CHECKING:
    from layerscope import errors
    from layerscope.activations.capturing import capture
    from layerscope.checkpoints import open_checkpoint
    from layerscope.comparison import compare
    from layerscope.errors import (
        CheckpointError,
        DeviceError,
        Diverged,
        EngineError,
        ForwardError,
        ImageError,
        LayerscopeError,
        NetworkError,
        NoEntry,
        NoMatch,
        OutputError,
        RecordError,
        UsageError,
    )  # fmt: skip
    from layerscope.inspection import features, layers, weights
    from layerscope.records.file import load
    from layerscope.records.record import Record
    from layerscope.server import view
    from layerscope.surveying import survey
    from layerscope.training import train
    from layerscope.units import evidence, unit  # type: ignore[no-redef, unused-ignore]  # mypy may take the circle for two
    from layerscope.watching import watch

_WHERE = {
    "activations.capturing": ["capture"],
    "checkpoints": ["open_checkpoint"],
    "comparison": ["compare"],
    "errors": [
        "CheckpointError", "DeviceError", "Diverged", "EngineError", "ForwardError", "ImageError", "LayerscopeError",
        "NetworkError", "NoEntry", "NoMatch", "OutputError", "RecordError", "UsageError",
    ],
    "inspection": ["features", "layers", "weights"],
    "records.record": ["Record"],
    "records.file": ["load"],
    "server": ["view"],
    "surveying": ["survey"],
    "training": ["train"],
    "units": ["evidence", "unit"],
    "watching": ["watch"],
}  # fmt: skip
_MODULES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "CheckpointError", "DeviceError", "Diverged", "EngineError", "ForwardError", "ImageError", "LayerscopeError",
    "NetworkError", "NoEntry", "NoMatch", "OutputError", "Record", "RecordError", "UsageError", "__version__",
    "capture", "compare", "errors", "evidence", "features", "layers", "load", "open_checkpoint", "survey", "train",
    "unit", "view", "watch", "weights",
]  # fmt: skip


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one of these

    def __getattr__(name: str) -> Any:
        if name == "errors":
            return import_module("layerscope.errors")
        if name not in _MODULES:
            raise AttributeError(f"module 'layerscope' has no attribute {name!r}")
        # No module may have the name of a function here: importing the module would replace the function.
        return getattr(import_module(f"layerscope.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
