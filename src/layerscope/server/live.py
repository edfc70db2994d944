"""A live network behind the viewer, or two: loaded, run and asked about single units in the worker's thread.

Nothing here imports torch before the worker does.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerscope.errors import LayerscopeError, NoMatch, UsageError
from layerscope.networks.feeding import BATCH_SIZE
from layerscope.records.record import Entry, Record
from layerscope.server.parts import State, attention_of, kernels_of, seen_from, tokens_of
from layerscope.server.session import Kept, Session
from layerscope.server.worker import Closing, Worker
from layerscope.text import json_text, nearest, printable
from layerscope.views.format import block

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from layerscope.networks.open import Network
    from layerscope.units import UnitInspector

__all__ = ["Live", "Opener", "opened", "reason", "safe_name"]

Opener = Callable[[Any], "Network"]
#: of answers that were given last
KEPT_BYTES = 32 << 20
_NOT_YET = "the network is not loaded yet; wait until it is ready"


def opened(given: Any) -> Network:
    """The network that a name means; a Network or a module as it is."""
    from layerscope.networks.open import Network, open_network

    return given if isinstance(given, Network) else open_network(given)


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
    """Networks, one or two to compare, and the images that they look at. `warn` hears what fails."""

    def __init__(
        self,
        given: Sequence[Any],
        images: Sequence[Path],
        session: Session,
        worker: Worker,
        warn: Callable[[str], None],
        opener: Opener = opened,
        device: Any = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.images = list(images)
        #: what the page may ask for beyond the record
        self.can = {"image": True, "units": True}
        #: names of the tensors that have a picture
        self.kernel_names: list[str] = []
        self._given, self._session, self._worker, self._warn, self._opener = given, session, worker, warn, opener
        self._networks: list[Network] = []
        self._kernels: Record | None = None
        self._kept: Kept[bytes] = Kept(KEPT_BYTES, len)
        self._attention: Kept[NDArray[np.float32]] = Kept(1, len)
        self._inspectors: dict[tuple[str, int], UnitInspector] = {}
        self._device, self._batch_size, self._placed = device, batch_size, ExitStack()
        self._folder = tempfile.TemporaryDirectory(prefix="layerscope-")

    def start(self) -> None:
        """Load the networks, and run the images if there are some."""
        self._worker.submit(lambda: self._tried(self._open))

    def take(self, name: str, data: bytes) -> None:
        """Run this image in place of those before; they stay if it fails. Raises Busy."""
        self._worker.submit(lambda: self._tried(lambda: self._upload(name, data)))

    def close(self) -> None:
        """Remove what was uploaded, and leave the networks where they were."""
        self._placed.close()
        self._folder.cleanup()

    def kernels(self) -> Record:
        """The tensors of the networks as a record, made when it is first asked for. Runs in the worker."""
        if not self._networks:
            raise UsageError(_NOT_YET)
        self._kernels = self._kernels or kernels_of(self._networks)
        return self._kernels

    def look(self, key: str, channel: int, image: int, at: tuple[int | None, int | None]) -> bytes:
        """One unit as JSON; `at`: row and column in the layer's own output, the greatest value if both are None.

        Runs in the worker. Raises NoMatch or UsageError for what is not there, and what `units.unit` raises.
        """
        from layerscope import units

        network, entry = self._asked(key, image)

        def make() -> bytes:
            position = _position(entry, at)
            if (asked := (entry.side, image)) not in self._inspectors:
                # Of one image at a time: an inspector holds what every layer gave.
                self._inspectors = {kept: one for kept, one in self._inspectors.items() if kept[1] == image}
                self._inspectors[asked] = units.UnitInspector(network, self.images[image])
            report = self._inspectors[asked].inspect(entry.site.key, channel, position, gradient=False)
            return json_text(report.to_json()).encode()

        return self._kept.made((key, channel, image, at), make)

    def tokens(self, key: str, image: int) -> bytes:
        """The tokens of a layer without a place in the image, as a block; see `tokens_of`. Runs in the worker."""
        network, entry = self._asked(key, image)
        return self._kept.made((key, image), lambda: block(tokens_of(network, self.images[image], entry, image), 0))

    def attention(self, key: str, image: int, at: tuple[int | None, int | None]) -> bytes:
        """What the heads look at from the patch `at`, on average if its row is None, as a block. Runs in the worker."""
        network, entry = self._asked(key, image)
        if entry.type != "attention":
            raise UsageError(f"{key}: is no attention; ask for a layer named PATH/attention")
        weights = self._attention.made((key, image), lambda: attention_of(network, self.images[image], entry))
        patch = None if at[0] is None else (at[0], at[1] or 0)
        return block(seen_from(entry, image, weights, patch), 0)

    def _asked(self, key: str, image: int) -> tuple[Network, Entry]:
        record = self._session.record
        if not self._networks or record is None:
            raise UsageError(_NOT_YET)
        if key not in record.entries:
            raise NoMatch(f"{key!r} is no layer of this network{nearest(key, record.entries)}")
        if not 0 <= image < len(self.images):
            raise NoMatch(f"image {image}: there are {len(self.images)}")
        entry = record.entries[key]
        return self._networks["ab".index(entry.side) if entry.side else 0], entry

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
        from layerscope.networks.devices import device_named, placed

        networks = []
        for given in self._given:
            self._session.tell("loading", what=str(given) if isinstance(given, str) else "the network")
            network = self._opener(given)
            self._placed.enter_context(placed(network.model, device_named(self._device)))
            networks.append(network)
        self.kernel_names = list(dict.fromkeys(name for one in networks for name in State(one).kernels))
        self._networks = networks
        if self.images:
            self._pass(self.images)
            return
        subjects, notes = [one.subject for one in networks], [note for one in networks for note in one.notes]
        kind: Any = "features" if len(networks) == 1 else "compare"
        empty = Record(kind, subjects[0], subject_b=subjects[1] if len(networks) > 1 else "", notes=notes)
        empty.notes.append("no image yet: drop one here")
        self._session.show(empty)

    def _pass(self, images: list[Path]) -> None:
        from layerscope.comparison import compare_networks
        from layerscope.inspection import features

        if not self._networks:
            raise UsageError("the network could not be loaded; mend that, and start again")
        name = printable(" and ".join(one.name for one in self._networks))

        def progress(done: int, of: int, _what: str) -> None:
            self._worker.checked()
            self._session.tell("running", done, of, name)

        if len(self._networks) == 2:
            first, second = self._networks
            record = compare_networks(first, second, images[0], attention=True, progress=progress)
        else:
            record = features(self._networks[0], images, attention=True, batch_size=self._batch_size, progress=progress)
        self.images = images
        for kept in (self._kept, self._attention, self._inspectors):
            kept.clear()
        self._session.show(record)

    def _upload(self, name: str, data: bytes) -> None:
        """Run it; whichever is not looked at afterwards, the one before or this one, is removed."""
        before, new = self.images, Path(tempfile.mkdtemp(dir=self._folder.name)) / safe_name(name)
        new.write_bytes(data)
        try:
            self._pass([new])
        finally:
            for path in {new, *before} - set(self.images):
                if Path(self._folder.name) in path.parents:
                    shutil.rmtree(path.parent, ignore_errors=True)


def _position(entry: Entry, at: tuple[int | None, int | None]) -> list[int] | None:
    """Row and column of the map as a position on the layer's axes: none, one, two, or three with depth stacked."""
    y, x = at
    if y is None and x is None:
        return None
    row, column = y or 0, x or 0
    letters = zip(entry.site.layout, entry.shape, strict=False)
    grid: Sequence[int] = [size for letter, size in letters if letter not in "NC"]
    if entry.site.layout == "NLC" and entry.maps and entry.maps[0].shape[1] > 1:
        grid = entry.maps[0].shape[1:]  # tokens lie on the grid of their patches
    if not grid:
        return []
    if len(grid) == 1:
        return [max(row, column)]
    return [row, column] if len(grid) == 2 else [row // grid[1], row % grid[1], column]
