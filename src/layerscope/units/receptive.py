"""Where a unit looks: its receptive field, exactly, and its effective receptive field, by the gradient.

The receptive field is found for any network by noting what it does to one input, operation by operation, and walking
back from the unit: each operation has a rule that says which elements of its inputs it needed. For plain chains of
windows the result equals the closed formula of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional
Neural Networks", Distill 2019, cut off at the edges of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from layerscope.errors import LayerscopeError
from layerscope.looks import Field
from layerscope.units.place import LayerCall, Place, arguments, run_to_layer
from layerscope.units.rules import needs_of
from layerscope.units.trace import Needs, Reads, Spot, Trace

__all__ = ["Traced", "effective_receptive_field", "receptive_field"]


def receptive_field(
    model: nn.Module,
    layer: str,
    position: Sequence[int],
    x: Any,
    channel: int | None = None,
    of: int = 0,
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
        masks, coarse = _walk(self._trace, self._unit, index, self._spots)
        if not all(bool(mask.all()) for mask in masks) and not self._holds(masks, index):
            masks, coarse = [torch.ones_like(mask) for mask in masks], {*coarse, "something that torch does not see"}
        seen = masks[of]
        axes = (0, 1) if seen.dim() > 2 else (0,)  # images and channels
        return Field(self.layer, tuple(position), seen.any(dim=axes).numpy(), tuple(sorted(coarse)))

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


def _walk(
    trace: Trace, unit: Spot | None, index: tuple[int | slice, ...], inputs: list[Spot | None]
) -> tuple[list[Tensor], set[str]]:
    """Back from the unit to the inputs: one mask an input, and the operations that had no rule."""
    if trace.lost or unit is None:
        return [torch.ones(spot.shape if spot else (1,), dtype=torch.bool) for spot in inputs], {
            "a tensor without storage"
        }
    needs, coarse = Needs(), set[str]()
    wanted = torch.zeros(unit.shape, dtype=torch.bool)
    wanted[index] = True
    needs.add(unit, wanted)
    for op in reversed(trace.ops):
        masks = [needs.take(spot) for spot in op.outputs]
        if op.read:
            for spot in op.spots:
                needs.add(spot, None)
        elif any(mask is not None for mask in masks):
            found, known = needs_of(op, masks)
            if not known:
                coarse.add(op.name)
            for spot, mask in found:
                needs.add(spot, mask)
    return [needs.look(spot) for spot in inputs if spot], coarse


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
