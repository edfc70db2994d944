"""The table of a zip archive, from archives made by hand: what is read at the very edge, what is refused beyond it."""

from __future__ import annotations

import dataclasses
import re
import struct
import zlib

import pytest

from layerscope.checkpoints.storage.errors import Damage
from layerscope.checkpoints.storage.zip import MIB, Archive

WIDE = 0xFFFFFFFF


def opened(data: bytes) -> Archive:
    return Archive(memoryview(data))


def local(data: bytes, name: bytes = b"a", extra: bytes = b"") -> bytes:
    """An entry where it lies: header, name, extra field, bytes."""
    sizes = (0, len(data), len(data), len(name), len(extra))
    return struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, *sizes) + name + extra + data


def central(
    name: bytes = b"a",
    header: int = 0,
    packed: int = 0,
    size: int | None = None,
    method: int = 0,
    extra: bytes = b"",
    comment: bytes = b"",
) -> bytes:
    """An entry of the directory."""
    sizes = (0, packed, packed if size is None else size, len(name), len(extra), len(comment))
    fixed = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, method, 0, 0, *sizes, 0, 0, 0, header)
    return fixed + name + extra + comment


def end(count: int, size: int, start: int, comment: bytes = b"") -> bytes:
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, size, start, len(comment)) + comment


def whole(before: bytes, directory: bytes, count: int = 1, comment: bytes = b"") -> bytes:
    return before + directory + end(count, len(directory), len(before), comment)


def record64(count: int, size: int, start: int) -> bytes:
    return struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)


def locator64(record: int) -> bytes:
    return struct.pack("<4sLQL", b"PK\x06\x07", 0, record, 1)


def test_an_archive_of_nothing() -> None:
    assert opened(end(0, 0, 0)).entries == {}


def test_entries_with_extra_fields_and_comments() -> None:
    first, second = local(b"one", extra=b"\x02\x00\x01\x00?"), local(b"two", name=b"b")
    directory = central(packed=3, extra=b"\x02\x00\x05\x00hello", comment=b"a comment")
    directory += central(b"b", len(first), 3)
    archive = opened(whole(first + second, directory, 2))
    assert [bytes(archive.read(name)) for name in archive.entries] == [b"one", b"two"]


@pytest.mark.parametrize("data", [b"", b"at the end"])
def test_an_entry_that_ends_with_the_file(data: bytes) -> None:
    """Behind the directory, where its comment is: odd, and inside."""
    entry = local(data, b"")
    directory = central(b"", 46 + 22, len(data))
    assert bytes(opened(whole(b"", directory, comment=entry)).read("")) == data
    directory = central(b"", 46 + 22, len(data) + 1)
    with pytest.raises(Damage, match="lies outside"):
        opened(whole(b"", directory, comment=entry)).read("")


@pytest.mark.parametrize("header", [29, 30, 31, 45])
def test_a_header_that_the_file_ends_in(header: int) -> None:
    data = whole(b"", central(header=46 + 1 + 22 + 46 - header), comment=bytes(46))
    with pytest.raises(Damage, match="lies outside"):
        opened(data).read("a")


def test_what_lies_there_is_an_entry() -> None:
    data = b"PK\x03\x05" + local(b"abc")[4:]
    with pytest.raises(Damage, match="lies outside"):
        opened(whole(data, central(packed=3))).read("a")


def test_a_directory_that_ends_between_two_entries() -> None:
    directory = central(b"a" * 20) + central(b"")
    data = directory + end(2, len(directory) - 1, 0)
    with pytest.raises(Damage, match="ends after fewer than the 2 entries"):
        opened(data)
    assert len(opened(directory + end(2, len(directory), 0)).entries) == 2


def test_a_directory_of_more_entries_than_it_has_room_for() -> None:
    directory = central(b"") + central(b"b")
    assert list(opened(whole(b"", directory, 2)).entries) == ["", "b"]
    with pytest.raises(Damage, match="is truncated or damaged"):
        opened(whole(b"", directory, 3))


def test_a_directory_may_end_with_the_file_and_not_behind_it() -> None:
    size = len(central()) + 22
    assert list(opened(central() + end(1, size, 0)).entries) == ["a"]
    with pytest.raises(Damage, match=f"its directory says {size + 1} or more"):
        opened(central() + end(1, size + 1, 0))


def test_the_end_may_lie_before_a_comment_of_65535_bytes_and_no_more() -> None:
    data = whole(b"", central()) + b"-" * 65535
    assert list(opened(data).entries) == ["a"]
    with pytest.raises(Damage, match="the directory at a zip archive's end is missing"):
        opened(data + b"-")


@pytest.mark.parametrize("size", [0, 4, 21])
def test_an_end_that_is_cut(size: int) -> None:
    with pytest.raises(Damage, match=f"is truncated: it has {size} bytes"):
        opened(end(0, 0, 0)[:size])


def test_the_64_bit_directory_counts_wherever_its_locator_is() -> None:
    """At the beginning of the file, and with the record as the comment: nothing else is as near to the edges."""
    record = record64(1, 47, 20 + 22 + 56)
    data = locator64(20 + 22) + end(0, 0, 0, record + central())
    assert list(opened(data).entries) == ["a"]


def test_the_64_bit_directory_lies_inside_of_the_file() -> None:
    record = record64(0, 0, 0)
    assert opened(locator64(42) + end(9, 9, 9, record)).entries == {}
    for where in (41, 43, 42 + 56, 1 << 40, (1 << 64) - 1):
        with pytest.raises(Damage, match="64-bit directory is not where it says"):
            opened(locator64(where) + end(9, 9, 9, record))
    with pytest.raises(Damage, match="64-bit directory is not where it says"):
        opened(locator64(42) + end(9, 9, 9, record[:-1]))


def test_a_locator_before_the_file_is_none() -> None:
    """Nothing is looked for in the bytes at the end, which negative places would mean."""
    assert opened(end(0, 0, 0, locator64(0))).entries == {}


def extra64(*values: int, before: bytes = b"") -> bytes:
    field = struct.pack(f"<{len(values)}Q", *values)
    return before + struct.pack("<HH", 1, len(field)) + field


WIDES = {
    "size and packed": (central(packed=WIDE, size=WIDE, extra=extra64(7, 7)), (0, 7, 7)),
    "all": (central(packed=WIDE, size=WIDE, header=WIDE, extra=extra64(7, 7, 9)), (9, 7, 7)),
    "header alone": (central(packed=7, size=7, header=WIDE, extra=extra64(9)), (9, 7, 7)),
    "size alone": (central(packed=7, size=WIDE, method=8, extra=extra64(1 << 40)), (0, 7, 1 << 40)),
    "none that is needed": (central(packed=7, size=7, extra=extra64(9)), (0, 7, 7)),
    "behind another": (central(header=WIDE, extra=extra64(9, before=b"\x02\x00\x03\x00abc")), (9, 0, 0)),
    "behind an empty one": (central(header=WIDE, extra=extra64(9, before=b"\x02\x00\x00\x00")), (9, 0, 0)),
    "missing": (central(header=WIDE), (WIDE, 0, 0)),
    "no room": (central(header=WIDE, extra=b"\x01\x00\x08"), (WIDE, 0, 0)),
    "empty": (central(header=WIDE, extra=extra64()), (WIDE, 0, 0)),
    "cut": (central(header=WIDE, extra=extra64(9)[:-1]), (WIDE, 0, 0)),
    "cut after one": (central(packed=7, size=7, header=WIDE, extra=extra64(9, 5)[:-1]), (9, 7, 7)),
    "first of two": (central(header=WIDE, extra=extra64(9) + extra64(5)), (9, 0, 0)),
    "of seven bytes": (central(header=WIDE, extra=b"\x01\x00\x07\x00" + bytes(8)), (WIDE, 0, 0)),
    "of no bytes": (central(header=WIDE, extra=b"\x01\x00\x00\x00" + bytes(8)), (WIDE, 0, 0)),
}


@pytest.mark.parametrize("case", WIDES)
def test_64_bit_fields(case: str) -> None:
    directory, wanted = WIDES[case]
    (entry,) = opened(whole(b"", directory)).entries.values()
    assert (entry.header, entry.packed, entry.size) == wanted


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


def test_how_much_a_compressed_entry_may_unpack_to() -> None:
    raw = deflated(b"abc")
    data = whole(local(raw), central(packed=len(raw), size=3, method=8))
    archive = opened(data)
    assert archive.read("a", spare=0) == b"abc"
    for arguments, limit in (((), 64 * 1024 * 1024 + 64 * len(data)), ((5,), 5 + 64 * len(data))):
        for size, answer in ((limit, f"unpacks to 3 bytes or more, not to the {limit}"), (limit + 1, "would unpack")):
            archive.entries["a"] = dataclasses.replace(archive.entries["a"], size=size)
            with pytest.raises(Damage, match=answer):
                archive.read("a", *arguments)
    assert MIB == 1024 * 1024


NAMES = {
    "../a": "points outside", "a/../b": "points outside", "a\\..\\b": "points outside", "..": "points outside",
    "/a": "points outside", "\\a": "points outside", "a..b": "", "...": "", "a/b": "", "a\\b": "",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    data = whole(b"", central(name.encode()))
    if NAMES[name]:
        with pytest.raises(Damage, match=NAMES[name]):
            opened(data)
    else:
        assert list(opened(data).entries) == [name]


def test_a_name_that_is_no_text_is_one_all_the_same() -> None:
    assert list(opened(whole(b"", central(b"\xff"))).entries) == ["\ufffd"]


@pytest.mark.parametrize(("flags", "refused"), [(1, True), (0x809, True), (0x808, False)])
def test_encrypted_entries(flags: int, refused: bool) -> None:
    directory = bytearray(central())
    struct.pack_into("<H", directory, 8, flags)
    if refused:
        with pytest.raises(Damage, match="is encrypted"):
            opened(whole(b"", bytes(directory)))
    else:
        assert list(opened(whole(b"", bytes(directory))).entries) == ["a"]


@pytest.mark.parametrize("method", [1, 7, 9, 99])
def test_other_compressions(method: int) -> None:
    with pytest.raises(Damage, match=re.escape(f"uses compression {method}")):
        opened(whole(b"", central(method=method)))
