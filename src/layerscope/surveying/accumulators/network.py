"""What is kept of a whole network over some images, and its bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import RecordError
from layerscope.surveying.accumulators.layer import LayerAccumulator
from layerscope.surveying.accumulators.part import Array, Get
from layerscope.surveying.accumulators.similarity import LayerSimilarity

__all__ = ["NetworkAccumulator"]

Ints = NDArray[np.int64]

#: name of the one entry of the bytes' metadata: several would be written in no fixed order
_NAME = "layerscope-survey"
_SCHEMA = 2
_TYPES = {"I64": "<i8", "I32": "<i4", "F64": "<f8", "F32": "<f4", "U8": "u1", "U16": "<u2", "U32": "<u4", "I16": "<i2"}


@dataclass
class NetworkAccumulator:
    """What is known of the layers over `images` images; without any it changes nothing that it is merged into.

    classes: number of classes, 0 without labels; counts int64 (classes,): images of each. layers: by the key of the
    site, in the order of the pass.

    Bytes a channel: 336 for the sums, 56 for counts and ends, at most 90 an example, 2 or 4 a bin between the least and
    the greatest that was met (at most 1022; 300 to 600 are usual), 8 a channel of the same layer for products, 4 or 8 a
    class.
    """

    images: int = 0
    classes: int = 0
    layers: dict[str, LayerAccumulator] = field(default_factory=dict)
    counts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    similarity: LayerSimilarity | None = None

    def __iter__(self) -> Iterator[LayerAccumulator]:
        return iter(self.layers.values())

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self._arrays().values())

    def merge(self, other: NetworkAccumulator) -> None:
        """Add what is known of other images. Raises RecordError and changes nothing if it does not fit."""
        if self.images and other.images and self.classes != other.classes:
            raise RecordError(f"{self.classes} and {other.classes} classes do not merge; use one list of labels")
        for key, layer in other.layers.items():
            if key in self.layers:
                self.layers[key].fits(layer)
        if self.similarity and other.similarity and self.similarity.keys != other.similarity.keys:
            raise RecordError("similarities of different layers do not merge; survey the same layers")
        # It fits. One layer after the other, so that no second copy of all is held.
        for key, layer in other.layers.items():
            self.layers[key] = self.layers[key].merge(layer) if key in self.layers else layer
        self.layers = dict(sorted(self.layers.items(), key=lambda pair: (pair[1].rank, pair[0])))
        both = self.similarity and other.similarity and self.similarity.merge(other.similarity)
        self.similarity = both or self.similarity or other.similarity
        short, long = sorted((self.counts, other.counts), key=len)
        self.counts = short + long if len(short) == len(long) else long
        self.classes = max(self.classes, other.classes)
        self.images += other.images

    def _arrays(self) -> dict[str, Array]:
        arrays = {"counts": self.counts}
        for number, layer in enumerate(self):
            arrays |= {f"{number}.{name}": array for name, array in layer.arrays().items()}
        return arrays | (self.similarity.arrays() if self.similarity else {})

    def pack(self) -> bytes:
        """As bytes, a safetensors file; equal ones give equal bytes."""
        from safetensors.numpy import save

        header = {
            "schema": _SCHEMA,
            "images": self.images,
            "classes": self.classes,
            "layers": [layer.header() for layer in self],
            "similarity": self.similarity.keys if self.similarity else None,
        }
        arrays = {name: np.asarray(array, order="C") for name, array in self._arrays().items()}
        return save(arrays, {_NAME: json.dumps(header, sort_keys=True)})

    @classmethod
    def unpack(cls, data: bytes) -> NetworkAccumulator:
        """The way back. Raises RecordError for bytes that contradict themselves: sizes have to fit what they say."""
        from safetensors import SafetensorError, deserialize

        try:
            length = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_NAME])
            if header["schema"] != _SCHEMA:
                raise RecordError(f"of version {header['schema']}, not {_SCHEMA}: use the layerscope that wrote it")
            return cls._restored(header, dict(deserialize(data)))  # type: ignore[no-untyped-call]
        except RecordError as error:
            raise RecordError(f"a damaged partial survey ({error}); survey its images again") from error
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            text = " ".join(str(error).split())[:200]
            raise RecordError(f"a damaged partial survey, or none ({text}); survey its images again") from error

    @classmethod
    def _restored(cls, header: dict[str, Any], tensors: dict[str, dict[str, Any]]) -> NetworkAccumulator:
        def get(name: str, types: tuple[Any, ...], shape: tuple[int | None, ...]) -> Array:
            stored = tensors[name]
            array = np.frombuffer(stored["data"], _TYPES[stored["dtype"]]).reshape(stored["shape"])
            fits = len(shape) == array.ndim and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
            if not fits or array.dtype not in [np.dtype(kind) for kind in types]:
                raise ValueError(f"{name} is {array.dtype}{array.shape}")
            return array

        def of(number: int) -> Get:
            return lambda name, types, shape: get(f"{number}.{name}", types, shape)

        images, classes = header["images"], header["classes"]
        if any(type(number) is not int or number < 0 for number in (images, classes)):
            raise ValueError(f"{images!r} images and {classes!r} classes")
        layers = [LayerAccumulator.restore(layer, of(number), classes) for number, layer in enumerate(header["layers"])]
        by_key = {layer.site.key: layer for layer in layers}
        if len(by_key) != len(layers):
            raise ValueError("a layer is listed twice")
        keys = header["similarity"]
        similarity = LayerSimilarity.restore(get, tuple(map(str, keys))) if keys else None
        return cls(images, classes, by_key, get("counts", (np.int64,), (classes,)), similarity)
