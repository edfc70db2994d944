"""TensorBoard: histograms and pictures from records and entries, and the graph of a network.

Histograms are written from the exact statistics, not made again from the values: TensorBoard's own raise on
NaN, on empty tensors and on values near 1e30, and take twenty times as long. TensorBoard is needed to look at the
files and for the graph, not to write the rest.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from layerscope.record import Entry, Record
from layerscope.views import eventfile
from layerscope.views.eventfile import EventFile
from layerscope.views.png import feature_mosaic, kernel_mosaic
from layerscope.views.sheet import encode

if TYPE_CHECKING:
    from torch import Tensor, nn

#: channels of a survey whose best examples are drawn, one sheet a layer
_CHANNELS = 32

__all__ = ["EventFile", "export", "histogram", "maps", "names_of", "write_graph"]


def histogram(tag: str, entry: Entry) -> bytes | None:
    """The histogram of a tensor, empty where no value is finite; None where there is no distribution."""
    if entry.total is None:
        return None
    count, mean, m2, low, high = (float(field.item()) for field in entry.total[:5])
    found = entry.histogram
    # TensorBoard takes them for the ends of the outermost bins, and cannot draw NaN.
    ends = (low, high) if found else (0.0, 0.0)
    figures = (*ends, count, count * mean, m2 + count * mean * mean)
    limits, counts = (found.edges[1:], found.counts) if found else (np.zeros(1), np.zeros(1, np.int64))
    return eventfile.histogram(tag, figures, limits, counts)


def _histograms(entries: Iterable[Entry]) -> list[bytes]:
    found = [histogram(f"weights/{entry.key}", entry) for entry in entries]
    return [one for one in found if one is not None]


def maps(record: Record) -> list[bytes]:
    """A mosaic of all channels of every layer: `maps/LAYER`, and of several images `maps of IMAGE/LAYER`."""
    names, found = names_of(record), []
    for entry in record.values():
        for image in range(len(entry.maps)):
            group = f"maps of {names[image]}" if len(names) > 1 else "maps"
            found.append(eventfile.image(f"{group}/{entry.key}", feature_mosaic(record, entry, image, channels=None)))
    return found


def write_graph(file: EventFile, model: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> str:
    """The graph of a network; "", or why there is none: not every network can be traced."""
    try:
        from torch.utils.tensorboard._pytorch_graph import graph
    except ImportError:
        return "no graph for TensorBoard: tensorboard is not installed; pip install 'layerscope[tensorboard]'"
    from layerscope.hooks import looking

    # torch prints the reason on its own as well, and warns of every Python branch that it cannot follow.
    with looking(model), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            definition = graph(model, inputs)[0].SerializeToString()  # type: ignore[no-untyped-call]
        except Exception as error:  # a network may raise anything
            said = " ".join(str(error).split())[:200]
            return f"no graph for TensorBoard: the network cannot be traced ({type(error).__name__}: {said})"
    file.graph(definition)
    return ""


def export(record: Record, logdir: str | os.PathLike[str]) -> Path:
    """Write what TensorBoard can show of a record: histograms, kernels, maps, images. Raises OutputError."""
    file = EventFile(logdir)
    with contextlib.closing(file):
        for name, picture in zip(names_of(record), record.pictures, strict=False):
            file.add(0, [eventfile.image(f"images/{name}", encode(Image.fromarray(picture.pixels)))])
        if record.kind == "weights":
            file.add(0, _histograms(record.values()))
            for entry in record.values():
                if entry.maps:
                    file.add(0, [eventfile.image(f"kernels/{entry.key}", kernel_mosaic(record, entry))])
        elif record.kind == "survey":  # its maps are the surroundings of the best examples
            from layerscope.views.examples import examples_sheet

            for entry in record.values():
                if entry.profile and entry.profile.examples:
                    sheet = examples_sheet(record, entry, _CHANNELS)
                    file.add(0, [eventfile.image(f"examples/{entry.key}", sheet)])
        else:
            file.add(0, maps(record))
    return Path(logdir)


def names_of(record: Record) -> list[str]:
    """One name an image, each a name of its own: images of two folders may be called the same."""
    given = [picture.name for picture in record.pictures]
    count = max([len(entry.maps) for entry in record.values()] + [len(given)])
    given += [str(image) for image in range(len(given), count)]
    before = [given[:image].count(name) for image, name in enumerate(given)]
    return [f"{name} ({times + 1})" if times else name for name, times in zip(given, before, strict=True)]
