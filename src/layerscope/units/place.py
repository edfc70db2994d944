"""Finding a unit: the call of a layer while the network runs, and the axes on which its units lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from layerscope.errors import ForwardError, LayerscopeError, NoMatch, UsageError
from layerscope.hooks import tensors_in
from layerscope.layouts import Layouts, Plan
from layerscope.sites import Site
from layerscope.text import nearest

__all__ = ["Place", "Seen", "arguments", "modules_of", "named", "reach", "visiting"]

#: key of a call of a layer, module, output, place -> what goes on in place of the output, or None

Visit = Callable[[str, nn.Module, Tensor, "Place"], Tensor | None]


@dataclass(frozen=True)
class Place:
    """On which axes the units of an output of this shape lie: channels, and positions in space.

    `skip`: tokens in front that have no place in the image (a class token); `grid`: the sizes of the positions.
    """

    layout: str
    shape: tuple[int, ...]
    skip: int = 0
    grid: tuple[int, ...] = ()

    @classmethod
    def of(cls, plan: Plan, shape: tuple[int, ...]) -> Place:
        """The place of an output of this shape, read by this plan; tokens lie on the plan's grid if it has one."""
        sizes = tuple(size for letter, size in zip(plan.layout, shape, strict=False) if letter not in "NC")
        if plan.layout == "NLC" and plan.grid[0] > 1:
            return cls("NLC", shape, plan.skip, plan.grid)
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
            where = [self.skip + position[0] * self.grid[1] + position[1]]
        places = iter(where)
        which = slice(None) if channel is None else channel
        return tuple(0 if letter == "N" else which if letter == "C" else next(places) for letter in self.layout)

    def map(self, output: Tensor) -> Tensor:
        """The output as (N, C, *grid); gradients flow through."""
        if "C" not in self.layout:
            return output.unsqueeze(1)
        moved = output.movedim(self.layout.index("C"), 1)  # (N, C, ...)
        if self.layout == "NLC" and len(self.grid) == 2:
            return moved[:, :, self.skip :].reshape(*moved.shape[:2], *self.grid)  # (N, C, h, w)
        return moved

    def unmap(self, moved: Tensor, output: Tensor) -> Tensor:
        """The inverse of `map`; tokens without a place are taken from `output`."""
        if self.layout == "NLC" and len(self.grid) == 2:
            tokens = moved.flatten(2).movedim(1, 2)  # (N, L, C)
            return torch.cat([output[:, : self.skip], tokens], 1)
        return moved.movedim(1, self.layout.index("C")) if "C" in self.layout else moved.squeeze(1)


@dataclass(frozen=True)
class Seen:
    """A call of a layer: the module, where its units lie, its first input as it came in, and what was made of it."""

    module: nn.Module
    place: Place
    input: Tensor | None
    result: Any


class _Stop(BaseException):
    """The layer has run. No Exception: a network may catch those in its own forward."""


def arguments(x: Any) -> tuple[Any, ...]:
    """What to call a network with: copies, since a network may write into its input.

    A tensor is one argument, a tuple of tensors or lists several; a tuple of whole numbers is the shape of zeros.
    """
    if isinstance(x, tuple | list) and x and all(isinstance(size, int) for size in x):
        return (torch.zeros(*x),)
    given = x if isinstance(x, tuple) else (x,)
    return tuple(tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), one) for one in given)


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every module below the root by its path; a root without children by the name of its type."""
    found = {path: module for path, module in model.named_modules() if path} or {type(model).__name__: model}
    # The insides of TorchScript take no hooks.
    return {path: module for path, module in found.items() if not isinstance(module, torch.jit.ScriptModule)}


def _split(model: nn.Module, layer: str) -> tuple[str, str, int]:
    """`layer1.0.relu:1` -> path of the module, what follows it (`[1]` for a second output), call."""
    name, colon, call = layer.rpartition(":")
    if not (colon and call.isdigit()):
        name, call = layer, "0"
    paths = list(modules_of(model))
    path = max((path for path in paths if name == path or name.startswith(f"{path}[")), key=len, default=None)
    if path is None:
        raise NoMatch(f"no layer {name!r}{nearest(name, paths)}")
    return path, name[len(path) :], int(call)


def named(model: nn.Module, layer: str) -> str:
    """The key of a layer's call as `visiting` gives it: `relu` for `relu:0`. Raises NoMatch with the nearest paths."""
    path, part, call = _split(model, layer)
    return Site(path + part, call).key


@contextmanager
def visiting(model: nn.Module, visit: Visit) -> Iterator[None]:
    """Call `visit(key, module, output, place)` for every output of every layer while the block runs.

    What `visit` returns goes on in place of the output; None leaves it as it is.
    """
    layouts, calls = Layouts(), Counter[str]()

    def hook_for(path: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, _given: Any, output: Any) -> Any:
            call, given = calls[path], output
            calls[path] += 1
            for part, tensor in list(tensors_in(output)):
                shape = tuple(tensor.shape)
                place = Place.of(layouts.plan(module, shape) if shape else Plan(""), shape)
                new = visit(Site(path + part, call).key, module, tensor, place)
                if new is not None:
                    output = _swap(output, tensor, new)
            return None if output is given else output

        return hook

    with ExitStack() as stack:
        for path, module in modules_of(model).items():
            stack.callback(module.register_forward_hook(hook_for(path)).remove)
        yield


def _swap(output: Any, old: Tensor, new: Tensor) -> Any:
    if isinstance(output, Tensor):
        return new
    return tree_map_only(Tensor, lambda tensor: new if tensor is old else tensor, output)


def reach(
    model: nn.Module,
    layer: str,
    args: tuple[Any, ...],
    at: Callable[[Tensor, Place], Any],
    keep_input: bool = False,
) -> Seen:
    """Run the network until `layer` has run, hand its output to `at` the moment it is there, and stop.

    The network is run in the mode that it is in; see `hooks.looking`.
    Raises NoMatch for a layer that is not there or did not run so often, ForwardError if the network raises first.
    """
    path, _, call = _split(model, layer)
    wanted = named(model, layer)
    seen: list[Seen] = []
    inputs: list[Tensor | None] = []  # one a call
    ran: list[str] = []

    def before(_module: nn.Module, given: tuple[Any, ...], more: dict[str, Any]) -> None:
        first = next(tensors_in([*given, *more.values()]), None)
        # A copy: the layer itself may write into it.
        inputs.append(first[1].detach().clone() if first and len(inputs) == call else None)

    def visit(key: str, module: nn.Module, output: Tensor, place: Place) -> None:
        ran.append(key)
        if key == wanted:
            seen.append(Seen(module, place, inputs[call] if inputs else None, at(output, place)))
            raise _Stop

    with ExitStack() as stack:
        if keep_input:
            stack.callback(modules_of(model)[path].register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.enter_context(visiting(model, visit))
        try:
            model(*args)
        except _Stop:
            pass
        except LayerscopeError:
            raise
        except Exception as error:  # a network may raise anything
            said = " ".join(str(error).split())[:300] or "no message"
            raise ForwardError(
                f"{type(model).__name__}: raised {type(error).__name__} before {layer} had run: {said}; check the input"
            ) from error
    if not seen:
        raise NoMatch(f"{layer}: {_absence(path, ran)}")
    return seen[0]


def _absence(path: str, ran: Sequence[str]) -> str:
    own = [key for key in ran if key == path or key.startswith((f"{path}:", f"{path}[", f"{path}."))]
    if not own:
        return "never ran on this input; ask for another layer"
    return f"is not there; {path} gave {', '.join(own[:4])}{', ...' if len(own) > 4 else ''}"
