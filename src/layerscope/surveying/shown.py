"""The images that excite some channel most, small enough to go into a record."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from PIL import Image

from layerscope.profiles import Shown

__all__ = ["MOST", "Pictures", "gather"]

#: images with their pixels in a record; the others are named
MOST = 2000
#: longer sides are reduced to this: what is shown is at most a few hundred pixels wide
SIDE_PX = 320


class Pictures(Protocol):
    """Where images come from, by their number in the data set."""

    def image(self, number: int) -> Image.Image: ...

    def name(self, number: int) -> str: ...

    def label(self, number: int) -> int | None: ...


def gather(
    numbers: list[int],
    pictures: Pictures,
    picture: Callable[[Image.Image], Image.Image],
    classes: list[str],
    progress: Callable[[int, int, str], None],
    most: int = MOST,
) -> list[Shown]:
    """The images of these numbers, in the order of the data set; the first `most` with their pixels.

    picture: what the network sees of an image. An image that can't be read any more is named without pixels.
    """
    kept = set(numbers[:most])

    def one(number: int) -> Shown:
        try:
            label = pictures.label(number)
        except Exception:  # as below
            label = None
        named = classes[label] if label is not None and 0 <= label < len(classes) else ""
        blank = Shown(number, pictures.name(number), named, 0, 0, np.empty(0, np.uint8))
        if number not in kept:
            return blank
        try:
            seen = picture(pictures.image(number)).convert("RGB")
        except Exception:  # it was read before; whatever has happened to it since, the figures stand
            return blank
        width, height = seen.size
        seen.thumbnail((SIDE_PX, SIDE_PX))
        buffer = io.BytesIO()
        seen.save(buffer, "WEBP", quality=80, method=2)
        return Shown(number, blank.name, named, width, height, np.frombuffer(buffer.getvalue(), np.uint8))

    found = []
    with ThreadPoolExecutor(2) as pool:  # Pillow decodes without the lock
        for done, shown in enumerate(pool.map(one, sorted(numbers))):
            progress(done, len(numbers), "best examples")
            found.append(shown)
    return found
