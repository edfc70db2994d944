"""The same images through the network at every step that is looked at: what has changed is the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerscope.hooks import looking, tap, unwrapped
from layerscope.maps import reduced
from layerscope.networks.feeding import passes_of, run
from layerscope.networks.open import Network
from layerscope.record import Entry, Picture
from layerscope.reduce import Collector

__all__ = ["Probe", "fitted"]

#: of so many images maps are made; statistics are over all
MAPPED = 4
_PASS = 16


@dataclass
class Probe:
    """`passes`: what the network is given in turn; `pictures`: of the first images, as they are shown."""

    passes: list[Any]
    pictures: list[Picture]

    @classmethod
    def of(cls, model: nn.Module, images: Any) -> Probe:
        """`images`: a tensor (B, C, H, W), paths, or what else the network is called with: see `layerscope.features`.

        Raises ImageError.
        """
        network = Network(unwrapped(model), type(unwrapped(model)).__name__)
        passes, pictures, _ = passes_of(network, images, _PASS)
        first = passes[0] if passes else None
        if not pictures and isinstance(first, Tensor) and first.dim() == 4:
            pictures = [Picture(f"probe {at}", _picture(one)) for at, one in enumerate(first[:MAPPED])]
        kept = [one.detach().clone() if isinstance(one, Tensor) else one for one in passes]
        return cls(kept, pictures[:MAPPED])

    @property
    def example(self) -> Any:
        """One image, or all arguments, for the graph."""
        first = self.passes[0]
        return first[:1] if isinstance(first, Tensor) else first

    def look(self, model: nn.Module, paths: Sequence[str], budget_bytes: int) -> list[Entry]:
        """Statistics of all images and maps of the first ones; the network is left as it was. Raises ForwardError."""
        model = unwrapped(model)
        network = Network(model, type(model).__name__)
        collector = Collector(MAPPED)
        with looking(model):
            for given in self.passes:
                collector.begin(len(given) if isinstance(given, Tensor | list) else None)
                with tap(model, collector.keep, paths):
                    run(network, given)
                collector.maps = 0
        return fitted(list(collector.entries()), budget_bytes)


def _picture(image: Tensor) -> NDArray[np.uint8]:
    """(C, H, W) of any range as uint8 (H, W, 3): least to greatest value, since nothing tells how it was normalised."""
    values = image.detach().float().cpu()
    values = values[:3] if len(values) >= 3 else values[:1].expand(3, -1, -1)
    low, high = torch.aminmax(values.nan_to_num(0, 0, 0))
    scaled = (values - low) / (high - low).clamp(min=1e-12) * 255
    return scaled.nan_to_num(0).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def fitted(entries: list[Entry], budget_bytes: int) -> list[Entry]:
    """The entries with maps of so many bytes together at most: reduced by one factor, or else none of the largest."""
    factor = 1
    while _bytes(entries, factor) > budget_bytes and factor < 256:
        factor += 1
    entries = [replace(entry, maps=[reduced(maps, factor) for maps in entry.maps]) for entry in entries]
    for entry in sorted(entries, key=lambda one: _bytes([one], 1), reverse=True):
        if _bytes(entries, 1) <= budget_bytes:
            break
        entry.maps = []
    return entries


def _bytes(entries: list[Entry], factor: int) -> int:
    shapes = [maps.shape for entry in entries for maps in entry.maps]
    return sum(channels * -(-height // factor) * -(-width // factor) for channels, height, width in shapes)
