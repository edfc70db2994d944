"""Numbers, shapes and foreign names as text, for every view alike."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "counted", "encodable", "finite", "first_of", "json_text", "nearest", "number", "printable", "shape", "some",
    "spaced",
]  # fmt: skip

#: of a name that is compared and shown
_MOST_LETTERS = 200


def printable(text: str) -> str:
    """The text with a question mark for each character that could steer a terminal or break a line.

    Names of tensors, layers and classes come from files.
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def nearest(word: str, known: Iterable[str], n: int = 3) -> str:
    """The names in `known` that look most like `word`, as the end of an error line ("" if there are none)."""
    # They come from files: of any length, with any character.
    names = list(dict.fromkeys(printable(name[:_MOST_LETTERS]) for name in known))
    close = difflib.get_close_matches(word[:_MOST_LETTERS], names, n=n, cutoff=0.3)
    return f"; nearest: {', '.join(close)}" if close else ""


def number(value: float) -> str:
    """Three significant digits, no exponent where a person would write none."""
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text and 1e-3 <= abs(value) < 1e6 else text


def counted(count: int, what: str) -> str:
    """1 tensor, 2 tensors, 1,024 tensors, 10 classes"""
    plural = "es" if what.endswith("s") else "s"
    return f"{count:,} {what}{'' if count == 1 else plural}"


def some(names: Sequence[object], most: int = 3) -> str:
    """a, b, c and 4 more"""
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def first_of(names: Sequence[object], most: int = 3) -> str:
    """a, b, c, ..."""
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")


def shape(sizes: Sequence[int]) -> str:
    """48x55x55; `scalar` for no axis."""
    return "x".join(map(str, sizes)) or "scalar"


def spaced(sizes: Sequence[int]) -> str:
    """48 x 55 x 55"""
    return shape(sizes).replace("x", " x ")


def finite(value: Any, word: Callable[[float], str | None] = lambda _: None) -> Any:
    """The same plain data with None, or a `word`, for NaN and infinities, which JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else word(value)
    if isinstance(value, Mapping):
        return {str(key): finite(part, word) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part, word) for part in value]
    return value


def json_text(document: Any, indent: int | None = None) -> str:
    """Plain data as JSON, without a blank too many where there is no `indent`; NaN and infinities become null.

    What is no character, such as half of a file's name that is no UTF-8, becomes a question mark.
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(finite(document), allow_nan=False, ensure_ascii=False, indent=indent, separators=separators)
    return encodable(text)


def encodable(text: str) -> str:
    """The text with a question mark for what cannot be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()
