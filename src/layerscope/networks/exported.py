"""torch.export files: what torch would run while it loads one is looked for first.

`torch.export.load` unpickles, evaluates expressions and loads libraries that the file holds, and what it gives may call
any function of torch's modules. Here the program has to consist of operators, sizes and tensors. torch is handed a copy
of what was looked at, so that it cannot find in the file what was overlooked.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from layerscope.errors import NetworkError

__all__ = ["load_program"]

#: parts of the archive that torch unpickles without restriction, or loads as a library
_PARTS = ("opaque_obj_", "custom_obj_", "aotinductor")
#: what nodes may call: operators on tensors, and arithmetic with sizes
_CALLS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|quantized|quantized_decomposed)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|map_impl|while_loop|scan)"
    r"|torch\.(_sym_sqrt|sym_\w+)|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
#: operators of TorchScript under aten that open files
_FILES = re.compile(r"torch\.ops\.aten\.(save|load|_?from_file)\b")
_NAME = re.compile(r"[\w.]*")
#: functions in the expressions of sizes, of torch.utils._sympy and sympy
_FUNCTIONS = frozenset(
    """
    Symbol Integer Rational Add Mul Pow Abs Mod PythonMod FloorDiv CeilDiv CleanDiv ModularIndexing Max Min Where
    IntTrueDiv FloatTrueDiv TruncToInt TruncToFloat FloorToInt CeilToInt RoundToInt ToFloat Identity Eq Ne Ge Gt Le Lt
    And Or Not
    """.split()  # noqa: SIM905 - a list of words reads better as words
)
_PLAIN = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
    ast.expr_context, ast.keyword,
)  # fmt: skip


def load_program(path: Path) -> torch.export.ExportedProgram:
    """The program in the file. Raises NetworkError for one that holds more than a graph; torch raises what it likes."""
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(copy, "w") as taken:
        for entry in given.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise _refused(path, f"{entry.filename!r} is compressed")
            data = given.read(entry)
            if any(part in entry.filename.lower() for part in _PARTS):
                raise _refused(path, f"it holds {entry.filename!r}")
            if entry.filename.endswith(".json"):
                _look(path, json.loads(data))
            taken.writestr(entry.filename, data)
    copy.seek(0)
    with _tensors_alone():
        return torch.export.load(copy)


def _look(path: Path, value: Any) -> None:
    """Every part of the JSON, to any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            for key, check in _CHECKS.items():
                text = value.get(key)
                if isinstance(text, str) and not check(text):
                    raise _refused(path, f"its {key} is {text[:80]!r}")


def _is_call(text: str) -> bool:
    return bool(_CALLS.fullmatch(text)) and not _FILES.match(text)


def _is_size(text: str) -> bool:
    """Whether an expression is arithmetic alone: torch hands it to sympy, which evaluates it as Python."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(map(_is_arithmetic, ast.walk(tree)))


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Constant):  # a text is the name of a symbol
        return isinstance(node.value, int | float) or (isinstance(node.value, str) and node.value.isidentifier())
    return isinstance(node, _PLAIN) or (isinstance(node, ast.Name) and not node.id.startswith("_"))


#: fields of the JSON whose text torch evaluates, looks up or writes into a program
_CHECKS: dict[str, Callable[[str], bool]] = {
    "expr_str": _is_size,
    "target": _is_call,
    "name": lambda text: bool(_NAME.fullmatch(text)),
}


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """`torch.load` takes nothing but tensors, whoever calls it with whatever arguments."""
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    kept = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _refused(path: Path, what: str) -> NetworkError:
    return NetworkError(
        f"{path}: this torch.export file is more than a graph of tensors ({what}), and loading it could run code; "
        "if you trust it, load it in a file of your own and name that: file.py:function"
    )
