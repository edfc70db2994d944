"""A record as one safetensors file: the arrays as tensors, everything else as JSON in its metadata.

The JSON stands under the key `layerscope`; `schema` says what is in it. `docs/record.md` describes the file well enough
to read it without this package.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save as serialised

from layerscope import files
from layerscope.errors import RecordError
from layerscope.records.arrays import Arrays, Packed
from layerscope.records.record import Record
from layerscope.records.schema import OPTIONAL, Signed, of
from layerscope.text import printable

__all__ = ["SCHEMA", "body_of", "load", "save"]

#: raised when an older layerscope could not read a file, or would misread it
SCHEMA = 3


def save(record: Record, path: str | os.PathLike[str]) -> Path:
    """See `Record.save`."""
    arrays: dict[str, NDArray] = {}
    body = json.dumps(body_of(record, arrays), allow_nan=True)
    return files.save(serialised(arrays, metadata={"layerscope": body}), Path(path))


def body_of(record: Record, arrays: dict[str, NDArray]) -> dict[str, Any]:
    """The JSON of a record; its arrays are put into `arrays`, by the names that the JSON gives them."""
    write, packed = of(Record).write, Packed(arrays)
    assert write
    body = {"schema": SCHEMA, **write(record, "", packed)}
    packed.close()
    return body


def load(path: str | os.PathLike[str]) -> Record:
    """Read a record. Maps are read from the file when they are first looked at.

    Raises RecordError for a file that is missing, broken, of a newer schema, or no record at all.

        >>> path = layerscope.weights("net.pth").save("net.layerscope")
        >>> layerscope.load(path).subject
        'net.pth'
    """
    name = os.fspath(path)
    try:
        if not Path(name).is_file():
            raise RecordError(f"{printable(name)}: no such record; make one with --record FILE")
        arrays = Arrays(name)
        body = json.loads(arrays.text)
        schema = body["schema"]
        if type(schema) is not int:
            raise ValueError("schema is not a whole number")
        if schema > SCHEMA:
            raise RecordError(f"{printable(name)}: written by a newer layerscope (schema {schema}); update layerscope")
        if schema < 3:
            _update(body, arrays)
        record: Record = of(Record).read(body, arrays)
        return record
    except RecordError:
        raise
    except (SafetensorError, OSError) as error:
        raise RecordError(
            f"{printable(name)}: is not a record, or is cut off ({_reason(error)}); make it again with --record"
        ) from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RecordError(
            f"{printable(name)}: a safetensors file, but not a whole record ({_reason(error)}); make it again"
        ) from error


def _reason(error: BaseException) -> str:
    missing = " is missing" if isinstance(error, KeyError) else ""
    return printable(" ".join(str(error).split()))[:300] + missing


#: figures of classes by their names before schema 3
_CLASSES = {"preferred_class": "favourite", "selectivity": "selectivity", "eta_squared": "explained"}
_Ends = tuple[Signed, Signed, Signed, Signed]


@dataclass
class _OldProfile:
    """What was otherwise before schema 3: flags said which arrays there are, and the number of the entry named them."""

    examples: bool
    spread: bool
    classes: list[Literal["favourite", "selectivity", "explained"]]
    copies: list[tuple[int, int, float]]
    lines: tuple[_Ends, _Ends] | None

    def update(self, profile: dict[str, Any], number: int) -> None:
        """Make a profile of schema 3 of it."""
        arrays = {name: f"{number}.top.{name}" for name in ("image", "value", "position")}
        arrays["origin"] = f"{number}.top.at"
        profile["examples"] = arrays if self.examples else None
        arrays = {"bins": f"{number}.spread.bins", "counts": f"{number}.spread"}
        profile["histograms"] = arrays if self.spread else None
        profile |= {"inactive": f"{number}.silent", "redundant_channels": profile["copies"]}
        for name, old in _CLASSES.items():
            profile[name] = f"{number}.{old}" if old in self.classes else None
        ends = ("low", "high", "step", "whole")
        profile["lines"] = self.lines and [dict(zip(ends, line, strict=True)) for line in self.lines]


@dataclass
class _OldEntry:
    histogram: bool
    profile: Annotated[_OldProfile | None, OPTIONAL] = None


@dataclass
class _OldRecord:
    entries: list[_OldEntry]


def _update(body: dict[str, Any], arrays: Arrays) -> None:
    """Make schema 3 of schemas 1 and 2."""
    old: _OldRecord = of(_OldRecord).read(body, arrays)
    for number, (entry, was) in enumerate(zip(body["entries"], old.entries, strict=True)):
        entry["histogram"] = {"edges": f"{number}.edges", "counts": f"{number}.bins"} if was.histogram else None
        if was.profile:
            was.profile.update(entry["profile"], number)
    if isinstance(body.get("similarity"), dict):
        body["similarity"]["value"] = "similarity"
