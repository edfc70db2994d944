"""safetensors, single and sharded: every type, tables that lie, and ten gigabytes listed at once."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from layerscope.checkpoints import open_checkpoint
from tests.checkpoints.conftest import DTYPES, Network, check, refusal, values

# What the format, or the library that writes it here, does not have.
SAVED = [dtype for dtype in DTYPES if dtype not in ("complex32", "complex128")]


@pytest.mark.parametrize("dtype", SAVED)
def test_every_element_type(tmp_path: Path, dtype: str) -> None:
    from safetensors.torch import save_file

    state = {"w": values(dtype), "empty": values(dtype, (0, 3)), "scalar": values(dtype, ())}
    try:
        save_file(state, tmp_path / "a")
    except (KeyError, ValueError) as error:
        pytest.skip(f"the library cannot write {dtype}: {error}")
    order = [spec.name for spec in open_checkpoint(tmp_path / "a").specs]
    check(tmp_path / "a", {name: state[name] for name in order})


def test_mapped_and_with_its_metadata(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.arange(4.0)}, tmp_path / "a", metadata={"format": "pt"})
    with open_checkpoint(tmp_path / "a") as checkpoint:
        assert checkpoint.extra == {"format": "pt"}
        assert not checkpoint.read(checkpoint.specs[0]).flags.owndata


def write(path: Path, table: object, data: bytes = b"", length: int | None = None) -> Path:
    raw = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


TABLES: dict[str, tuple[object, str]] = {
    "outside": ({"w": entry(shape=(3,), offsets=(0, 12))}, "is truncated: it has"),
    "backwards": ({"w": entry(offsets=(8, 0))}, "lies at bytes (8, 0)"),
    "negative": ({"w": entry(offsets=(-8, 0))}, "-8 in its shape"),
    "three offsets": ({"w": entry(offsets=(0, 8, 8))}, "lies at bytes"),
    "too few bytes": ({"w": entry(shape=(3,))}, "has 8 bytes for w"),
    "overflow": ({"w": entry(shape=(2**62, 2**62, 4))}, "has 8 bytes for w"),
    "float shape": ({"w": entry(shape=(1.5,))}, "1.5 in its shape"),
    "boolean shape": ({"w": entry(shape=(True, 2))}, "True in its shape"),
    "shape of text": ({"w": entry(shape="2")}, "2 for its shape"),
    "shape of lists": ({"w": entry(shape=[[1], [2]])}, "(1) in its shape"),
    "no shape": ({"w": {"dtype": "F32"}}, "no dtype, shape and data_offsets"),
    "no entry": ({"w": 3}, "no dtype, shape and data_offsets"),
    "not JSON": (b"{nope", "not JSON"),
    "not UTF-8": (b'{"\xff": 1}', "not JSON"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
    "twice": (b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "w": 1}', "lists w twice"),
    "huge number": (b'{"w": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 8]}}', "not JSON"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_lie(tmp_path: Path, case: str) -> None:
    table, answer = TABLES[case]
    assert answer in refusal(write(tmp_path / "a", table, bytes(8)))


def test_lengths_that_lie(tmp_path: Path) -> None:
    table = {"w": entry()}
    assert "its table alone needs" in refusal(write(tmp_path / "a", table, length=5000))
    assert "more than the format's" in refusal(write(tmp_path / "b", table, length=2**39))


def test_types_without_numpy_values_are_listed(tmp_path: Path) -> None:
    table = {"w": entry("F4", (4,), (0, 2)), "v": entry(offsets=(2, 10))}
    with open_checkpoint(write(tmp_path / "a", table, bytes(10))) as checkpoint:
        assert checkpoint.specs[0].unreadable == "F4 has no numpy values" and checkpoint.specs[0].nbytes == 2
        assert checkpoint.read(checkpoint.specs[1]).tolist() == [0, 0]
        assert len(checkpoint.warnings) == 1


def test_sharded_by_folder_and_by_index(samples: dict[str, Path], network: Network) -> None:
    state = dict(network.state_dict())
    check(samples["sharded"], state)
    check(samples["sharded"] / "model.safetensors.index.json", state)


def test_sharded_pytorch_files(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-1.bin")
    torch.save({"b": torch.zeros(3)}, tmp_path / "pytorch_model-2.bin", _use_new_zipfile_serialization=False)
    places = {"b": "pytorch_model-2.bin", "a": "pytorch_model-1.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    check(tmp_path, {"b": torch.zeros(3), "a": torch.ones(2)})


def index(folder: Path, weight_map: object) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path


def test_indices_that_lie(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    write(folder / "a", {"w": entry()}, bytes(8))
    write(tmp_path / "secret", {"w": entry()}, bytes(8))
    for name in ("../secret", str(tmp_path / "secret"), "a/../../secret", "..\\secret", "", "a\0", "C:secret"):
        assert "no file of its own folder" in refusal(index(folder, {"w": name}))
    (folder / "link").symlink_to(tmp_path / "secret")
    assert "no file of its own folder" in refusal(index(folder, {"w": "link"}))
    assert "is not in its folder" in refusal(index(folder, {"w": "b"}))
    assert "which does not hold it" in refusal(index(folder, {"v": "a"}))
    assert "no weight_map" in refusal(index(folder, [1]))
    assert "no weight_map" in refusal(index(folder, {"w": 3}))
    (folder / "a").write_bytes(b"text")
    assert "as no safetensors or PyTorch file does" in refusal(index(folder, {"w": "a"}))
    write(folder / "a", {"w": entry(offsets=(0, 99))}, bytes(8))
    assert "in a: is truncated" in refusal(index(folder, {"w": "a"}))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ')
    assert "is no JSON" in refusal(folder / "model.safetensors.index.json")
    with open_checkpoint(index(folder, {})) as checkpoint:
        assert checkpoint.specs == []


def test_links_of_the_hugging_face_cache(tmp_path: Path) -> None:
    """There every file of a snapshot is a link to ../../blobs."""
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    write(blobs / "123", {"w": entry()}, bytes(8))
    (snapshot / "model-1.safetensors").symlink_to(blobs / "123")
    with open_checkpoint(index(snapshot, {"w": "model-1.safetensors"})) as checkpoint:
        assert checkpoint.read(checkpoint.specs[0]).tolist() == [0, 0]


def test_tensors_beside_the_index_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a", {"w": entry(), "v": entry()}, bytes(8))
    with open_checkpoint(index(tmp_path, {"w": "a"})) as checkpoint:
        assert checkpoint.warnings == ["the shards hold 1 tensors that the index does not list"]


def test_ten_gigabytes_are_listed_at_once(tmp_path: Path) -> None:
    """Sparse files: 10 shards of 1 GB, 100 tensors each."""
    places = {}
    for shard in range(10):
        size = 10 * 2**20
        table = {
            f"layer.{shard}.{i}.weight": entry("BF16", (size // 2,), (i * size, i * size + size)) for i in range(100)
        }
        path = write(tmp_path / f"model-{shard}.safetensors", table)
        os.truncate(path, path.stat().st_size + 100 * size)
        places |= dict.fromkeys(table, path.name)
    index(tmp_path, places)
    started = time.perf_counter()
    with open_checkpoint(tmp_path) as checkpoint:
        assert time.perf_counter() - started < 1
        assert sum(spec.nbytes for spec in checkpoint.specs) == 100 * 10 * 10 * 2**20
        array = checkpoint.read(checkpoint.specs[-1])
        assert array.dtype == np.uint16 and not array.any()
