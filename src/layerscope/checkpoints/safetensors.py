"""safetensors: a JSON table of tensors, then their bytes. https://github.com/huggingface/safetensors#format"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

from layerscope.checkpoints.base import Checkpoint, Listing, TensorSpec, plain_values
from layerscope.checkpoints.storage import Damage, Layout, map_file, shape_of, show

__all__ = ["open", "sniff"]

MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip


def sniff(head: bytes, path: Path) -> bool:
    """A length below 2**40, then a JSON object."""
    return len(head) > 8 and head[5:8] == b"\0\0\0" and head[8:9] == b"{"


def open(path: Path) -> Checkpoint:
    """The checkpoint in the file."""
    data = map_file(path)
    table, start = _table(data)
    extra = table.pop("__metadata__", None)
    listing = Listing()
    for name, entry in table.items():
        _add(listing, name, entry, memoryview(data), start)
    return listing.checkpoint(path, "safetensors", plain_values(extra.items()) if isinstance(extra, dict) else None)


def _table(data: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The parsed table and the first byte behind it."""
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise Damage(f"has a table of {length} bytes, more than the format's {MAX_HEADER_BYTES}")
    if 8 + length > len(data):
        raise Damage(f"is truncated: it has {len(data)} bytes, its table alone needs {8 + length}")
    try:
        table = json.loads(data[8 : 8 + length], object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise Damage(f"has a table that is not JSON ({show(error)})") from error
    if not isinstance(table, dict):
        raise Damage("has a table that is no JSON object")
    return table, 8 + length


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise Damage(f"lists {show(name)} twice")
        table[name] = value
    return table


def _add(listing: Listing, name: str, entry: Any, data: memoryview, start: int) -> None:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise Damage(f"has no dtype, shape and data_offsets for {show(name)}")
    shape, offsets = shape_of(entry["shape"]), shape_of(entry["data_offsets"])
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Damage(f"says that {show(name)} lies at bytes {show(offsets)}")
    first, last = offsets[0] + start, offsets[1] + start
    if last > len(data):
        raise Damage(f"is truncated: it has {len(data)} bytes, {show(name)} needs {last}")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        kind = show(entry["dtype"], 20)
        reason = f"{kind} has no numpy values"
        return listing.add(TensorSpec(name, shape, kind, unreadable=reason, stored_bytes=last - first))
    spec = TensorSpec(name, shape, dtype)
    if spec.nbytes != last - first:
        raise Damage(f"has {last - first} bytes for {show(name)}, whose shape {show(shape)} needs {show(spec.nbytes)}")
    layout = Layout.dense(dtype, shape)
    return listing.add(spec, lambda: layout.array(data[first:]))
