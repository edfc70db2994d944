"""The table of statistics: each figure that is known of a channel or a tensor stands here once.

`Columns` keeps those that are stored; files, JSON, CSV, TensorBoard, the terminal, captions and the page go over this
table and know no name of their own. A new figure that follows from the stored ones is one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .columns import Columns

__all__ = ["STATISTICS", "Statistic", "figures", "shown"]


@dataclass(frozen=True)
class Statistic:
    """One figure of a channel or tensor.

    `name`: in Python, JSON, CSV and the index of the viewer. `label`: as people read it. `type`: a float64 in the unit
    of the values, or an int64 that counts values. `of`: the figure of every element of some columns, the same shape.
    `brief`: whether it stands in tables and captions for people too; everything else shows all of them.
    """

    name: str
    label: str
    type: Literal["float", "count"]
    text: str
    of: Callable[[Columns], NDArray[Any]]
    brief: bool = False


#: in the order in which every view shows them
STATISTICS: list[Statistic] = [
    Statistic("mean", "mean", "float", "mean of the finite values", lambda c: c.mean, brief=True),
    Statistic("std", "std", "float", "standard deviation with ddof 1", lambda c: c.std, brief=True),
    Statistic("min", "min", "float", "least finite value", lambda c: c.min, brief=True),
    Statistic("max", "max", "float", "greatest finite value", lambda c: c.max, brief=True),
    Statistic("zeros", "zeros", "count", "values that are zero, -0.0 among them", lambda c: c.zeros),
    Statistic("nan", "NaN", "count", "values that are not a number", lambda c: c.nan),
    Statistic("inf", "inf", "count", "values that are infinite, of either sign", lambda c: c.inf),
]


def shown(brief: bool = False) -> list[Statistic]:
    """The statistics that a view shows, in order; `brief`: those that stand in tables for people."""
    return [statistic for statistic in STATISTICS if statistic.brief or not brief]


def figures(columns: Columns, brief: bool = False) -> dict[str, list[float] | list[int]]:
    """Every figure by its name, as lists of Python's own numbers, one element a channel."""
    return {statistic.name: np.ravel(statistic.of(columns)).tolist() for statistic in shown(brief)}
