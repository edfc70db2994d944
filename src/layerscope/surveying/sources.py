"""Where the images of a survey come from: a folder, a list of paths, a data set object or idx files.

A number names an image for good: the order depends on the names alone, not on the file system. Millions of paths are
kept as one run of bytes.
"""

from __future__ import annotations

import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from layerscope.errors import ImageError, UsageError
from layerscope.images.files import (
    find_idx,
    find_images,
    idx_pairs,
    image_named,
    is_split,
    natural,
    open_image,
    read_idx,
    scan,
    upright,
)
from layerscope.surveying.digests import digest
from layerscope.text import counted

__all__ = ["Files", "Idx", "Items", "Source", "open_source"]


class Source(ABC):
    """Images by number, 0 to len - 1. `threads`: how many may be asked for at once."""

    classes: list[str]
    subject: str
    threads = 1

    @abstractmethod
    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """What a person would find the image by."""
        return f"image {number}"

    @abstractmethod
    def label(self, number: int) -> int | None:
        """Index into `classes`."""

    def item(self, number: int) -> tuple[Any, int | None]:
        """The image, or a tensor (C, H, W) that is preprocessed already, and its label. Raises ImageError."""
        return self.image(number), self.label(number)

    @abstractmethod
    def image(self, number: int) -> Image.Image:
        """The image, before any preprocessing. Raises ImageError."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest that differs when names, sizes or labels do."""


class Files(Source):
    """Image files: a root folder and their paths below it."""

    threads = 4

    def __init__(
        self, root: str, paths: Iterable[bytes], labels: Sequence[int] | None, classes: list[str], subject: str
    ) -> None:
        """paths: below root, or absolute; labels: indices into classes, -1 for none."""
        blob, ends = bytearray(), []
        for path in paths:
            blob += path
            ends.append(len(blob))
        self.root, self.classes, self.subject = os.fsencode(Path(root).absolute()), classes, subject
        self._blob, self._ends = bytes(blob), np.array([0, *ends], np.int64)
        self._labels = None if labels is None else np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def _below(self, number: int) -> bytes:
        return self._blob[self._ends[number] : self._ends[number + 1]]

    def _path(self, number: int) -> str:
        return os.fsdecode(os.path.join(self.root, self._below(number)))  # noqa: PTH118 - bytes

    def name(self, number: int) -> str:
        return self._below(number).decode("utf-8", "replace")

    def label(self, number: int) -> int | None:
        return None if self._labels is None or self._labels[number] < 0 else int(self._labels[number])

    def image(self, number: int) -> Image.Image:
        return open_image(self._path(number))

    def fingerprint(self) -> str:
        sizes = np.full(len(self), -1, np.int64)
        for number in range(len(self)):
            with suppress(OSError):
                sizes[number] = os.stat(self._path(number)).st_size  # noqa: PTH116 - millions of them
        return digest([self._blob, self._ends, sizes, self._labels, self.classes])


class Idx(Source):
    """The pictures of an idx file, with the labels of the file beside it."""

    def __init__(self, images: Path, labels: Path | None) -> None:
        self._files, self.subject = (images, labels), str(images)
        self.classes, self._labels = [], None
        if labels:
            self.classes, self._pictures, self._labels = idx_pairs(images, labels)
        else:
            self._pictures = read_idx(images)
        if self._pictures.ndim != 3:
            raise ImageError(f"{images}: holds no pictures but {self._pictures.shape}; give an images-idx3 file")

    def __reduce__(self) -> tuple[Any, ...]:  # other processes read the file themselves
        images, labels = self._files
        return Idx, (images.absolute(), labels and labels.absolute())

    def __len__(self) -> int:
        return len(self._pictures)

    def label(self, number: int) -> int | None:
        return None if self._labels is None else int(self._labels[number])

    def image(self, number: int) -> Image.Image:
        return Image.fromarray(self._pictures[number])

    def fingerprint(self) -> str:
        return digest([self._pictures, self._labels, self.classes])


def _index(value: Any) -> int | None:
    """A label as a whole number, from an int, a numpy integer or a tensor of one; None for all else."""
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "dim")


class Items(Source):
    """Anything with `__len__` and `__getitem__` that gives an image or (image, label), such as torchvision's data sets.

    It is asked for one image at a time: the object need not have been written with threads in mind.
    Images are PIL images, paths, arrays uint8 (H, W, 3) or (H, W), or tensors (C, H, W) that are preprocessed already.
    The classes are its `classes`, or as many as its `targets` count. Without either labels are left aside.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        inner = getattr(data, "dataset", None)  # of a Subset
        targets = getattr(data, "targets", None)
        self._targets = targets if targets is not None and len(targets) == len(data) else None
        classes = getattr(data, "classes", None) or getattr(inner, "classes", None)
        if not classes and self._targets is not None:
            most = max((_index(target) or 0 for target in self._targets), default=0)
            classes = [f"class {index}" for index in range(1 + most)]
        self.classes = [str(name) for name in classes or []]
        self.subject = f"{type(data).__name__} of {counted(len(data), 'image')}"

    def __len__(self) -> int:
        return len(self._data)

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
        targets = [_index(target) for target in self._targets] if self._targets is not None else []
        parts: list[Any] = [type(self._data).__qualname__, len(self), self.classes, targets]
        for number in sorted({round(part * (len(self) - 1) / 8) for part in range(9)}):
            try:
                value, label = self.item(number)
                parts.append([number, label, value if _is_tensor(value) else np.asarray(value)])
            except Exception as error:  # a broken image: the survey will count it
                parts.append([number, type(error).__name__])
        return digest(parts)


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
    from layerscope.activations.planes import pixels_of

    return Image.fromarray(pixels_of(tensor))


def open_source(images: Any) -> Source:
    """A folder with a folder of images for every class, a flat folder, idx files, a text file with a path a line
    (then perhaps a tab and a label), a list of paths, or a data set object that gives images or (image, label).

    Files of a folder are in natural order, those of a list in its own. Raises ImageError or UsageError where there is
    no image; broken ones are found out when they are decoded.
    """
    if isinstance(images, Source):
        return images
    if isinstance(images, str | os.PathLike):
        return _on_disk(Path(images))
    if isinstance(images, list | tuple) and images and all(isinstance(path, str | os.PathLike) for path in images):
        files = find_images(images)
        return Files(".", map(os.fsencode, files), None, [], counted(len(files), "image"))
    if hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        if not len(images):
            raise ImageError("no image given; name at least one image file")
        return Items(images)
    raise UsageError(
        f"images: {type(images).__name__} is no data set; give a folder, a file of paths, a list of paths, or an "
        "object with __len__ and __getitem__"
    )


def _on_disk(path: Path) -> Source:
    if not path.exists():
        raise ImageError(f"{path}: no such folder or file; check the path")
    idx = find_idx(path)
    if idx:
        return Idx(*idx[0])
    if not path.is_dir():
        named = image_named(path.name.lstrip("."))  # a hidden one, too, if it is named
        return Files(str(path.parent), [os.fsencode(path.name)], None, [], str(path)) if named else _listed(path)
    if is_split(path) and not any(image_named(file.name) for file in path.iterdir()):
        raise ImageError(f"{path}: is split into train and val; give one of them, such as {path / 'val'}")
    paths, labels, classes = scan(path)
    if not paths:
        raise ImageError(f"{path}: no image in this folder nor below it; name one that holds some")
    return Files(str(path), paths, labels if classes else None, classes, str(path))


def _listed(path: Path) -> Files:
    """The paths of a text file, below its folder."""
    raw = path.read_bytes()
    if b"\0" in raw[:4096]:
        raise ImageError(f"{path}: is neither an image nor a text file of paths; give one of them or a folder")
    lines = [line for line in raw.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    if not lines:
        raise ImageError(f"{path}: names no image; write one path a line")
    paths, _, labels = zip(*(map(bytes.strip, line.partition(b"\t")) for line in lines), strict=True)
    names = sorted(set(labels) - {b""}, key=natural)
    index = {name: number for number, name in enumerate(names)}
    numbers = [index.get(label, -1) for label in labels] if names else None
    return Files(str(path.parent), paths, numbers, [name.decode("utf-8", "replace") for name in names], str(path))
