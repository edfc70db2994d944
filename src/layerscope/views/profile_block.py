"""What a survey knows of one layer, as the viewer reads it: a JSON head and arrays, little-endian.

uint32   length of the head, in bytes
head     JSON, UTF-8: the numbers of the layer, and "arrays": [[name, type, sizes], ...]
arrays   one after the other, each begun at a multiple of 4 bytes from the start; type is f4, i4 or u4
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.profiles import Profile
from layerscope.views import wire

__all__ = ["profile_block"]

_MOST = np.iinfo(np.uint32).max


def profile_block(profile: Profile) -> bytes:
    """The block of one layer. Counts above 2**32 - 1 are cut off there; histograms are given to float32."""
    arrays: list[tuple[str, str, NDArray[Any]]] = [("silent", "u4", np.minimum(profile.inactive, _MOST))]
    for name, kind, array in (
        ("favourite", "i4", profile.preferred_class),
        ("selectivity", "f4", profile.selectivity),
        ("explained", "f4", profile.eta_squared),
    ):
        if array is not None:
            arrays.append((name, kind, array))
    if profile.examples:
        of = profile.examples
        arrays += [("image", "i4", of.image), ("value", "f4", of.value)]
        arrays += [("position", "i4", of.position), ("at", "i4", of.origin)]
    if profile.histograms:
        arrays += [("spread", "f4", profile.histograms.counts), ("bins", "i4", profile.histograms.bins)]
    lines = [[line.low, line.high, line.step, line.whole] for line in profile.lines] if profile.lines else None
    head = wire.dumps(
        {
            "images": profile.images,
            "copies": [list(pair) for pair in profile.redundant_channels],
            "rank": profile.rank,
            "grid": list(profile.grid),
            "lines": lines,
            "arrays": [[name, kind, list(array.shape)] for name, kind, array in arrays],
        }
    )
    parts, size = [struct.pack("<I", len(head)), head], 4 + len(head)
    for _, kind, array in arrays:
        gap = -size % 4
        data = np.ascontiguousarray(array.astype(f"<{kind}")).tobytes()
        parts += [b"\0" * gap, data]
        size += gap + len(data)
    return b"".join(parts)
