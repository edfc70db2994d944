"""Networks that are not a plain module on a batch of images: wrappers, exported programs, detection, video."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from layerscope.activations.hooks import unwrapped
from layerscope.errors import NetworkError
from layerscope.images.preprocessing import CLIPS, IMAGENET, PIXELS, Preprocessing
from layerscope.networks.exported import load_program
from layerscope.networks.script import mirror

__all__ = [
    "FRAMES", "Takes", "fed", "home_of", "open_program", "plain", "preprocessing_of", "said_of", "takes_of",
    "unflattened",
]  # fmt: skip

Takes = Literal["batch", "images", "clips", "series"]

#: frames of a clip that is made of one photo: what torchvision's MViT needs and the others take
FRAMES = 16


def takes_of(model: nn.Module) -> Takes:
    """What a network takes: told by torchvision's detection classes, else by its first convolution."""
    if type(model).__module__.startswith("torchvision.models.detection."):
        return "images"
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d
    first = next((module for module in model.modules() if isinstance(module, kinds)), None)
    return "clips" if isinstance(first, nn.Conv3d) else "series" if isinstance(first, nn.Conv1d) else "batch"


def preprocessing_of(model: nn.Module) -> Preprocessing:
    """The usual preprocessing for what the network takes."""
    return {"images": PIXELS, "clips": CLIPS}.get(takes_of(model), IMAGENET)


def home_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device of the first parameter or buffer that has memory, and the type in which photos are handed to it."""
    kinds = (torch.float16, torch.bfloat16, torch.float64)
    for tensor in [*model.parameters(), *model.buffers()]:
        if not tensor.is_meta:
            return tensor.device, tensor.dtype if tensor.dtype in kinds else torch.float32
    return torch.device("cpu"), torch.float32


def said_of(takes: Takes) -> list[str]:
    """What has to be said when photos are handed over in this way."""
    return [f"each photo is repeated over {FRAMES} frames: nothing moves"] if takes == "clips" else []


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


def unflattened(program: torch.export.ExportedProgram) -> nn.Module:
    """The modules that the program was exported from, with their names and the names of their types."""
    model = torch.export.unflatten(program)
    stacks = [(node.meta.get("nn_module_stack") or {}).values() for node in program.graph.nodes]
    kinds = {path: str(getattr(kind, "__name__", kind)) for stack in stacks for path, kind in stack}
    for path, module in model.named_modules():
        if path in kinds:
            # torch calls all of them InterpreterModule, which tells a reader nothing.
            module.__class__ = type(kinds[path].rpartition(".")[2], (type(module),), {})
    return model


def _kind(path: Path) -> str:
    """ "script", "export" or "": told by the names inside of the zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return ""
    inside = [name.partition("/")[2] for name in names]
    models = [name for name in inside if name.startswith("models/") and name.endswith(".json")]
    if models or "serialized_exported_program.json" in names:
        return "export"
    return "script" if "constants.pkl" in inside and any(name.startswith("code/") for name in inside) else ""


def _size_of(program: torch.export.ExportedProgram) -> tuple[int, int] | None:
    """(height, width) that an exported program insists on; None where it takes several, or no images."""
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    shape = list(getattr(inputs[0].meta.get("val"), "shape", ())) if inputs else []
    fixed = len(shape) == 4 and all(isinstance(size, int) for size in shape[2:])
    return (int(shape[2]), int(shape[3])) if fixed else None


def open_program(given: str) -> tuple[nn.Module, tuple[int, int] | None] | None:
    """The network of a TorchScript or torch.export file, on the CPU; None for any other file.

    With it the (height, width) of the images that it insists on, if it does: a program is exported for one size.
    TorchScript is interpreted by torch; of an exported program nothing but a graph of operators is taken.
    Raises NetworkError for a file that this torch cannot load.
    """
    kind = _kind(Path(given))
    if not kind:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, and people have such files
            if kind == "script":
                return torch.jit.load(given, map_location="cpu"), None  # type: ignore[no-untyped-call]
            program = load_program(Path(given))
            return unflattened(program), _size_of(program)
    except NetworkError:
        raise
    except Exception as error:  # torch raises what it likes
        said = " ".join(str(error).split())[:200]
        raise NetworkError(f"{given}: torch {torch.__version__} cannot load it ({said}); export it again") from error
