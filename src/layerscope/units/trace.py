"""What a network did, operation by operation, and the walk back from one unit to the pixels it needs.

The operations are noted below autograd, where torch has already taken views, in-place operations and composite
functions apart. A tensor is noted as a view of its storage: then a view needs no rule, and an in-place operation is
one whose output and input lie in the same place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["Needs", "Op", "Reads", "Spot", "Trace"]


_CHOOSERS = (torch.bool, torch.uint8)


@dataclass(frozen=True)
class Spot:
    """Where a tensor lies: storage, and the view of it, in elements of `itemsize` bytes.

    `value` is kept only where a rule needs it: what does not come from the input, and a copy of indices and masks.
    """

    storage: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    itemsize: int
    reached: bool
    value: Tensor | None = None


@dataclass
class Op:
    """One operation: arguments with spots for tensors, what it wrote, and whether the program read a value off it."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Spot]
    read: bool = False

    @property
    def name(self) -> str:
        """`convolution`, whatever the overload."""
        return str(self.func.overloadpacket.__name__) if self.func is not None else "read"

    @property
    def spots(self) -> list[Spot]:
        """The tensors among the arguments that come from the input."""
        found = tree_leaves((self.args, self.kwargs), is_leaf=lambda leaf: isinstance(leaf, Spot))
        return [spot for spot in found if isinstance(spot, Spot) and spot.reached]

    @property
    def named(self) -> dict[str, Any]:
        """All arguments by the names in the operation's schema."""
        return {argument.name: value for argument, value in _with_schema(self.func, self.args, self.kwargs)}

    def arg(self, name: str, default: Any = None) -> Any:
        """An argument by its name; `default` where it is None, or not there."""
        value = self.named.get(name)
        return default if value is None else value


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that something of the input reaches, while the block runs."""

    def __init__(self, sources: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[Op] = []
        self.lost = False  # a tensor without storage: sparse, or of a foreign kind
        self._weak: dict[int, StorageWeakRef] = {}
        self._reached: set[int] = set()
        self._reached.update([spot.storage for tensor in sources if (spot := self.spot(tensor))])

    def spot(self, tensor: Tensor, value: bool = False) -> Spot | None:
        """Where a tensor lies; None, and `lost`, if it has no plain storage."""
        try:
            storage = tensor.untyped_storage()
            # A weak reference frees the values but not the address: no later storage can be taken for this one.
            key = self._weak.setdefault(storage._cdata, StorageWeakRef(storage)).cdata  # type: ignore[no-untyped-call]
            offset = int(tensor.storage_offset())
        except (NotImplementedError, RuntimeError):
            self.lost = True
            return None
        reached = key in self._reached
        kept = None
        if value and not (reached and tensor.is_floating_point()):
            kept = tensor.detach().clone() if reached else tensor
        return Spot(key, offset, tuple(tensor.shape), tuple(tensor.stride()), tensor.element_size(), reached, kept)

    def note_read(self, tensor: Tensor) -> None:
        """The program has taken values out of torch: all that follows may depend on every one of them."""
        spot = self.spot(tensor)
        if spot and spot.reached:
            self.ops.append(Op(None, (spot,), {}, [], read=True))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):  # an operation of operations, such as flex_attention
            self.lost = True
            return func(*args, **kwargs)
        name = func.name()  # type: ignore[no-untyped-call]
        if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"):
            with self:  # inside inference_mode torch leaves it to us to take these apart
                taken = func.decompose(*args, **kwargs)
            if taken is not NotImplemented:
                return taken
        spots, named = tree_map_only(Tensor, lambda tensor: self.spot(tensor, value=True), (args, kwargs))
        result = func(*args, **kwargs)
        op = Op(func, spots, named, [])
        if op.spots:
            self._note(op, args, kwargs, result)
        return result

    def _note(self, op: Op, args: Any, kwargs: Any, result: Any) -> None:
        tags = set(op.func.tags)
        if torch.Tag.inplace_view in tags:
            return  # as_strided_, squeeze_: the same values seen in another way
        mine = {spot.storage for spot in op.spots}
        outputs = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
        op.read = not outputs or bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & tags)
        if op.name == "index":  # whose shape depends on values only if a mask of true and false does the choosing
            op.read = any(spot.value is not None and spot.value.dtype in _CHOOSERS for spot in op.spots)
        written = [
            tensor
            for argument, given in _with_schema(op.func, args, kwargs)
            if argument.alias_info is not None and argument.alias_info.is_write
            for tensor in tree_leaves(given)
            if isinstance(tensor, Tensor)
        ]
        spots = [spot for tensor in outputs if (spot := self.spot(tensor))]
        fresh = [spot for spot in spots if spot.storage not in mine]
        op.outputs = fresh + [spot for tensor in written if (spot := self.spot(tensor))]
        if not op.outputs and not op.read:
            return  # a view: the spots say it all
        self._reached.update(spot.storage for spot in op.outputs)
        self.ops.append(op)


def _with_schema(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
    for at, argument in enumerate(func._schema.arguments):
        yield argument, args[at] if at < len(args) else kwargs.get(argument.name, argument.default_value)


class Reads(TorchFunctionMode):
    """Notices what leaves torch without an operation: `numpy`, `tolist`, `__array__`."""

    _NAMES = frozenset({"numpy", "tolist", "__array__", "data_ptr", "__dlpack__"})

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self._NAMES and isinstance(args[0], Tensor):
            self.trace.note_read(args[0])
        return func(*args, **(kwargs or {}))


class Needs:
    """Which elements of each storage the unit needs, going backwards."""

    def __init__(self) -> None:
        self._flat: dict[int, Tensor] = {}  # bool, one value an element
        self._itemsize: dict[int, int] = {}

    def take(self, spot: Spot) -> Tensor | None:
        """The mask of a tensor, bool of its shape, and forget it: the operation writes it anew. None if not needed."""
        mask = self.look(spot)
        if not mask.any():
            return None
        if self._itemsize[spot.storage] == spot.itemsize:
            _write(self._grown(spot), spot, mask, False)
        return mask

    def look(self, spot: Spot) -> Tensor:
        """The mask of a tensor, bool of its shape."""
        if spot.storage not in self._flat or 0 in spot.shape:
            return torch.zeros(spot.shape, dtype=torch.bool)
        if self._itemsize[spot.storage] != spot.itemsize:  # the same bytes seen as another type: all of them
            return self._flat[spot.storage].any().expand(spot.shape)
        return self._grown(spot).as_strided(spot.shape, spot.stride, spot.offset).clone()

    def add(self, spot: Spot, mask: Tensor | None) -> None:
        """These elements are needed too; all of them for None."""
        mask = torch.ones(spot.shape, dtype=torch.bool) if mask is None else mask
        if not mask.any():
            return
        if self._itemsize.setdefault(spot.storage, spot.itemsize) != spot.itemsize:
            self._itemsize[spot.storage] = 0  # no type: whoever asks gets all of it
            self._flat[spot.storage].fill_(True)
        else:
            _write(self._grown(spot), spot, mask, True)

    def _grown(self, spot: Spot) -> Tensor:
        """The flat mask of a storage, long enough for this view of it."""
        reach = spot.offset + sum((size - 1) * step for size, step in zip(spot.shape, spot.stride, strict=True)) + 1
        flat = self._flat.get(spot.storage, torch.zeros(0, dtype=torch.bool))
        if len(flat) < reach:
            flat = self._flat[spot.storage] = torch.nn.functional.pad(flat, (0, reach - len(flat)))
        return flat


def _write(flat: Tensor, spot: Spot, mask: Tensor, value: bool) -> None:
    """Set the true elements of the mask in the flat mask of the storage."""
    steps = sorted((step, size) for step, size in zip(spot.stride, spot.shape, strict=True) if size > 1)
    room = [step * size for step, size in steps]
    if all(step >= below for (step, _), below in zip(steps, [1, *room], strict=False)):
        flat.as_strided(spot.shape, spot.stride, spot.offset).masked_fill_(mask, value)
    else:  # elements lie over each other, as those of an expanded tensor do
        flat[(mask.nonzero() * torch.tensor(spot.stride)).sum(1) + spot.offset] = value
