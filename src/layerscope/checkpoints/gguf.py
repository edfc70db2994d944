"""GGUF of llama.cpp. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from layerscope.checkpoints.base import Checkpoint, Listing, TensorSpec, plain_values
from layerscope.checkpoints.storage import Damage, Layout, map_file, shape_of, show

__all__ = ["open", "sniff"]

_PLAIN = {0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16"}
# ggml type -> name, elements a block, bytes a block
_BLOCKS = {
    2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22), 7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34),
    9: ("q8_1", 32, 40), 10: ("q2_k", 256, 84), 11: ("q3_k", 256, 110), 12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210), 15: ("q8_k", 256, 292), 16: ("iq2_xxs", 256, 66),
    17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50), 20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 23: ("iq4_xs", 256, 136), 29: ("iq1_m", 256, 56),
    34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66), 39: ("mxfp4", 32, 17), 40: ("nvfp4", 64, 36),
}  # fmt: skip
_VALUES = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
MAX_TENSORS, MAX_VALUES, MAX_NAME = 200_000, 100_000, 1000
MAX_ARRAY_DEPTH = 4


def sniff(head: bytes, path: Path) -> bool:
    """The format's mark."""
    return head.startswith(b"GGUF")


def open(path: Path) -> Checkpoint:
    """The checkpoint in the file."""
    data = memoryview(map_file(path))
    cursor = _Cursor(data, 4)
    version = cursor.number("<I")
    if version and not version & 0xFFFF:
        raise Damage("is a big-endian GGUF file", "convert it for this machine with llama.cpp's gguf_convert_endian.py")
    if version not in (2, 3):
        raise Damage(f"has GGUF version {version}, not 2 or 3", "convert it with a current llama.cpp")
    tensors, values = cursor.number("<Q"), cursor.number("<Q")
    if tensors > MAX_TENSORS or values > MAX_VALUES:
        raise Damage(f"says that it has {tensors} tensors and {values} values, more than {MAX_TENSORS}")
    extra = dict(_values(cursor, values))
    alignment = extra.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise Damage(f"says that its tensors are aligned to {show(alignment)} bytes")
    entries = [_entry(cursor) for _ in range(tensors)]
    start = -(-cursor.at // alignment) * alignment
    listing = Listing()
    for spec, offset in entries:
        first = start + offset
        twice = spec.name in listing.loaders
        if twice or spec.nbytes + first > len(data):
            problem = "lists it twice" if twice else f"has {len(data)} bytes, not {spec.nbytes + first}"
            raise Damage(f"is truncated or damaged: for {show(spec.name)} the file {problem}")
        layout, part = Layout.dense(spec.dtype, spec.shape), data[first : first + spec.nbytes]
        listing.add(spec, partial(layout.array, part))
    return listing.checkpoint(path, "GGUF", plain_values(extra.items()))


class _Cursor:
    """A place in the file that moves forward, never behind its end."""

    def __init__(self, data: memoryview, at: int) -> None:
        self.data = data
        self.at = at

    def skip(self, n: int) -> int:
        """Go `n` bytes ahead; the place before."""
        if n > len(self.data) - self.at:
            raise Damage(f"is truncated: it has {len(self.data)} bytes, its table needs {self.at + n} or more")
        self.at += n
        return self.at - n

    def number(self, code: str) -> Any:
        """The next number by its struct code."""
        return struct.unpack_from(code, self.data, self.skip(struct.calcsize(code)))[0]

    def text(self) -> str:
        """The next string."""
        length = self.number("<Q")
        start = self.skip(length)
        return bytes(self.data[start : start + length]).decode("utf-8", "replace")


def _values(cursor: _Cursor, count: int) -> Iterator[tuple[str, Any]]:
    """The values that are no arrays."""
    for _ in range(count):
        key, kind = cursor.text(), cursor.number("<I")
        if kind == ARRAY:
            _skip_array(cursor)
        else:
            yield key, cursor.text() if kind == STRING else cursor.number(_code(kind))


def _code(kind: int) -> str:
    if kind not in _VALUES:
        raise Damage(f"has a value of type {kind}, which GGUF does not define")
    return _VALUES[kind]


def _skip_array(cursor: _Cursor, depth: int = 0) -> None:
    kind, count = cursor.number("<I"), cursor.number("<Q")
    if depth > MAX_ARRAY_DEPTH:
        raise Damage(f"nests arrays more than {MAX_ARRAY_DEPTH} deep")
    if kind not in (STRING, ARRAY):
        cursor.skip(count * struct.calcsize(_code(kind)))
        return
    for _ in range(count):  # every round takes at least 8 bytes of the file, or fails
        if kind == STRING:
            cursor.skip(cursor.number("<Q"))
        else:
            _skip_array(cursor, depth + 1)


def _entry(cursor: _Cursor) -> tuple[TensorSpec, int]:
    """A tensor, and where it begins."""
    name, dimensions = cursor.text(), cursor.number("<I")
    if dimensions > 8 or len(name) > MAX_NAME:
        raise Damage(f"has {dimensions} dimensions for {show(name)}")
    # ggml counts the fastest axis first
    shape = shape_of([cursor.number("<Q") for _ in range(dimensions)][::-1])
    kind, offset = cursor.number("<I"), cursor.number("<Q")
    if kind in _PLAIN:
        return TensorSpec(name, shape, _PLAIN[kind]), offset
    label, elements, nbytes = _BLOCKS.get(kind, (f"ggml type {kind}", 1, 0))
    reason = f"{label} keeps blocks of {elements} elements with shared scales; use a file in F16, BF16 or F32"
    stored = -(-prod(shape) // elements) * nbytes
    return TensorSpec(name, shape, label, unreadable=reason, stored_bytes=stored), offset
