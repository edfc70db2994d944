"""What the inert unpickler makes in place of Python objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from layerscope.checkpoints.storage import show

__all__ = ["Dictionary", "Global", "Node", "Opaque", "Stateful", "as_python"]


@dataclass(slots=True, frozen=True, eq=False)
class Global:
    """A class, function or constant that the pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
class Opaque:
    """A dictionary key that is compared by identity."""

    value: object


class Dictionary(dict[Any, Any]):
    """A dict whose keys can neither recurse nor collide by design of the file."""

    def __init__(self, pairs: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__()
        self.put(pairs)

    def put(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Set items; a key that is no plain value becomes an `Opaque`."""
        for key, value in pairs:
            self[key if _plain(key) else Opaque(key)] = value


def _plain(key: object) -> bool:
    # Hashing a deeply nested tuple overflows the C stack, and integers beyond 2**61 can be chosen to collide.
    if type(key) is int:
        return -1 << 60 < key < 1 << 60
    return key is None or type(key) in (str, bytes, float, bool)


#: attributes that an unpickler looks up by name and calls
HOOKS = ("__setstate__", "append", "extend", "add")


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """An object that was not made: what would have made it, from what, and what was put into it since."""

    maker: Any
    arguments: Any = ()
    attributes: Dictionary = field(default_factory=Dictionary)
    hooks: dict[str, Any] = field(default_factory=dict)
    items: list[Any] = field(default_factory=list)
    entries: Dictionary | None = None

    def build(self, state: Any) -> None:
        """Take a state, as a pickle has it: attributes, or a pair of attributes and slots."""
        for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
            if isinstance(part, Dictionary) and part:
                self.attributes = part
                self.hooks |= {name: part[name] for name in HOOKS if name in part}


def as_python(value: Any, depth: int = 4) -> str:
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
        return as_python(value.value, depth - 1)
    if isinstance(value, Node):
        inner = as_python(value.arguments, depth - 1)
        return f"{as_python(value.maker, depth - 1)}{inner if inner.startswith('(') else f'({inner})'}"
    if isinstance(value, (tuple, list)):
        inner = ", ".join(as_python(item, depth - 1) for item in value[:3]) + (", ..." if len(value) > 3 else "")
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, Dictionary):
        pairs = [f"{as_python(key, 1)}: {as_python(item, depth - 1)}" for key, item in list(value.items())[:3]]
        return "{" + ", ".join(pairs) + "}"
    return f"<{type(value).__name__}>"


class Stateful:
    """Plain data that takes its content from a BUILD opcode."""

    def set_state(self, state: Any) -> None:
        """Take `state`."""
        raise NotImplementedError
