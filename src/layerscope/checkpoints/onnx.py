"""ONNX: initializers and Constant nodes, read off the wire. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.checkpoints.base import Checkpoint, Listing, TensorSpec
from layerscope.checkpoints.storage import Damage, Layout, Message, inside, map_file, shape_of, show, varints
from layerscope.dtypes import itemsize

__all__ = ["open", "sniff"]

# TensorProto.DataType -> element type, and the field that holds elements when raw_data does not
FLOATS, INT32S, INT64S, RAW, DOUBLES, UINT64S = 4, 5, 7, 9, 10, 11
_TYPES = {
    1: ("float32", FLOATS), 10: ("float16", INT32S), 11: ("float64", DOUBLES), 16: ("bfloat16", INT32S),
    2: ("uint8", INT32S), 4: ("uint16", INT32S), 12: ("uint32", UINT64S), 13: ("uint64", UINT64S),
    3: ("int8", INT32S), 5: ("int16", INT32S), 6: ("int32", INT32S), 7: ("int64", INT64S), 9: ("bool", INT32S),
    14: ("complex64", FLOATS), 15: ("complex128", DOUBLES),
    17: ("float8_e4m3fn", INT32S), 18: ("float8_e4m3fnuz", INT32S), 19: ("float8_e5m2", INT32S),
    20: ("float8_e5m2fnuz", INT32S), 24: ("float8_e8m0fnu", INT32S),
}  # fmt: skip
_OTHER = {8: "string", 21: "uint4", 22: "int4", 23: "float4_e2m1", 25: "uint2", 26: "int2", 27: "float6_e2m3"}
MAX_DEPTH = 20
# ModelProto's fields that a file can begin with: ir_version, which is written first by every library
_FIRST, _SECOND = b"\x08", b"\x12\x1a\x22\x28\x32\x3a\x42\x72"


def sniff(head: bytes, path: Path) -> bool:
    """ir_version below 64 as the first field, then another field of ModelProto."""
    return head[:1] == _FIRST and b"\0" < head[1:2] < b"\x40" and head[2:3] in [bytes([b]) for b in _SECOND]


def open(path: Path) -> Checkpoint:
    """The checkpoint in the model."""
    model = _Model(path)
    data = memoryview(map_file(path))
    root = Message(data)
    for number, value in root.fields():
        if number == 7:
            model.graph(root.message(value))
        elif number == 25:
            for inner, node in root.message(value).fields():  # a function, whose nodes have constants, too
                if inner == 7:
                    model.node(root.message(node), 1)
    return model.listing.checkpoint(path, "ONNX")


class _Model:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.listing = Listing()
        self.maps: dict[Path, memoryview] = {}

    def graph(self, graph: Message, depth: int = 0) -> None:
        """Add the initializers and constants of a graph and of the graphs inside its nodes."""
        if depth > MAX_DEPTH:
            raise Damage(f"nests graphs more than {MAX_DEPTH} deep", "no ONNX runtime would run it")
        for number, value in graph.fields():
            if number == 1:
                self.node(graph.message(value), depth)
            elif number == 5:
                self.add(graph.message(value))
            elif number == 15:
                self.add_sparse(graph.message(value))

    def node(self, node: Message, depth: int) -> None:
        """Add the value of a Constant node under the name of its output."""
        fields = node.grouped()
        constant = any(_text(value) == "Constant" for value in fields[4])
        for value in fields[5]:
            attribute = node.message(value)
            for number, content in attribute.fields():
                if number == 5 and constant:
                    self.add(attribute.message(content), _text(*fields[2][:1]))
                elif number in (6, 11):
                    self.graph(attribute.message(content), depth + 1)

    def add_sparse(self, sparse: Message) -> None:
        """List a sparse initializer by the name of its values."""
        fields = sparse.grouped()
        values = sparse.message(*fields[1][:1]).grouped()
        name = self.listing.unique(_text(*values[8][-1:]) or "constant")
        dtype = _TYPES.get(_kind(values), ("unknown", 0))[0]
        shape = shape_of(_numbers(fields[3]))
        reason = "it is sparse, and only dense tensors are read"
        self.listing.add(TensorSpec(name, shape, dtype, unreadable=reason, stored_bytes=0))

    def add(self, tensor: Message, name: str = "") -> None:
        """List a tensor, under its own name if none is given, and how to read it."""
        fields = tensor.grouped()
        # Names need be unique only within a graph; bodies of loops may repeat them.
        name = self.listing.unique(name or _text(*fields[8][-1:]) or "constant")
        shape, kind = shape_of(_numbers(fields[1])), _kind(fields)
        if kind not in _TYPES:
            dtype = _OTHER.get(kind, f"type {show(kind)}")
            stored = sum(len(part) for part in fields[RAW] if isinstance(part, memoryview))
            reason = f"{dtype} has no numpy values"
            return self.listing.add(TensorSpec(name, shape, dtype, unreadable=reason, stored_bytes=stored))
        dtype, place = _TYPES[kind]
        layout = Layout.dense(dtype, shape)
        if 1 in fields[14]:
            pairs = [tensor.message(value).grouped() for value in fields[13]]
            external = {_text(*pair[1][-1:]): _text(*pair[2][-1:]) for pair in pairs}
            return self._add_external(TensorSpec(name, shape, dtype), layout, external)
        if fields[RAW]:
            place, need = RAW, prod(shape) * itemsize(dtype)
        else:
            need = prod(shape) * (1 if place in (INT32S, INT64S, UINT64S) else itemsize(dtype))
        parts = fields[place]
        have = sum(len(part) if isinstance(part, memoryview) else 10 for part in parts)
        if have < need or (place == RAW and have != need):
            raise Damage(f"holds {have} bytes for {show(name)}, whose shape {show(shape)} needs {show(need)}")
        return self.listing.add(TensorSpec(name, shape, dtype), lambda: _read(layout, parts, place))

    def _add_external(self, spec: TensorSpec, layout: Layout, external: dict[str, str]) -> None:
        file = inside(self.path.parent, external.get("location", ""))
        offset, length = (_decimal(external.get(key, "0")) for key in ("offset", "length"))
        if not file.is_file():
            reason = f"its elements lie in {show(file.name)}, which is not beside the model"
            return self.listing.add(replace(spec, unreadable=reason, stored_bytes=length))
        data = self.maps.get(file)
        if data is None:
            data = self.maps[file] = memoryview(map_file(file) if file.stat().st_size else b"")
        length = length or spec.nbytes
        if length != spec.nbytes or offset + length > len(data):
            where = f"bytes {offset} to {offset + length} of {show(file.name)}, which has {len(data)}"
            raise Damage(f"keeps {show(spec.name)} ({show(spec.nbytes)} bytes) in {where}")
        return self.listing.add(spec, lambda: layout.array(data[offset : offset + length]))


def _read(layout: Layout, parts: list[int | memoryview], place: int) -> NDArray[Any]:
    buffer: Any = _elements(parts, place, layout.dtype)
    # How many numbers of variable length a field holds is known only now.
    layout.check(memoryview(buffer).nbytes, "a protobuf field")
    return layout.array(buffer)


def _elements(parts: list[int | memoryview], place: int, dtype: str) -> memoryview | bytes | NDArray[Any]:
    """The bytes of a tensor: where they lie, or decoded if the field holds variable-length numbers."""
    if len(parts) == 1 and isinstance(parts[0], memoryview) and place in (RAW, FLOATS, DOUBLES):
        return parts[0]
    if place in (RAW, FLOATS, DOUBLES):
        return b"".join(part for part in parts if isinstance(part, memoryview))
    numbers = [varints(p) if isinstance(p, memoryview) else np.array([p], np.uint64) for p in parts]
    whole = np.concatenate(numbers) if numbers else np.empty(0, np.uint64)
    if dtype == "bool":
        return np.asarray(whole != 0)
    return whole.astype(f"<u{itemsize(dtype)}")


def _numbers(values: list[int | memoryview]) -> list[int]:
    lists = [[value] if isinstance(value, int) else [int(n) for n in varints(value[:1000])] for value in values]
    return [number for numbers in lists for number in numbers]


def _kind(tensor: dict[int, list[int | memoryview]]) -> int:
    return next((value for value in reversed(tensor[2]) if isinstance(value, int)), 0)


def _text(value: int | memoryview = 0) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else str(value or "")


def _decimal(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise Damage(f"has {show(text)} where a number of bytes should be")
    return int(text)
