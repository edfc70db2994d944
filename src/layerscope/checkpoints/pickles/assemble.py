"""From the object of a pickle to a checkpoint: what PyTorch's zip and legacy files have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from layerscope.checkpoints.base import Checkpoint, TensorSpec
from layerscope.checkpoints.pickles.builders import Array, Storage, Tensor, is_plain
from layerscope.checkpoints.pickles.objects import Dictionary, as_python
from layerscope.checkpoints.pickles.state_dicts import Named, find
from layerscope.checkpoints.pickles.warnings import PickleWarnings
from layerscope.checkpoints.storage.errors import show
from layerscope.checkpoints.storage.strided import Layout
from layerscope.dtypes import itemsize

__all__ = ["assemble"]

Bytes = Callable[[Storage], Any]


def assemble(path: Path, format: str, root: Any, warnings: PickleWarnings, storage_bytes: Bytes) -> Checkpoint:
    """The checkpoint of what a pickle holds; `storage_bytes` gives the buffer of a storage when read."""
    found = find(root)
    specs: list[TensorSpec] = []
    loaders: dict[str, Callable[[], NDArray[Any]]] = {}
    first: dict[object, str] = {}
    for named in found.tensors:
        spec = _spec(named, first)
        specs.append(spec)
        if not spec.unreadable:
            loaders[spec.name] = _loader(named.leaf, storage_bytes)
    lines = warnings.summary() + _skipped(specs)
    if not specs:
        lines.append(f"holds no tensors, only {_kind(root)}; give a file that was saved with weights in it")
    foreign = sorted(name for name in warnings.globals if not is_plain(name))
    return Checkpoint(path, format, specs, loaders, foreign, lines, found.extra)


def _spec(named: Named, first: dict[object, str]) -> TensorSpec:
    leaf = named.leaf
    if isinstance(leaf, Array):
        return _array_spec(named, leaf)
    layout, storage = leaf.layout, leaf.storage
    tied = ""
    if storage is not None and not leaf.unreadable and layout.end:
        start = storage.start + layout.offset * itemsize(layout.dtype)
        last = storage.start + layout.end * itemsize(layout.dtype)
        tied = first.setdefault((storage.key, start, last, layout.distinct), named.name)
    stored = -1 if not leaf.unreadable else storage.nbytes if storage is not None else 0
    tied = "" if tied == named.name else tied
    return TensorSpec(named.name, layout.shape, layout.dtype, named.role, tied, leaf.unreadable, stored)


def _array_spec(named: Named, leaf: Array) -> TensorSpec:
    kind = leaf.kind.name if leaf.kind is not None else ""
    if not kind or leaf.data is None:
        code = show(leaf.kind.code) if leaf.kind is not None else "objects"
        stored = len(leaf.data or b"")
        reason = f"a numpy array of {code} has no plain numbers"
        return TensorSpec(named.name, leaf.shape, code, named.role, unreadable=reason, stored_bytes=stored)
    Layout(kind, leaf.shape, leaf.strides).check(len(leaf.data), "a numpy array")
    return TensorSpec(named.name, leaf.shape, kind, named.role)


def _loader(leaf: Tensor | Array, storage_bytes: Bytes) -> Callable[[], NDArray[Any]]:
    if isinstance(leaf, Array):
        assert leaf.kind is not None
        layout, data = Layout(leaf.kind.name, leaf.shape, leaf.strides), leaf.data
        return lambda: layout.array(data)
    layout, storage = leaf.layout, leaf.storage
    assert storage is not None
    return lambda: layout.array(storage_bytes(storage))


def _skipped(specs: list[TensorSpec]) -> list[str]:
    """One line for each reason, not for each tensor: a quantised network has hundreds alike."""
    reasons: dict[str, list[str]] = {}
    for spec in specs:
        if spec.unreadable:
            reasons.setdefault(spec.unreadable, []).append(spec.name)
    return [
        f"{show(names[0])}{f' and {len(names) - 1} more' if len(names) > 1 else ''} cannot be read: {reason}"
        for reason, names in reasons.items()
    ]


def _kind(root: Any) -> str:
    if isinstance(root, Dictionary):
        keys = ", ".join(as_python(key) for key in list(root)[:5])
        return f"a dictionary of {keys}" if keys else "an empty dictionary"
    return as_python(root)
