"""Of the readers, what no other test saw when the code was broken on purpose: `verification/mutants.py`."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from layerscope.checkpoints import gguf, open_checkpoint
from layerscope.checkpoints.pickles.builders import BUILDERS, Storage
from layerscope.checkpoints.pickles.machine import COST_ITEM, Machine
from layerscope.checkpoints.storage.errors import Damage
from layerscope.checkpoints.torch_legacy import _view
from layerscope.errors import CheckpointError
from tests.checkpoints.conftest import refusal, tensor_pickle, write_gguf, zip_with
from tests.checkpoints.test_gguf import string
from tests.checkpoints.test_onnx import external


def test_a_storage_of_two_types_has_both(tmp_path: Path) -> None:
    """torch.save refuses to write such pickles; their storages are there all the same."""
    floats, ints = tensor_pickle(name="floats"), tensor_pickle(name="ints", kind="IntStorage")
    raw = struct.pack("<2f", 1.0, -2.0)
    with open_checkpoint(zip_with(tmp_path / "x", floats[:-1] + ints[3:], s0=raw)) as checkpoint:
        found = {spec.name: (spec.dtype, checkpoint.read(spec).tolist()) for spec in checkpoint.specs}
    assert found == {"floats": ("float32", [1.0, -2.0]), "ints": ("int32", list(struct.unpack("<2i", raw)))}


def test_long_names_of_another_archive_are_cut_in_the_message(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("a" * 300, b"")
    message = refusal(tmp_path / "x")
    assert "a" * 37 in message and "a" * 38 not in message


def test_arrays_nest_as_deep_as_the_message_says(tmp_path: Path) -> None:
    def nested(levels: int) -> Path:
        value = string("n") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * levels + struct.pack("<IQ", 4, 0)
        return write_gguf(tmp_path / "a", {}, value, 1)

    assert open_checkpoint(nested(gguf.MAX_ARRAY_DEPTH)).specs == []
    assert f"more than {gguf.MAX_ARRAY_DEPTH} deep" in refusal(nested(gguf.MAX_ARRAY_DEPTH + 1))


def test_an_offset_of_eighteen_digits_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(8))
    assert "which has 8" in refusal(external(tmp_path / "a", location="data", offset="9" * 18))
    assert "number of bytes" in refusal(external(tmp_path / "a", location="data", offset="9" * 19))


def machine(data: bytes) -> Machine:
    return Machine(data, {}, lambda reference: reference)


def test_the_oldest_way_to_write_a_dictionary() -> None:
    assert dict(machine(b"(I1\nI2\nI3\nI4\nd.").load().items()) == {1: 2, 3: 4}


def test_what_is_put_into_a_list_is_accounted_for() -> None:
    few, many = machine(b"](NNe."), machine(b"](" + b"N" * 1000 + b"e.")
    assert few.load() == [None] * 2 and many.load() == [None] * 1000
    # A byte of pickle allows as much for both; the items alone make the difference.
    spent = [len(one.data) * 8 - one.budget for one in (few, many)]
    assert spent[1] - spent[0] == 998 * COST_ITEM


def test_a_mark_that_was_popped_is_gone() -> None:
    with pytest.raises(Damage, match="takes a mark that is not there"):
        machine(b"(0t.").load()


def test_buffers_outside_of_the_pickle_are_refused() -> None:
    with pytest.raises(Damage, match="in buffers outside of it"):
        machine(b"\x80\x05N\x97.").load()


def test_the_longest_comment_of_an_archive(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "x", tensor_pickle(), s0=struct.pack("<2f", 1.0, -2.0))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"c" * 65535
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read(checkpoint.specs[0]).tolist() == [1, -2]


def with_64_bit_directory(path: Path, where: int | None = None) -> Path:
    """The archive with the directory of a large one, and its locator saying `where` that is."""
    data = path.read_bytes()
    end = data.rfind(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HLL", data, end + 10)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end if where is None else where, 1)
    small = data[end : end + 10] + struct.pack("<HLL", 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF) + data[end + 20 :]
    path.write_bytes(data[:end] + record + locator + small)
    return path


def test_the_directory_of_a_large_archive(tmp_path: Path) -> None:
    path = with_64_bit_directory(zip_with(tmp_path / "x", tensor_pickle(), s0=struct.pack("<2f", 1.0, -2.0)))
    with zipfile.ZipFile(path) as archive:  # Python reads it, too
        assert len(archive.infolist()) == 2
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read(checkpoint.specs[0]).tolist() == [1, -2]


@pytest.mark.parametrize("where", [0, 1 << 40, (1 << 64) - 1], ids=["elsewhere", "outside", "the greatest"])
def test_a_large_directory_that_is_not_where_it_says(tmp_path: Path, where: int) -> None:
    path = with_64_bit_directory(zip_with(tmp_path / "x", tensor_pickle(), s0=bytes(8)), where)
    with pytest.raises(CheckpointError, match="64-bit directory is not where it says"):
        open_checkpoint(path)


@pytest.mark.parametrize(("room", "said"), [(55, "64-bit directory is not where it says"), (56, "holding nothing")])
def test_a_large_directory_that_the_file_ends_in(tmp_path: Path, room: int, said: str) -> None:
    path = zip_with(tmp_path / "x", tensor_pickle(), s0=bytes(8))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK\x06\x06" + bytes(room - 4)
    with_64_bit_directory(path, path.stat().st_size + 56 + 20 - room)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(path)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_numpy_as_protocol_5_writes_it(tmp_path: Path, order: str) -> None:
    values = np.array(np.arange(6, dtype=np.float32).reshape(2, 3), order=order)
    with open_checkpoint(zip_with(tmp_path / "x", pickle.dumps({"w": values}, 5))) as checkpoint:
        assert np.array_equal(checkpoint.read(checkpoint.specs[0]), values)


def test_a_dictionary_of_pairs() -> None:
    found = Machine(b"ccollections\nOrderedDict\n(]I7\nI8\n\x86atR.", BUILDERS, lambda reference: reference).load()
    assert dict(found.items()) == {7: 8}


@pytest.mark.parametrize("view", [("v", -1, 1), ("v", 0, -1), ("v", 1, 2), ("v", 0.0, 1)])
def test_a_view_outside_of_its_storage_is_refused(view: tuple[object, ...]) -> None:
    with pytest.raises(Damage, match="has 8 bytes, a view of it needs"):
        _view(Storage("k", "float32", 8), view)
