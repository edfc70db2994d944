"""Partial states become one, and every image is accounted for."""

from __future__ import annotations

from collections.abc import Iterable

from layerscope.errors import ImageError
from layerscope.surveying.engines import EngineError
from layerscope.surveying.job import Broken, Job, Partial, State

__all__ = ["Tally"]


class Tally:
    """What is done of a job: `state` of all partials so far, the `chunks` in it, and the `broken` images."""

    def __init__(
        self,
        job: Job,
        state: State | None = None,
        chunks: Iterable[int] = (),
        broken: Iterable[Broken] = (),
        processors: Iterable[str] = (),
        shape: Iterable[int] = (),
    ) -> None:
        self.job, self.state, self.chunks = job, state, set(chunks)
        self.broken, self.processors, self.shape = list(broken), set(processors), tuple(shape)
        if any(not 0 <= chunk < job.chunks for chunk in self.chunks):
            raise ValueError("it has chunks that the data set has not")
        self._check()

    @property
    def images(self) -> int:
        """How many were measured."""
        return self.state.images if self.state else 0

    @property
    def done(self) -> int:
        """How many were measured or found broken."""
        return self.images + len(self.broken)

    @property
    def pending(self) -> list[int]:
        """Chunks that are not done yet, in order."""
        return [chunk for chunk in range(self.job.chunks) if chunk not in self.chunks]

    def _check(self) -> None:
        last = self.job.chunks - 1
        whole = len(self.chunks) * self.job.chunk
        if last in self.chunks:
            whole -= self.job.chunk - len(self.job.numbers(last))
        if whole != self.done:
            raise ValueError(f"it has {self.done} images where its chunks have {whole}")

    def add(self, partial: Partial) -> None:
        """Merge one more. Raises EngineError if it is not what was asked for, ImageError for images of another size."""
        job, chunk = self.job, partial.chunk
        if not 0 <= chunk < job.chunks or chunk in self.chunks:
            raise EngineError(f"chunk {chunk} of {job.chunks} arrived twice or was never asked for; run it again")
        numbers = job.numbers(chunk)
        if partial.shape and self.shape and partial.shape != self.shape:
            raise ImageError(
                f"{job.source.name(numbers[0])} and those after it are {partial.shape} after preprocessing and others "
                f"are {self.shape}; set --size, or --resize and --crop"
            )
        state = job.unpack(partial.state) if isinstance(partial.state, bytes) else partial.state
        measured = state.images if state else 0
        if measured != partial.images or measured + len(partial.broken) != len(numbers):
            raise EngineError(
                f"images {numbers[0]} to {numbers[-1]}: {measured} measured and {len(partial.broken)} broken arrived "
                f"of {len(numbers)}; run it again"
            )
        if self.state is None:
            self.state = state
        elif state is not None:
            self.state.merge(state)
        self.chunks.add(chunk)
        self.broken += partial.broken
        self.shape = self.shape or partial.shape
        if partial.processor:
            self.processors.add(partial.processor)
