"""A run directory read back, while the training runs or after it; torch is not imported."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from layerscope.errors import RecordError
from layerscope.records.file import load
from layerscope.records.record import Record
from layerscope.text import nearest
from layerscope.watching.events import Event
from layerscope.watching.store import FOLDER, INDEX, SCHEMA, name_of, steps_in

__all__ = ["Run", "open_run"]


class Run:
    """A training over its steps.

    `steps`: those whose record is kept, ascending. `scalars`: name -> [(step, value)]. `events`: in order.
    `about`: what the run was started with. `last`: the last step of which anything is known.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = -1
        self.refresh()

    def _clear(self) -> None:
        self._at = 0
        self.about: dict[str, Any] = {}
        self.steps: list[int] = []
        self.times: dict[int, float] = {}
        self.scalars: dict[str, list[tuple[int, float]]] = {}
        self.events: list[Event] = []

    @property
    def last(self) -> int:
        """0 before the first step."""
        return max(self.times, default=0)

    def refresh(self) -> bool:
        """Read what was added since; whether anything was. Raises RecordError."""
        path = self.folder / INDEX
        try:
            with path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                if number != self._file:  # another run took its place
                    self._file = number
                    self._clear()
                file.seek(self._at)
                data = file.read()
            steps = steps_in(self.folder)
        except OSError as error:
            raise RecordError(f"{self.folder}: cannot be read ({error.strerror or error})") from error
        whole = data[: data.rfind(b"\n") + 1]  # the last line may be half written
        self._at += len(whole)
        for line in whole.splitlines():
            self._take(line)
        changed = bool(whole) or steps != self.steps
        self.steps = steps
        return changed

    def _take(self, line: bytes) -> None:
        try:
            body = json.loads(line)
            if "run" in body:
                self._begin(body["run"])
                return
            step = int(body["step"])
            self.times[step] = float(body["time"])
            for name, value in body.get("scalars", {}).items():
                self.scalars.setdefault(name, []).append((step, float(value)))
            self.events += [Event(step, **event) for event in body.get("events", [])]
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # torn by a kill, and followed by a run that went on

    def _begin(self, run: dict[str, Any]) -> None:
        if run["schema"] > SCHEMA:
            raise RecordError(
                f"{self.folder}: written by a newer layerscope (run schema {run['schema']}); update layerscope"
            )
        start = int(run["start"])
        self.about = run
        self.times = {step: time for step, time in self.times.items() if step <= start}
        self.scalars = {name: [one for one in points if one[0] <= start] for name, points in self.scalars.items()}
        self.events = [event for event in self.events if event.step <= start]

    def record(self, step: int) -> Record:
        """The record of a step. Raises RecordError for one that is not kept."""
        if step not in self.steps:
            self.refresh()
        if step not in self.steps:
            near = nearest(str(step), map(str, self.steps))
            raise RecordError(f"{self.folder}: step {step} has no record{near}")
        return load(self.folder / name_of(step))


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run by its LOGDIR, or by the folder `layerscope` inside. Raises RecordError."""
    given = Path(path)
    for folder in (given / FOLDER, given):
        if (folder / INDEX).is_file():
            return Run(folder)
    raise RecordError(
        f"{os.fspath(path)}: no run in this folder; one comes from layerscope.watch(model, logdir=...) "
        "or from layerscope train --logdir"
    )
