"""What is measured on which images, and the one pure function from a chunk of them to a partial state."""

from __future__ import annotations

import hashlib
import math
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscope._version import __version__
from layerscope.errors import ImageError, UsageError
from layerscope.networks.foreign import home_of
from layerscope.networks.open import Network
from layerscope.stats import machine_code
from layerscope.surveying.source import Source

__all__ = [
    "BATCH",
    "CHUNK",
    "Broken",
    "Hand",
    "Job",
    "Meter",
    "Partial",
    "Passed",
    "State",
    "measure",
    "processor",
    "weights_of",
]

#: (chunk, how many of its images are done) -> whether to stop
Passed = Callable[[int, int], bool]

#: images a pass
BATCH = 16
#: images a partial state: a multiple of the minibatches of 64 that CKA is summed over, few enough for little to be lost
#: with a chunk, and so many that the states (150 MB for MobileNetV2) cost little beside the passes
CHUNK = 128


class State(Protocol):
    """What has been measured: merging is associative and commutative to the last bit."""

    images: int

    def merge(self, other: Any) -> None: ...

    def pack(self) -> bytes: ...

    @classmethod
    def unpack(cls, data: bytes) -> State: ...


class Meter(Protocol):
    """Runs images (B, C, H, W) through the network and measures its layers.

    One with a true attribute `pads` leaves rows after those that are numbered aside. The states of one meter are merged
    in the order in which they were taken, and none is thrown away.
    """

    def batch(
        self, images: Tensor, numbers: Sequence[int], labels: Sequence[int] | None, other: Tensor | None = None
    ) -> None: ...

    def take(self) -> State: ...


class Broken(NamedTuple):
    """An image that could not be read."""

    number: int
    name: str
    reason: str


@dataclass
class Partial:
    """What one chunk gave: `images` were measured, `broken` could not be read; together they are the chunk.

    `state` is packed where it has left its process, None where no image could be read. `shape` (C, H, W) of the images.
    """

    chunk: int
    images: int
    broken: list[Broken]
    state: State | bytes | None
    shape: tuple[int, ...] = ()
    processor: str = ""

    def packed(self) -> Partial:
        """The same, fit to leave the process."""
        state = self.state if self.state is None or isinstance(self.state, bytes) else self.state.pack()
        return Partial(self.chunk, self.images, self.broken, state, self.shape, self.processor)


def _tools() -> tuple[Callable[..., Meter], type[State]]:
    from layerscope.surveying.meter import Meter as meter
    from layerscope.surveying.state import State as state

    return meter, state


@dataclass
class Job:
    """A survey: which layers of which network are measured on which images, and how.

    `spec`: the network as on the command line, from which other processes build it again; a live module, "", is sent
    to them. `measures`: plain data for the meter. `tools`: other classes than `Meter` and `State`.
    `against`: a second network that sees the same images.
    """

    network: Network
    source: Source
    layers: Sequence[str]
    measures: Any = None
    spec: str = ""
    batch: int = BATCH
    chunk: int = CHUNK
    tools: tuple[Callable[..., Meter], type[State]] | None = None
    against: Network | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch: {self.batch} is no number of images; give 1 or more")
        if self.chunk < 1 or self.chunk % 64:
            raise UsageError(f"chunk: {self.chunk} is no multiple of 64; give 64, 128, ...")

    @property
    def chunks(self) -> int:
        """How many there are."""
        return math.ceil(len(self.source) / self.chunk)

    def numbers(self, chunk: int) -> range:
        """Numbers of a chunk's images."""
        return range(chunk * self.chunk, min((chunk + 1) * self.chunk, len(self.source)))

    def batches(self, chunk: int) -> list[NDArray[np.int64]]:
        """A chunk's images in batches of about the same size: given by the numbers alone, so that a broken image
        changes no other batch."""
        numbers = np.array(self.numbers(chunk), np.int64)
        return np.array_split(numbers, math.ceil(len(numbers) / self.batch))

    def meter(self) -> Meter:
        more = (self.against,) if self.against is not None else ()
        return (self.tools or _tools())[0](self.network, self.layers, self.measures, *more)

    def unpack(self, data: bytes) -> State:
        return (self.tools or _tools())[1].unpack(data)

    def identity(self) -> dict[str, str]:
        """All that the bits of the result depend on, by name."""
        model = self.network.model
        other = self.against
        return {
            "data set": self.source.fingerprint(),
            "network": f"{self.network.subject or type(model).__name__} ({self.network.takes})",
            "weights": weights_of(model.state_dict()),
            "preprocessing": str(self.network.preprocessing.to_json()),
            "second network": f"{other.subject} {weights_of(other.model.state_dict())[:16]}" if other else "none",
            "layers": ", ".join(self.layers),
            "options": _digest(self.measures, self.batch, self.chunk),
            "layerscope": __version__,
            "torch": torch.__version__,
            "processor": processor(),
        }


def weights_of(state: dict[str, Tensor]) -> str:
    """A digest over names, types, shapes and values of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            if not tensor.is_meta:
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(*values: Any) -> str:
    """Over plain data, however large: arrays, sequences, mappings and dataclasses of numbers and text."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.dtype.str, value.shape, hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
        if is_dataclass(value) and not isinstance(value, type):
            return type(value).__name__, *((one.name, plain(getattr(value, one.name))) for one in fields(value))
        if isinstance(value, Mapping):
            return [(str(key), plain(one)) for key, one in value.items()]
        return [plain(one) for one in value] if isinstance(value, list | tuple) else repr(value)

    return hashlib.sha256(repr(plain(values)).encode()).hexdigest()


@cache
def processor() -> str:
    """What the bits of a pass depend on beside network and image: the processor and its instruction set."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


@dataclass
class _Decoded:
    """Images (B, C, H, W) that could be read, also as the second network takes them; one alone is there twice."""

    images: Tensor | None
    other: Tensor | None
    numbers: list[int]
    labels: list[int | None]
    broken: list[Broken]


def _reason(error: Exception, name: str) -> str:
    said = " ".join(str(error).split()) if isinstance(error, ImageError) else f"{type(error).__name__}: {error}"
    start, found, rest = said.partition(": ")
    return (rest if found and start.endswith(name) else said)[:300]


def _decode(job: Job, numbers: NDArray[np.int64]) -> _Decoded:
    found = _Decoded(None, None, [], [], [])
    tensors: list[Tensor] = []
    others: list[Tensor] = []
    for number in numbers.tolist():
        try:
            item, label = job.source.item(number)
            ours = item.detach() if isinstance(item, Tensor) else job.network.preprocessing(item)
            if job.against is not None:
                others.append(ours if isinstance(item, Tensor) else job.against.preprocessing(item))
            tensors.append(ours)
        except Exception as error:  # decoders and data sets raise anything; the reason is reported with the image
            name = job.source.name(number)
            found.broken.append(Broken(number, name, _reason(error, name)))
            continue
        found.numbers.append(number)
        found.labels.append(label)
    for tensor, number in zip(tensors, found.numbers, strict=True):
        alike(job, tuple(tensors[0].shape), tuple(tensor.shape), number)
    if tensors:
        # A batch of one takes another way through the convolutions, and its last bits differ.
        times = 1 if len(tensors) > 1 else 2
        found.images = torch.stack(tensors * times).to(home_of(job.network.model)[1])  # (B, C, H, W)
        if job.against is not None:
            found.other = torch.stack(others * times).to(home_of(job.against.model)[1])
    return found


def alike(job: Job, first: tuple[int, ...], shape: tuple[int, ...], number: int) -> None:
    """Raises ImageError if an image has another shape than the ones before."""
    if first != shape:
        raise ImageError(
            f"{job.source.name(number)}: is {shape} after preprocessing and others are {first}; "
            "set --size, or --resize and --crop"
        )


class Hand:
    """Measures chunks; decoding is done in threads, one batch and a few ahead of the pass."""

    def __init__(self, job: Job, threads: int = 1) -> None:
        machine_code()  # no image may be measured by numpy in their place: sums are the same to the last bit
        self.job, self._meter = job, job.meter()
        self._threads = max(1, min(threads, job.source.threads))

    def measure(self, chunks: Iterable[int], passed: Passed = lambda chunk, images: False) -> Iterator[Partial]:
        """A partial for each chunk. `passed` is told how many images of a chunk are done; if it says True, no more
        is done."""
        with ThreadPoolExecutor(self._threads, "decode") as pool:
            partial: Partial | None = None
            shape: tuple[int, ...] = ()
            try:
                for chunk, last, decoded in self._ahead(chunks, pool):
                    partial = partial or Partial(chunk, 0, [], None, processor=processor())
                    partial.broken += decoded.broken
                    if decoded.images is not None:
                        shape = shape or tuple(decoded.images.shape[1:])
                        alike(self.job, shape, tuple(decoded.images.shape[1:]), decoded.numbers[0])
                        self._pass(decoded)
                        partial.images += len(decoded.numbers)
                        partial.shape = shape
                    if passed(chunk, partial.images + len(partial.broken)):
                        return
                    if last:
                        partial.state = self._meter.take() if partial.images else None
                        done, partial = partial, None  # who takes one chunk never comes back for the next
                        yield done
            finally:
                pool.shutdown(cancel_futures=True)
                if partial and partial.images:
                    self._meter = self.job.meter()  # what was begun does not belong to the next chunk

    def _pass(self, decoded: _Decoded) -> None:
        assert decoded.images is not None
        images = decoded.images if getattr(self._meter, "pads", False) else decoded.images[: len(decoded.numbers)]
        more = (decoded.other,) if decoded.other is not None else ()
        labels = [-1 if label is None else label for label in decoded.labels] if self.job.source.classes else None
        self._meter.batch(images, decoded.numbers, labels, *more)

    def _ahead(self, chunks: Iterable[int], pool: ThreadPoolExecutor) -> Iterator[tuple[int, bool, _Decoded]]:
        """(chunk, whether it is its last batch, the batch), decoded ahead."""
        waiting: deque[tuple[int, bool, Future[_Decoded]]] = deque()
        for chunk in chunks:
            batches = self.job.batches(chunk)
            for place, numbers in enumerate(batches):
                waiting.append((chunk, place + 1 == len(batches), pool.submit(_decode, self.job, numbers)))
                if len(waiting) > self._threads + 1:
                    number, last, ready = waiting.popleft()
                    yield number, last, ready.result()
        for number, last, ready in waiting:
            yield number, last, ready.result()


def measure(job: Job, chunk: int) -> Partial:
    """From a chunk to its partial state: the same bits wherever and whenever on such a processor.

    Raises ImageError if the images differ in size after preprocessing, ForwardError if the network fails.
    """
    return next(Hand(job).measure([chunk]))


def sample_images(job: Job) -> tuple[Tensor, Tensor | None]:
    """A batch of images from all over the data set, (B, C, H, W), for each network. Raises ImageError for none.

    Where none of these can be read, the first batch of which some can.
    """
    count = len(job.source)
    spread = np.arange(0, count, math.ceil(count / job.batch))
    broken: list[Broken] = []
    for numbers in chain([spread], *map(job.batches, range(job.chunks))):
        found = _decode(job, numbers)
        if found.images is not None:
            return found.images, found.other
        broken += found.broken
    raise none_readable(count, broken)


def none_readable(count: int, broken: Sequence[Broken]) -> ImageError:
    """Not one image of the data set could be read."""
    first = min(broken)
    return ImageError(f"none of the {count} images can be read; the first is {first.name}: {first.reason}")
