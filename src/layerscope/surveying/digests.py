"""What the bits of a survey depend on, as digests that are compared before one survey goes on with another's result."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["digest", "processor", "weights_of"]


def digest(values: Iterable[Any]) -> str:
    """SHA-256 over plain data, one value after the other and however large: numbers, text, bytes, arrays, tensors,
    and sequences, mappings and dataclasses of them."""
    whole = hashlib.sha256()
    for value in values:
        whole.update(repr(_plain(value)).encode())
    return whole.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        bits = None if value.is_meta else value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return str(value.dtype), tuple(value.shape), _plain(bits)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, [(field.name, _plain(getattr(value, field.name))) for field in fields(value)]
    if isinstance(value, Mapping):
        return [(str(key), _plain(inner)) for key, inner in value.items()]
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else repr(value)


def weights_of(state: Mapping[str, Any]) -> str:
    """A digest over names, types, shapes and values of a state dict."""
    return digest(item for item in state.items() if isinstance(item[1], Tensor))


@cache
def processor() -> str:
    """What the bits of a pass depend on beside network and image: the processor and its instruction set."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"
