"""Files of `torch.save` since PyTorch 1.6, and of `torch.jit.save`: a zip archive of pickle and storages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerscope.checkpoints.base import Checkpoint
from layerscope.checkpoints.pickles import BUILDERS, Dictionary, Machine, Node, Storage, as_python, assemble, storage_of
from layerscope.checkpoints.storage import MAGIC, MIB, Archive, Damage, map_file, show
from layerscope.dtypes import STORAGE, itemsize

__all__ = ["from_archive", "open", "sniff"]


def sniff(head: bytes, path: Path) -> bool:
    """Any zip archive: one that is no checkpoint gets its answer here."""
    return head.startswith(MAGIC)


def open(path: Path) -> Checkpoint:
    """The checkpoint in the archive."""
    return from_archive(Archive(memoryview(map_file(path))), path)


def from_archive(archive: Archive, path: Path) -> Checkpoint:
    """The checkpoint in an archive that is a file, or lies inside of one."""
    pickles = [
        name
        for name in archive.entries
        if name.removesuffix("data.pkl").count("/") <= 1 and f"/{name}".endswith("/data.pkl")
    ]
    if not pickles:
        names = ", ".join(show(name, 40) for name in list(archive.entries)[:3]) or "nothing"
        raise Damage(f"is a zip archive without a data.pkl, holding {names}", "give a file of torch.save")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.entries and bytes(archive.read(f"{folder}byteorder")[:3]) == b"big":
        raise Damage("was saved on a big-endian machine", "load it with torch and save it again on this one")
    storages = _Storages(archive, f"{folder}data/")
    machine = Machine(_pickle(archive, pickles[0]), BUILDERS, storages.find)
    root = machine.load()
    script = f"{folder}constants.pkl" in archive.entries
    if script:
        storages.folder = f"{folder}constants/"
        constants = _pickle(archive, f"{folder}constants.pkl")
        root = _with_constants(root, Machine(constants, BUILDERS, storages.find, machine.warnings).load())
    return assemble(path, "TorchScript" if script else "PyTorch", root, machine.warnings, storages.read)


def _pickle(archive: Archive, name: str) -> bytes:
    return bytes(archive.read(name, spare=16 * MIB))


def _with_constants(root: Any, constants: Any) -> Any:
    """The script's module; tensors that tracing froze lie beside it and are named CONSTANTS.c0, ..."""
    if not constants or not isinstance(root, Node) or not isinstance(constants, (tuple, list)):
        return root
    named = Dictionary((f"c{i}", constant) for i, constant in enumerate(constants))
    return Node(root.maker, attributes=Dictionary([*root.attributes.items(), ("CONSTANTS", named)]))


class _Storages:
    """The storages that a pickle refers to, each an entry of the archive."""

    def __init__(self, archive: Archive, folder: str) -> None:
        self.archive = archive
        self.folder = folder
        self.known: dict[str, Storage] = {}

    def find(self, reference: Any) -> Storage:
        """The storage that a pickle refers to."""
        key, dtype, count = storage_of(reference)
        name = self.folder + key
        if name not in self.archive.entries:
            raise Damage(f"the pickle refers to storage {show(as_python(reference))}, which the file does not hold")
        if name not in self.known:
            self.known[name] = self._measure(name, dtype, count)
        known = self.known[name]
        return known if known.dtype == dtype else Storage(name, dtype, known.nbytes)

    def _measure(self, name: str, dtype: str, count: int) -> Storage:
        size = self.archive.entries[name].size
        if dtype in STORAGE and count * itemsize(dtype) > size:
            raise Damage(f"storage {show(name)} should have {show(count)} elements of {dtype}, yet has {size} bytes")
        self.archive.packed(name)  # raises if the entry lies outside of the file
        return Storage(name, dtype, size)

    def read(self, storage: Storage) -> bytes | memoryview:
        """The bytes of a storage, where they lie if the entry is stored."""
        return self.archive.read(storage.key)
