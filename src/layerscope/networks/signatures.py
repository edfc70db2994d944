"""Make the indices of signatures: python -m layerscope.networks.signatures

Every architecture of torchvision, of the tutorial and of timm, which has to be installed, is built on the meta device,
without weights: about five minutes. Needed again when one of them adds architectures; a test compares the indices with
some of the installed ones.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
import warnings
from pathlib import Path

import torchvision

from layerscope.networks.build import unbuilt
from layerscope.networks.identify import digest, shapes_of

__all__ = ["main"]


def _names() -> list[str]:
    # ResNets come from torchvision, whose keys those of the tutorial have: one name for one signature.
    names = [name for name in torchvision.models.list_models() if "quantized" not in name]
    return ["layerscope:alexnet", *(f"torchvision:{name}" for name in names)]


def _write(name: str, index: object) -> None:
    target = Path(__file__).with_name(name)
    # No time and no name in the header: the same index gives the same bytes.
    target.write_bytes(gzip.compress(json.dumps(index, separators=(",", ":")).encode(), 9, mtime=0))
    print(f"{target.name}: {target.stat().st_size} bytes")


def _digests(names: list[str]) -> dict[str, list[str]]:
    digests: dict[str, list[str]] = {}
    for name in names:
        try:
            digests.setdefault(digest(shapes_of(unbuilt(name).state_dict())), []).append(name)
        except Exception as error:  # a few of timm's need packages of their own
            print(f"left out: {name}: {error}", file=sys.stderr)
    return digests


def main() -> None:
    """Write both indices."""
    warnings.simplefilter("ignore")
    timm = importlib.import_module("timm")
    _write("digests.json.gz", _digests(_names() + [f"timm:{name}" for name in timm.list_models()]))
    shapes: dict[tuple[int, ...], int] = {}
    networks: dict[str, dict[str, int]] = {}
    for name in _names():
        found = shapes_of(unbuilt(name).state_dict())
        networks[name] = {key: shapes.setdefault(shape, len(shapes)) for key, shape in found.items()}
    index = {"torchvision": torchvision.__version__.split("+")[0], "shapes": list(shapes), "networks": networks}
    _write("signatures.json.gz", index)


if __name__ == "__main__":
    main()
