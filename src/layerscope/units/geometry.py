"""Receptive fields of all units of all layers at once, as straight lines: unit y sees low + step*y to high + step*y.

`receptive_field` walks back from one unit. Here one pass is noted, and for each layer the walk starts at four units of
the diagonal. That is exact for what slides over the image with the same step everywhere (convolutions, pools, patches)
and where the field is the whole image; a layer that treats rows unequally gets the line through its corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.hooks import looking
from layerscope.profiles import Line
from layerscope.units.place import Place, visiting
from layerscope.units.receptive import walk
from layerscope.units.trace import Reads, Spot, Trace

__all__ = ["geometry"]


@dataclass(frozen=True)
class _Output:
    """Where a layer's output lies, and how many operations had been noted when it was there."""

    spot: Spot
    place: Place
    ops: int


def geometry(model: nn.Module, x: Tensor) -> dict[str, tuple[Line, Line]]:
    """Rows and columns that the units of every layer see, by the key of its call. x: the input (1, C, H, W).

    Layers without a map of two axes are not listed: their units see whatever there is. One forward pass and up to
    four walks a layer; a layer that works element by element shares the lines of the one before.
    """
    x = x.detach().clone()
    trace = Trace([x])
    source = trace.spot(x)
    found: dict[str, _Output] = {}

    def visit(key: str, _module: nn.Module, output: Tensor, place: Place) -> None:
        spot = trace.spot(output)
        if spot is not None and len(place.grid) == 2:
            found[key] = _Output(spot, place, len(trace.ops))

    with looking(model), trace, Reads(trace), visiting(model, visit):
        model(x)
    if trace.lost or source is None:
        return {}
    lines: dict[str, tuple[Line, Line]] = {}
    done: list[tuple[_Output, tuple[Line, Line]]] = []
    for key, output in found.items():
        twin = next((line for other, line in reversed(done) if _same(trace, other, output)), None)
        lines[key] = twin or _lines(trace, output, source)
        done.append((output, lines[key]))
    return lines


#: operations whose output at a place depends on nothing but their input at that place
_ELEMENTWISE = {"relu", "relu_", "hardtanh", "hardtanh_", "native_batch_norm", "cudnn_batch_norm", "silu", "silu_",
                "gelu", "sigmoid", "hardswish", "hardswish_", "leaky_relu", "leaky_relu_", "elu", "elu_",
                "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "tanh"}  # fmt: skip


def _same(trace: Trace, earlier: _Output, later: _Output) -> bool:
    """Whether `later` was made of `earlier` by one operation that works element by element."""
    between = trace.ops[earlier.ops : later.ops]
    if earlier.spot.shape != later.spot.shape:
        return False
    if not between:
        return earlier.spot.storage == later.spot.storage
    only = between[0]
    return (
        len(between) == 1
        and only.name in _ELEMENTWISE
        and [spot.storage for spot in only.spots] == [earlier.spot.storage]
        and later.spot.storage in {spot.storage for spot in only.outputs}
    )


def _lines(trace: Trace, output: _Output, source: Spot) -> tuple[Line, Line]:
    height, width = output.place.grid

    def box(y: int, x: int) -> Any:
        masks, _ = walk(trace, output.spot, output.place.index(None, (y, x)), [source])
        seen = masks[0].any(0).any(0)  # (H, W)
        return [_ends(seen.any(1)), _ends(seen.any(0))]

    first = box(0, 0)
    whole = source.shape[-2:]
    if all(ends == (0, size) for ends, size in zip(first, whole, strict=True)):
        rows, columns = (Line(-size, size, 0, size) for size in whole)
        return rows, columns
    last = box(height - 1, width - 1)
    near = [box(min(1, height - 1), min(1, width - 1)), box(max(0, height - 2), max(0, width - 2))]
    rows, columns = (
        _line(first[axis], last[axis], near[0][axis], near[1][axis], units, whole[axis])
        for axis, units in enumerate((height, width))
    )
    return rows, columns


def _ends(mask: Tensor) -> tuple[int, int]:
    seen = torch.nonzero(mask).flatten()
    return (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)


Ends = tuple[int, int]


def _line(first: Ends, last: Ends, second: Ends, before: Ends, units: int, whole: int) -> Line:
    """From the fields of the first, last, second and last but one unit.

    The upper end of the first and the lower end of the last are not cut off at the image. Where those of their
    neighbours are, any step will do that reaches the edge.
    """
    if second[1] < whole:
        step = second[1] - first[1]
    elif before[0] > 0:
        step = last[0] - before[0]
    else:
        step = max(whole - first[1], last[0])
    return Line(last[0] - step * (units - 1), first[1], step, whole)
