"""Processes of this machine that measure chunks, one thread each."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from layerscope.surveying import sending
from layerscope.surveying.engines import EngineError, Setup
from layerscope.surveying.job import Hand, Job, Partial

__all__ = ["TRIES", "given_up", "processes", "stuck"]

#: a chunk whose process has died so often is not tried again
TRIES = 3
#: how often a pause is looked at while nothing arrives
_POLL_S = 0.5


def given_up(job: Job, chunk: int) -> EngineError:
    """The processes that measured a chunk have died every time."""
    numbers = job.numbers(chunk)
    return EngineError(
        f"images {numbers[0]} to {numbers[-1]}: the process that measured them died {TRIES} times (too little "
        "memory?); use fewer --workers, or --engine local with one"
    )


def stuck(seconds: float) -> EngineError:
    """Nothing has arrived for too long."""
    return EngineError(
        f"no image was measured for {seconds:g} s: the processes hang and were ended; use --engine local with one"
    )


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that start meanwhile never hear of Ctrl-C: it goes to all of a terminal's, and one that is still
    importing would say so in twenty lines. Here it is heard afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """A process and what it is at: `chunk` is None while it has none, `ready` once its network is built."""

    def __init__(self, packed: bytes) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, packed), daemon=True)
        with _without_ctrl_c():
            self.process.start()
        theirs.close()  # so that each side is told when the other is gone
        self.chunk: int | None = None
        self.ready = False

    def give(self, chunk: int) -> None:
        self.chunk = chunk
        with suppress(OSError):  # died this moment: its pipe will say so
            self.connection.send(chunk)

    def end(self) -> None:
        self.connection.close()
        self.process.kill()  # it holds nothing that anybody needs
        self.process.join()


def processes(job: Job, chunks: Sequence[int], setup: Setup) -> Iterator[Partial]:
    """A partial for every chunk, in the order in which they are done; one whose process dies is measured again.

    Raises EngineError if that happens three times, if no process starts, or if nothing arrives for `patience_s`.
    """
    packed = sending.pack(job)
    queue, deaths = deque(chunks), Counter[int]()
    crew = [_Worker(packed) for _ in range(min(setup.workers, len(chunks)))]
    try:
        heard = time.monotonic()
        while queue or any(worker.chunk is not None for worker in crew):
            for worker in crew:
                if worker.ready and worker.chunk is None and queue:
                    worker.give(queue.popleft())
            spoke = wait([worker.connection for worker in crew], _POLL_S)
            if setup.passed(-1, 0):
                return
            if spoke:
                heard = time.monotonic()
            elif time.monotonic() - heard > setup.patience_s:
                raise stuck(setup.patience_s)
            for place, worker in enumerate(crew):
                if worker.connection not in spoke:
                    continue
                try:
                    what, value = worker.connection.recv()
                except (EOFError, OSError):
                    _bury(job, worker, queue, deaths)
                    crew[place] = _Worker(packed)
                    continue
                if what == "error":
                    raise value
                if what == "ready":
                    worker.ready = True
                elif what == "passed":
                    if setup.passed(*value):
                        return
                else:
                    worker.chunk = None
                    yield value
    finally:
        for worker in crew:
            worker.end()


def _bury(job: Job, worker: _Worker, queue: deque[int], deaths: Counter[int]) -> None:
    """Put the chunk of a dead process back. Raises EngineError if it has never started, or the chunk has killed it."""
    worker.end()
    if not worker.ready:
        raise EngineError(
            f"a process to measure in could not start (exit code {worker.process.exitcode}); in a script, call survey "
            "below if __name__ == '__main__', or use one process"
        )
    if worker.chunk is not None:
        deaths[worker.chunk] += 1
        if deaths[worker.chunk] == TRIES:
            raise given_up(job, worker.chunk)
        queue.appendleft(worker.chunk)


def _work(connection: Connection, packed: bytes) -> None:
    """The life of a process: its own network, then chunks until the pipe is closed."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started this will end it
    torch.set_num_threads(1)

    def passed(chunk: int, images: int) -> bool:
        connection.send(("passed", (chunk, images)))
        return False

    with suppress(EOFError, OSError):
        try:
            hand = Hand(sending.unpack(packed))
            connection.send(("ready", None))
            while True:
                for partial in hand.measure([connection.recv()], passed):
                    connection.send(("partial", partial.packed()))
        except (EOFError, OSError):
            raise
        except Exception as error:
            reply: Any = sending.said(error)
            connection.send(("error", reply))
