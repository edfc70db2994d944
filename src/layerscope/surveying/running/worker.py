"""Who measures chunks: the same in this process, in another one and in an actor of Ray's."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscope.errors import EngineError, ImageError, LayerscopeError
from layerscope.networks.foreign import home_of
from layerscope.stats import machine_code
from layerscope.surveying.digests import processor
from layerscope.surveying.running.job import Broken, Job, unpack
from layerscope.surveying.running.partial import Partial

__all__ = ["Batch", "Passed", "Worker", "none_readable", "sample_images", "work"]

#: (chunk, how many of its images are done) -> whether to stop
Passed = Callable[[int, int], bool]


@dataclass
class Batch:
    """Images that could be read, (B, C, H, W) as each network takes them, with numbers and labels, -1 for none."""

    images: list[Tensor] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)


def _decoded(job: Job, numbers: NDArray[np.int64]) -> Batch:
    batch, rows = Batch(), list[list[Tensor]]()
    for number in numbers.tolist():
        try:
            item, label = job.source.item(number)
            ready = item.detach() if isinstance(item, Tensor) else None
            rows.append([network.preprocessing(item) if ready is None else ready for network in job.networks])
        except Exception as error:  # decoders and data sets raise anything; the reason is reported with the image
            name = job.source.name(number)
            batch.broken.append(Broken(number, name, _reason(error, name)))
            continue
        batch.numbers.append(number)
        batch.labels.append(-1 if label is None else label)
        _alike(job, tuple(rows[0][0].shape), tuple(rows[-1][0].shape), number)
    # A batch of one takes another way through the convolutions, and its last bits differ: it is there twice.
    rows *= 2 if len(rows) == 1 else 1
    for network, images in zip(job.networks, zip(*rows, strict=True), strict=False):
        batch.images.append(torch.stack(images).to(home_of(network.model)[1]))  # (B, C, H, W)
    return batch


def _reason(error: Exception, name: str) -> str:
    text = " ".join(str(error).split()) if isinstance(error, ImageError) else f"{type(error).__name__}: {error}"
    start, colon, rest = text.partition(": ")
    return (rest if colon and start.endswith(name) else text)[:300]


def _alike(job: Job, first: tuple[int, ...], shape: tuple[int, ...], number: int) -> None:
    """Raises ImageError if an image has another shape than the ones before."""
    if first != shape:
        raise ImageError(
            f"{job.source.name(number)}: is {shape} after preprocessing and others are {first}; "
            "set --size, or --resize and --crop"
        )


class Worker:
    """Measures chunks: the same bits wherever and whenever on such a processor. Decoding is done in threads, one batch
    and a few ahead of the pass."""

    def __init__(self, job: Job, threads: int = 1) -> None:
        machine_code()  # no image may be measured by numpy in their place: sums are the same to the last bit
        self.job, self._updater = job, job.updater()
        self._threads = max(1, min(threads, job.source.threads))

    def measure(self, chunks: Iterable[int], passed: Passed = lambda chunk, images: False) -> Iterator[Partial]:
        """Each chunk, measured. `passed` learns how many images of a chunk are done; if it returns True, this ends.

        Raises ImageError if the images differ in size after preprocessing, ForwardError if the network fails.
        """
        with ThreadPoolExecutor(self._threads, "decode") as pool:
            partial: Partial | None = None
            images = 0
            shape: tuple[int, ...] = ()
            try:
                for chunk, last, batch in self._ahead(chunks, pool):
                    if partial is None:
                        partial, images = Partial(self.job, {chunk}, processors={processor()}), 0
                    partial.broken += batch.broken
                    if batch.images:
                        first, *others = batch.images
                        shape = shape or tuple(first.shape[1:])
                        _alike(self.job, shape, tuple(first.shape[1:]), batch.numbers[0])
                        labels = batch.labels if self.job.source.classes else None
                        self._updater.update(first, batch.numbers, labels, *others)
                        images += len(batch.numbers)
                        partial.shape = shape
                    if passed(chunk, images + len(partial.broken)):
                        return
                    if last:
                        partial.state = self._updater.take() if images else None
                        done, partial = partial, None  # who takes one chunk never comes back for the next
                        yield done
            finally:
                pool.shutdown(cancel_futures=True)
                if partial and images:
                    self._updater = self.job.updater()  # what was begun does not belong to the next chunk

    def _ahead(self, chunks: Iterable[int], pool: ThreadPoolExecutor) -> Iterator[tuple[int, bool, Batch]]:
        """(chunk, whether it is its last batch, the batch), decoded ahead."""
        waiting: deque[tuple[int, bool, Future[Batch]]] = deque()
        for chunk in chunks:
            batches = self.job.batches(chunk)
            for place, numbers in enumerate(batches):
                waiting.append((chunk, place + 1 == len(batches), pool.submit(_decoded, self.job, numbers)))
                if len(waiting) > self._threads + 1:
                    number, last, ready = waiting.popleft()
                    yield number, last, ready.result()
        for number, last, ready in waiting:
            yield number, last, ready.result()


def work(packed: bytes, chunks: Iterable[int], send: Callable[[tuple[str, Any]], None]) -> None:
    """The life of a worker of another process, whatever brings it its chunks: its own network, then chunk by chunk.

    packed: see `job.pack`. Sends ("ready", None), then ("passed", (chunk, images)) within a chunk and ("partial",
    bytes) after it; in the end, if something fails, ("error", what can be raised elsewhere).
    """
    torch.set_num_threads(1)

    def passed(chunk: int, images: int) -> bool:
        send(("passed", (chunk, images)))
        return False

    try:
        worker = Worker(unpack(packed))
        send(("ready", None))
        for chunk in chunks:
            for partial in worker.measure([chunk], passed):
                send(("partial", partial.pack()))
    except Exception as error:  # whatever it is, it is raised where somebody waits for the result
        send(("error", _portable(error)))


def _portable(error: Exception) -> LayerscopeError:
    """An error of another process that can be raised in this one."""
    if isinstance(error, LayerscopeError):
        return error
    text = " ".join(str(error).split())[:300]
    return EngineError(f"measuring failed: {type(error).__name__}: {text}; try --engine local with one process")


def sample_images(job: Job) -> Batch:
    """A batch of images from all over the data set; where none of these can be read, the first of which some can.

    Raises ImageError if there is none.
    """
    count = len(job.source)
    spread = np.arange(0, count, math.ceil(count / job.batch))
    broken: list[Broken] = []
    for numbers in chain([spread], *map(job.batches, range(job.chunks))):
        batch = _decoded(job, numbers)
        if batch.images:
            return batch
        broken += batch.broken
    raise none_readable(count, broken)


def none_readable(count: int, broken: Sequence[Broken]) -> ImageError:
    """Not one image of the data set could be read."""
    first = min(broken)
    return ImageError(f"none of the {count} images can be read; the first is {first.name}: {first.reason}")
