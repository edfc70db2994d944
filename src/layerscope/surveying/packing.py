"""A state as bytes and back: a digest and a safetensors file, whose arrays have to fit what the layers say.

The digest finds what was damaged on the way; it is no protection against forgery, and the sizes are checked all the
same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerscope.errors import RecordError
from layerscope.sites import Site
from layerscope.surveying.bins import Bins
from layerscope.surveying.exact import LIMBS
from layerscope.surveying.examples import Examples
from layerscope.surveying.pooled import Alike, Pooled
from layerscope.surveying.state import LayerState, State

__all__ = ["pack", "unpack"]

Array = NDArray[Any]

#: name of the one entry of the file's metadata: several would be written in no fixed order
_NAME = "layerscope-survey"
_SCHEMA = 1
_MAGIC = b"layerscope survey state\n"
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size


def pack(state: State) -> bytes:
    """See `State.pack`."""
    from safetensors.numpy import save

    tensors = {"counts": state.counts}
    for number, layer in enumerate(state):
        for name, array in layer.arrays().items():
            tensors[f"{number}.{name}"] = array
    if state.alike:
        tensors["alike"] = state.alike.limbs
    alike = {"keys": state.alike.keys, "minibatches": state.alike.minibatches} if state.alike else None
    body = {
        "schema": _SCHEMA,
        "images": state.images,
        "classes": state.classes,
        "layers": [_described(layer) for layer in state],
        "alike": alike,
    }
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    content = save(tensors, {_NAME: json.dumps(body, sort_keys=True)})
    return b"".join([_MAGIC, hashlib.sha256(content).digest(), content])


def _described(layer: LayerState) -> dict[str, Any]:
    return {
        "site": [layer.site.path, layer.site.call, layer.site.layout],
        "type": layer.type,
        "shape": layer.shape,
        "dtype": layer.dtype,
        "note": layer.note,
        "rank": layer.rank,
        "images": layer.images,
        "channels": layer.channels,
        "mixed": layer.mixed,
        "examples": {"top": layer.examples.top, "grid": layer.examples.grid} if layer.examples else None,
        "bins": {"first": layer.bins.first} if layer.bins else None,
        "pooled": {"images": layer.pooled.images, "gram": layer.pooled.gram is not None} if layer.pooled else None,
    }


def unpack(data: bytes) -> State:
    """See `State.unpack`."""
    from safetensors import SafetensorError, deserialize

    content = data[_HEAD:]
    if data[:_HEAD] != _MAGIC + hashlib.sha256(content).digest():
        raise RecordError(f"{len(data)} bytes that are no partial survey, or a damaged one; survey its images again")
    try:
        length = int.from_bytes(content[:8], "little")
        body = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_NAME])
        if body["schema"] > _SCHEMA:
            raise RecordError("a partial survey of a newer layerscope; update layerscope")
        tensors = {name: _array(one) for name, one in deserialize(content)}  # type: ignore[no-untyped-call]
        return _state(body, tensors)
    except RecordError as error:
        raise RecordError(f"a damaged partial survey ({error}); survey its images again") from error
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        said = " ".join(str(error).split())[:200]
        raise RecordError(f"a damaged partial survey, or none ({said}); survey its images again") from error


_TYPES = {"I64": "<i8", "I32": "<i4", "F64": "<f8", "F32": "<f4", "U8": "u1", "U16": "<u2", "U32": "<u4", "I16": "<i2"}


def _array(one: dict[str, Any]) -> Array:
    return np.frombuffer(one["data"], _TYPES[one["dtype"]]).reshape(one["shape"])


def _state(body: dict[str, Any], tensors: dict[str, Array]) -> State:
    def getter(number: str) -> Callable[..., Array]:
        def get(name: str, dtype: Any, shape: tuple[int | None, ...]) -> Array:
            """The array of that type, or one of these types, and shape; None stands for any size."""
            array = tensors[number + name]
            kinds = dtype if isinstance(dtype, tuple) else (dtype,)
            fits = len(shape) == array.ndim and all(s in (None, n) for s, n in zip(shape, array.shape, strict=True))
            if not fits or array.dtype not in [np.dtype(kind) for kind in kinds]:
                raise ValueError(f"{number}{name} is {array.dtype}{array.shape}")
            return array

        return get

    images, classes = _whole(body["images"]), _whole(body["classes"])
    layers = [_layer(one, getter(f"{number}."), classes) for number, one in enumerate(body["layers"])]
    state = State(images, classes, {layer.site.key: layer for layer in layers})
    if len(state.layers) != len(layers):
        raise ValueError("a layer is listed twice")
    state.counts = getter("")("counts", np.int64, (classes,))
    if body["alike"]:
        keys = tuple(map(str, body["alike"]["keys"]))
        limbs = getter("")("alike", np.int64, (len(keys), len(keys), 8))
        state.alike = Alike(keys, limbs, _whole(body["alike"]["minibatches"]))
    return state


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no number of things")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _layer(one: dict[str, Any], get: Callable[..., Array], classes: int) -> LayerState:
    path, call, layout = one["site"]
    channels = _whole(one["channels"])
    examples, bins, pooled = one["examples"], one["bins"], one["pooled"]
    height, width = map(_whole, examples["grid"]) if examples else (0, 0)
    return LayerState(
        site=Site(_text(path), _whole(call), _text(layout)),
        type=_text(one["type"]),
        shape=tuple(map(_whole, one["shape"])),
        dtype=_text(one["dtype"]),
        note=_text(one["note"]),
        rank=_whole(one["rank"]),
        images=_whole(one["images"]),
        ints=get("ints", np.int64, (5, channels)),
        ends=get("ends", np.float64, (2, channels)),
        sums=get("sums", np.int64, (channels, LIMBS)),
        mixed=bool(one["mixed"]),
        examples=Examples.restore(get, channels, _whole(examples["top"]), (height, width)) if examples else None,
        bins=Bins.restore(get, channels, _whole(bins["first"])) if bins else None,
        pooled=Pooled.restore(get, channels, _whole(pooled["images"]), bool(pooled["gram"]), classes)
        if pooled
        else None,
    )
