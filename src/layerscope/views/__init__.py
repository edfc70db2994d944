"""What is drawn and written of a record, and of nothing else. `VIEWS` has all of it by name, loaded where it is used.

from layerscope.views import VIEWS

VIEWS["csv"].write(record, "tables")     # [PosixPath('tables/layers.csv'), PosixPath('tables/channels.csv')]
VIEWS["terminal"].write(record)          # prints it
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerscope.records.record import Record

__all__ = ["VIEWS", "View"]


@dataclass(frozen=True)
class View:
    """One form that a record can take: a function of a module of this package, which takes a record and a target.

    `target`: what it writes into, a file or a folder. `prints`: without a target it goes to standard output.
    """

    module: str
    function: str
    target: str
    prints: bool = False

    def write(self, record: Record, target: str | os.PathLike[str] | None = None, **options: Any) -> list[Path]:
        """Write the record, and return the paths of what was written. Raises OutputError; RecordError if it lies.

        `options`: those of the function behind it.
        """
        function = getattr(import_module(f"{__name__}.{self.module}"), self.function)
        paths = function(record, target, **options)
        return [paths] if isinstance(paths, Path) else paths or []


#: by name; each takes every kind of record and shows every statistic of `stats.table`
VIEWS: dict[str, View] = {
    "terminal": View("terminal", "show", "file", prints=True),
    "json": View("documents", "write_json", "file", prints=True),
    "csv": View("documents", "write_csv", "folder"),
    "png": View("pictures", "write", "folder"),
    "tensorboard": View("tensorboard", "export", "folder"),
    "html": View("html", "write", "file"),
    "notebook": View("notebook", "write", "file"),
}
