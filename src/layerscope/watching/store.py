"""The run directory: an index that only grows, and one record a step that was looked at.

    LOGDIR/layerscope/index.jsonl            a line when something was seen; the last one may be torn
    LOGDIR/layerscope/000000300.layerscope   the record of step 300, written whole or not at all

Nothing is ever changed but by appending to the index, and by putting whole files in place or taking them away: whatever
the moment at which the process dies, the directory can be read. `docs/watching.md` describes it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerscope.errors import OutputError, UsageError, writing
from layerscope.records.record import Record
from layerscope.text import finite
from layerscope.watching.events import Event

__all__ = ["FOLDER", "INDEX", "SCHEMA", "Store", "name_of", "steps_in"]

FOLDER, INDEX, SUFFIX = "layerscope", "index.jsonl", ".layerscope"
#: of the index; raised when an older reader could misread it
SCHEMA = 1
_NAME = re.compile(r"(\d{9,})\.layerscope")


def name_of(step: int) -> str:
    """The file of a step: names sort as the steps do."""
    return f"{step:09}{SUFFIX}"


def steps_in(folder: Path) -> list[int]:
    """The steps whose record is there, ascending."""
    found = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


class Store:
    """Writes a run directory. An OSError is said once and otherwise kept from the training.

    `keep` records, and `budget_bytes` of them, are kept at most: when there are more, every second one of the older
    half goes, so that what is kept lies the farther apart the older it is. The index keeps all its lines.
    `start` is the step with which a run goes on: what an earlier run left behind it is dropped. A run that
    begins anew (0) moves the older one aside. Raises OutputError where nothing can be written at all.
    """

    def __init__(
        self, logdir: Path, start: int, keep: int, budget_bytes: int, about: dict[str, Any], say: Callable[[str], None]
    ) -> None:
        if keep < 2:
            raise UsageError(f"keep: {keep} is too few records; keep 2 or more")
        self.folder, self.keep, self.budget_bytes, self.say = logdir / FOLDER, keep, budget_bytes, say
        self.failed: set[str] = set()
        self._sizes: dict[int, int] = {}
        with writing(self.folder):
            if start == 0 and (self.folder / INDEX).exists():
                say(f"the run that was in {self.folder} is now in {_aside(self.folder)}")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._index = (self.folder / INDEX).open("ab", buffering=0)
            self._resume(start)
        self.line({"run": {"schema": SCHEMA, "start": start, "time": time.time(), **about}})
        if self.failed:
            raise OutputError(f"{self.folder}: cannot be written; give a folder you may write to, with room left")

    def _resume(self, start: int) -> None:
        for path in self.folder.glob(".*.part"):
            path.unlink()  # of a process that was killed
        for step in steps_in(self.folder):
            path = self.folder / name_of(step)
            if step > start:
                path.unlink()
            else:
                self._sizes[step] = path.stat().st_size
        data = (self.folder / INDEX).read_bytes()
        if data and not data.endswith(b"\n"):
            self._index.write(b"\n")

    def __call__(self, step: int, scalars: Mapping[str, float], events: Sequence[Event], record: Record | None) -> None:
        """Keep what happened in a step, as a sink; the record first: the index names no step before it is whole."""
        if record is not None:
            self.save(step, record)
        line: dict[str, Any] = {"step": step, "time": time.time(), "scalars": dict(scalars)}
        self.line(line | ({"events": [event.packed() for event in events]} if events else {}))

    def line(self, line: dict[str, Any]) -> None:
        """Append a line to the index, in one write."""
        data = json.dumps(finite(line, str), separators=(",", ":")).encode() + b"\n"
        self._try("index", lambda: self._append(data))

    def save(self, step: int, record: Record) -> bool:
        """Write the record of a step; whether it is there now."""
        path = self.folder / name_of(step)
        done = self._try("record", lambda: record.save(path))
        if done:
            self._sizes[step] = path.stat().st_size
            self._try("thinning", self._thin)
        return done

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def _append(self, data: bytes) -> None:
        end = os.fstat(self._index.fileno()).st_size
        written = self._index.write(data)
        if written != len(data):
            self._index.truncate(end)
            raise OSError(28, "No space left on device")

    def _thin(self) -> None:
        while len(self._sizes) > self.keep or (sum(self._sizes.values()) > self.budget_bytes and len(self._sizes) > 2):
            steps = sorted(self._sizes)
            older = steps[: max(2, len(steps) // 2)]
            for step in older[1::2]:  # the first one stays
                (self.folder / name_of(step)).unlink(missing_ok=True)
                del self._sizes[step]

    def _try(self, what: str, work: Callable[[], object]) -> bool:
        try:
            work()
        except (OSError, OutputError) as error:
            if not self.failed:
                reason = str(error) if isinstance(error, OutputError) else f"{self.folder}: {error.strerror or error}"
                self.say(f"this step is not kept: {reason}. The training goes on, later steps are tried again")
            self.failed.add(what)
            return False
        self.failed.discard(what)
        return True


def _aside(folder: Path) -> Path:
    number = 1
    while (other := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return folder.rename(other)
