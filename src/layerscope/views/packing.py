"""The blocks of a record as text for a file, made to fit: packed, shared, then reduced, left out at the very last.

What people want to see most are the first layers, and those have the largest maps. So the largest layer is reduced by
averaging 2 x 2 values, again and again, until all fit: every layer stays to be seen, the largest ones more coarsely.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from layerscope.maps import NONFINITE, Maps
from layerscope.record import Entry, Record
from layerscope.views import wire
from layerscope.views.embedded import base64_of

__all__ = ["Fit", "fitted", "halved", "packed"]

#: A map is not reduced to fewer rows or columns than this: nothing would be recognised.
LEAST_PX = 7
#: the markup around a block, and the number of a block that stands for it elsewhere
_AROUND_BYTES = 64

At = tuple[int, int]  # layer, image


@dataclass
class Fit:
    """What goes into a file. `entries` are those of the record, some with smaller maps.

    `texts`: the blocks, gzip in base64, by layer and image; `shared`: blocks that are equal to one of these, and which.
    `reduced`: keys of layers with smaller maps than the record has, and by what factor; `left_out`: keys of layers
    whose maps are not there. Both the largest first.
    """

    entries: list[Entry]
    texts: dict[At, str] = field(default_factory=dict)
    shared: dict[At, At] = field(default_factory=dict)
    reduced: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass
class _Group:
    """Layers that are reduced or left out together, with the texts of each."""

    texts: dict[int, list[str]] = field(default_factory=dict)
    factor: int = 1

    @property
    def size(self) -> int:
        every = [text for texts in self.texts.values() for text in texts]
        return sum(map(len, set(every))) + _AROUND_BYTES * len(every)


def fitted(record: Record, room: int) -> Fit:
    """Every block in at most `room` bytes, if need be with smaller maps or without, the largest layers first.

    Statistics are kept, even where they alone need more. Raises RecordError for a record that contradicts itself.
    """
    fit = Fit(list(record.values()))
    groups = _groups(record, fit.entries)
    total = sum(group.size for group in groups)
    if total > room:  # then layers are named in notes
        room -= sum(2 * len(wire.dumps(entry.key)) + 16 for entry in fit.entries)
    queue = [(-group.size, at) for at, group in enumerate(groups)]
    heapq.heapify(queue)
    while total > room and queue:
        before, at = heapq.heappop(queue)
        if _halve(fit, groups[at]):
            heapq.heappush(queue, (-groups[at].size, at))
            total += before + groups[at].size
    for group in sorted(groups, key=lambda one: -one.size):
        if total <= room:
            break
        total -= group.size
        _leave_out(fit, group)
        total += group.size
    _share(fit, groups)
    return fit


def _groups(record: Record, entries: list[Entry]) -> list[_Group]:
    """Layers with the same blocks, as a dropout at rest and what goes into it, belong together.

    In a comparison layers of one size do: A - B needs maps that lie on each other.
    """
    found: dict[object, _Group] = {}
    for number, entry in enumerate(entries):
        texts = _texts(entry)
        kin = [one.shape for one in entry.maps] if record.kind == "compare" and entry.maps else texts
        found.setdefault(tuple(kin), _Group()).texts[number] = texts
    return list(found.values())


def _texts(entry: Entry) -> list[str]:
    return [packed(wire.block(entry, at)) for at in range(max(1, len(entry.maps)))]


def packed(block: bytes) -> str:
    """A block as gzip in base64, with its codes predicted where that is shorter."""
    # Level 9 takes four times as long for 0.2 % less. Differences have few repetitions: matches must be worth it.
    plain = _gzip(block, zlib.Z_DEFAULT_STRATEGY)
    return base64_of(min(plain, _gzip(wire.predicted(block), zlib.Z_FILTERED), key=len))


def _gzip(data: bytes, strategy: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9, strategy)
    return packer.compress(data) + packer.flush()


def _halve(fit: Fit, group: _Group) -> bool:
    """Half as many rows and columns in the maps of these layers; False where that makes no sense."""
    entries = {number: fit.entries[number] for number in group.texts}
    if not all(_can_be_halved(entry) for entry in entries.values()):
        return False
    group.factor *= 2
    for number, entry in entries.items():
        fit.entries[number] = replace(entry, maps=[halved(one) for one in entry.maps])
        fit.reduced[entry.key] = group.factor
        group.texts[number] = _texts(fit.entries[number])
    return True


def _can_be_halved(entry: Entry) -> bool:
    # The mean of neighbouring weights, which have either sign, says nothing.
    return bool(entry.maps) and "O" not in entry.site.layout and min(_sides(entry.maps)) >= 2 * LEAST_PX


def _sides(maps: Iterable[Maps]) -> list[int]:
    return [size for one in maps for size in one.shape[1:]]


def halved(maps: Maps) -> Maps:
    """Means of 2 x 2 values, (C, ceil(h/2), ceil(w/2)): right to a step of the codes, their range stays.

    The last row and column are filled up with their neighbours. Where a value is not finite, their mean is not.
    """
    channels, height, width = maps.shape
    codes = np.pad(maps.codes, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    blocks = codes.reshape(channels, (height + 1) // 2, 2, (width + 1) // 2, 2)
    means = ((blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) >> 2).astype(np.uint8)
    means[(blocks == NONFINITE).any(axis=(2, 4))] = NONFINITE
    return Maps(maps.lo, maps.hi, means.shape, means, 2 * maps.reduced)


def _leave_out(fit: Fit, group: _Group) -> None:
    for number in group.texts:
        entry = fit.entries[number]
        if entry.maps:
            group.texts[number] = [packed(wire.block(entry, 0, maps=False))]
            fit.reduced.pop(entry.key, None)
            fit.left_out.append(entry.key)


def _share(fit: Fit, groups: list[_Group]) -> None:
    texts = {number: texts for group in groups for number, texts in group.texts.items()}
    first: dict[str, At] = {}
    for number in sorted(texts):
        entry = fit.entries[number]
        alone = not entry.maps or entry.key in fit.left_out  # the index says beside its maps what is shared
        for image, text in enumerate(texts[number]):
            at = (number, image) if alone else first.setdefault(text, (number, image))
            if at == (number, image):
                fit.texts[at] = text
            else:
                fit.shared[number, image] = at
