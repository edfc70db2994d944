"""What is done of a survey, in which every image is accounted for, and how it is kept beside the record meanwhile.

The folder FILE.partial holds `state`, one file that is replaced as a whole: what is done, with the job's identity, so
that a survey can be stopped at any moment and go on later. `lock` is held while a survey runs; the system lets it go
however the process ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from layerscope import files
from layerscope.errors import EngineError, ImageError, RecordError, UsageError, writing
from layerscope.surveying.running.job import Broken, Job

__all__ = ["EVERY_S", "Partial", "Resumable", "opened", "resuming"]

_MAGIC = b"layerscope partial survey 2\n"
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size
#: seconds between two writings: what a kill at the worst moment loses
EVERY_S = 30.0
#: parts of an identity that a person can compare
_SHORT = {"network", "layerscope", "torch", "processor"}


@dataclass
class Partial:
    """One chunk as it was measured, all chunks that have arrived, or in the end the whole survey.

    chunks: the numbers of those that are in. state: what was measured, None where no image could be read. broken:
    images that could not be. shape: (C, H, W) of the images. processors: on which they were measured.
    """

    job: Job
    chunks: set[int] = field(default_factory=set)
    state: Any = None
    broken: list[Broken] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    processors: set[str] = field(default_factory=set)

    @property
    def images(self) -> int:
        """How many were measured."""
        return self.state.images if self.state else 0

    @property
    def done(self) -> int:
        """How many were measured or found broken."""
        return self.images + len(self.broken)

    @property
    def of(self) -> int:
        """How many there are."""
        return len(self.job.source)

    @property
    def pending(self) -> list[int]:
        """Chunks that are not in yet, in order."""
        return [chunk for chunk in range(self.job.chunks) if chunk not in self.chunks]

    def check(self) -> None:
        """Raises ValueError if it has chunks that the job has not, or other images than its chunks."""
        if any(not 0 <= chunk < self.job.chunks for chunk in self.chunks):
            raise ValueError(f"chunk {max(self.chunks)} of {self.job.chunks} was never asked for")
        whole = sum(len(self.job.numbers(chunk)) for chunk in self.chunks)
        if whole != self.done:
            raise ValueError(f"{self.images} measured and {len(self.broken)} broken arrived of {whole} images")

    def merge(self, other: Partial) -> None:
        """Add chunks; the other is of no use afterwards.

        Raises EngineError if they are not what was asked for, ImageError for images of another size.
        """
        try:
            other.check()
            if other.chunks & self.chunks:
                raise ValueError(f"chunk {min(other.chunks & self.chunks)} arrived twice")
        except ValueError as error:
            raise EngineError(f"{error}; run it again") from error
        if other.shape and self.shape and other.shape != self.shape:
            first = self.job.source.name(self.job.numbers(min(other.chunks))[0])
            raise ImageError(
                f"{first} and those after it are {other.shape} after preprocessing and others are {self.shape}; "
                "set --size, or --resize and --crop"
            )
        if self.state is None:
            self.state = other.state
        elif other.state is not None:
            self.state.merge(other.state)
        self.chunks |= other.chunks
        self.broken += other.broken
        self.shape = self.shape or other.shape
        self.processors |= other.processors

    def pack(self, **header: Any) -> bytes:
        """As bytes: a line that names the format, a digest of the rest, a line of JSON, what was measured. header: what
        else the JSON is to hold."""
        header |= {
            "chunks": sorted(self.chunks),
            "broken": self.broken,
            "shape": self.shape,
            "processors": sorted(self.processors),
        }
        line, state = json.dumps(header).encode() + b"\n", self.state.pack() if self.state else b""
        digest = hashlib.sha256(line)
        digest.update(state)
        return b"".join([_MAGIC, digest.digest(), line, state])

    @classmethod
    def restore(cls, job: Job, header: dict[str, Any], state: bytes) -> Partial:
        """The way back from what `opened` gives. Raises ValueError, KeyError, TypeError, RecordError."""
        measured = job.tools[1].unpack(state) if state else None
        broken, shape = [Broken(*image) for image in header["broken"]], tuple(header["shape"])
        return cls(job, set(header["chunks"]), measured, broken, shape, set(header["processors"]))


def opened(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON and the rest of what `Partial.pack` made. Raises ValueError for anything else, and for damage.

    The digest finds what was damaged on the way; it is no protection against forgery: sizes are checked all the same.
    """
    if not data.startswith(_MAGIC):
        raise ValueError("it is no partial survey of this version of layerscope")
    if data[len(_MAGIC) : _HEAD] != hashlib.sha256(memoryview(data)[_HEAD:]).digest():
        raise ValueError("its digest differs")
    end = data.index(b"\n", _HEAD)
    return json.loads(data[_HEAD:end]), data[end + 1 :]


class Resumable:
    """The folder of one survey. `partial`: what was done when it was opened."""

    def __init__(self, folder: Path, job: Job, every_s: float) -> None:
        self._file, self._every_s = folder / "state", every_s
        self._identity = job.identity()
        self.partial = self._read(job) if self._file.exists() else Partial(job)
        self._written = time.monotonic()

    def _read(self, job: Job) -> Partial:
        try:
            header, state = opened(self._file.read_bytes())
            self._compare(header["identity"])
            partial = Partial.restore(job, header, state)
            partial.check()
            return partial
        except (ValueError, KeyError, TypeError, RecordError) as error:
            raise RecordError(f"{self._file}: is damaged ({error}); begin again with --restart") from error

    def _compare(self, begun: dict[str, str]) -> None:
        ours = self._identity
        names = [
            f"{name} ({begun.get(name)} there, {ours[name]} here)" if name in _SHORT else name
            for name in ours
            if begun.get(name) != ours[name]
        ]
        if names:
            raise UsageError(
                f"{self._file.parent}: differs from this survey in its {' and '.join(names)}; "
                "give what it was begun with, or begin again with --restart"
            )

    def write(self, partial: Partial, now: bool = False) -> None:
        """Keep what is done, if it was not just done. Raises OutputError."""
        if now or time.monotonic() - self._written >= self._every_s:
            files.save(partial.pack(identity=self._identity), self._file)
            self._written = time.monotonic()

    def done(self) -> None:
        """The record is saved: take the folder away."""
        shutil.rmtree(self._file.parent, ignore_errors=True)


@contextmanager
def resuming(record: Path, job: Job, restart: bool = False, every_s: float = EVERY_S) -> Iterator[Resumable]:
    """What is kept beside the file `record` while a survey runs. Call `done` of it once the record is saved.

    Raises UsageError while another process is at it and for one that was begun otherwise, RecordError for a damaged
    one.
    """
    folder = record.with_name(f"{record.name}.partial")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
    with lock:
        for half in folder.glob(".*.part"):
            half.unlink(missing_ok=True)  # of a process that was killed while it wrote
        if restart:
            (folder / "state").unlink(missing_ok=True)
        try:
            yield Resumable(folder, job, every_s)
        finally:
            if not (folder / "state").exists():
                shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path) -> BinaryIO:
    path = folder / "lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
        if not _taken(file):
            file.seek(0)
            who = file.read(20).decode("ascii", "replace").strip() or "unknown"
            file.close()
            raise UsageError(
                f"{folder}: another survey (process {who}) is at it; wait for it, or give another --record"
            )
        try:
            same = os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except FileNotFoundError:
            same = False
        if same:  # else the one before has just ended and taken the folder away
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
            return file
        file.close()


def _taken(file: BinaryIO) -> bool:
    """Whether the lock on the file is ours now."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 20)  # Windows locks bytes against reading; the number stands in the first ones
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
