"""What functions return between the modules: a residual add, a functional ReLU, the weights of an attention.

A mode of torch sees every call of a public function of torch while it is on, and hooks tell within which module.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from layerscope.activations.collector import Collector
from layerscope.activations.hooks import OnOutput, observing
from layerscope.activations.modules import Table, tensors_in
from layerscope.errors import NoMatch
from layerscope.records.sites import Site
from layerscope.text import nearest

__all__ = ["Functions", "name_of"]

#: new shapes and types of the same values, and what is no computation
_SAME_VALUES = frozenset([
    "bfloat16", "chunk", "clone", "contiguous", "cpu", "cuda", "detach", "double", "expand", "expand_as",
    "float", "half", "movedim", "permute", "requires_grad", "reshape", "split", "squeeze", "swapaxes", "t",
    "to", "transpose", "type", "type_as", "unbind", "unflatten", "unsqueeze", "view", "view_as",
])  # fmt: skip
_OPERATORS = frozenset(["add", "sub", "mul", "truediv", "div", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"])


def name_of(func: Callable[..., Any]) -> str:
    """`add` for torch.add, Tensor.add_, `+` and `+=`; "" for what makes no new values."""
    raw = getattr(func, "__name__", "")
    name = raw.strip("_")
    if raw in ("__get__", "__set__", "__setitem__") or name in _SAME_VALUES:
        return ""
    if raw.startswith("__") and name[:1] in ("i", "r") and name[1:] in _OPERATORS:
        name = name[1:]
    return {"truediv": "div"}.get(name, name)


class Functions(TorchFunctionMode):
    """While it is entered, reduces what functions return outside of leaf modules; see `features`.

    Names are `PATH/FUNCTION`, with the path of the module around, `/FUNCTION` at the top. `patterns`: globs over names
    and types; all if empty.
    """

    def __init__(self, table: Table, collector: Collector, patterns: Sequence[str], ops: bool, attention: bool) -> None:
        super().__init__()
        self._table = table
        self._collector = collector
        self._patterns, self._ops, self._attention = patterns, ops, attention
        self._names: dict[str, None] = {}
        self._met: set[str] = set()  # patterns that selected something
        self._own = {id(tensor) for tensor in [*table.root.parameters(), *table.root.buffers()]}
        self._around: list[str] = [""]
        self._calls: Counter[str] = Counter()
        self._busy = False
        self._hooks = ExitStack()

    def __enter__(self) -> Functions:
        self._around, self._calls = [""], Counter()
        inside = [path for path, module in self._table.observable.items() if module is not self._table.root]
        self._hooks.enter_context(observing(self._table, inside, on_input=self._enter, on_exit=self._leave))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._hooks.close()

    def _enter(self, path: str, *_: object) -> None:
        self._around.append(path)

    def _leave(self, *_: object) -> None:
        self._around.pop()

    def unseen(self, on_output: OnOutput) -> OnOutput:
        """`on_output`, whose own calls of torch are not the network's."""

        def wrapped(site: Site, module: nn.Module, tensor: Tensor) -> None:
            self._busy = True
            try:
                on_output(site, module, tensor)
            finally:
                self._busy = False

        return wrapped

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)  # the mode is off within
        if not self._busy and any(id(tensor) not in self._own for _, tensor in tensors_in([*args, *kwargs.values()])):
            self._see(func, args, kwargs, output)
        return output

    def _see(self, func: Any, args: Any, kwargs: Any, output: Any) -> None:
        path = self._around[-1]
        weights = _attention_weights(func, args, kwargs, output) if self._attention else None
        if weights is not None and self._wanted(f"{path}/attention", "attention"):
            self._collector.attend(self._site(f"{path}/attention"), weights)
        name = name_of(func)
        if not (self._ops and name) or path in self._table.leaves or not self._wanted(f"{path}/{name}", name):
            return
        found = list(tensors_in(output, f"{path}/{name}"))
        call = self._site(f"{path}/{name}").call if found else 0
        for part, tensor in found:
            self._collector.keep(Site(part, call), None, tensor, name)

    def _site(self, name: str) -> Site:
        self._calls[name] += 1
        return Site(name, self._calls[name] - 1)

    def _wanted(self, name: str, kind: str) -> bool:
        self._names.setdefault(name)
        met = [glob for glob in self._patterns if fnmatchcase(name, glob) or fnmatchcase(kind, glob)]
        self._met.update(met)
        return bool(met) or not self._patterns

    def require(self, patterns: Iterable[str]) -> None:
        """Raises NoMatch for one of these patterns that selected no function in any pass."""
        for pattern in patterns:
            if pattern not in self._met:
                raise NoMatch(f"no layer and no function matches {pattern!r}{nearest(pattern, self._names)}")


def _attention_weights(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
) -> Tensor | None:
    """(B, heads, queries, keys) if this call of a function of torch was an attention; else None.

    A fused attention is computed again from its arguments, a softmax over the last of four axes is one itself.
    """
    # By name: other tools put wrappers into torch, and what is seen is then not the function found there.
    name = getattr(func, "__name__", "")
    if name == "scaled_dot_product_attention":
        return _fused(*args, **kwargs)
    if name == "multi_head_attention_forward":
        named = inspect.signature(func).bind(*args, **kwargs).arguments
        weights = func(**{**named, "need_weights": True, "average_attn_weights": False})[1]
        return weights if weights.dim() == 4 else weights[None]  # without a batch axis: (heads, L, S)
    if name == "softmax" and isinstance(output, Tensor) and output.dim() == 4:
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
        return output if axis in (-1, 3) else None
    return None


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """softmax(Q K^T * scale + mask) of query (B, heads, L, d) and key (B, heads, S, d)."""
    if query.dim() != 4:
        return None
    if enable_gqa:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1)
