"""The blocks of a record as text for a file, made to fit: packed, shared, then reduced, left out at the very last.

What people want to see most are the first layers, and those have the largest maps. So the largest layer is reduced by
averaging 2 x 2 values, again and again, until all fit: every layer stays to be seen, the largest ones more coarsely.
"""

from __future__ import annotations

import base64
import heapq
import zlib
from dataclasses import dataclass, field, replace

from layerscope.records.kinds import KINDS
from layerscope.records.maps import shrunk
from layerscope.records.record import Entry, Record
from layerscope.text import json_text
from layerscope.views.format import block, predicted

__all__ = ["AROUND_BYTES", "Fit", "base64_of", "fitted", "zipped"]

#: A map is not reduced to fewer rows or columns than this: nothing would be recognised.
LEAST_PX = 7
#: the markup around a block, and the number of a block that stands for it elsewhere
AROUND_BYTES = 64

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
        return sum(map(len, set(every))) + AROUND_BYTES * len(every)


def fitted(record: Record, room: int, statistics: bool = True) -> Fit:
    """Every block in at most `room` bytes, if need be with smaller maps or without, the largest layers first.

    Statistics are kept, even where they alone need more; unless `statistics`, layers without maps have no block. Raises
    RecordError for a record that contradicts itself.
    """
    fit = Fit(list(record.values()))
    groups = _groups(record, fit.entries, statistics)
    total = sum(group.size for group in groups)
    if total > room:  # then layers are named in notes
        room -= sum(2 * len(json_text(entry.key).encode()) + 16 for entry in fit.entries if entry.maps)
    queue = [(-group.size, at) for at, group in enumerate(groups)]
    heapq.heapify(queue)
    while total > room and queue:
        before, at = heapq.heappop(queue)
        if _halve(fit, groups[at]):
            heapq.heappush(queue, (-groups[at].size, at))
            total += before + groups[at].size
    for group in sorted(groups, key=lambda group: -group.size):
        if total <= room:
            break
        total -= group.size
        _leave_out(fit, group, statistics)
        total += group.size
    _share(fit, groups)
    return fit


def _groups(record: Record, entries: list[Entry], statistics: bool) -> list[_Group]:
    """Layers with the same blocks, as a dropout at rest and what goes into it, belong together.

    In a comparison layers of one size do: A - B needs maps that lie on each other.
    """
    by_kin: dict[object, _Group] = {}
    compares = KINDS[record.kind].compares
    for number, entry in enumerate(entries):
        if entry.maps or statistics:
            texts = _texts(entry)
            kin = [maps.shape for maps in entry.maps] if compares and entry.maps else texts
            by_kin.setdefault(tuple(kin), _Group()).texts[number] = texts
    return list(by_kin.values())


def _texts(entry: Entry) -> list[str]:
    return [_packed(block(entry, at)) for at in range(max(1, len(entry.maps)))]


def _packed(data: bytes) -> str:
    """A block as gzip in base64, with its codes predicted where that is shorter."""
    # Level 9 takes four times as long for 0.2 % less. Differences have few repetitions: matches must be worth it.
    return base64_of(min(_gzip(data), _gzip(predicted(data), zlib.Z_FILTERED), key=len))


def zipped(data: bytes) -> str:
    """Bytes as gzip in base64; equal bytes give equal text."""
    return base64_of(_gzip(data))


def base64_of(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode()


def _gzip(data: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9, strategy)
    return packer.compress(data) + packer.flush()


def _halve(fit: Fit, group: _Group) -> bool:
    """Half as many rows and columns in the maps of these layers; False where that makes no sense."""
    entries = {number: fit.entries[number] for number in group.texts}
    for entry in entries.values():
        sides = [size for maps in entry.maps for size in maps.shape[1:]]
        # The mean of neighbouring weights, which have either sign, says nothing.
        if not sides or "O" in entry.site.layout or min(sides) < 2 * LEAST_PX:
            return False
    group.factor *= 2
    for number, entry in entries.items():
        fit.entries[number] = replace(entry, maps=[shrunk(maps, 2) for maps in entry.maps])
        fit.reduced[entry.key] = group.factor
        group.texts[number] = _texts(fit.entries[number])
    return True


def _leave_out(fit: Fit, group: _Group, statistics: bool) -> None:
    for number in group.texts:
        entry = fit.entries[number]
        if entry.maps:
            group.texts[number] = [_packed(block(entry, 0, maps=False))] if statistics else []
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
