"""What a pickle would have imported and called, noted while nothing is."""

from __future__ import annotations

from typing import Any

from layerscope.checkpoints.storage import show

from .objects import Global, Node, as_python

__all__ = ["PickleWarnings"]

MAX_LINES = 20
MAX_GLOBALS = 1000

#: modules whose classes run something when they are made, and whose functions are no data builders
_ACTIVE = frozenset(
    """
    _posixsubprocess _thread asyncio bdb builtins cProfile cffi code codeop commands concurrent ctypes dbm
    distutils doctest ensurepip fileinput ftplib functools gc glob http imaplib importlib inspect io joblib
    logging marshal mmap multiprocessing nt ntpath operator os pdb pickle pip pkgutil platform posix posixpath
    profile pty pydoc requests runpy setuptools shelve shutil signal site smtplib socket socketserver ssl
    subprocess sys sysconfig tempfile test threading timeit trace types unittest urllib venv webbrowser xmlrpc
    zipfile zipimport
    """.split()  # noqa: SIM905 - a list of 90 short words reads better as words
)
#: makers of instances that call only a class that is named in their arguments
_INSTANCES = frozenset(("copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__"))
_HARMLESS = frozenset(
    (
        *("types.SimpleNamespace", "functools.partial", "operator.itemgetter", "operator.attrgetter", "re._compile"),
        *(f"numpy.random._pickle.__{kind}_ctor" for kind in ("randomstate", "generator", "bit_generator")),
        # A lookup, by which functions of torch are pickled; what it finds is no `Global`: a call of it is noted.
        "builtins.getattr",
    )
)


class PickleWarnings:
    """Globals that were named, and lines about what would have been executed."""

    def __init__(self) -> None:
        self.globals: set[str] = set()
        self.lines: dict[str, None] = {}
        self.left_out = 0

    def note_global(self, named: Global) -> None:
        """Note a global."""
        if len(self.globals) < MAX_GLOBALS:
            self.globals.add(str(named) if len(named.module) + len(named.name) < 200 else show(str(named), 200))

    def note_call(self, function: Any, arguments: Any) -> None:
        """Note a call, unless it only makes an instance of a class."""
        if not (isinstance(function, Global) and _makes_instance(function)):
            self._add("call", _call(function, arguments))

    def note_instance(self, cls: Any, arguments: Any) -> None:
        """Note the making of an object without its constructor; only a class can be made so."""
        if not isinstance(cls, Global):
            self._add("call", _call(cls, arguments, ".__new__"))

    def note_hook(self, target: Node, names: tuple[str, ...], arguments: list[Any]) -> None:
        """Note a call of an attribute that the pickle gave to an object; unpicklers look these up."""
        for name in names:
            if name in target.hooks:
                self._add("call", _call(target.hooks[name], tuple(arguments)))

    def note_change(self, target: Any, items: list[Any]) -> None:
        """Note a change of something that the pickle did not make, such as `sys.path`."""
        if isinstance(target, Global):
            self._add("change", f"{as_python(target)} with {as_python(tuple(items))}")

    def _add(self, verb: str, what: str) -> None:
        line = f"loading this file with pickle would {verb} {show(what, 160)}"
        if line in self.lines:
            return
        if len(self.lines) < MAX_LINES:
            self.lines[line] = None
        else:
            self.left_out += 1

    def summary(self) -> list[str]:
        """One line for each thing that would have been executed."""
        more = [f"loading this file with pickle would do {self.left_out} more things like this"]
        return [*self.lines, *(more if self.left_out else [])]


def _call(function: Any, arguments: Any, method: str = "") -> str:
    """A call as Python would write it; `arguments` of a hostile pickle need not be a tuple."""
    text = as_python(arguments)
    return f"{as_python(function)}{method}{text if isinstance(arguments, tuple) else f'(*{text})'}"


def _makes_instance(function: Global) -> bool:
    """Whether calling `function` looks like making an instance of an ordinary class, by its capital."""
    if str(function) in _INSTANCES or str(function) in _HARMLESS:
        return True
    if function.module.split(".")[0].lstrip("_") in _ACTIVE or function.module.split(".")[0] in _ACTIVE:
        return False
    last = function.name.rsplit(".", 1)[-1]
    return last.startswith("__pyx_unpickle_") or last.lstrip("_")[:1].isupper()
