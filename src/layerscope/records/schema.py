"""The schema of records: each type has a codec, which writes its values as JSON, and checks and reads JSON from anyone.

A record is declared once, by its dataclasses. The codec of each follows from the types of its fields:

    str, bool               as JSON has them
    int, Signed             a whole number from 0 on; any whole number
    float, Share            a number, which may be NaN or infinite; one that is not outside of 0 to 1
    X | None, Literal["a"], list[X], Sequence[X], tuple[X, ...], tuple[X, Y]
    dict[str, X]            a list of X, each of which has a `key` of its own
    Columns, Total, Maps    statistics and maps, as docs/record.md describes them
    a dataclass             a table of its fields, and of others that are skipped; `_contradiction` of the class returns
                            what is wrong with the whole, or ""

`Annotated[NDArray[np.uint8], "h w 3"]` is an array with these axes: a letter stands for one size within a table and the
tables inside of it. An array is named by its place in the JSON. `Annotated[X, codec]` has a codec of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import cache
from itertools import repeat
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np

from layerscope.records.arrays import Arrays, Packed
from layerscope.records.maps import Maps
from layerscope.stats import Columns

__all__ = ["MOST", "OPTIONAL", "Codec", "Share", "Signed", "Stored", "Total", "facts", "of", "one_of"]

#: levels of lists and tables inside of each other
MOST_LEVELS = 20
#: what fits the int64 of numpy and the numbers of a page's JSON reader alike
MOST = 2**53


class Codec(NamedTuple):
    """How values of a type are read and written; JSON has them as they are where `write` is None.

    `read` raises ValueError for a value of another type: what is wrong, before which callers put the place.
    """

    read: Callable[[Any, Arrays], Any]
    write: Callable[[Any, str, Packed], Any] | None = None


class Stored(NamedTuple):
    """How a field stands in the JSON of a table."""

    name: str | None = None  # where it is another; of the property that is written. "": its own fields stand there
    optional: bool = False  # older files do not have it


OPTIONAL = Stored(optional=True)


class _Part(NamedTuple):
    """A field of a table: its name in Python and in JSON."""

    field: str
    name: str
    optional: bool
    codec: Codec


def _at(place: str | int, error: ValueError) -> ValueError:
    text = str(error)
    return ValueError(f"{place}{text}" if place == "" or text[:1] in " :" else f"{place}.{text}")


def _scalar(what: str, fits: Callable[[Any], bool]) -> Codec:
    def read(value: Any, _arrays: Arrays) -> Any:
        if not fits(value):
            raise ValueError(f" is not {what}")
        return value

    return Codec(read)


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= MOST


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_whole(value)


def _is_plain(value: Any, levels: int = MOST_LEVELS) -> bool:
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_plain(part, levels - 1) for part in parts)
    return type(value) is not int or _is_whole(value)


_TEXT = _scalar("a text", lambda value: type(value) is str)
_WHOLE = _scalar("a whole number from 0 on", lambda value: _is_whole(value) and value >= 0)
_PLAIN = _scalar(f"plain: {MOST_LEVELS} levels at most, and whole numbers of 53 bits", _is_plain)
_SHARE = _scalar("a share from 0 to 1", lambda value: _is_number(value) and not (value < 0 or value > 1))
Signed: TypeAlias = Annotated[int, _scalar("a whole number", _is_whole)]
Share: TypeAlias = Annotated[float, _SHARE]


def one_of(*values: str) -> Codec:
    """One of some texts."""
    return _scalar(f"one of {', '.join(map(repr, values))}", lambda value: type(value) is str and value in values)


def _maybe(codec: Codec) -> Codec:
    write = codec.write
    return Codec(
        lambda value, arrays: None if value is None else codec.read(value, arrays),
        write and (lambda value, place, packed: None if value is None else write(value, place, packed)),
    )


def _listed(codecs: Sequence[Codec], make: Callable[[list[Any]], Any], count: int | None = None) -> Codec:
    """A list with one value for each codec; of any length, without a count, for the only codec."""
    each: Iterable[Codec] = codecs if count else repeat(codecs[0])

    def read(value: Any, arrays: Arrays) -> Any:
        if type(value) is not list or count not in (None, len(value)):
            raise ValueError(" is not a list" if count is None else f" is not a list of {count}")
        parts: list[Any] = []
        try:
            parts.extend(codec.read(part, arrays) for codec, part in zip(each, value, strict=False))
        except ValueError as error:
            raise _at(len(parts), error) from None
        return make(parts)

    def write(value: Iterable[Any], place: str, packed: Packed) -> list[Any]:
        pairs = enumerate(zip(each, value, strict=False))
        return [codec.write(part, f"{place}.{at}", packed) if codec.write else part for at, (codec, part) in pairs]

    return Codec(read, write if any(codec.write for codec in codecs) else None)


def _keyed(codec: Codec) -> Codec:
    def made(parts: list[Any]) -> dict[str, Any]:
        keyed = {part.key: part for part in parts}
        if len(keyed) < len(parts):
            raise ValueError(" has the same key twice")
        return keyed

    read, write = _listed([codec], made)
    return Codec(read, write and (lambda value, place, packed: write(value.values(), place, packed)))


def _table(parts: Sequence[_Part], make: Callable[..., Any]) -> Callable[[Any, Arrays], Any]:
    """What reads a table; `make` takes its fields."""

    def read(value: Any, arrays: Arrays) -> Any:
        if type(value) is not dict:
            raise ValueError(" is not a table")
        outer, arrays.sizes = arrays.sizes, arrays.sizes.copy()
        made, name = {}, ""
        try:
            for field, name, optional, codec in parts:
                if name in value or not optional:
                    made[field] = codec.read(value[name] if name else value, arrays)
        except KeyError:
            raise ValueError(f"{name} is missing") from None
        except ValueError as error:
            raise _at(name, error) from None
        arrays.sizes = outer
        return make(**made)

    return read


def _part(field: str, hint: Any) -> _Part:
    mark = next((mark for mark in get_args(hint) if isinstance(mark, Stored)), Stored())
    return _Part(field, field if mark.name is None else mark.name, mark.optional, of(hint))


def _dataclass(kind: Any) -> Codec:
    hints = get_type_hints(kind, include_extras=True)
    parts = [_part(field.name, hints[field.name]) for field in fields(kind)]

    def checked(**fields: Any) -> Any:
        made = kind(**fields)
        if wrong := made._contradiction():
            raise ValueError(f": {wrong}")
        return made

    def write(value: Any, place: str, packed: Packed) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for field, name, _, codec in parts:
            part = getattr(value, name or field)
            if codec.write:
                part = codec.write(part, f"{place}.{name}" if place else name, packed)
            if name:
                table[name] = part
            else:
                table.update(part)
        return table

    return Codec(_table(parts, checked if hasattr(kind, "_contradiction") else kind), write)


def facts(**known: Any) -> Codec:
    """A table of anything plain; some of its fields are of a known type, where they are there."""
    codecs = {name: of(kind) for name, kind in known.items()}

    def read(value: Any, arrays: Arrays) -> Any:
        if type(value) is not dict:
            raise ValueError(" is not a table")
        for name, part in value.items():
            try:
                codecs.get(name, _PLAIN).read(part, arrays)
            except ValueError as error:
                raise _at(name, error) from None
        return value

    return Codec(read)


def _array(dtype: type[np.generic], axes: str, read: Callable[..., Any] = Arrays.read) -> Codec:
    return Codec(
        lambda value, arrays: read(arrays, _TEXT.read(value, arrays), dtype, axes),
        lambda value, place, packed: packed.put(place, value, dtype),
    )


def _put_maps(maps: Maps, place: str, packed: Packed) -> dict[str, Any]:
    codes = packed.put(f"{place}.codes", maps.codes, np.uint8)
    ends = packed.put(f"{place}.range", np.stack([maps.lo, maps.hi]), np.float32)
    return {"codes": codes, "range": ends, "reduced": maps.reduced}


def _maps(codes: Any, range: Any, reduced: int) -> Maps:
    shape, source = codes
    if 0 in shape:
        raise ValueError(f": maps of {shape}")
    return Maps(range[0], range[1], shape, source, reduced)


_MAPS = {"codes": _array(np.uint8, "M h w", Arrays.later), "range": _array(np.float32, "2 M"), "reduced": _WHOLE}
_KNOWN: dict[Any, Codec] = {
    str: _TEXT,
    bool: _scalar("true or false", lambda value: type(value) is bool),
    int: _WHOLE,
    float: _scalar("a number", _is_number),
    Columns: Codec(
        lambda value, arrays: arrays.statistics(_TEXT.read(value, arrays), "C"),
        lambda value, place, packed: packed.statistics(place, value),
    ),
    Maps: Codec(_table([_Part(name, name, False, codec) for name, codec in _MAPS.items()], _maps), _put_maps),
}
Total: TypeAlias = Annotated[
    Columns, Codec(lambda value, arrays: arrays.total(value), lambda value, place, packed: packed.total(value))
]


@cache
def of(kind: Any) -> Codec:
    """The codec of a type."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind in _KNOWN:
        return _KNOWN[kind]
    if origin is Annotated and isinstance(inside[1], str):
        return _array(get_args(get_args(inside[0])[1])[0], inside[1])
    if origin is Annotated:
        return inside[1] if isinstance(inside[1], Codec) else of(inside[0])
    if origin in (Union, UnionType):
        return _maybe(of(inside[0]))
    if origin is Literal:
        return one_of(*inside)
    if origin is dict:
        return _keyed(of(inside[1]))
    if origin is tuple and inside[-1] is not ...:
        return _listed([of(part) for part in inside], tuple, len(inside))
    if origin in (tuple, list, Sequence):
        return _listed([of(inside[0])], tuple if origin is tuple else list)
    return _dataclass(kind)
