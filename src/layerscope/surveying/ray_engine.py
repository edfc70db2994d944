"""The engine on Ray: actors that hold the network, here or on a cluster that runs already.

An actor is sent the number of a chunk, decodes and measures it, and its partial state comes back as the result of that
call: nothing that is kept in an actor is needed again, so one that dies costs the chunk it was at. Plain actors and
not Ray Data: its reader wants a processor of its own and waits for ever, without a word, where actors hold them all,
and the states of one meter have to arrive in their order.
"""

from __future__ import annotations

import io
import ipaddress
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

from layerscope.errors import LayerscopeError, UsageError
from layerscope.surveying import sending
from layerscope.surveying.engines import EngineError, Setup
from layerscope.surveying.job import Hand, Job, Partial
from layerscope.surveying.workers import TRIES, given_up, stuck

__all__ = ["ALONE", "QUIET", "on_ray"]

_POLL_S = 0.5
#: after that a cluster is not there; Ray itself goes on asking for many minutes
_ANSWER_S = 10.0
_COLOUR = re.compile(r"\x1b\[\d*m")
#: no reports to Ray's makers, no log
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
#: without it Ray looks for an address that other machines can reach, even where it is told 127.0.0.1
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


class _Actor:
    """Lives in a process of Ray's. Errors are handed back, not raised: Ray would wrap them."""

    hand: Hand
    done = (-1, 0)

    def prepare(self, packed: bytes) -> LayerscopeError | None:
        import torch

        torch.set_num_threads(1)
        try:
            self.hand = Hand(sending.unpack(packed))
        except Exception as error:
            return sending.said(error)
        return None

    def measure(self, chunk: int) -> Partial | LayerscopeError:
        try:
            return next(self.hand.measure([chunk], self._passed)).packed()
        except Exception as error:
            return sending.said(error)

    def _passed(self, chunk: int, images: int) -> bool:
        self.done = chunk, images
        return False

    def at(self) -> tuple[int, int]:
        """The chunk it is at, and how many of its images are done; answered beside `measure`."""
        return self.done


class _Crew:
    """The actors and what each is at: `calls` are the running calls by their references, with the chunk or None."""

    def __init__(self, ray: Any, packed: Any, count: int) -> None:
        self._ray, self._packed = ray, packed
        self._kind = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, max_concurrency=2)(_Actor)
        self.idle: list[Any] = []
        self.calls: dict[Any, tuple[Any, int | None]] = {}
        self._asked: dict[Any, Any] = {}
        self._seen: dict[int, int] = {}
        for _ in range(count):
            self.hire()

    def hire(self) -> None:
        actor = self._kind.remote()
        self.calls[actor.prepare.remote(self._packed)] = actor, None

    def give(self, chunk: int) -> None:
        actor = self.idle.pop()
        self.calls[actor.measure.remote(chunk)] = actor, chunk

    def progress(self) -> list[tuple[int, int]]:
        """(chunk, its images that are done) of the actors that have got on since they were last asked."""
        if self._asked:
            answers, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        else:
            answers = []
        found = []
        for answer in answers:
            actor = self._asked.pop(answer)
            with suppress(self._ray.exceptions.RayError):  # a dead one is heard of by its call
                chunk, images = self._ray.get(answer)
                busy = any(one is actor and at == chunk for one, at in self.calls.values())
                if busy and images > self._seen.get(chunk, 0):
                    found.append((chunk, images))
                    self._seen[chunk] = images
        asked = list(self._asked.values())
        for actor, chunk in self.calls.values():
            if chunk is not None and actor not in asked:
                self._asked[actor.at.remote()] = actor
        return found

    def end(self) -> None:
        for actor in [*self.idle, *(actor for actor, _ in self.calls.values())]:
            with suppress(Exception):
                self._ray.kill(actor)


def on_ray(job: Job, chunks: Sequence[int], setup: Setup) -> Iterator[Partial]:
    """A partial for every chunk, measured by `workers` actors of one thread, as many as there are processors if 0.

    Raises UsageError without Ray or without the cluster, EngineError if a chunk's actors die three times, or if
    nothing arrives for `patience_s`.
    """
    with _ray(setup) as ray:
        count = setup.workers or int(ray.cluster_resources().get("CPU", 1))
        packed = ray.put(sending.pack(job, ray.cloudpickle.dumps))
        crew = _Crew(ray, packed, min(count, len(chunks)))
        try:
            yield from _through(ray, job, chunks, setup, crew)
        finally:
            crew.end()


def _through(ray: Any, job: Job, chunks: Sequence[int], setup: Setup, crew: _Crew) -> Iterator[Partial]:
    queue, deaths = deque(chunks), Counter[int | None]()
    heard = time.monotonic()
    underway = 0
    while queue or underway:
        while queue and crew.idle:
            crew.give(queue.popleft())
            underway += 1
        ready, _ = ray.wait(list(crew.calls), num_returns=1, timeout=_POLL_S)
        news = crew.progress()
        for one in news:
            setup.passed(*one)
        if setup.passed(-1, 0):
            return
        if ready or news:
            heard = time.monotonic()
        elif time.monotonic() - heard > setup.patience_s:
            raise stuck(setup.patience_s)
        for call in ready:
            actor, chunk = crew.calls.pop(call)
            underway -= chunk is not None
            try:
                found = ray.get(call)
            except ray.exceptions.RayError as error:  # the actor or its machine is gone
                deaths[chunk] += 1
                if deaths[chunk] == TRIES:
                    raise _dead(job, chunk, error) from error
                if chunk is not None:
                    queue.appendleft(chunk)
                with suppress(Exception):
                    ray.kill(actor)
                crew.hire()
                continue
            if isinstance(found, LayerscopeError):
                raise found
            crew.idle.append(actor)
            if chunk is not None:
                yield found


def _dead(job: Job, chunk: int | None, error: Exception) -> EngineError:
    if chunk is not None:
        return given_up(job, chunk)
    return EngineError(
        f"Ray's actors die before they measure anything ({_last_line(error)}); every machine needs this layerscope "
        "and torch"
    )


def _last_line(error: Exception) -> str:
    """What Ray says at the end of a traceback in colours."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


@contextmanager
def _ray(setup: Setup) -> Iterator[Any]:
    """Ray, connected: to the cluster at `address`, to the one this process uses already, or to one of its own that ends
    with the block and listens on loopback alone."""
    os.environ.update(QUIET if setup.address else QUIET | ALONE)
    try:
        import ray
    except ImportError as error:
        raise UsageError("Ray is not installed; pip install 'layerscope[ray]', or use --engine local") from error
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if setup.address not in ("", "auto", there):
            raise UsageError(f"this process uses the Ray at {there}; leave address {setup.address} out")
        yield ray
        return
    folder = None if setup.address else tempfile.mkdtemp(prefix="layerscope-ray-", dir=_short())
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
    own: dict[str, Any] = {
        "_node_ip_address": "127.0.0.1",
        "include_dashboard": False,
        "num_cpus": setup.workers or os.cpu_count(),
        "_temp_dir": folder,
    }
    try:
        try:
            _knock(setup.address)
            if not setup.address:
                _no_cluster()
            with _hushed(), _same_signals():
                ray.init(**quiet, **({"address": setup.address} if setup.address else own))
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError, ...
            where = f"the cluster at {setup.address} does not answer" if setup.address else "Ray does not start"
            raise EngineError(
                f"{where} ({_last_line(error)}); check it with ray status, or use --engine local"
            ) from error
        node: Any = ray.util.get_node_ip_address
        if not setup.address and not ipaddress.ip_address(node()).is_loopback:
            raise EngineError("Ray would listen to other machines; use another version of Ray, or --engine local")
        yield ray
    finally:
        with _hushed():
            ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _no_cluster() -> None:
    """What `ALONE` says, where Ray was imported before it could read it."""
    constants = sys.modules.get("ray._private.ray_constants")
    if constants is not None:
        constants.__dict__["ENABLE_RAY_CLUSTER"] = False


def _knock(address: str) -> None:
    """Raises OSError if nobody listens at host:port."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), _ANSWER_S).close()


@contextmanager
def _same_signals() -> Iterator[None]:
    """Ray makes SIGTERM an exit of its own, and leaves it so when it has ended."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)


def _short() -> str | None:
    """A folder with a short path: Ray makes sockets below it, whose paths may have 107 bytes."""
    return "/tmp" if sys.platform != "win32" and Path("/tmp").is_dir() else None


@contextmanager
def _hushed() -> Iterator[None]:
    """What Ray's C++ part writes to standard error, past every setting, goes nowhere."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with redirect_stderr(io.StringIO()):  # a notebook's is another
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
