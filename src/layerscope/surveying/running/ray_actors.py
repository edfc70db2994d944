"""The engine on Ray: actors that hold the network, here or on a cluster that runs already.

An actor is sent the number of a chunk, decodes and measures it, and what was measured comes back as one of its
messages: nothing that is kept in an actor is needed again, so one that dies costs the chunk it was at. Plain actors and
not Ray Data: its reader wants a processor of its own and waits for ever, without a word, where actors hold them all,
and what one updater hands out has to arrive in its order.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from layerscope.errors import EngineError, UsageError
from layerscope.surveying.running.job import Job, pack
from layerscope.surveying.running.partial import Partial
from layerscope.surveying.running.pool import TRIES, Pool, Setup
from layerscope.surveying.running.worker import work

__all__ = ["ALONE", "QUIET", "on_ray"]

#: after that a cluster is not there; Ray itself goes on asking for many minutes
_ANSWER_S = 10.0
_COLOUR = re.compile(r"\x1b\[\d*m")
#: no reports to Ray's makers, no log
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
#: without it Ray looks for an address that other machines can reach, even where it is told 127.0.0.1
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


class _Actor:
    """Lives in a process of Ray's: `work` runs there as long as it does, and the other two beside it."""

    def __init__(self) -> None:
        self._chunks, self._messages = SimpleQueue[int](), SimpleQueue[tuple[str, Any]]()

    def work(self, packed: bytes) -> None:
        work(packed, iter(self._chunks.get, None), self._messages.put)

    def measure(self, chunk: int) -> None:
        self._chunks.put(chunk)

    def message(self) -> tuple[str, Any]:
        return self._messages.get()


class _Remote:
    """An actor and the call that will bring its next message."""

    def __init__(self, ray: Any, actor: Any, packed: Any) -> None:
        self._ray, self._actor, self.error = ray, actor, ""
        actor.work.remote(packed)
        self.call = actor.message.remote()

    def send(self, chunk: int) -> None:
        self._actor.measure.remote(chunk)

    def receive(self) -> tuple[str, Any]:
        try:
            message = self._ray.get(self.call)
        except self._ray.exceptions.RayError as error:  # the actor or its machine is gone
            self.error = _last_line(error)
            raise EOFError from error
        self.call = self._actor.message.remote()
        return message

    def end(self) -> None:
        with suppress(self._ray.exceptions.RayError, ValueError):  # it has died by itself
            self._ray.kill(self._actor)


class _Actors(Pool):
    """Actors of one thread each, and calls of their methods."""

    tries = TRIES

    def __init__(self, ray: Any, job: Job, chunks: Sequence[int], setup: Setup) -> None:
        super().__init__(job, chunks, setup)
        self._ray, self._packed = ray, ray.put(pack(job, ray.cloudpickle.dumps))
        self._kind = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, max_concurrency=3)(_Actor)

    def start(self) -> _Remote:
        return _Remote(self._ray, self._kind.remote(), self._packed)

    def heard(self, workers: Sequence[_Remote], timeout_s: float) -> list[_Remote]:
        by_call = {worker.call: worker for worker in workers}
        ready, _ = self._ray.wait(list(by_call), num_returns=1, timeout=timeout_s)
        if ready:  # all that have spoken: of a thousand actors one at a time would be too slow
            ready, _ = self._ray.wait(list(by_call), num_returns=len(by_call), timeout=0)
        return [by_call[call] for call in ready]

    def not_started(self, worker: _Remote) -> EngineError:
        return EngineError(
            f"Ray's actors die before they measure anything ({worker.error}); every machine needs this layerscope and "
            "torch"
        )


def on_ray(job: Job, chunks: Sequence[int], setup: Setup) -> Iterator[Partial]:
    """See `Pool.run`, by `workers` actors of one thread, as many as there are processors if 0.

    Raises UsageError without Ray or without the cluster.
    """
    with _ray(setup) as ray:
        count = setup.workers or int(ray.cluster_resources().get("CPU", 1))
        yield from _Actors(ray, job, chunks, setup).run(count)


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
    # Ray makes sockets below its folder, whose paths may have 107 bytes.
    short = "/tmp" if sys.platform != "win32" and Path("/tmp").is_dir() else None
    folder = None if setup.address else tempfile.mkdtemp(prefix="layerscope-ray-", dir=short)
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
            constants = sys.modules.get("ray._private.ray_constants")
            if constants is not None and not setup.address:  # Ray was imported before it could read ALONE
                constants.__dict__["ENABLE_RAY_CLUSTER"] = False
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
