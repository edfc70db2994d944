"""TensorBoard: histograms and pictures from records and entries, and the graph of a network.

Histograms are written from the exact statistics, not made again from the values: TensorBoard's own raise on
NaN, on empty tensors and on values near 1e30, and take twenty times as long.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from layerscope.errors import OutputError, writing
from layerscope.record import Entry, Record
from layerscope.views.png import feature_mosaic, kernel_mosaic
from layerscope.views.sheet import encode

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["export", "open_writer", "write_graph", "write_histograms", "write_maps"]


def open_writer(logdir: str | os.PathLike[str]) -> SummaryWriter:
    """A writer of a new event file in a folder, which is made if need be. Close it: it has a thread.

    Raises OutputError where nothing can be written, or tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OutputError(
            f"{os.fspath(logdir)}: tensorboard is not installed; pip install 'layerscope[tensorboard]'"
        ) from error
    with writing(logdir):
        return SummaryWriter(os.fspath(logdir))


def write_histograms(writer: SummaryWriter, entries: Iterable[Entry], step: int) -> None:
    """The histogram of every tensor that has one, as `weights/NAME`; empty where no value is finite."""
    for entry in entries:
        if entry.total is None:
            continue
        one = {name: float(getattr(entry.total, name).item()) for name in ("count", "mean", "m2", "min", "max")}
        found = entry.histogram
        writer.add_histogram_raw(
            f"weights/{entry.key}",
            # TensorBoard takes them for the ends of the outermost bins, and cannot draw NaN.
            min=one["min"] if found else 0.0,
            max=one["max"] if found else 0.0,
            num=one["count"],
            sum=one["count"] * one["mean"],
            sum_squares=one["m2"] + one["count"] * one["mean"] ** 2,
            bucket_limits=found.edges[1:].tolist() if found else [0.0],  # right ends
            bucket_counts=found.counts.tolist() if found else [0],
            global_step=step,
        )


def write_maps(writer: SummaryWriter, record: Record, step: int) -> None:
    """A mosaic of all channels of every layer: `maps/LAYER`, and of several images `maps of IMAGE/LAYER`."""
    names = _names(record)
    for entry in record:
        for image in range(len(entry.maps)):
            group = f"maps of {names[image]}" if len(names) > 1 else "maps"
            _write_png(writer, f"{group}/{entry.key}", feature_mosaic(record, entry, image, channels=None), step)


def write_graph(writer: SummaryWriter, model: nn.Module, images: Tensor) -> str:
    """The graph of a network; "", or why there is none: not every network can be traced."""
    from layerscope.hooks import looking

    # torch prints the reason on its own as well, and warns of every Python branch that it cannot follow.
    with looking(model), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            writer.add_graph(model, images)
        except Exception as error:  # a network may raise anything
            said = " ".join(str(error).split())[:200]
            return f"no graph for TensorBoard: the network cannot be traced ({type(error).__name__}: {said})"
    return ""


def export(record: Record, logdir: str | os.PathLike[str]) -> Path:
    """Write what TensorBoard can show of a record: histograms, kernels, maps, images. Raises OutputError."""
    writer = open_writer(logdir)
    with contextlib.closing(writer), writing(logdir):
        for name, picture in zip(_names(record), record.pictures, strict=False):
            _write_png(writer, f"images/{name}", encode(Image.fromarray(picture.pixels)), 0)
        if record.kind == "weights":
            write_histograms(writer, record, 0)
            for entry in record:
                if entry.maps:
                    _write_png(writer, f"kernels/{entry.key}", kernel_mosaic(record, entry), 0)
        else:
            write_maps(writer, record, 0)
    return Path(logdir)


def _names(record: Record) -> list[str]:
    """One name an image, each a name of its own: images of two folders may be called the same."""
    given = [picture.name for picture in record.pictures]
    count = max([len(entry.maps) for entry in record] + [len(given)])
    given += [str(image) for image in range(len(given), count)]
    before = [given[:image].count(name) for image, name in enumerate(given)]
    return [f"{name} ({times + 1})" if times else name for name, times in zip(given, before, strict=True)]


def _write_png(writer: SummaryWriter, tag: str, png: bytes, step: int) -> None:
    """A PNG as it is: `add_image` would have it decoded and make an RGB picture of four times the size."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = struct.unpack(">II", png[16:24])  # of the header, which a PNG begins with
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    assert writer.file_writer  # open
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
