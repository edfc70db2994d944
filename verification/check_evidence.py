"""Grad-CAM, occlusion and effective receptive fields against captum, called plainly, and against their formulas."""

from __future__ import annotations

import copy
import importlib
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from layerscope.networks.build import build
from layerscope.units import effective_receptive_field, grad_cam, occlusion
from verification.measuring import Comparison, version
from verification.references import plain

__all__ = ["compare"]

NETWORKS = ["resnet18", "vgg11_bn", "mobilenet_v2", "densenet121", "shufflenet_v2_x0_5", "googlenet", "efficientnet_b0",
            "convnext_tiny", "squeezenet1_1", "regnet_x_400mf", "alexnet"]  # fmt: skip
#: layers whose output is (N, H, W, C)
LAST = {
    "swin_t": ("features.1.0.norm2", "features.3.1", "features.5.2.mlp"),
    "swin_v2_t": ("features.1.1", "features.5.0"),
}
SIDE = 64
#: roundings of float32, of the greatest value of the map: 2.4e-4 of it
LIMIT = 2048.0
#: the same where the same operations are done in the same order
CLOSE = 16.0


class Evidences:
    """The comparisons."""

    def __init__(self) -> None:
        captum = version("captum")
        self.cam = Comparison("grad_cam at the layer's size", f"{captum} LayerGradCam", CLOSE, "float32")
        self.full = Comparison(
            "grad_cam at the input's size", f"{captum} LayerAttribution.interpolate", LIMIT, "float32"
        )
        self.formula = Comparison("grad_cam", "Selvaraju et al. 2017 in torch, float64", LIMIT, "float32")
        self.occlusion = Comparison("occlusion", f"{captum} Occlusion, one window a pass", LIMIT, "float32")
        self.loop = Comparison("occlusion", "a loop over the windows in torch, float64", LIMIT, "float32")
        self.effective = Comparison("effective_receptive_field", f"{captum} NeuronGradient", CLOSE, "float32")

    @property
    def lines(self) -> list[Comparison]:
        """Lines of the table."""
        return [self.cam, self.full, self.formula, self.occlusion, self.loop, self.effective]


def compare(quick: bool) -> tuple[list[Comparison], list[str]]:
    """Networks with random weights, several layers each."""
    found, attr = Evidences(), _captum()
    several = NETWORKS[:1] if quick else NETWORKS
    for name in several:
        model, x = _network(name)
        for layer in _layers(model, x, 3 if quick else 4):
            _cam(found, attr, f"{name} {layer}", model, layer, x, first=True)
        _occlusion(found, attr, name, model, x)
    last = {} if quick else LAST
    for name, layers in last.items():
        model, x = _network(name)
        for layer in layers:
            _cam(found, attr, f"{name} {layer}", model, layer, x, first=False)
    notes = [
        f"Networks of torchvision with random weights, one image of {SIDE} x {SIDE}: {', '.join([*several, *last])}; "
        "up to four layers each, spread over the depth, batch norms before an in-place ReLU among them. captum gets "
        "a copy of the network without in-place modules; layers in NHWC are compared with the formula alone.",
        "The unit is that of the greatest value of a map; for occlusion of the greatest score.",
        "layerscope calls captum as well: against captum this checks how it is called, against the formula what it "
        "says.",
    ]
    return found.lines, notes


def _captum() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("captum.attr")


def _network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return build(f"torchvision:{name}", 10).eval(), torch.randn(1, 3, SIDE, SIDE)


def _twin(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False
    return twin


def _layers(model: nn.Module, x: Tensor, most: int) -> list[str]:
    """Layers that run once and give a map, spread over the depth."""
    outputs = plain(model, (x,))
    maps = [
        path
        for (path, _), output in outputs.found.items()
        if outputs.calls[path] == 1 and isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1
    ]
    return [maps[i] for i in sorted(set(np.linspace(0, len(maps) - 1, most).astype(int).tolist()))]


def _cam(
    found: Evidences, attr: Any, case: str, model: nn.Module, layer: str, x: Tensor, first: bool
) -> None:  # fmt: skip
    target = 3
    small, full = grad_cam(model, layer, x, target)
    right = _formula(model, layer, x, target, first)
    size = max(float(np.abs(right).max()), 1e-30)
    found.formula.see(case, small, right, size)
    if not first:
        return
    twin = _twin(model)
    theirs = attr.LayerGradCam(twin, twin.get_submodule(layer)).attribute(x, target, relu_attributions=True).detach()
    found.cam.see(case, small, theirs[0, 0].numpy(), size)
    large = attr.LayerAttribution.interpolate(theirs, (SIDE, SIDE), "bilinear")
    found.full.see(case, full, large[0, 0].numpy(), size)
    channel, height, width = theirs.shape[1] - 1, theirs.shape[2] // 2, theirs.shape[3] // 2
    ours = effective_receptive_field(model, layer, channel, (height, width), x)
    gradient = attr.NeuronGradient(twin, twin.get_submodule(layer)).attribute(
        x.clone().requires_grad_(), (channel, height, width)
    )
    expected = gradient[0].abs().sum(0).detach().numpy()
    found.effective.see(case, ours, expected, max(float(expected.max()), 1e-30))


def _formula(model: nn.Module, layer: str, x: Tensor, target: int, first: bool) -> np.ndarray:
    """The maps weighted with the means of their gradients, summed, cut at 0: in float64, (h, w)."""
    twin = _twin(model).double()
    kept: list[Tensor] = []

    def hook(_module: nn.Module, _given: Any, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # what is kept stays as it is

    handle = twin.get_submodule(layer).register_forward_hook(hook)
    score = twin(x.double().requires_grad_())[0, target]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept)
    maps, gradient = (one[0] if first else one[0].permute(2, 0, 1) for one in (kept[0], gradient))  # (C, h, w)
    weights = gradient.mean((1, 2), keepdim=True)
    return functional.relu((weights * maps).sum(0)).detach().numpy()


def _occlusion(found: Evidences, attr: Any, name: str, model: nn.Module, x: Tensor) -> None:
    window, stride, target = (24, 20), (12, 16), 1
    ours = occlusion(model, x, target, window, stride)
    twin = _twin(model)
    with torch.no_grad():
        score = float(twin(x)[0].abs().max())
        theirs = attr.Occlusion(twin).attribute(x, (3, *window), (3, *stride), baselines=0.0, target=target)
    found.occlusion.see(name, ours, theirs[0, 0].numpy(), score)
    found.loop.see(name, ours, _loop(twin.double(), x.double(), target, window, stride), score)


def _loop(model: nn.Module, x: Tensor, target: int, window: tuple[int, int], stride: tuple[int, int]) -> np.ndarray:
    """Mean fall of the score over the windows that cover each pixel, (H, W)."""
    size = x.shape[-2:]
    starts = [range(0, s - w + t, t) for s, w, t in zip(size, window, stride, strict=True)]
    falls, times = np.zeros(size), np.zeros(size)
    with torch.no_grad():
        whole = float(model(x)[0, target])
        for top in starts[0]:
            for left in starts[1]:
                covered = x.clone()
                covered[..., top : top + window[0], left : left + window[1]] = 0
                falls[top : top + window[0], left : left + window[1]] += whole - float(model(covered)[0, target])
                times[top : top + window[0], left : left + window[1]] += 1
    return falls / times
