"""A training's run behind the viewer: looked at again every second, its records read when they are asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from layerscope.checkpoints.sharded import find_index
from layerscope.errors import NoMatch, RecordError, UsageError
from layerscope.records.file import load
from layerscope.records.record import Record
from layerscope.server.session import Kept, Session
from layerscope.text import json_text, nearest, printable
from layerscope.views import format as viewer
from layerscope.views.html import evenly, write_run
from layerscope.watching.run import Run, open_run
from layerscope.watching.store import FOLDER, INDEX, name_of

__all__ = ["Following", "described", "export_run", "run_path"]

POLL_S = 1.0
#: records that are kept in memory, beside their maps, which stay in the file until they are looked at
MOST_RECORDS = 8
#: what the page gets of a run at most
_POINTS, _NAMES, _EVENTS = 400, 16, 500
#: figures of single layers and tensors: their histograms say more
_SINGLE = ("dead/", "gradient/", "update to weight/")

Mark = tuple[int, int, int]
Made = TypeVar("Made")


def run_path(given: object) -> Path | None:
    """The folder of a run that is there, or is waited for; None for whatever else `view` takes.

    A run is waited for where a folder is empty, and where `runs/a` is not there yet: a path with a slash and without
    a suffix. Raises RecordError for a folder that is neither a run nor a checkpoint.
    """
    if not isinstance(given, str | os.PathLike):
        return None
    text = os.fspath(given)
    path = Path(text)
    if path.is_dir():
        inside = path / FOLDER if (path / FOLDER).is_dir() else path
        if (inside / INDEX).is_file() or not any(inside.iterdir()):
            return path
        if find_index(path):
            return None
        runs = sorted(str(one.parent.parent) for one in path.glob(f"*/{FOLDER}/{INDEX}"))
        if runs:
            raise RecordError(printable(f"{text}: a folder of runs; give one of them: {', '.join(runs[:5])}"))
        open_run(path)  # says that it is none
    coming = not path.exists() and "/" in text.replace(os.sep, "/") and not path.suffix and not set(text) & set(":=")
    return path if coming else None


def described(run: Run, skipped: dict[int, str]) -> dict[str, Any]:
    """What the page knows of a whole run, as plain data within bounds: docs/viewer.md describes it."""
    steps = [step for step in run.steps if step not in skipped]
    names = [name for name in run.scalars if not name.startswith(_SINGLE)][:_NAMES]
    events = run.events if len(run.events) <= _EVENTS else run.events[: _EVENTS // 2] + run.events[-_EVENTS // 2 :]
    return {
        "started": run.about.get("time"),
        "steps": steps,
        "times": [run.times.get(step) for step in steps],
        "scalars": {name: evenly(run.scalars[name], _POINTS) for name in names},
        "events": [{"step": event.step} | event.packed() for event in events],
        "notes": list(skipped.values()),
    }


def export_run(path: Path, html: Path, budget_bytes: int, warn: Callable[[str], None]) -> Path:
    """Write a run as one HTML file of at most `budget_bytes`. Raises RecordError, OutputError."""
    run = open_run(path)
    return write_run(described(run, {}), run.record, html, budget_bytes, warn)


class Following:
    """A run that may still grow, be thinned, or take the place of another one while it is read.

    `look` is called by a thread of its own; what is asked for runs in others. `warn` hears what cannot be read.
    """

    def __init__(self, path: Path, session: Session, warn: Callable[[str], None]) -> None:
        self.path = path
        self.skipped: dict[int, str] = {}
        self._session, self._warn = session, warn
        self._run: Run | None = None
        self._damaged: dict[Mark, str] = {}
        self._records: Kept[Record] = Kept(MOST_RECORDS, lambda record: 1)
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._said = ""

    def start(self) -> None:
        """Look again and again, until `close`."""
        threading.Thread(target=self._follow, name="layerscope-run", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()

    def look(self) -> None:
        """Read what was added, and tell of it. Raises RecordError for a run that cannot be read."""
        with self._lock:
            if self._run is None:
                if not any((folder / INDEX).is_file() for folder in (self.path, self.path / FOLDER)):
                    self._waiting()
                    return
                self._run = open_run(self.path)
                changed = True
            else:
                changed = self._run.refresh()
            self.skipped = {step: why for step in self._run.steps if (why := self._damaged.get(self._mark(step)))}
            if not self._steps():
                self._waiting()
            elif changed or self._session.event["state"] != "ready":
                self._session.show(None)

    def about(self) -> str:
        """The run without its records, as JSON."""
        with self._lock:
            if self._run is None:
                raise UsageError("there is no step yet; the events say when")
            return json_text(described(self._run, self.skipped) | {"live": True, "version": self._session.version})

    def index(self, step: int | None = None) -> str | None:
        """The index of this step, or of the newest one that can be read; None where there is none yet."""
        for chosen in [step] if step is not None else reversed(self._steps()):
            try:
                index = self._guarded(chosen, viewer.index)
                return json_text(index | {"version": self._session.version, "step": chosen})
            except (NoMatch, RecordError):
                if step is not None:
                    raise  # of the newest the one before it
        return None

    def block(self, step: int, number: int, image: int) -> bytes:
        """One layer on one image at this step."""
        return self._guarded(step, lambda record: viewer.block_of(record, number, image))

    def picture(self, number: int) -> bytes:
        """Image `number` of the probe: the same at every step."""
        steps = self._steps()
        if not steps:
            raise NoMatch("there is no step yet")
        return self._guarded(steps[-1], lambda record: viewer.picture_of(record, number))

    def _steps(self) -> list[int]:
        with self._lock:
            return [step for step in self._run.steps if step not in self.skipped] if self._run else []

    def _path(self, step: int) -> Path:
        assert self._run
        return self._run.folder / name_of(step)

    def _mark(self, step: int) -> Mark:
        """Tells a record from another one that took its name."""
        try:
            found = self._path(step).stat()
        except OSError:  # thinned out
            return step, 0, 0
        return step, found.st_ino, found.st_mtime_ns

    def _guarded(self, step: int, make: Callable[[Record], Made]) -> Made:
        """What is made of the record of a step. A damaged one is said, and skipped from then on."""
        if step not in self._steps():
            near = nearest(str(step), map(str, self._steps()))
            raise NoMatch(self.skipped.get(step) or f"step {step} is not, or no longer, in this run{near}")
        with self._lock:
            mark, path = self._mark(step), self._path(step)
        try:
            return make(self._records.made(mark, lambda: load(path)))
        except RecordError as error:
            with self._lock:
                if self._mark(step) != mark or not mark[1]:  # thinned out while it was read
                    raise NoMatch(f"step {step} is no longer in this run") from error
                why = f"step {step} is skipped: {error}"
                if mark not in self._damaged:
                    self._damaged[mark] = self.skipped[step] = why
                    self._warn(why)
                    self._session.show(None)
            raise

    def _waiting(self) -> None:
        what = f"for the first step of {printable(str(self.path))}"
        if self.skipped:
            what += f" that can be read; {next(iter(self.skipped.values()))}"
        if self._session.event["what"] != what:
            self._session.tell("waiting", what=what)

    def _follow(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                self.look()
                self._said = ""
            except (RecordError, OSError) as error:  # what was read stays; it may come back
                if str(error) != self._said:
                    self._said = str(error)
                    self._warn(self._said)
