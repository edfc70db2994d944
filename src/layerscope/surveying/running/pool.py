"""Workers in other processes: who gets which chunk, what happens to that of one that dies, and when it is given up.

What differs is how they are started, and how chunks and messages travel: here for processes of this machine.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from layerscope.errors import EngineError, RecordError
from layerscope.surveying.running.job import Job, pack
from layerscope.surveying.running.partial import Partial, opened
from layerscope.surveying.running.worker import Passed, work

__all__ = ["PATIENCE_S", "TRIES", "Pool", "Processes", "Setup", "given_up"]

#: a survey that has not got on for so long is given up
PATIENCE_S = 600.0
#: a chunk whose worker has died so often is not tried again
TRIES = 3
#: how often a pause is looked at while nothing arrives
_POLL_S = 0.5
#: in the place of a chunk, for a worker that is not ready yet
_STARTING = -1


@dataclass
class Setup:
    """How an engine is to run.

    passed: learns how many images of a chunk are done, and is called with (-1, 0) while nothing happens; the engine
    ends when it returns True. workers: processes, 0 for the engine's choice. address: of a Ray cluster that runs
    already.
    """

    passed: Passed = lambda chunk, images: False
    workers: int = 0
    address: str = ""
    patience_s: float = PATIENCE_S


class Pool(ABC):
    """Workers of other processes. A kind of them says how one is started, with `send` for the number of a chunk,
    `receive` for its next message (see `worker.work`), which raises EOFError if it has died, and `end`."""

    #: how many workers may die before one was ready
    tries = 1

    def __init__(self, job: Job, chunks: Sequence[int], setup: Setup) -> None:
        self._job, self._setup = job, setup
        self._queue, self._deaths = deque(chunks), Counter[int]()
        self._at: dict[Any, int | None] = {}  # the chunk of each worker, None for an idle one

    @abstractmethod
    def start(self) -> Any:
        """A new worker, which builds its network meanwhile."""

    @abstractmethod
    def heard(self, workers: Sequence[Any], timeout_s: float) -> Sequence[Any]:
        """Those that have a message, or have died."""

    @abstractmethod
    def not_started(self, worker: Any) -> EngineError:
        """Why workers die before they are ready."""

    def run(self, count: int) -> Iterator[Partial]:
        """Each chunk, in the order in which they are done, by at most `count` workers; one whose worker dies is
        measured again by a new one.

        Raises EngineError if that happens three times, if no worker starts, or if nothing arrives for `patience_s`.
        """
        try:
            for _ in range(min(count, len(self._queue))):
                self._at[self.start()] = _STARTING
            since_s = time.monotonic()
            while self._queue or any(chunk not in (None, _STARTING) for chunk in self._at.values()):
                self._hand_out()
                heard = self.heard(list(self._at), _POLL_S)
                if self._setup.passed(-1, 0):
                    return
                since_s = time.monotonic() if heard else since_s
                if time.monotonic() - since_s > self._setup.patience_s:
                    raise EngineError(
                        f"no image was measured for {self._setup.patience_s:g} s: the processes hang and were ended; "
                        "use --engine local with one"
                    )
                for worker in heard:
                    kind, value = self._message(worker)
                    if kind == "error":
                        raise value
                    if kind == "passed" and self._setup.passed(*value):
                        return
                    if kind == "partial":
                        yield value
        finally:
            for worker in self._at:
                worker.end()

    def _hand_out(self) -> None:
        idle = [worker for worker, chunk in self._at.items() if chunk is None]
        for worker in idle[: len(self._queue)]:
            self._at[worker] = chunk = self._queue.popleft()
            worker.send(chunk)

    def _message(self, worker: Any) -> tuple[str, Any]:
        """What a worker has to say; nothing is said by a dead one, which is replaced."""
        try:
            kind, value = worker.receive()
        except EOFError:
            self._replace(worker)
            return "", None
        if kind in ("ready", "partial"):
            self._at[worker] = None
        if kind == "partial":
            try:
                value = Partial.restore(self._job, *opened(value))
            except (ValueError, KeyError, TypeError, RecordError) as error:
                raise EngineError(f"a chunk arrived damaged ({error}); run it again") from error
        return kind, value

    def _replace(self, worker: Any) -> None:
        worker.end()
        chunk = self._at.pop(worker)
        if chunk is not None:
            self._deaths[chunk] += 1
            if chunk == _STARTING:
                if self._deaths[chunk] >= self.tries:
                    raise self.not_started(worker)
            elif self._deaths[chunk] >= TRIES:
                raise given_up(self._job, chunk)
            else:
                self._queue.appendleft(chunk)
        self._at[self.start()] = _STARTING


def given_up(job: Job, chunk: int) -> EngineError:
    """The workers that measured a chunk have died every time."""
    numbers = job.numbers(chunk)
    return EngineError(
        f"images {numbers[0]} to {numbers[-1]}: the process that measured them died {TRIES} times (too little "
        "memory?); use fewer --workers, or --engine local with one"
    )


class Processes(Pool):
    """Processes of this machine, of one thread each, and pipes to them."""

    def __init__(self, job: Job, chunks: Sequence[int], setup: Setup) -> None:
        super().__init__(job, chunks, setup)
        self._packed = pack(job)

    def start(self) -> _Process:
        return _Process(self._packed)

    def heard(self, workers: Sequence[_Process], timeout_s: float) -> list[_Process]:
        spoke = wait([worker.connection for worker in workers], timeout_s)
        return [worker for worker in workers if worker.connection in spoke]

    def not_started(self, worker: _Process) -> EngineError:
        return EngineError(
            f"a process to measure in could not start (exit code {worker.process.exitcode}); in a script, call survey "
            "below if __name__ == '__main__', or use one process"
        )


class _Process:
    def __init__(self, packed: bytes) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, packed), daemon=True)
        with _without_ctrl_c():
            self.process.start()
        theirs.close()  # so that each side learns when the other is gone

    def send(self, chunk: int) -> None:
        with suppress(OSError):  # died this moment: its pipe will say so
            self.connection.send(chunk)

    def receive(self) -> tuple[str, Any]:
        try:
            return self.connection.recv()
        except OSError as error:
            raise EOFError from error

    def end(self) -> None:
        self.connection.close()
        self.process.kill()  # it holds nothing that anybody needs
        self.process.join()


def _serve(connection: Connection, packed: bytes) -> None:
    """What a process runs, until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started this will end it
    with suppress(OSError):  # nobody is there to be sent anything
        work(packed, iter(connection.recv, None), connection.send)


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
