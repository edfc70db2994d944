"""Early stops, counts of calls and dead channels against counting by hand; the demo's network from file to classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

import layerscope
from layerscope.commands import demo
from layerscope.inspection import structure
from layerscope.networks.build import build
from layerscope.networks.open import open_network
from verification.measuring import Comparison, version
from verification.references import pure

__all__ = ["compare"]

NETWORKS = ["resnet18", "googlenet", "mobilenet_v2", "shufflenet_v2_x0_5", "densenet121", "regnet_y_400mf",
            "efficientnet_b0", "squeezenet1_1", "mnasnet0_5", "vit_b_32", "swin_t"]  # fmt: skip
SIDES = {"vit_b_32": 224}
#: so far below zero that a rectifier behind it gives nothing
KILLED = -1e4
LIMIT = 16384.0


class Passes:
    """The comparisons."""

    def __init__(self) -> None:
        torchs = version("torch")
        self.ran = Comparison("early stop: modules that run", "the beginning of a full pass, up to the last one wanted")
        self.same = Comparison("early stop: statistics of every channel", "those of a full pass")
        self.calls = Comparison("calls of every module", f"{torchs}, a global hook")
        self.entries = Comparison("entries of a record for every module", f"{torchs}, a global hook")
        self.dead = Comparison(
            "dead channels of every layer and call, over 20 images", f"{torchs}, every value looked at"
        )
        self.silent = Comparison("zeros of every channel, over 20 images", f"{torchs}, every value looked at")
        both = f"torchvision {torchvision.__version__.partition('+')[0]} with its own transforms and weights"
        self.input = Comparison("the demo's photo as the network takes it", both, 4, "float32")
        self.demo = Comparison("the demo's network: min, max of every channel", both, 512, "float32")
        self.classes = Comparison("the demo's network: five classes", both)
        self.probable = Comparison("the demo's network: their probabilities", both, 512, "float32")

    @property
    def lines(self) -> list[Comparison]:
        """Lines of the table."""
        return [self.ran, self.same, self.calls, self.entries, self.dead, self.silent, self.input, self.demo,
                self.classes, self.probable]  # fmt: skip


@contextmanager
def _started(model: nn.Module) -> Iterator[list[str]]:
    """Paths of the modules in the order in which their calls begin, by a hook on all modules that there are."""
    paths = {module: path for path, module in model.named_modules()}
    order: list[str] = []

    def note(module: nn.Module, _given: object) -> None:
        if paths.get(module):
            order.append(paths[module])

    handle = register_module_forward_pre_hook(note)
    try:
        yield order
    finally:
        handle.remove()


def compare(quick: bool) -> tuple[list[Comparison], list[str]]:
    """Networks with random weights, some of their channels killed, and the demo's."""
    found = Passes()
    several = NETWORKS[:2] if quick else NETWORKS
    for name in several:
        torch.manual_seed(0)
        model = build(f"torchvision:{name}", 10).eval()
        side = SIDES.get(name, 64)
        _counts(found, name, model, torch.randn(2, 3, side, side))
        _early(found, name, model, torch.randn(2, 3, side, side), 2 if quick else 3)
        if name not in SIDES:
            _dead(found, name, model)
    if not quick:
        _demo(found)
    notes = [
        f"Networks of torchvision with random weights: {', '.join(several)}. Stops at three layers each. For dead "
        "channels a fifth of all shifts of batch norms is set far below zero, and the images come in two passes.",
        "The demo: MobileNetV2 of ImageNet from its file, and its photo from its file, against torchvision's network, "
        "transforms and torch.load; in torchvision's network in-place operations are left out, see above.",
    ]
    return found.lines, notes


def _counts(found: Passes, name: str, model: nn.Module, x: Tensor) -> None:
    network = open_network(model)
    rows = structure(network, x)
    with _started(model) as order, torch.no_grad():
        model(x.clone())
    counted = Counter(order)
    found.calls.see(name, [row.calls for row in rows], [counted[row.path] for row in rows])
    record = layerscope.features(model, x, maps=False)
    single = Counter(entry.site.path for entry in record.values() if "[" not in entry.site.path)
    paths = list(single)
    found.entries.see(name, [single[path] for path in paths], [counted[path] for path in paths])
    leaves = {path for path, module in model.named_modules() if path and not list(module.children())}
    missing = [path for path in leaves if counted[path] and path not in single]
    found.entries.see(f"{name}: {missing[:3]}", len(missing), 0)


def _early(found: Passes, name: str, model: nn.Module, x: Tensor, most: int) -> None:
    with _started(model) as full, torch.no_grad():
        model(x.clone())
    whole = layerscope.features(model, x, maps=False)
    ran = [path for path in dict.fromkeys(full) if path in whole.entries]
    for path in [ran[i] for i in sorted(set(np.linspace(0, len(ran) - 1, most).astype(int).tolist()))]:
        layerscope.features(model, torch.randn_like(x), path, maps=False, predict=False)  # how often it runs
        with _started(model) as order:
            record = layerscope.features(model, x, path, maps=False, predict=False)
        last = len(full) - full[::-1].index(path)  # calls up to the last of the wanted
        numbers = {one: number for number, one in enumerate(dict.fromkeys(full))}
        found.ran.see(f"{name} {path}", [numbers[one] for one in order], [numbers[one] for one in full[:last]])
        for entry in record.values():
            ours, theirs = entry.columns, whole[entry.key].columns
            assert ours is not None and theirs is not None
            found.same.see(f"{name} {entry.key}", np.stack(ours).astype(float), np.stack(theirs).astype(float))


def _dead(found: Passes, name: str, model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.zeros_(module.bias)
            with torch.no_grad():
                module.bias[torch.rand(len(module.bias)) < 0.2] = KILLED
    x = torch.randn(20, 3, 32, 32)
    record = layerscope.features(model, x, maps=False)
    truth = pure(model, (x,))
    for entry in record.values():
        output = truth.found.get((entry.site.path, entry.site.call))
        axis = entry.site.channel_axis
        if not isinstance(output, Tensor) or axis is None or not truth.kept((entry.site.path, entry.site.call)):
            continue
        zeros = (output == 0).movedim(axis, 0).flatten(1)  # (C, N)
        assert entry.columns is not None
        if len(zeros) == len(entry.columns.zeros):
            found.dead.see(f"{name} {entry.key}", entry.dead, zeros.all(1).nonzero().flatten().numpy())
            found.silent.see(f"{name} {entry.key}", entry.columns.zeros, zeros.sum(1).numpy())


def _demo(found: Passes) -> None:
    checkpoint, photo = demo.files()
    weights = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
    model = torchvision.models.mobilenet_v2()
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    x = weights.transforms()(Image.open(photo).convert("RGB"))[None]
    network = open_network(str(checkpoint))
    record = layerscope.features(network, photo)
    ours = network.preprocessing(Image.open(photo))
    found.input.see(photo.name, ours.numpy(), x[0].numpy(), float(x.abs().max()))
    truth = pure(model.eval(), (x,))
    for entry in record.values():
        output = truth.found[entry.site.path, entry.site.call].transpose(0, 1).flatten(1)  # (C, N)
        size = float(output.abs().max())
        assert entry.columns is not None
        ends = np.stack([entry.columns.min, entry.columns.max]).astype(np.float32)
        found.demo.see(entry.key, ends, torch.stack([output.amin(1), output.amax(1)]).numpy(), size)
    probability, index = truth.last.softmax(1)[0].topk(5)
    predicted = record.predictions[0]
    found.classes.see(photo.name, [one.index for one in predicted], index.numpy())
    names = [weights.meta["categories"][int(i)] == one.label for i, one in zip(index, predicted, strict=True)]
    found.classes.see(f"{photo.name}, labels", names, [True] * 5)
    found.probable.see(photo.name, np.array([one.probability for one in predicted]), probability.numpy())
