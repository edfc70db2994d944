"""Two networks on one photo, or two checkpoints: what is the same, what changed and by how much."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from layerscope._version import __version__
from layerscope.checkpoints import TensorSpec, open_checkpoint
from layerscope.dtypes import bits_of, decode
from layerscope.errors import UsageError
from layerscope.inspection import features, tensor_entry
from layerscope.progress import Progress, quiet
from layerscope.records.record import Entry, Pair, Record, last_of_size
from layerscope.text import counted, some

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerscope.networks.devices import Device
    from layerscope.networks.open import Network

__all__ = [
    "Tensors", "compare", "compare_checkpoints", "compare_networks", "compare_tensors", "difference",
    "stages_of",
]  # fmt: skip

#: bins of the histogram of a tensor that is kept with its maps
_BINS = 50


class Tensors(Protocol):
    """Where tensors come from: an open checkpoint, or the state of a network."""

    @property
    def specs(self) -> Sequence[TensorSpec]:
        """What there is, in order."""

    def read(self, spec: TensorSpec) -> NDArray[Any]:
        """The bits of one of them, shaped."""


def compare(a: Any, b: Any, image: Any = None, *, device: Device = None, progress: Progress = quiet) -> Record:
    """Compare two networks on one image, or two checkpoints where no image is given.

    With an image, `a`, `b` and `device` are what `features` takes, and the record has `pairs` of layers and `stages`;
    without one they are paths of checkpoints and the pairs are tensors. Raises what `features` and `weights` raise, and
    UsageError for networks without an image.

        >>> record = layerscope.compare("net.pth", "net.pth")
        >>> {pair.status for pair in record.pairs}
        {'same'}
    """
    if image is not None:
        return compare_networks(a, b, image, device=device, progress=progress)
    if isinstance(a, str | os.PathLike) and isinstance(b, str | os.PathLike):
        return compare_checkpoints(a, b, progress=progress)
    raise UsageError("compare: two networks need an image to run on; give image=")


def difference(a: NDArray, b: NDArray) -> tuple[float, float, float]:
    """Greatest and mean absolute difference, and the cosine of the angle between the two as vectors, in float64.

    The cosine of two zero vectors is 1, of one it is 0. NaN anywhere gives NaN, equal infinities do not differ. A
    complex number counts as two real ones.
    """
    if not a.size:
        return 0.0, 0.0, 1.0
    if np.iscomplexobj(a) or np.iscomplexobj(b):  # a pair of real numbers each
        wide = [np.ascontiguousarray(one, np.complex128).view(np.float64) for one in (a, b)]
        return difference(*wide)
    high, add, dot, aa, bb = 0.0, 0.0, 0.0, 0.0, 0.0
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    for start in range(0, flat_a.size, 1 << 20):  # blocks: two float64 copies of a large tensor would be its size x 4
        x = flat_a[start : start + (1 << 20)].astype(np.float64)
        y = flat_b[start : start + (1 << 20)].astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            gap = np.where(x == y, 0, np.abs(x - y))
        high = max(high, float(gap.max())) if not np.isnan(gap).any() else float("nan")
        add, dot = add + float(gap.sum()), dot + float(x @ y)
        aa, bb = aa + float(x @ x), bb + float(y @ y)
    if high == 0:
        return 0.0, 0.0, 1.0
    if aa == 0 or bb == 0:
        return high, add / a.size, 1.0 if aa == bb else 0.0
    return high, add / a.size, float(np.clip(dot / (aa * bb) ** 0.5, -1, 1))


def _pair(name: str, a: NDArray | None, b: NDArray | None) -> Pair:
    if a is None or b is None:
        shapes = (None if a is None else a.shape), (None if b is None else b.shape)
        return Pair(name, *shapes, "only-a" if b is None else "only-b")
    if a.shape != b.shape:
        return Pair(name, a.shape, b.shape, "shape")
    high, mean, cosine = difference(a, b)
    return Pair(name, a.shape, b.shape, "same" if high == 0 else "changed", high, mean, cosine)


def compare_checkpoints(
    a: str | os.PathLike[str], b: str | os.PathLike[str], *, maps: bool = True, progress: Progress = quiet
) -> Record:
    """The tensors of A in the order of the file, then those that only B has. Torch is not imported.

    `maps`: whether the tensors of both, with statistics and pictures, are kept as the entries a:NAME and b:NAME.
    """
    with open_checkpoint(a) as first, open_checkpoint(b) as second:
        return compare_tensors(first, second, os.fspath(a), os.fspath(b), maps=maps, progress=progress)


def compare_tensors(
    first: Tensors, second: Tensors, subject: str, subject_b: str, *, maps: bool = True, progress: Progress = quiet
) -> Record:
    """Tensors of the same name, value by value; see `compare_checkpoints`."""
    record = Record("compare", subject, subject_b=subject_b, provenance={"layerscope": __version__})
    ours, theirs = _weights_in(first.specs), _weights_in(second.specs)
    whole, done = sum(spec.nbytes for spec in [*ours.values(), *theirs.values()]), 0
    entries: dict[str, list[Entry]] = {"a": [], "b": []}

    def read(side: str, source: Tensors, spec: TensorSpec) -> NDArray[Any]:
        nonlocal done
        progress(done, whole, spec.name)
        bits, done = source.read(spec), done + spec.nbytes
        if maps:
            entry = tensor_entry(spec, bits, _BINS, True)
            entry.side = side
            entries[side].append(entry)
        return decode(bits, spec.dtype)

    for name in {**ours, **theirs}:
        a, b = ours.get(name), theirs.get(name)
        if a and b:
            record.pairs.append(_pair(name, read("a", first, a), read("b", second, b)))
            continue
        record.pairs.append(Pair(name, a.shape if a else None, b.shape if b else None, "only-a" if a else "only-b"))
        for side, source, spec in (("a", first, a), ("b", second, b)):
            if maps and spec:
                read(side, source, spec)
    progress(whole, whole, "")
    for entry in entries["a"] + entries["b"]:
        record.add(entry)
    record.notes = _unmatched(record.pairs) if maps else []
    return record


def _unmatched(pairs: Sequence[Pair]) -> list[str]:
    """What has no counterpart, one line a reason."""
    notes = []
    for status, said in (("only-a", "in A alone"), ("only-b", "in B alone"), ("shape", "of other shapes in A and B")):
        names = [pair.name for pair in pairs if pair.status == status]
        if names:
            notes.append(f"{counted(len(names), 'tensor')} {said}: {some(names, 4)}")
    return notes


def _weights_in(specs: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs if spec.role == "weight" and not spec.unreadable}


def compare_networks(
    a: nn.Module | Network | str,
    b: nn.Module | Network | str,
    image: Any,
    *,
    attention: bool = False,
    device: Device = None,
    progress: Progress = quiet,
) -> Record:
    """Every layer of A and of B on the same image, each with its own preprocessing.

    `attention`, `device`: as in `features`.

    `pairs` compare the layers of the same name value by value; `stages` put the last layer of each spatial size of A
    beside that of B, so that networks of other architectures can be looked at side by side.
    """
    from layerscope.activations.capturing import capture
    from layerscope.activations.hooks import looking
    from layerscope.networks.feeding import batch_of, run
    from layerscope.networks.open import opened

    record = Record("compare", "", provenance={"layerscope": __version__})
    kept: list[dict[str, NDArray]] = []
    sides: list[Record] = []
    for side, given in zip("ab", (a, b), strict=True):
        progress("ab".index(side), 2, str(given) if isinstance(given, str) else type(given).__name__)
        with opened(given, device) as network:
            found = features(network, image, attention=attention)
            if len(found.pictures) > 1:
                raise UsageError(f"compare: {len(found.pictures)} images; give one")
            batch, _ = batch_of(network, image)
            # The whole outputs, of one image: only the difference of the values themselves tells what changed.
            with looking(network.model), capture(network.model) as seen:
                run(network, batch)
        for entry in found.values():
            entry.side = side
            record.add(entry)
        sides.append(found)
        record.notes += [f"{side.upper()}: {note}" for note in found.notes]
        kept.append({key: _values(tensor) for key, tensor in seen.items() if tensor.dim() and not tensor.is_nested})
    progress(2, 2, "")
    record.subject, record.subject_b = sides[0].subject, sides[1].subject
    record.pictures = sides[0].pictures
    if any(one.predictions for one in sides):  # a row a side, empty where a network gives no classes
        record.predictions = [one.predictions[0] if one.predictions else [] for one in sides]
    ours, theirs = kept
    record.pairs = [_pair(name, ours.get(name), theirs.get(name)) for name in {**ours, **theirs}]
    record.stages = stages_of(list(sides[0].values()), list(sides[1].values()))
    return record


def _values(tensor: Tensor) -> NDArray:
    import torch

    from layerscope.activations.planes import real

    whole = tensor.is_complex() and tensor.layout is torch.strided
    return bits_of(tensor) if whole else real(tensor).cpu().numpy()


def stages_of(a: list[Entry], b: list[Entry]) -> list[tuple[str, str]]:
    """Pairs of keys: every stage of the network that has fewer, with the other's stage of about the same size.

    A stage is the last layer before the maps become smaller. Sizes are compared by their ratio: 55 goes with 56.
    """
    first, second = last_of_size(a), last_of_size(b)
    if not first or not second:
        return []
    few, many = (first, second) if len(first) <= len(second) else (second, first)
    pairs = []
    for entry in few:
        size = entry.maps[0].shape[1]
        other = min(many, key=lambda one: abs(np.log(one.maps[0].shape[1] / size)))
        if not 0.6 < other.maps[0].shape[1] / size < 1.6:
            continue
        pairs.append((entry.site.key, other.site.key) if few is first else (other.site.key, entry.site.key))
    return pairs
