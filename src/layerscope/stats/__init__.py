"""Fused numeric kernels: every statistic of a tensor in one reading, exact histograms, 8-bit codes.

No torch. numba is imported, and a kernel compiled or taken from numba's cache, when it is first needed.
"""

from .channels import activations, quantize
from .columns import Columns, merge, total
from .tensors import Distribution, distribution

__all__ = ["Columns", "Distribution", "activations", "distribution", "merge", "quantize", "total", "warm"]


def warm() -> None:
    """Compile every kernel, or take it from numba's cache. Called at set-up, so that no first run waits."""
    from .kernels import warm

    warm()
