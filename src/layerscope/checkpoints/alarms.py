"""What a pickle would have imported and called, noted while nothing is."""

from __future__ import annotations

from typing import Any

from layerscope.checkpoints.guard import show
from layerscope.checkpoints.nodes import Dictionary, Global, Node, Opaque

__all__ = ["Alarms"]

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
        # A lookup, by which functions of torch are pickled; what it finds is no `Global`, so that a call of it is told.
        "builtins.getattr",
    )
)


class Alarms:
    """Globals that were named, and lines about what would have been executed."""

    def __init__(self) -> None:
        self.globals: set[str] = set()
        self.lines: dict[str, None] = {}
        self.left_out = 0

    def seen(self, found: Global) -> None:
        """Note a global."""
        if len(self.globals) < MAX_GLOBALS:
            self.globals.add(str(found) if len(found.module) + len(found.name) < 200 else show(str(found), 200))

    def called(self, function: Any, arguments: Any) -> None:
        """Note a call, unless it only makes an instance of a class."""
        if not (isinstance(function, Global) and _makes_instance(function)):
            self._add("call", f"{self.text(function)}{self._parenthesised(arguments)}")

    def made(self, cls: Any, arguments: Any) -> None:
        """Note the making of an object without its constructor; only a class can be made so."""
        if not isinstance(cls, Global):
            self._add("call", f"{self.text(cls)}.__new__{self._parenthesised(arguments)}")

    def hook(self, target: Node, names: tuple[str, ...], arguments: list[Any]) -> None:
        """Note a call of an attribute that the pickle gave to an object; unpicklers look these up."""
        for name in names:
            if name in target.hooks:
                function = target.hooks[name]
                self._add("call", f"{self.text(function)}{self._parenthesised(tuple(arguments))}")

    def changes(self, target: Any, items: list[Any]) -> None:
        """Note a change of something that the pickle did not make, such as `sys.path`."""
        if isinstance(target, Global):
            self._add("change", f"{self.text(target)} with {self.text(tuple(items))}")

    def _add(self, verb: str, what: str) -> None:
        line = f"loading this file with pickle would {verb} {show(what, 160)}"
        if line in self.lines:
            return
        if len(self.lines) < MAX_LINES:
            self.lines[line] = None
        else:
            self.left_out += 1

    def warnings(self) -> list[str]:
        """One line for each thing that would have been executed."""
        more = [f"loading this file with pickle would do {self.left_out} more things like this"]
        return [*self.lines, *(more if self.left_out else [])]

    @staticmethod
    def _parenthesised(arguments: Any) -> str:
        text = Alarms.text(arguments)
        return text if isinstance(arguments, tuple) else f"(*{text})"

    @staticmethod
    def text(value: Any, depth: int = 4) -> str:
        """`value` as Python would write it, short whatever it is."""
        if isinstance(value, Global):
            return show(str(value))
        if isinstance(value, (str, bytes)):
            return repr(value[:61]) if len(value) <= 60 else f"{value[:57]!r}..."
        if value is None or isinstance(value, (bool, int, float)):
            return show(value, 40)
        if depth == 0:
            return "..."
        if isinstance(value, Opaque):
            return Alarms.text(value.value, depth - 1)
        if isinstance(value, Node):
            inner = Alarms.text(value.arguments, depth - 1)
            return f"{Alarms.text(value.maker, depth - 1)}{inner if inner.startswith('(') else f'({inner})'}"
        if isinstance(value, (tuple, list)):
            inner = ", ".join(Alarms.text(item, depth - 1) for item in value[:3]) + (", ..." if len(value) > 3 else "")
            return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
        if isinstance(value, Dictionary):
            pairs = [f"{Alarms.text(k, 1)}: {Alarms.text(v, depth - 1)}" for k, v in list(value.items())[:3]]
            return "{" + ", ".join(pairs) + "}"
        return f"<{type(value).__name__}>"


def _makes_instance(function: Global) -> bool:
    """Whether calling `function` looks like making an instance of an ordinary class, by its capital."""
    if str(function) in _INSTANCES or str(function) in _HARMLESS:
        return True
    if function.module.split(".")[0].lstrip("_") in _ACTIVE or function.module.split(".")[0] in _ACTIVE:
        return False
    last = function.name.rsplit(".", 1)[-1]
    return last.startswith("__pyx_unpickle_") or last.lstrip("_")[:1].isupper()
