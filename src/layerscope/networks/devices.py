"""Where a network runs: a device by its name, and a network there for a while without a change to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from layerscope.errors import DeviceError, UsageError

__all__ = ["Device", "described", "device_named", "placed"]

#: what a caller may give for `device=`
Device = str | torch.device | None

#: what `auto` tries, in this order, before the CPU
_ACCELERATORS = ("cuda", "mps")
_NAMES = "give cpu, cuda, cuda:1, mps or auto"


def device_named(device: Device) -> torch.device | None:
    """The device of that name; None, where a network stays where it is, for None.

    `device`: "cpu", "cuda", "cuda:1", "mps" or any other that torch knows, a torch.device, or "auto": a CUDA or MPS
    device if one computes, else the CPU.
    Raises UsageError for what names no device, DeviceError for a device that is not there or does not compute.
    """
    if device is None:
        return None
    if device == "auto":
        return next(
            (torch.device(kind) for kind in _ACCELERATORS if not _fault(torch.device(kind))), torch.device("cpu")
        )
    try:
        named = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"device {device!r}: torch knows none of that name; {_NAMES}") from error
    if named.type == "meta":
        raise UsageError(f"device 'meta': holds no values to look at; {_NAMES}")
    fault = _fault(named)
    if fault:
        raise DeviceError(f"device {named}: {fault}; give cpu, auto, or none to stay where the network is")
    return named


def _fault(device: torch.device) -> str:
    """Why a device can't be used; "" if it computes. A driver that is there may still not fit this torch."""
    if device.type == "cpu":
        return ""
    count = torch.cuda.device_count() if device.type == "cuda" else None
    if count is not None and (device.index or 0) >= count:
        there = ", ".join(f"cuda:{index}" for index in range(count)) or "no CUDA device"
        return f"torch {torch.__version__} finds {there} on this machine"
    try:
        image = torch.ones(1, 1, 2, 2, device=device)
        torch.nn.functional.conv2d(image, image).sum().item()
    except (RuntimeError, ImportError, NotImplementedError, AssertionError) as error:  # torch without that backend
        return f"does not compute with torch {torch.__version__} ({' '.join(str(error).split())[:120]})"
    return ""


def described(device: torch.device) -> str:
    """The device as people know it: `cuda:0 (NVIDIA H200)`."""
    if device.type != "cuda":
        return str(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{index} ({torch.cuda.get_device_name(index)})"


@contextmanager
def placed(model: nn.Module, device: torch.device | None) -> Iterator[None]:
    """The network's parameters and buffers on `device` while the block runs; the same tensors as before afterwards.

    Not `model.to`: it writes into the parameters, and what is kept elsewhere of them (an optimizer, a view) would
    follow, or not. What forward assigns to a buffer of its own inside the block is lost with the block.
    """
    moved: dict[int, Tensor] = {}
    before: list[tuple[nn.Module, str, Tensor]] = []
    try:
        for module in model.modules() if device is not None else ():
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is None or tensor.is_meta or _is_on(tensor, device):
                    continue
                if id(tensor) not in moved:  # tied tensors stay tied
                    there = tensor.detach().to(device)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    moved[id(tensor)] = nn.Parameter(there, tensor.requires_grad) if is_parameter else there
                before.append((module, name, tensor))
                setattr(module, name, moved[id(tensor)])  # not the table: an LSTM keeps a second list of its weights
        yield
    finally:
        for module, name, tensor in before:
            setattr(module, name, tensor)


def _is_on(tensor: Tensor, device: torch.device | None) -> bool:
    return device is not None and tensor.device.type == device.type and device.index in (None, tensor.device.index)
