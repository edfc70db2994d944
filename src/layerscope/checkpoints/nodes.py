"""What the inert unpickler gives in place of Python objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Dictionary", "Global", "Node", "Opaque", "Stateful"]


@dataclass(slots=True, frozen=True, eq=False)
class Global:
    """A class, function or constant that the pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
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


@dataclass(slots=True, eq=False)
class Node:
    """An object that was not made: what would have made it, from what, and what was put into it since."""

    maker: Any
    arguments: Any = ()
    states: list[Any] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    entries: Dictionary | None = None

    def attribute(self, name: str) -> Any:
        """The attribute that the object's state would have given it, None if there is none."""
        for state in reversed(self.states):
            for part in reversed(state) if isinstance(state, tuple) and len(state) == 2 else (state,):
                if isinstance(part, dict) and name in part:
                    return part[name]
        return None

    @property
    def attributes(self) -> Dictionary:
        """The last dictionary that the object's state would have set."""
        for state in reversed(self.states):
            for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
                if isinstance(part, Dictionary):
                    return part
        return Dictionary()


class Stateful(ABC):
    """Plain data that takes its content from a BUILD opcode."""

    @abstractmethod
    def set_state(self, state: Any) -> None:
        """Take `state`."""
