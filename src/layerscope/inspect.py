"""A network and images, or a checkpoint alone -> a record."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from layerscope import claims
from layerscope._version import __version__
from layerscope.checkpoints import Checkpoint, TensorSpec, open_checkpoint
from layerscope.dtypes import is_float
from layerscope.errors import UsageError
from layerscope.findings import Doctor
from layerscope.networks.feeding import batch_of, passes_of, run, zeros
from layerscope.networks.identify import identify
from layerscope.record import Entry, Histogram, Prediction, Record
from layerscope.sites import Site, choose
from layerscope.stats import distribution
from layerscope.tensors import first_kernel, kernel_maps, layout_of, role_of
from layerscope.text import counted

if TYPE_CHECKING:
    from torch import nn

    from layerscope.networks.open import Network

__all__ = ["BATCH", "Progress", "batch_of", "features", "quiet", "run", "tensor_entry", "weights", "zeros"]

#: done, of, what: called often, from the thread that works
Progress = Callable[[int, int, str], None]

#: images a pass: enough for speed on a CPU, few enough for VGG's activations in a laptop's memory
BATCH = 16


def quiet(_done: int, _of: int, _what: str) -> None:
    """No progress to show."""


def weights(
    path: str | os.PathLike[str],
    match: str | Sequence[str] = (),
    bins: int = 50,
    maps: bool = True,
    progress: Progress = quiet,
) -> Record:
    """Statistics, histogram and kernel picture of every tensor of a checkpoint; torch is not imported.

    `match`: globs over the names of the tensors; all of them if empty. Statistics are over the finite values; the
    standard deviation has ddof 1; counts and edges equal `numpy.histogram(values, bins)`. `maps`: whether kernels are
    to be pictured.
    Raises CheckpointError for a file that cannot be read, NoMatch for a glob that selects nothing.
    """
    if bins < 1:
        raise UsageError(f"bins: {bins} is not a number of bins; give 1 or more")
    patterns = [match] if isinstance(match, str) else list(match)
    with open_checkpoint(path) as checkpoint:
        doctor = Doctor(first_kernel((spec.name, spec.shape) for spec in checkpoint.specs))
        record = Record("weights", os.fspath(path), foreign=list(checkpoint.foreign))
        record.notes = list(checkpoint.warnings)
        record.provenance = {"layerscope": __version__, "format": checkpoint.format}
        if checkpoint.extra:  # apart: it may say anything, of our fields too
            record.provenance["extra"] = {
                key: str(value) if isinstance(value, int) and abs(value) > claims.MOST else value
                for key, value in checkpoint.extra.items()
            }
        specs = _chosen(checkpoint, patterns, record)
        architecture = identify({spec.name: spec.shape for spec in checkpoint.specs if spec.role == "weight"})
        record.provenance["architecture"] = str(architecture) if architecture else None
        whole, done = sum(spec.nbytes for spec in specs), 0
        for spec in specs:
            progress(done, whole, spec.name)
            done += spec.nbytes
            if spec.unreadable:
                note = f"no statistics: {spec.unreadable}"
                record.add(Entry(Site(spec.name), "tensor", spec.shape, spec.dtype, note=note))
                continue
            bits = checkpoint.read(spec)
            entry = tensor_entry(spec, bits, bins, maps)
            record.add(entry)
            doctor.see(entry, bits)
        progress(whole, whole, "")
    record.findings = doctor.finish()
    return record


def _chosen(checkpoint: Checkpoint, patterns: list[str], record: Record) -> list[TensorSpec]:
    specs = [spec for spec in checkpoint.specs if spec.role == "weight"]
    if len(specs) < len(checkpoint.specs):
        left = len(checkpoint.specs) - len(specs)
        record.notes.append(f"{counted(left, 'tensor')} of the optimizer left out")
    if not patterns:
        return specs
    names = set(choose(patterns, [(spec.name, spec.dtype, True) for spec in specs], what="tensor"))
    return [spec for spec in specs if spec.name in names]


def tensor_entry(spec: TensorSpec, bits: Any, bins: int, maps: bool) -> Entry:
    """Statistics, histogram and, for `maps`, the picture of one tensor whose bits were read."""
    layout, role = layout_of(spec.name, spec.shape), role_of(spec.name, spec.shape)
    entry = Entry(Site(spec.name, 0, layout), role, spec.shape, spec.dtype)
    notes = [f"shares its memory with {spec.tied}"] if spec.tied else []
    if role == "counter":
        entry.note = f"{int(bits)} batches"
        return entry
    found = distribution(bits, spec.dtype, bins, spec.shape[0] if len(spec.shape) > 1 else None)
    entry.whole, entry.columns = found.whole, found.rows
    if found.counts is not None and found.edges is not None:
        entry.histogram = Histogram(np.asarray(found.edges, np.float64), found.counts)
    if maps and is_float(spec.dtype):
        picture, note = kernel_maps(bits, spec.dtype, layout)
        entry.maps = [picture] if picture else []
        notes += [note] if note else []
    entry.note = "; ".join(notes)
    return entry


def features(
    model: nn.Module | Network | str,
    images: Any,
    layers: str | Sequence[str] = (),
    maps: bool = True,
    progress: Progress = quiet,
    *,
    predict: bool = True,
    ops: bool = False,
    attention: bool = False,
) -> Record:
    """Run images through a network and record every layer that runs, as the layer produced it.

    `model`: a module, or what the command line takes for NETWORK. `images`: a tensor (B, C, H, W) that is
    preprocessed already, a path, or several; a folder stands for the images in and below it. A network that takes
    something else is given a list of tensors, a tuple of its arguments or a dict of its named arguments.
    `layers`: globs over the paths or types of layers; all leaves if empty. `ops`: what functions between the modules
    give, too, as `layer1.0/add`. `attention`: the weights of every attention as `PATH/attention`, a head a channel.
    `predict=False`: no classes; passes after the first end as soon as the last of the layers has run.
    Statistics are per channel over all images; maps are per image.
    The network is left as it was. Raises ImageError, NetworkError, ForwardError or NoMatch.
    """
    import torch

    from layerscope.hooks import looking, noting, tap, tappable
    from layerscope.networks.foreign import said_of
    from layerscope.networks.open import Network, open_network
    from layerscope.ops import Functions
    from layerscope.reduce import Collector
    from layerscope.selection import absent, select

    network = model if isinstance(model, Network) else open_network(model)
    patterns = [layers] if isinstance(layers, str) else list(layers)
    chosen = select(network.model, patterns, lenient=ops or attention)
    spare = [] if patterns else [path for path, _, leaf in tappable(network.model) if not leaf]
    passes, pictures, count = passes_of(network, images, BATCH)
    record = Record("features", network.subject, pictures=pictures, notes=[*network.notes, *chosen.notes])
    if pictures:
        record.notes += said_of(network.takes)
    record.provenance = {
        "layerscope": __version__,
        "torch": torch.__version__,
        "preprocessing": str(network.preprocessing),
    }
    collector = Collector(None if maps else 0)
    seen = Functions(network.model, collector, patterns, ops, attention) if ops or attention else None
    ran: Counter[str] = Counter()
    with looking(network.model), noting(network.model, collector.layouts.plan, chosen.paths):
        for number, given in enumerate(passes):
            progress(number * BATCH, count or 1, network.name)
            collector.begin(len(given) if count is not None else None)
            emit = seen.unseen(collector.keep) if seen else collector.keep
            # What the functions give is not counted: their passes are run to the end.
            stop = None if predict or seen else given
            with tap(network.model, emit, chosen.paths, stop, spare) as calls, seen or nullcontext():
                output = run(network, given)
            if predict:
                record.predictions += _top(output, network.labels)
            ran += calls
        progress(count or 1, count or 1, "")
    if seen:
        seen.require(chosen.unmet)
    for entry in collector.entries():
        record.add(entry)
    record.never, said = absent(network.model, chosen.paths, ran)
    record.notes += said
    return record


def _top(output: Any, labels: Sequence[str] | None, top: int = 5) -> list[list[Prediction]]:
    """The most probable classes of each image, where the output looks like logits (B, classes); else nothing."""
    import torch

    if not isinstance(output, torch.Tensor) or output.dim() != 2 or not output.is_floating_point():
        return []
    probability = output.float().softmax(1)  # (B, classes)
    values, indices = probability.topk(min(top, output.shape[1]))
    names = labels or []
    return [
        [Prediction(i, names[i] if i < len(names) else f"class {i}", float(p)) for i, p in zip(*row, strict=True)]
        for row in zip(indices.tolist(), values.tolist(), strict=True)
    ]
