"""TorchScript as a tree of ordinary modules, so that hooks see its layers.

Inside of a scripted or traced network hooks do not fire: its modules are called by torch's interpreter. A mirror has
one module for each of them, with the same names, parameters and types, and runs its graph node by node; a module
without children is called as it is. A module whose graph has a node that is not known here is called as a whole, and
a note says that its inside cannot be seen. No code of the file is run as Python.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerscope.text import some

__all__ = ["Mirror", "mirror"]


def _size(tensor: Tensor, axis: int | None = None) -> Any:
    return list(tensor.shape) if axis is None else tensor.shape[axis]


#: on numbers and lists the functions of torch's interpreter are Python's
_PLAIN: dict[str, Callable[..., Any]] = {
    "aten::add": operator.add, "aten::sub": operator.sub, "aten::mul": operator.mul, "aten::div": operator.truediv,
    "aten::floordiv": operator.floordiv, "aten::remainder": operator.mod, "aten::neg": operator.neg,
    "aten::eq": operator.eq, "aten::ne": operator.ne, "aten::lt": operator.lt, "aten::le": operator.le,
    "aten::gt": operator.gt, "aten::ge": operator.ge, "aten::__and__": operator.and_, "aten::__or__": operator.or_,
    "aten::floor": math.floor, "aten::ceil": math.ceil, "aten::sqrt": math.sqrt,
}  # fmt: skip
_BUILT_IN: dict[str, Callable[..., Any]] = {
    "aten::__getitem__": operator.getitem, "aten::__is__": operator.is_, "aten::__isnot__": operator.is_not,
    "aten::__not__": operator.not_, "aten::__contains__": operator.contains, "aten::len": len,
    "aten::append": list.append, "aten::list": list, "aten::size": _size, "aten::format": str.format,
    "aten::Int": int, "aten::IntImplicit": int, "aten::Float": float, "aten::FloatImplicit": float,
    "aten::Bool": bool, "aten::ScalarImplicit": lambda tensor: tensor.item(), "aten::warn": lambda *_: None,
    "aten::keys": lambda table: list(table), "aten::values": lambda table: list(table.values()),
    "aten::items": lambda table: list(table.items()), "prim::NumToTensor": torch.tensor, "prim::min": min,
    "prim::max": max, "prim::unchecked_cast": lambda value: value, "prim::Uninitialized": lambda: None,
    "prim::unchecked_unwrap_optional": lambda value: value, "aten::_unwrap_optional": lambda value: value,
    "prim::ListConstruct": lambda *values: list(values), "prim::TupleConstruct": lambda *values: values,
    "prim::DictConstruct": lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
    "prim::ListUnpack": tuple, "prim::TupleUnpack": tuple, "prim::TupleIndex": operator.getitem,
    "prim::device": lambda tensor: tensor.device,
}  # fmt: skip
_CONTROL = {"prim::Constant", "prim::GetAttr", "prim::CallMethod", "prim::CallFunction", "prim::If", "prim::Loop"}
_FUNCTIONS = "__torch__.torch.nn.functional."


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


@cache
def _operation(schema: str) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """The function of torch with this schema, and its arguments that only have a name ("" for the others)."""
    parsed = torch._C.parse_schema(schema)
    space, _, name = parsed.name.partition("::")
    packet = getattr(getattr(torch.ops, space), name)
    names = tuple(argument.name if argument.kwarg_only else "" for argument in parsed.arguments)
    return getattr(packet, parsed.overload_name or "default"), names


def _is_forward(method: str) -> bool:
    """Whether calling it is calling the module: forward, forward1 (a second trace), forward__0 (an overload)."""
    return method.rstrip("0123456789").rstrip("_") == "forward"


def _scripted(script: torch.jit.ScriptModule, call: Any) -> bool:
    """Whether a child that is called was scripted: a trace has no calls of functions."""
    child = getattr(script, call.inputsAt(0).node().s("name"))
    return any(node.kind() == "prim::CallFunction" for node in _nodes(child._c._get_method("forward").graph))


def _known(script: torch.jit.ScriptModule, method: str) -> bool:
    """Whether every node of the method is known here, without running it."""
    try:
        graph = script._c._get_method(method).graph
        own = next(graph.inputs()).debugName()
        for node in _nodes(graph):
            kind = node.kind()
            if kind == "prim::CallFunction":
                name = str(node.inputsAt(0).type()).removeprefix(_FUNCTIONS)
                if not hasattr(F, name):
                    return False
            elif kind == "prim::CallMethod":
                name, owner = node.s("name"), node.inputsAt(0).debugName()
                if ".MultiheadAttention" in str(node.inputsAt(0).type()) and _scripted(script, node):
                    return False  # its fast path returns an undefined tensor, which Python cannot hold
                if not _is_forward(name) and (owner != own or not _known(script, name)):
                    return False
            elif kind not in _CONTROL and kind not in _BUILT_IN and kind != "prim::RaiseException":
                _operation(node.schema())
    except (RuntimeError, AttributeError):
        return False
    return True


class Mirror(nn.Module):
    """One module of TorchScript; see `mirror`."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.training = getattr(script, "training", False)  # a frozen one has no mode
        self._script = (script,)  # not a child: its modules are mirrored
        for name, parameter in script.named_parameters(recurse=False):
            self._parameters[name] = parameter
        for name, buffer in script.named_buffers(recurse=False):
            self._buffers[name] = buffer
        for name, child in script.named_children():
            self.add_module(name, _mirror(child))
        methods = filter(_is_forward, script._c._method_names()) if self._modules else ()
        self._open = {method: _known(script, method) for method in methods}
        self._method = "forward"

    @property
    def training(self) -> bool:
        """The mode of the mirrored module too: its graph asks for it."""
        return self.__dict__["_mode"]

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__["_mode"] = mode
        for script in self.__dict__.get("_script", ()):
            script.training = mode

    @property
    def hides_inside(self) -> bool:
        """Whether there are modules inside that cannot be seen: the module is called as a whole."""
        return not all(self._open.values())

    def called(self, method: str, args: Sequence[Any]) -> Any:
        """Call the module through one of its forward methods: hooks fire."""
        self._method = method
        return self(*args)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the script gives; the children's hooks fire."""
        script, method = self._script[0], self._method
        self._method = "forward"
        if not self._open.get(method):
            # Not the module itself: what was traced, and is not from a file, forbids to call a part of it.
            return script._c._get_method(method)(*args, **kwargs)
        schema = script._c._get_method(method).schema.arguments[1 + len(args) :]
        rest = [kwargs.get(argument.name, argument.default_value) for argument in schema]
        return self._call(method, [*args, *rest])

    def _call(self, method: str, args: Sequence[Any]) -> Any:
        graph = self._script[0]._c._get_method(method).graph
        values = dict(zip((one.debugName() for one in graph.inputs()), [self, *args], strict=True))
        (result,) = self._run(graph, values)
        return result

    def _run(self, block: Any, values: dict[str, Any]) -> list[Any]:
        for node in block.nodes():
            results = self._evaluate(node, values)
            for output, result in zip(node.outputs(), results, strict=True):
                values[output.debugName()] = result
        return [values[output.debugName()] for output in block.outputs()]

    def _evaluate(self, node: Any, values: dict[str, Any]) -> Sequence[Any]:
        kind = node.kind()
        if kind == "prim::Constant":
            return [node.output().toIValue()]
        given = [values.get(one.debugName()) for one in node.inputs()]
        if kind == "prim::GetAttr":
            return [_attribute(given[0], node.s("name"))]
        if kind == "prim::CallMethod":
            return [_call(node.s("name"), *given)]
        if kind == "prim::CallFunction":
            return [getattr(F, str(node.inputsAt(0).type()).removeprefix(_FUNCTIONS))(*given[1:])]
        if kind == "prim::If":
            yes, no = node.blocks()
            return self._run(yes if given[0] else no, values)
        if kind == "prim::Loop":
            return self._loop(node, given, values)
        if kind == "prim::RaiseException":
            raise RuntimeError(str(given[0]))
        result = _apply(kind, node, given)
        several = node.outputsSize() != 1
        return (() if result is None else result) if several else [result]

    def _loop(self, node: Any, given: list[Any], values: dict[str, Any]) -> list[Any]:
        most, going, *carried = given
        (body,) = node.blocks()
        names = [one.debugName() for one in body.inputs()]
        count = 0
        while going and count < most:
            values.update(zip(names, [count, *carried], strict=True))
            going, *carried = self._run(body, values)
            count += 1
        return carried


def _call(method: str, owner: Any, *args: Any) -> Any:
    if isinstance(owner, Mirror):
        return owner.called(method, args) if _is_forward(method) else owner._call(method, args)
    return getattr(owner, method)(*args)


def _attribute(owner: Any, name: str) -> Any:
    if not isinstance(owner, Mirror):
        return getattr(owner, name)
    return owner._modules[name] if name in owner._modules else getattr(owner._script[0], name)


def _apply(kind: str, node: Any, given: list[Any]) -> Any:
    if kind in _BUILT_IN and not (kind == "aten::__getitem__" and isinstance(given[0], Tensor)):
        result = _BUILT_IN[kind](*given)
        return given[0] if kind == "aten::append" else result
    if kind in _PLAIN and not any(isinstance(value, Tensor) for value in given):
        return _PLAIN[kind](*given)
    function, names = _operation(node.schema())
    positional = [value for value, name in zip(given, names, strict=True) if not name]
    return function(*positional, **{name: value for value, name in zip(given, names, strict=True) if name})


@cache
def _named(kind: str) -> type[Mirror]:
    return type(kind, (Mirror,), {})


def _mirror(script: Any) -> nn.Module:
    if not isinstance(script, torch.jit.ScriptModule):
        return script
    return _named(script.original_name)(script)


def mirror(script: torch.jit.ScriptModule) -> tuple[nn.Module, list[str]]:
    """A tree of modules that computes what `script` does, and what cannot be seen of it."""
    found = _mirror(script)
    hidden = [
        path or "the network"
        for path, module in found.named_modules()
        if isinstance(module, Mirror) and module.hides_inside
    ]
    notes = ["TorchScript: its graph is run node by node, so that its layers can be seen"]
    if not found._modules:
        notes = ["TorchScript without modules (frozen or optimised): its output alone can be seen"]
    if hidden:
        notes.append(f"TorchScript: {some(hidden, 1)} cannot be seen from inside; its output can")
    return found, notes
