"""Where the images of a survey come from: a folder, a list of paths, a data set object or idx files.

A number names an image for good: the order depends on the names alone, not on the file system. Millions of paths are
kept as one run of bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from layerscope.errors import ImageError, UsageError
from layerscope.images import find_images, idx_pairs, image_named, open_image, read_idx
from layerscope.surveying.items import Items
from layerscope.text import counted

__all__ = ["Files", "Idx", "Source", "natural", "open_source"]

Labels = NDArray[np.int32]

_DIGITS = re.compile(rb"\d+")
_IDX = re.compile(r"(.*)images[-.]idx3-ubyte(\.gz)?")


class Source(Protocol):
    """Images by number, 0 to len - 1. `threads`: how many may be asked for at once."""

    classes: list[str]
    subject: str
    threads: int

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """What a person would find the image by."""

    def label(self, number: int) -> int | None:
        """Index into `classes`."""

    def item(self, number: int) -> tuple[Any, int | None]:
        """The image, or a tensor (C, H, W) that is preprocessed already, and its label. Raises ImageError."""

    def image(self, number: int) -> Image.Image:
        """The image, before any preprocessing. Raises ImageError."""

    def fingerprint(self) -> str:
        """A digest that differs when names, sizes or labels do."""


def natural(name: bytes) -> tuple[bytes, bytes]:
    """Sorts image2 before image10."""
    return _DIGITS.sub(lambda run: run[0].lstrip(b"0").rjust(20, b"0"), name), name


class Files:
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

    def _path(self, number: int) -> bytes:
        return self._blob[self._ends[number] : self._ends[number + 1]]

    def name(self, number: int) -> str:
        return self._path(number).decode("utf-8", "replace")

    def label(self, number: int) -> int | None:
        found = -1 if self._labels is None else int(self._labels[number])
        return None if found < 0 else found

    def item(self, number: int) -> tuple[Any, int | None]:
        return self.image(number), self.label(number)

    def image(self, number: int) -> Image.Image:
        return open_image(os.fsdecode(os.path.join(self.root, self._path(number))))  # noqa: PTH118 - bytes

    def fingerprint(self) -> str:
        sizes = np.empty(len(self), np.int64)
        for number in range(len(self)):
            try:
                sizes[number] = os.stat(os.path.join(self.root, self._path(number))).st_size  # noqa: PTH116, PTH118
            except OSError:
                sizes[number] = -1
        return _digest(self._blob, self._ends, sizes, self._labels, self.classes)


class Idx:
    """The pictures of an idx file, with the labels of the file beside it."""

    threads = 1

    def __init__(self, images: Path, labels: Path | None) -> None:
        self._files = images, labels
        if labels:
            self.classes, self._pictures, targets = idx_pairs(images, labels)
            self._labels: NDArray[np.int64] | None = targets
        else:
            self.classes, self._pictures, self._labels = [], read_idx(images), None
        if self._pictures.ndim != 3:
            raise ImageError(f"{images}: holds no pictures but {self._pictures.shape}; give an images-idx3 file")
        self.subject = str(images)

    def __reduce__(self) -> tuple[Any, ...]:  # other processes read the file themselves
        images, labels = self._files
        return Idx, (images.absolute(), labels and labels.absolute())

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, number: int) -> str:
        return f"image {number}"

    def label(self, number: int) -> int | None:
        return None if self._labels is None else int(self._labels[number])

    def item(self, number: int) -> tuple[Any, int | None]:
        return self.image(number), self.label(number)

    def image(self, number: int) -> Image.Image:
        return Image.fromarray(self._pictures[number])

    def fingerprint(self) -> str:
        return _digest(self._pictures, self._labels, self.classes)


def _digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.shape, part.dtype.str)).encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(part if isinstance(part, bytes) else repr(part).encode())
    return digest.hexdigest()


def open_source(images: Any) -> Source:
    """A folder with a folder of images for every class, a flat folder, idx files, a text file with a path a line
    (then perhaps a tab and a label), a list of paths, or a data set object that gives images or (image, label).

    Files of a folder are in natural order, those of a list in its own. Raises ImageError or UsageError where there is
    no image; broken ones are found out when they are decoded.
    """
    if isinstance(images, Files | Idx | Items):
        return images
    if isinstance(images, str | os.PathLike):
        return _on_disk(Path(images))
    if isinstance(images, list | tuple) and images and all(isinstance(one, str | os.PathLike) for one in images):
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
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        raise ImageError(f"{path}: no such folder or file; check the path")
    if _IDX.fullmatch(path.name):
        return _idx_file(path)
    if image_named(path.name.lstrip(".")):  # a hidden one, too, if it is named
        return Files(str(path.parent), [os.fsencode(path.name)], None, [], str(path))
    return _listed(path)


def _idx_file(path: Path) -> Idx:
    match = _IDX.fullmatch(path.name)
    assert match
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    found = [file for file in (beside, beside.with_name(f"{beside.name}.gz"), beside.with_suffix("")) if file.is_file()]
    return Idx(path, found[0] if found else None)


def _in_folder(folder: Path) -> Source:
    idx = sorted((entry for entry in folder.iterdir() if _IDX.fullmatch(entry.name)), key=lambda file: file.name)
    if idx:  # the training files before t10k's, as `train` takes them
        return _idx_file(next((file for file in idx if file.name.startswith("train")), idx[0]))
    root = os.fsencode(folder)
    top, folders = _inside(root)
    if not top and {b"train", b"val"} <= set(folders):
        raise ImageError(f"{folder}: is split into train and val; give one of them, such as {folder / 'val'}")
    paths, labels = list(top), [-1] * len(top)
    classes: list[str] = []
    for name in folders:
        found = list(_below(root, name, set()))
        if found:
            labels += [len(classes)] * len(found)
            classes.append(name.decode("utf-8", "replace"))
            paths += found
    if not paths:
        raise ImageError(f"{folder}: no image in this folder nor below it; name one that holds some")
    return Files(str(folder), paths, labels if classes else None, classes, str(folder))


def _inside(folder: bytes) -> tuple[list[bytes], list[bytes]]:
    """Names of the images and of the folders in a folder, each in natural order; hidden ones are left out."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            # Neither asks the file system again, links apart: it has said so while it listed them.
            if image_named(os.fsdecode(entry.name)) and not entry.is_dir():
                files.append(entry.name)
            elif entry.is_dir() and not entry.name.startswith(b"."):
                folders.append(entry.name)
    return sorted(files, key=natural), sorted(folders, key=natural)


def _below(root: bytes, name: bytes, passed: set[tuple[int, int]]) -> Iterator[bytes]:
    """Images in a folder and below it; a link that leads back to a folder above is not followed."""
    status = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118 - bytes
    here = status.st_dev, status.st_ino
    if here in passed:
        return
    files, folders = _inside(os.path.join(root, name))  # noqa: PTH118 - bytes
    yield from (name + b"/" + file for file in files)
    for folder in folders:
        yield from _below(root, name + b"/" + folder, passed | {here})


def _listed(path: Path) -> Files:
    """The paths of a text file, below its folder."""
    raw = path.read_bytes()
    if b"\0" in raw[:4096]:
        raise ImageError(f"{path}: is neither an image nor a text file of paths; give one of them or a folder")
    lines = [line for line in raw.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    if not lines:
        raise ImageError(f"{path}: names no image; write one path a line")
    parts = [line.partition(b"\t") for line in lines]
    given = [label.strip() for _, _, label in parts]
    names = sorted(set(given) - {b""}, key=natural)
    index = {name: number for number, name in enumerate(names)}
    labels = [index.get(label, -1) for label in given] if names else None
    classes = [name.decode("utf-8", "replace") for name in names]
    return Files(str(path.parent), (one.strip() for one, _, _ in parts), labels, classes, str(path))
