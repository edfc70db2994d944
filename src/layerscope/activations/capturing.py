"""`capture`: the outputs of chosen layers as tensors, and what went in, and the gradients that came back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, overload

from torch import Tensor, nn

from layerscope.activations.hooks import call, observing
from layerscope.activations.modules import LayerLike, Layers, Selection, copied, is_layers, select
from layerscope.errors import UsageError
from layerscope.records.sites import Site

__all__ = ["Captured", "capture"]


class Captured(dict[str, Tensor]):
    """The outputs of layers by path, with `:1`, `:2`, ... for later calls of a module and `[1]` for a second output.

    A tied module has its first path as key, and is found under the others as well. `inputs`: by the key of the call, a
    copy of what the layer was given, a tuple where that is more than one argument. `gradients`: by the key of the
    output, the gradient of what `backward()` was called on, of the output's shape; summed up over several calls of it.
    """

    def __init__(self, aliases: dict[str, str]) -> None:
        self.inputs: dict[str, Any] = {}
        self.gradients: dict[str, Tensor] = {}
        self._aliases = aliases

    def __missing__(self, key: str) -> Tensor:
        if key in self._aliases:
            return self[self._aliases[key]]
        raise KeyError(key)


@overload
def capture(
    model: nn.Module,
    x: LayerLike | Sequence[LayerLike] | None = None,
    *,
    layers: Layers = "*",
    inputs: bool = False,
    gradients: bool = False,
) -> AbstractContextManager[Captured]:
    """For the passes inside of a block."""


@overload
def capture(model: nn.Module, x: Any, *, layers: Layers = "*", inputs: bool = False) -> Captured:
    """For one pass."""


def capture(
    model: nn.Module, x: Any = None, *, layers: Layers = "*", inputs: bool = False, gradients: bool = False
) -> Any:
    """Collect the outputs of layers as the layers produced them: of the passes inside of a block, or of one pass on x.

    `layers`: paths, globs over paths or types, classes of modules, modules of the network, one or several; they may be
    given second, too. `x`: what the network is called with, of which it gets copies: a tensor, a list (one argument), a
    tuple of arguments or a dict of named ones. `inputs`: keep also what each layer was given, as it was before the
    layer ran. `gradients`: keep also the gradients with respect to the outputs, once `backward()` was called, in the
    block or after it. A layer whose output is a view that is overwritten in place has none.

    Values are copies on the tensor's own device and in its own type, detached. The network is run as it is: neither its
    mode nor whether gradients are recorded is changed. The calls of a second pass follow on those of the first.

        >>> with layerscope.capture(model, layers=["layer*.conv1", nn.Linear], gradients=True) as seen:
        ...     model(x).sum().backward()
        >>> seen["layer1.0.conv1"].shape, seen.gradients["fc"].shape
        (torch.Size([2, 64, 16, 16]), torch.Size([2, 1000]))
        >>> layerscope.capture(model, x, layers="layer1")["layer1"].shape  # in one call
        torch.Size([2, 64, 16, 16])

    Raises NoMatch for a layer that is not there; in one call also ForwardError if the network raises, and UsageError
    for `gradients`, since nothing is left to call `backward()` on.
    """
    if is_layers(x):
        x, layers = None, x
    chosen = select(model, layers)
    if x is None:
        return _capturing(chosen, inputs, gradients)
    if gradients:
        raise UsageError("capture: gradients need a block; write `with capture(...):` and call backward() in it")
    with _capturing(chosen, inputs, False) as seen:
        call(model, copied(x), type(model).__name__)
    return seen


@contextmanager
def _capturing(chosen: Selection, inputs: bool, gradients: bool) -> Iterator[Captured]:
    seen = Captured(chosen.table.aliases)

    def keep_output(site: Site, _module: nn.Module, tensor: Tensor) -> None:
        seen[site.key] = tensor.detach().clone()

        def keep_gradient(gradient: Tensor) -> None:
            before = seen.gradients.get(site.key)
            seen.gradients[site.key] = gradient.detach().clone() if before is None else before + gradient

        if gradients and tensor.requires_grad:
            # Of the value that the layer produced, also where an in-place operation follows: torch keeps it apart.
            tensor.register_hook(keep_gradient)  # type: ignore[no-untyped-call]

    def keep_input(path: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = copied((*args, *kwargs.values()))
        seen.inputs[Site(path, observation.calls[path]).key] = given[0] if len(given) == 1 else given

    kept = observing(chosen.table, chosen.paths, keep_output, on_input=keep_input if inputs else None)
    with kept as observation:
        yield seen
