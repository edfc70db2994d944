"""The state of a survey as a record: what views draw."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from layerscope.maps import Maps
from layerscope.profiles import ChannelHistograms, Examples, Line, Profile, Similarity
from layerscope.record import Entry
from layerscope.sites import Site
from layerscope.surveying import meaning
from layerscope.surveying.state import LayerState, State

__all__ = ["Lines", "entries", "likeness"]

#: receptive fields of the units of a layer, by its key
Lines = Mapping[str, tuple[Line, Line]]


def entries(state: State, lines: Lines) -> list[Entry]:
    """One entry a layer and call, in the order of the pass. lines: receptive fields by key."""
    return [_entry(layer, state.counts, lines) for layer in state]


def likeness(state: State) -> Similarity | None:
    """CKA of the layers; None if it was not measured, or over less than one minibatch."""
    if state.alike is None or not state.alike.minibatches:
        return None
    return Similarity(list(state.alike.keys), meaning.similarity(state.alike.value), state.alike.minibatches)


def _entry(layer: LayerState, counts: NDArray[np.int64], lines: Lines) -> Entry:
    maps, examples = _examples(layer)
    followed = _classes(layer, counts)
    pooled = layer.pooled
    copies: list[tuple[int, int, float]] = []
    rank = None
    if pooled is not None and pooled.gram is not None:
        copies = meaning.copies(pooled.gram, pooled.sums, pooled.images)
        rank = meaning.effective_rank(pooled.gram, pooled.sums, pooled.images, pooled.scale[0])
    cut = int(pooled.cut.sum()) if pooled is not None else 0
    notes = [layer.note]
    if cut:
        notes.append(f"copies, rank, classes: {cut:,} of {layer.images * layer.channels:,} means of images cut off")
    side, path = ("b", layer.site.path[2:]) if layer.site.path.startswith("b:") else ("", layer.site.path)
    bins = layer.bins
    profile = Profile(
        layer.images,
        layer.silent,
        examples,
        ChannelHistograms(bins.numbers, bins.counts.astype(np.int64)) if bins else None,
        redundant_channels=copies,
        rank=rank,
        grid=_grid(layer),
        lines=lines.get(layer.site.key),
        **(followed._asdict() if followed else {}),
    )
    site, shape = Site(path, layer.site.call, layer.site.layout), (layer.images, *layer.shape)
    note = "; ".join(filter(None, notes))
    return Entry(site, layer.type, shape, layer.dtype, layer.columns, maps=maps, side=side, note=note, profile=profile)


def _grid(layer: LayerState) -> tuple[int, int]:
    if layer.site.layout in ("NCHW", "NHWC"):
        sizes = [size for letter, size in zip(layer.site.layout[1:], layer.shape, strict=True) if letter in "HW"]
        return sizes[0], sizes[1]
    return layer.examples.grid if layer.examples else (1, 1)


def _examples(layer: LayerState) -> tuple[list[Maps], Examples | None]:
    """The surroundings of the best, second best, ... as maps, and where they are."""
    best = layer.examples
    if best is None or not best.top:
        return [], None
    # A map without an example has no range at all.
    codes, low, high = best.maps, np.where(np.isnan(best.value), np.nan, best.low).astype(np.float32), best.value
    height, width = best.window
    maps = [
        Maps(low[:, place], high[:, place], (layer.channels, height, width), np.ascontiguousarray(codes[:, place]))
        for place in range(best.top)
    ]
    return maps, Examples(best.image, np.nan_to_num(high, nan=0.0), best.position, best.corner)


def _classes(layer: LayerState, counts: NDArray[np.int64]) -> meaning.Followed | None:
    pooled = layer.pooled
    if pooled is None or not len(counts) or pooled.images != counts.sum():
        return None  # without labels, or some images have none
    return meaning.classes(pooled.by_class(counts), pooled.from_zero()[1], counts)
