"""ONNX read off the wire: every type in both encodings, external data kept in its folder, and damaged messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerscope.checkpoints import open_checkpoint
from layerscope.checkpoints.storage.errors import Damage
from layerscope.checkpoints.storage.protobuf import varints
from tests.checkpoints.conftest import refusal, write_onnx

onnx = pytest.importorskip("onnx")

TYPES = {
    "FLOAT": np.float32,
    "DOUBLE": np.float64,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
    "COMPLEX64": np.complex64,
    "COMPLEX128": np.complex128,
}


def model(*initializers: Any, nodes: tuple[Any, ...] = (), path: Path) -> Path:
    graph = onnx.helper.make_graph(list(nodes), "g", [], [], list(initializers))
    onnx.save(onnx.helper.make_model(graph), str(path))
    return path


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("name", TYPES)
def test_every_element_type(tmp_path: Path, name: str, raw: bool) -> None:
    dtype = np.dtype(TYPES[name])
    bits = np.random.default_rng(1).integers(0, 2 if name == "BOOL" else 255, 6 * dtype.itemsize, np.uint8)
    array = bits.view(dtype).reshape(2, 3) if name != "DOUBLE" else np.random.default_rng(1).normal(size=(2, 3))
    if raw:
        tensor = onnx.numpy_helper.from_array(array, "w")
    else:
        tensor = onnx.TensorProto(name="w", data_type=getattr(onnx.TensorProto, name), dims=array.shape)
        flat = array.reshape(-1)
        if name in ("FLOAT", "COMPLEX64"):
            tensor.float_data.extend(flat.view(np.float32).tolist())
        elif name in ("DOUBLE", "COMPLEX128"):
            tensor.double_data.extend(flat.view(np.float64).tolist())
        elif name == "INT64":
            tensor.int64_data.extend(flat.tolist())
        elif name in ("UINT32", "UINT64"):
            tensor.uint64_data.extend(flat.tolist())
        else:
            tensor.int32_data.extend(flat.view(np.uint16 if name == "FLOAT16" else dtype).astype(int).tolist())
    with open_checkpoint(model(tensor, path=tmp_path / "a")) as checkpoint:
        assert checkpoint.specs[0].shape == (2, 3)
        assert checkpoint.read(checkpoint.specs[0]).tobytes() == array.tobytes()


def test_small_floats(tmp_path: Path) -> None:
    names = ("BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0")
    tensors = [
        onnx.TensorProto(name=name, data_type=getattr(onnx.TensorProto, name), dims=[2], int32_data=[1, 200])
        for name in names
    ]
    with open_checkpoint(model(*tensors, path=tmp_path / "a")) as checkpoint:
        assert [checkpoint.read(spec).tolist() for spec in checkpoint.specs] == [[1, 200]] * 6
        assert checkpoint.specs[0].dtype == "bfloat16"


def test_no_elements_and_no_shape(tmp_path: Path) -> None:
    empty = onnx.numpy_helper.from_array(np.empty((0, 3), np.float32), "empty")
    scalar = onnx.numpy_helper.from_array(np.array(5.0), "scalar")
    typed = onnx.TensorProto(name="typed", data_type=7, dims=[0])
    with open_checkpoint(model(empty, scalar, typed, path=tmp_path / "a")) as checkpoint:
        assert [checkpoint.read(spec).shape for spec in checkpoint.specs] == [(0, 3), (), (0,)]


def test_initializers_constants_and_inner_graphs(tmp_path: Path) -> None:
    inner = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(np.ones(1), "w")])
    nodes = (
        onnx.helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.arange(2))),
        onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
        onnx.helper.make_node("Other", [], ["d"], value=onnx.numpy_helper.from_array(np.arange(2))),
    )
    path = model(onnx.numpy_helper.from_array(np.ones(1), "w"), nodes=nodes, path=tmp_path / "a")
    with open_checkpoint(path) as checkpoint:
        assert sorted(spec.name for spec in checkpoint.specs) == ["c", "w", "w#2", "w#3"]


def test_sparse_and_packed_types_are_listed(tmp_path: Path) -> None:
    four = onnx.TensorProto(name="q", data_type=onnx.TensorProto.INT4, dims=[4], raw_data=b"ab")
    words = onnx.TensorProto(name="s", data_type=onnx.TensorProto.STRING, dims=[1], string_data=[b"a"])
    graph = onnx.helper.make_graph([], "g", [], [], [four, words])
    sparse = onnx.SparseTensorProto(dims=[100])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), "v"))
    graph.sparse_initializer.append(sparse)
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "a"))
    with open_checkpoint(tmp_path / "a") as checkpoint:
        assert {s.name: (s.dtype, s.nbytes) for s in checkpoint.specs} == {
            "q": ("int4", 2),
            "s": ("string", 0),
            "v": ("float32", 0),
        }
        assert len(checkpoint.warnings) == 3


def test_external_data(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", external=True)
    assert (tmp_path / "a.onnx.data").exists()
    with open_checkpoint(path) as checkpoint:
        weight = next(spec for spec in checkpoint.specs if spec.name == "weight")
        assert checkpoint.read(weight).tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "a.onnx.data").unlink()
    with open_checkpoint(path) as checkpoint:
        weight = next(spec for spec in checkpoint.specs if spec.name == "weight")
        assert "which is not beside the model" in weight.unreadable


def external(path: Path, **pairs: str) -> Path:
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=1)
    for key, value in pairs.items():
        tensor.external_data.add(key=key, value=value)
    return model(tensor, path=path)


def test_external_data_that_lie(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "data").write_bytes(bytes(8))
    (tmp_path / "secret").write_bytes(bytes(8))
    (folder / "link").symlink_to(tmp_path / "secret")
    for location in ("../secret", str(tmp_path / "secret"), "link", ""):
        assert "no file of its own folder" in refusal(external(folder / "a", location=location))
    assert "which has 8" in refusal(external(folder / "a", location="data", offset="4"))
    assert "which has 8" in refusal(external(folder / "a", location="data", length="4"))
    assert "number of bytes" in refusal(external(folder / "a", location="data", offset="-4"))
    assert "number of bytes" in refusal(external(folder / "a", location="data", offset="9" * 30))
    with open_checkpoint(external(folder / "a", location="data", offset="0", length="8")) as checkpoint:
        assert checkpoint.read(checkpoint.specs[0]).tolist() == [0, 0]


def test_sizes_that_lie(tmp_path: Path) -> None:
    for dims in ([3], [-1], [2**62, 2**62], [1] * 40):
        tensor = onnx.TensorProto(name="w", data_type=1, dims=dims, raw_data=bytes(8))
        refusal(model(tensor, path=tmp_path / "a"))
    for data in ({"float_data": [1.0]}, {}):
        assert "needs 8" in refusal(
            model(onnx.TensorProto(name="w", data_type=1, dims=[2], **data), path=tmp_path / "a")
        )
    assert "needs 99" in refusal(
        model(onnx.TensorProto(name="w", data_type=6, dims=[99], int32_data=[1]), path=tmp_path / "a")
    )


def test_fewer_numbers_than_bytes(tmp_path: Path) -> None:
    """Found by fuzzing: five bytes that hold one number, for a shape of two."""
    path = model(onnx.TensorProto(name="w", data_type=6, dims=[2], int32_data=[2**31 - 1]), path=tmp_path / "a")
    assert "needs 8 bytes of a protobuf field" in refusal(path)


def test_graphs_without_end(tmp_path: Path) -> None:
    graph = b""
    for _ in range(60):
        attribute = b"\x32" + _length(graph) + graph
        node = b"\x2a" + _length(attribute) + attribute
        graph = b"\x0a" + _length(node) + node
    path = tmp_path / "a"
    path.write_bytes(b"\x08\x08\x3a" + _length(graph) + graph)
    assert "nests graphs" in refusal(path)


def _length(data: bytes) -> bytes:
    n, out = len(data), b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def test_damaged_messages(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for tail in (b"\x3a\xff", b"\x3a\x7f", b"\x3a\x01\x0b", b"\x3a" + b"\xff" * 11, b"\x38\x01", b"\x3a\x02\x0a\x80"):
        path.write_bytes(b"\x08\x08" + tail)
        refusal(path)


def test_many_numbers_at_once() -> None:
    numbers = [0, 1, 127, 128, 300, 2**31, 2**63, 2**64 - 1]
    raw = b"".join(_varint(n) for n in numbers)
    assert varints(memoryview(raw)).tolist() == numbers
    assert varints(memoryview(b"")).tolist() == []
    for damaged in (b"\x80", b"\x01\x80", b"\xff" * 12 + b"\x01"):
        with pytest.raises(Damage):
            varints(memoryview(damaged))


def _varint(n: int) -> bytes:
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])
