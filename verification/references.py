"""What every layer of a network gave, found without layerscope: a copy that writes into nothing, and plain hooks."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Outputs", "plain", "pure"]

_AUGMENTED = {
    "__iadd__": operator.add, "__isub__": operator.sub, "__imul__": operator.mul, "__itruediv__": operator.truediv,
}  # fmt: skip
_METHODS = ("add_", "sub_", "mul_", "div_", "relu_", "sigmoid_", "tanh_", "clamp_", "hardtanh_", "silu_", "leaky_relu_")


class _Pure(TorchFunctionMode):
    """In-place functions as their out-of-place siblings. Right where a network goes on with what they return."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in _AUGMENTED:
            return _AUGMENTED[name](*args)
        if name in _METHODS:
            sibling = getattr(Tensor, name[:-1], None) or getattr(nn.functional, name[:-1])
            return sibling(*args, **kwargs)
        if "inplace" in kwargs:
            kwargs["inplace"] = False
        return func(*args, **kwargs)


class Outputs:
    """References to what the layers gave, by path and call; `kept`: whether none was written to afterwards."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, int], Any] = {}
        self.versions: dict[tuple[str, int], list[int]] = {}
        self.calls: Counter[str] = Counter()
        self.last: Any = None

    def hook(self, path: str) -> Callable[..., None]:
        """A plain forward hook that keeps the output."""

        def keep(_module: nn.Module, _given: Any, output: Any) -> None:
            key = (path, self.calls[path])
            self.calls[path] += 1
            self.found[key] = _held(output)
            self.versions[key] = [tensor._version for tensor in tensors(output)]

        return keep

    def kept(self, key: tuple[str, int]) -> bool:
        """Whether no operation has written into the output since the hook saw it: torch counts the writes."""
        return self.versions[key] == [tensor._version for tensor in tensors(self.found[key])]


def _held(output: Any) -> Any:
    """The same tensors in containers of our own: Mask R-CNN puts other tensors into the dicts that it has returned."""
    if isinstance(output, dict):
        return {key: _held(value) for key, value in output.items()}
    return [_held(value) for value in output] if isinstance(output, list | tuple) else output


def tensors(output: Any) -> list[Tensor]:
    """The tensors of an output of tuples, lists and dicts, in their order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        return [one for value in output.values() for one in tensors(value)]
    if isinstance(output, list | tuple):
        return [one for value in output for one in tensors(value)]
    return [value for value in getattr(output, "__dict__", {}).values() if isinstance(value, Tensor)]


def plain(model: nn.Module, args: tuple[Any, ...]) -> Outputs:
    """One pass with a plain hook on every module: references, which later operations may have written into."""
    outputs = Outputs()
    handles = [module.register_forward_hook(outputs.hook(path)) for path, module in model.named_modules() if path]
    try:
        with torch.no_grad():
            outputs.last = model(*copy.deepcopy(args))
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def pure(model: nn.Module, args: tuple[Any, ...]) -> Outputs:
    """The same of a copy of the network without in-place operations."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False
    outputs = plain(twin, args)
    if all(map(outputs.kept, outputs.found)):
        return outputs
    # Only where it is needed: a fused attention steps back while somebody listens to functions, and rounds otherwise.
    with _Pure():
        return plain(twin, args)
