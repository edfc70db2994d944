"""The engine that needs nothing installed: this process, or several of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerscope.surveying.engines import Setup
from layerscope.surveying.job import Hand, Job, Partial
from layerscope.surveying.workers import processes

__all__ = ["local"]

#: threads that decode beside the pass; Pillow works without the interpreter's lock
DECODERS = 2


def local(job: Job, chunks: Sequence[int], setup: Setup) -> Iterator[Partial]:
    """Measure in this process with torch's threads; with two workers or more in as many processes of one thread."""
    if setup.workers > 1 and len(chunks) > 1:
        yield from processes(job, chunks, setup)
    else:
        yield from Hand(job, DECODERS).measure(chunks, setup.passed)
