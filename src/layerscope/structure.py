"""The structure of a network as it runs: modules, output shapes, parameters, how often each ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerscope.hooks import everything, looking, tap
from layerscope.inspect import run
from layerscope.record import Layer
from layerscope.sites import Site

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerscope.networks.open import Network

__all__ = ["structure"]


def structure(network: Network, batch: Tensor) -> list[Layer]:
    """Every module in the order of registration, after one pass of `batch`. Raises ForwardError."""
    table = everything(network.model)
    layers = {path: _layer(path, module, leaf) for path, module, leaf in table}
    own = {id(module): layers[path] for path, module, _ in table}

    def note(_site: Site, module: nn.Module, tensor: Tensor) -> None:
        layer = own[id(module)]
        layer.shape = layer.shape or (None if tensor.is_nested else tuple(tensor.shape))

    with looking(network.model), tap(network.model, note, layers) as calls:
        run(network, batch)
    for path, layer in layers.items():
        layer.calls = calls[path]
    return list(layers.values())


def _layer(path: str, module: nn.Module, leaf: bool) -> Layer:
    parameters = list(module.parameters())
    counts = [sum(p.numel() for p in some) for some in (parameters, [p for p in parameters if p.requires_grad])]
    return Layer(path, type(module).__name__, leaf, counts[0], counts[1])
