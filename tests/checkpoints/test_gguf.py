"""GGUF: plain types bit by bit, block types listed with the reason, and tables that lie."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from layerscope.checkpoints import gguf as reader
from layerscope.checkpoints import open_checkpoint
from tests.checkpoints.conftest import refusal, write_gguf


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def test_as_the_library_writes_it(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "a"), "test")
    writer.add_uint32("block_count", 3)
    writer.add_array("tokens", ["a", "bc"])
    writer.add_array("scores", [1.0, 2.0])
    arrays = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "h": np.ones(5, np.float16),
        "i": np.arange(4, dtype=np.int32),
    }
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    quantised = gguf.quants.quantize(np.ones((2, 32), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("q", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_checkpoint(tmp_path / "a") as checkpoint:
        assert checkpoint.extra == {"general.architecture": "test", "block_count": 3}
        for spec in checkpoint.specs[:3]:
            assert np.array_equal(checkpoint.read(spec), arrays[spec.name])
        spec = checkpoint.specs[3]
        assert (spec.shape, spec.dtype, spec.nbytes) == ((2, 32), "q8_0", 68)
        assert "blocks of 32" in spec.unreadable and len(checkpoint.warnings) == 1


def test_the_library_knows_no_other_types() -> None:
    gguf = pytest.importorskip("gguf")
    for kind, (elements, nbytes) in gguf.GGML_QUANT_SIZES.items():
        if kind.value in reader._BLOCKS:
            assert reader._BLOCKS[kind.value] == (kind.name.lower(), elements, nbytes)
        elif elements > 1:
            assert kind.name == "Q1_0"  # newer than the list; shown as an unknown type


@pytest.mark.parametrize("kind", reader._PLAIN)
def test_every_plain_type(tmp_path: Path, kind: int) -> None:
    raw = bytes(range(48))
    count = 48 // {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2}[kind]
    with open_checkpoint(write_gguf(tmp_path / "a", {"w": ((count // 2, 2), kind, raw)})) as checkpoint:
        array = checkpoint.read(checkpoint.specs[0])
        assert array.shape == (2, count // 2) and array.tobytes() == raw


def test_values_of_every_kind(tmp_path: Path) -> None:
    values = b"".join(
        string(f"k{kind}") + struct.pack("<I", kind) + struct.pack(code, 1) for kind, code in reader._VALUES.items()
    )
    nested = string("n") + struct.pack("<IIQIQ", 9, 9, 1, 4, 2) + bytes(8)
    path = write_gguf(tmp_path / "a", {}, values + nested, len(reader._VALUES) + 1)
    assert open_checkpoint(path).extra == {f"k{kind}": 1 for kind in reader._VALUES}


def test_tables_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "a"
    good = write_gguf(path, {"w": ((2,), 0, bytes(8))}).read_bytes()
    cases = {
        b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0): "says that it has",
        b"GGUF" + struct.pack("<IQQ", 3, 5, 0): "is truncated",
        b"GGUF" + struct.pack("<IQQ", 9, 0, 0): "version 9",
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0): "big-endian",
        b"GGUF\x03": "is truncated",
        good[:-32]: "is truncated or damaged",
    }
    for data, answer in cases.items():
        path.write_bytes(data)
        assert answer in refusal(path)
    tensors = {
        ((2**20, 2**20), 0, bytes(8)): "is truncated or damaged",
        ((2**62, 0), 0, bytes(8)): "too large for any memory",  # found by fuzzing: no elements, so no bytes are missing
        ((2,) * 9, 0, bytes(8)): "9 dimensions",
        ((2**63,), 0, bytes(8)): "in its shape",
    }
    for (shape, kind, raw), answer in tensors.items():
        assert answer in refusal(write_gguf(path, {"w": (shape, kind, raw)}))
    values = {
        string("a") + struct.pack("<I", 99): "type 99",
        string("a") + struct.pack("<IIQ", 9, 4, 2**62): "is truncated",
        string("a") + struct.pack("<IIQ", 9, 8, 2**62): "is truncated",
        string("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9: "nests arrays",
        string("general.alignment") + struct.pack("<II", 4, 0): "aligned to 0",
        struct.pack("<Q", 2**63): "is truncated",
    }
    for raw, answer in values.items():
        assert answer in refusal(write_gguf(path, {}, raw, 1))


def test_a_tensor_twice(tmp_path: Path) -> None:
    entry = string("w") + struct.pack("<IQIQ", 1, 2, 0, 0)
    (tmp_path / "a").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + entry * 2 + bytes(100))
    assert "lists it twice" in refusal(tmp_path / "a")


def test_unknown_types_are_listed(tmp_path: Path) -> None:
    with open_checkpoint(write_gguf(tmp_path / "a", {"w": ((4,), 77, bytes(8))})) as checkpoint:
        assert checkpoint.specs[0].unreadable.startswith("ggml type 77")
