"""A job through an engine to one result; interrupted and taken up again.

An engine is a function that measures the chunks it is asked for, in any order, and yields each as a `Partial`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from layerscope.errors import EngineError, UsageError
from layerscope.progress import Progress, quiet
from layerscope.surveying.running.job import Job
from layerscope.surveying.running.partial import Partial, Resumable
from layerscope.surveying.running.pool import PATIENCE_S, Processes, Setup
from layerscope.surveying.running.ray_actors import on_ray
from layerscope.surveying.running.worker import Worker, none_readable
from layerscope.text import nearest

__all__ = ["ENGINES", "Engine", "run_survey"]

Engine = Callable[[Job, Sequence[int], Setup], Iterator[Partial]]

#: threads that decode beside the pass; Pillow works without the interpreter's lock
_DECODERS = 2


def local(job: Job, chunks: Sequence[int], setup: Setup) -> Iterator[Partial]:
    """Measure in this process with torch's threads; with two workers or more in as many processes of one thread."""
    if setup.workers > 1 and len(chunks) > 1:
        yield from Processes(job, chunks, setup).run(setup.workers)
    else:
        yield from Worker(job, _DECODERS).measure(chunks, setup.passed)


ENGINES: dict[str, Engine] = {"local": local, "ray": on_ray}


def run_survey(
    job: Job,
    engine: str = "local",
    progress: Progress = quiet,
    resumable: Resumable | None = None,
    workers: int = 0,
    address: str = "",
    patience_s: float = PATIENCE_S,
) -> Partial:
    """Measure every image of the job that is not done yet.

    The result does not depend on engine, workers or interruptions, not in the last bit. Ctrl-C ends it after the
    batch at hand, with what is done; a second one ends it at once. `resumable`: of `resuming`, what is done already
    and where it is kept. A survey that gets nowhere for `patience_s` seconds is given up.
    Raises UsageError for an unknown engine, ImageError if no image can be read or sizes differ, ForwardError,
    EngineError, OutputError, and KeyboardInterrupt if nothing was measured before it.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is not known{nearest(engine, ENGINES)}; choose {' or '.join(ENGINES)}")
    whole = resumable.partial if resumable else Partial(job)
    underway: dict[int, int] = {}
    with _interruptible() as stop:

        def passed(chunk: int, images: int) -> bool:
            if chunk >= 0:
                # A chunk that is measured again, as its worker has died, begins anew.
                underway[chunk] = max(images, underway.get(chunk, 0))
                broken = f"{len(whole.broken)} broken" if whole.broken else ""
                progress(min(whole.done + sum(underway.values()), whole.of), whole.of, broken)
            return stop.is_set()

        progress(whole.done, whole.of, "")
        try:
            if whole.pending:
                stream: Any = ENGINES[engine](job, whole.pending, Setup(passed, workers, address, patience_s))
                with closing(stream):
                    for partial in stream:
                        whole.merge(partial)
                        for chunk in partial.chunks:
                            underway.pop(chunk, None)
                            passed(chunk, 0)
                        if resumable:
                            resumable.write(whole)
                        if stop.is_set():
                            break
        finally:
            if resumable and whole.chunks:
                resumable.write(whole, now=True)
    return _checked(whole, stop.is_set())


def _checked(whole: Partial, stopped: bool) -> Partial:
    pending = whole.pending
    if pending and not stopped:
        raise EngineError(f"{len(pending)} of {whole.job.chunks} chunks never arrived; run it again")
    if whole.state is None:
        if pending:
            raise KeyboardInterrupt
        raise none_readable(whole.of, whole.broken)
    whole.broken.sort()
    return whole


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
