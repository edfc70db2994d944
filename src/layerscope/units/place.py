"""Finding a unit: the call of a layer while the network runs, and the axes on which its units lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.activations.hooks import OnInput, call, looking, observing
from layerscope.activations.layouts import Layouts, Plan
from layerscope.activations.modules import Table, copied, tensors_in
from layerscope.errors import NoMatch, UsageError
from layerscope.records.sites import Site
from layerscope.text import first_of

__all__ = ["LayerCall", "Place", "arguments", "placing", "run_to_layer"]

#: key of a call of a layer, module, output, place -> what goes on in place of the output where that is asked for
OnPlaced = Callable[[str, nn.Module, Tensor, "Place"], Any]


@dataclass(frozen=True)
class Place:
    """On which axes the units of an output of this shape lie: channels, and positions in space.

    `prefix_tokens`: tokens in front that have no place in the image (a class token). `grid`: sizes of the positions.
    """

    layout: str
    shape: tuple[int, ...]
    prefix_tokens: int = 0
    grid: tuple[int, ...] = ()

    @classmethod
    def of(cls, plan: Plan, shape: tuple[int, ...]) -> Place:
        """The place of an output of this shape, read by this plan; tokens lie on the plan's grid if it has one."""
        sizes = tuple(size for letter, size in zip(plan.layout, shape, strict=False) if letter not in "NC")
        if plan.layout == "NLC" and plan.grid[0] > 1:
            return cls("NLC", shape, plan.prefix_tokens, plan.grid)
        return cls(plan.layout, shape, 0, sizes)

    @property
    def channels(self) -> int:
        """Number of channels; 1 where the layout has none."""
        return self.shape[self.layout.index("C")] if "C" in self.layout else 1

    def index(self, channel: int | None, position: Sequence[int]) -> tuple[int | slice, ...]:
        """The index of a unit in the output, of image 0; all channels for None. Raises UsageError, with the range."""
        if channel is not None and not 0 <= channel < self.channels:
            raise UsageError(f"channel {channel}: the layer has channels 0 to {self.channels - 1}")
        fits = len(position) == len(self.grid) and all(
            0 <= at < size for at, size in zip(position, self.grid, strict=True)
        )
        if not fits:
            ranges = ", ".join(f"0 to {size - 1}" for size in self.grid)
            want = f"give {len(self.grid)} numbers: {ranges}" if self.grid else "a unit of this layer has none"
            raise UsageError(f"position {', '.join(map(str, position)) or 'none'}: {want}")
        where = list(position)
        if self.layout == "NLC" and len(self.grid) == 2:
            where = [self.prefix_tokens + position[0] * self.grid[1] + position[1]]
        places = iter(where)
        which = slice(None) if channel is None else channel
        return tuple(0 if letter == "N" else which if letter == "C" else next(places) for letter in self.layout)

    def map(self, output: Tensor) -> Tensor:
        """The output as (N, C, *grid); gradients flow through."""
        if "C" not in self.layout:
            return output.unsqueeze(1)
        moved = output.movedim(self.layout.index("C"), 1)  # (N, C, ...)
        if self.layout == "NLC" and len(self.grid) == 2:
            return moved[:, :, self.prefix_tokens :].reshape(*moved.shape[:2], *self.grid)  # (N, C, h, w)
        return moved

    def unmap(self, moved: Tensor, output: Tensor) -> Tensor:
        """The inverse of `map`; tokens without a place are taken from `output`."""
        if self.layout == "NLC" and len(self.grid) == 2:
            tokens = moved.flatten(2).movedim(1, 2)  # (N, L, C)
            return torch.cat([output[:, : self.prefix_tokens], tokens], 1)
        return moved.movedim(1, self.layout.index("C")) if "C" in self.layout else moved.squeeze(1)


@dataclass(frozen=True)
class LayerCall:
    """A call of a layer: the module, where its units lie, its first input as it came in, and what was made of it."""

    module: nn.Module
    place: Place
    input: Tensor | None
    result: Any


def arguments(x: Any) -> tuple[Any, ...]:
    """What to call a network with: copies, since a network may write into its input.

    A tensor is one argument, a tuple of tensors or lists several; a tuple of whole numbers is the shape of zeros.
    """
    if isinstance(x, tuple | list) and x and all(isinstance(size, int) for size in x):
        return (torch.zeros(*x),)
    return copied(x if isinstance(x, tuple) else (x,))


@contextmanager
def placing(
    table: Table,
    paths: Iterable[str],
    on_output: OnPlaced,
    stop_after: Counter[str] | None = None,
    *,
    replacing: bool = False,
    on_input: OnInput | None = None,
) -> Iterator[None]:
    """`observing`, where `on_output(key, module, output, place)` is told where the units of an output lie, too."""
    layouts = Layouts()

    def placed(site: Site, module: nn.Module, tensor: Tensor) -> Any:
        shape = tuple(tensor.shape)
        plan = layouts.plan(module, shape) if shape else Plan("")
        return on_output(site.key, module, tensor, Place.of(plan, shape))

    with observing(table, paths, placed, stop_after, replacing=replacing, on_shape=layouts.plan, on_input=on_input):
        yield


def run_to_layer(
    model: nn.Module,
    layer: str,
    args: tuple[Any, ...],
    at: Callable[[Tensor, Place], Any],
    *modes: AbstractContextManager[Any],
    keep_input: bool = False,
) -> LayerCall:
    """Run the network until `layer` has run, hand its output to `at` the moment it is there, and stop.

    It runs in evaluation mode without gradients, and in `modes`; see `hooks.looking`.
    Raises NoMatch for a layer that is not there or did not run so often, ForwardError if the network raises first.
    """
    table = Table(model)
    path, wanted = table.resolve(layer)
    calls: list[LayerCall] = []
    inputs: list[Tensor] = []
    ran: list[str] = []

    def on_input(_path: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next(tensors_in([*args, *kwargs.values()]), None)
        # A copy: the layer itself may write into it. Of the last call, which is the one.
        inputs[:] = [first[1].detach().clone()] if first else []

    def on_output(key: str, module: nn.Module, output: Tensor, place: Place) -> None:
        ran.append(key)
        if key == wanted.key:
            calls.append(LayerCall(module, place, inputs[0] if inputs else None, at(output, place)))

    limit = Counter({path: wanted.call + 1})
    with looking(model), ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        stack.enter_context(placing(table, [path], on_output, limit, on_input=on_input if keep_input else None))
        call(table.root, args, f"{type(table.root).__name__} up to {layer}", args[0] if len(args) == 1 else args)
    if calls:
        return calls[0]
    if ran:
        raise NoMatch(f"{layer}: is not there; {path} gave {first_of(ran, 4)}")
    why = table.why_silent(path)
    raise NoMatch(f"{layer}: never ran on this input{why and f' ({why})'}; ask for another layer")
