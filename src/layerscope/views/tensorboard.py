"""TensorBoard: statistics, histograms and pictures of records and entries, and the graph of a network.

Histograms are written from the exact statistics, not made again from the values: TensorBoard's own raise on
NaN, on empty tensors and on values near 1e30, and take twenty times as long. TensorBoard is needed to look at the
files and for the graph, not to write the rest.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from layerscope.records.record import Entry, Record
from layerscope.stats.table import shown
from layerscope.text import printable
from layerscope.views import eventfile
from layerscope.views.eventfile import EventFile
from layerscope.views.format import picture_of
from layerscope.views.png import feature_mosaic, kernel_mosaic
from layerscope.views.summary import rows

if TYPE_CHECKING:
    from torch import Tensor, nn

#: channels of a survey whose best examples are drawn, one sheet a layer
_CHANNELS = 32
#: signs that are not surely text in Markdown
_MEANING = re.compile(r"[^A-Za-z0-9 .,:/+-]")

__all__ = ["EventFile", "export", "histogram", "maps", "names_of", "values", "write_graph"]


def histogram(tag: str, entry: Entry) -> bytes | None:
    """The histogram of a tensor, empty where no value is finite; None where there is no distribution."""
    if entry.total is None:
        return None
    count, mean, m2, low, high = (float(field.item()) for field in entry.total[:5])
    bins = entry.histogram
    # TensorBoard takes them for the ends of the outermost bins, and cannot draw NaN.
    ends = (low, high) if bins else (0.0, 0.0)
    figures = (*ends, count, count * mean, m2 + count * mean * mean)
    limits, counts = (bins.edges[1:], bins.counts) if bins else (np.zeros(1), np.zeros(1, np.int64))
    return eventfile.histogram(tag, figures, limits, counts)


def write_graph(file: EventFile, model: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> str:
    """The graph of a network; "", or why there is none: not every network can be traced."""
    try:
        from torch.utils.tensorboard._pytorch_graph import graph
    except ImportError:
        return "no graph for TensorBoard: tensorboard is not installed; pip install 'layerscope[tensorboard]'"
    from layerscope.activations.hooks import looking

    # torch prints the reason on its own as well, and warns of every Python branch that it cannot follow.
    with looking(model), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            definition = graph(model, inputs)[0].SerializeToString()  # type: ignore[no-untyped-call]
        except Exception as error:  # a network may raise anything
            line = " ".join(str(error).split())[:200]
            return f"no graph for TensorBoard: the network cannot be traced ({type(error).__name__}: {line})"
    file.graph(definition)
    return ""


def export(record: Record, logdir: str | os.PathLike[str]) -> Path:
    """Write what TensorBoard can show: statistics, histograms, kernels, maps, images. Raises OutputError."""
    with contextlib.closing(EventFile(logdir)) as file:
        for value in values(record):
            file.add(0, [value])
    return Path(logdir)


def values(record: Record) -> Iterator[bytes]:
    """The values of `export`, one by one."""
    for image, name in enumerate(names_of(record)[: len(record.pictures)]):
        yield eventfile.image(f"images/{name}", picture_of(record, image))
    yield eventfile.text("statistics", _markdown(rows(record, shown())))
    yield from _PICTURES[record.kind](record)


def _markdown(table: list[dict[str, str]]) -> str:
    """A table. Whatever could mean something in Markdown is written by its code point: names come from files."""
    names = dict.fromkeys(name for row in table for name in row)
    lines = [list(names), ["---"] * len(names), *([row.get(name, "") for name in names] for row in table)]
    escaped = ([_MEANING.sub(lambda sign: f"&#{ord(sign[0])};", printable(cell)) for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def maps(record: Record) -> Iterator[bytes]:
    """A mosaic of all channels of every layer: `maps/LAYER`, and of several images `maps of IMAGE/LAYER`."""
    names = names_of(record)
    for entry in record.values():
        for image in range(len(entry.maps)):
            group = f"maps of {names[image]}" if len(names) > 1 else "maps"
            yield eventfile.image(f"{group}/{entry.key}", feature_mosaic(record, entry, image, channels=None))


def _weights(record: Record) -> Iterator[bytes]:
    for entry in record.values():
        if distribution := histogram(f"weights/{entry.key}", entry):
            yield distribution
        if entry.maps:
            yield eventfile.image(f"kernels/{entry.key}", kernel_mosaic(record, entry))


def _examples(record: Record) -> Iterator[bytes]:
    """The best examples: the maps of a survey are what surrounds them."""
    from layerscope.views.examples import examples_sheet

    for entry in record.values():
        if entry.profile and entry.profile.examples:
            yield eventfile.image(f"examples/{entry.key}", examples_sheet(record, entry, _CHANNELS))


_PICTURES = {"features": maps, "weights": _weights, "compare": maps, "survey": _examples}


def names_of(record: Record) -> list[str]:
    """One name an image, each a name of its own: images of two folders may be called the same."""
    names = [picture.name for picture in record.pictures]
    count = max([len(entry.maps) for entry in record.values()] + [len(names)])
    names += [str(image) for image in range(len(names), count)]
    before = [names[:image].count(name) for image, name in enumerate(names)]
    return [f"{name} ({times + 1})" if times else name for name, times in zip(names, before, strict=True)]
