"""A network by name: layerscope:NAME, torchvision:NAME, timm:NAME."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from layerscope.errors import NetworkError, UsageError
from layerscope.images.preprocessing import HALF, IMAGENET, PIXELS, Preprocessing
from layerscope.networks.alexnet import AlexNet
from layerscope.text import nearest

__all__ = ["NETWORKS", "build", "head_of", "labels_for", "preprocessing_for", "split_name", "unbuilt"]


def _torchvision(name: str, **options: Any) -> nn.Module:
    import torchvision

    if name not in torchvision.models.list_models():
        raise NetworkError(
            f"torchvision:{name}: torchvision {torchvision.__version__} has no such network"
            f"{nearest(name, torchvision.models.list_models())}"
        )
    # Detection and segmentation networks would otherwise download the weights of their backbone.
    if name in torchvision.models.list_models(module=torchvision.models.detection) + torchvision.models.list_models(
        module=torchvision.models.segmentation
    ):
        options["weights_backbone"] = None
    return torchvision.models.get_model(name, weights=None, **options)


def _timm(name: str, **options: Any) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise NetworkError(f"timm:{name}: timm is not installed; pip install timm") from error
    if not timm.is_model(name):
        raise NetworkError(f"timm:{name}: timm has no such network{nearest(name, timm.list_models())}")
    return timm.create_model(name, pretrained=False, **options)


#: the networks of the tutorial; ResNet-34 and ResNet-101 have torchvision's keys and shapes, so they are torchvision's
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "resnet34": lambda **options: _torchvision("resnet34", **options),
    "resnet101": lambda **options: _torchvision("resnet101", **options),
}


def split_name(name: str) -> tuple[str, str] | None:
    """("torchvision", "resnet34") for `torchvision:resnet34`; None for what names no library."""
    library, colon, rest = name.partition(":")
    return (library, rest) if colon and library in ("layerscope", "torchvision", "timm") else None


def build(name: str, num_classes: int | None = None) -> nn.Module:
    """A new network with random weights. Raises NetworkError with the nearest names for one that does not exist."""
    split = split_name(name)
    if not split:
        raise UsageError(f"{name!r} names no network; write layerscope:NAME, torchvision:NAME or timm:NAME")
    library, short = split
    options = {} if num_classes is None else {"num_classes": num_classes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision announces future defaults of initialisation
        if library == "torchvision":
            return _torchvision(short, **options)
        if library == "timm":
            return _timm(short, **options)
        if short not in NETWORKS:
            raise NetworkError(f"{name}: no such network{nearest(short, NETWORKS)}; there are {', '.join(NETWORKS)}")
        return NETWORKS[short](**options)


class _WithoutMemory(TorchFunctionMode):
    # Not torch.device("meta"): networks compute with small tensors while they are built (RegNet its widths, stochastic
    # depth its rates), and those have to have values. Parameters and buffers come from these three.
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # by name: other tools put wrappers into torch, and `func` is then not the function there
        if getattr(func, "__name__", "") in ("empty", "zeros", "ones") and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def unbuilt(name: str, num_classes: int | None = None) -> nn.Module:
    """The network on the meta device: names, shapes and types without memory for weights, in milliseconds."""
    with _WithoutMemory():
        return build(name, num_classes)


def head_of(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d] | None:
    """Path and module of the layer that gives the classes: the last linear or convolution layer registered."""
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return layers[-1] if layers else None


def _weights_of(name: str) -> list[Any]:
    """torchvision's published weights of a network, with their transforms and categories; the first is the oldest."""
    split = split_name(name)
    if not split or split[0] == "timm" or name == "layerscope:alexnet":
        return []
    import torchvision

    try:
        return list(torchvision.models.get_model_weights(split[1]))
    except (KeyError, ValueError):
        return []


def preprocessing_for(name: str) -> Preprocessing:
    """What the network's published weights were trained with; the tutorial's 0.5 for its AlexNet; else ImageNet's."""
    if name == "layerscope:alexnet":
        return HALF
    split = split_name(name)
    if split and split[0] == "timm":
        data = importlib.import_module("timm.data").resolve_model_data_config(unbuilt(name))
        height, width = data["input_size"][1:]
        resize = int(height / data["crop_pct"])
        return Preprocessing(resize, (height, width), data["mean"], data["std"], data["interpolation"])
    for weights in _weights_of(name):
        preset = weights.transforms()
        if type(preset).__name__ == "ObjectDetection":
            return PIXELS
        if hasattr(preset, "resize_size") and hasattr(preset, "mean"):
            resize, crop = _size(preset.resize_size), _size(getattr(preset, "crop_size", None))
            square = (crop, crop) if isinstance(crop, int) else crop
            return Preprocessing(resize, square, tuple(preset.mean), tuple(preset.std), preset.interpolation.value)
    return IMAGENET


def _size(given: Any) -> Any:
    """torchvision's sizes: [256], (256,) or 256 for the shorter side, (128, 171) for height and width."""
    if given is None or isinstance(given, int):
        return given
    return int(given[0]) if len(given) == 1 else (int(given[0]), int(given[1]))


def labels_for(name: str, classes: int | None) -> list[str] | None:
    """Categories of the network's published weights where their number is `classes`; else None."""
    for weights in _weights_of(name) if classes else []:
        categories = weights.meta.get("categories")
        if categories and len(categories) == classes:
            return list(categories)
    return None
