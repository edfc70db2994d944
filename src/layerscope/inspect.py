"""A network and images, or a checkpoint alone -> a record."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
            done += spec.nbytes
            if spec.unreadable:
                note = f"no statistics: {spec.unreadable}"
                record.add(Entry(Site(spec.name), "tensor", spec.shape, spec.dtype, note=note))
                continue
            bits = checkpoint.read(spec)
            entry = _tensor(spec, bits, bins, maps)
            record.add(entry)
            doctor.see(entry, bits)
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
    from layerscope.networks.foreign import home_of

    if isinstance(images, torch.Tensor):
        return (images[None] if images.dim() == 3 and network.takes != "series" else images), []
    paths = find_images([images] if isinstance(images, str | os.PathLike) else images)
    if not paths:
        raise ImageError("no image given; name at least one image file")
    opened = [open_image(path) for path in paths]
    seen = [network.preprocessing.picture(image).convert("RGB") for image in opened]
    tensors = [network.preprocessing(image) for image in opened]
    if len({tensor.shape for tensor in tensors}) > 1:
        raise ImageError("the images differ in size after preprocessing; set --size, or --resize and --crop")
    pictures = [Picture(path.name, np.asarray(image)) for path, image in zip(paths, seen, strict=True)]
    return torch.stack(tensors).to(home_of(network.model)[1]), pictures


def _passes(network: Network, images: Any) -> tuple[list[Any], list[Picture], int | None]:
    """What each pass is given, the pictures, and the number of images; None where the inputs do not tell it.

    A tensor or photos are cut into batches. What a network is called with in another way is one pass: a list of
    tensors is one argument, a tuple several, a dict named ones.
    """
    import torch

    photos = isinstance(images, torch.Tensor | str | os.PathLike) or all(map(_is_path, images))
    if isinstance(images, dict) or not photos:
        return [images], [], len(images) if isinstance(images, list) else None
    batch, pictures = batch_of(network, images)
    return [batch[at : at + BATCH] for at in range(0, len(batch), BATCH)], pictures, len(batch)


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def zeros(network: Network, shape: str | None = None) -> Tensor:
    """An input of zeros (1, C, H, W): of the shape `3x224x224` if one is given, else as the preprocessing makes it."""
    import torch

    if shape is None:
        return torch.zeros(1, len(network.preprocessing.mean), *network.preprocessing.size)
    sizes = shape.lower().split("x")
    if not all(size.isdigit() and 0 < int(size) <= 65536 for size in sizes):
        raise UsageError(f"--input {shape}: is no shape; write channels x height x width, such as 3x224x224")
    return torch.zeros(1, *map(int, sizes))


def run(network: Network, given: Any) -> Any:
    """One forward pass. Raises ForwardError, which names the network, the input and what was said.

    `given`: images (B, C, H, W), handed on as the network takes them; or a list, which is one argument, a tuple of
    arguments, or a dict of named ones. The network works on copies, on its own device: it may write into its input.
    """
    import torch

    from layerscope.networks.foreign import fed, home_of

    device, _ = home_of(network.model)

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device, copy=True)
        if isinstance(value, list | tuple):
            return type(value)(map(copied, value)) if type(value) in (list, tuple) else value
        return {key: copied(one) for key, one in value.items()} if isinstance(value, dict) else value

    ours = copied(given)
    named = ours if isinstance(ours, dict) else {}
    args = (
        (fed(ours, network.takes),) if isinstance(ours, torch.Tensor) else ours if isinstance(ours, tuple) else (ours,)
    )
    try:
        return network.model(**named) if named else network.model(*args)
    except Exception as error:  # a network may raise anything
        said = " ".join(str(error).split())[:300] or "no message"
        shape = f"of shape {tuple(given.shape)}" if isinstance(given, torch.Tensor) else f"({type(given).__name__})"
        raise ForwardError(
            f"{network.name}: forward raised {type(error).__name__} on an input {shape}: "
            f"{said}; check the input size (--size) and the network"
        ) from error


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
    preprocessed already, a path, or several; a folder stands for the images in it. A network that takes something
    else is given a list of tensors, a tuple of its arguments or a dict of its named arguments.
    `layers`: globs over the paths or types of layers; all leaves if empty. `ops`: what functions between the modules
    give, too, as `layer1.0/add`. `attention`: the weights of every attention as `PATH/attention`, a head a channel.
    `predict=False`: no classes; passes after the first end as soon as the last of the layers has run.
    Statistics are per channel over all images; maps are per image.
    The network is left as it was. Raises ImageError, NetworkError, ForwardError or NoMatch.
    """
    import torch

    from layerscope.hooks import looking, tap, tappable
    from layerscope.networks.foreign import said_of
    from layerscope.networks.open import Network, open_network
    from layerscope.ops import Functions
    from layerscope.reduce import Collector
    from layerscope.selection import absent, select

    network = model if isinstance(model, Network) else open_network(model)
    patterns = [layers] if isinstance(layers, str) else list(layers)
    chosen = select(network.model, patterns, lenient=ops or attention)
    spare = [] if patterns else [path for path, _, leaf in tappable(network.model) if not leaf]
    passes, pictures, count = _passes(network, images)
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
    with looking(network.model):
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
