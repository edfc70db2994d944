"""What the JSON of a record says, checked by type before anything is made of it: a record may come from anyone.

Every check takes a value and where it stands, and raises ValueError for a value of another kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["check"]

Check = Callable[[Any, str], None]

#: levels of lists and tables inside of each other
MOST_LEVELS = 20
#: what fits the int64 of numpy and the numbers of a page's JSON reader alike
MOST = 2**53


def _lie(where: str, what: str) -> ValueError:
    return ValueError(f"{where} is not {what}")


def _text(value: Any, where: str) -> None:
    if not isinstance(value, str):
        raise _lie(where, "a text")


def _flag(value: Any, where: str) -> None:
    if not isinstance(value, bool):
        raise _lie(where, "true or false")


def _whole(value: Any, where: str) -> None:
    if type(value) is not int or not 0 <= value <= MOST:
        raise _lie(where, "a whole number from 0 on")


def _integer(value: Any, where: str) -> None:
    if type(value) is not int or abs(value) > MOST:
        raise _lie(where, "a whole number")


def _place(value: Any, where: str) -> None:
    if not isinstance(value, str):
        _whole(value, where)


def _number(value: Any, where: str) -> None:
    if type(value) is not float:
        _integer(value, where)


def _share(value: Any, where: str) -> None:
    _number(value, where)
    if value < 0 or value > 1:  # NaN is what a network with NaN gives
        raise _lie(where, "a share from 0 to 1")


def _plain(value: Any, where: str, levels: int = MOST_LEVELS) -> None:
    if not levels:
        raise _lie(where, f"nested in less than {MOST_LEVELS} levels")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            _plain(one, where, levels - 1)
    elif type(value) is int:
        _integer(value, where)


def _maybe(check: Check) -> Check:
    def checked(value: Any, where: str) -> None:
        if value is not None:
            check(value, where)

    return checked


def _many(check: Check, count: int | None = None) -> Check:
    def checked(value: Any, where: str) -> None:
        if not isinstance(value, list) or count not in (None, len(value)):
            raise _lie(where, "a list" if count is None else f"a list of {count}")
        for at, one in enumerate(value):
            check(one, f"{where}.{at}")

    return checked


def _row(*checks: Check) -> Check:
    """A list with one value for each check."""

    def checked(value: Any, where: str) -> None:
        _many(lambda _value, _where: None, len(checks))(value, where)
        for at, check in enumerate(checks):
            check(value[at], f"{where}.{at}")

    return checked


def _table(needed: Mapping[str, Check], known: Mapping[str, Check] | None = None) -> Check:
    """Fields that have to be there, and others that may be; of what else there is, that it is plain."""

    def checked(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _lie(where, "a table")
        for name in needed:
            if name not in value:
                raise ValueError(f"{where}.{name} is missing")
        for name, one in value.items():
            (needed.get(name) or (known or {}).get(name) or _plain)(one, f"{where}.{name}")

    return checked


def _compared(value: Any, where: str) -> None:
    shape, figure = _maybe(_many(_whole)), _maybe(_number)
    _table(
        {
            "name": _text, "status": _text, "shape_a": shape, "shape_b": shape,
            "max_abs": figure, "mean_abs": figure, "cosine": figure,
        }
    )(value, where)  # fmt: skip
    if len({value[name] is None for name in ("max_abs", "mean_abs", "cosine")}) > 1:
        raise ValueError(f"{where} has some of its three figures alone")


def _side(value: Any, where: str) -> None:
    if value not in ("", "a", "b"):
        raise _lie(where, "a, b or nothing")


def _kind(value: Any, where: str) -> None:
    if value not in ("features", "weights", "compare", "survey"):
        raise _lie(where, "one of features, weights, compare and survey")


_PROFILE = _table(
    {
        "images": _whole,
        "classes": _many(_text),
        "copies": _many(_row(_whole, _whole, _number)),
        "rank": _maybe(_number),
        "grid": _many(_whole, 2),
        "lines": _maybe(_many(_many(_integer, 4), 2)),
    }
)

_ENTRY = _table(
    {
        "path": _text,
        "call": _whole,
        "layout": _text,
        "type": _text,
        "shape": _many(_whole),
        "dtype": _text,
        "side": _side,
        "note": _text,
        "columns": _maybe(_text),
        "total": _maybe(_place),
        "histogram": _flag,
        "maps": _many(_table({"codes": _text, "range": _text, "reduced": _whole})),
    },
    {"profile": _maybe(_PROFILE)},
)

_texts = _many(_text)

check: Check = _table(
    {
        "schema": _whole,
        "kind": _kind,
        "subject": _text,
        "subject_b": _text,
        "entries": _many(_ENTRY),
        "pictures": _many(_table({"name": _text, "pixels": _text})),
        "predictions": _many(_many(_table({"index": _integer, "label": _text, "probability": _share}))),
        "findings": _many(_table({"name": _text, "kind": _text, "channels": _many(_integer), "detail": _text})),
        "pairs": _many(_compared),
        "stages": _many(_many(_text, 2)),
        "foreign": _texts,
        "never": _texts,
        "notes": _texts,
        "provenance": _table(
            {}, {"format": _maybe(_text), "architecture": _maybe(_text), "images": _whole, "of": _whole}
        ),
    },
    {
        "classes": _texts,
        "shown": _many(
            _table({"number": _whole, "name": _text, "label": _text, "width": _whole, "height": _whole, "data": _text})
        ),
        "similarity": _maybe(_table({"keys": _texts, "minibatches": _whole})),
    },
)
