"""The kernels as machine code: compiled by numba once a machine, kept in one file, afterwards loaded without numba.

Importing numba takes longer than the statistics of most checkpoints; loading an object file through llvmlite,
which numba is built on, takes a few hundredths of a second. Where no folder keeps the file, numpy does the work: a
process of its own would compile for longer than it works.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from threading import Lock
from typing import Any

from . import cache, plain
from .signatures import SIGNATURES

__all__ = ["adopt", "kernel", "machine_code"]

#: all that an object may ask of the process; for anything unknown LLVM would end the process
_LIBC = {"memcpy", "memmove", "memset"}
_KEY_BYTES = 32
#: what numba or llvmlite raise where they are missing, are another version, or know nothing of this platform
_FAILURES = (AttributeError, ImportError, OSError, RuntimeError)

Kernel = Callable[..., None]

_lock = Lock()
_kernels: dict[str, Kernel] = {}
_owners: list[Any] = []  # of the memory that code lies in
_code = b""  # key and code of what runs here, or came from the process that started this one


def kernel(name: str) -> Kernel:
    """The kernel of that name in `SIGNATURES`, as a function of addresses and numbers. It releases the lock.

    The environment variable LAYERSCOPE_KERNELS=numba goes past the kept file, =numpy past the kernels.
    """
    if name not in _kernels:
        with _lock:
            if name not in _kernels:
                _kernels.update(_made(compiled=name not in plain.TWINS))
    return _kernels[name]


def machine_code() -> bytes:
    """The compiled kernels, for `adopt` in the processes that this one starts: compiled if need be, kept or not.

    From here on this process uses no others, so that its results are theirs to the last bit.
    """
    with _lock:
        if _kernels.keys() != SIGNATURES.keys():
            _kernels.update(_made(compiled=True))
    return _code


def adopt(code: bytes) -> None:
    """Take what `machine_code` gave in another process. What was compiled for another processor is not used."""
    global _code
    _code = code


def _made(compiled: bool) -> dict[str, Kernel]:
    """The kernels, or, unless they have to be `compiled`, numpy's where each process would compile them for itself."""
    global _code
    chosen = os.environ.get("LAYERSCOPE_KERNELS")
    if chosen == "numpy" and not compiled:
        return plain.TWINS
    why = "LAYERSCOPE_KERNELS is numba"
    if chosen != "numba":
        try:
            key = _key()
            code = _code if _code[:_KEY_BYTES] == key else key + cache.fetch(key, _export, anyway=compiled)
            addresses = _load(code[_KEY_BYTES:])
            _code = code
            return _bound(addresses)
        except (cache.Unkept, *_FAILURES) as error:
            why = " ".join(str(error).split())
        if not compiled:
            cache.say(f"numpy does the work of the compiled kernels, slower on large tensors: {why}")
            return plain.TWINS
    functions = _compile(f"compiling the kernels for this process alone, about 10 s: {why}")
    _owners.append(functions)
    return _bound({name: function.address for name, function in functions.items()})


def _bound(addresses: dict[str, int]) -> dict[str, Kernel]:
    kinds: dict[str, Any] = {"int64": ctypes.c_int64, "float64": ctypes.c_double}
    return {
        name: ctypes.CFUNCTYPE(None, *(kinds.get(kind, ctypes.c_void_p) for kind in SIGNATURES[name].split()))(address)
        for name, address in addresses.items()
    }


def _compile(line: str) -> dict[str, Any]:
    """numba's functions of C's calling convention; the line says that it takes a while. Raises RuntimeError."""
    import numba

    from . import kernels, survey_kernels

    cache.say(line)

    types: Any = numba.types

    def kind(name: str) -> Any:
        return types.CPointer(kind(name[:-1])) if name[-1] == "*" else getattr(types, name)

    def loop(name: str) -> Any:
        return getattr(kernels if name in kernels.__all__ else survey_kernels, name)

    made = {}
    try:
        for name, arguments in SIGNATURES.items():
            signature = types.void(*map(kind, arguments.split()))
            made[name] = numba.cfunc(signature, error_model="numpy")(loop(name.rpartition("_")[0]))
    except numba.core.errors.NumbaError as error:
        raise RuntimeError(f"numba {numba.__version__} does not compile them ({str(error)[:200]})") from error
    return made


def _target() -> Any:
    """Code for this very processor, as numba makes it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    reloc = "static" if machine().lower() in ("x86_64", "amd64") else "default"
    return llvm.Target.from_default_triple().create_target_machine(cpu, features, 3, reloc, "jitdefault", jit=True)


def _export(line: str) -> bytes:
    """One object file of all kernels that needs neither Python nor numba."""
    import llvmlite.binding as llvm

    whole = llvm.parse_assembly("")
    for name, function in _compile(line).items():
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
    _owners.append(engine)
    return addresses


def _key() -> bytes:
    """A hash of all that the machine code depends on."""
    import llvmlite
    import llvmlite.binding as llvm

    here = Path(__file__).parent
    sources = [here / name for name in ("kernels.py", "objects.py", "signatures.py", "survey_kernels.py")]
    numba = find_spec("numba")  # without importing it
    if numba is None:
        raise ImportError("numba is not installed")
    sources += [Path(folder, "_version.py") for folder in numba.submodule_search_locations or ()]
    processor = f"{llvmlite.__version__} {llvm.get_default_triple()} {llvm.get_host_cpu_name()}"
    parts = [processor.encode(), llvm.get_host_cpu_features().flatten().encode(), *(p.read_bytes() for p in sources)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
