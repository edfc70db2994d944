"""TensorBoard's event file: what is written to it, byte by byte, without TensorBoard.

A file is a row of TFRecords (length, its checksum, an `Event` as protocol buffer, its checksum). The messages are those
of tensorflow/core/util/event.proto and framework/summary.proto; the numbers below are their field numbers. Written here
because TensorBoard's own writer computes the checksums byte by byte in Python, which takes longer than the statistics,
and ends the thread that writes, for good, when the disk is full for a moment.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import writing

__all__ = ["EventFile", "crc32c", "histogram", "image", "scalar", "text"]

_STRING = 7  # DT_STRING of tensorflow/core/framework/types.proto
_NUMBERS = count()


class EventFile:
    """A new event file in a folder, which is made if need be; each event is on its way to disk when `add` returns.

    Raises OutputError where nothing can be written; the next event is tried anew.
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self.path = Path(logdir) / name
        with writing(logdir):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        self._write(_field(3, b"brain.Event:2"))

    def add(self, step: int, values: Iterable[bytes]) -> None:
        """One event with these values of `scalar`, `histogram`, `image` and `text`."""
        body = b"".join(_field(1, value) for value in values)
        self._write(_field(2, step) + _field(5, body))

    def graph(self, definition: bytes) -> None:
        """The graph of the network, a serialised GraphDef."""
        self._write(_field(4, definition))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, fields: bytes) -> None:
        event = _field(1, time.time()) + fields
        length = struct.pack("<Q", len(event))
        record = b"".join((length, _masked(length), event, _masked(event)))
        with writing(self.path):
            end = self._file.tell()
            try:
                if self._file.write(record) != len(record):
                    raise OSError(28, "No space left on device")
            except OSError:
                self._file.truncate(end)  # a reader stops for good at half a record
                self._file.seek(end)
                raise


def scalar(tag: str, value: float) -> bytes:
    """A figure."""
    return _value(tag, b"\x15" + struct.pack("<f", value))  # field 2, of four bytes


def histogram(tag: str, figures: Sequence[float], limits: NDArray[np.float64], counts: NDArray[np.int64]) -> bytes:
    """A histogram. figures: min, max, number, sum, sum of squares; limits: the right ends of the bins (n,)"""
    values: list[float | bytes] = [*map(float, figures), *(array.astype("<f8").tobytes() for array in (limits, counts))]
    fields = [_field(number, value) for number, value in enumerate(values, 1)]
    return _value(tag, _field(5, b"".join(fields)))


def image(tag: str, png: bytes) -> bytes:
    """A PNG as it is: TensorBoard's `add_image` would make an RGB picture of four times the size."""
    width, height = struct.unpack(">II", png[16:24])  # of the header, which a PNG begins with
    fields = [_field(number, value) for number, value in enumerate((height, width, 3, png), 1)]
    return _value(tag, _field(4, b"".join(fields)))


def text(tag: str, markdown: str) -> bytes:
    """A text in Markdown: a tensor of one string, without axes, for the plugin `text`."""
    metadata = _field(9, _field(1, _field(1, b"text")))
    return _value(tag, metadata + _field(8, _field(1, _STRING) + _field(8, markdown.encode())))


def _value(tag: str, field: bytes) -> bytes:
    return _field(1, tag.encode("utf-8", "replace")) + field


def _field(number: int, value: bytes | int | float) -> bytes:
    """A field of a message: bytes with their length, a whole number, or a double."""
    if isinstance(value, bytes):
        return bytes((number << 3 | 2,)) + _varint(len(value)) + value
    if isinstance(value, float):
        return bytes((number << 3 | 1,)) + struct.pack("<d", value)
    return bytes((number << 3,)) + _varint(value)


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # negative numbers take ten bytes
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes(data + bytes((number,)))


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


# The checksum is linear over bits: long data are cut into rows that are done side by side, and
# joined in pairs.

_ROW = 64
_SHORT = 256  # bytes: up to here a loop is quicker
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected; RFC 3720, appendix B.4


@cache
def _table() -> NDArray[np.uint32]:
    table: NDArray[Any] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ (np.uint32(_POLYNOMIAL) * (table & 1))
    return table


@cache
def _shift(rows: int) -> NDArray[np.uint32]:
    """What a number of rows of zeros does to each of the 32 bits of the checksum; rows is a power of two."""
    if rows > 1:
        half = _shift(rows // 2)
        return _moved(half, half)
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(_ROW):
        bits = _table()[bits & 255] ^ (bits >> 8)
    return bits


def _moved(crcs: NDArray[np.uint32], shift: NDArray[np.uint32]) -> NDArray[np.uint32]:
    bits = (crcs[:, None] >> np.arange(32, dtype=np.uint32)) & 1  # (n, 32)
    return np.bitwise_xor.reduce(bits * shift, axis=1)


@cache
def _list() -> list[int]:
    return _table().tolist()


def _crc32c_of_short(data: bytes) -> int:
    table, crc = _list(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C."""
    if len(data) <= _SHORT:
        return _crc32c_of_short(data)
    rows = 1 << max(0, -(-len(data) // _ROW) - 1).bit_length()
    padded = np.zeros(rows * _ROW, np.uint8)  # zeros in front change nothing
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    padded[rows * _ROW - len(data) :][:4] ^= 255  # the same as to begin with ones
    table, crcs = _table(), np.zeros(rows, np.uint32)
    for column in np.ascontiguousarray(padded.reshape(rows, _ROW).T):
        crcs = table[(crcs ^ column) & 255] ^ (crcs >> 8)
    apart = 1
    while len(crcs) > 1:
        crcs = _moved(crcs[::2], _shift(apart)) ^ crcs[1::2]
        apart *= 2
    return int(crcs[0]) ^ 0xFFFFFFFF
