"""A network and images, or a checkpoint alone -> a record."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerscope._version import __version__
from layerscope.checkpoints import Checkpoint, TensorSpec, open_checkpoint
from layerscope.dtypes import is_float
from layerscope.errors import ForwardError, ImageError, UsageError
from layerscope.findings import Doctor
from layerscope.networks.identify import identify
from layerscope.record import Entry, Histogram, Picture, Prediction, Record
from layerscope.sites import Site, choose
from layerscope.stats import distribution
from layerscope.tensors import kernel_maps, layout_of, role_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerscope.networks.open import Network

__all__ = ["BATCH", "Progress", "batch_of", "features", "quiet", "run", "weights", "zeros"]

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
    doctor = Doctor()
    with open_checkpoint(path) as checkpoint:
        record = Record("weights", os.fspath(path), foreign=list(checkpoint.foreign))
        record.notes = list(checkpoint.warnings)
        record.provenance = {"layerscope": __version__, "format": checkpoint.format, **checkpoint.extra}
        specs = _chosen(checkpoint, patterns, record)
        architecture = identify({spec.name: spec.shape for spec in checkpoint.specs if spec.role == "weight"})
        record.provenance["architecture"] = str(architecture) if architecture else None
        whole, done = sum(spec.nbytes for spec in specs), 0
        for spec in specs:
            progress(done, whole, spec.name)
            bits = checkpoint.read(spec)
            entry = _tensor(spec, bits, bins, maps)
            record.add(entry)
            doctor.see(entry, bits)
            done += spec.nbytes
        progress(whole, whole, "")
    record.findings = doctor.finish()
    return record


def _chosen(checkpoint: Checkpoint, patterns: list[str], record: Record) -> list[TensorSpec]:
    specs = [spec for spec in checkpoint.specs if spec.role == "weight"]
    if len(specs) < len(checkpoint.specs):
        record.notes.append(f"{len(checkpoint.specs) - len(specs)} tensors of the optimizer are left out")
    if not patterns:
        return specs
    names = set(choose(patterns, [(spec.name, spec.dtype, True) for spec in specs], what="tensor"))
    return [spec for spec in specs if spec.name in names]


def _tensor(spec: TensorSpec, bits: Any, bins: int, maps: bool) -> Entry:
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


def batch_of(network: Network, images: Any) -> tuple[Tensor, list[Picture]]:
    """Preprocessed images (B, C, H, W) and the pictures that the network sees; a tensor is taken as it is."""
    import torch

    from layerscope.images import find_images, open_image

    if isinstance(images, torch.Tensor):
        return (images if images.dim() > 3 else images[None]), []
    paths = find_images([images] if isinstance(images, str | os.PathLike) else images)
    if not paths:
        raise ImageError("no image given; name at least one image file")
    opened = [open_image(path) for path in paths]
    seen = [network.preprocessing.picture(image).convert("RGB") for image in opened]
    tensors = [network.preprocessing(image) for image in opened]
    if len({tensor.shape for tensor in tensors}) > 1:
        raise ImageError("the images differ in size after preprocessing; set --size, or --resize and --crop")
    pictures = [Picture(path.name, np.asarray(image)) for path, image in zip(paths, seen, strict=True)]
    return torch.stack(tensors), pictures


def zeros(network: Network, shape: str | None = None) -> Tensor:
    """An input of zeros (1, C, H, W): of the shape `3x224x224` if one is given, else as the preprocessing makes it."""
    import torch

    if shape is None:
        return torch.zeros(1, len(network.preprocessing.mean), *network.preprocessing.size)
    sizes = shape.lower().split("x")
    if not all(size.isdigit() and 0 < int(size) <= 65536 for size in sizes):
        raise UsageError(f"--input {shape}: is no shape; write channels x height x width, such as 3x224x224")
    return torch.zeros(1, *map(int, sizes))


def run(network: Network, batch: Tensor) -> Any:
    """One forward pass. Raises ForwardError, which names the network, the input and what was said."""
    try:
        return network.model(batch)
    except Exception as error:  # a network may raise anything
        said = " ".join(str(error).split())[:300] or "no message"
        raise ForwardError(
            f"{network.name}: forward raised {type(error).__name__} on an input of shape {tuple(batch.shape)}: "
            f"{said}; check the input size (--size) and the network"
        ) from error


def features(
    model: nn.Module | Network | str,
    images: Any,
    layers: str | Sequence[str] = (),
    maps: bool = True,
    progress: Progress = quiet,
) -> Record:
    """Run images through a network and record every layer that runs, as the layer produced it.

    `model`: a module, or what the command line takes for NETWORK. `images`: a tensor (B, C, H, W) that is
    preprocessed already, a path, or several; a folder stands for the images in it. `layers`: globs over the paths or
    types of layers; all leaves if empty. Statistics are per channel over all images; maps are per image.
    The network is left as it was. Raises ImageError, NetworkError, ForwardError or NoMatch.
    """
    import torch

    from layerscope.hooks import looking, tap, tappable
    from layerscope.networks.open import Network, open_network
    from layerscope.reduce import Collector

    network = model if isinstance(model, Network) else open_network(model)
    table = [(path, type(module).__name__, leaf) for path, module, leaf in tappable(network.model)]
    patterns = [layers] if isinstance(layers, str) else list(layers)
    chosen = choose(patterns, table) if patterns else [path for path, _, leaf in table if leaf]
    batch, pictures = batch_of(network, images)
    record = Record("features", network.subject, pictures=pictures, notes=list(network.notes))
    record.provenance = {
        "layerscope": __version__,
        "torch": torch.__version__,
        "preprocessing": str(network.preprocessing),
    }
    collector = Collector(None if maps else 0)
    with looking(network.model):
        for start in range(0, len(batch), BATCH):
            progress(start, len(batch), network.name)
            with tap(network.model, collector.keep, chosen):
                output = run(network, batch[start : start + BATCH])
            record.predictions += _top(output, network.labels)
        progress(len(batch), len(batch), "")
    for entry in collector.entries():
        record.add(entry)
    ran = {entry.site.path.partition("[")[0] for entry in record}
    record.never = [path for path in chosen if path not in ran]
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
