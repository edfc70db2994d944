"""Arrays as the kernels want them, without a copy where there need not be one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["plain"]


class _Alias:
    """The memory of an array under numpy's array interface, without the read-only flag."""

    def __init__(self, array: NDArray) -> None:
        self.array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def plain(array: NDArray) -> NDArray:
    """The same memory as an array that says it is writable.

    numba takes a read-only array, such as a memory map, for another type and would compile every kernel
    twice. The kernels never write to their input.
    """
    if array.flags.writeable:
        return array.view(np.ndarray)
    return np.asarray(_Alias(array))
