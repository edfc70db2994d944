"""The kinds of record: one descriptor each. Views ask it instead of comparing names, and have a table by kind."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """What sets one kind of record apart from the others.

    `subjects`: what it is about, one field in JSON each; a comparison has two. `entry`: what people call one of its
    entries; "" where the record decides. `dataset`: over a data set, with the best examples of each channel for maps.
    """

    name: str
    subjects: tuple[str, ...]
    entry: str = "layer"
    dataset: bool = False

    @property
    def compares(self) -> bool:
        """Whether it has two sides, whose maps of one size are subtracted."""
        return len(self.subjects) > 1


#: by the name that a record has in `kind`
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("features", ("network",)),
        Kind("weights", ("checkpoint",), entry="tensor"),
        # Layers of two networks, or tensors of two checkpoints.
        Kind("compare", ("a", "b"), entry=""),
        Kind("survey", ("network",), dataset=True),
    )
}
