"""A job through an engine to one state; interrupted and taken up again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from layerscope.progress import Progress, quiet
from layerscope.surveying.engines import PATIENCE_S, EngineError, Setup, engine_named
from layerscope.surveying.job import Broken, Job, State, none_readable
from layerscope.surveying.partials import Kept
from layerscope.surveying.tally import Tally

__all__ = ["Result", "run_survey"]


@dataclass
class Result:
    """`state` of `done` images out of `of`; the others are `broken`, or still to do if it is `partial`.

    `notes`: what a reader of the figures has to know, one line each.
    """

    state: State
    done: int
    of: int
    broken: list[Broken]
    partial: bool
    notes: list[str] = field(default_factory=list)


def run_survey(
    job: Job,
    engine: str = "local",
    progress: Progress = quiet,
    kept: Kept | None = None,
    workers: int = 0,
    address: str = "",
    patience_s: float = PATIENCE_S,
) -> Result:
    """Measure every image of the job that is not done yet.

    The result does not depend on engine, workers or interruptions, not in the last bit. Ctrl-C ends it after the
    batch at hand, with what is done; a second one ends it at once. `kept`: of `keeping`, what is done already and
    where it is kept. A survey that gets nowhere for `patience_s` seconds is given up.
    Raises ImageError if no image can be read or sizes differ, ForwardError, EngineError, OutputError, and
    KeyboardInterrupt if nothing was measured before it.
    """
    run = engine_named(engine)
    tally = kept.tally if kept else Tally(job)
    whole = len(job.source)
    underway: dict[int, int] = {}
    with _interruptible() as stop:

        def passed(chunk: int, images: int) -> bool:
            if chunk >= 0:
                underway[chunk] = images
                at = f"{len(tally.broken)} broken" if tally.broken else ""
                progress(min(tally.done + sum(underway.values()), whole), whole, at)
            return stop.is_set()

        progress(tally.done, whole, "")
        try:
            if tally.pending:
                stream: Any = run(job, tally.pending, Setup(passed, workers, address, patience_s))
                with closing(stream):
                    for partial in stream:
                        tally.add(partial)
                        underway.pop(partial.chunk, None)
                        passed(partial.chunk, 0)
                        if kept:
                            kept.write(tally)
                        if stop.is_set():
                            break
        finally:
            if kept and tally.chunks:
                kept.write(tally, now=True)
    return _result(tally, stop.is_set())


def _result(tally: Tally, stopped: bool) -> Result:
    missing = tally.pending
    whole = len(tally.job.source)
    if missing and not stopped:
        raise EngineError(f"{len(missing)} of {tally.job.chunks} chunks never arrived; run it again")
    if tally.state is None:
        if missing:
            raise KeyboardInterrupt
        raise none_readable(whole, tally.broken)
    notes = []
    if len(tally.processors) > 1:
        notes.append(
            f"measured on unlike processors ({'; '.join(sorted(tally.processors))}): the last bits may differ elsewhere"
        )
    return Result(tally.state, tally.images, whole, sorted(tally.broken), bool(missing), notes)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that no merge is left half done; a second one interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def first(_number: int, _frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
