"""Keras: weights in HDF5 (.h5) and .keras archives, by way of h5py, which is an optional dependency."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.checkpoints.base import Checkpoint, Listing, TensorSpec
from layerscope.checkpoints.storage import MIB, Archive, Damage, Layout, map_file, names_in, shape_of, show
from layerscope.dtypes import STORAGE

__all__ = ["open", "sniff"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_WEIGHTS = "model.weights.h5"
_DTYPES = {
    np.dtype(code): name
    for name, code in STORAGE.items()
    if not name.startswith(("bfloat", "float8", "q", "complex32"))
}
_TRAINING = ("optimizer_weights/", "optimizer/", "_optimizer/")
MAX_TENSORS = 200_000


def sniff(head: bytes, path: Path) -> bool:
    """An HDF5 file, or a zip archive with one under Keras' name."""
    return head.startswith(_HDF5) or _WEIGHTS in names_in(head, path)


def open(path: Path) -> Checkpoint:
    """The checkpoint in the file."""
    data = memoryview(map_file(path))
    if data[:8] != _HDF5:
        data = memoryview(Archive(data).read(_WEIGHTS))
    listing = Listing()

    def note(name: str, item: Any) -> None:
        if len(listing.specs) == MAX_TENSORS:
            raise Damage(f"has more than {MAX_TENSORS} datasets")
        if hasattr(item, "shape"):
            _add(listing, name, item, data)

    with _opened(data) as file:
        file.visititems(note)  # visits no soft and no external links, and every object once
    return listing.checkpoint(path, "Keras")


@contextmanager
def _opened(data: memoryview) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise Damage("is a Keras file, and h5py is not installed", "pip install 'layerscope[keras]'") from None
    try:
        with h5py.File(_Reader(data), "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        # h5py hands on what libhdf5 says in any of these, and damage shows at any call.
        raise Damage(f"is damaged inside as an HDF5 file ({show(error)})") from error


class _Reader(io.RawIOBase):
    """A file over a buffer, so that h5py reads an entry of a zip archive where it lies."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = max(0, offset + (0, self.at, len(self.data))[whence])
        return self.at

    def readinto(self, target: Any) -> int:
        part = self.data[self.at : self.at + len(target)]
        target[: len(part)] = part
        self.at += len(part)
        return len(part)


def _add(listing: Listing, name: str, item: Any, data: memoryview) -> None:
    role = "optimizer" if name.startswith(_TRAINING) else "weight"
    shape = shape_of(list(item.shape or ()))
    dtype = _DTYPES.get(item.dtype, "")
    reason = f"{show(str(item.dtype), 40)} has no numpy numbers" if not dtype else ""
    if item.external or item.is_virtual:
        reason = "its elements lie in another file, which a checkpoint has no business to open"
    if reason:
        kind = dtype or show(str(item.dtype), 40)
        return listing.add(TensorSpec(name, shape, kind, role, "", reason, item.id.get_storage_size()))
    spec = TensorSpec(name, shape, dtype, role)
    limit = 64 * MIB + 64 * len(data)
    if spec.nbytes > limit:
        raise Damage(f"would unpack {show(name)} to {show(spec.nbytes)} bytes, more than the limit of {limit}")
    offset = item.id.get_offset()
    if offset is None or item.file.userblock_size:
        return listing.add(spec, lambda: _read(data, name))
    layout = Layout.dense(dtype, shape)
    layout.check(len(data) - offset, show(name))
    return listing.add(spec, lambda: layout.array(data[offset:]))


def _read(data: memoryview, name: str) -> NDArray[Any]:
    with _opened(data) as file:
        return file[name][()] if file[name].shape else np.asarray(file[name][()])
