"""The functions that a plain checkpoint's pickle names, followed by structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from layerscope.checkpoints.storage import Damage, Layout, contiguous, shape_of, show
from layerscope.dtypes import STORAGE

from .machine import COST_ITEM, Arguments, Builder, Machine
from .objects import Dictionary, Global, Node, Stateful, as_python

__all__ = ["BUILDERS", "Array", "Kind", "Storage", "Tensor", "element_type", "is_plain", "storage_of"]

_STORAGE_TYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "UntypedStorage": "uint8", "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64",
    "QInt32Storage": "qint32", "QInt8Storage": "qint8", "QUInt8Storage": "quint8",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}  # fmt: skip
_TORCH_ALIASES = {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32"}
_TORCH_ALIASES |= {"short": "int16", "cfloat": "complex64", "cdouble": "complex128", "chalf": "complex32"}
_SCHEMES = ("per_tensor", "per_channel", "strided", "sparse_", "contiguous_format", "preserve_format", "channels_last")
_DTYPES = {f"{sign}int{bits}" for sign in ("u", "") for bits in range(1, 8)} | {*STORAGE, *_TORCH_ALIASES}
_DTYPES |= {"bits8", "bits16", "bits1x8", "bits2x4", "bits4x2", "quint4x2", "quint2x4", "float4_e2m1fn_x2"}
# numpy's code -> element type, for the types that numpy has itself
_BITS_ONLY = ("bfloat", "float8", "complex32", "q")
_NUMPY_NAMES = {code: name for name, code in STORAGE.items() if not name.startswith(_BITS_ONLY)}


@dataclass(slots=True, eq=False)
class Storage:
    """Memory that tensors share: `key` names it within the file; `nbytes` is what it says it has."""

    key: str
    dtype: str
    nbytes: int
    start: int = 0


@dataclass(slots=True, eq=False)
class Tensor:
    """A tensor of the pickle: a layout over a storage, or the reason why it has no elements here."""

    layout: Layout
    storage: Storage | None = None
    unreadable: str = ""


@dataclass(slots=True, eq=False)
class Kind(Stateful):
    """A numpy dtype."""

    code: str

    def set_state(self, state: Any) -> None:
        """Take the byte order out of the tuple that numpy pickles."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.code = state[1] + self.code.lstrip("<>|=")

    @property
    def name(self) -> str:
        """The element type in `layerscope.dtypes`, "" if it has none (objects, strings, big-endian)."""
        code = self.code if self.code[:1] in "<>|=" else f"<{self.code}"
        return _NUMPY_NAMES.get(code.replace("=", "<"), _NUMPY_NAMES.get("|" + code[1:], ""))


@dataclass(slots=True, eq=False)
class Array(Stateful):
    """A numpy array whose elements lie inside the pickle."""

    kind: Kind | None = None
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    data: bytes | None = None

    def set_state(self, state: Any) -> None:
        """Take (version, shape, dtype, whether in Fortran order, bytes)."""
        _, shape, kind, fortran, data = state
        self._fill(kind, shape, bool(fortran), data)

    def _fill(self, kind: Any, shape: Any, fortran: bool, data: Any) -> None:
        self.kind = kind if isinstance(kind, Kind) else None
        self.shape = shape_of(shape)
        self.strides = contiguous(self.shape[::-1])[::-1] if fortran else contiguous(self.shape)
        self.data = data.encode() if isinstance(data, str) else data if isinstance(data, bytes) else None


def storage_of(reference: Any) -> tuple[str, str, int]:
    """Key, element type and number of elements of ("storage", type, key, location, number of elements, ...)."""
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] not in ("storage", b"storage"):
        raise Damage(f"the pickle refers to {show(as_python(reference))}, which is no storage of PyTorch")
    _, kind, key, _, count = reference[:5]
    known = isinstance(kind, Global) and kind.module in ("torch", "torch.cuda", "torch.storage")
    dtype = _STORAGE_TYPES.get(kind.name, "") if known else ""
    if not isinstance(key, str) or not dtype or type(count) is not int or not 0 <= count < 1 << 60:
        raise Damage(f"the pickle refers to storage {show(as_python(reference))} with an invalid key, type or size")
    return key, dtype, count


def element_type(value: object) -> str:
    """The element type that a `torch.dtype` names, also one that cannot be read."""
    if not isinstance(value, Global) or value.module != "torch":
        raise Damage(f"a tensor has {show(value)} for its element type")
    return _TORCH_ALIASES.get(value.name, show(value.name, 40))


def is_plain(name: str) -> bool:
    """Whether a global is part of plain torch, numpy or Python data."""
    if name in BUILDERS or name == "torch.Tensor" or name.startswith("__torch__."):
        return True
    module, _, last = name.rpartition(".")
    if last in _STORAGE_TYPES or name == "torch.storage.TypedStorage":
        return module in ("torch", "torch.cuda", "torch.storage")
    return module == "torch" and (last in _DTYPES or last.startswith(_SCHEMES))


def _dotted(value: object) -> str:
    return str(value) if isinstance(value, Global) else ""  # str() of a nested tuple may never end


# ---- torch


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: str = "") -> Tensor:
    shape, strides = shape_of(shape), shape_of(strides)
    if type(offset) is not int or not isinstance(storage, Storage):
        raise Damage(f"a tensor of shape {show(shape)} has no storage or no offset")
    dtype = dtype or storage.dtype
    if dtype not in STORAGE:
        return Tensor(Layout(dtype, shape, strides, offset), storage, f"{dtype} has no numpy values")
    layout = Layout(dtype, shape, strides, offset)
    layout.check(storage.nbytes, f"storage {show(storage.key)}")
    return Tensor(layout, storage)


def _rebuild_tensor(m: Machine, arguments: Arguments) -> Tensor:
    return _tensor(*arguments[:4])


def _rebuild_tensor_v3(m: Machine, arguments: Arguments) -> Tensor:
    storage, offset, shape, strides = arguments[:4]
    return _tensor(storage, offset, shape, strides, element_type(arguments[6]))


def _without_elements(dtype: str, shape: Any, reason: str, storage: Storage | None = None) -> Tensor:
    shape = shape_of(shape)
    return Tensor(Layout.dense(dtype, shape), storage, reason)


def _rebuild_sparse(m: Machine, arguments: Arguments) -> Tensor:
    parts = arguments[1]
    values, shape = (parts[1], parts[2]) if isinstance(parts[2], (tuple, list)) else (parts[2], parts[3])
    reason = "it is sparse, and only dense tensors are read"
    return _without_elements(values.layout.dtype, shape, reason, values.storage)


def _rebuild_meta(m: Machine, arguments: Arguments) -> Tensor:
    reason = "it was saved from the meta device, without elements"
    return _without_elements(element_type(arguments[0]), arguments[1], reason)


def _rebuild_wrapper(m: Machine, arguments: Arguments) -> Tensor:
    reason = f"it is a {show(_dotted(arguments[0]))}, which only its own code can unwrap"
    return _without_elements(element_type(arguments[1]), arguments[2], reason)


def _rebuild_nested(m: Machine, arguments: Arguments) -> Tensor:
    values = arguments[0]
    return Tensor(values.layout, values.storage, "it is a nested tensor, and only dense tensors are read")


def _rebuild_from_type(m: Machine, arguments: Arguments) -> Any:
    function, _, inner = arguments[:3]
    name = _dotted(function)
    if not name.startswith("torch._utils."):
        raise Damage(f"a tensor's class is rebuilt by {show(name)}, which no torch does")
    return m.builders[name](m, inner)


def _rebuild_from_numpy(m: Machine, arguments: Arguments) -> Any:
    array, dtype = arguments[0], element_type(arguments[1])
    if isinstance(array, Array) and array.kind is not None and array.kind.name != dtype:
        raise Damage(f"a tensor says {dtype} but holds an array of {show(array.kind.code)}")
    return array


def _first(m: Machine, arguments: Arguments) -> Any:
    return arguments[0]


def _typed_storage(m: Machine, arguments: Arguments) -> Any:
    return arguments[0] if arguments else None


# ---- Python and numpy


def _mapping(m: Machine, arguments: Arguments) -> Dictionary:
    pairs = arguments[-1] if arguments and isinstance(arguments[-1], (list, tuple, dict)) else ()
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    m.spend(8 * COST_ITEM * len(pairs))
    return Dictionary((pair[0], pair[1]) for pair in pairs)


def _sequence(m: Machine, arguments: Arguments) -> Any:
    return arguments[0] if arguments else []


def _size(m: Machine, arguments: Arguments) -> tuple[int, ...]:
    return shape_of(arguments[0]) if arguments else ()


def _bytes(m: Machine, arguments: Arguments) -> Any:
    """`bytes()`, `bytearray(text, encoding)` and `codecs.encode(text, encoding)`: protocol 2 has no bytes."""
    text = arguments[0] if arguments else b""
    if isinstance(text, str):
        m.spend(len(text))
        return text.encode("latin-1" if arguments[1] in ("latin1", "latin-1") else "utf-8")
    return text


def _scalar(m: Machine, arguments: Arguments) -> Any:
    """A number: bool, int, float or complex out of the bytes of a numpy scalar, None for any other kind."""
    kind, data = arguments[0], arguments[1] if len(arguments) > 1 else b""
    data = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(kind, Kind) or not kind.name or not isinstance(data, bytes):
        return None
    return np.frombuffer(data, STORAGE[kind.name], 1)[0].item()


def _kind(m: Machine, arguments: Arguments) -> Kind:
    code = arguments[0]
    if isinstance(code, Global):
        return Kind(np.dtype(code.name).str if code.name in STORAGE else "O")
    return Kind(code if isinstance(code, str) and len(code) < 20 else "O")


def _array(m: Machine, arguments: Arguments) -> Array:
    return Array()


def _array_from_buffer(m: Machine, arguments: Arguments) -> Array:
    data, kind, shape, order = arguments[:4]
    array = Array()
    array._fill(kind, shape, order == "F", data)
    return array


def _new_class(m: Machine, arguments: Arguments) -> Any:
    """`copyreg._reconstructor(cls, base, state)` of a plain container, else the object it would make."""
    cls, base = arguments[:2]
    entries = _mapping(m, (arguments[2],)) if _dotted(base) == "builtins.dict" else None
    return entries if entries is not None and is_plain(_dotted(cls)) else Node(cls, (), entries=entries)


def _value(m: Machine, arguments: Arguments) -> Node:
    return Node(None, arguments)


#: builder, module, and the names in it that the builder follows
_FOLLOWED: tuple[tuple[Builder, str, str], ...] = (
    (_rebuild_tensor, "torch._utils", "_rebuild_tensor _rebuild_tensor_v2 _rebuild_qtensor"),
    (_rebuild_tensor_v3, "torch._utils", "_rebuild_tensor_v3"),
    (_rebuild_sparse, "torch._utils", "_rebuild_sparse_tensor _rebuild_sparse_csr_tensor"),
    (_rebuild_nested, "torch._utils", "_rebuild_nested_tensor"),
    (_rebuild_meta, "torch._utils", "_rebuild_meta_tensor_no_storage"),
    (_rebuild_wrapper, "torch._utils", "_rebuild_wrapper_subclass"),
    (_rebuild_from_numpy, "torch._utils", "_rebuild_device_tensor_from_numpy _rebuild_xla_tensor"),
    (_first, "torch._utils", "_rebuild_parameter _rebuild_parameter_with_state _rebuild_device_tensor_from_cpu_tensor"),
    (_first, "torch.nn.parameter", "Parameter Buffer"),
    (_rebuild_from_type, "torch._tensor", "_rebuild_from_type _rebuild_from_type_v2"),
    (_typed_storage, "torch.storage", "TypedStorage"),
    (_size, "torch", "Size"),
    (_value, "torch", "device"),
    (_value, "torch.serialization", "_get_layout"),
    (_value, "torch.jit._pickle", "build_tensor_from_id"),
    (_sequence, "torch.jit._pickle", "build_intlist build_tensorlist build_doublelist build_boollist restore_type_tag"),
    (_mapping, "collections", "OrderedDict Counter defaultdict"),
    (_sequence, "collections", "deque"),
    (_mapping, "builtins", "dict"),
    (_sequence, "builtins", "list tuple set frozenset float int bool str"),
    (_bytes, "builtins", "bytearray bytes"),
    (_value, "builtins", "complex slice range object"),
    (_new_class, "copyreg", "_reconstructor"),
    (_value, "datetime", "datetime date timedelta"),
    (_value, "decimal", "Decimal"),
    (_value, "fractions", "Fraction"),
    (_bytes, "_codecs", "encode"),
    (_kind, "numpy", "dtype"),
    (_array, "numpy", "ndarray"),
)
BUILDERS = {f"{module}.{name}": builder for builder, module, names in _FOLLOWED for name in names.split()}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    BUILDERS[f"{_core}.multiarray._reconstruct"] = _array
    BUILDERS[f"{_core}.multiarray.scalar"] = _scalar
    BUILDERS[f"{_core}.numeric._frombuffer"] = _array_from_buffer
