"""Checkpoints of every format behind one door: `open_checkpoint`. No torch, and no pickle is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from layerscope.checkpoints import exported, gguf, keras_h5, onnx, safetensors, sharded, torch_legacy, torch_zip
from layerscope.checkpoints.base import Checkpoint, TensorSpec
from layerscope.checkpoints.storage import guarded, refuse, refuse_path

__all__ = ["READERS", "Checkpoint", "Reader", "TensorSpec", "open_checkpoint"]


class Reader(Protocol):
    """A format: a module with these two functions."""

    def sniff(self, head: bytes, path: Path) -> bool:
        """Whether the file that begins with `head` has this format."""

    def open(self, path: Path) -> Checkpoint:
        """The checkpoint in the file; raises Damage, or anything else if bytes mislead it."""


#: asked in this order; the first whose `sniff` says yes reads the file
READERS: dict[str, Reader] = {
    "safetensors": safetensors,
    "sharded": sharded,
    "exported": exported,
    "keras_h5": keras_h5,
    "torch_zip": torch_zip,
    "torch_legacy": torch_legacy,
    "gguf": gguf,
    "onnx": onnx,
}

HEAD_BYTES = 4096


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """List the tensors of a checkpoint; its content decides what it is, never its name.

    Raises CheckpointError, one line with what is wrong and what to do, for any file that cannot be read.

        >>> with layerscope.open_checkpoint("net.pth") as checkpoint:
        ...     spec = checkpoint.specs[0]
        ...     spec.name, spec.shape, spec.nbytes, checkpoint.read(spec).dtype.name
        ('conv1.weight', (64, 3, 7, 7), 37632, 'float32')
    """
    with guarded(path):
        path = Path(path)
        if path.is_dir() and (index := sharded.find_index(path)):
            path = index
        if (refusal := refuse_path(path)) is not None:
            raise refusal
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        for reader in READERS.values():
            if reader.sniff(head, path):
                return reader.open(path)
        raise refuse(head)
