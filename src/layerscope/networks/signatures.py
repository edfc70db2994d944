"""Make the indices of signatures: python -m layerscope.networks.signatures [--timm]

Every architecture of torchvision and the tutorial's are built on the meta device, without weights, and the names and
shapes of their state dicts are written to `signatures.json.gz` beside this file. Needed again when torchvision adds
architectures; a test compares the index with some of the installed ones.

With --timm the same is done for the architectures of the installed timm. There are 1,300 of them, so that only a
digest of each is kept, in `timm.json.gz`: enough to recognise a whole network, not a part of one.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
import warnings
from pathlib import Path

import torchvision
from torch import nn

from layerscope.networks.build import NETWORKS, unbuilt
from layerscope.networks.identify import digest

__all__ = ["main", "shapes_of"]


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """name -> shape of every tensor of the state dict."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _names() -> list[str]:
    # ResNets come from torchvision, whose keys the tutorial's have: one name for one signature.
    own = [f"layerscope:{name}" for name in NETWORKS if name == "alexnet"]
    return own + [f"torchvision:{name}" for name in torchvision.models.list_models() if "quantized" not in name]


def _write(name: str, index: object) -> None:
    target = Path(__file__).with_name(name)
    # No time and no name in the header: the same index gives the same bytes.
    target.write_bytes(gzip.compress(json.dumps(index, separators=(",", ":")).encode(), 9, mtime=0))
    print(f"{target.name}: {target.stat().st_size} bytes")


def _timm() -> None:
    timm = importlib.import_module("timm")
    digests: dict[str, list[str]] = {}
    for name in timm.list_models():
        try:
            shapes = shapes_of(unbuilt(f"timm:{name}"))
        except Exception as error:  # a few need packages of their own
            print(f"left out: {name}: {error}", file=sys.stderr)
            continue
        digests.setdefault(digest(shapes), []).append(name)
    _write("timm.json.gz", {"timm": timm.__version__, "networks": digests})


def main() -> None:
    """Write one index or the other."""
    warnings.simplefilter("ignore")
    if "--timm" in sys.argv[1:]:
        _timm()
        return
    shapes: dict[tuple[int, ...], int] = {}
    networks: dict[str, dict[str, int]] = {}
    for name in _names():
        found = shapes_of(unbuilt(name))
        networks[name] = {key: shapes.setdefault(shape, len(shapes)) for key, shape in found.items()}
    index = {"torchvision": torchvision.__version__.split("+")[0], "shapes": list(shapes), "networks": networks}
    _write("signatures.json.gz", index)


if __name__ == "__main__":
    main()
