"""What a watched training writes to TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from layerscope.errors import OutputError
from layerscope.records.record import Record
from layerscope.views import eventfile
from layerscope.views.eventfile import EventFile
from layerscope.views.png import feature_mosaic
from layerscope.views.sheet import encode
from layerscope.views.tensorboard import histogram, names_of, write_graph

__all__ = ["Board", "due"]

#: so many steps with histograms, and with pictures, before they become rarer
HISTOGRAMS, PICTURES = 100, 20
#: mosaics a step, and channels on each: drawing all of ResNet-34's takes as long as three steps of training
MOSAICS, CHANNELS = 8, 128


def due(number: int, many: int) -> bool:
    """Whether the `number`th chosen step (from 0) is written: all of `many`, then every second, fourth, ...

    So that `many` / 2 are added whenever the training has become twice as long.
    """
    apart = 1
    while number >= many * apart:
        apart *= 2
    return number % apart == 0


class Board:
    """TensorBoard's event file. Tags have the number of the tensor in front, so that they are in the network's order.

    What cannot be written is said once; the next step is tried anew.
    """

    def __init__(self, logdir: str | os.PathLike[str], say: Callable[[str], None]) -> None:
        self.file, self.say = EventFile(logdir), say
        self.number = 0
        self.failed = False
        self._places: dict[str, str] = {}

    def graph(self, model: Any, example: Any) -> None:
        """The graph, once; why there is none is said."""
        if said := write_graph(self.file, model, example):
            self.say(said)

    def __call__(self, step: int, scalars: Mapping[str, float], _events: object, record: Record | None) -> None:
        """Write figures, each named after a tensor with its number, histograms and pictures, as a sink."""
        if record is not None:
            self._record(step, record)
        self._write(step, [eventfile.scalar(self._tag(name), value) for name, value in scalars.items()])

    def _record(self, step: int, record: Record) -> None:
        number = self.number
        self.number += 1
        self._number(record)
        values: list[bytes | None] = []
        if due(number, HISTOGRAMS):
            for entry in record.values():
                if entry.type == "gradient":
                    values.append(histogram(self._tag(f"gradients/{entry.key.removesuffix('/grad')}"), entry))
                elif entry.columns is None and entry.type != "update":
                    values.append(histogram(self._tag(f"weights/{entry.key}"), entry))
        if due(number, PICTURES):
            values += self._mosaics(record)
        self._write(step, [one for one in values if one is not None])

    def _mosaics(self, record: Record) -> list[bytes]:
        pictured = [entry for entry in record.values() if entry.maps and entry.maps[0].shape[1] > 1]
        kernels = [entry for entry in pictured if entry.type.startswith("Conv")] or pictured
        # Evenly over the depth, where there are too many.
        step = -(-len(kernels) // MOSAICS) or 1
        images = {
            self._tag(f"maps/{entry.key}"): feature_mosaic(record, entry, 0, channels=CHANNELS)
            for entry in kernels[::step]
        }
        if record.pictures and self.number == 1 and (name := names_of(record)[0]):
            images[f"probe/{name}"] = encode(Image.fromarray(record.pictures[0].pixels))
        return [eventfile.image(tag, png) for tag, png in images.items()]

    def _number(self, record: Record) -> None:
        if self._places:
            return
        layers: list[str] = []
        tensors: list[str] = []
        for entry in record.values():
            plain = entry.key.removesuffix("/grad").removesuffix("/update").replace("/batch", "")
            (tensors if entry.columns is None else layers).append(plain)
        for names in (dict.fromkeys(layers), dict.fromkeys(tensors)):
            width = len(str(len(names)))
            self._places |= {name: f"{at:0{width}}" for at, name in enumerate(names, 1)}

    def _tag(self, name: str) -> str:
        group, slash, rest = name.partition("/")
        place = self._places.get(rest)
        return f"{group}/{place} {rest}" if slash and place else name

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _write(self, step: int, values: Sequence[bytes]) -> None:
        if not values:
            return
        try:
            self.file.add(step, values)
        except OutputError as error:
            if not self.failed:
                self.say(f"nothing for TensorBoard of this step: {error}. The training goes on")
            self.failed = True
