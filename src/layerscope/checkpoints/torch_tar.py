"""The tar files that PyTorch wrote before 0.1.10: recognised, never read."""

from __future__ import annotations

from pathlib import Path

from layerscope.checkpoints.base import Checkpoint
from layerscope.checkpoints.storage.errors import Damage, show

__all__ = ["open", "sniff"]

_MEMBERS = ("sys_info", "pickle", "storages", "tensors")


def sniff(head: bytes, path: Path) -> bool:
    """Any tar archive."""
    return head[257:262] == b"ustar"


def open(path: Path) -> Checkpoint:
    """Raise Damage that says what to do; no PyTorch has written this format since 2017."""
    with path.open("rb") as file:
        first = file.read(100).split(b"\0")[0].decode("utf-8", "replace").removeprefix("./")
    if first in _MEMBERS:
        raise Damage(
            "is in the tar format that PyTorch wrote before version 0.1.10",
            "if you trust it, run torch.save(torch.load(OLD, weights_only=False), NEW) and give NEW",
        )
    raise Damage(f"is a tar archive that begins with {show(first)}", "unpack it and give the checkpoint inside")
