"""What a network is given: photos, tensors, or its own arguments. torch is imported when it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from layerscope.errors import ImageError, UsageError
from layerscope.records.record import Picture

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.networks.open import Network

__all__ = ["BATCH_SIZE", "batch_of", "passes_of", "run", "zeros"]

#: images a pass: enough for speed on a CPU, few enough for VGG's activations in the memory of a laptop
BATCH_SIZE = 16


def batch_of(network: Network, images: Any) -> tuple[Tensor, list[Picture]]:
    """Preprocessed images (B, C, H, W) and the pictures that the network sees; a tensor is taken as it is."""
    import torch

    from layerscope.images.files import find_images, open_image
    from layerscope.networks.foreign import home_of

    if isinstance(images, torch.Tensor):
        return (images[None] if images.dim() == 3 and network.takes != "series" else images), []
    paths = find_images([images] if isinstance(images, str | os.PathLike) else images)
    if not paths:
        raise ImageError("no image given; name at least one image file")
    opened = [open_image(path) for path in paths]
    seen = [network.preprocessing.picture(image).convert("RGB") for image in opened]
    tensors = [network.preprocessing(image) for image in opened]
    if len({tensor.shape for tensor in tensors}) > 1:
        raise ImageError("the images differ in size after preprocessing; set --size, or --resize and --crop")
    pictures = [Picture(path.name, np.asarray(image)) for path, image in zip(paths, seen, strict=True)]
    return torch.stack(tensors).to(home_of(network.model)[1]), pictures


def passes_of(network: Network, images: Any, most: int) -> tuple[list[Any], list[Picture], int | None]:
    """What each pass is given, the pictures, and the number of images; None where the inputs do not tell it.

    A tensor or photos are cut into batches of `most`. What a network is called with in another way is one pass: a list
    of tensors is one argument, a tuple several, a dict named ones.
    """
    import torch

    if isinstance(images, Iterator | Set):
        images = sorted(images) if isinstance(images, Set) else list(images)
    if isinstance(images, Mapping):  # what a tokenizer gives is no dict
        images = dict(images)
    if not isinstance(images, torch.Tensor | str | os.PathLike | list | tuple | dict):
        kind = type(images).__name__
        raise UsageError(f"images: {kind} is not taken; give a tensor (B, C, H, W), a path or a list of paths")
    photos = isinstance(images, torch.Tensor | str | os.PathLike) or all(map(_is_path, images))
    if isinstance(images, dict) or not photos:
        return [images], [], len(images) if isinstance(images, list) else None
    batch, pictures = batch_of(network, images)
    return [batch[at : at + most] for at in range(0, len(batch), most)], pictures, len(batch)


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def zeros(network: Network, shape: str | None = None) -> Tensor:
    """An input of zeros (1, C, H, W): of the shape `3x224x224` if one is given, else as the preprocessing makes it."""
    import torch

    from layerscope.networks.foreign import home_of

    dtype = home_of(network.model)[1]
    if shape is None:
        return torch.zeros(1, len(network.preprocessing.mean), *network.preprocessing.size, dtype=dtype)
    sizes = shape.lower().split("x")
    if not all(size.isdecimal() and 0 < int(size) <= 65536 for size in sizes):
        raise UsageError(f"--input {shape}: is no shape; write channels x height x width, such as 3x224x224")
    return torch.zeros(1, *map(int, sizes), dtype=dtype)


def run(network: Network, given: Any) -> Any:
    """One forward pass. Raises ForwardError, which names the network, the input and what was said.

    `given`: images (B, C, H, W), handed on as the network takes them; or a list, which is one argument, a tuple of
    arguments, or a dict of named ones. The network works on copies, on its own device: it may write into its input.
    """
    import torch

    from layerscope.activations.hooks import call
    from layerscope.activations.modules import copied
    from layerscope.networks.foreign import fed, home_of

    ours = copied(given, home_of(network.model)[0])
    ours = fed(ours, network.takes) if isinstance(ours, torch.Tensor) else ours
    return call(network.model, ours, network.name, given)
