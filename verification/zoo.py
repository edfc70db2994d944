"""The networks of torchvision and timm that activations are compared on: random weights, small inputs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from layerscope.networks.build import build, unbuilt
from tests.test_zoo_slow import CLASSIFY, DETECT, SEGMENT, SIDES, TIMM, VIDEO

__all__ = ["LARGEST", "QUICK", "Net", "names", "nets"]

#: parameters of the largest network that is built: the copies of a larger one and its activations need many gigabytes
LARGEST = 150_000_000
#: one of each kind that is awkward in its own way: in place, attention, windows, detection
QUICK = ("torchvision:resnet18", "torchvision:squeezenet1_1", "torchvision:ssdlite320_mobilenet_v3_large")
#: 25,089 tokens attend to each other: many gigabytes for one pass
_HUNGRY = ("torchvision:mvit_v1_b",)
_FIXED = ("patch", "levit", "mixer", "coat", "cait", "davit", "efficientformer")


@dataclass(frozen=True)
class Net:
    """A network in evaluation mode and what it is called with."""

    name: str
    model: nn.Module
    args: tuple[Any, ...]


def names() -> tuple[list[str], list[str]]:
    """Names of all networks to be built, and of those that are left out for their size."""
    every = [f"torchvision:{name}" for name in (*CLASSIFY, *DETECT, *SEGMENT, *VIDEO)] + [
        f"timm:{name}" for name in TIMM
    ]
    large = [name for name in every if name in _HUNGRY or _parameters(name) > LARGEST]
    return [name for name in every if name not in large], large


def _parameters(name: str) -> int:
    return sum(one.numel() for one in unbuilt(name).parameters())


def nets(chosen: list[str]) -> Iterator[Net]:
    """The networks of these names, one at a time."""
    for name in chosen:
        torch.manual_seed(0)
        library, _, short = name.partition(":")
        model = build(name, 91 if short in DETECT else 10).eval()
        for one in model.parameters():
            if one.dim() > 1 and not one.any():  # a head of zeros says the same to everything
                nn.init.normal_(one, std=0.02)
        yield Net(name, model, _given(library, short, model))


def _given(library: str, short: str, model: Any) -> tuple[Any, ...]:
    if library == "timm":
        size = importlib.import_module("timm.data").resolve_model_data_config(model)["input_size"][-1]
        side = size if any(word in short for word in _FIXED) else min(size, 96)
        return (torch.randn(1, 3, side, side),)
    if short in DETECT:
        if hasattr(model.transform, "min_size") and not short.startswith("ssd"):
            model.transform.min_size, model.transform.max_size = (96,), 128
        if hasattr(model, "roi_heads"):
            # A thousand boxes of 256 maps each would add nothing but minutes.
            model.rpn._post_nms_top_n["testing"], model.roi_heads.detections_per_img = 20, 5
        return ([torch.rand(3, 96, 128)],)
    if short in VIDEO:
        side = 224 if short == "s3d" else 48
        return (torch.randn(1, 3, 16, side, side),)
    side = SIDES.get(short, 64)
    return (torch.randn(2, 3, side, side),)
