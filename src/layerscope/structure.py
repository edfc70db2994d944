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
    layers = {path: _layer(path, module, leaf) for path, module, leaf in everything(network.model)}

    def note(site: Site, _module: nn.Module, tensor: Tensor) -> None:
        layer = layers.get(site.path)
        if layer:
            layer.calls = site.call + 1
            layer.shape = layer.shape or tuple(tensor.shape)

    with looking(network.model), tap(network.model, note, layers):
        run(network, batch)
    return list(layers.values())


def _layer(path: str, module: nn.Module, leaf: bool) -> Layer:
    parameters = list(module.parameters())
    counts = [sum(p.numel() for p in some) for some in (parameters, [p for p in parameters if p.requires_grad])]
    return Layer(path, type(module).__name__, leaf, counts[0], counts[1])
