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
    from layerscope.capturing import capture
    from layerscope.comparison import compare
    from layerscope.errors import LayerscopeError
    from layerscope.inspection import features, weights
    from layerscope.record import Record
    from layerscope.recordfile import load
    from layerscope.surveying import survey
    from layerscope.watching import watch

_WHERE = {
    "LayerscopeError": "errors",
    "Record": "record",
    "capture": "capturing",
    "compare": "comparison",
    "features": "inspection",
    "load": "recordfile",
    "survey": "surveying",
    "watch": "watching",
    "weights": "inspection",
}

__all__ = [
    "LayerscopeError",
    "Record",
    "__version__",
    "capture",
    "compare",
    "features",
    "load",
    "survey",
    "watch",
    "weights",
]


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one of these

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module 'layerscope' has no attribute {name!r}")
        # No module may have the name of a function here: importing the module would replace the function.
        return getattr(import_module(f"layerscope.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
