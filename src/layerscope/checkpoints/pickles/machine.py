"""An inert unpickler: it follows the opcodes of a pickle, imports nothing and calls nothing.

A global becomes a `Global`, what would be called or built becomes a `Node`. Functions that only build data
are followed by the `builders` of the caller: a dotted name -> a function of the machine and the
arguments. The reference for the opcodes is CPython's `pickletools`.
"""

from __future__ import annotations

import codecs
import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from layerscope.checkpoints.storage import Damage, show

from .objects import Dictionary, Global, Node, Stateful, as_python
from .warnings import PickleWarnings

__all__ = ["COST_ITEM", "Arguments", "Builder", "Machine"]

MIB = 1 << 20
#: what the containers of a pickle may take up: a fixed part, and a part per byte of pickle
BUDGET_BYTES, BUDGET_PER_BYTE = 128 * MIB, 8
#: bytes of pickle that count for that, and opcodes, a microsecond each; a legacy file is a pickle and its tensors
MAX_COUNTED_BYTES, MAX_OPCODES = 64 * MIB, 50_000_000
MAX_INTEGER_BYTES = 1024
MAX_DIGITS = 2000
MAX_PROTOCOL = 5
COST_CONTAINER, COST_NODE, COST_MEMO, COST_MARK, COST_GLOBAL, COST_ITEM = 96, 384, 96, 40, 240, 16

_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg", "exceptions": "builtins", "UserDict": "collections"}

Arguments = tuple[Any, ...]
Builder = Callable[["Machine", Arguments], object]


@dataclass(repr=False)
class Machine:
    """The unpickler's state. `load` runs one pickle that begins at `at` and leaves `at` behind it."""

    data: bytes | mmap.mmap
    builders: Mapping[str, Builder]
    persistent: Callable[[Any], object]
    warnings: PickleWarnings = field(default_factory=PickleWarnings)
    at: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    budget: int = field(init=False)

    def __post_init__(self) -> None:
        self.budget = BUDGET_BYTES + BUDGET_PER_BYTE * min(len(self.data), MAX_COUNTED_BYTES)

    def load(self) -> Any:
        """Run to the STOP of one pickle and return what it holds."""
        self.stack, self.marks, self.memo = [], [], {}
        for _ in range(MAX_OPCODES):
            if (op := self.take(1)) == b".":
                return self.pop()
            handler = _OPCODES.get(op)
            if handler is None:
                raise Damage(f"byte {self.at - 1} is {show(op)}, which is no pickle opcode")
            try:
                handler(self)
            except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
                what = f"the pickle cannot be followed before byte {self.at} ({show(error)})"
                raise Damage(what) from error
        raise Damage(f"the pickle has more than {MAX_OPCODES} opcodes", "this is how a pickle bomb looks")

    def spend(self, nbytes: int) -> None:
        """Account for memory; what the file's strings and numbers take up is bounded by its size anyway."""
        self.budget -= nbytes
        if self.budget < 0:
            raise Damage(
                f"the pickle builds more than {BUDGET_BYTES // MIB} MiB + {BUDGET_PER_BYTE} times its size",
                "this is how a pickle bomb looks; do not load it",
            )

    # ---- reading

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        if n < 0 or n > len(self.data) - self.at:
            raise Damage(f"the pickle ends in its middle: {show(n)} bytes are missing at byte {self.at}")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, code: str) -> Any:
        """The next number, by its struct code."""
        (value,) = struct.unpack(code, self.take(struct.calcsize(code)))
        return value

    def counted(self, code: str) -> bytes:
        """The next bytes, as many as the number before them says."""
        return self.take(self.number(code))

    def line(self) -> bytes:
        """The bytes up to the next line end."""
        end = self.data.find(b"\n", self.at)
        if end < self.at:
            raise Damage(f"the pickle ends in its middle: a line has no end after byte {self.at}")
        return self.take(end + 1 - self.at)[:-1]

    # ---- the stack

    def push(self, value: object, cost: int = 0) -> None:
        """Put `value` on the stack and account for it."""
        if cost:
            self.spend(cost)
        self.stack.append(value)

    def _need(self, n: int) -> None:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - floor < n:
            raise Damage(f"the pickle takes an object that is not there, before byte {self.at}")

    def pop(self) -> Any:
        """Take the top of the stack."""
        self._need(1)
        return self.stack.pop()

    def pop_many(self, n: int) -> list[Any]:
        """Take the `n` values on top, the lowest first."""
        self._need(n)
        items = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return items

    @property
    def top(self) -> Any:
        """The top of the stack, left there."""
        self._need(1)
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        if not self.marks:
            raise Damage(f"the pickle takes a mark that is not there, before byte {self.at}")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def recall(self, key: int) -> None:
        """Push what the memo holds under `key`."""
        if key not in self.memo:
            raise Damage(f"the pickle refers to object {show(key)}, which is not there, before byte {self.at}")
        self.stack.append(self.memo[key])

    def remember(self, key: int) -> None:
        """Put the top of the stack into the memo."""
        self.spend(COST_MEMO)
        self.memo[key] = self.top


# ---- what opcodes share


def _text(raw: bytes) -> str | bytes:
    # Python 2 wrote names and the bytes of arrays alike; what is no text stays bytes.
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _integer(raw: bytes) -> int:
    if len(raw) > MAX_INTEGER_BYTES:
        raise Damage(f"the pickle holds an integer of {len(raw)} bytes, more than {MAX_INTEGER_BYTES}")
    return int.from_bytes(raw, "little", signed=True)


def _digits(raw: bytes) -> str:
    if len(raw) > MAX_DIGITS:
        raise Damage(f"the pickle holds a number of {len(raw)} digits, more than {MAX_DIGITS}")
    return raw.decode("ascii").strip().rstrip("L")


def _decimal(m: Machine) -> int:
    return int(_digits(m.line()))


def _int(m: Machine) -> None:
    if m.data[m.at : m.at + 3] in (b"00\n", b"01\n"):
        m.push(m.line() == b"01")
    else:
        m.push(_decimal(m))


def _string(m: Machine) -> None:
    raw = m.line().strip()
    if len(raw) < 2 or raw[:1] not in (b"'", b'"') or raw[-1:] != raw[:1]:
        raise Damage("the pickle holds a string without quotes")
    m.push(_text(codecs.escape_decode(raw[1:-1])[0]))


def _unicode(m: Machine, raw: bytes) -> None:
    m.push(str(raw, "utf-8", "surrogatepass"))


def _collect(m: Machine, kind: type[list[Any]] | type[tuple[Any, ...]]) -> None:
    items = m.pop_mark()
    m.push(kind(items), COST_CONTAINER + COST_ITEM * len(items))


def _tuple(m: Machine, n: int) -> None:
    m.push(tuple(m.pop_many(n)), COST_CONTAINER)


def _put(m: Machine, items: list[Any]) -> None:
    target = m.top
    m.spend(4 * COST_ITEM * len(items))
    pairs = zip(items[::2], items[1::2], strict=True)
    if isinstance(target, Node):
        target.entries = Dictionary() if target.entries is None else target.entries
        target.entries.put(pairs)
    elif isinstance(target, Dictionary):
        target.put(pairs)
    else:
        m.warnings.note_change(target, items)


def _dictionary(m: Machine) -> None:
    items = m.pop_mark()
    m.push(Dictionary(), COST_CONTAINER)
    _put(m, items)


def _extend(m: Machine, items: list[Any]) -> None:
    target = m.top
    m.spend(COST_ITEM * len(items))
    if isinstance(target, Node):
        m.warnings.note_hook(target, ("append", "extend", "add"), items)
        target.items.extend(items)
    elif isinstance(target, list):
        target.extend(items)
    else:
        m.warnings.note_change(target, items)


def _build(m: Machine) -> None:
    state, target = m.pop(), m.top
    if isinstance(target, Node):
        m.warnings.note_hook(target, ("__setstate__",), [state])
        target.build(state)
    elif isinstance(target, Stateful):
        target.set_state(state)
    else:
        m.warnings.note_change(target, [state])


def _global(m: Machine, module: Any, name: Any) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise Damage(f"the pickle names a global {show(module, 40)}.{show(name, 40)} that is not text")
    m.spend(COST_GLOBAL)
    named = Global(_PYTHON_2.get(module, module), name)
    m.warnings.note_global(named)
    return named


def _named(m: Machine) -> Global:
    return _global(m, m.line().decode("utf-8", "replace"), m.line().decode("utf-8", "replace"))


def _extension(m: Machine, code: int) -> None:
    m.push(_global(m, "copyreg", f"extension_{code}"))


def _call(m: Machine, function: Any, arguments: Any) -> None:
    """What REDUCE, INST and OBJ do: call something, in a real unpickler."""
    builder = m.builders.get(str(function)) if isinstance(function, Global) else None
    if builder is None:
        m.warnings.note_call(function, arguments)
        m.push(Node(function, arguments), COST_NODE)
        return
    try:
        m.push(builder(m, arguments), COST_NODE)
    except (TypeError, ValueError, IndexError, AttributeError, LookupError, OverflowError) as error:
        raise Damage(f"the pickle builds a {function} from {show(as_python(arguments))}") from error


def _obj(m: Machine) -> None:
    items = m.pop_mark()
    if not items:
        raise Damage("the pickle makes an object of no class")
    _call(m, items[0], tuple(items[1:]))


def _new(m: Machine, keywords: bool = False) -> None:
    cls, arguments, *named = m.pop_many(3 if keywords else 2)
    builder = m.builders.get(str(cls)) if isinstance(cls, Global) else None
    if builder is not None and not keywords:
        return _call(m, cls, arguments)
    m.warnings.note_instance(cls, arguments)
    return m.push(Node(cls, (arguments, *named) if keywords else arguments), COST_NODE)


def _pop(m: Machine) -> None:
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m.pop()


def _mark(m: Machine) -> None:
    m.spend(COST_MARK)
    m.marks.append(len(m.stack))


def _protocol(m: Machine) -> None:
    if (version := ord(m.take(1))) > MAX_PROTOCOL:
        raise Damage(f"the pickle says protocol {version}, newer than any Python of today")


def _buffer(m: Machine) -> None:
    raise Damage("the pickle's data lie in buffers outside of it", "save it again with torch.save")


_OPCODES: dict[bytes, Callable[[Machine], object]] = {
    # numbers and constants
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _int,
    b"L": lambda m: m.push(_decimal(m)),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(ord(m.take(1))),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.push(_integer(m.counted("<B"))),
    b"\x8b": lambda m: m.push(_integer(m.counted("<i"))),
    b"F": lambda m: m.push(float(_digits(m.line()))),
    b"G": lambda m: m.push(m.number(">d")),
    # strings and bytes
    b"S": _string,
    b"T": lambda m: m.push(_text(m.counted("<i"))),
    b"U": lambda m: m.push(_text(m.counted("<B"))),
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    b"X": lambda m: _unicode(m, m.counted("<I")),
    b"\x8c": lambda m: _unicode(m, m.counted("<B")),
    b"\x8d": lambda m: _unicode(m, m.counted("<Q")),
    b"B": lambda m: m.push(m.counted("<I")),
    b"C": lambda m: m.push(m.counted("<B")),
    b"\x8e": lambda m: m.push(m.counted("<Q")),
    b"\x96": lambda m: m.push(m.counted("<Q")),
    # containers; a set is a list here, since its members need not be hashable once they are inert
    b"]": lambda m: m.push([], COST_CONTAINER),
    b"}": lambda m: m.push(Dictionary(), COST_CONTAINER),
    b"\x8f": lambda m: m.push([], COST_CONTAINER),
    b")": lambda m: m.push(()),
    b"(": _mark,
    b"t": lambda m: _collect(m, tuple),
    b"l": lambda m: _collect(m, list),
    b"d": _dictionary,
    b"\x91": lambda m: _collect(m, list),
    b"\x85": lambda m: _tuple(m, 1),
    b"\x86": lambda m: _tuple(m, 2),
    b"\x87": lambda m: _tuple(m, 3),
    b"a": lambda m: _extend(m, m.pop_many(1)),
    b"e": lambda m: _extend(m, m.pop_mark()),
    b"\x90": lambda m: _extend(m, m.pop_mark()),
    b"s": lambda m: _put(m, m.pop_many(2)),
    b"u": lambda m: _put(m, m.pop_mark()),
    # the stack and the memo
    b"0": _pop,
    b"1": lambda m: m.pop_mark(),
    b"2": lambda m: m.push(m.top),
    b"g": lambda m: m.recall(_decimal(m)),
    b"h": lambda m: m.recall(ord(m.take(1))),
    b"j": lambda m: m.recall(m.number("<I")),
    b"p": lambda m: m.remember(_decimal(m)),
    b"q": lambda m: m.remember(ord(m.take(1))),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    # what a real unpickler would import, call or build
    b"c": lambda m: m.push(_named(m)),
    b"\x93": lambda m: m.push(_global(m, *m.pop_many(2))),
    b"\x82": lambda m: _extension(m, ord(m.take(1))),
    b"\x83": lambda m: _extension(m, m.number("<H")),
    b"\x84": lambda m: _extension(m, m.number("<i")),
    b"R": lambda m: _call(m, *m.pop_many(2)),
    b"i": lambda m: _call(m, _named(m), tuple(m.pop_mark())),
    b"o": _obj,
    b"\x81": _new,
    b"\x92": lambda m: _new(m, keywords=True),
    b"b": _build,
    b"P": lambda m: m.push(m.persistent(_text(m.line())), COST_CONTAINER),
    b"Q": lambda m: m.push(m.persistent(m.pop()), COST_CONTAINER),
    # framing
    b"\x80": _protocol,
    b"\x95": lambda m: m.number("<Q"),
    b"\x97": _buffer,
    b"\x98": _buffer,
}
