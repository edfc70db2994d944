"""Where a unit looks: its receptive field, exactly, and its effective receptive field, by the gradient.

The receptive field is found for any network by noting what it does to one input, operation by operation, and walking
back from the unit: each operation has a rule that says which elements of its inputs it needed. For plain chains of
windows the result equals the closed formula of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional
Neural Networks", Distill 2019, cut off at the edges of the image. By the same rules, and that formula, the fields of
all units of all layers are found at once, as straight lines: unit y sees low + step*y up to high + step*y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from layerscope.activations.hooks import looking, observing
from layerscope.activations.modules import Table
from layerscope.errors import LayerscopeError
from layerscope.records.profiles import Line
from layerscope.records.sites import Site
from layerscope.records.units import Field
from layerscope.units.place import LayerCall, Place, arguments, run_to_layer
from layerscope.units.rules import RULES, convolution, max_pool, needs_of, window
from layerscope.units.trace import Needs, Op, Reads, Spot, Trace

__all__ = ["Traced", "effective_receptive_field", "geometry", "receptive_field"]


def receptive_field(
    model: nn.Module, layer: str, position: Sequence[int], x: Any, channel: int | None = None, of: int = 0
) -> Field:
    """The pixels of the input that a unit of `layer` depends on, as a mask and a box.

    `layer`: a path, with `:1` for a second call and `[1]` for a second output. `position`: one number a spatial axis
    of its output: (y, x) for maps, for tokens on their grid too, () for vectors. `x`: the input of the network, batch
    first; a tuple of several, of which `of` is looked at; or a shape, for zeros. `channel`: all of them if None. The
    unit is that of image 0; pixels of any image and input channel count.

    Guaranteed: with any other values outside of the mask the network computes the same unit, bit for bit. This holds
    for every operation that torch runs and for values that the program reads (`if x.mean() > 0`, `.item()`,
    `.numpy()`): all that follows such a read depends on what was read. Operations without a rule are taken to depend
    on everything; they are named in `coarse`. A second pass with other values outside checks the promise, and the
    whole input is returned, with a word in `coarse`, if it is broken: by code that torch does not see, or on a GPU
    whose convolutions round with their neighbours (Winograd, FFT).

    The mask is structural: a weight that happens to be zero counts, and so does every value of a max pool's window.
    Where the network branches on values, the mask is that of the branch taken on `x`.
    Three forward passes up to the layer. Raises NoMatch, UsageError for a position that is not there, ForwardError.
    """
    return Traced(model, layer, x).field(position, channel, of)


class Traced:
    """A pass up to one layer, operation by operation: from there the field of any of its units takes one pass more.

    `call`: that of the layer on `x` where it is known already, with its output as the result, of a network that was run
    without being traced. Keeps that output, and of the operations what `Trace` keeps.
    """

    def __init__(self, model: nn.Module, layer: str, x: Any, call: LayerCall | None = None) -> None:
        self.model, self.layer, self.x, self.call = model, layer, x, call
        args = arguments(x)
        inputs = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        self._trace = Trace(inputs)
        self._spots = [self._trace.spot(tensor) for tensor in inputs]

        def at(output: Tensor, place: Place) -> tuple[Spot | None, Place]:
            return self._trace.spot(output), place

        self._unit, self.place = run_to_layer(model, layer, args, at, self._trace, Reads(self._trace)).result

    def field(self, position: Sequence[int], channel: int | None = None, of: int = 0) -> Field:
        """The field of one unit; see `receptive_field`."""
        index = self.place.index(channel, position)
        masks, coarse = self._walk(index)
        if not all(bool(mask.all()) for mask in masks) and not self._holds(masks, index):
            masks, coarse = [torch.ones_like(mask) for mask in masks], {*coarse, "something that torch does not see"}
        seen = masks[of]
        axes = (0, 1) if seen.dim() > 2 else (0,)  # images and channels
        return Field(self.layer, tuple(position), seen.any(dim=axes).numpy(), tuple(sorted(coarse)))

    def _walk(self, index: tuple[int | slice, ...]) -> tuple[list[Tensor], set[str]]:
        """Back from the unit to the inputs: one mask an input, and the operations that had no rule."""
        if self._trace.lost or self._unit is None:
            shapes = [spot.shape if spot else (1,) for spot in self._spots]
            return [torch.ones(shape, dtype=torch.bool) for shape in shapes], {"a tensor without storage"}
        needs, coarse = Needs(), set[str]()
        wanted = torch.zeros(self._unit.shape, dtype=torch.bool)
        wanted[index] = True
        needs.add(self._unit, wanted)
        for op in reversed(self._trace.ops):
            masks = [needs.take(spot) for spot in op.outputs]
            if all(mask is None for mask in masks) and not op.read:
                continue
            pairs, known = needs_of(op, masks)
            if not known:
                coarse.add(op.name)
            for spot, mask in pairs:
                needs.add(spot, mask)
        return [needs.look(spot) for spot in self._spots if spot], coarse

    def _holds(self, masks: list[Tensor], index: Any) -> bool:
        """Whether the unit is the same, bit for bit, with other values outside of the masks.

        The network is run plainly, without noting anything: torch takes other, fused ways then.
        """
        rest = iter(masks)
        generator = torch.Generator().manual_seed(0)

        def other(tensor: Tensor) -> Tensor:
            mask = next(rest).to(tensor.device)
            if not tensor.is_floating_point():
                return tensor
            noise = torch.randn(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)
            return torch.where(mask, tensor, noise * 3)

        if self.call is None:
            self.call = run_to_layer(self.model, self.layer, arguments(self.x), lambda output, _: output.clone())
        args = tree_map_only(Tensor, other, arguments(self.x))
        unit = run_to_layer(self.model, self.layer, args, lambda output, _: output[index].clone()).result
        return torch.equal(torch.nan_to_num(self.call.result[index]), torch.nan_to_num(unit))


def effective_receptive_field(
    model: nn.Module, layer: str, channel: int, position: Sequence[int], x: Any, of: int = 0
) -> NDArray[np.float32]:
    """How much each pixel moves the unit: |gradient| summed over the input channels, float32 (H, W).

    W. Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", NIPS 2016.
    The gradient is that of image 0. No gradient is left in the parameters, no flag is changed.
    Raises LayerscopeError where no gradient flows back, beside what `receptive_field` raises.
    """
    args = arguments(x)
    leaves = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
    leaf = leaves[of]
    if not leaf.is_floating_point():
        raise LayerscopeError(f"the input is {leaf.dtype}: gradients need floating-point values")
    leaf.requires_grad_()

    def at(output: Tensor, place: Place) -> Tensor:
        unit = output[place.index(channel, position)].sum()
        if not unit.requires_grad:
            raise LayerscopeError(f"{layer}: no gradient reaches the input; the network works without gradients")
        (gradient,) = torch.autograd.grad(unit, leaf, allow_unused=True)
        return torch.zeros_like(leaf) if gradient is None else gradient

    with torch.enable_grad():
        # A copy goes in: a network may write into its input, and a leaf forbids it.
        given = tree_map_only(Tensor, lambda tensor: tensor.clone(), args)
    gradient = run_to_layer(model, layer, given, at, torch.enable_grad()).result
    magnitude = gradient[0].abs().float()  # (C, H, W)
    return (magnitude.sum(0) if magnitude.dim() > 1 else magnitude).cpu().numpy()


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
            # At once: what is written in place is an input, too.
            self._found.update({storage: self._through(op, at) for storage, at in outputs.items()})
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
            return _union([seen._replace(stride=stride) for seen in maps])
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
