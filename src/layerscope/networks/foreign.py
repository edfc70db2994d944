"""Networks that are not a plain module on a batch of images: wrappers, exported programs, detection, video."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from layerscope.errors import NetworkError
from layerscope.hooks import unwrapped
from layerscope.networks.preprocessing import CLIPS, IMAGENET, PIXELS, Preprocessing
from layerscope.networks.script import mirror

__all__ = ["FRAMES", "Takes", "fed", "home_of", "open_program", "plain", "preprocessing_of", "takes_of"]

Takes = Literal["batch", "images", "clips"]

#: frames of a clip that is made of one photo: what torchvision's MViT needs and the others take
FRAMES = 16


def takes_of(model: nn.Module) -> Takes:
    """What a network wants photos as: told by torchvision's detection base, or a first convolution in 3-D."""
    if type(model).__module__.startswith("torchvision.models.detection."):
        return "images"
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)), None)
    return "clips" if isinstance(first, nn.Conv3d) else "batch"


def preprocessing_of(model: nn.Module) -> Preprocessing:
    """The usual preprocessing for what the network takes."""
    return {"batch": IMAGENET, "images": PIXELS, "clips": CLIPS}[takes_of(model)]


def home_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device of the first parameter or buffer that has memory, and the type in which photos are handed to it."""
    kinds = (torch.float16, torch.bfloat16, torch.float64)
    for tensor in [*model.parameters(), *model.buffers()]:
        if not tensor.is_meta:
            return tensor.device, tensor.dtype if tensor.dtype in kinds else torch.float32
    return torch.device("cpu"), torch.float32


def fed(batch: Tensor, takes: Takes) -> Tensor | list[Tensor]:
    """Photos (B, C, H, W) as the network takes them; a clip repeats its photo."""
    if takes == "images":
        return list(batch)
    if takes == "clips" and batch.dim() == 4:
        return batch[:, :, None].expand(-1, -1, FRAMES, -1, -1).contiguous()  # (B, C, T, H, W)
    return batch


def plain(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The network that can be looked at, and what has to be said about it."""
    inner, notes = unwrapped(model), []
    if inner is not model:
        notes.append(f"{type(model).__name__}: the network inside of it is run; hooks would not see its layers")
    if isinstance(inner, torch.jit.ScriptModule):
        inner, said = mirror(inner)
        notes += said
    return inner, notes


def _kind(path: Path) -> str:
    """"script", "export" or "": told by the names inside of the zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return ""
    inside = [name.partition("/")[2] for name in names]
    if any(name.startswith("models/") and name.endswith(".json") for name in inside) or "serialized_exported_program.json" in names:
        return "export"
    return "script" if "constants.pkl" in inside and any(name.startswith("code/") for name in inside) else ""


def open_program(given: str) -> nn.Module | None:
    """The network of a TorchScript or torch.export file, on the CPU; None for any other file.

    Neither runs Python code of the file: TorchScript is interpreted by torch, an exported program is a graph.
    Raises NetworkError for a file that this torch cannot load.
    """
    kind = _kind(Path(given))
    if not kind:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, and people have such files
            if kind == "script":
                return torch.jit.load(given, map_location="cpu")
            return torch.export.unflatten(torch.export.load(given))
    except Exception as error:  # torch raises what it likes
        said = " ".join(str(error).split())[:200]
        raise NetworkError(f"{given}: torch {torch.__version__} cannot load it ({said}); export it again") from error
