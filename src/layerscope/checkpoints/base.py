"""What every reader of a checkpoint returns: a list of tensors before any is read, then one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from layerscope.checkpoints.storage import Damage, guarded, show
from layerscope.dtypes import itemsize
from layerscope.files import version, written_over

__all__ = ["Checkpoint", "Listing", "Loader", "TensorSpec", "plain_values"]

MAX_EXTRA, MAX_TEXT = 200, 300

#: returns the elements of a tensor
Loader = Callable[[], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that is known but not read: its name, shape and element type.

    `role` is "weight" for what belongs to the network and "optimizer" for what only training needs.
    `tied` is the name of an earlier tensor that shares all of its memory, "" if there is none.
    `unreadable` says why the elements cannot be read, "" if they can; `dtype` may then be none of
    `layerscope.dtypes.STORAGE`, and `stored_bytes` is what the tensor takes up in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str = "weight"
    tied: str = ""
    unreadable: str = ""
    stored_bytes: int = -1

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, as the element type stores them."""
        return self.stored_bytes if self.stored_bytes >= 0 else self.count * itemsize(self.dtype)


@dataclass
class Checkpoint:
    """An open checkpoint. Use it as a context manager; it holds the file mapped until it is closed."""

    path: Path
    format: str
    specs: Sequence[TensorSpec]
    loaders: Mapping[str, Loader] = field(repr=False)
    #: dotted names of the globals in the pickle that are no part of plain torch, numpy or Python data
    foreign: Sequence[str] = ()
    #: one line each, for a person: what a pickle would have executed, what was skipped and why
    warnings: Sequence[str] = ()
    #: see `plain_values`
    extra: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._version = version(self.path)

    def read(self, spec: TensorSpec) -> NDArray[Any]:
        """The elements of one tensor, shaped, as the bits of `dtypes.STORAGE`; read-only, mapped if possible.

        The array keeps the file mapped, also after `close`. It need be neither contiguous nor aligned.
        Raises CheckpointError if the tensor is not part of this file, cannot be read, or the file is closed or has
        been written over: where it is shorter now, to look at the rest of what is mapped would end the process.
        """
        with guarded(self.path):
            if written_over(self.path, self._version):
                raise Damage("has been written over while it was read", "wait until it is complete, and start again")
            if spec.unreadable:
                raise Damage(f"{show(spec.name)} has no readable elements: {spec.unreadable}", "skip this tensor")
            if spec.name not in self.loaders:
                state = "is closed" if self.specs and not self.loaders else f"has no tensor {show(spec.name)}"
                raise Damage(f"the checkpoint {state}", "open it again and take a spec from it")
            array = self.loaders[spec.name]()
            array.flags.writeable = False
            return array

    def close(self) -> None:
        """Let the file go; arrays that were read stay valid, and the last of them unmaps the file."""
        self.loaders = {}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def plain_values(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """What a file holds beside its tensors, such as {"epoch": 7}: numbers and short texts, some hundred at most."""
    values: dict[str, object] = {}
    for key, value in pairs:
        short = type(value) in (bool, float) or (type(value) is int and not abs(value) >> 64)
        if (short or (isinstance(value, str) and len(value) <= MAX_TEXT)) and len(values) < MAX_EXTRA:
            values[show(key)] = value
    return values


class Listing:
    """The tensors of a file, as a reader comes by them."""

    def __init__(self) -> None:
        self.specs: list[TensorSpec] = []
        self.loaders: dict[str, Loader] = {}
        self._first: dict[tuple[object, ...], str] = {}
        self._numbers: dict[str, int] = {}

    def add(self, spec: TensorSpec, loader: Loader | None = None) -> None:
        """A tensor, and how to read it if it can be."""
        self.specs.append(spec)
        if loader is not None and not spec.unreadable:
            self.loaders[spec.name] = loader

    def unique(self, name: str) -> str:
        """The name, numbered where it has been asked for before: {"a.b": x, "a": {"b": y}} has "a.b" and "a.b#2"."""
        unique = name
        while unique in self._numbers:
            self._numbers[name] += 1
            unique = f"{name}#{self._numbers[name]}"
        self._numbers[unique] = 1
        return unique

    def tied(self, name: str, *memory: object) -> str:
        """The name of the first tensor that has the same memory, "" if that is this one."""
        first = self._first.setdefault(memory, name)
        return "" if first == name else first

    def skipped(self) -> list[str]:
        """One line for each reason, not for each tensor: a quantised network has hundreds alike."""
        reasons: dict[str, list[str]] = {}
        for spec in self.specs:
            if spec.unreadable:
                reasons.setdefault(spec.unreadable, []).append(spec.name)
        return [
            f"{show(names[0])}{f' and {len(names) - 1} more' if len(names) > 1 else ''} cannot be read: {reason}"
            for reason, names in reasons.items()
        ]

    def checkpoint(self, path: Path, format: str, extra: dict[str, object] | None = None) -> Checkpoint:
        """The checkpoint that has these tensors."""
        return Checkpoint(path, format, self.specs, self.loaders, warnings=self.skipped(), extra=extra or {})
