"""Files of `torch.save` before PyTorch 1.6: five pickles, then the storages in a row; and bare pickles."""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path
from typing import Any

from layerscope.checkpoints.base import Checkpoint
from layerscope.checkpoints.pickles import BUILDERS, Machine, Storage, as_python, assemble, storage_of
from layerscope.checkpoints.storage import Damage, map_file, show
from layerscope.dtypes import STORAGE, itemsize

__all__ = ["open", "sniff"]

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
# Pickles of protocol 0 and 1 have no mark of their own; these are their usual beginnings.
_OLD_PICKLE = re.compile(
    rb"c[a-zA-Z_][\w.]*\r?\n[a-zA-Z_]\w*\r?\n[(pq)]|\([dl]p\d+\n|[}\]][q(]|\(c[\w.]+\n[\w.]+\n|\(i[\w.]+\n"
)


def sniff(head: bytes, path: Path) -> bool:
    """A pickle of any protocol."""
    return (head[:1] == b"\x80" and head[1:2] in b"\1\2\3\4\5") or _OLD_PICKLE.match(head) is not None


def open(path: Path) -> Checkpoint:
    """The checkpoint in the pickles."""
    data = map_file(path)
    storages = _Storages(data)
    machine = Machine(data, BUILDERS, storages.find)
    root = machine.load()
    if root == MAGIC:
        _check_origin(machine.load(), machine.load())
        root = machine.load()
        storages.locate(machine.load(), machine.at)
        return assemble(path, "PyTorch (legacy)", root, machine.warnings, storages.read)
    storages.locate([], machine.at)  # a bare pickle has no storages, so it may refer to none
    return assemble(path, "pickle", root, machine.warnings, storages.read)


def _check_origin(protocol: Any, system: Any) -> None:
    if protocol != PROTOCOL:
        raise Damage(f"has version {show(protocol)} of PyTorch's format, not {PROTOCOL}", "save it with a newer torch")
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Damage("was saved on a big-endian machine", "load it with torch and save it again on this one")


class _Storages:
    """The storages that the pickle refers to; where they lie is known only after it."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.known: dict[str, Storage] = {}
        self.starts: dict[str, int] = {}

    def find(self, reference: Any) -> Any:
        """The storage of ("storage", type, key, location, count, view), the module of ("module", it)."""
        if isinstance(reference, tuple) and len(reference) > 1 and reference[0] == "module":
            return reference[1]
        key, dtype, count = storage_of(reference)
        storage = self.known.setdefault(key, Storage(key, dtype, count * _item_bytes(dtype)))
        return _view(storage, reference[5]) if len(reference) > 5 and reference[5] is not None else storage

    def locate(self, keys: Any, at: int) -> None:
        """Find the storages, which begin at byte `at` in the order of `keys`."""
        for key in keys if isinstance(keys, list) else []:
            storage = self.known.get(key) if isinstance(key, str) else None
            if storage is None:
                raise Damage(f"the file lists storage {show(as_python(key))}, which its pickle does not use")
            if at + 8 > len(self.data):
                raise Damage(f"is truncated: it has {len(self.data)} bytes, storage {show(key)} begins at byte {at}")
            (count,) = struct.unpack_from("<q", self.data, at)
            at += 8
            nbytes = count * _item_bytes(storage.dtype)
            if nbytes < storage.nbytes:
                raise Damage(f"storage {show(key)} should have {storage.nbytes} bytes, yet says {nbytes}")
            if at + nbytes > len(self.data):
                raise Damage(f"is truncated: it has {len(self.data)} bytes, storage {show(key)} needs {at + nbytes}")
            self.starts[key] = at
            at += nbytes
        missing = next((key for key in self.known if key not in self.starts), None)
        if missing is not None:
            raise Damage(f"the pickle refers to storage {show(missing)}, which the file does not hold")

    def read(self, storage: Storage) -> memoryview:
        """The bytes of a storage, where they lie."""
        start = self.starts[storage.key] + storage.start
        return memoryview(self.data)[start : start + storage.nbytes]


def _item_bytes(dtype: str) -> int:
    return itemsize(dtype) if dtype in STORAGE else 1


def _view(storage: Storage, view: Any) -> Storage:
    """A part of a storage: (key, first element, number of elements), as PyTorch before 0.4 saved views."""
    _, first, count = view
    start, nbytes = first * _item_bytes(storage.dtype), count * _item_bytes(storage.dtype)
    if type(first) is not int or type(count) is not int or min(first, count) < 0 or start + nbytes > storage.nbytes:
        raise Damage(f"storage {show(storage.key)} has {storage.nbytes} bytes, a view of it needs {show(view)}")
    return Storage(storage.key, storage.dtype, nbytes, start)
