"""A data set surveyed: what each channel is for, and which are dead."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from layerscope.activations.modules import Layers, select
from layerscope.networks.devices import Device, described
from layerscope.networks.feeding import BATCH_SIZE
from layerscope.networks.foreign import home_of
from layerscope.networks.open import Network, opened
from layerscope.progress import Progress, quiet
from layerscope.records.record import Record
from layerscope.stats import machine_code
from layerscope.surveying.accumulators.update import Measures, calibration
from layerscope.surveying.report import MOST, record_of
from layerscope.surveying.running.job import Job
from layerscope.surveying.running.partial import resuming
from layerscope.surveying.running.run import run_survey
from layerscope.surveying.running.worker import sample_images
from layerscope.surveying.sources import open_source

__all__ = ["survey"]


def survey(
    model: nn.Module | Network | str,
    images: Any,
    layers: Layers = (),
    *,
    engine: str = "local",
    top: int = 9,
    histograms: str | Sequence[str] = "*Conv*",
    against: nn.Module | Network | str | None = None,
    workers: int = 0,
    address: str = "",
    record: str | os.PathLike[str] | None = None,
    restart: bool = False,
    pictures: int = MOST,
    device: Device = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress = quiet,
) -> Record:
    """Statistics, best examples and meaning of every channel over a data set.

    `model`: a module, or what the command line takes for NETWORK. `images`: a folder with one folder of images a class,
    a folder of images, a text file with a path a line, MNIST's idx files, a list of paths, or a data set as
    torchvision's. Images that cannot be read are counted and named.
    `layers`: as `features` takes them; all leaves if empty. `top`: best images of each channel. `histograms`: globs
    of the layers that get one. `against`: a second network, whose layers are compared with those of the first by CKA.
    `engine`: "local" or "ray", at `address` if a cluster runs there. `workers`: processes.
    `record`: save here, and keep partial results beside it, so that a survey that was killed goes on where it was;
    `restart` begins again. `pictures`: images in the record, of those that excite some channel.
    `device`, `batch_size`: as `features` takes them; the last bits of the result depend on both.
    The result does not depend on engine, workers or interruptions, not in the last bit. After Ctrl-C the record of
    what is done is returned, and its first note says so.
    Raises ImageError, NetworkError, DeviceError, ForwardError, NoMatch, UsageError, OutputError, EngineError.

        >>> record = layerscope.survey(model, "flowers", layers="layer1.0.conv1", top=3)
        >>> record["layer1.0.conv1"].profile.examples.image.shape  # channels, best images
        (64, 3)
    """
    counted_for = [histograms] if isinstance(histograms, str) else list(histograms)
    with ExitStack() as stack:
        network = stack.enter_context(opened(model, device))
        chosen = select(network.model, layers)
        source = open_source(images)
        machine_code()
        progress(0, len(source), "looking at a few images first")
        measures = Measures(top=top, histograms=tuple(counted_for), classes=len(source.classes))
        job = Job(network, source, chosen.patterns, measures, batch_size, device=str(home_of(network.model)[0]))
        if against is not None:
            job.against = stack.enter_context(opened(against, device))
        sample, *others = sample_images(job).images
        job.measures = replace(measures, scale=calibration(network, sample, chosen.patterns, job.against, *others))
        resumable = stack.enter_context(resuming(Path(record), job, restart)) if record else None
        result = run_survey(job, engine, progress, resumable, workers, address)
        made = record_of(result, sample, progress, pictures)
        made.provenance["device"] = described(home_of(network.model)[0])
        made.notes += chosen.notes
        if record:
            made.save(record)
        if resumable and not result.pending:
            resumable.done()
    return made
