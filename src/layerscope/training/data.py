"""What is trained on: a folder of images by class, or the idx files of MNIST and its kin, split by seed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from layerscope.errors import ImageError
from layerscope.images.files import find_idx, idx_pairs, is_split, open_image, scan
from layerscope.images.preprocessing import Preprocessing
from layerscope.progress import Progress, quiet

__all__ = ["Examples", "ahead", "batches", "find_examples"]

Ints = NDArray[np.int64]


@dataclass
class Examples:
    """Labelled pictures, and which of them are learned from and which are held out.

    `sources` are paths, or pictures uint8 (N, h, w); `targets` (N,) are indices into `classes`; `train` and
    `held_out` are indices into `sources` without one in common. `broken` are the images that could not be
    read and are left out.
    """

    classes: list[str]
    sources: Sequence[Path] | NDArray[np.uint8]
    targets: Ints
    train: Ints
    held_out: Ints
    broken: list[Path] = field(default_factory=list)

    def picture(self, index: int) -> Image.Image:
        """The picture as it is stored, before any preprocessing. Raises ImageError."""
        source = self.sources[index]
        return open_image(source) if isinstance(source, Path) else Image.fromarray(source)

    def name(self, index: int) -> str:
        """What a person would find the picture by: its file name, or its place in the idx file."""
        source = self.sources[index]
        return source.name if isinstance(source, Path) else f"image {index}"


def find_examples(folder: Path, seed: int, share: float, most: int | None, progress: Progress = quiet) -> Examples:
    """Look for classes in a folder, choose at most `most` images evenly over the classes, and hold out a
    share of each.

    A folder with `train` and `val` folders is split already. The choice depends on the seed and the names of
    the files alone. Every chosen image of a folder is read once, so that broken ones are known before the
    first step. Raises ImageError for a folder without images, and for fewer than two classes.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder; give one with a folder of images for every class")
    for images, labels in find_idx(folder):
        if labels and images.name.startswith("train"):
            classes, pictures, targets = idx_pairs(images, labels)
            return _split(_enough(folder, classes, targets), pictures, targets, seed, share, most)
    if is_split(folder):
        return _presplit(folder, seed, share, most, progress)
    classes, paths, targets = _by_class(folder)
    chosen = _first(targets, _rank(targets, seed), most)
    paths, targets = [paths[i] for i in chosen], targets[chosen]
    good = _readable(paths, progress)
    broken = [path for path, fine in zip(paths, good, strict=True) if not fine]
    paths, targets = [path for path, fine in zip(paths, good, strict=True) if fine], targets[good]
    examples = _split(_enough(folder, classes, targets), paths, targets, seed, share, None)
    examples.broken = broken
    return examples


def _by_class(folder: Path, classes: list[str] | None = None) -> tuple[list[str], list[Path], Ints]:
    """Classes, image files and the class of each: the classes are the folders that hold an image, by name."""
    paths, labels, found = scan(folder)
    # Plainly by name, as torchvision's ImageFolder has it: the same seed holds out the same images as ever.
    files = sorted(
        (found[label], folder / os.fsdecode(path)) for path, label in zip(paths, labels, strict=True) if label >= 0
    )
    names = list(dict.fromkeys(name for name, _ in files))
    unknown = [name for name in names if classes is not None and name not in classes]
    if unknown:
        raise ImageError(f"{folder}: class {unknown[0]!r} is not among those to train on ({', '.join(classes or [])})")
    if not files:
        raise ImageError(f"{folder}: no images in folders here; make one folder of images for every class")
    classes = classes or names
    index = {name: number for number, name in enumerate(classes)}
    return classes, [path for _, path in files], np.array([index[name] for name, _ in files], np.int64)


def _enough(folder: Path, classes: list[str], targets: Ints) -> list[str]:
    present = np.unique(targets)
    if len(present) < 2:
        which = f"only {classes[present[0]]!r}" if len(present) else "none"
        raise ImageError(f"{folder}: two classes or more are needed, and there is {which} with images that can be read")
    return classes


def _rank(targets: Ints, seed: int) -> Ints:
    """A random order within each class: 0 for the first of its class, 1 for the second, ..."""
    order = np.random.default_rng(seed).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]  # class by class
    counts = np.bincount(targets)
    rank = np.empty(len(targets), np.int64)
    rank[order] = np.concatenate([np.arange(count) for count in counts])
    return rank


def _first(targets: Ints, rank: Ints, most: int | None) -> Ints:
    """Indices, ascending, of `most` images: the first of every class, then the second of every class, ..."""
    return np.sort(np.lexsort((targets, rank))[:most])


def _split(
    classes: list[str],
    sources: Sequence[Path] | NDArray[np.uint8],
    targets: Ints,
    seed: int,
    share: float,
    most: int | None,
) -> Examples:
    """Hold out the same share of every class, one image of it at least, and learn from one at least."""
    rank = _rank(targets, seed)
    chosen = _first(targets, rank, most)
    counts = np.bincount(targets[chosen])
    held = np.clip(np.rint(counts * share), 1, np.maximum(counts - 1, 0))
    out = rank[chosen] < held[targets[chosen]]
    if not out.any():
        raise ImageError("every class has a single image: none can be held out; add images")
    return Examples(classes, sources, targets, chosen[~out], chosen[out])


def _presplit(folder: Path, seed: int, share: float, most: int | None, progress: Progress) -> Examples:
    """`train` and `val` as they are; of `most` images the share comes from `val`."""
    held = None if most is None else max(1, round(most * share))
    classes, paths, targets = _by_class(folder / "train")
    _, others, answers = _by_class(folder / "val", classes)
    chosen = _first(targets, _rank(targets, seed), None if most is None or held is None else most - held)
    taken = _first(answers, _rank(answers, seed), held)
    sources = [paths[i] for i in chosen] + [others[i] for i in taken]
    both = np.concatenate([targets[chosen], answers[taken]])
    good = _readable(sources, progress)
    train, held_out = np.arange(len(chosen)), np.arange(len(chosen), len(sources))
    train, held_out = train[good[train]], held_out[good[held_out]]
    if not len(held_out):
        raise ImageError(f"{folder / 'val'}: none of its images can be read; save them again")
    _enough(folder, classes, both[train])
    return Examples(classes, sources, both, train, held_out, [sources[i] for i in np.flatnonzero(~good)])


def _readable(paths: Sequence[Path], progress: Progress) -> NDArray[np.bool_]:
    """Which of the files are whole images, (N,)."""

    def whole(path: Path) -> bool:
        try:
            open_image(path)
        except ImageError:
            return False
        return True

    good = np.zeros(len(paths), bool)
    with ThreadPoolExecutor(2) as pool:  # Pillow decodes without the interpreter's lock
        try:
            for at, fine in enumerate(pool.map(whole, paths)):
                good[at] = fine
                progress(at + 1, len(paths), "reading the images")
        finally:
            pool.shutdown(cancel_futures=True)
    return good


def batches(
    examples: Examples, indices: Ints, preprocessing: Preprocessing, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Preprocessed images (B, C, H, W) and their classes (B,), in the order of the indices.

    Batches have about the same length, `size` at most: batch norm has no variance of a last batch of one.
    Raises ImageError if the images differ in size after preprocessing.
    """
    for part in np.array_split(indices, math.ceil(len(indices) / size)):
        images = [preprocessing(examples.picture(index)) for index in part]
        if len({image.shape for image in images}) > 1:
            raise ImageError("the images differ in size after preprocessing; set one with --size")
        yield torch.stack(images), torch.from_numpy(examples.targets[part])


def ahead(items: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The same items in the same order, the next one made in a thread while this one is worked with."""
    source = iter(items)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, source, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, source, None)
            yield item
