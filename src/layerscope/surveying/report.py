"""What was measured as a record, with the images that excite some channel most."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from layerscope._version import __version__
from layerscope.errors import LayerscopeError
from layerscope.networks.open import Network
from layerscope.progress import Progress
from layerscope.records.profiles import Shown, wanted
from layerscope.records.record import Record
from layerscope.surveying.accumulators.layer import Lines
from layerscope.surveying.running.job import Job
from layerscope.surveying.running.partial import Partial
from layerscope.text import counted
from layerscope.units.receptive import geometry

__all__ = ["MOST", "notes_of", "record_of"]

#: images with their pixels in a record; the others are named
MOST = 2000
#: longer sides are reduced to this: what is shown is at most a few hundred pixels wide
_SIDE_PX = 320


def record_of(result: Partial, sample: Tensor, progress: Progress, pictures: int) -> Record:
    """The record of a result. sample: images (B, C, H, W). pictures: how many of the best examples have pixels."""
    job, state = result.job, result.state
    network, source = job.network, job.source
    record = Record("survey", network.subject, classes=list(source.classes))
    record.subject_b = job.against.subject if job.against else ""
    lines = _lines(network, sample)
    for layer in state:
        record.add(layer.compute(state.counts, lines))
    profiles = [entry.profile for entry in record.values() if entry.profile]
    numbers = wanted(profile.examples for profile in profiles if profile.examples)
    record.shown = _thumbnails(numbers, job, progress, pictures)
    record.similarity = state.similarity.compute() if state.similarity else None
    record.provenance = {
        "layerscope": __version__,
        "torch": torch.__version__,
        "preprocessing": str(network.preprocessing),
        "data set": source.subject,
        "images": result.images,
        "of": result.of,
        "partial": bool(result.pending),
        "broken": [image._asdict() for image in result.broken],
    }
    record.notes = [*notes_of(result), *network.notes]
    return record


def notes_of(result: Partial) -> list[str]:
    """What a reader of the figures has to know, one line each."""
    notes = []
    if result.pending:
        notes.append(f"partial: {result.images} of {result.of} images are in; the same command goes on from there")
    if result.broken:
        first, many = result.broken[0], counted(len(result.broken), "image")
        notes.append(f"left out, since it cannot be read: {many}; the first is {first.name}: {first.reason}")
    if len(result.processors) > 1:
        names = "; ".join(sorted(result.processors))
        notes.append(f"measured on unlike processors ({names}): the last bits may differ elsewhere")
    return notes


def _lines(network: Network, sample: Tensor) -> Lines:
    """Receptive fields of all layers; none where the network is not to be followed."""
    if network.takes != "batch":
        return {}
    try:
        return geometry(network.model, sample[:1])
    except (LayerscopeError, RuntimeError, TypeError, ValueError):
        return {}


def _thumbnails(numbers: list[int], job: Job, progress: Progress, most: int) -> list[Shown]:
    """The images of these numbers, in the order of the data set; the first `most` with pixels, as the network sees
    them. An image that can't be read any more is named without."""
    source, with_pixels = job.source, set(numbers[:most])

    def thumbnail(number: int) -> Shown:
        try:
            label = source.label(number)
        except Exception:  # as below
            label = None
        named = source.classes[label] if label is not None and 0 <= label < len(source.classes) else ""
        blank = Shown(number, source.name(number), named, 0, 0, np.empty(0, np.uint8))
        if number not in with_pixels:
            return blank
        try:
            picture: Image.Image = job.network.preprocessing.picture(source.image(number)).convert("RGB")
        except Exception:  # it was read before; whatever has happened to it since, the figures stand
            return blank
        width, height = picture.size
        picture.thumbnail((_SIDE_PX, _SIDE_PX))
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=80, method=2)
        return Shown(number, blank.name, named, width, height, np.frombuffer(buffer.getvalue(), np.uint8))

    found = []
    with ThreadPoolExecutor(2) as pool:  # Pillow decodes without the lock
        for done, shown in enumerate(pool.map(thumbnail, sorted(numbers))):
            progress(done, len(numbers), "best examples")
            found.append(shown)
    return found
