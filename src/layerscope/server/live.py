"""A live network behind the viewer: loaded, run and asked about single units in the worker's thread.

Nothing here imports torch before the worker does.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerscope.errors import LayerscopeError, NoMatch, UsageError, nearest
from layerscope.record import Entry, Record
from layerscope.server.session import Session
from layerscope.server.worker import Closing, Worker
from layerscope.text import printable

if TYPE_CHECKING:
    from layerscope.networks.open import Network

__all__ = ["Live", "reason", "safe_name"]


def reason(error: BaseException) -> str:
    """One line, whatever went wrong."""
    if isinstance(error, MemoryError):
        return "out of memory; give a smaller image or network"
    said = " ".join(str(error).split())
    return printable(said if isinstance(error, LayerscopeError) else f"{type(error).__name__}: {said}"[:500])


def safe_name(name: str) -> str:
    """The last part of a name that a browser sent, as a file name of its own folder."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^\w .()+-]", "_", last).strip(" .")[-100:] or "image"


class Live:
    """A network and the images that it looks at. `warn` is told what fails, for who started the server."""

    def __init__(
        self, given: Any, images: Sequence[Path], session: Session, worker: Worker, warn: Callable[[str], None]
    ) -> None:
        self.images = list(images)
        self._given, self._session, self._worker, self._warn = given, session, worker, warn
        self._network: Network | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="layerscope-")
        self._count = itertools.count()

    def start(self) -> None:
        """Load the network, and run the images if there are some."""
        self._worker.submit(lambda: self._tried(self._open))

    def take(self, name: str, data: bytes) -> None:
        """Run this image in place of those before; they stay if it fails. Raises Busy."""
        self._worker.submit(lambda: self._tried(lambda: self._pass([self._kept(name, data)])))

    def close(self) -> None:
        """Remove what was uploaded."""
        self._folder.cleanup()

    def look(self, key: str, channel: int, image: int, at: tuple[int | None, int | None]) -> dict[str, Any]:
        """One unit as JSON; `at`: row and column in the layer's own output, the greatest value if both are None.

        Runs in the worker. Raises NoMatch or UsageError for what is not there, and what `units.look` raises.
        """
        from layerscope import units

        record = self._session.record
        if self._network is None or record is None:
            raise UsageError("the network is not loaded yet; wait until it is ready")
        if key not in record.entries:
            raise NoMatch(f"{key!r} is no layer of this network{nearest(key, record.entries)}")
        if not 0 <= image < len(self.images):
            raise NoMatch(f"image {image}: there are {len(self.images)}")
        position = _position(record.entries[key], at)
        return units.look(self._network, self.images[image], key, channel, position).to_json()

    def _tried(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Closing:
            return
        except BaseException as error:  # the server goes on; the tabs and the terminal are told why
            self._warn(reason(error))
            self._session.tell("failed", what=reason(error))

    def _open(self) -> None:
        self._session.tell("loading", what="torch")
        from layerscope.networks.open import Network, open_network

        self._session.tell("loading", what=str(self._given) if isinstance(self._given, str) else "the network")
        self._network = self._given if isinstance(self._given, Network) else open_network(self._given)
        if self.images:
            self._pass(self.images)
            return
        empty = Record("features", self._network.subject, notes=[*self._network.notes, "no image yet: drop one here"])
        self._session.show(empty)
        self._session.tell("ready")

    def _pass(self, images: list[Path]) -> None:
        from layerscope.inspect import features

        if self._network is None:
            raise UsageError("the network could not be loaded; mend that, and start again")
        name = printable(self._network.name)

        def progress(done: int, of: int, _what: str) -> None:
            self._worker.checked()
            self._session.tell("running", done, of, name)

        record = features(self._network, images, progress=progress, attention=True)
        self.images = images
        self._session.show(record)
        self._session.tell("ready")

    def _kept(self, name: str, data: bytes) -> Path:
        folder = Path(self._folder.name) / str(next(self._count))
        folder.mkdir()
        path = folder / safe_name(name)
        path.write_bytes(data)
        return path


def _position(entry: Entry, at: tuple[int | None, int | None]) -> list[int] | None:
    """Row and column of the map as a position on the layer's axes: none, one, two, or three with depth stacked."""
    from layerscope.units.place import Place

    y, x = at
    if y is None and x is None:
        return None
    row, column = y or 0, x or 0
    grid = Place.of(entry.site.layout, entry.shape).grid
    if not grid:
        return []
    if len(grid) == 1:
        return [max(row, column)]
    return [row, column] if len(grid) == 2 else [row // grid[1], row % grid[1], column]
