"""The kernels as machine code: compiled by numba once a machine, kept in one file, afterwards loaded without numba.

Importing numba takes longer than the statistics of most checkpoints; loading an object file through llvmlite,
which numba is built on, takes a few hundredths of a second. Where that does not work, numba's own code is used.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache as once
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from threading import Lock
from typing import Any

from . import cache
from .signatures import SIGNATURES

__all__ = ["functions"]

#: all that an object may ask of the process; for anything unknown LLVM would end the process
_LIBC = {"memcpy", "memmove", "memset"}

_lock = Lock()
_functions: dict[str, Callable[..., None]] = {}
_engines: list[Any] = []  # who own the memory that the code lies in


def functions() -> dict[str, Callable[..., None]]:
    """The kernels by their names in `SIGNATURES`, as functions of addresses and numbers. They release the lock.

    The environment variable LAYERSCOPE_KERNELS=numba goes past the kept file.
    """
    if not _functions:
        with _lock:
            if not _functions:
                _functions.update({name: _prototype(name)(address) for name, address in _addresses().items()})
    return _functions


def _prototype(name: str) -> Any:
    kinds: dict[str, Any] = {"int64": ctypes.c_int64, "float64": ctypes.c_double}
    return ctypes.CFUNCTYPE(None, *(kinds.get(kind, ctypes.c_void_p) for kind in SIGNATURES[name].split()))


def _addresses() -> dict[str, int]:
    if os.environ.get("LAYERSCOPE_KERNELS") != "numba":
        with suppress(Exception):  # whatever this platform lacks: numba has the same code, only later
            return _load(cache.load(key := _key()) or cache.store(key, _export()))
    return {name: function.address for name, function in _compile().items()}


@once
def _compile() -> dict[str, Any]:
    """numba's functions of C's calling convention."""
    import numba

    from . import kernels, survey_kernels

    types: Any = numba.types

    def kind(name: str) -> Any:
        return types.CPointer(kind(name[:-1])) if name[-1] == "*" else getattr(types, name)

    def loop(name: str) -> Any:
        return getattr(kernels if name in kernels.__all__ else survey_kernels, name)

    made = {}
    for name, arguments in SIGNATURES.items():
        signature = types.void(*map(kind, arguments.split()))
        made[name] = numba.cfunc(signature, error_model="numpy")(loop(name.rpartition("_")[0]))
    return made


def _target() -> Any:
    """Code for this very processor, as numba makes it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    reloc = "static" if machine().lower() in ("x86_64", "amd64") else "default"
    return llvm.Target.from_default_triple().create_target_machine(cpu, features, 3, reloc, "jitdefault", jit=True)


def _export() -> bytes:
    """One object file of all kernels that needs neither Python nor numba."""
    import llvmlite.binding as llvm

    whole = llvm.parse_assembly("")
    for name, function in _compile().items():
        module = llvm.parse_assembly(function.inspect_llvm())
        module.get_function(function.native_name).name = name
        whole.link_in(module)
    for part in (*whole.functions, *whole.global_variables):
        if not part.is_declaration and part.name not in SIGNATURES:
            part.linkage = "internal"
    # No kernel raises. Told that, these two drop what would report it to Python, and the reference counts.
    passes, target = llvm.create_new_module_pass_manager(), _target()
    passes.add_ipsccp_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(whole, llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options()))
    foreign = {part.name for part in whole.functions if part.is_declaration and not part.name.startswith("llvm.")}
    foreign |= {part.name for part in whole.global_variables if part.is_declaration}
    if foreign - _LIBC:
        raise RuntimeError(f"the kernels do not stand alone: {sorted(foreign)}")
    return bytes(target.emit_object(whole))


def _load(code: bytes) -> dict[str, int]:
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    addresses = {name: engine.get_function_address(name) for name in SIGNATURES}
    if not all(addresses.values()):
        raise RuntimeError("the object file lacks a kernel")
    _engines.append(engine)
    return addresses


def _key() -> bytes:
    """A hash of all that the machine code depends on."""
    import llvmlite
    import llvmlite.binding as llvm

    here = Path(__file__).parent
    sources = [here / name for name in ("kernels.py", "objects.py", "signatures.py", "survey_kernels.py")]
    numba = find_spec("numba")  # without importing it
    sources += [Path(folder, "_version.py") for folder in (numba and numba.submodule_search_locations) or ()]
    processor = f"{llvmlite.__version__} {llvm.get_default_triple()} {llvm.get_host_cpu_name()}"
    parts = [processor.encode(), llvm.get_host_cpu_features().flatten().encode(), *(p.read_bytes() for p in sources)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
