"""Make the index of signatures: python -m layerscope.networks.signatures

Every architecture of torchvision and the tutorial's are built on the meta device, without weights, and the names and
shapes of their state dicts are written to `signatures.json.gz` beside this file. Needed again when torchvision adds
architectures; a test compares the index with some of the installed ones.
"""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path

import torchvision
from torch import nn

from layerscope.networks.build import NETWORKS, unbuilt

__all__ = ["main", "shapes_of"]


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """name -> shape of every tensor of the state dict."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _names() -> list[str]:
    # ResNets come from torchvision, whose keys the tutorial's have: one name for one signature.
    own = [f"layerscope:{name}" for name in NETWORKS if name == "alexnet"]
    return own + [f"torchvision:{name}" for name in torchvision.models.list_models() if "quantized" not in name]


def main() -> None:
    """Write the index."""
    warnings.simplefilter("ignore")
    shapes: dict[tuple[int, ...], int] = {}
    networks: dict[str, dict[str, int]] = {}
    for name in _names():
        found = shapes_of(unbuilt(name))
        networks[name] = {key: shapes.setdefault(shape, len(shapes)) for key, shape in found.items()}
    index = {"torchvision": torchvision.__version__.split("+")[0], "shapes": list(shapes), "networks": networks}
    target = Path(__file__).with_name("signatures.json.gz")
    # No time and no name in the header: the same index gives the same bytes.
    target.write_bytes(gzip.compress(json.dumps(index, separators=(",", ":")).encode(), 9, mtime=0))
    print(f"{target}: {len(networks)} networks, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
