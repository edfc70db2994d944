"""Zip archives as PyTorch writes them: a table of entries in a mapped file, every offset checked."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import Damage, show
from .strided import map_file

__all__ = ["MAGIC", "MIB", "Archive", "Entry", "names_in"]

_END = b"PK\x05\x06"
_END64_LOCATOR = b"PK\x06\x07"
_END64 = b"PK\x06\x06"
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 65535
MAGIC = b"PK\x03\x04"
STORED, DEFLATED = 0, 8
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive: `packed` bytes in it, `size` bytes when unpacked."""

    name: str
    header: int
    packed: int
    size: int
    method: int


class Archive:
    """The entries of the zip archive that `data` holds, by name."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.entries: dict[str, Entry] = {}
        for entry in _directory(data):
            if entry.name in self.entries:
                raise Damage(f"the archive holds {show(entry.name)} twice")
            self.entries[entry.name] = entry

    def packed(self, name: str) -> memoryview:
        """The bytes of an entry as they lie in the archive, packed or not."""
        entry = self.entries[name]
        start = entry.header + _LOCAL.size
        if start <= len(self.data):
            signature, *_, name_bytes, extra_bytes = _LOCAL.unpack_from(self.data, entry.header)
            start += name_bytes + extra_bytes
            if signature == MAGIC and start + entry.packed <= len(self.data):
                return self.data[start : start + entry.packed]
        raise Damage(f"{show(name)} ({entry.packed} bytes) lies outside of the archive")

    def read(self, name: str, spare: int = 64 * MIB) -> bytes | memoryview:
        """The bytes of an entry. A compressed one may unpack to at most `spare` + 64 times the archive."""
        entry, packed = self.entries[name], self.packed(name)
        if entry.method == STORED:
            return packed
        limit = spare + 64 * len(self.data)
        if entry.size > limit:
            raise Damage(
                f"{show(name)} would unpack {entry.packed} bytes to {entry.size}, over the limit of {limit}",
                "this is how a zip bomb looks; repack the file without compression if you trust it",
            )
        return _inflate(packed, entry)


def names_in(head: bytes, path: Path) -> list[str]:
    """The names of the entries, none if the file is no zip archive or a damaged one."""
    try:
        return list(Archive(memoryview(map_file(path))).entries) if head.startswith(MAGIC) else []
    except Damage:
        return []


def _inflate(packed: memoryview, entry: Entry) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = stream.decompress(packed, entry.size + 1)
    except zlib.error as error:
        raise Damage(f"{show(entry.name)} cannot be unpacked ({show(error)})") from error
    if len(data) != entry.size:
        raise Damage(f"{show(entry.name)} unpacks to {len(data)} bytes or more, not to the {entry.size} it says")
    return data


def _directory(data: memoryview) -> Iterator[Entry]:
    count, at, end = _find_directory(data)
    for _ in range(count):
        if at + _CENTRAL.size > end:
            raise Damage(f"the archive's directory ends after fewer than the {count} entries it says")
        fields = _CENTRAL.unpack_from(data, at)
        signature, flags, method = fields[0], fields[3], fields[4]
        packed, size, name_bytes, extra_bytes, comment_bytes, header = *fields[8:13], fields[16]
        names = at + _CENTRAL.size
        at = names + name_bytes + extra_bytes + comment_bytes
        if signature != b"PK\x01\x02" or at > end:
            raise Damage("the archive's directory is not where it says")
        name = bytes(data[names : names + name_bytes]).decode("utf-8", "replace")
        extra = bytes(data[names + name_bytes : names + name_bytes + extra_bytes])
        size, packed, header = _zip64(extra, size, packed, header)
        _check(name, flags, method, packed, size)
        yield Entry(name, header, packed, size, method)


def _check(name: str, flags: int, method: int, packed: int, size: int) -> None:
    if ".." in name.replace("\\", "/").split("/") or name.startswith(("/", "\\")):
        raise Damage(f"the archive's entry {show(name)} points outside of it", "do not unpack this file anywhere")
    if flags & 1:
        raise Damage(f"the archive's entry {show(name)} is encrypted", "decrypt the file first")
    if method not in (STORED, DEFLATED):
        raise Damage(f"the archive's entry {show(name)} uses compression {method}", "repack it without compression")
    if method == STORED and packed != size:
        raise Damage(f"the archive's entry {show(name)} is stored, yet has {packed} bytes and says {size}")


def _find_directory(data: memoryview) -> tuple[int, int, int]:
    """Number of entries, first byte and end of the central directory."""
    tail_start = max(0, len(data) - 22 - _MAX_COMMENT)
    tail = bytes(data[tail_start:])
    at = tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        raise Damage(f"is truncated: it has {len(data)} bytes, and the directory at a zip archive's end is missing")
    count, size, start = struct.unpack_from("<HLL", tail, at + 10)
    locator = tail_start + at - 20
    if locator >= 0 and data[locator : locator + 4] == _END64_LOCATOR:
        (record,) = struct.unpack_from("<Q", data, locator + 8)
        if record + 56 > len(data) or data[record : record + 4] != _END64:
            raise Damage("the archive's 64-bit directory is not where it says")
        count, size, start = struct.unpack_from("<QQQ", data, record + 32)
    if start + size > len(data) or count > size // _CENTRAL.size:
        raise Damage(f"is truncated or damaged: it has {len(data)} bytes, its directory says {start + size} or more")
    return count, start, start + size


def _zip64(extra: bytes, *values: int) -> tuple[int, ...]:
    """`values` (size, packed size, header), those that do not fit 32 bits taken from the extra field."""
    if all(value != 0xFFFFFFFF for value in values):
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]  # may end early in a damaged archive
            wide = struct.iter_unpack("<Q", field[: len(field) // 8 * 8])
            return tuple(next(wide, (value,))[0] if value == 0xFFFFFFFF else value for value in values)
        at += 4 + length
    return values
