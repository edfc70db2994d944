"""Files of `torch.export.save`: weights as plain bytes with a JSON table, or, before 2.8, an inner file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layerscope.checkpoints import torch_zip
from layerscope.checkpoints.base import Checkpoint, Listing, TensorSpec
from layerscope.checkpoints.storage import MIB, Archive, Damage, Layout, map_file, names_in, shape_of, show

__all__ = ["open", "sniff"]

#: torch._export.serde.schema.ScalarType, fixed by its schema
_SCALAR_TYPES = dict(
    enumerate(("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"), 1)
) | dict(enumerate(("complex32", "complex64", "complex128", "bool", "bfloat16"), 9))
_SCALAR_TYPES |= dict(
    enumerate(("uint16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"), 28)
)
_SCALAR_TYPES |= {34: "uint32", 35: "uint64"}
_TABLES = ("_weights_config.json", "_constants_config.json")
_INNER = ("serialized_state_dict.pt", "serialized_state_dict.json", "serialized_constants.pt")
_FORMAT = "torch.export"


def sniff(head: bytes, path: Path) -> bool:
    """A zip archive with one of the tables of weights."""
    return any(name.endswith((*_TABLES, *_INNER)) for name in names_in(head, path))


def open(path: Path) -> Checkpoint:
    """The checkpoint in the archive."""
    archive = Archive(memoryview(map_file(path)))
    inner = [name for name in archive.entries if name.endswith(_INNER)]
    return _from_inner(archive, inner, path) if inner else _from_tables(archive, path)


def _from_inner(archive: Archive, names: list[str], path: Path) -> Checkpoint:
    """The state dict and the constants, each a file of torch.save inside the archive."""
    parts = [torch_zip.from_archive(Archive(memoryview(archive.read(name))), path) for name in names]
    whole, *rest = parts
    loaders = dict(whole.loaders)
    specs, taken = list(whole.specs), {spec.name for spec in whole.specs}
    for part in rest:
        specs += [spec for spec in part.specs if spec.name not in taken]
        loaders |= {name: load for name, load in part.loaders.items() if name not in taken}
    foreign = sorted({name for part in parts for name in part.foreign})
    # A program without constants is usual, so the line "holds no tensors" of its inner file says nothing.
    warnings = [line for part in parts if part.specs for line in part.warnings]
    return Checkpoint(path, _FORMAT, specs, loaders, foreign, warnings)


def _from_tables(archive: Archive, path: Path) -> Checkpoint:
    listing = Listing()
    taken: set[str] = set()
    for table in [name for ending in _TABLES for name in archive.entries if name.endswith(ending)]:
        folder = table.rpartition("/")[0] + "/"
        for name, entry in _entries(archive, table):
            if name in taken:
                continue
            taken.add(name)
            try:
                _add(listing, archive, name, folder, entry)
            except (KeyError, TypeError) as error:
                raise Damage(f"describes {show(name)} in no way of torch.export ({show(error)})") from error
    return listing.checkpoint(path, _FORMAT)


def _entries(archive: Archive, table: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        config = json.loads(bytes(archive.read(table, spare=16 * MIB)))["config"]
        yield from config.items()
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise Damage(f"has a table {show(table)} that is no JSON of torch.export ({show(error)})") from error


def _add(listing: Listing, archive: Archive, name: str, folder: str, entry: Any) -> None:
    meta = entry.get("tensor_meta") if isinstance(entry, dict) else None
    if not isinstance(meta, dict):
        reason = "it is an object, not a tensor"
        return listing.add(TensorSpec(name, (), "object", unreadable=reason, stored_bytes=0))
    shape, strides = (shape_of([_int(n) for n in meta[key]]) for key in ("sizes", "strides"))
    dtype, file = _SCALAR_TYPES.get(meta["dtype"], ""), f"{folder}{entry['path_name']}"
    if file not in archive.entries:
        raise Damage(f"refers to {show(file)} for {show(name)}, which it does not hold")
    size = archive.entries[file].size
    if not dtype or entry.get("use_pickle"):
        reason = "it is pickled as an object" if dtype else f"its element type {show(meta['dtype'])} is unknown"
        return listing.add(TensorSpec(name, shape, dtype or "unknown", unreadable=reason, stored_bytes=size))
    layout = Layout(dtype, shape, strides, _int(meta["storage_offset"]))
    layout.check(size, show(file))
    tied = listing.tied(name, file, layout.offset, layout.end, layout.distinct) if layout.end else ""
    return listing.add(TensorSpec(name, shape, dtype, tied=tied), lambda: layout.array(archive.read(file)))


def _int(value: Any) -> int:
    number = value.get("as_int") if isinstance(value, dict) else value
    if type(number) is not int:
        raise Damage(f"has a size {show(value)} that is no number")
    return number
