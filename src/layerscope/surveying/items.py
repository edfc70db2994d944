"""A data set object of the user's own as the images of a survey."""

from __future__ import annotations

import hashlib
import operator
import os
from typing import Any

import numpy as np
from PIL import Image

from layerscope.errors import ImageError
from layerscope.images import open_image, upright
from layerscope.text import counted

__all__ = ["Items"]


def _index(value: Any) -> int | None:
    """A label as a whole number, from an int, a numpy integer or a tensor of one; None for all else."""
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "dim")


class Items:
    """Anything with `__len__` and `__getitem__` that gives an image or (image, label), such as torchvision's data sets.

    Images are PIL images, paths, arrays uint8 (H, W, 3) or (H, W), or tensors (C, H, W) that are preprocessed already.
    The classes are its `classes`, or as many as its `targets` count. Without either labels are left aside.
    """

    threads = 1  # whoever wrote the object need not have thought of threads

    def __init__(self, data: Any) -> None:
        self._data = data
        inner = getattr(data, "dataset", None)  # of a Subset
        targets = getattr(data, "targets", None)
        self._targets = targets if targets is not None and len(targets) == len(data) else None
        classes = getattr(data, "classes", None) or getattr(inner, "classes", None)
        if not classes and self._targets is not None:
            classes = [f"class {index}" for index in range(1 + max((_index(t) or 0 for t in self._targets), default=0))]
        self.classes = [str(name) for name in classes or []]
        self.subject = f"{type(data).__name__} of {counted(len(data), 'image')}"

    def __len__(self) -> int:
        return len(self._data)

    def name(self, number: int) -> str:
        return f"image {number}"

    def label(self, number: int) -> int | None:
        if not self.classes:
            return None
        return self._checked(self._targets[number]) if self._targets is not None else self.item(number)[1]

    def _checked(self, label: Any) -> int | None:
        found = _index(label)
        return found if found is not None and 0 <= found < len(self.classes) else None

    def item(self, number: int) -> tuple[Any, int | None]:
        value = self._data[number]
        value, label = value[:2] if isinstance(value, tuple | list) and len(value) > 1 else (value, None)
        return value if _is_tensor(value) else _picture(value), self._checked(label)

    def image(self, number: int) -> Image.Image:
        value = self.item(number)[0]
        return _drawn(value) if _is_tensor(value) else value

    def fingerprint(self) -> str:
        """Over type, length, classes, targets and the pixels of nine images spread evenly."""
        digest = hashlib.sha256(f"{type(self._data).__qualname__} {len(self)} {self.classes}".encode())
        for target in self._targets if self._targets is not None else ():
            digest.update(f"{_index(target)} ".encode())
        for number in sorted({round(part * (len(self) - 1) / 8) for part in range(9)}):
            try:
                value, label = self.item(number)
                pixels = value.detach().cpu().numpy() if _is_tensor(value) else np.asarray(value)
                digest.update(f"{number} {label} {pixels.shape}".encode())
                digest.update(np.ascontiguousarray(pixels).data)
            except Exception as error:  # a broken image: the survey will count it
                digest.update(f"{number} {type(error).__name__}".encode())
        return digest.hexdigest()


def _picture(value: Any) -> Image.Image:
    if isinstance(value, Image.Image):
        return upright(value)
    if isinstance(value, str | os.PathLike):
        return open_image(value)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3):
        return upright(Image.fromarray(value))
    raise ImageError(f"the data set gave {type(value).__name__}, not an image; return a PIL image or a tensor")


def _drawn(tensor: Any) -> Image.Image:
    """A preprocessed tensor (C, H, W) as a picture, its values stretched over 0 to 255."""
    from layerscope.planes import pixels_of

    return Image.fromarray(pixels_of(tensor))
