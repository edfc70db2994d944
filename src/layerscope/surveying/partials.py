"""What a survey keeps beside its record while it runs, so that it can be stopped at any moment and go on later.

The folder FILE.partial holds `state`, one file that is replaced as a whole: a line that names the format, a line of
JSON (the job's identity, the chunks that are done, the broken images), then the packed state. `lock` is held while a
survey runs; the system lets it go however the process ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from layerscope import files
from layerscope.errors import RecordError, UsageError, writing
from layerscope.surveying.job import Broken, Job
from layerscope.surveying.tally import Tally

__all__ = ["EVERY_S", "Kept", "keeping"]

#: seconds between two writings: what a kill at the worst moment loses
EVERY_S = 30.0
_MAGIC = b"layerscope partial survey 1\n"


class Kept:
    """The folder of one survey. `tally`: what was done when it was opened."""

    def __init__(self, folder: Path, job: Job, every_s: float) -> None:
        self.folder, self._every_s = folder, every_s
        self._identity = job.identity()
        self.tally = self._read(job) or Tally(job)
        self._written = time.monotonic()

    def _read(self, job: Job) -> Tally | None:
        path = self.folder / "state"
        if not path.exists():
            return None
        content = path.read_bytes()
        try:
            if not content.startswith(_MAGIC):
                raise ValueError("no such file of layerscope's")
            line, _, packed = content[len(_MAGIC) :].partition(b"\n")
            said = json.loads(line)
            if hashlib.sha256(packed).hexdigest() != said["sha256"]:
                raise ValueError("its digest differs")
            self._compare(said["identity"])
            state = job.unpack(packed) if packed else None
            broken = [Broken(*one) for one in said["broken"]]
            return Tally(job, state, set(_numbers(said["chunks"])), broken, set(said["processors"]), said["shape"])
        except (ValueError, KeyError, TypeError, RecordError) as error:
            raise RecordError(f"{path}: is damaged ({error}); begin again with --restart") from error

    def _compare(self, begun: dict[str, str]) -> None:
        names = [name for name in self._identity if begun.get(name) != self._identity[name]]
        if names:
            said = [
                f"{name} ({begun.get(name)} there, {self._identity[name]} here)" if name in _SHORT else name
                for name in names
            ]
            raise UsageError(
                f"{self.folder}: differs from this survey in its {' and '.join(said)}; "
                "give what it was begun with, or begin again with --restart"
            )

    def write(self, tally: Tally, now: bool = False) -> None:
        """Keep what is done, if it was not just done. Raises OutputError."""
        if now or time.monotonic() - self._written >= self._every_s:
            packed = tally.state.pack() if tally.state else b""
            said: dict[str, Any] = {
                "identity": self._identity,
                "chunks": _ranges(tally.chunks),
                "broken": [list(one) for one in tally.broken],
                "processors": sorted(tally.processors),
                "shape": list(tally.shape),
                "sha256": hashlib.sha256(packed).hexdigest(),
            }
            files.save(_MAGIC + json.dumps(said).encode() + b"\n" + packed, self.folder / "state")
            self._written = time.monotonic()

    def done(self) -> None:
        """The record is saved: take the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)


#: parts of an identity that a person can compare
_SHORT = {"network", "layerscope", "torch", "processor"}


@contextmanager
def keeping(record: Path, job: Job, restart: bool = False, every_s: float = EVERY_S) -> Iterator[Kept]:
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
            yield Kept(folder, job, every_s)
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


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    """{0, 1, 2, 5} as [[0, 2], [5, 5]]"""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _numbers(ranges: list[list[int]]) -> Iterator[int]:
    for first, last in ranges:
        yield from range(first, last + 1)
