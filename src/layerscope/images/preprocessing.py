"""From an image to the tensor that a network expects."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from layerscope.errors import UsageError

__all__ = ["CLIPS", "HALF", "IMAGENET", "PIXELS", "Preprocessing"]

_FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic")}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop, scale to 0..1, subtract the mean, divide by the standard deviation.

    `resize` is the shorter side in pixels, or (height, width) exactly, or None. `crop` is (height, width) or None.
    `mean` and `std` have one value a channel: three for RGB, one for gray.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    def picture(self, image: Image.Image) -> Image.Image:
        """The image as the network sees it before it is scaled: resized, cropped, RGB or gray."""
        image = image.convert("L" if len(self.mean) == 1 else "RGB")
        width, height = image.size
        if isinstance(self.resize, int):
            # torchvision truncates the longer side; rounding would differ from its transforms by a column.
            short = min(width, height)
            size = (int(self.resize * width / short), int(self.resize * height / short))
        elif self.resize:
            size = (self.resize[1], self.resize[0])
        else:
            size = image.size
        if size != image.size:
            image = image.resize(size, _FILTERS[self.interpolation])
        if not self.crop:
            return image
        height, width = self.crop
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))  # beyond the edge Pillow gives black, as torchvision

    def __call__(self, image: Image.Image) -> Tensor:
        """float32 (C, H, W)"""
        pixels = np.asarray(self.picture(image), np.float32) / np.float32(255)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels  # (H, W, C)
        tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())  # (C, H, W)
        mean, std = torch.tensor(self.mean).view(-1, 1, 1), torch.tensor(self.std).view(-1, 1, 1)
        return tensor.sub_(mean).div_(std)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what the network sees; 224 x 224 where the image decides."""
        if self.crop:
            return self.crop
        if isinstance(self.resize, tuple):
            return self.resize
        return (self.resize, self.resize) if self.resize else (224, 224)

    def __str__(self) -> str:
        def pair(size: int | tuple[int, int]) -> str:
            return str(size) if isinstance(size, int) else f"{size[0]} x {size[1]}"

        steps = []
        if self.resize:
            steps.append(f"resize {pair(self.resize)} ({self.interpolation})")
        if self.crop:
            steps.append(f"centre crop {pair(self.crop)}")
        numbers = [", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std)]
        return "; ".join([*steps, f"mean {numbers[0]}", f"std {numbers[1]}"])

    def changed(self, size: Any, resize: Any, crop: Any, mean: Any, std: Any) -> Preprocessing:
        """With what the user set; None leaves a step as it is, "none" drops it. `size` is exact, without a crop."""

        def square(given: Any) -> Any:
            return (given, given) if isinstance(given, int) else given

        new = self
        if size:
            new = replace(new, resize=None if size == "none" else square(size), crop=None)
        if resize:
            new = replace(new, resize=None if resize == "none" else resize)
        if crop:
            new = replace(new, crop=None if crop == "none" else square(crop))
        new = replace(new, mean=mean or new.mean, std=std or new.std)
        if len(new.mean) != len(new.std):
            raise UsageError(f"mean has {len(new.mean)} values, std {len(new.std)}; give as many of each")
        if 0 in new.std:
            raise UsageError("std 0 would divide by zero; give values above 0")
        return new

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` takes back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Preprocessing:
        """Raises TypeError or ValueError for what `to_json` cannot have written."""
        resize, crop = data["resize"], data["crop"]
        return cls(
            resize=tuple(map(int, resize)) if isinstance(resize, list | tuple) else resize,  # type: ignore[arg-type]
            crop=tuple(map(int, crop)) if crop else None,  # type: ignore[arg-type]
            mean=tuple(map(float, data["mean"])),
            std=tuple(map(float, data["std"])),
            interpolation=data.get("interpolation", "bilinear"),
        )


#: the tutorial's AlexNet
HALF = Preprocessing((224, 224), None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
#: torchvision's ResNets and most others trained on ImageNet
IMAGENET = Preprocessing(256, (224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: torchvision's detection networks: they scale and normalise by themselves
PIXELS = Preprocessing(None, None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
#: torchvision's video networks, trained on Kinetics
CLIPS = Preprocessing((128, 171), (112, 112), (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
