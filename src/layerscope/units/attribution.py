"""Which pixels speak for a class: Grad-CAM and occlusion, computed by captum."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from layerscope.activations.hooks import call, looking
from layerscope.activations.modules import Table, tensors_in
from layerscope.errors import LayerscopeError, UsageError
from layerscope.progress import Progress, quiet
from layerscope.text import nearest
from layerscope.units.place import Place, placing, run_to_layer

__all__ = ["Target", "class_of", "deepest", "grad_cam", "occlusion"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """A class: its index in the output, and how probable the network finds it on image 0."""

    index: int
    probability: float
    predicted: bool


def _captum() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum's own imports are not the user's business
            return importlib.import_module("captum.attr")
    except ImportError as error:
        raise LayerscopeError("class evidence needs captum; pip install 'layerscope[evidence]'") from error


class _Scores(nn.Module):
    """A network that returns its class scores (N, classes) and nothing else, and writes into no input of the caller."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        for _, tensor in tensors_in(call(self.model, x.clone(), type(self.model).__name__)):
            if tensor.dim() == 2 and tensor.is_floating_point():
                return tensor
        raise LayerscopeError("the network gives no class scores (N, classes); class evidence needs a classifier")


def class_of(
    model: nn.Module, x: Tensor, target: int | str | None = None, labels: Sequence[str] | None = None
) -> Target:
    """The class that is meant: predicted if None, an index, or a label. Raises UsageError with the nearest labels."""
    with looking(model):
        scores = _Scores(model)(x)[0].float()  # (classes,)
    best, classes = int(scores.argmax()), len(scores)
    if target is None:
        index = best
    elif isinstance(target, int) or target.isdigit():
        index = int(target)
    elif labels and target in labels:
        index = list(labels).index(target)
    else:
        hint = nearest(target, labels) if labels else "; the network has no labels: give an index"
        raise UsageError(f"target {target!r}: no class of that name{hint}")
    if not 0 <= index < classes:
        raise UsageError(f"target {index}: the network has classes 0 to {classes - 1}")
    return Target(index, float(scores.softmax(0)[index]), index == best)


def grad_cam(
    model: nn.Module, layer: str, x: Tensor, target: int | None = None, relu: bool = True
) -> tuple[Floats, Floats]:
    """Grad-CAM of one layer for a class: float32 (h, w) at the layer's size and (H, W) at that of the input.

    R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks", ICCV 2017: the maps of the layer,
    each weighted with the mean over its positions of the gradient of the class's score, summed, cut at 0 with `relu`.
    `layer`: any whose output has two axes in space, in NCHW or NHWC, or tokens that fit a square grid; `:1` for its
    second call. `x`: (1, C, H, W). `target`: the predicted class if None. Enlarged bilinearly.
    Raises UsageError for a layer without a map, NoMatch, LayerscopeError without captum.
    """
    attr = _captum()
    index = class_of(model, x[:1], target).index
    probe, table = nn.Identity(), Table(model)
    path, wanted = table.resolve(layer)
    # Before captum, which would say less clearly that the layer does not run, or not so often.
    place = run_to_layer(model, layer, (x[:1].detach().clone(),), lambda _output, place: place).result
    if len(place.grid) != 2:
        raise UsageError(
            f"{layer}: its output {' x '.join(map(str, place.shape))} has no map of two axes; name a layer before the "
            "pooling or flattening, or one with tokens on a square grid"
        )

    def replace(key: str, _module: nn.Module, output: Tensor, place: Place) -> Tensor | None:
        # captum looks at the probe alone: one call, channels second. It copies what it sees, so that an in-place
        # operation after the layer changes nothing.
        return place.unmap(probe(place.map(output)), output) if key == wanted.key else None

    scores = _Scores(model)
    scores.probe = probe
    with looking(model), torch.enable_grad(), placing(table, [path], replace, replacing=True):
        given = x[:1].detach().clone().requires_grad_()
        found = attr.LayerGradCam(scores, probe).attribute(given, target=index, relu_attributions=relu)
    cam = found.detach()[:, :1].float()  # (1, 1, h, w)
    full = functional.interpolate(cam, x.shape[-2:], mode="bilinear", align_corners=False)
    return cam[0, 0].cpu().numpy(), full[0, 0].cpu().numpy()


def occlusion(
    model: nn.Module,
    x: Tensor,
    target: int | None = None,
    window: int | tuple[int, int] = 32,
    stride: int | tuple[int, int] = 16,
    baseline: float | Tensor = 0.0,
    at_once: int = 8,
    *,
    progress: Progress = quiet,
) -> Floats:
    """How much the class's score falls when a patch is covered, float32 (H, W).

    M. D. Zeiler and R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014. `window` and
    `stride` in pixels; each pixel has the mean over the windows that cover it, the last ones cut at the edge. Covered
    pixels get `baseline`: 0 is the mean colour after the usual preprocessing. `at_once`: windows a forward pass.
    Raises UsageError for a window or stride that does not fit.
    """
    attr = _captum()
    size = tuple(x.shape[-2:])
    windows, strides = _pair(window), _pair(stride)
    for name, values, most in (("window", windows, size), ("stride", strides, windows)):
        if not all(0 < value <= high for value, high in zip(values, most, strict=True)):
            raise UsageError(f"{name} {' x '.join(map(str, values))}: give 1 to {' x '.join(map(str, most))} pixels")
    index = class_of(model, x[:1], target).index
    scores = _Scores(model)
    count = np.prod([-(-(size[axis] - windows[axis]) // strides[axis]) + 1 for axis in (0, 1)])
    done = 0

    def run(batch: Tensor) -> Tensor:
        nonlocal done
        progress(min(done, int(count)), int(count), "occlusion")
        done += len(batch)
        return scores(batch)

    with looking(model):
        found = attr.Occlusion(run).attribute(
            x[:1].detach().clone(),
            sliding_window_shapes=(x.shape[1], *windows),
            strides=(x.shape[1], *strides),
            baselines=baseline,
            target=index,
            perturbations_per_eval=at_once,
        )
    progress(int(count), int(count), "")
    return found[0, 0].float().cpu().numpy()  # the same for every channel: a window covers them all


def deepest(model: nn.Module, x: Tensor, target: int) -> str:
    """The last layer whose map, of at least 2 x 2, the class's score depends on: what Grad-CAM is meant for.

    In a vision transformer this is not the last layer with tokens: after the last attention only the class token
    counts, and the gradient of all others is zero.
    """
    seen: list[tuple[str, Place, Tensor]] = []

    def keep(key: str, _module: nn.Module, output: Tensor, place: Place) -> Tensor | None:
        if len(place.grid) != 2 or min(place.grid) < 2 or not output.requires_grad or "C" not in place.layout:
            return None
        seen.append((key, place, output))
        return output.clone()  # what was seen stays as the layer produced it

    table = Table(model)
    with looking(model), torch.enable_grad(), placing(table, table.observable, keep, replacing=True):
        score = _Scores(model)(x[:1].detach().clone().requires_grad_())[0, target]
        gradients = torch.autograd.grad(score, [tensor for _, _, tensor in seen], allow_unused=True) if seen else []
    for (key, place, _), gradient in zip(reversed(seen), reversed(gradients), strict=True):
        if gradient is not None and bool(place.map(gradient).any()):
            return key
    raise LayerscopeError("no layer with a map of 2 x 2 or more leads to the class; name one with --layer")


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
