"""Who runs through the chunks of a survey: an engine is a function that gives a partial for every chunk asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerscope.errors import EngineError, UsageError
from layerscope.text import nearest

if TYPE_CHECKING:
    from layerscope.surveying.job import Job, Partial

__all__ = ["ENGINES", "PATIENCE_S", "Engine", "EngineError", "Setup", "engine_named"]

#: a survey that has not got on for so long is given up
PATIENCE_S = 600.0


@dataclass
class Setup:
    """How an engine is to run.

    workers: processes, 0 for the engine's choice. address: of a Ray cluster that runs already. passed: is told how
    many images of a chunk are done, and (-1, 0) while nothing happens; the engine ends when it says True.
    """

    passed: Callable[[int, int], bool] = lambda chunk, images: False
    workers: int = 0
    address: str = ""
    patience_s: float = PATIENCE_S


Engine = Callable[["Job", Sequence[int], Setup], Iterator["Partial"]]

#: by name; looked up when they are used, so that neither torch nor Ray is imported before
ENGINES = {
    "local": "layerscope.surveying.local:local",
    "ray": "layerscope.surveying.ray_engine:on_ray",
}


def engine_named(name: str) -> Engine:
    """Raises UsageError for an unknown name."""
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is not known{nearest(name, ENGINES)}; choose {' or '.join(ENGINES)}")
    module, _, function = ENGINES[name].partition(":")
    return getattr(importlib.import_module(module), function)
