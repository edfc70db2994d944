"""Receptive fields of all units of all layers at once, as straight lines: unit y sees low + step*y up to high + step*y.

`receptive_field` walks back from one unit. Here one pass is noted, and the lines are handed on from operation to
operation by the same rules: each is asked what one unit needs, and windows follow the closed formula of Araujo, Norris
and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from layerscope.hooks import looking, observing
from layerscope.modules import Table
from layerscope.profiles import Line
from layerscope.sites import Site
from layerscope.units.rules import RULES, convolution, max_pool, needs_of, window
from layerscope.units.trace import Op, Reads, Spot, Trace

__all__ = ["geometry"]


class _Map(NamedTuple):
    """What the units of a map see of the image along its two axes; how many they are, and how far apart in memory."""

    lines: tuple[Line, Line]
    size: tuple[int, ...]
    stride: tuple[int, ...]


def geometry(model: nn.Module, x: Tensor) -> dict[str, tuple[Line, Line]]:
    """Rows and columns that the units of every layer see, by the key of its call. x: the input (1, C, H, W).

    Never too small; at the lower and right edge a pixel that no unit sees may be counted in. Layers without a map of
    two axes, and those behind an operation whose units do not lie on lines, are not listed. One forward pass.
    """
    x = x.detach().clone()
    trace, table = Trace([x]), Table(model)
    source = trace.spot(x)
    if source is None:
        return {}
    outputs: list[tuple[str, Spot, int]] = []

    def on_output(site: Site, _module: nn.Module, output: Tensor) -> None:
        spot = trace.spot(output)
        if spot is not None and output.dim() == 4:
            outputs.append((site.key, spot, len(trace.ops)))

    with looking(model), trace, Reads(trace), observing(table, table.observable, on_output):
        table.root(x)
    maps = _Maps(source)
    found = {key: maps.after(trace.ops[:count], spot) for key, spot, count in outputs if not trace.lost}
    return {key: seen.lines for key, seen in found.items() if seen is not None}


class _Maps:
    """The map of every tensor, by its storage: a view of it has the same."""

    def __init__(self, source: Spot) -> None:
        size = height, width = source.shape[-2:]
        self._whole = _Map((Line(-height, height, 0, height), Line(-width, width, 0, width)), (), ())
        image = _Map((Line(0, 1, 1, height), Line(0, 1, 1, width)), size, source.stride[-2:])
        self._found: dict[int, _Map | None] = {source.storage: image}
        self._done = 0

    def _of(self, spot: Spot) -> _Map | None:
        seen = self._found.get(spot.storage)
        # What sees everything does so whatever its axes mean.
        return seen if seen == self._whole or (seen and _axes(spot, seen)) else None

    def after(self, ops: list[Op], spot: Spot) -> _Map | None:
        """The map of a tensor after these operations, which continue those of the call before."""
        for op in ops[self._done :]:
            outputs = {output.storage: at for at, output in enumerate(op.outputs) if 0 not in output.shape}
            found = {storage: self._through(op, at) for storage, at in outputs.items()}
            for storage, seen in found.items():
                before = self._found.get(storage)
                # What is written in place need not be written everywhere.
                self._found[storage] = _union([seen, before]) if seen and before else seen
        self._done = len(ops)
        return self._of(spot)

    def _through(self, op: Op, at: int) -> _Map | None:
        spots, output = op.spots, op.outputs[at]
        maps = [seen for spot in spots if (seen := self._of(spot))]
        if self._whole in maps:  # with what sees all of the image
            return self._whole
        if op.read or not maps or len(maps) < len(spots):
            return None
        if RULES.get(op.name) in (convolution, max_pool) or op.name == "avg_pool2d":
            return _slid(op, maps[0], output) if len(maps) == 1 and not op.arg("transposed") else None
        alike = len(output.shape) == len(spots[0].shape)
        along = _axes(spots[0], maps[0]) if alike else list(range(len(output.shape)))
        size, stride = tuple(output.shape[axis] for axis in along), tuple(output.stride[axis] for axis in along)
        # Not the unit in the middle: what is turned round would leave it where it is.
        unit = [number // 3 if alike else 0 for number in size]
        boxes = _needed(op, at, dict(zip(along, unit, strict=True)), maps)
        if boxes and alike and all(box == [(place, place + 1) for place in unit] for box in boxes):
            return _union([seen._replace(stride=stride) for seen in maps]) if maps[0].size == size else None
        every = [[(0, number) for number in seen.size] for seen in maps]
        return self._whole if any(box in every for box in boxes) else None


def _axes(spot: Spot, seen: _Map) -> list[int]:
    """Along which axes of this view of a storage the units of its map lie; none where it is no view of them all."""
    found: list[int] = []
    for step in list(zip(seen.size, seen.stride, strict=True))[::-1]:
        own = zip(spot.shape, spot.stride, strict=True)
        found[:0] = [axis for axis, other in enumerate(own) if other == step and axis not in found][-1:]
    return found if len(found) == len(seen.size) else []


def _needed(op: Op, at: int, unit: dict[int, int], maps: list[_Map]) -> list[list[tuple[int, int]]]:
    """What the unit at these places of output `at` needs of each input, as a box of its map; [] where nobody knows."""
    wanted = torch.zeros(op.outputs[at].shape, dtype=torch.bool)
    wanted[tuple(unit.get(axis, slice(None)) for axis in range(wanted.dim()))] = True
    needs, known = needs_of(op, [wanted if number == at else None for number in range(len(op.outputs))])
    boxes = []
    for spot, seen in zip(op.spots, maps, strict=True):
        for mask in (mask for other, mask in needs if other is spot and known):
            mask = torch.ones(spot.shape, dtype=torch.bool) if mask is None else mask
            places = mask.movedim(_axes(spot, seen), (0, 1)).reshape(*seen.size, -1).any(2).nonzero()
            if len(places):
                low, high = places.aminmax(dim=0)
                boxes.append(list(zip(low.tolist(), (high + 1).tolist(), strict=True)))
    return boxes


def _union(maps: list[_Map]) -> _Map | None:
    """What the units of several maps see together; None where they are not equally many and equally far apart."""
    if len({(seen.size, *(line.step for line in seen.lines)) for seen in maps}) > 1:
        return None
    rows, columns = (
        replace(lines[0], low=min(line.low for line in lines), high=max(line.high for line in lines))
        for lines in zip(*(seen.lines for seen in maps), strict=True)
    )
    return maps[0]._replace(lines=(rows, columns))


def _slid(op: Op, seen: _Map, output: Spot) -> _Map | None:
    """The map of what windows see that slide over a map; None where they slide along other axes than two."""
    settings = window(op, 2)
    if len(settings[0]) != 2 or len(output.shape) < 3:
        return None
    lines = []
    for line, kernel, stride, padding, dilation in zip(seen.lines, *settings, strict=True):
        low, high = line.low - line.step * padding, line.high + line.step * ((kernel - 1) * dilation - padding)
        lines.append(Line(low, high, line.step * stride, line.whole))
    return _Map((lines[0], lines[1]), output.shape[-2:], output.stride[-2:])
