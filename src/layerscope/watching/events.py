"""What happened to a network in training, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Event"]

#: a list of channels is cut here, the number in the text is not
_MOST = 1000


@dataclass(frozen=True)
class Event:
    """`kind`: dead, non-finite, exploding, vanishing, skipped, note. `layer`: a path or a tensor's name; "" for all.

    `text` is what a person is told, without the step.
    """

    step: int
    kind: str
    layer: str
    text: str
    channels: list[int] = field(default_factory=list)

    def packed(self) -> dict[str, Any]:
        """For the index, whose line has the step."""
        return {"kind": self.kind, "layer": self.layer, "text": self.text, "channels": self.channels[:_MOST]}

    def __str__(self) -> str:
        return f"step {self.step}: {self.text}"
