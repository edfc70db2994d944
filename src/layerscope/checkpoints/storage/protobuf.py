"""The wire format of protocol buffers, as far as ONNX needs it. https://protobuf.dev/programming-guides/encoding"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .errors import Damage

__all__ = ["Message", "varints"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
#: fields that one file may have; a field costs two bytes of file, and a microsecond
MAX_FIELDS = 5_000_000
_NOTHING = memoryview(b"")


class Message:
    """A span of a buffer that holds a message; its fields are found as they are asked for."""

    def __init__(self, data: memoryview, counter: list[int] | None = None) -> None:
        self.data = data
        self.counter = counter if counter is not None else [MAX_FIELDS]

    def fields(self) -> Iterator[tuple[int, int | memoryview]]:
        """Number and value of every field: an integer, or the bytes of anything longer."""
        data, at, end = self.data, 0, len(self.data)
        while at < end:
            self.counter[0] -= 1
            if self.counter[0] < 0:
                raise Damage(f"has more than {MAX_FIELDS} fields", "no ONNX exporter writes that many")
            key, at = _varint(data, at)
            number, kind = key >> 3, key & 7
            if kind == VARINT:
                value, at = _varint(data, at)
                yield number, value
                continue
            if kind == BYTES:
                length, at = _varint(data, at)
            else:
                length = {FIXED64: 8, FIXED32: 4}.get(kind, -1)
            if length < 0 or at + length > end or not number:
                raise Damage("is truncated or damaged: a protobuf field ends outside of its message")
            yield number, data[at : at + length]
            at += length

    def grouped(self) -> defaultdict[int, list[int | memoryview]]:
        """The values of every field by its number, in their order."""
        values: defaultdict[int, list[int | memoryview]] = defaultdict(list)
        for number, value in self.fields():
            values[number].append(value)
        return values

    def message(self, value: int | memoryview = _NOTHING) -> Message:
        """The message in the bytes of a field."""
        if isinstance(value, int):
            raise Damage("has a number where a protobuf message should be")
        return Message(value, self.counter)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise Damage("is truncated: a protobuf number ends outside of its message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise Damage("is damaged: a protobuf number has more than ten bytes")


def varints(data: memoryview) -> NDArray[np.uint64]:
    """All numbers of a packed field, (count,)."""
    raw = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(raw < 0x80)
    if not raw.size or last.size == 0 or last[-1] != raw.size - 1:
        if raw.size:
            raise Damage("is damaged: a protobuf field of numbers ends within one")
        return np.empty(0, np.uint64)
    first = np.concatenate(([0], last[:-1] + 1))
    place = np.arange(raw.size) - np.repeat(first, last - first + 1)
    if place.max() > 9:
        raise Damage("is damaged: a protobuf number has more than ten bytes")
    parts = (raw & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(parts, first)
