"""ONNX: initializers and Constant nodes, read off the wire. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.checkpoints.base import Checkpoint, Listing, TensorSpec
from layerscope.checkpoints.storage.errors import Damage, show
from layerscope.checkpoints.storage.paths import inside
from layerscope.checkpoints.storage.protobuf import Message, varints
from layerscope.checkpoints.storage.strided import Layout, contiguous, map_file, shape_of
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
            model.function(root.message(value))
    return model.listing.checkpoint(path, "ONNX")


@dataclass
class _Tensor:
    """The fields of a TensorProto."""

    name: str = ""
    shape: list[int] = field(default_factory=list)
    type: int = 0
    data: dict[int, list[int | memoryview]] = field(default_factory=dict)
    external: dict[str, str] | None = None


class _Model:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.listing = Listing()
        self.names: set[str] = set()
        self.maps: dict[Path, memoryview] = {}

    def graph(self, graph: Message, depth: int = 0) -> None:
        """Add the initializers and constants of a graph and of the graphs inside its nodes."""
        if depth > MAX_DEPTH:
            raise Damage(f"nests graphs more than {MAX_DEPTH} deep", "no ONNX runtime would run it")
        for number, value in graph.fields():
            if number == 1:
                self.node(graph.message(value), depth)
            elif number == 5:
                self.add(_tensor(graph.message(value)))
            elif number == 15:
                self.add_sparse(graph.message(value))

    def function(self, function: Message) -> None:
        """Add the constants of a function's nodes."""
        for number, value in function.fields():
            if number == 7:
                self.node(function.message(value), 1)

    def node(self, node: Message, depth: int) -> None:
        """Add the value of a Constant node under the name of its output."""
        parts = list(node.fields())
        output = next((_text(value) for number, value in parts if number == 2), "")
        constant = any(number == 4 and _text(value) == "Constant" for number, value in parts)
        for number, value in parts:
            if number != 5:
                continue
            attribute = node.message(value)
            for inner, content in attribute.fields():
                if inner == 5 and constant:
                    tensor = _tensor(attribute.message(content))
                    tensor.name = output
                    self.add(tensor)
                elif inner in (6, 11):
                    self.graph(attribute.message(content), depth + 1)

    def add_sparse(self, sparse: Message) -> None:
        """List a sparse initializer by the name of its values."""
        parts = list(sparse.fields())
        values = next((_tensor(sparse.message(value)) for number, value in parts if number == 1), _Tensor())
        shape = [n for number, value in parts if number == 3 for n in _numbers(value)]
        dtype = _TYPES.get(values.type, ("unknown", 0))[0]
        reason = "it is sparse, and only dense tensors are read"
        self.listing.add(TensorSpec(self._unique(values.name), shape_of(shape), dtype, "weight", "", reason, 0))

    def add(self, tensor: _Tensor) -> None:
        """List a tensor, and how to read it."""
        name, shape = self._unique(tensor.name), shape_of(tensor.shape)
        if tensor.type not in _TYPES:
            dtype = _OTHER.get(tensor.type, f"type {show(tensor.type)}")
            reason = f"{dtype} has no numpy values"
            stored = sum(len(part) for part in tensor.data.get(RAW, []) if isinstance(part, memoryview))
            return self.listing.add(TensorSpec(name, shape, dtype, unreadable=reason, stored_bytes=stored))
        dtype, place = _TYPES[tensor.type]
        layout = Layout(dtype, shape, contiguous(shape))
        if tensor.external is not None:
            return self._add_external(TensorSpec(name, shape, dtype), layout, tensor.external)
        raw = tensor.data.get(RAW)
        if raw is not None:
            place, need = RAW, prod(shape) * itemsize(dtype)
        else:
            need = prod(shape) * (1 if place in (INT32S, INT64S, UINT64S) else itemsize(dtype))
        parts = tensor.data.get(place, [])
        have = sum(len(part) if isinstance(part, memoryview) else 10 for part in parts)
        if have < need or (raw is not None and have != need):
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

    def _unique(self, name: str) -> str:
        # Names need be unique only within a graph; bodies of loops may repeat them.
        number, unique = 1, name or "constant"
        while unique in self.names:
            number += 1
            unique = f"{name or 'constant'}#{number}"
        self.names.add(unique)
        return unique


def _tensor(message: Message) -> _Tensor:
    tensor = _Tensor()
    external: dict[str, str] = {}
    for number, value in message.fields():
        if number == 1:
            tensor.shape += _numbers(value)
        elif number == 2 and isinstance(value, int):
            tensor.type = value
        elif number == 8:
            tensor.name = _text(value)
        elif number in (FLOATS, INT32S, INT64S, RAW, DOUBLES, UINT64S):
            tensor.data.setdefault(number, []).append(value)
        elif number == 13:
            pair = {key: _text(part) for key, part in message.message(value).fields()}
            external[pair.get(1, "")] = pair.get(2, "")
        elif number == 14 and value == 1:
            tensor.external = external
    return tensor


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


def _numbers(value: int | memoryview) -> list[int]:
    return [value] if isinstance(value, int) else [int(n) for n in varints(value[:1000])]


def _text(value: int | memoryview) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else str(value)


def _decimal(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise Damage(f"has {show(text)} where a number of bytes should be")
    return int(text)
