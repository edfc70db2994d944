"""Training a network on images by class: what `layerscope train` does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from layerscope.activations.hooks import looking
from layerscope.errors import NetworkError, UsageError
from layerscope.images.files import open_image
from layerscope.images.preprocessing import Preprocessing
from layerscope.networks.build import build, head_of, preprocessing_for, split_name
from layerscope.networks.devices import Device, described, device_named
from layerscope.networks.feeding import run
from layerscope.networks.open import Network, open_network, transfer
from layerscope.progress import Progress, quiet
from layerscope.text import counted, first_of
from layerscope.training.data import Examples, find_examples
from layerscope.training.keep import Best
from layerscope.training.logs import scores, watched
from layerscope.training.loop import Diverged, Epoch, Plan, Training, logits_of

__all__ = ["Diverged", "Epoch", "Result", "train"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """The best epoch (numbers count from 1) and what it left behind; `epochs` has all of them in order."""

    best_accuracy: float
    epoch: int
    classes: list[str]
    checkpoint: Path
    network: str
    preprocessing: Preprocessing
    epochs: list[Epoch]
    broken: list[Path]


def train(
    images: Path,
    network: str,
    save: Path,
    *,
    weights: str | None = None,
    freeze: bool = False,
    epochs: int = 1,
    batch_size: int = 32,
    lr: float = 2e-4,
    seed: int = 0,
    val: float = 0.2,
    most: int | None = None,
    size: int | None = None,
    logdir: Path | None = None,
    probe: Path | None = None,
    device: Device = None,
    say: Say = print,
    progress: Progress = quiet,
) -> Result:
    """Train a network on a folder of images by class, or on MNIST's idx files, and keep the best state in
    `save`.

    images: a folder with one folder of images a class, or with `train` and `val` folders of that kind, or
    with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`. network: `layerscope:NAME`,
    `torchvision:NAME`, `timm:NAME` or the user's `file.py:callable`. weights: a checkpoint whose tensors are
    taken where they fit. freeze: only the last layer learns. val: share of every class that is held out.
    most: use at most so many images, evenly over the classes. size: resize to so many pixels square. probe:
    the image whose feature maps go to `logdir`, the first held-out one by default. device: where
    it is trained, the CPU by default; the checkpoint holds CPU tensors whatever it is.

    Beside the checkpoint `classes.json` gets its classes and preprocessing. The same seed gives the same
    weights on the same machine; torch's own random state is left as it was. `say` gets lines for a person,
    one an epoch among them. Raises UsageError, DeviceError, ImageError, NetworkError, OutputError, and Diverged
    when the loss is not finite any more; then, and after Ctrl-C, the best checkpoint so far is whole.

        >>> result = layerscope.train(Path("flowers"), "torchvision:squeezenet1_1", Path("a.pth"), size=64, say=print)
        2 classes: ...
        >>> result.classes, result.checkpoint.exists()
        (['daisy', 'tulip'], True)
    """
    _check(network, epochs, batch_size, lr, seed, val, most, size)
    where = device_named(device) or torch.device("cpu")
    picture = (open_image(probe), probe.name) if probe else None
    examples = find_examples(Path(images), seed, val, most, progress)
    _tell(examples, say)
    if device:
        say(f"device: {described(where)}")
    with torch.random.fork_rng(devices=[]), ExitStack() as stack:
        torch.default_generator.manual_seed(seed)
        made = _network(network, examples.classes, size)
        made.model.to(where)
        _try(made)
        if weights:
            say(_transferred(made, weights))
        best = Best(Path(save), made)
        logs = None
        if logdir:
            logs = stack.enter_context(watched(logdir, made, examples, batch_size, picture, say))

        def on_epoch(epoch: Epoch) -> None:
            say(f"{epoch}   best" if best.offer(epoch) else str(epoch))
            if logs:
                logs.log(scores(epoch))

        plan = Plan(epochs, batch_size, lr, seed, _head(made) if freeze else "")
        training = Training(made, examples, plan, on_epoch, logs, progress)
        return _result(_run(training, best, say), best, examples, made)


def _run(training: Training, best: Best, say: Say) -> list[Epoch]:
    """Train, and if that ends early, say what there is."""
    try:
        return training.run()
    except Diverged as error:
        raise Diverged(f"{error}; {best}") from None
    except KeyboardInterrupt:
        say(f"interrupted: {best}")
        raise


def _result(epochs: list[Epoch], best: Best, examples: Examples, network: Network) -> Result:
    top = best.epoch
    assert top  # there is at least one epoch
    return Result(
        best_accuracy=top.val.accuracy,
        epoch=top.number,
        classes=examples.classes,
        checkpoint=best.path,
        network=network.name,
        preprocessing=network.preprocessing,
        epochs=epochs,
        broken=examples.broken,
    )


def _check(
    network: str, epochs: int, batch: int, lr: float, seed: int, val: float, most: int | None, size: int | None
) -> None:
    """Raises UsageError for the first wish that cannot be."""
    if "=" in network or ":" not in network:
        raise UsageError(
            f"{network!r} cannot be trained; name a network such as layerscope:alexnet, torchvision:resnet34 "
            "or file.py:function, and give a checkpoint to begin with to --weights"
        )
    for name, value in {"epochs": epochs, "batch": batch, "size": size}.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name}: {value} is too small; give 1 or more")
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed: {seed} is no seed; give a whole number from 0 on")
    if most is not None and most < 4:
        raise UsageError(f"--images: {most} is too small; give 4 or more, two for each of two classes")
    if not 0 < lr < float("inf"):
        raise UsageError(f"--lr: {lr} is no learning rate; give a number above 0, such as 2e-4")
    if not 0 < val < 1:
        raise UsageError(f"--val: {val} is no share; give a number between 0 and 1, such as 0.2")


def _tell(examples: Examples, say: Say) -> None:
    say(
        f"{counted(len(examples.classes), 'class')}: {counted(len(examples.train), 'image')} to learn from, "
        f"{len(examples.held_out)} held out to validate"
    )
    if examples.broken:
        say(
            f"{counted(len(examples.broken), 'image')} cannot be read and will be left out: {first_of(examples.broken)}"
        )


def _network(name: str, classes: list[str], size: int | None) -> Network:
    """The network with one output a class, and with what it will see."""
    if split_name(name):
        network = Network(build(name, len(classes)), name, preprocessing_for(name))
    else:
        network = open_network(name)
    preprocessing = network.preprocessing
    if size:
        preprocessing = replace(preprocessing, resize=(size, size), crop=None)
    return replace(network, preprocessing=preprocessing, labels=list(classes))


def _try(network: Network) -> None:
    """Two empty images through the network. Raises NetworkError unless it gives one value a class."""
    preprocessing, classes = network.preprocessing, len(network.labels or [])
    images = torch.zeros(2, len(preprocessing.mean), *preprocessing.size)
    with looking(network.model):
        logits = logits_of(run(network, images))
    if logits is None or logits.shape != (2, classes):
        gives = "no tensor" if logits is None else f"{tuple(logits.shape)}"
        raise NetworkError(
            f"{network.name}: gives {gives} for 2 images, and {classes} classes need {(2, classes)}; "
            f"let its last layer have {classes} outputs"
        )


def _transferred(network: Network, file: str) -> str:
    copied, left = transfer(network.model, file)
    return f"{copied} of {copied + len(left)} tensors from {file}" + (f"; new are {first_of(left)}" if left else "")


def _head(network: Network) -> str:
    found = head_of(network.model)
    if not found:
        raise NetworkError(f"{network.name}: has no linear or convolution layer as its last; train it without --freeze")
    return found[0]
