"""What is asked of a live network beyond its record: its kernels, the tokens without a place, attention by query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from layerscope.checkpoints import TensorSpec
from layerscope.comparison import compare_tensors
from layerscope.dtypes import STORAGE, bits_of
from layerscope.errors import UsageError
from layerscope.inspection import tensor_entry
from layerscope.records.maps import Maps
from layerscope.records.record import Entry, Record
from layerscope.records.sites import Site
from layerscope.stats import activations, quantize
from layerscope.tensors import CheckpointChecks, first_kernel

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.networks.open import Network

__all__ = ["State", "attention_of", "kernels_of", "seen_from", "tokens_of"]

_BINS = 50


class State:
    """The tensors of a network that has been built, as an open checkpoint gives them."""

    def __init__(self, network: Network) -> None:
        import torch

        from layerscope.activations.hooks import unwrapped

        self._tensors: dict[str, Tensor] = {}
        self.specs: list[TensorSpec] = []
        for name, tensor in unwrapped(network.model).state_dict().items():
            dtype = str(getattr(tensor, "dtype", "")).removeprefix("torch.")
            plain = isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided and not tensor.is_meta
            if plain and dtype in STORAGE and not tensor.is_quantized:
                self._tensors[name] = tensor
                self.specs.append(TensorSpec(name, tuple(tensor.shape), dtype))

    @property
    def kernels(self) -> list[str]:
        """Names of the tensors that have a picture."""
        return [spec.name for spec in self.specs if len(spec.shape) > 1 and spec.count]

    def read(self, spec: TensorSpec) -> NDArray[Any]:
        """The bits of a tensor, shaped."""
        return bits_of(self._tensors[spec.name])


def kernels_of(networks: Sequence[Network]) -> Record:
    """What `weights` finds in the tensors of a network, or `compare` in those of two."""
    states = [State(network) for network in networks]
    if len(networks) == 2:
        return compare_tensors(states[0], states[1], networks[0].subject, networks[1].subject)
    record = Record("weights", networks[0].subject)
    checks = CheckpointChecks(first_kernel((spec.name, spec.shape) for spec in states[0].specs))
    for spec in states[0].specs:
        bits = states[0].read(spec)
        entry = tensor_entry(spec, bits, _BINS, True)
        record.add(entry)
        checks.add(entry, bits)
    record.findings = checks.finish()
    return record


def _entry(entry: Entry, values: NDArray[np.float32]) -> Entry:
    """Some values (C, h, w) of a layer as an entry of their own."""
    flat = np.ascontiguousarray(values, np.float32).reshape(len(values), -1)
    columns = activations(flat[None]).take(0)
    low, high = columns.min, columns.max
    sizes = (len(values), values.shape[1], values.shape[2])
    codes = quantize(flat, low, high).reshape(sizes)
    maps = Maps(low.astype(np.float32), high.astype(np.float32), sizes, codes)
    return Entry(
        Site(entry.site.path, entry.site.call, "NCHW"), entry.type, (1, *sizes), "float32", columns, maps=[maps]
    )


def _in_front(entry: Entry, image: int, axis: int) -> tuple[int, int, int]:
    """(tokens without a place in front, height, width of the patches) of an output whose `axis` counts the tokens."""
    maps = entry.maps[image] if image < len(entry.maps) else None
    _, height, width = maps.shape if maps else (0, 0, 0)
    skip = entry.shape[axis] - height * width
    if maps is None or maps.reduced > 1 or skip < 0:
        raise UsageError(f"{entry.key}: its tokens do not lie on the grid of its maps one by one")
    return skip, height, width


def tokens_of(network: Network, image: Any, entry: Entry, number: int) -> Entry:
    """The tokens of a layer that have no place in the image, class token first: maps (C, 1, tokens).

    Raises UsageError for a layer that has none.
    """
    from layerscope.networks.feeding import batch_of
    from layerscope.units.place import run_to_layer

    skip = _in_front(entry, number, 1)[0] if entry.site.layout == "NLC" else 0
    if not skip:
        raise UsageError(f"{entry.key}: every value of it has its place in the image")
    batch, _ = batch_of(network, image)
    found = run_to_layer(network.model, entry.site.key, (batch,), lambda output, _: output[0, :skip].float().cpu())
    return _entry(entry, found.result.numpy().T[:, None])  # (C, 1, skip)


def attention_of(network: Network, image: Any, entry: Entry) -> NDArray[np.float32]:
    """The weights of an attention on one image, (heads, queries, keys)."""
    import torch

    from layerscope.activations.collector import Collector
    from layerscope.activations.functions import Functions
    from layerscope.activations.hooks import looking
    from layerscope.activations.modules import Table
    from layerscope.networks.feeding import batch_of, run

    seen: list[Tensor] = []

    class Keep(Collector):
        def attend(self, site: Site, weights: torch.Tensor) -> None:
            if site.key == entry.site.key and len(weights) == 1:
                seen.append(weights[0].detach().float().cpu())

    batch, _ = batch_of(network, image)
    with looking(network.model), Functions(Table(network.model), Keep(), [entry.site.path], False, True):
        run(network, batch)
    if not seen:
        raise UsageError(f"{entry.key}: no attention of one image; ask for a layer named PATH/attention")
    return seen[0].numpy()


def seen_from(entry: Entry, number: int, weights: NDArray[np.float32], at: tuple[int, int] | None) -> Entry:
    """What each head looks at from one patch, or on average over all queries: maps (heads, h, w)."""
    skip, height, width = _in_front(entry, number, 3)
    if at and not (at[0] < height and at[1] < width):
        raise UsageError(f"query {at[0]}, {at[1]}: there are {height} x {width} patches")
    seen = weights[:, skip + at[0] * width + at[1]] if at else weights.mean(1)  # (heads, keys)
    return _entry(entry, seen[:, skip:].reshape(-1, height, width))
