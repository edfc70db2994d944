"""A network and images, or a checkpoint alone -> a record."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from layerscope._version import __version__
from layerscope.checkpoints import Checkpoint, TensorSpec, open_checkpoint
from layerscope.dtypes import is_float
from layerscope.errors import UsageError
from layerscope.networks.feeding import BATCH_SIZE, batch_of, passes_of, run, zeros
from layerscope.networks.identify import identify
from layerscope.progress import Progress, quiet
from layerscope.records.record import Entry, Histogram, Layer, Prediction, Record
from layerscope.records.schema import MOST
from layerscope.records.sites import Site, choose
from layerscope.stats import distribution
from layerscope.tensors import CheckpointChecks, first_kernel, kernel_maps, layout_of, role_of
from layerscope.text import counted

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerscope.activations.modules import Layers
    from layerscope.networks.devices import Device
    from layerscope.networks.open import Network

__all__ = ["features", "layers", "structure", "tensor_entry", "weights"]


def weights(
    path: str | os.PathLike[str],
    *,
    match: str | Sequence[str] = (),
    bins: int = 50,
    maps: bool = True,
    progress: Progress = quiet,
) -> Record:
    """Statistics, histogram and kernel picture of every tensor of a checkpoint; torch is not imported.

    `match`: globs over the names of the tensors; all of them if empty. Statistics are over the finite values; the
    standard deviation has ddof 1; counts and edges equal `numpy.histogram(values, bins)`. `maps`: whether kernels are
    to be pictured.
    Raises CheckpointError for a file that cannot be read, NoMatch for a glob that selects nothing, UsageError for bins
    below 1.

        >>> record = layerscope.weights("net.pth", match="layer1.*.conv1.*")
        >>> record["layer1.0.conv1.weight"].total.std.shape, len(record["layer1.0.conv1.weight"].histogram.counts)
        ((1,), 50)
    """
    if bins < 1:
        raise UsageError(f"bins: {bins} is not a number of bins; give 1 or more")
    patterns = [match] if isinstance(match, str) else list(match)
    with open_checkpoint(path) as checkpoint:
        checks = CheckpointChecks(first_kernel((spec.name, spec.shape) for spec in checkpoint.specs))
        record = Record("weights", os.fspath(path), foreign=list(checkpoint.foreign))
        record.notes = list(checkpoint.warnings)
        record.provenance = {"layerscope": __version__, "format": checkpoint.format}
        if checkpoint.extra:  # apart: it may say anything, of our fields too
            record.provenance["extra"] = {
                key: str(value) if isinstance(value, int) and abs(value) > MOST else value
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
            checks.add(entry, bits)
        progress(whole, whole, "")
    record.findings = checks.finish()
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
    layers: Layers = (),
    *,
    maps: bool = True,
    predict: bool = True,
    ops: bool = False,
    attention: bool = False,
    device: Device = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress = quiet,
) -> Record:
    """Run images through a network and record every layer that runs, as the layer produced it.

    `model`: a module, or what the command line takes for NETWORK. `images`: a tensor (B, C, H, W) that is
    preprocessed already, a path, or several; a folder stands for the images in and below it. A network that takes
    something else is given a list of tensors, a tuple of its arguments or a dict of its named arguments.
    `layers`: paths, globs over paths or types, classes of modules, modules of the network, one or several; all leaves
    if empty. `ops`: what functions between the modules return, too, as `layer1.0/add`. `attention`: the weights of
    every attention as `PATH/attention`, a head a channel.
    `predict=False`: no classes; passes after the first end as soon as the last of the layers has run.
    `device`: where it runs, "cpu", "cuda", "cuda:1", "mps", "auto" or a torch.device; where the network is if None.
    `batch_size`: images a pass. `progress`: called as `progress(done, of, what)`.
    Statistics are per channel over all images; maps are per image.
    The network is left as it was. Raises ImageError, NetworkError, DeviceError, ForwardError, NoMatch or UsageError.

        >>> record = layerscope.features(model, "tulip.jpg", layers=["layer1*", nn.Linear])
        >>> record["layer1.0.conv1"].columns.mean.shape, record["fc"].shape
        ((64,), (1, 1000))
    """
    import torch

    from layerscope.activations.collector import Collector
    from layerscope.activations.functions import Functions
    from layerscope.activations.hooks import calls_in_full_pass, looking, observing
    from layerscope.activations.modules import absent, select
    from layerscope.networks.devices import described
    from layerscope.networks.foreign import home_of, said_of
    from layerscope.networks.open import opened

    if batch_size < 1:
        raise UsageError(f"batch_size: {batch_size} is not a number of images; give 1 or more")
    with opened(model, device) as network:
        chosen = select(network.model, layers, lenient=ops or attention)
        table = chosen.table
        passes, pictures, count = passes_of(network, images, batch_size)
        record = Record("features", network.subject, pictures=pictures, notes=[*network.notes, *chosen.notes])
        if pictures:
            record.notes += said_of(network.takes)
        record.provenance = {
            "layerscope": __version__,
            "torch": torch.__version__,
            "preprocessing": str(network.preprocessing),
            "device": described(home_of(network.model)[0]),
        }
        collector = Collector(None if maps else 0)
        functions = Functions(table, collector, chosen.patterns, ops, attention) if ops or attention else None
        emit = functions.unseen(collector.keep) if functions else collector.keep
        fallback = [] if chosen.patterns else [path for path in table.observable if path not in table.leaves]
        ran: Counter[str] = Counter()
        with looking(network.model):
            for number, batch in enumerate(passes):
                progress(number * batch_size, count or 1, network.name)
                collector.begin(len(batch) if count is not None else None)
                # What functions return is not counted: their passes are run to the end.
                stop = None if predict or functions else calls_in_full_pass(network.model, chosen.paths, batch)
                noted = observing(table, chosen.paths, emit, stop, fallback=fallback, on_shape=collector.layouts.plan)
                with noted as observation, functions or nullcontext():
                    output = run(network, batch)
                if predict:
                    record.predictions += _top(output, network.labels)
                ran += observation.calls
            progress(count or 1, count or 1, "")
        if functions:
            functions.require(chosen.unmet)
        for entry in collector.entries():
            record.add(entry)
        record.never, silent = absent(table, chosen.paths, ran)
        record.notes += silent
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


def layers(model: nn.Module | Network | str, *, image: Any = None, device: Device = None) -> list[Layer]:
    """The structure of a network as it runs: every module with type, output shape, parameters and number of calls.

    `model`, `image`, `device`: as `features` takes them, one image; an input of zeros if None. In the order of
    registration. Raises ImageError, NetworkError, DeviceError, ForwardError.

        >>> [layer.path for layer in layerscope.layers(model) if layer.calls > 1][:2]
        ['layer1.0.relu', 'layer1.1.relu']
    """
    from layerscope.networks.open import opened

    with opened(model, device) as network:
        return structure(network, zeros(network) if image is None else batch_of(network, image)[0])


def structure(network: Network, batch: Tensor) -> list[Layer]:
    """Every module in the order of registration, after one pass of `batch`. Raises ForwardError."""
    from layerscope.activations.hooks import looking, observing
    from layerscope.activations.modules import Table

    table = Table(network.model)
    shapes: dict[int, tuple[int, ...]] = {}

    def on_output(_site: Site, module: nn.Module, tensor: Tensor) -> None:
        if not tensor.is_nested:
            shapes.setdefault(id(module), tuple(tensor.shape))

    with looking(network.model), observing(table, table.modules, on_output) as observation:
        run(network, batch)
    return [
        Layer(
            path=path,
            type=type(module).__name__,
            leaf=path in table.leaves,
            parameters=sum(one.numel() for one in module.parameters()),
            trainable=sum(one.numel() for one in module.parameters() if one.requires_grad),
            calls=observation.calls[path],
            shape=shapes.get(id(module)),
        )
        for path, module in table.modules.items()
    ]
