"""Sizes that lie, bombs and truncation: one clear line, and memory that stays bounded."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from layerscope.checkpoints import open_checkpoint
from layerscope.checkpoints.pickles import machine, state_dicts
from layerscope.checkpoints.pickles.machine import MIB
from tests.checkpoints.conftest import integer, refusal, rezip, tensor_pickle, text, zip_with

#: what the file says -> (arguments of tensor_pickle, the answer)
SIZES = {
    "outside of the storage": ({"shape": (3,), "count": 2}, "needs 12 bytes"),
    "offset outside": ({"offset": 5}, "needs 28 bytes"),
    "stride outside": ({"strides": (9,)}, "needs 40 bytes"),
    "storage larger than its entry": ({"shape": (9,), "count": 9}, "should have 9 elements"),
    "negative size": ({"shape": (-1,)}, "-1 in its shape"),
    "negative stride": ({"strides": (-1,)}, "-1 in its shape or strides"),
    "negative offset": ({"offset": -1}, "before its beginning"),
    "negative count": ({"count": -1}, "invalid key, type or size"),
    "overflow": ({"shape": (2**50, 2**50), "strides": (2**50, 2**50)}, "too large for any memory"),
    "beyond 64 bits": ({"shape": (2**63,)}, "in its shape"),
    "empty, yet too large": ({"shape": (0, 2**62), "strides": (1, 1)}, "too large for any memory"),
    "enormous": ({"shape": (2**8000,)}, "bits in its shape"),
    "repeated without end": ({"shape": (2**40,), "strides": (0,)}, "too often"),
    "repeated without end twice": ({"shape": (2**28, 2**28), "strides": (0, 0)}, "too often"),
    "many dimensions": ({"shape": (1,) * 70, "strides": (1,) * 70}, "up to 32 numbers"),
    "strides missing": ({"shape": (1, 1)}, "2 dimensions but 1 strides"),
    "no such storage": ({"key": "s1"}, "does not hold"),
    "out of its folder": ({"key": "../data.pkl"}, "does not hold"),
    "no such type": ({"kind": "EvilStorage"}, "invalid key, type or size"),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_that_lie(tmp_path: Path, case: str) -> None:
    arguments, answer = SIZES[case]
    assert answer in refusal(zip_with(tmp_path / "a", tensor_pickle(**arguments), s0=bytes(8)))


def test_the_hand_made_pickle_is_right_when_it_tells_the_truth(tmp_path: Path) -> None:
    with open_checkpoint(zip_with(tmp_path / "a", tensor_pickle(), s0=struct.pack("<2f", 1, 2))) as checkpoint:
        assert checkpoint.read(checkpoint.specs[0]).tolist() == [1, 2]


def test_empty_tensors_may_say_anything(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "a", tensor_pickle(shape=(0, 2**40), strides=(2**62, 1), offset=7), s0=bytes(8))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read(checkpoint.specs[0]).shape == (0, 2**40)


def laughs(levels: int, base: bytes, pair: bytes) -> bytes:
    """base, then `levels` containers that each hold the one before twice."""
    return base + b"q\x00" + (pair + b"q\x00") * levels + b"."


BOMBS: dict[str, tuple[bytes, str]] = {
    "lists of lists": (b"\x80\x02" + laughs(60, tensor_pickle()[2:-1], b"0](h\x00h\x00e"), "containers too often"),
    "tuples of tuples": (b"\x80\x02" + laughs(60, tensor_pickle()[2:-1], b"0h\x00h\x00\x86"), "containers too often"),
    "deep lists": (b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "nested more than 100"),
    "deep tuples": (b"\x80\x02N" + b"\x85" * 200_000 + b".", "nested more than 100"),
    "deep keys": (b"\x80\x02}N" + b"\x85" * 200_000 + b"Ns.", ""),
    "keys of laughing tuples": (b"\x80\x02N" + b"2\x86" * 100 + b"q\x00}h\x00Ns.", ""),
    "marks": (b"\x80\x02" + b"(" * 200_000 + b".", "not there"),
    "empty lists": (b"\x80\x02" + b"]" * 1_000_000 + b".", "bomb looks"),
    "memo": (b"\x80\x02N" + b"\x94" * 1_000_000 + b".", "bomb looks"),
    "one list, often extended": (
        b"\x80\x02](" + b"N" * 1000 + b"eq\x00" + b"0ccollections\nOrderedDict\nh\x00\x85R" * 5000 + b".",
        "OrderedDict",
    ),
    "bytes of one string": (
        b"\x80\x02" + text("a" * 100_000) + b"q\x00" + b"0c_codecs\nencode\nh\x00U\x06latin1\x86R" * 5000 + b".",
        "bomb looks",
    ),
    "one dictionary, often copied": (
        b"\x80\x02](" + b"".join(integer(i) + b"N\x86" for i in range(1000)) + b"eq\x00"
        + b"ccollections\nOrderedDict\nh\x00\x85R" * 9000 + b".",
        "bomb looks",
    ),
    "colliding keys": (
        b"\x80\x02}(" + b"".join(integer(i * (2**61 - 1)) + b"N" for i in range(1, 30_000)) + b"u.",
        "",
    ),
    "globals": (b"\x80\x02" + b"ca\nb\n" * 600_000 + b".", "bomb looks"),
    "rebuilt state": (b"\x80\x02cargparse\nNamespace\n)\x81}" + b"q\x00b" + b"h\x00b" * 500_000 + b".", ""),
    "names": (b"\x80\x02}" + text("n" * 5000) + tensor_pickle()[2:-1] + b"s.", "5002 characters"),
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_bombs(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused or shrugged off, in bounded time; a smaller budget makes the test quick, not the bomb harmless."""
    monkeypatch.setattr(machine, "BUDGET_BYTES", 32 * MIB)
    monkeypatch.setattr(state_dicts, "MAX_WORK", 2_000_000)
    pickled, answer = BOMBS[case]
    path = zip_with(tmp_path / "a", pickled, s0=bytes(8))
    started = time.process_time()
    if answer:
        assert answer in refusal(path)
    else:
        open_checkpoint(path)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("case", ["empty lists", "memo", "one dictionary, often copied", "bytes of one string"])
def test_bombs_in_memory(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BUDGET_BYTES", 8 * MIB)
    path = zip_with(tmp_path / "a", BOMBS[case][0], s0=bytes(8))
    size = path.stat().st_size
    tracemalloc.start()
    try:
        refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB + 32 * size


def test_opcodes_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MAX_OPCODES", 1000)
    assert "more than 1000 opcodes" in refusal(zip_with(tmp_path / "a", b"\x80\x02" + b"N0" * 1000 + b"N."))


def test_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle(shape=(2,), count=25 * MIB))
        with archive.open("archive/data/s0", "w") as entry:
            for _ in range(100):
                entry.write(bytes(MIB))
    assert path.stat().st_size < MIB
    tracemalloc.start()
    try:
        assert "zip bomb" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_a_compressed_entry_that_lies_about_its_size(tmp_path: Path) -> None:
    for said in (8, 4000):
        path = tmp_path / f"{said}"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", tensor_pickle())
            archive.writestr("archive/data/s0", bytes(1000))
        data = path.read_bytes()
        at = data.rindex(b"PK\x01\x02") + 24
        path.write_bytes(data[:at] + struct.pack("<L", said) + data[at + 4 :])
        assert "unpacks to" in refusal(path)


def test_a_pickle_bomb_in_a_compressed_entry(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"N" * (40 * MIB) + b".")
    assert "zip bomb" in refusal(path)


def change_directory(path: Path, change: Callable[[bytearray, int], None]) -> None:
    """Change the last record of a zip archive's directory."""
    data = bytearray(path.read_bytes())
    change(data, data.rindex(b"PK\x01\x02"))
    path.write_bytes(bytes(data))


ENTRIES: dict[str, tuple[Callable[[bytearray, int], None], str]] = {
    "header outside": (lambda data, at: struct.pack_into("<L", data, at + 42, 1 << 30), "lies outside"),
    "size outside": (
        lambda data, at: struct.pack_into("<LL", data, at + 20, 1 << 30, 1 << 30),
        "lies outside",
    ),
    "stored and smaller": (lambda data, at: struct.pack_into("<L", data, at + 24, 4), "is stored, yet"),
    "encrypted": (lambda data, at: struct.pack_into("<H", data, at + 8, 1), "encrypted"),
    "compression": (lambda data, at: struct.pack_into("<H", data, at + 10, 99), "compression 99"),
    "no signature": (lambda data, at: struct.pack_into("<L", data, at, 0), "not where it says"),
    "long name": (lambda data, at: struct.pack_into("<H", data, at + 28, 60000), "not where it says"),
    "many entries": (
        lambda data, at: struct.pack_into("<HH", data, len(data) - 14, 9999, 9999),
        "truncated or damaged",
    ),
    "directory outside": (
        lambda data, at: struct.pack_into("<L", data, len(data) - 6, 1 << 30),
        "truncated or damaged",
    ),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_directories_that_lie(tmp_path: Path, case: str) -> None:
    change, answer = ENTRIES[case]
    path = zip_with(tmp_path / "a", tensor_pickle(), s0=bytes(8))
    change_directory(path, change)
    assert answer in refusal(path)


def test_entries_twice_or_out_of_the_archive(tmp_path: Path) -> None:
    for name, answer in (
        ("archive/data.pkl", "twice"),
        ("../../etc/passwd", "points outside"),
        ("/etc/x", "points outside"),
    ):
        path = zip_with(tmp_path / "a", tensor_pickle(), s0=bytes(8))
        with zipfile.ZipFile(path, "a") as archive, pytest.warns() if answer == "twice" else nullcontext():
            archive.writestr(name, b"x")
        assert answer in refusal(path)


def test_large_archives_have_64_bit_directories(tmp_path: Path) -> None:
    """Rewrite the end of an archive as Zip64, as PyTorch does beyond 4 GiB."""
    path = zip_with(tmp_path / "a", tensor_pickle(), s0=struct.pack("<2f", 3, 4))
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HLL", data, end + 10)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    last = data.rindex(b"PK\x01\x02")
    wide = bytearray(data[:end])
    wide_end = record + locator + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, *[0xFFFFFFFF] * 2, 0)
    path.write_bytes(bytes(wide) + wide_end)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read(checkpoint.specs[0]).tolist() == [3, 4]
    packed, unpacked, name, offset = (
        *struct.unpack_from("<LLH", data, last + 20),
        struct.unpack_from("<L", data, last + 42)[0],
    )
    struct.pack_into("<LLHH", wide, last + 20, 0xFFFFFFFF, 0xFFFFFFFF, name, 28)
    struct.pack_into("<L", wide, last + 42, 0xFFFFFFFF)
    wide += struct.pack("<HHQQQ", 1, 24, unpacked, packed, offset)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size + 28, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end + 28, 1)
    path.write_bytes(bytes(wide) + record + locator + wide_end[-22:])
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read(checkpoint.specs[0]).tolist() == [3, 4]


def test_64_bit_fields_that_end_early(tmp_path: Path) -> None:
    """Found by fuzzing: a size said to be in the extra field, which holds less than the eight bytes of one."""
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("archive/data.pkl")
        entry.extra = struct.pack("<HHL", 1, 4, 0)
        archive.writestr(entry, tensor_pickle())
    change_directory(path, lambda data, at: struct.pack_into("<LL", data, at + 20, 0xFFFFFFFF, 0xFFFFFFFF))
    for length in (4, 8, 12, 60000):
        change_directory(path, lambda data, at, n=length: struct.pack_into("<H", data, at + 46 + 16 + 2, n))
        assert "lies outside" in refusal(path)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_truncated(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "a"
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:size])
        message = refusal(path)
        assert "truncated" in message and f"has {size} bytes" in message


def test_legacy_storages_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "a"
    torch.save({"w": torch.zeros(7)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    at = whole.rindex(struct.pack("<q", 7))
    for count, answer in (
        (6, "should have 28 bytes"),
        (-1, "should have 28"),
        (2**62, "truncated"),
        (8, "truncated"),
    ):
        path.write_bytes(whole[:at] + struct.pack("<q", count) + whole[at + 8 :])
        assert answer in refusal(path)


def test_missing_storage(tmp_path: Path, samples: dict[str, Path]) -> None:
    path = rezip(samples["zip"], tmp_path / "a", lambda name, data: None if name.endswith("data/2") else data)
    assert "which the file does not hold" in refusal(path)


def test_damaged_stream(tmp_path: Path) -> None:
    path = tmp_path / "a"
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = packed.compress(tensor_pickle()) + packed.flush()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle())
    data = path.read_bytes()
    at = data.index(raw[:8])
    path.write_bytes(data[:at] + b"\xff" * 8 + data[at + 8 :])
    refusal(path)
