"""From the object of a pickle to a checkpoint: what PyTorch's zip and legacy files have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from layerscope.checkpoints.base import Checkpoint, Listing, TensorSpec
from layerscope.checkpoints.storage import Layout, show
from layerscope.dtypes import itemsize

from .builders import Array, Tensor, is_plain
from .objects import Dictionary, as_python
from .state_dicts import Named, find
from .warnings import PickleWarnings

__all__ = ["assemble"]

Bytes = Callable[[Any], Any]


def assemble(path: Path, format: str, root: Any, warnings: PickleWarnings, storage_bytes: Bytes) -> Checkpoint:
    """The checkpoint of what a pickle holds; `storage_bytes` returns the buffer of a storage."""
    contents, listing = find(root), Listing()
    for named in contents.tensors:
        named.name = listing.unique(named.name)
        if isinstance(named.leaf, Array):
            _add_array(listing, named, named.leaf)
        else:
            _add_tensor(listing, named, named.leaf, storage_bytes)
    lines = warnings.summary() + listing.skipped()
    if not listing.specs:
        lines.append(f"holds no tensors, only {_kind(root)}; give a file that was saved with weights in it")
    foreign = sorted(name for name in warnings.globals if not is_plain(name))
    return Checkpoint(path, format, listing.specs, listing.loaders, foreign, lines, contents.extra)


def _add_tensor(listing: Listing, named: Named, leaf: Tensor, storage_bytes: Bytes) -> None:
    layout, storage, tied = leaf.layout, leaf.storage, ""
    if leaf.unreadable:
        stored = storage.nbytes if storage is not None else 0
        spec = TensorSpec(named.name, layout.shape, layout.dtype, named.role, "", leaf.unreadable, stored)
    else:
        if storage is not None and layout.end:
            start, end = (storage.start + at * itemsize(layout.dtype) for at in (layout.offset, layout.end))
            tied = listing.tied(named.name, storage.key, start, end, layout.distinct)
        spec = TensorSpec(named.name, layout.shape, layout.dtype, named.role, tied)
    listing.add(spec, lambda: layout.array(storage_bytes(storage)))


def _add_array(listing: Listing, named: Named, leaf: Array) -> None:
    kind, data = leaf.kind.name if leaf.kind is not None else "", leaf.data
    if kind and data is not None:
        layout = Layout(kind, leaf.shape, leaf.strides)
        layout.check(len(data), "a numpy array")
        return listing.add(TensorSpec(named.name, leaf.shape, kind, named.role), lambda: layout.array(data))
    code = show(leaf.kind.code) if leaf.kind is not None else "objects"
    reason = f"a numpy array of {code} has no plain numbers"
    return listing.add(TensorSpec(named.name, leaf.shape, code, named.role, "", reason, len(data or b"")))


def _kind(root: Any) -> str:
    if isinstance(root, Dictionary):
        keys = ", ".join(as_python(key) for key in list(root)[:5])
        return f"a dictionary of {keys}" if keys else "an empty dictionary"
    return as_python(root)
