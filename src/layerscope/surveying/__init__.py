"""A data set surveyed: what each channel is for, and which are dead."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerscope._version import __version__
from layerscope.errors import LayerscopeError
from layerscope.inspect import Progress, quiet
from layerscope.networks.open import Network, open_network
from layerscope.profiles import wanted
from layerscope.record import Record
from layerscope.selection import select
from layerscope.surveying import report, shown
from layerscope.surveying.job import Job, sample_images
from layerscope.surveying.meter import Measures, calibration
from layerscope.surveying.partials import keeping
from layerscope.surveying.run import Result, run_survey
from layerscope.surveying.source import open_source
from layerscope.text import counted
from layerscope.units.geometry import geometry

__all__ = ["survey"]


def survey(
    model: nn.Module | Network | str,
    images: Any,
    layers: str | Sequence[str] = (),
    engine: str = "local",
    progress: Progress = quiet,
    *,
    top: int = 9,
    histograms: str | Sequence[str] = "*Conv*",
    against: nn.Module | Network | str | None = None,
    workers: int = 0,
    address: str = "",
    record: str | os.PathLike[str] | None = None,
    restart: bool = False,
    pictures: int = shown.MOST,
) -> Record:
    """Statistics, best examples and meaning of every channel over a data set.

    `model`: a module, or what the command line takes for NETWORK. `images`: a folder with one folder of images a class,
    a folder of images, a text file with a path a line, MNIST's idx files, a list of paths, or a data set as
    torchvision's. Images that cannot be read are counted and named.
    `layers`: globs over paths or types; all leaves if empty. `top`: best images of each channel. `histograms`: globs
    of the layers that get one. `against`: a second network, whose layers are compared with those of the first by CKA.
    `engine`: "local" or "ray", at `address` if a cluster runs there. `workers`: processes.
    `record`: save here, and keep partial results beside it, so that a survey that was killed goes on where it was;
    `restart` begins again. `pictures`: images in the record, of those that excite some channel.
    The result does not depend on engine, workers or interruptions, not in the last bit. After Ctrl-C the record of
    what is done is given, and its first note says so.
    Raises ImageError, NetworkError, ForwardError, NoMatch, UsageError, OutputError, EngineError.
    """
    network = model if isinstance(model, Network) else open_network(model)
    patterns = [layers] if isinstance(layers, str) else list(layers)
    counted_for = [histograms] if isinstance(histograms, str) else list(histograms)
    chosen = select(network.model, patterns)
    source = open_source(images)
    progress(0, len(source), "looking at a few images first")
    measures = Measures(top=top, histograms=tuple(counted_for), classes=len(source.classes))
    job = Job(network, source, patterns, measures, network.spec)
    if against is not None:
        job.against = against if isinstance(against, Network) else open_network(against)
    sample, other = sample_images(job)
    others = [] if other is None else [other]
    job.measures = replace(measures, scale=calibration(network, [sample], patterns, job.against, others))
    with ExitStack() as stack:
        kept = stack.enter_context(keeping(Path(record), job, restart)) if record else None
        result = run_survey(job, engine, progress, kept, workers, address)
        made = _record(job, result, sample, progress, pictures)
        made.notes = [*_said(result), *network.notes, *chosen.notes]
        if record:
            made.save(record)
        if kept and not result.partial:
            kept.done()
    return made


def _record(job: Job, result: Result, sample: Tensor, progress: Progress, pictures: int) -> Record:
    network, source = job.network, job.source
    state: Any = result.state
    made = Record("survey", network.subject, classes=list(source.classes))
    made.subject_b = job.against.subject if job.against else ""
    for entry in report.entries(state, _lines(network, sample)):
        made.add(entry)
    lists = [entry.profile.examples for entry in made.values() if entry.profile and entry.profile.examples]
    seen = network.preprocessing.picture
    made.shown = shown.gather(wanted(lists), source, seen, made.classes, progress, pictures)
    made.similarity = report.likeness(state)
    made.provenance = {
        "layerscope": __version__,
        "torch": torch.__version__,
        "preprocessing": str(network.preprocessing),
        "data set": source.subject,
        "images": result.done,
        "of": result.of,
        "partial": result.partial,
        "broken": [one._asdict() for one in result.broken],
    }
    return made


def _said(result: Result) -> list[str]:
    notes = list(result.notes)
    if result.broken:
        one = result.broken[0]
        many = counted(len(result.broken), "image")
        notes.insert(0, f"left out, since it cannot be read: {many}; the first is {one.name}: {one.reason}")
    if result.partial:
        notes.insert(0, f"partial: {result.done} of {result.of} images are in; the same command goes on from there")
    return notes


def _lines(network: Network, sample: Tensor) -> report.Lines:
    """Receptive fields of all layers; none where the network is not to be followed."""
    if network.takes != "batch":
        return {}
    try:
        return geometry(network.model, sample[:1])
    except (LayerscopeError, RuntimeError, TypeError, ValueError):
        return {}
