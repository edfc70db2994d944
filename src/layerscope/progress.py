"""How far a piece of work is: what is called while it runs."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "quiet"]

#: done, of, what: called often, from the thread that works
Progress = Callable[[int, int, str], None]


def quiet(_done: int, _of: int, _what: str) -> None:
    """No progress to show."""
